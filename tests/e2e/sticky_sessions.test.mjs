// What must hold when real clients talk to real servers through the balancer, and when one of the
// servers is killed. `run` starts this; options come in the environment.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { play, spread } from './lib/scenario.mjs';

const options = {
  balancer: process.env.E2E_BALANCER ?? 'bowline',
  binary: process.env.E2E_BINARY,
  clients: Number(process.env.E2E_CLIENTS ?? 30),
  seconds: Number(process.env.E2E_SECONDS ?? 30),
};
const AGAIN_WITHIN = 3000;

const skipUnless = (kinds) => (kinds.includes(options.balancer) ? false : `not with ${options.balancer}`);
const withTwo = { skip: skipUnless(['bowline', 'haproxy']) };
const withBowline = { skip: skipUnless(['bowline']) };

let story;
let folder;
let passed = true;

// A test whose failure keeps the logs.
function holds(name, how, check = how) {
  test(name, typeof how === 'function' ? {} : how, () => {
    try {
      check();
    } catch (error) {
      passed = false;
      throw error;
    }
  });
}

function figures() {
  const { after: then } = story;
  return {
    balancer: options.balancer,
    clients: options.clients,
    seconds: options.seconds,
    logged_in_ms: story.loggedIn,
    before: { ...story.before, disconnects: story.before.disconnects.length, refusals: story.before.refusals.length },
    after: then && {
      sessions_lost: then.again.length,
      again_ms: { ...spread(then.again.filter((ms) => ms !== null)), never: then.again.filter((ms) => ms === null).length },
      reasons: then.reasons,
      survivors: { ...then.survivors, disconnects: then.survivors.disconnects.length },
      newcomers: then.newcomers,
    },
    logged_out_ms: story.left,
    http: story.http,
  };
}

function inWords({ before: then, after: later, ...rest }) {
  const traffic = ({ pings, messages }) =>
    `${pings.answered} of ${pings.sent} pings answered, ${messages.sent} messages, ${messages.lost} lost, ${messages.doubled} doubled`;
  const lines = [
    `logged in: ${rest.clients} clients in ${rest.logged_in_ms} ms; sessions by server: ${then.sids.by_server.join(', ')}`,
    `${rest.seconds} s: ${then.disconnects} disconnects, ${traffic(then)}; a ping takes ${then.pings.time_ms.median} ms (median), ${then.pings.time_ms.max} ms at most`,
    `${then.connections.join(' + ')} connections to the servers, ${then.shared} with more than one session`,
  ];
  if (later) {
    lines.push(
      `kill -9: ${later.sessions_lost} sessions lost, ${later.again_ms.never} not logged in again, the others after ${later.again_ms.median} ms (median), ${later.again_ms.max} ms at most`,
      `sessions of the other server: ${later.survivors.disconnects} disconnects, ${traffic(later.survivors)}`,
    );
  }
  return lines;
}

describe(`${options.clients} Strophe.js clients, ${options.balancer} before Prosody`, () => {
  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'bowline-e2e-'));
    try {
      story = await play({ ...options, folder });
    } catch (error) {
      passed = false;
      throw error;
    }
    const told = figures();
    console.log(`${inWords(told).join('\n')}\nfigures: ${JSON.stringify(told)}`);
    if (process.env.E2E_FIGURES) writeFileSync(process.env.E2E_FIGURES, `${JSON.stringify(told, null, 2)}\n`);
  });

  after(() => {
    if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
    else console.error(`configurations, logs and records are kept in ${folder}`);
  });

  holds('nobody is disconnected', () => {
    assert.deepEqual(story.before.disconnects, []);
    assert.deepEqual(story.before.refusals, []);
  });

  holds('every ping is answered', () => {
    const { sent, answered } = story.before.pings;
    assert.ok(sent >= options.clients, `${sent} pings`);
    assert.equal(answered, sent);
  });

  holds('no message is lost, doubled or made up', () => {
    const { sent, lost, doubled, strangers } = story.before.messages;
    assert.ok(sent >= options.clients, `${sent} messages`);
    assert.deepEqual({ lost, doubled, strangers }, { lost: 0, doubled: 0, strangers: 0 });
  });

  holds('every sid is seen by one server only', () => {
    const { total, at_one: atOne } = story.before.sids;
    assert.equal(total, options.clients);
    assert.equal(atOne, total);
  });

  holds('both servers have sessions', withTwo, () => {
    const least = Math.floor(options.clients / 3);
    for (const [index, count] of story.before.sids.by_server.entries()) {
      assert.ok(count >= least, `p${index + 1} has ${count}`);
    }
  });

  holds('a connection to a server carries one session only', withBowline, () => {
    assert.equal(story.before.shared, 0);
  });

  holds(`after kill -9, every session of the dead server is logged in again within ${AGAIN_WITHIN} ms`, withTwo, () => {
    const { again } = story.after;
    assert.ok(again.length > 0, 'the dead server had sessions');
    const late = again.filter((ms) => ms === null || ms > AGAIN_WITHIN);
    assert.deepEqual(late, []);
  });

  holds('they are told item-not-found, once', withBowline, () => {
    assert.deepEqual(story.after.reasons, { 'item-not-found': story.after.again.length });
    assert.ok(story.after.logins.every((count) => count === 2), `logins: ${story.after.logins}`);
  });

  holds('they talk at the other server', withTwo, () => {
    const { pings, messages } = story.after.newcomers;
    assert.ok(pings.sent >= story.after.again.length, `${pings.sent} pings`);
    assert.equal(pings.answered, pings.sent);
    assert.deepEqual([messages.lost, messages.doubled], [0, 0]);
  });

  holds('no session of the other server notices', withTwo, () => {
    const { disconnects, pings, messages } = story.after.survivors;
    assert.deepEqual(disconnects, []);
    assert.ok(pings.sent > 0);
    assert.equal(pings.answered, pings.sent);
    assert.deepEqual([messages.lost, messages.doubled, messages.strangers], [0, 0, 0]);
  });

  holds('the admin listener knows who is down', withBowline, () => {
    const { status, nodes } = story.after.health;
    const verdicts = Object.fromEntries(nodes.map(({ name, verdict }) => [name, verdict]));
    assert.deepEqual({ status, verdicts }, { status: 'degraded', verdicts: { p1: 'down', p2: 'up' } });
  });

  holds('everybody logs out', () => {
    assert.notEqual(story.left, null);
  });

  holds('the balancer drains and ends with exit code 0', withBowline, () => {
    assert.equal(story.balancerEnd, 'exit code 0');
  });
});
