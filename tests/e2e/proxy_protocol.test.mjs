// What must hold where HAProxy passes TCP on to Bowline with `send-proxy` or `send-proxy-v2`, over TCP and to a Unix
// socket. `run` starts this; options come in the environment.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client } from './lib/client.mjs';
import { Process, freePorts, until } from './lib/processes.mjs';
import { Prosody } from './lib/prosody.mjs';

const binary = process.env.E2E_BINARY;
// HAProxy itself comes from 127.0.0.1.
const CLIENT = '127.0.0.7';
const CREATION = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='localhost' wait='5' hold='1' ver='1.6'/>";

/** The ways from HAProxy to Bowline, each with an address of Bowline and what HAProxy sends there. */
const WAYS = ['v1', 'v2', 'unix', 'stranger'];

function bowlineConfiguration(folder, ports, admin, node) {
  return `
listen:
  - { address: '127.0.0.1:${ports[0]}', proxy_protocol: { from: [127.0.0.1] } }
  - { address: '127.0.0.1:${ports[1]}', h2c: true, proxy_protocol: { from: [127.0.0.1] } }
  - { address: 'unix:${folder}/http.sock', proxy_protocol: { from: [127.0.0.1] } }
  - { address: '127.0.0.1:${ports[2]}' }
nodes:
  - { name: ${node.name}, address: '127.0.0.1:${node.port}' }
admin: { address: '127.0.0.1:${admin}' }
log: { access: on }
`;
}

function haproxyConfiguration(folder, fronts, ports) {
  const servers = [
    `127.0.0.1:${ports[0]} send-proxy`,
    // Its checks say LOCAL.
    `127.0.0.1:${ports[1]} send-proxy-v2 check check-send-proxy inter 200ms`,
    `unix@${folder}/http.sock send-proxy-v2`,
    `127.0.0.1:${ports[2]} send-proxy-v2`,
  ];
  const proxies = WAYS.map((way, index) => `
listen ${way}
  bind 127.0.0.1:${fronts[index]}
  server bowline ${servers[index]}`);
  return `
global
  maxconn 100
defaults
  mode tcp
  timeout connect 2s
  timeout client 90s
  timeout server 90s
${proxies.join('\n')}
`;
}

/** Begins a session from CLIENT's address: the status, or the code of the error. */
function create(port) {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, path: '/http-bind', method: 'POST', localAddress: CLIENT, agent: false };
    const request = http.request(options, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    request.on('error', (error) => resolve(error.code));
    request.end(CREATION);
  });
}

describe('HAProxy in front, with the PROXY protocol', () => {
  let folder;
  let node;
  let bowline;
  let haproxy;
  let fronts;
  let admin;
  let clients = [];
  let passed = false;

  async function count(result) {
    const answer = await fetch(`http://127.0.0.1:${admin}/metrics`, { signal: AbortSignal.timeout(2000) });
    const line = (await answer.text()).split('\n').find((one) => one.startsWith(`bowline_proxy_headers_total{result="${result}"}`));
    return Number(line.split(' ')[1]);
  }

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'bowline-e2e-'));
    const ports = await freePorts(9);
    fronts = ports.slice(0, 4);
    admin = ports[4];
    node = new Prosody('p1', folder, ports[5]);
    await node.process.listens(node.port);
    const [own, front] = ['bowline.yaml', 'haproxy.cfg'].map((name) => path.join(folder, name));
    writeFileSync(own, bowlineConfiguration(folder, ports.slice(6), admin, node));
    writeFileSync(front, haproxyConfiguration(folder, fronts, ports.slice(6)));
    bowline = new Process('bowline', binary, ['run', '--config', own], path.join(folder, 'bowline.log'));
    await bowline.listens(admin);
    await until('the node is up', 5, async () => (await (await fetch(`http://127.0.0.1:${admin}/health`)).json()).status === 'ok');
    haproxy = new Process('haproxy', 'haproxy', ['-db', '-f', front], path.join(folder, 'haproxy.log'));
    await haproxy.listens(fronts[0]);
  });

  after(async () => {
    await Promise.all(clients.map((client) => client.leave()));
    await haproxy?.stop();
    await bowline?.stop();
    await node?.process.stop();
    if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
    else console.error(`configurations and logs are kept in ${folder}`);
  });

  test('Strophe.js logs in on each way, and the access log names the client', async () => {
    clients = WAYS.slice(0, 3).map((way, index) => new Client(way, `http://127.0.0.1:${fronts[index]}/http-bind`, { wait: 60, every: 300 }));
    for (const client of clients) client.connect();
    await until('every client is logged in', 15, () => clients.every((client) => client.online));
    for (const [index, way] of WAYS.slice(0, 3).entries()) {
      assert.equal(await create(fronts[index]), 200, way);
      await until(`the access log names the client on the way ${way}`, 5, () => bowline.log().split(`client=${CLIENT}`).length === index + 2);
    }
    assert.ok(await count('client') >= 6);
  });

  test('the checks of HAProxy, which name no client, pass', async () => {
    await until('two checks have come', 5, async () => await count('no_client') >= 2);
    assert.equal(await count('malformed'), 0);
    assert.equal(await count('missing'), 0);
    assert.doesNotMatch(haproxy.log(), /DOWN/);
  });

  test('a header that is not expected closes the connection, and is logged once', async () => {
    for (let round = 0; round < 3; round += 1) assert.match(String(await create(fronts[3])), /^(ECONNRESET|EPIPE)$/);
    await until('all are counted', 5, async () => await count('refused') === 3);
    const lines = () => bowline.log().split('a peer sends a PROXY header').length - 1;
    // A thread of its own writes the log.
    await until('it is logged', 5, () => lines() > 0);
    assert.equal(lines(), 1);
    passed = true;
  });
});
