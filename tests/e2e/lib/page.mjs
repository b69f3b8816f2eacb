// What the tests of the live page need: a browser, a balancer before nodes, and what the page shows.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { Process, freePorts, until } from './processes.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const CHROMIUM = process.env.E2E_CHROMIUM ?? '/usr/bin/chromium';

/** A headless Chromium that talks to nobody but the pages that it is shown; `more`: further arguments. */
export function browser(more = []) {
  const args = [...more, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
  return chromium.launch({ executablePath: CHROMIUM, args });
}

/** A balancer with an admin listener whose ports stay the same when it is started again. */
export class Balancer {
  /** `nodes`: `{ name, port }` each; `token`: what its token file holds; `sections`: further YAML. */
  static async before(folder, binary, nodes, { token, sections = '' } = {}) {
    const balancer = new Balancer();
    const [port, admin] = await freePorts(2);
    const place = path.join(folder, `bowline-${admin}`);
    mkdirSync(place, { recursive: true });
    Object.assign(balancer, { place, binary, port, admin, nodes, url: `http://127.0.0.1:${admin}/`, bosh: `http://127.0.0.1:${port}/http-bind`, token });
    const file = path.join(place, 'token');
    if (token) writeFileSync(file, `${token}\n`, { mode: 0o600 });
    const lines = nodes.map(({ name, port: at }) => `  - { name: ${name}, address: 127.0.0.1:${at} }`);
    writeFileSync(path.join(place, 'bowline.yaml'), `
listen:
  - address: 127.0.0.1:${port}
bosh:
  paths: [/http-bind]
placement: round-robin
nodes:
${lines.join('\n')}
${sections}
admin: { address: 127.0.0.1:${admin}${token ? `, token_file: ${JSON.stringify(file)}` : ''} }
timeouts: { drain: 1s }
`);
    await balancer.start();
    return balancer;
  }

  async start() {
    const file = path.join(this.place, 'bowline.yaml');
    this.process = new Process('bowline', this.binary, ['run', '--config', file], path.join(this.place, 'bowline.log'));
    await this.process.listens(this.admin);
    await until('every node has its verdict', 10, async () => {
      const health = await this.ask('/health');
      return health.nodes.every(({ verdict }) => verdict !== 'unknown');
    });
  }

  async ask(target) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    const answer = await fetch(this.url.slice(0, -1) + target, { headers, signal: AbortSignal.timeout(5000) });
    return answer.json();
  }

  async states() {
    const { nodes } = await this.ask('/health');
    return Object.fromEntries(nodes.map(({ name, state }) => [name, state]));
  }
}

/** Many nodes that answer probes as a Tigase node does, and nothing else, in this process. */
export async function stubs(count, name = (number) => `n${number}`) {
  const terminate = "<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' condition='item-not-found'/>";
  return Promise.all(Array.from({ length: count }, async (_, index) => {
    const server = http.createServer((request, answer) => {
      request.resume();
      request.on('end', () => {
        answer.writeHead(404, { 'Content-Type': 'text/xml; charset=utf-8' });
        answer.end(terminate);
      });
    });
    await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
    const stop = () => {
      server.closeAllConnections();
      server.close();
    };
    return { name: name(index + 1), port: server.address().port, stop };
  }));
}

/** Serves the page in front of a made-up balancer that says `health`, `events` and `history`, and nothing new. */
export async function staged({ health, events, history }) {
  const html = readFileSync(new URL('../../../src/admin/page.html', import.meta.url));
  const stream = events.map((event) => `id: 1-${event.id}\nevent: event\ndata: ${JSON.stringify(event)}\n\n`);
  const server = http.createServer((request, answer) => {
    if (request.url === '/stream') {
      answer.writeHead(200, { 'Content-Type': 'text/event-stream' });
      answer.write(`${stream.join('')}event: health\ndata: ${JSON.stringify(health)}\n\n`);
      return;
    }
    const [type, body] = request.url === '/history' ? ['application/json', JSON.stringify(history)] : ['text/html', html];
    answer.writeHead(200, { 'Content-Type': type });
    answer.end(body);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}/`, stop };
}

/** Opens the page of a balancer, and notes what goes wrong in it. */
export async function open(where, url, options = {}) {
  const context = await where.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  page.faults = [];
  page.urls = [];
  page.on('console', (message) => {
    // What the network or a status of 4xx brings about is written by the browser itself.
    const network = /^Failed to load resource|net::ERR_/.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !network) page.faults.push(message.text());
  });
  page.on('pageerror', (error) => page.faults.push(String(error.stack)));
  page.on('request', (request) => page.urls.push(request.url()));
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => globalThis.violations.push(event.violatedDirective));
  });
  await page.goto(url);
  return page;
}

/** Waits until the page is live. */
export const live = (page) => page.waitForFunction(() => document.getElementById('link').textContent === 'Live', null, { timeout: 15_000 });

/** What went wrong in the page so far. */
export async function faults(page) {
  return [...page.faults, ...await page.evaluate(() => globalThis.violations)];
}

/** What a card says. */
export function card(page, name) {
  return page.evaluate((id) => {
    const element = document.getElementById(id);
    const text = (field) => element.querySelector(`[data-f="${field}"]`).textContent.replaceAll('\u00a0', ' ');
    return {
      verdict: text('verdict'),
      state: text('state'),
      sessions: Number(text('sessions')),
      held: Number(text('held')),
      failure: text('failure'),
      pressed: element.querySelector('[aria-pressed="true"]').dataset.to,
    };
  }, `node-${name}`);
}

/** Waits for the verdict that a card shows. */
export const verdict = (page, name, word, timeout = 15_000) => page.waitForFunction(
  ([id, wanted]) => document.getElementById(id)?.querySelector('[data-f="verdict"]').textContent === wanted,
  [`node-${name}`, word],
  { timeout, polling: 20 },
);

/** Waits for the state that a card shows. */
export const shows = (page, name, state) => page.waitForFunction(
  ([id, wanted]) => document.getElementById(id)?.querySelector('[aria-pressed="true"]').dataset.to === wanted,
  [`node-${name}`, state],
  { timeout: 5000, polling: 20 },
);

/** The text of an element, with plain spaces. */
export const text = (page, selector) => page.evaluate((some) => document.querySelector(some).textContent.replaceAll('\u00a0', ' '), selector);

/** What axe-core finds wrong, in short. */
export async function barriers(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(' | ')}`);
}
