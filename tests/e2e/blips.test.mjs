// A blip: all connections of 20 active Strophe.js clients are cut at once, and no session or message is lost. A short
// one runs always. `BLIPS=all` runs each server, kind of client, kind of blip and length, also without Bowline and
// without the wait; `BLIPS='prosody chromium 9s'` those with these words in their names. `run` starts this.

import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { CROWDS, SERVERS, play } from './lib/blip.mjs';
import { KINDS } from './lib/relay.mjs';

const LENGTHS = [100, 1000, 5000];
const FRONTS = ['9s', '0s', 'none'];
// Strophe.js sends a lost request again after 8 s; the rest is its own idle time and that of a loaded machine.
const SERVED_WITHIN = 9500;

let folder;
let passed = true;

before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'bowline-blips-'));
});

after(() => {
  if (passed && !process.env.E2E_KEEP) rmSync(folder, { recursive: true, force: true });
  else console.error(`configurations and logs are kept in ${folder}`);
});

function holds(name, options, servedWithin) {
  test(name, async () => {
    try {
      const story = await play({ folder: path.join(folder, name.replaceAll(/\W+/g, '-')), binary: process.env.E2E_BINARY, ...options });
      const figures = JSON.stringify({ name, ...story });
      console.log(figures);
      if (process.env.E2E_FIGURES) appendFileSync(process.env.E2E_FIGURES, `${figures}\n`);
      if (options.front !== '9s') return;
      assert.deepEqual([story.sessions_ended, story.lost, story.doubled], [0, 0, 0]);
      assert.ok(story.longest_gap_ms <= servedWithin, `${story.longest_gap_ms} ms`);
    } catch (error) {
      passed = false;
      throw error;
    }
  });
}

const words = (process.env.BLIPS ?? '').split(' ').filter((word) => word && word !== 'all');
if (process.env.BLIPS) {
  for (const front of FRONTS) {
    for (const server of Object.keys(SERVERS)) {
      for (const clients of CROWDS) {
        for (const blip of KINDS) {
          for (const length of LENGTHS) {
            const name = `${server} ${clients} ${front} ${blip} ${length}`;
            if (words.every((word) => name.split(' ').includes(word))) {
              holds(name, { server, clients, front, blip, length }, Math.max(SERVED_WITHIN, length + 3000));
            }
          }
        }
      }
    }
  }
} else {
  // With a wait of 3 s, Strophe.js sends a lost request again after 3 s.
  holds('refused connections for 100 ms end no session', { server: 'prosody', clients: 'fresh', front: '9s', blip: 'refused', length: 100, wait: 3, soon: 4000 }, 6000);
}
