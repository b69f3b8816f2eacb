// Takes the pictures of docs/ anew: three servers, clients that come and go for some minutes, and one
// server that is killed a minute before.
//
//   node tests/e2e/pictures.mjs BINARY FOLDER [MINUTES]

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from './lib/client.mjs';
import { Balancer, browser, live, open } from './lib/page.mjs';
import { freePorts, until } from './lib/processes.mjs';
import { Prosody } from './lib/prosody.mjs';
import { closePages } from './lib/xhr.mjs';

const [binary, folder, minutes = 4] = process.argv.slice(2);
if (!folder) {
  console.error('node tests/e2e/pictures.mjs BINARY FOLDER [MINUTES]');
  process.exit(64);
}
const MOST = 120; // clients at the same time
const EVERY = 3000; // milliseconds

const place = mkdtempSync(path.join(tmpdir(), 'bowline-pictures-'));
const ports = await freePorts(3);
const nodes = ports.map((port, index) => new Prosody(`t${index + 1}`, place, port));
await Promise.all(nodes.map((node) => node.process.listens(node.port)));
const balancer = await Balancer.before(place, binary, nodes);

const clients = [];
let number = 0;
const come = () => {
  number += 1;
  const client = new Client(`c${number}`, balancer.bosh, { wait: 60, every: 2000 + 700 * (number % 9) });
  client.changed = () => client.online && client.talk();
  client.connect();
  clients.push(client);
};
const begun = Date.now();
const end = begun + Number(minutes) * 60_000;
while (Date.now() < end) {
  const part = (Date.now() - begun) / (end - begun);
  const wanted = Math.round(MOST * Math.min(1, 0.35 + 0.9 * part) * (1 + 0.12 * Math.sin(part * 14)));
  for (let more = clients.length; more < wanted && more < clients.length + 12; more += 1) come();
  while (clients.length > wanted) await clients.shift().leave();
  await sleep(EVERY);
}
const killed = Date.now();
nodes[1].process.kill('SIGKILL');
await until('every client is logged in again', 30, () => clients.every((client) => client.online));
await sleep(killed + 58_000 - Date.now());

const chromium = await browser();
const take = async (name, options, full = false) => {
  const page = await open(chromium, balancer.url, options);
  await live(page);
  await sleep(1500);
  await page.screenshot({ path: path.join(folder, name), fullPage: full });
  await page.context().close();
};
await take('page-light.png', { colorScheme: 'light', viewport: { width: 1280, height: 980 } });
await take('page-dark.png', { colorScheme: 'dark', viewport: { width: 1280, height: 980 } });
await take('page-phone.png', { colorScheme: 'light', viewport: { width: 360, height: 1560 } });
await chromium.close();
closePages();
await Promise.all([balancer.process, ...nodes.map((node) => node.process)].map((some) => some.stop()));
rmSync(place, { recursive: true, force: true });
process.exit(0);
