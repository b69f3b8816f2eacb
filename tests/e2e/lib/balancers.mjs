// What stands before the servers: Bowline, HAProxy for comparison, or nothing.

import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { Process, freePorts, until } from './processes.mjs';

function bowlineConfiguration({ address = '127.0.0.1', port, admin, nodes, more = '' }) {
  const lines = nodes.map(({ name, port: at }) => `  - { name: ${name}, address: 127.0.0.1:${at} }`);
  return `
listen:
  - address: ${address}:${port}
bosh:
  paths: [/http-bind]
placement: round-robin        # all clients come from one address
nodes:
${lines.join('\n')}
admin: { address: 127.0.0.1:${admin} }
${more}
`;
}

// The sid is read with a regular expression and kept in a table; `http-reuse never` so that no
// connection to a node is shared between sessions.
function haproxyConfiguration(port, nodes) {
  const servers = nodes.map(({ name, port: at }) => `  server ${name} 127.0.0.1:${at} check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions`);
  const sid = String.raw`regsub('^[^>]* sid=.([-0-9a-f]+).*','\1')`;
  const hasSid = '-m reg "^[^>]* sid="';
  return `
global
  maxconn 2000
defaults
  mode http
  timeout connect 2s
  timeout client 90s
  timeout server 90s
frontend clients
  bind 127.0.0.1:${port}
  http-request wait-for-body time 5s
  default_backend nodes
backend nodes
  balance roundrobin
  http-reuse never
  retries 2
  option redispatch
  option httpchk GET /http-bind
  stick-table type string len 64 size 10k expire 5m
  stick match "req.body,${sid}" if { req.body ${hasSid} }
  http-response wait-for-body time 5s
  stick store-response "res.body,${sid}" if { res.body ${hasSid} }
${servers.join('\n')}
`;
}

/** Starts Bowline there, in front of `nodes`; it serves once `started` has resolved. `text`: another configuration. */
export function startBowline(folder, binary, where, text = bowlineConfiguration(where)) {
  const file = path.join(folder, `bowline-${where.admin}.yaml`);
  writeFileSync(file, text);
  const process = new Process('bowline', binary, ['run', '--config', file], path.join(folder, `bowline-${where.admin}.log`));
  const told = `http://127.0.0.1:${where.admin}`;
  const started = async () => {
    await process.listens(where.admin);
    await until('bowline has found every node up', 5, async () => (await health(told)).status === 'ok');
  };
  return { process, started, health: () => health(told) };
}

async function health(admin) {
  const answer = await fetch(`${admin}/health`, { signal: AbortSignal.timeout(2000) });
  return answer.json();
}

/** The kinds of balancer: each starts before `nodes` and gives `{ url, process, health }`. */
export const BALANCERS = {
  async none(folder, nodes) {
    return { url: `http://127.0.0.1:${nodes[0].port}/http-bind` };
  },

  async haproxy(folder, nodes) {
    const [port] = await freePorts(1);
    const file = path.join(folder, 'haproxy.cfg');
    writeFileSync(file, haproxyConfiguration(port, nodes));
    const process = new Process('haproxy', 'haproxy', ['-db', '-f', file], path.join(folder, 'haproxy.log'));
    await process.listens(port);
    return { url: `http://127.0.0.1:${port}/http-bind`, process };
  },

  async bowline(folder, nodes, binary) {
    const [port, admin] = await freePorts(2);
    const { process, started, health } = startBowline(folder, binary, { port, admin, nodes, more: 'timeouts: { drain: 3s }' });
    await started();
    return { url: `http://127.0.0.1:${port}/http-bind`, process, health };
  },
};
