// What must hold for Strophe.js over WebSocket in front of two real Prosody servers, one of which is killed.
// `run` starts this; options come in the environment.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startBowline } from './lib/balancers.mjs';
import { Client } from './lib/client.mjs';
import { freePorts, until } from './lib/processes.mjs';
import { Prosody } from './lib/prosody.mjs';
import { totalOfMessages, totalOfPings } from './lib/scenario.mjs';

const binary = process.env.E2E_BINARY;
const COUNT = 20;
// From the kill to the end of the client's connection. The client itself waits another half second before it
// logs in again.
const WITHIN = 1000;

describe(`${COUNT} Strophe.js clients over WebSocket, and a killed server`, () => {
  let folder;
  let nodes;
  let bowline;
  let clients;
  let killed;
  let passed = false;

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'bowline-e2e-'));
    const [first, second, port, admin] = await freePorts(4);
    nodes = [new Prosody('p1', folder, first), new Prosody('p2', folder, second)];
    await Promise.all(nodes.map((node) => node.process.listens(node.port)));
    bowline = startBowline(folder, binary, { port, admin, nodes, more: 'websocket: {}' });
    await bowline.started();
    const url = `ws://127.0.0.1:${port}/xmpp-websocket`;
    clients = Array.from({ length: COUNT }, (_, index) => new Client(`w${index + 1}`, url, { wait: 60, every: 300 }));
    for (const client of clients) client.connect();
    await until('every client is logged in', 15, () => clients.every((client) => client.online));
  });

  after(async () => {
    await Promise.all(clients.map((client) => client.leave()));
    await bowline.process.stop();
    await nodes[1].process.stop();
    if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
    else console.error(`configurations and logs are kept in ${folder}`);
  });

  test('sessions are spread, and every ping and message arrives', async () => {
    const { nodes: shown } = await bowline.health();
    assert.deepEqual(shown.map(({ sessions }) => sessions), [COUNT / 2, COUNT / 2]);
    // Each also sends messages to itself.
    for (const client of clients) client.talk();
    await until('200 pings were answered', 20, () => totalOfPings(clients).answered >= 200);
    for (const client of clients) client.pause();
    await until('no ping is left', 10, () => {
      const { sent, answered } = totalOfPings(clients);
      return sent === answered;
    });
    await until('every message has come', 10, () => clients.every((client) => [...client.sent.values()].every(({ received }) => received.length === 1)));
  });

  test(`the clients of a killed server are at the other one: cut off within ${WITHIN} ms`, async () => {
    const before = clients.map((client) => client.logins.length);
    killed = Date.now();
    nodes[0].process.kill('SIGKILL');
    await until('half of the clients have logged in again', 15, () => {
      const again = clients.filter((client, index) => client.logins.length > before[index] && client.online);
      return again.length === COUNT / 2;
    });
    const moved = clients.filter((client, index) => client.logins.length > before[index]);
    const cut = moved.map((client) => client.logins.at(-2).ended - killed);
    const back = moved.map((client) => client.login.at - killed);
    const stayed = clients.filter((client) => !moved.includes(client));
    assert.ok(stayed.every((client) => client.online), 'the others stay');
    console.log(`figures: ${JSON.stringify({ cut_ms_max: Math.max(...cut), back_ms_max: Math.max(...back), pings: totalOfPings(clients), messages: totalOfMessages(clients) })}`);
    assert.ok(Math.max(...cut) <= WITHIN, `${cut} ms`);
    const { nodes: shown } = await bowline.health();
    assert.deepEqual(shown.map(({ sessions }) => sessions), [0, COUNT]);
    passed = true;
  });
});
