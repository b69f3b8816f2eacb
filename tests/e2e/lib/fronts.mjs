// Proxies in front of Bowline: nginx, HAProxy and Caddy with the files of `config/`. Only addresses and the paths of
// certificates are changed.

import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { committed } from './committed.mjs';
import { Process, freePorts } from './processes.mjs';

// The rest of nginx.conf, as a package has it: the committed file is a site. One process, which is easy to end.
function nginxAround(place, site) {
  const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `  ${name}_temp_path ${place}/${name};`);
  return `
daemon off;
master_process off;
pid ${place}/pid;
error_log stderr warn;
events { worker_connections 1000; }
http {
  access_log off;
${folders.join('\n')}
  include ${site};
}
`;
}

/** For each proxy: its file in `config/`, the address there that clients use, and how it is started. */
const FRONTS = {
  nginx: {
    file: 'nginx-in-front.conf',
    listen: (port) => ['listen 443 ', `listen 127.0.0.1:${port} `],
    command(place, site) {
      const main = path.join(place, 'main.conf');
      writeFileSync(main, nginxAround(place, site));
      return ['nginx', '-e', 'stderr', '-c', main];
    },
  },
  haproxy: {
    file: 'haproxy-in-front.cfg',
    listen: (port) => ['bind :443 ', `bind 127.0.0.1:${port} `],
    command: (place, file) => ['haproxy', '-db', '-f', file],
  },
  caddy: {
    file: 'Caddyfile-in-front',
    listen: (port) => ['https://chat.example.com:443 ', `https://127.0.0.1:${port} `],
    command: (place, file, admin) => ['env', `XDG_DATA_HOME=${place}`, `XDG_CONFIG_HOME=${place}`, `CADDY_ADMIN=127.0.0.1:${admin}`, 'caddy', 'run', '--adapter', 'caddyfile', '--config', file],
  },
};

/** Their names. */
export const KINDS = Object.keys(FRONTS);

/** Starts the proxy `kind` in front of `upstream`, a port of this machine, with the certificate in `folder`. */
export async function startFront(kind, folder, upstream) {
  const { file: name, listen, command } = FRONTS[kind];
  const [port, admin] = await freePorts(2);
  const place = path.join(folder, `${kind}-${port}`);
  mkdirSync(place);
  const file = path.join(place, name);
  writeFileSync(file, committed(name, [listen(port), ['127.0.0.1:5280', `127.0.0.1:${upstream}`], ['/etc/ssl/', `${folder}/`]]));
  const [program, ...args] = command(place, file, admin);
  const process = new Process(kind, program, args, path.join(place, 'output.log'));
  await process.listens(port);
  return { kind, process, port, bosh: `https://127.0.0.1:${port}/http-bind`, websocket: `wss://127.0.0.1:${port}/xmpp-websocket` };
}
