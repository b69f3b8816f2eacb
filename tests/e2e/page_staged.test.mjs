// The live page in a real browser in front of a made-up balancer: what it draws of given events, times and
// figures. `run --only page` starts this too.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { barriers, browser, live, open, staged, text } from './lib/page.mjs';

let chromium;

before(async () => {
  chromium = await browser();
});

after(() => chromium?.close());

describe('the live page when several nodes fail at once', () => {
  const T = Date.UTC(2026, 2, 1, 3, 7, 40) / 1000;
  const at = (ago) => new Date((T - ago) * 1000).toISOString().replace('.000', '');
  const names = ['t1', 't2', 't3', 't4', 't5'];
  const failed = { t1: 62, t2: 61, t3: 60 }; // seconds ago
  let stage;

  before(async () => {
    const times = Array.from({ length: 180 }, (_, place) => T - 5 * (179 - place) - 1);
    const sessions = (name, t) => (failed[name] !== undefined ? (T - t < 62 ? 0 : 50) : T - t < 62 ? 125 : 50);
    const node = (name) => ({
      name, address: `${name}.example.com:5280`, resolved: ['192.0.2.1:5280', '192.0.2.2:5280'], state: 'ready', state_since: null,
      verdict: failed[name] ? 'down' : 'up', since: at(failed[name] ?? 4000), until: null, share: 1, falls: 0, penalty_seconds: 0, sessions: sessions(name, T), held: 0,
      creations_per_second: 0, error_share_1m: null, p50_ms: null, p99_ms: null, probe_p50_ms: 1.25, last_failure: null,
    });
    const event = (id, ago, kind, name) => ({ id, when: at(ago), kind, node: name, sessions: null, text: `${name} ${kind}` });
    stage = await staged({
      health: {
        schema: 1, status: 'degraded', reasons: [], draining: false, network_suspected: false, version: '1.2.3', started: at(4000), now: at(0), sessions: 250, held: 0, connections: 9,
        requests_per_second: 12.5, rejects_5m: { malformed: 70, session_lost: 3 }, memory_bytes: 40 << 20, open_fds: 99, max_fds: 1024, nodes: names.map(node),
      },
      events: [event(1, 400, 'node_silent', 't4'), event(2, 396, 'node_up', 't4'), ...Object.entries(failed).map(([name, ago], place) => event(3 + place, ago, 'node_down', name))],
      history: { schema: 1, interval_seconds: 5, times, requests_per_second: times.map(() => 12), nodes: names.map((name) => ({ name, sessions: times.map((t) => sessions(name, t)), held: [], creations_per_second: [], p99_ms: times.map(() => null) })) },
    });
  });

  after(() => stage?.stop());

  const labels = (page) => page.evaluate(() => [...document.querySelectorAll('#plot .flag')].map((flag) => {
    const { left, right } = flag.getBoundingClientRect();
    return { words: flag.textContent, left, right };
  }));

  test('each mark has its label, and none covers another', async () => {
    for (const [width, expected] of [[1280, ['▲ t4 silent', '▲ t1, t2, t3 down']], [360, ['▲ t1, t2, t3 down, t4 silent']]]) {
      const page = await open(chromium, stage.url, { viewport: { width, height: 860 } });
      await live(page);
      const found = await labels(page);
      assert.deepEqual(found.map(({ words }) => words), expected);
      for (const { left, right } of found) assert.ok(left >= 0 && right <= width, `${left} to ${right} of ${width}`);
      for (const [place, { right }] of found.slice(0, -1).entries()) assert.ok(right <= found[place + 1].left);
      assert.deepEqual(await barriers(page), []);
      await page.context().close();
    }
  });

  test('the curve bends at the event', async () => {
    const page = await open(chromium, stage.url);
    await live(page);
    const { falls, curve } = await page.evaluate(() => ({
      falls: [...document.querySelectorAll('#plot .fall')].map((line) => Number(line.getAttribute('x1'))),
      curve: document.querySelector('#plot .layer').getAttribute('d').slice(1).split('L').map((point) => point.split(' ').map(Number)),
    }));
    // The lowest layer is t1, which falls from 50 to 0 sessions.
    const first = Math.min(...falls.filter((x) => x > Math.max(...falls) - 20));
    const top = curve.slice(0, curve.length / 2);
    const bend = top.findLastIndex(([, y]) => y === top[0][1]);
    assert.ok(Math.abs(top[bend][0] - first) < 0.5, `the curve falls at ${top[bend][0]}, the mark is at ${first}`);
    await page.context().close();
  });

  test('all times are in UTC, wherever the browser is', async () => {
    const page = await open(chromium, stage.url, { timezoneId: 'Asia/Kolkata' });
    await live(page);
    assert.match(await text(page, '#process'), /, 03:07:4\d UTC$/);
    assert.match(await text(page, '#reasons'), /at 03:06:38 UTC/);
    assert.match(await text(page, '#timeline'), /t1 node_down03:06:38 UTC, 1 min ago/);
    assert.doesNotMatch(await page.evaluate(() => document.body.textContent), /08:3\d:\d\d/);
    await page.context().close();
  });

  test('addresses, probes and the answers of the balancer are shown without hovering', async () => {
    const page = await open(chromium, stage.url, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await live(page);
    assert.equal(await text(page, '#node-t4 .address'), 't4.example.com:5280 (192.0.2.1:5280 and 1 more)');
    assert.equal(await text(page, '#node-t4 [data-f="probe"]'), '1.3 ms');
    assert.equal(await text(page, '#rejects'), 'session_lost3malformed70', 'what points at the nodes comes first');
    assert.equal(await text(page, '#files'), '99 of 1\u202f024');
    assert.equal(await text(page, '#memory'), '40 MiB');
    assert.equal(await text(page, '#f-requests'), '12.5');
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await page.context().close();
  });
});
