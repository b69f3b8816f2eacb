// A page of another origin in a real browser: it logs in at a real Prosody server through Bowline,
// with credentials and an `Authorization` header. `run` starts this.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Balancer, browser } from './lib/page.mjs';
import { freePorts } from './lib/processes.mjs';
import { DOMAIN, Prosody } from './lib/prosody.mjs';

const BINARY = process.env.E2E_BINARY;
const STROPHE = readFileSync(new URL('node_modules/strophe.js/dist/strophe.umd.cjs', import.meta.url), 'utf8');
const AUTHORIZATION = 'Basic cGFnZTpzZWNyZXQ=';
const CREATION = `<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='${DOMAIN}' wait='5' hold='1' ver='1.6' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'/>`;

let folder;
let chromium;
let site;
let node;
let passed = true;

/** An empty page on a server of its own: an origin. */
async function startSite() {
  const server = http.createServer((request, answer) => {
    answer.writeHead(200, { 'Content-Type': 'text/html' });
    answer.end('<!doctype html><title>chat</title>');
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  // Another host than Bowline's 127.0.0.1, so that the two are different sites for the browser.
  return { server, origin: `http://localhost:${server.address().port}` };
}

/** Gives `check` a balancer with these settings, and stops it afterwards. */
async function behind(cors, check) {
  const balancer = await Balancer.before(folder, BINARY, [node], { sections: `cors: ${JSON.stringify(cors)}` });
  try {
    await check(balancer);
  } finally {
    await balancer.process.stop();
  }
}

/** What the browser says to a page that sends `headers` with credentials: a status and a body, or an error. */
async function ask(url, headers, credentials = 'include') {
  const page = await chromium.newPage();
  try {
    await page.goto(site.origin);
    return await page.evaluate(async ([to, body, sent, mode]) => {
      try {
        const answer = await fetch(to, { method: 'POST', body, credentials: mode, headers: { 'Content-Type': 'text/xml; charset=utf-8', ...sent } });
        return { status: answer.status, text: await answer.text() };
      } catch (error) {
        return { error: error.name };
      }
    }, [url, CREATION, headers, credentials]);
  } finally {
    await page.close();
  }
}

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'bowline-cross-origin-'));
  const [port] = await freePorts(1);
  node = new Prosody('p1', folder, port);
  [chromium, site] = await Promise.all([browser(), startSite(), node.process.listens(port)]);
});

after(async () => {
  await chromium?.close();
  site?.server.close();
  await node?.process.stop();
  if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
  else console.error(`configurations and logs are kept in ${folder}`);
});

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

holds('Strophe.js logs in with withCredentials and Authorization', () => behind({ origins: [site.origin], credentials: true, headers: ['Authorization'] }, async ({ bosh }) => {
  const page = await chromium.newPage();
  const sent = [];
  page.on('request', (request) => {
    if (request.method() !== 'POST') return;
    const headers = request.allHeaders();
    // Those of a request that the page begins at its end never come.
    headers.catch(() => {});
    sent.push(headers);
  });
  await page.goto(site.origin);
  await page.evaluate(STROPHE);
  const jid = await page.evaluate(([url, domain, authorization]) => new Promise((resolve, reject) => {
    const { Strophe } = globalThis;
    const connection = new Strophe.Connection(url, { withCredentials: true, customHeaders: { Authorization: authorization } });
    setTimeout(() => reject(new Error('no login within 10 s')), 10_000);
    connection.connect(domain, null, (status, condition) => {
      if (status === Strophe.Status.CONNECTED) resolve(connection.jid);
      if (status === Strophe.Status.CONNFAIL || status === Strophe.Status.DISCONNECTED) reject(new Error(String(condition)));
    });
  }), [bosh, DOMAIN, AUTHORIZATION]);
  assert.match(jid, new RegExp(`@${DOMAIN}/`));
  const headers = await Promise.all(sent);
  assert.ok(headers.length >= 3, `${headers.length} requests`);
  for (const one of headers) assert.equal(one.authorization, AUTHORIZATION);
  await page.close();
}));

holds('without these settings the browser keeps the answers from the page', async () => {
  const listed = { origins: [site.origin] };
  const settings = [
    { cors: listed, headers: {}, works: false },
    { cors: { ...listed, credentials: true }, headers: {}, works: true },
    { cors: { ...listed, credentials: true }, headers: { Authorization: AUTHORIZATION }, works: false },
    { cors: { ...listed, credentials: true, headers: ['Authorization'] }, headers: { Authorization: AUTHORIZATION }, works: true },
    { cors: { origins: ['http://127.0.0.1:9'], credentials: true, headers: ['Authorization'] }, headers: {}, works: false },
    { cors: { origins: ['*'] }, headers: {}, works: false },
    { cors: { origins: ['*'] }, headers: {}, credentials: 'omit', works: true },
    { cors: { headers: ['Authorization'] }, headers: { Authorization: AUTHORIZATION }, credentials: 'omit', works: true },
  ];
  for (const { cors, headers, credentials, works } of settings) {
    await behind(cors, async ({ bosh }) => {
      const answer = await ask(bosh, headers, credentials);
      const what = `${JSON.stringify({ cors, headers, credentials })}: ${JSON.stringify(answer)}`;
      if (works) assert.match(answer.text ?? '', / sid=/, what);
      else assert.equal(answer.error, 'TypeError', what);
    });
  }
});

holds('a page that asks for the path with a slash behind it reads the answer', () => behind({ origins: [site.origin], credentials: true, headers: ['Authorization'] }, async ({ bosh }) => {
  const answer = await ask(`${bosh}/`, { Authorization: AUTHORIZATION });
  assert.match(answer.text ?? '', / sid=/, JSON.stringify(answer));
}));
