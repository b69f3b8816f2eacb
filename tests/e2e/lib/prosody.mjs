// A Prosody server of the run's own: its port, its data folder, anonymous logins, BOSH, WebSocket and nothing
// else; and the record of what it saw.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Process } from './processes.mjs';

const MODULES = fileURLToPath(new URL('../prosody-modules', import.meta.url));

/** The domain that every server serves: they know nothing of each other. */
export const DOMAIN = 'localhost';

function configuration(folder, port, { settings = '', modules = [], authentication = 'anonymous', tls }) {
  const https = tls ? `{ ${port} }\nhttps_ssl = { certificate = ${JSON.stringify(tls.certificate)}, key = ${JSON.stringify(tls.key)} }` : '{ }';
  return `
run_as_root = true
data_path = ${JSON.stringify(path.join(folder, 'data'))}
plugin_paths = { ${JSON.stringify(MODULES)} }
modules_enabled = { "roster", "saslauth", "disco", "ping", "bosh", "websocket", "e2e_record"${modules.map((name) => `, "${name}"`).join('')} }
certificates = ${JSON.stringify(folder)} -- none, and no error about it
modules_disabled = { "s2s", "s2s_auth_certs" }
c2s_ports = { } -- WebSocket needs the module, but not its port
c2s_direct_tls_ports = { }
e2e_record = ${JSON.stringify(path.join(folder, 'record.tsv'))}

interfaces = { "127.0.0.1" }
http_ports = { ${tls ? '' : port} }
http_interfaces = { "127.0.0.1" }
https_ports = ${https}
https_interfaces = { "127.0.0.1" }
http_default_host = "${DOMAIN}"
consider_bosh_secure = true
consider_websocket_secure = true
${settings}

log = { info = ${JSON.stringify(path.join(folder, 'prosody.log'))} }

VirtualHost "${DOMAIN}"
	authentication = "${authentication}"
`;
}

/** One running server. */
export class Prosody {
  /** `more`: further `settings` as text, `modules` by name, another `authentication`, and `tls`, a
   * `certificate` and its `key`: then it speaks TLS only. */
  constructor(name, folder, port, more = {}) {
    this.name = name;
    this.folder = path.join(folder, name);
    this.port = port;
    mkdirSync(path.join(this.folder, 'data'), { recursive: true });
    const file = path.join(this.folder, 'prosody.cfg.lua');
    writeFileSync(file, configuration(this.folder, port, more));
    const output = path.join(this.folder, 'output.log');
    this.process = new Process(name, 'prosody', ['-F', '--config', file], output);
  }

  /** Makes an account. The server needs `authentication: 'internal_plain'`. */
  register(user, password) {
    const accounts = path.join(this.folder, 'data', DOMAIN, 'accounts');
    mkdirSync(accounts, { recursive: true });
    writeFileSync(path.join(accounts, `${user}.dat`), `return { ["password"] = ${JSON.stringify(password)} };\n`);
  }

  /** Every BOSH request that it saw: `{ time, connection, what, sid }`, time in milliseconds. */
  record() {
    const lines = readFileSync(path.join(this.folder, 'record.tsv'), 'utf8').split('\n');
    return lines.filter((line) => line.length > 0).map((line) => {
      const [time, connection, what, sid] = line.split('\t');
      return { time: Number(time) * 1000, connection: Number(connection), what, sid };
    });
  }

  /** The sids of the sessions that it made. */
  created() {
    return new Set(this.record().filter(({ what }) => what === 'created').map(({ sid }) => sid));
  }

  /** The sids that requests to it named. */
  asked() {
    return new Set(this.record().filter(({ what, sid }) => what === 'request' && sid !== '-').map(({ sid }) => sid));
  }

  /** The sids on each connection that carried a session of its own; a probe's made-up sid is none. */
  sidsByConnection() {
    const created = this.created();
    const connections = new Map();
    for (const { connection, sid } of this.record()) {
      if (!created.has(sid)) continue;
      if (!connections.has(connection)) connections.set(connection, new Set());
      connections.get(connection).add(sid);
    }
    return [...connections.values()];
  }
}
