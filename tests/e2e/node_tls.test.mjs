// What must hold for Strophe.js over BOSH and WebSocket when Bowline reaches a real Prosody by TLS.
// `run` starts this; options come in the environment.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startBowline } from './lib/balancers.mjs';
import { Client } from './lib/client.mjs';
import { freePorts, until } from './lib/processes.mjs';
import { DOMAIN, Prosody } from './lib/prosody.mjs';
import { totalOfPings } from './lib/scenario.mjs';

const binary = process.env.E2E_BINARY;
const COUNT = 5;

/** A certificate for the domain that is its own authority, and its key. */
function certificate(folder) {
  const files = { certificate: path.join(folder, 'prosody.crt'), key: path.join(folder, 'prosody.key') };
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', `/CN=${DOMAIN}`, '-addext', `subjectAltName=DNS:${DOMAIN}`, '-addext', 'basicConstraints=critical,CA:FALSE',
    '-keyout', files.key, '-out', files.certificate,
  ], { stdio: 'pipe' });
  return files;
}

describe('TLS towards Prosody', () => {
  let folder;
  let node;
  let bowline;
  let url;
  let passed = 0;

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'bowline-e2e-'));
    const [at, port, admin] = await freePorts(3);
    const files = certificate(folder);
    node = new Prosody('p1', folder, at, { tls: files });
    await node.process.listens(at);
    const tls = `{ ca: ${files.certificate}, server_name: ${DOMAIN} }`;
    const more = `websocket: {}\nupstream: { tls: ${tls} }`;
    bowline = startBowline(folder, binary, { port, admin, nodes: [node], more });
    await bowline.started();
    url = `127.0.0.1:${port}`;
  });

  after(async () => {
    await bowline?.process.stop();
    await node?.process.stop();
    if (passed === 2 && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
    else console.error(`configurations and logs are kept in ${folder}`);
  });

  for (const [what, address] of [['BOSH', 'http://URL/http-bind'], ['WebSocket', 'ws://URL/xmpp-websocket']]) {
    test(`clients log in over ${what}, and every ping is answered`, async () => {
      const to = address.replace('URL', url);
      const clients = Array.from({ length: COUNT }, (_, index) => new Client(`${what}${index}`, to, { wait: 60, every: 100 }));
      for (const client of clients) client.connect();
      await until('every client is logged in', 15, () => clients.every((client) => client.online));
      for (const client of clients) client.talk();
      await until('50 pings were answered', 20, () => totalOfPings(clients).answered >= 50);
      for (const client of clients) client.pause();
      await until('no ping is left', 10, () => {
        const { sent, answered } = totalOfPings(clients);
        return sent === answered;
      });
      assert.ok(clients.every((client) => client.logins.length === 1));
      await Promise.all(clients.map((client) => client.leave()));
      passed += 1;
    });
  }
});
