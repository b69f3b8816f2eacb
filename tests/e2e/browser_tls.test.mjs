// Strophe.js and Converse.js in a real Chromium, on a page of another origin, over TLS and HTTP/2: they log in at
// one of two real Prosody servers through Bowline, the page is reloaded, and the session goes on. `run` starts this.

import assert from 'node:assert/strict';
import { createReadStream, existsSync, mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startBowline } from './lib/balancers.mjs';
import { makeCertificate } from './lib/certificate.mjs';
import { browser } from './lib/page.mjs';
import { freePorts, until } from './lib/processes.mjs';
import { DOMAIN, Prosody } from './lib/prosody.mjs';

const PACKAGES = fileURLToPath(new URL('node_modules', import.meta.url));
const TYPES = { '.js': 'text/javascript', '.cjs': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.wasm': 'application/wasm' };
const JID = `alice@${DOMAIN}`;
const PASSWORD = 'correct horse';

let folder;
let chromium;
let site;
let nodes;
let bowline;
let bosh;
let passed = true;

/** A server with an empty page and the files of the npm packages: an origin. */
async function startSite() {
  const server = http.createServer((request, answer) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const file = path.join(PACKAGES, path.normalize(pathname));
    if (pathname === '/') {
      answer.writeHead(200, { 'Content-Type': 'text/html' });
      answer.end('<!doctype html><title>chat</title><body class="converse-fullscreen">');
    } else if (existsSync(file)) {
      answer.writeHead(200, { 'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream' });
      createReadStream(file).pipe(answer);
    } else {
      answer.writeHead(404);
      answer.end();
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return { server, origin: `http://localhost:${server.address().port}` };
}

/** How each client logs in, restores its session after a reload, and what it says of its session. */
const CLIENTS = {
  'Strophe.js': {
    async load(page) {
      await page.addScriptTag({ url: '/strophe.js/dist/strophe.umd.cjs' });
      await page.evaluate((url) => {
        globalThis.connection = new globalThis.Strophe.Connection(url, { keepalive: true });
      }, bosh);
    },
    login: (page) => page.evaluate(([jid, password]) => { globalThis.connection.connect(jid, password); }, [JID, PASSWORD]),
    restore: (page) => page.evaluate((jid) => { globalThis.connection.restore(jid); }, JID),
  },
  'Converse.js': {
    async load(page) {
      await page.addStyleTag({ url: '/converse.js/dist/converse.min.css' });
      await page.addScriptTag({ url: '/converse.js/dist/converse.min.js', type: 'module' });
      await page.waitForFunction(() => globalThis.converse?.plugins);
      await page.evaluate(() => globalThis.converse.plugins.add('e2e', {
        initialize() {
          const { api } = this._converse;
          api.listen.on('connectionInitialized', () => { globalThis.connection = api.connection.get(); });
        },
      }));
    },
    login: (page) => initialize(page, { jid: JID, password: PASSWORD, auto_login: true }),
    // Without a password: the kept session is the only way in.
    restore: (page) => initialize(page, {}),
  },
};

function initialize(page, settings) {
  return page.evaluate((all) => { globalThis.converse.initialize(all); }, {
    authentication: 'login',
    bosh_service_url: bosh,
    discover_connection_methods: false,
    whitelisted_plugins: ['e2e'],
    assets_path: '/converse.js/dist/',
    view_mode: 'fullscreen',
    reuse_scram_keys: false,
    i18n: 'en',
    loglevel: 'error',
    ...settings,
  });
}

/** Waits until the client has a session, and says which one. */
async function session(page) {
  await page.waitForFunction(() => globalThis.connection?.connected && globalThis.connection.authenticated, null, { timeout: 15_000, polling: 20 });
  return page.evaluate(() => ({ sid: globalThis.connection._proto.sid, jid: globalThis.connection.jid }));
}

/** The answer to a ping. */
const ping = (page) => page.evaluate((domain) => new Promise((resolve, reject) => {
  // Strophe.js writes attributes only, not the namespaces of elements.
  const iq = document.implementation.createDocument(null, 'iq').documentElement;
  const attributes = { type: 'get', to: domain, id: `e2e-${Math.random()}` };
  for (const [name, value] of Object.entries(attributes)) iq.setAttribute(name, value);
  iq.appendChild(iq.ownerDocument.createElement('ping')).setAttribute('xmlns', 'urn:xmpp:ping');
  globalThis.connection.sendIQ(iq, (result) => resolve(result.getAttribute('type')), () => reject(new Error('no answer')), 10_000);
}), DOMAIN);

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'bowline-browser-tls-'));
  const { certificate, key } = makeCertificate(folder);
  const [first, second, port, admin] = await freePorts(4);
  nodes = [first, second].map((at, index) => new Prosody(`p${index + 1}`, folder, at, { authentication: 'internal_plain' }));
  for (const node of nodes) node.register('alice', PASSWORD);
  [chromium, site] = await Promise.all([browser(), startSite(), ...nodes.map((node) => node.process.listens(node.port))]);
  bowline = startBowline(folder, process.env.E2E_BINARY, { admin }, `
listen:
  - address: 127.0.0.1:${port}
    tls: { certificate: ${JSON.stringify(certificate)}, key: ${JSON.stringify(key)} }
cors: { origins: ['${site.origin}'] }
placement: round-robin
nodes:
  - { name: p1, address: 127.0.0.1:${first} }
  - { name: p2, address: 127.0.0.1:${second} }
admin: { address: 127.0.0.1:${admin} }
timeouts: { drain: 1s }
`);
  await bowline.started();
  bosh = `https://127.0.0.1:${port}/http-bind`;
});

after(async () => {
  await chromium?.close();
  site?.server.close();
  await bowline?.process.stop();
  await Promise.all((nodes ?? []).map((node) => node.process.stop()));
  if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
  else console.error(`configurations and logs are kept in ${folder}`);
});

for (const [name, { load, login, restore }] of Object.entries(CLIENTS)) {
  test(`${name} keeps its session when the page is reloaded, over HTTP/2 with TLS`, { timeout: 60_000 }, async () => {
    const context = await chromium.newContext({ ignoreHTTPSErrors: true });
    try {
      const page = await context.newPage();
      const devtools = await context.newCDPSession(page);
      const protocols = new Set();
      let posts = 0;
      devtools.on('Network.responseReceived', ({ response }) => {
        if (!response.url.startsWith(bosh)) return;
        posts += 1;
        protocols.add(response.protocol);
      });
      await devtools.send('Network.enable');

      await page.goto(site.origin);
      await load(page);
      await login(page);
      const first = await session(page);
      assert.equal(first.jid.split('/')[0], JID);
      assert.equal(await ping(page), 'result');
      // A reload in the middle of a poll.
      await until('a poll is held', 5, async () => (await bowline.health()).held >= 1);

      for (let reload = 1; reload <= 3; reload += 1) {
        await page.reload();
        await load(page);
        await restore(page);
        assert.deepEqual(await session(page), first, `reload ${reload}`);
        assert.equal(await ping(page), 'result');
      }
      assert.ok(posts >= 8, `${posts} responses`);
      assert.deepEqual([...protocols], ['h2']);
      // The servers made no other session.
      assert.equal((await bowline.health()).sessions, 1);
      await page.evaluate(() => globalThis.connection.disconnect('done'));
      await until('the session has ended', 5, async () => (await bowline.health()).sessions === 0);
    } catch (error) {
      passed = false;
      throw error;
    } finally {
      await context.close();
    }
  });
}
