// The story: clients log in, talk for a while, one server is killed, its clients log in at the other
// two, one of those is frozen, and its clients log in at the last one. It only observes; what must hold is in `sticky_sessions.test.mjs`.

import { setTimeout as sleep } from 'node:timers/promises';
import { BALANCERS } from './balancers.mjs';
import { Client } from './client.mjs';
import { Prosody } from './prosody.mjs';
import { freePorts, until } from './processes.mjs';
import { closePages, counted } from './xhr.mjs';

const SETTLE = 3000; // for what is under way when the talking stops
const AFTERMATH = 10_000; // from a failure on

// A page that talks every second, one whose polls run to their end, one in between. In seconds, and
// in milliseconds from one round of a ping and two messages to the next.
const HABITS = [{ wait: 60, every: 1000 }, { wait: 10, every: 12_000 }, { wait: 30, every: 2000 }];

export async function play({ balancer, binary, clients: count, seconds, folder }) {
  const servers = balancer === 'none' ? 1 : 3;
  const ports = await freePorts(servers);
  const nodes = ports.map((port, index) => new Prosody(`p${index + 1}`, folder, port));
  await Promise.all(nodes.map((node) => node.process.listens(node.port)));
  const front = await BALANCERS[balancer](folder, nodes, binary);

  const clients = Array.from({ length: count }, (_, index) => new Client(`c${index + 1}`, front.url, HABITS[index % HABITS.length]));
  const began = Date.now();
  for (const client of clients) client.connect();
  await until('every client is logged in', 15, () => clients.every((client) => client.online));
  const loggedIn = Date.now() - began;

  meet(homesOf(nodes, clients));

  for (const client of clients) client.talk();
  await sleep(seconds * 1000);
  const before = await quiet(clients, nodes);
  const story = { front, nodes, clients, loggedIn, before };
  if (nodes.length > 1) {
    story.killed = await fail(story, 0, 'SIGKILL');
    story.frozen = await fail(story, 1, 'SIGSTOP');
    nodes[1].process.kill('SIGCONT');
  }

  const leaving = Date.now();
  const left = Promise.all(clients.map((client) => client.leave()));
  story.left = await Promise.race([left.then(() => Date.now() - leaving), sleep(5000, null, { ref: false })]);
  story.http = structuredClone(counted);
  closePages();
  if (front.process) story.balancerEnd = await front.process.stop(10);
  await Promise.all(nodes.map((node) => node.process.stop()));
  return story;
}

// Lets what is under way come to its end, and takes stock.
async function quiet(clients, nodes) {
  for (const client of clients) client.pause();
  await sleep(SETTLE);
  return {
    disconnects: clients.flatMap((client) => client.logins.filter(({ ended }) => ended)),
    refusals: clients.flatMap((client) => client.refusals),
    pings: totalOfPings(clients),
    messages: totalOfMessages(clients),
    sids: sidsByServer(clients, nodes),
    shared: nodes.flatMap((node) => node.sidsByConnection().filter((sids) => sids.size > 1)).length,
    connections: nodes.map((node) => node.sidsByConnection().length),
  };
}

/** The clients of each server. */
function homesOf(nodes, clients) {
  return nodes.map((node) => {
    const created = node.created();
    return clients.filter((client) => created.has(client.login.sid));
  });
}

// Servers know nothing of each other, so a peer is a client of the same server.
export function meet(homes) {
  for (const home of homes) {
    home.forEach((client, index) => {
      client.peer = home[(index + 1) % home.length];
    });
  }
}

/** Ends the server with this number by a signal, and looks what its clients and the others notice. */
async function fail({ nodes, clients, front }, number, signal) {
  const homes = homesOf(nodes, clients);
  meet(homes);
  const lost = homes[number];
  const kept = clients.filter((client) => !lost.includes(client));
  for (const client of clients) {
    client.pings = [];
    client.sent = new Map();
    client.strangers = [];
    client.talk();
  }
  await sleep(2000); // the talk is in full swing
  const failed = Date.now();
  nodes[number].process.kill(signal);
  for (const client of lost) {
    client.peer = null; // it may log in elsewhere
    client.changed = () => {
      if (client.online && client.login.at >= failed) client.talk();
    };
  }
  await sleep(AFTERMATH);
  const health = await front.health?.();
  for (const client of clients) client.pause();
  await sleep(SETTLE);
  const others = nodes.filter((node, index) => index !== number);
  const created = new Set(others.flatMap((node) => [...node.created()]));
  const since = ({ ended, at }) => (ended ?? at) >= failed;
  return {
    health,
    // Null: not logged in again.
    again: lost.map((client) => {
      const login = client.logins.find(({ at }) => at >= failed);
      return login && client.online && created.has(login.sid) ? login.at - failed : null;
    }),
    reasons: tally(lost.flatMap((client) => [...client.logins, ...client.refusals].filter((one) => one.reason && since(one)).map(({ reason }) => reason))),
    logins: lost.map((client) => client.logins.filter(({ at }) => at >= failed).length),
    survivors: {
      disconnects: kept.flatMap((client) => client.logins.filter(({ ended }) => ended >= failed)),
      pings: totalOfPings(kept),
      messages: totalOfMessages(kept),
    },
    newcomers: {
      pings: totalOfPings(lost, (ping, client) => ping.from === client.login.sid),
      messages: totalOfMessages(lost, (message, client) => message.from === client.login.sid),
    },
  };
}

function tally(words) {
  const counts = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

export function totalOfPings(clients, which = () => true) {
  const sent = clients.flatMap((client) => client.pings.filter((ping) => which(ping, client)));
  const answered = sent.filter((ping) => ping.answered !== undefined);
  return {
    sent: sent.length,
    answered: answered.length,
    time_ms: spread(answered.map((ping) => ping.answered - ping.at)),
  };
}

export function totalOfMessages(clients, which = () => true) {
  const sent = clients.flatMap((client) => [...client.sent.values()].filter((message) => which(message, client)));
  const delays = sent.filter(({ received }) => received.length > 0).map(({ at, received }) => received[0] - at);
  return {
    sent: sent.length,
    lost: sent.filter(({ received }) => received.length === 0).length,
    doubled: sent.filter(({ received }) => received.length > 1).length,
    strangers: clients.reduce((total, client) => total + client.strangers.length, 0),
    delay_ms: spread(delays),
  };
}

/** Median and greatest. */
export function spread(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: sorted[Math.floor(sorted.length / 2)] ?? null, max: sorted.at(-1) ?? null };
}

// Of the sids that clients have: how many were named to more than one server.
function sidsByServer(clients, nodes) {
  const asked = nodes.map((node) => node.asked());
  const sids = clients.flatMap((client) => client.logins.map(({ sid }) => sid));
  return {
    total: sids.length,
    at_one: sids.filter((sid) => asked.filter((some) => some.has(sid)).length === 1).length,
    by_server: asked.map((some) => sids.filter((sid) => some.has(sid)).length),
  };
}
