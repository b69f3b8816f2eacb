// A TCP relay whose connections can all be cut at once, as in a tunnel or when a proxy is killed.

import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** What happens to new connections while there is no way through. */
export const KINDS = ['refused', 'stalled'];

/** A relay to `upstream`, a port of this machine. */
export class Relay {
  #pairs = new Set();
  #stalled = null;
  #server = null;

  static async before(upstream) {
    const relay = new Relay();
    relay.upstream = upstream;
    await relay.#listen(0);
    relay.port = relay.#server.address().port;
    return relay;
  }

  #listen(port) {
    this.#server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
      if (this.#stalled) this.#stalled.push(client);
      else this.#connect(client);
    });
    return new Promise((resolve, reject) => {
      this.#server.on('error', reject);
      this.#server.listen(port, '127.0.0.1', resolve);
    });
  }

  #connect(client) {
    const server = net.connect({ port: this.upstream, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    const pair = [client, server];
    this.#pairs.add(pair);
    for (const [from, to] of [[client, server], [server, client]]) {
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#pairs.delete(pair);
        if (from.errored) to.destroy();
      });
    }
  }

  /** Cuts every connection, half of them with a reset. */
  cut() {
    let number = 0;
    for (const pair of this.#pairs) {
      number += 1;
      for (const end of pair) {
        end.unpipe();
        if (number % 2) end.destroy();
        else end.resetAndDestroy();
      }
    }
    this.#pairs.clear();
  }

  /** Cuts every connection. For `milliseconds`, new ones are refused, or accepted and stalled. */
  async blip(kind, milliseconds) {
    if (kind === 'stalled') {
      this.#stalled = [];
      this.cut();
      await sleep(milliseconds);
      const stalled = this.#stalled;
      this.#stalled = null;
      for (const client of stalled) this.#connect(client);
    } else {
      this.#server.close();
      this.cut();
      await sleep(milliseconds);
      await this.#listen(this.port);
    }
  }

  stop() {
    this.#server.close();
    this.cut();
  }
}
