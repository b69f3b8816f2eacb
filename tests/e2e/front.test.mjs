// nginx, HAProxy and Caddy in front of Bowline in front of a real Prosody, with the configurations of `config/`.
// `run` starts this; options come in the environment.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { startBowline } from './lib/balancers.mjs';
import { makeCertificate } from './lib/certificate.mjs';
import { Client } from './lib/client.mjs';
import { KINDS, startFront } from './lib/fronts.mjs';
import { freePorts, killAll, until } from './lib/processes.mjs';
import { DOMAIN, Prosody } from './lib/prosody.mjs';
import { totalOfMessages, totalOfPings } from './lib/scenario.mjs';
import { closePages, requests } from './lib/xhr.mjs';

// The certificate is the test's own.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

const BINARY = process.env.E2E_BINARY;
// Seconds. 65 is more than the usual limit of proxies, and takes longer than the suite should.
const WAIT = Number(process.env.E2E_FRONT_WAIT ?? 10);
const HABITS = { quiet: 6, talking: 6, websocket: 4 };
// None is the address of the proxy itself.
const ADDRESS = '127.0.0.9';

let folder;
let node;
let bowline;
let fronts;
let passed = true;

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

/** Sends a wrapper from ADDRESS: the request, what has come of its response, and all of it. */
function post({ bosh }, attributes, agent = false) {
  const body = `<body xmlns="http://jabber.org/protocol/httpbind" ${attributes}/>`;
  const headers = { 'Content-Type': 'text/xml; charset=utf-8', 'X-Forwarded-For': '203.0.113.77', 'X-Forwarded-Proto': 'http' };
  const request = https.request(bosh, { method: 'POST', agent, localAddress: ADDRESS, headers });
  let come = '';
  const answer = new Promise((resolve, reject) => {
    request.on('error', reject);
    request.on('response', (response) => {
      response.on('data', (chunk) => { come += chunk; });
      response.on('end', () => resolve(come));
      response.on('error', reject);
    });
  });
  request.end(body);
  return { request, answer, soFar: () => come };
}

const creation = (rid) => `rid="${rid}" to="${DOMAIN}" wait="60" hold="1" ver="1.6" xmlns:xmpp="urn:xmpp:xbosh" xmpp:version="1.0"`;

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'bowline-front-'));
  makeCertificate(folder);
  const [nodePort, port, admin] = await freePorts(3);
  node = new Prosody('p1', folder, nodePort, { settings: 'bosh_max_wait = 120' });
  await node.process.listens(nodePort);
  const more = 'trusted_proxies: [127.0.0.1]\nwebsocket: {}\nlog: { access: on }';
  bowline = startBowline(folder, BINARY, { port, admin, nodes: [node], more });
  await bowline.started();
  fronts = await Promise.all(KINDS.map((kind) => startFront(kind, folder, port)));
});

after(async () => {
  closePages();
  await Promise.all((fronts ?? []).map((front) => front.process.stop()));
  await bowline?.process.stop();
  await node?.process.stop();
  killAll(); // those that a failed start left behind
  if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
  else console.error(`configurations and logs are kept in ${folder}`);
});

for (const [index, kind] of KINDS.entries()) {
  holds(`${kind}: the client's address arrives, not the one that the client claims`, async () => {
    const before = bowline.process.log().length;
    const { answer } = post(fronts[index], creation(1000 * index + 1));
    assert.match(await answer, / sid=/);
    const line = await until('the access log has a line', 5, () => bowline.process.log().slice(before).split('\n').find((one) => one.includes('kind=creation')));
    assert.match(line, new RegExp(`client=${ADDRESS} `));
  });

  holds(`${kind}: Bowline sees that a client leaves`, async () => {
    const held = async () => (await bowline.health()).held;
    const created = await post(fronts[index], creation(1000 * index + 501)).answer;
    const [, sid] = / sid=["']([^"']+)/.exec(created);
    const { request, answer } = post(fronts[index], `rid="${1000 * index + 502}" sid="${sid}"`);
    answer.catch(() => {});
    await until('the poll is held', 5, async () => await held() === 1);
    request.destroy();
    await until('Bowline holds no poll', 5, async () => await held() === 0);
  });

  holds(`${kind}: Bowline sees that a client leaves an HTTP/2 stream, as a browser does when a page is reloaded`, async () => {
    const held = async () => (await bowline.health()).held;
    const connection = http2.connect(new URL(fronts[index].bosh).origin);
    const begin = (attributes) => {
      const stream = connection.request({ ':method': 'POST', ':path': '/http-bind', 'content-type': 'text/xml; charset=utf-8' });
      stream.end(`<body xmlns="http://jabber.org/protocol/httpbind" ${attributes}/>`);
      return stream;
    };
    try {
      const created = await text(begin(creation(1000 * index + 701)));
      const [, sid] = / sid=["']([^"']+)/.exec(created);
      const poll = begin(`rid="${1000 * index + 702}" sid="${sid}"`);
      await until('the poll is held', 5, async () => await held() === 1);
      poll.close(http2.constants.NGHTTP2_CANCEL);
      await until('Bowline holds no poll', 5, async () => await held() === 0);
      assert.equal(connection.closed, false);
    } finally {
      connection.destroy();
    }
  });

  holds(`${kind}: a part of a response is passed on at once, and the connection to Bowline stays`, async () => {
    const sockets = new Set();
    let rest;
    const stub = net.createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('data', (data) => {
        if (!data.toString().endsWith('/>')) return; // the body comes later
        socket.write('HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 6\r\n\r\none');
        rest = () => socket.write('two');
      });
    });
    await new Promise((resolve) => { stub.listen(0, '127.0.0.1', resolve); });
    const front = await startFront(kind, folder, stub.address().port);
    const agent = new https.Agent({ keepAlive: true });
    try {
      for (const rid of [1, 2, 3, 4, 5, 6]) {
        const { answer, soFar } = post(front, creation(rid), agent);
        await until('the first part is here', 5, () => soFar() === 'one');
        rest();
        assert.equal(await answer, 'onetwo');
      }
      // A connection may not be back yet when the client already has the response.
      assert.ok(sockets.size < 6, `${sockets.size} connections for 6 requests`);
    } finally {
      agent.destroy();
      await front.process.stop();
      stub.close();
    }
  });
}

