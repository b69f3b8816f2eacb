// Processes that a run starts: each is known by its id, and none outlives the run.

import { spawn, spawnSync } from 'node:child_process';
import { openSync, closeSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const started = new Set();

// Where the kernel can do it, a child dies with this process even if this one is killed outright.
const leash = spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true']).status === 0;

/** One process, its output in a file. */
export class Process {
  constructor(name, command, args, logFile) {
    this.name = name;
    this.logFile = logFile;
    const log = openSync(logFile, 'a');
    const line = leash ? ['setpriv', '--pdeathsig', 'KILL', command, ...args] : [command, ...args];
    this.child = spawn(line[0], line.slice(1), { stdio: ['ignore', log, log] });
    closeSync(log);
    started.add(this);
    this.ended = new Promise((resolve) => {
      this.child.on('error', (error) => resolve(`did not start: ${error.message}`));
      this.child.on('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
    }).then((how) => {
      started.delete(this);
      this.end = how;
      return how;
    });
  }

  get pid() {
    return this.child.pid;
  }

  kill(signal) {
    if (this.end === undefined) this.child.kill(signal);
  }

  log() {
    return readFileSync(this.logFile, 'utf8');
  }

  /** Waits until it accepts connections. */
  async listens(port, seconds = 10) {
    await until(`${this.name} listens`, seconds, async () => {
      if (this.end !== undefined) {
        throw new Error(`${this.name} ended (${this.end}):\n${this.log().slice(-2000)}`);
      }
      return accepts(port);
    });
  }

  /** Ends it: SIGTERM, and SIGKILL if that does not help. Returns how it ended. */
  async stop(seconds = 5) {
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), seconds * 1000);
    const how = await this.ended;
    clearTimeout(timer);
    return how;
  }
}

/** Kills what is left, at once. */
export function killAll() {
  for (const process of started) process.kill('SIGKILL');
}

process.on('exit', killAll);
for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]]) {
  process.on(signal, () => process.exit(code));
}

/** Waits for a condition. */
export async function until(what, seconds, condition) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s in vain: ${what}`);
    await sleep(20);
  }
}

/** Whether something listens there. */
export function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** Ports that are free now, all different. */
export async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise((resolve, reject) => {
      const server = net.createServer();
      server.on('error', reject);
      server.listen(0, '127.0.0.1', () => resolve(server));
    })),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}
