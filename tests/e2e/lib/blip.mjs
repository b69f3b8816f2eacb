// A blip: every connection of many active clients is cut at once, and for a while there is no way through. What
// becomes of their sessions and messages.

import { mkdirSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBowline } from './balancers.mjs';
import { chatter } from './chatter.mjs';
import { Ejabberd } from './ejabberd.mjs';
import { browser } from './page.mjs';
import { Process, freePorts, until } from './processes.mjs';
import { DOMAIN, Prosody } from './prosody.mjs';
import { Relay } from './relay.mjs';
import { closePages, XMLHttpRequest } from './xhr.mjs';

const CLIENTS = 20;
const TALK = 2000; // milliseconds from the logins to the blip
const LATEST = 42_000; // from its end to the last look
const SETTLE = 10; // seconds for what is under way when the talking stops

/** The servers, by name; `serve` starts one at a port. */
export const SERVERS = {
  prosody: (folder, port) => new Prosody('prosody', folder, port),
  ejabberd: (folder, port) => new Ejabberd('ejabberd', folder, port),
  // The scripted node, as Tigase.
  tigase: (folder, port) => {
    const process = new Process('tigase', globalThis.process.env.E2E_NODE, [String(port), DOMAIN], path.join(folder, 'tigase.log'));
    return { process };
  },
};

/** The clients: Node with a connection for each request, Node with kept connections, and Chromium. */
export const CROWDS = ['fresh', 'pooled', 'chromium'];

/** Clients in this process. */
async function crowdInNode(kind, port, options) {
  globalThis.XMLHttpRequest = XMLHttpRequest;
  const strophe = await import('strophe.js');
  strophe.Strophe.setLogLevel(strophe.Strophe.LogLevel.FATAL);
  const clients = Array.from({ length: CLIENTS }, (_, index) => chatter(strophe, `http://127.0.0.1:${port}/http-bind#${kind}-${port}-${index}`, options));
  return {
    look: () => clients.map(({ sent, received, online, ended }) => ({ sent, received, online, ended })),
    async hush() { for (const client of clients) client.talks = false; },
    stop() {
      for (const { connection } of clients) connection._proto._abortAllRequests();
      closePages();
    },
  };
}

/** Clients in one page. Each has a host name of its own, and with it the connections of a browser of its own. */
async function crowdInChromium(port, options) {
  const chromium = await browser(['--host-resolver-rules=MAP *.test 127.0.0.1']);
  const packages = new URL('../node_modules/', import.meta.url);
  const server = http.createServer((request, answer) => {
    answer.writeHead(200, { 'Content-Type': 'text/html' });
    answer.end('<!doctype html><title>chat</title>');
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const page = await chromium.newPage();
  await page.goto(`http://localhost:${server.address().port}/`);
  await page.addScriptTag({ path: new URL('strophe.js/dist/strophe.umd.cjs', packages).pathname });
  await page.evaluate(([code, at, count, how]) => {
    globalThis.Strophe.setLogLevel(globalThis.Strophe.LogLevel.FATAL);
    const begin = (0, eval)(`(${code})`); // eslint-disable-line no-eval
    globalThis.clients = Array.from({ length: count }, (_, index) => begin(globalThis, `http://c${index}.test:${at}/http-bind`, how));
  }, [chatter.toString(), port, CLIENTS, options]);
  return {
    look: () => page.evaluate(() => globalThis.clients.map(({ sent, received, online, ended }) => ({ sent, received, online, ended }))),
    hush: () => page.evaluate(() => { for (const client of globalThis.clients) client.talks = false; }),
    async stop() {
      await chromium.close();
      server.close();
    },
  };
}

const crowd = (kind, port, options) => (kind === 'chromium' ? crowdInChromium(port, options) : crowdInNode(kind, port, options));

/** The longest time without a message, from a little before the blip on. */
function longestGap({ received }, from, to) {
  const times = [from, ...received.map(({ at }) => at).filter((at) => at > from && at < to), to];
  return Math.max(...times.slice(1).map((at, index) => at - times[index]));
}

function story(clients, { began, ended, looked }) {
  const all = { sessions_ended: 0, sent: 0, lost: 0, doubled: 0, swapped: 0, longest_gap_ms: 0, back_ms: 0, reasons: {} };
  for (const client of clients) {
    const ids = client.received.map(({ id }) => id);
    all.sent += client.sent.length;
    all.lost += client.sent.length - new Set(ids).size;
    all.doubled += ids.length - new Set(ids).size;
    all.swapped += ids.filter((id, index) => index > 0 && id < ids[index - 1]).length;
    if (client.ended) {
      all.sessions_ended += 1;
      all.reasons[client.ended.reason] = (all.reasons[client.ended.reason] ?? 0) + 1;
    }
    const gap = longestGap(client, began - 500, looked);
    all.longest_gap_ms = Math.max(all.longest_gap_ms, gap);
  }
  all.back_ms = all.longest_gap_ms - (ended - began);
  return all;
}

/**
 * Plays one blip of `length` milliseconds. `front`: 'none', or Bowline with this `timeouts.retry`. `soon`: milliseconds
 * from its end to the first look. Says what became of the sessions and the messages.
 */
export async function play({ folder, binary, server, clients: kind, front, blip, length, every = 200, wait = 30, soon = 10_000 }) {
  mkdirSync(folder, { recursive: true });
  const [port, balancerPort, admin] = await freePorts(3);
  const node = SERVERS[server](folder, port);
  await node.process.listens(port, 60);
  let bowline;
  if (front !== 'none') {
    const upstream = server === 'ejabberd' ? 'upstream: { release: keep, connects_per_second: 0 }' : '';
    const more = `timeouts: { drain: 1s, retry: ${front} }\n${upstream}`;
    bowline = startBowline(folder, binary, { port: balancerPort, admin, nodes: [{ name: server, port }], more });
    await bowline.started();
  }
  const relay = await Relay.before(bowline ? balancerPort : port);
  const talkers = await crowd(kind, relay.port, { domain: DOMAIN, wait, every });
  try {
    await until('every client is logged in', 60, async () => (await talkers.look()).every(({ online }) => online));
    await sleep(TALK);
    const began = Date.now();
    await relay.blip(blip, length);
    const ended = Date.now();
    await sleep(soon);
    // As soon as all clients are served; otherwise the sessions may still end.
    await until('the end', 3600, async () => {
      const now = Date.now();
      const isServed = ({ received }) => received.length > 0 && received.at(-1).at > now - 5 * every;
      return now > ended + LATEST || (await talkers.look()).every(isServed);
    });
    const looked = Date.now();
    await talkers.hush();
    const isDone = ({ sent, received, ended: over }) => over || new Set(received.map(({ id }) => id)).size === sent.length;
    await until('all is delivered', SETTLE, async () => (await talkers.look()).every(isDone)).catch(() => {});
    return story(await talkers.look(), { began, ended, looked });
  } finally {
    await talkers.stop();
    relay.stop();
    await bowline?.process.stop();
    await node.process.stop();
  }
}
