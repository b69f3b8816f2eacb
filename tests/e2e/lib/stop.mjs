// The story of a stop: clients talk through one Bowline, it gets SIGTERM, and another one takes over. It
// only observes; what must hold is in `stop.test.mjs`.

import { setTimeout as sleep } from 'node:timers/promises';
import { startBowline } from './balancers.mjs';
import { Client } from './client.mjs';
import { accepts, freePorts, until } from './processes.mjs';
import { Prosody } from './prosody.mjs';
import { meet, totalOfMessages, totalOfPings } from './scenario.mjs';
import { closePages, name, requests } from './xhr.mjs';

const SETTLE = 3000; // for what is under way when the talking stops
const AFTERMATH = 15_000; // Strophe.js tries a third time after 8 s

// A third of the clients is quiet, so that their polls are held for long; a third talks now and then,
// and a third so often that stanzas are under way at every moment.
const HABITS = [60_000, 4000, 500].map((every) => ({ wait: 60, every }));

/** The ways in which the next process takes over: where it listens, and when it starts. */
const SUCCESSIONS = {
  // Both serve all the time, behind one name. A client tries the addresses of a name one by one.
  'two addresses': { next: '127.0.0.2', early: true },
  // The next process starts when the port is free.
  'one address': { next: '127.0.0.1', early: false },
};

export async function stop({ binary, clients: count, folder, succession }) {
  const { next: nextAddress, early } = SUCCESSIONS[succession];
  const [nodePort, port, admin, nextAdmin] = await freePorts(4);
  const node = new Prosody('p1', folder, nodePort);
  await node.process.listens(nodePort);
  const nodes = [node];
  const start = (address, at) => startBowline(folder, binary, { address, port, admin: at, nodes });
  const first = start('127.0.0.1', admin);
  await first.started();
  let next = early ? start(nextAddress, nextAdmin) : null;
  await next?.started();

  const host = `${succession.replace(' ', '-')}.test`;
  name(host, [...new Set(['127.0.0.1', nextAddress])]);
  const clients = Array.from({ length: count }, (_, index) => new Client(`c${index + 1}`, `http://${host}:${port}/http-bind`, HABITS[index % HABITS.length]));
  for (const client of clients) client.connect();
  await until('every client is logged in', 15, () => clients.every((client) => client.online));
  // Nothing is sent to the quiet ones before the stop.
  meet(HABITS.map((_, habit) => clients.filter((client, index) => index % HABITS.length === habit)));
  for (const client of clients) client.talk();
  await sleep(5000); // the talk is in full swing

  const stopped = Date.now();
  first.process.kill('SIGTERM');
  if (!early) {
    await until('the port is free', 5, async () => !(await accepts(port)));
    next = start(nextAddress, nextAdmin);
  }
  const end = await first.process.ended;
  const gone = Date.now() - stopped;
  meet([clients]); // also those who were quiet get messages now
  await sleep(AFTERMATH);
  for (const client of clients) client.pause();
  await sleep(SETTLE);
  const held = requests.filter(({ at, ended = Infinity }) => at < stopped && ended >= stopped);
  const refused = requests.filter(({ at, status }) => at >= stopped && status === 0);
  const story = {
    gone,
    end,
    held: held.map(({ status, ended }) => ({ status: status ?? 'none', after: (ended ?? Infinity) - stopped })),
    refused: refused.length,
    disconnects: clients.flatMap((client) => client.logins.filter(({ ended }) => ended)),
    pings: totalOfPings(clients),
    during: totalOfPings(clients, ({ at, answered = Infinity }) => answered >= stopped && at <= stopped + 1000),
    messages: totalOfMessages(clients),
  };
  await Promise.all(clients.map((client) => Promise.race([client.leave(), sleep(5000)])));
  closePages();
  await Promise.all([next.process.stop(), node.process.stop()]);
  return story;
}
