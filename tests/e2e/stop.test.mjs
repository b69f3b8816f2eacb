// What must hold for real clients when Bowline is stopped while another one takes over, in front of a
// real Prosody. `run` starts this; options come in the environment.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { stop } from './lib/stop.mjs';

const options = {
  binary: process.env.E2E_BINARY,
  clients: Number(process.env.E2E_STOP_CLIENTS ?? 24),
};

// With one address the port is closed for a moment. Strophe.js then waits for 8 s before its third try of a
// request, and sends the next one meanwhile: what Prosody makes of that order is not Bowline's doing.
const GAPLESS = 'two addresses';

// The longest that a ping may take that met the stop.
const WITHIN = 3000;

for (const succession of [GAPLESS, 'one address']) {
  describe(`${options.clients} Strophe.js clients, a stop, ${succession}`, () => {
    let folder;
    let story;
    let passed = true;

    function holds(what, check) {
      test(what, () => {
        try {
          check();
        } catch (error) {
          passed = false;
          throw error;
        }
      });
    }

    before(async () => {
      folder = mkdtempSync(path.join(tmpdir(), 'bowline-e2e-'));
      try {
        story = await stop({ ...options, folder, succession });
      } catch (error) {
        passed = false;
        throw error;
      }
      const { disconnects, held, ...figures } = story;
      const slowest = Math.max(...held.map(({ after: ms }) => ms));
      console.log(`figures: ${JSON.stringify({ succession, disconnects: disconnects.length, held: held.length, held_ms_max: slowest, ...figures })}`);
    });

    after(() => {
      if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
      else console.error(`configurations, logs and records are kept in ${folder}`);
    });

    holds('the process is gone within 3 s, with exit code 0', () => {
      assert.equal(story.end, 'exit code 0');
      assert.ok(story.gone < 3000, `${story.gone} ms`);
    });

    holds('every request that was under way got a 200', () => {
      // One client or another is between two requests.
      assert.ok(story.held.length >= options.clients / 2, `${story.held.length} requests`);
      assert.deepEqual(story.held.filter(({ status }) => status !== 200), []);
    });

    holds('nobody is disconnected', () => {
      assert.deepEqual(story.disconnects, []);
    });

    if (succession !== GAPLESS) return;

    holds('no message is lost, doubled or made up', () => {
      const { sent, lost, doubled, strangers } = story.messages;
      assert.ok(sent >= options.clients, `${sent} messages`);
      assert.deepEqual({ lost, doubled, strangers }, { lost: 0, doubled: 0, strangers: 0 });
    });

    holds('every ping is answered', () => {
      assert.equal(story.pings.answered, story.pings.sent);
      assert.ok(story.pings.time_ms.max < WITHIN, `${story.pings.time_ms.max} ms`);
    });
  });
}
