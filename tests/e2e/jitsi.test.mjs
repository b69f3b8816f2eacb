// Jitsi's rooms: Strophe.js clients that name their room in the query, Bowline with config/jitsi.yaml, and two real
// Prosody servers that read the query, one of which is killed. `run` starts this.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startBowline } from './lib/balancers.mjs';
import { Client } from './lib/client.mjs';
import { committed } from './lib/committed.mjs';
import { freePorts, until } from './lib/processes.mjs';
import { DOMAIN, Prosody } from './lib/prosody.mjs';
import { spread } from './lib/scenario.mjs';
import { closePages } from './lib/xhr.mjs';

const ROOMS = 50;
const MEMBERS = 4;
// From the kill until all members of a room are logged in at the survivor. Half a second of it is the client's own
// pause before it logs in again.
const TOGETHER_WITHIN = 3000;

/** Two servers of Jitsi Meet. */
function shard(name, folder, port) {
  const file = path.join(folder, `${name}-rooms.tsv`);
  const settings = `e2e_rooms = ${JSON.stringify(file)}\ne2e_shard = "${name}"`;
  const node = new Prosody(name, folder, port, { modules: ['e2e_rooms'], settings });
  /** The sessions that it made: the room and the token of each sid. */
  node.sessions = () => new Map(readFileSync(file, 'utf8').split('\n').filter(Boolean).map((line) => {
    const [sid, room, token] = line.split('\t');
    return [sid, { room, token }];
  }));
  return node;
}

describe(`${ROOMS} rooms of ${MEMBERS} Strophe.js clients, two Prosody servers, and a killed one`, () => {
  let folder;
  let nodes;
  let bowline;
  let bosh;
  let rooms;
  let passed = true;

  const clients = () => rooms.flatMap(({ members }) => members);
  /** The servers that made the sessions of a room's members. */
  const homes = ({ members }, sessions) => new Set(members.map((client) => sessions.findIndex((made) => made.has(client.login.sid))));

  function holds(name, check) {
    test(name, async () => {
      try {
        await check();
      } catch (error) {
        passed = false;
        throw error;
      }
    });
  }

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'bowline-jitsi-'));
    const [first, second, port, admin] = await freePorts(4);
    nodes = [shard('shard1', folder, first), shard('shard2', folder, second)];
    await Promise.all(nodes.map((node) => node.process.listens(node.port)));
    const text = committed('jitsi.yaml', [['0.0.0.0:5280', `127.0.0.1:${port}`], ['10.0.0.1:5280', `127.0.0.1:${first}`], ['10.0.0.2:5280', `127.0.0.1:${second}`]]);
    bowline = startBowline(folder, process.env.E2E_BINARY, { admin }, `${text}admin: { address: 127.0.0.1:${admin} }\n`);
    await bowline.started();
    bosh = `http://127.0.0.1:${port}/http-bind`;
    rooms = Array.from({ length: ROOMS }, (_, index) => {
      const room = `room ${index + 1}`;
      const url = `${bosh}?prefix=&room=${encodeURIComponent(room)}&token=t${index}.x-y_z`;
      const members = Array.from({ length: MEMBERS }, (__, number) => new Client(`r${index + 1}m${number + 1}`, url, { wait: 60, every: 1e6 }));
      return { room, token: `t${index}.x-y_z`, members };
    });
    // One member of each room after the other, so that the members of a room come at different times.
    for (let number = 0; number < MEMBERS; number += 1) for (const { members } of rooms) members[number].connect();
    await until('every client is logged in', 20, () => clients().every((client) => client.online));
  });

  after(async () => {
    await Promise.all((rooms ? clients() : []).map((client) => client.leave()));
    closePages();
    await bowline?.process.stop();
    await Promise.all((nodes ?? []).map((node) => node.process.stop()));
    if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
    else console.error(`configurations, logs and records are kept in ${folder}`);
  });

  holds('no room is split, and both servers have rooms', () => {
    const sessions = nodes.map((node) => node.sessions());
    const counts = [0, 0];
    for (const room of rooms) {
      const [home, ...others] = homes(room, sessions);
      assert.deepEqual(others, [], room.room);
      counts[home] += 1;
    }
    assert.ok(Math.min(...counts) >= ROOMS / 5, `${counts} rooms`);
  });

  holds('the servers get the room and the token of each session', () => {
    const sessions = new Map(nodes.flatMap((node) => [...node.sessions()]));
    assert.equal(sessions.size, ROOMS * MEMBERS);
    for (const { room, token, members } of rooms) {
      for (const client of members) assert.deepEqual(sessions.get(client.login.sid), { room, token });
    }
  });

  holds('the client gets the name of its shard', async () => {
    const sessions = nodes.map((node) => node.sessions());
    for (const room of rooms.slice(0, 10)) {
      const body = `<body xmlns="http://jabber.org/protocol/httpbind" rid="1" to="${DOMAIN}" wait="5" hold="1" ver="1.6"/>`;
      const answer = await fetch(`${bosh}?room=${encodeURIComponent(room.room)}`, { method: 'POST', body, headers: { 'Content-Type': 'text/xml' } });
      const [home] = homes(room, sessions);
      assert.equal(answer.headers.get('x-jitsi-shard'), nodes[home].name);
      await answer.text();
    }
  });

  holds(`every room of a killed server is together at the other one within ${TOGETHER_WITHIN} ms`, async () => {
    const sessions = nodes.map((node) => node.sessions());
    const [lost, kept] = [0, 1].map((index) => rooms.filter((room) => homes(room, sessions).has(index)));
    const killed = Date.now();
    nodes[0].process.kill('SIGKILL');
    const members = lost.flatMap((room) => room.members);
    await until('every client has logged in again', 15, () => members.every((client) => client.online && client.login.at >= killed));
    const survivor = nodes[1].sessions();
    const together = lost.map((room) => {
      for (const client of room.members) assert.equal(survivor.get(client.login.sid)?.room, room.room, client.name);
      return Math.max(...room.members.map((client) => client.login.at)) - killed;
    });
    console.log(`figures: ${JSON.stringify({ rooms: ROOMS, clients: clients().length, moved: lost.length, together_ms: spread(together), cut_ms: spread(members.map((client) => client.logins.at(-2).ended - killed)), logins_of_moved: spread(members.map((client) => client.logins.length)) })}`);
    assert.ok(Math.max(...together) <= TOGETHER_WITHIN, `${together} ms`);
    for (const room of kept) {
      for (const client of room.members) assert.deepEqual([client.online, client.logins.length, client.refusals], [true, 1, []], client.name);
    }
  });
});
