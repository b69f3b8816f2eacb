// An ejabberd server of the run's own: its port, its data folder, anonymous logins and BOSH. It is no part of an
// Erlang network, so that it needs no daemon beside it.

import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DOMAIN } from './prosody.mjs';
import { Process } from './processes.mjs';

const LIBRARIES = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib'];

/** The folder of ejabberd's code, as Debian installs it; undefined if there is none. */
export function ejabberdCode() {
  for (const library of LIBRARIES) {
    try {
      const name = readdirSync(library).find((entry) => /^ejabberd-[\d.]+-\d+$/.test(entry));
      if (name) return path.join(library, name, 'ebin');
    } catch { /* another machine */ }
  }
  return undefined;
}

const configuration = (port) => `
hosts: [${DOMAIN}]
loglevel: warning
listen:
  - port: ${port}
    ip: "127.0.0.1"
    module: ejabberd_http
    backlog: 128
    request_handlers:
      /http-bind: mod_bosh
auth_method: anonymous
anonymous_protocol: sasl_anon
allow_multiple_connections: true
acl: { local: { user_regexp: "" } }
modules:
  mod_bosh: {}
  mod_ping: {}
  mod_disco: {}
`;

/** One running server. */
export class Ejabberd {
  constructor(name, folder, port) {
    this.name = name;
    this.port = port;
    const place = path.join(folder, name);
    mkdirSync(path.join(place, 'mnesia'), { recursive: true });
    const file = path.join(place, 'ejabberd.yml');
    writeFileSync(file, configuration(port));
    const environment = [`EJABBERD_CONFIG_PATH=${file}`, `EJABBERD_LOG_PATH=${path.join(place, 'ejabberd.log')}`, `ERL_CRASH_DUMP=${path.join(place, 'crash.dump')}`, `HOME=${place}`];
    const erl = ['erl', '-noinput', '-pa', ejabberdCode(), '-mnesia', 'dir', JSON.stringify(path.join(place, 'mnesia')), '-s', 'ejabberd'];
    this.process = new Process(name, 'env', [...environment, ...erl], path.join(place, 'output.log'));
  }
}