describe(`${Object.values(HABITS).reduce((a, b) => a + b)} Strophe.js clients behind each of ${KINDS.join(', ')}`, () => {
  let groups;

  before(async () => {
    groups = fronts.map(({ kind, bosh, websocket }) => {
      const some = (habit, count, url, every) => Array.from({ length: count }, (_, index) => new Client(`${kind}-${habit}-${index + 1}`, url, { wait: WAIT, every }));
      const quiet = some('quiet', HABITS.quiet, bosh, 1e6);
      const talking = [...some('talking', HABITS.talking, bosh, 500), ...some('websocket', HABITS.websocket, websocket, 500)];
      return { kind, origin: new URL(bosh).origin, quiet, talking, all: [...quiet, ...talking] };
    });
    const everyone = groups.flatMap(({ all }) => all);
    for (const client of everyone) client.connect();
    await until('every client is logged in', 15, () => everyone.every((client) => client.online));
    for (const client of groups.flatMap(({ talking }) => talking)) client.talk();
    // The first poll of a quiet client begins after its login.
    await until('every quiet client has held a poll to its end', WAIT + 10, () => groups.every((group) => heldToTheEnd(group).length >= group.quiet.length));
    for (const client of everyone) client.pause();
    const talking = groups.flatMap((group) => group.talking);
    await until('every ping is answered', 10, () => {
      const { sent, answered } = totalOfPings(talking);
      return sent === answered && totalOfMessages(talking).lost === 0;
    }).catch(() => {}); // What is missing is in the tests below.
  });

  after(() => Promise.all((groups ?? []).flatMap(({ all }) => all.map((client) => client.leave()))));

  const ofGroup = ({ origin }) => requests.filter((request) => request.origin === origin);
  const heldToTheEnd = (group) => ofGroup(group).filter(({ at, ended }) => ended - at >= WAIT * 1000 - 100);

  for (const [index, kind] of KINDS.entries()) {
    holds(`${kind}: no client is disconnected, and polls are held for ${WAIT} s`, () => {
      const group = groups[index];
      assert.deepEqual(group.all.filter((client) => !client.online || client.logins.length !== 1 || client.refusals.length > 0).map(({ name }) => name), []);
      const failed = ofGroup(group).filter(({ status }) => status !== undefined && status !== 200);
      assert.deepEqual(failed, []);
      const longest = Math.max(...heldToTheEnd(group).map(({ at, ended }) => ended - at));
      assert.ok(longest < WAIT * 1000 + 1000, `${longest} ms`);
    });

    holds(`${kind}: pings and messages arrive, over BOSH and over WebSocket`, () => {
      const { talking } = groups[index];
      for (const client of talking) assert.ok(client.pings.length >= 5, `${client.name}: ${client.pings.length} pings`);
      const [pings, messages] = [totalOfPings(talking), totalOfMessages(talking)];
      console.log(`figures: ${JSON.stringify({ kind, wait: WAIT, polls_to_the_end: heldToTheEnd(groups[index]).length, pings, messages })}`);
      assert.equal(pings.answered, pings.sent);
      assert.deepEqual([messages.lost, messages.doubled, messages.strangers], [0, 0, 0]);
    });
  }
});
