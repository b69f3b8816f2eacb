// What must hold when real clients talk to real servers through the balancer, when one of the servers
// is killed, and when another one is frozen. `run` starts this; options come in the environment.

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
// The two failures: what they are called, and what a loaded machine must hold. A quiet one needs 1 s, and
// for a frozen server the 5 s of health.silence more (docs/operations.md).
const FAILURES = {
  killed: { how: 'kill -9', within: 3000, down: ['p1'] },
  frozen: { how: 'kill -STOP', within: 8500, down: ['p1', 'p2'] },
};

const skipUnless = (kinds) => (kinds.includes(options.balancer) ? false : `not with ${options.balancer}`);
const withSeveral = { skip: skipUnless(['bowline', 'haproxy']) };
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

function figuresOf(then) {
  return {
    sessions_lost: then.again.length,
    again_ms: { ...spread(then.again.filter((ms) => ms !== null)), never: then.again.filter((ms) => ms === null).length },
    reasons: then.reasons,
    survivors: { ...then.survivors, disconnects: then.survivors.disconnects.length },
    newcomers: then.newcomers,
  };
}

function figures() {
  return {
    balancer: options.balancer,
    clients: options.clients,
    seconds: options.seconds,
    logged_in_ms: story.loggedIn,
    before: { ...story.before, disconnects: story.before.disconnects.length, refusals: story.before.refusals.length },
    killed: story.killed && figuresOf(story.killed),
    frozen: story.frozen && figuresOf(story.frozen),
    logged_out_ms: story.left,
    http: story.http,
  };
}

function inWords({ before: then, ...rest }) {
  const traffic = ({ pings, messages }) =>
    `${pings.answered} of ${pings.sent} pings answered, ${messages.sent} messages, ${messages.lost} lost, ${messages.doubled} doubled`;
  const lines = [
    `logged in: ${rest.clients} clients in ${rest.logged_in_ms} ms; sessions by server: ${then.sids.by_server.join(', ')}`,
    `${rest.seconds} s: ${then.disconnects} disconnects, ${traffic(then)}; a ping takes ${then.pings.time_ms.median} ms (median), ${then.pings.time_ms.max} ms at most`,
    `${then.connections.join(' + ')} connections to the servers, ${then.shared} with more than one session`,
  ];
  for (const [failure, { how }] of Object.entries(FAILURES)) {
    const later = rest[failure];
    if (!later) continue;
    lines.push(
      `${how}: ${later.sessions_lost} sessions lost, ${later.again_ms.never} not logged in again, the others after ${later.again_ms.median} ms (median), ${later.again_ms.max} ms at most`,
      `sessions of the other servers: ${later.survivors.disconnects} disconnects, ${traffic(later.survivors)}`,
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

  holds('every server has sessions', withSeveral, () => {
    const least = Math.floor(options.clients / 4);
    for (const [index, count] of story.before.sids.by_server.entries()) {
      assert.ok(count >= least, `p${index + 1} has ${count}`);
    }
  });

  holds('a connection to a server carries one session only', withBowline, () => {
    assert.equal(story.before.shared, 0);
  });

  for (const [failure, { how, within, down }] of Object.entries(FAILURES)) {
    holds(`after ${how}, every session of the server is logged in again within ${within} ms`, withSeveral, () => {
      const { again } = story[failure];
      assert.ok(again.length > 0, 'the server had sessions');
      const late = again.filter((ms) => ms === null || ms > within);
      assert.deepEqual(late, []);
    });

    holds(`${how}: they are told item-not-found, once`, withBowline, () => {
      const { reasons, again, logins } = story[failure];
      assert.deepEqual(reasons, { 'item-not-found': again.length });
      assert.ok(logins.every((count) => count === 1), `logins: ${logins}`);
    });

    holds(`${how}: they talk at other servers`, withSeveral, () => {
      const { newcomers: { pings, messages }, again } = story[failure];
      assert.ok(pings.sent >= again.length, `${pings.sent} pings`);
      assert.equal(pings.answered, pings.sent);
      assert.deepEqual([messages.lost, messages.doubled], [0, 0]);
    });

    holds(`${how}: no session of another server notices`, withSeveral, () => {
      const { disconnects, pings, messages } = story[failure].survivors;
      assert.deepEqual(disconnects, []);
      assert.ok(pings.sent > 0);
      assert.equal(pings.answered, pings.sent);
      assert.deepEqual([messages.lost, messages.doubled, messages.strangers], [0, 0, 0]);
    });

    holds(`${how}: the admin listener knows who is down`, withBowline, () => {
      const { status, nodes } = story[failure].health;
      const found = nodes.filter(({ verdict }) => verdict === 'down').map(({ name }) => name);
      assert.deepEqual([status, found], ['degraded', down]);
    });
  }

  holds('everybody logs out', () => {
    assert.notEqual(story.left, null);
  });

  holds('the balancer drains and ends with exit code 0', withBowline, () => {
    assert.equal(story.balancerEnd, 'exit code 0');
  });
});
