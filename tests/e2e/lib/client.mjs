// One user: a Strophe.js connection that pings its server, sends itself and its peer numbered
// messages, notes everything that goes wrong, and logs in again when it is cut off (as Converse.js
// does: a new login half a second later).

import * as strophe from 'strophe.js';
import { XMLHttpRequest } from './xhr.mjs';
import { DOMAIN } from './prosody.mjs';

globalThis.XMLHttpRequest = XMLHttpRequest;

const { Strophe, $iq, $msg } = strophe;
Strophe.setLogLevel(Strophe.LogLevel.FATAL);

// Strophe.js tries again for minutes where a request got no answer: that must not keep a run alive.
const { setTimeout: timer } = globalThis;
globalThis.setTimeout = (...call) => timer(...call).unref();

const LOGIN_PAUSE = 500;

export class Client {
  /** Logins, in order: `{ at, sid, jid, ended, reason }`. */
  logins = [];
  /** Attempts to log in that failed: `{ at, reason }`. */
  refusals = [];
  pings = [];
  /** Messages by id, each with the times at which it came in. */
  sent = new Map();
  expected = new Map();
  /** Messages that came in and that nobody is known to have sent. */
  strangers = [];
  peer = null;
  #timers = [];
  #wanted = true;
  #number = 0;

  /** `every`: milliseconds between two rounds of a ping and two messages. */
  constructor(name, url, { wait, every }) {
    // A WebSocket takes no fragment.
    Object.assign(this, { name, wait, every, url: url.startsWith('ws') ? url : `${url}#${name}` });
  }

  get login() {
    return this.logins.at(-1);
  }

  get online() {
    return this.login !== undefined && this.login.ended === undefined;
  }

  connect() {
    const connection = new Strophe.Connection(this.url);
    this.connection = connection;
    let reason = null;
    let over = false;
    connection.connect(DOMAIN, null, (status, condition) => {
      if (connection !== this.connection) return;
      if (status === Strophe.Status.CONNECTED) this.#begin();
      if (status === Strophe.Status.CONNFAIL || status === Strophe.Status.AUTHFAIL) reason = condition;
      // Strophe.js says it again for each further request that was under way.
      if (status === Strophe.Status.DISCONNECTED && !over) {
        over = true;
        this.#end(reason ?? condition ?? 'no reason given');
      }
    }, this.wait);
  }

  #begin() {
    this.logins.push({ at: Date.now(), sid: this.connection._proto.sid, jid: this.connection.jid });
    this.connection.addHandler((message) => this.#receive(message), null, 'message');
    this.connection.send(strophe.$pres());
    this.changed?.();
  }

  #end(reason) {
    if (this.online) Object.assign(this.login, { ended: Date.now(), reason });
    else this.refusals.push({ at: Date.now(), reason });
    this.pause();
    this.changed?.();
    if (this.#wanted) setTimeout(() => this.#wanted && this.connect(), LOGIN_PAUSE);
  }

  #receive(message) {
    const id = message.getAttribute('id');
    const known = this.expected.get(id);
    if (known) known.received.push(Date.now());
    else this.strangers.push({ id, type: message.getAttribute('type') });
    return true;
  }

  /** Begins to ping and to send, from a random point of the interval on. */
  talk() {
    const login = this.login;
    const round = () => {
      if (!this.online || this.login !== login) return;
      this.#ping();
      this.#message(this);
      if (this.peer?.online) this.#message(this.peer);
    };
    const first = setTimeout(() => {
      round();
      this.#timers.push(setInterval(round, this.every));
    }, Math.random() * Math.min(this.every, 1000));
    this.#timers.push(first);
  }

  /** Stops pinging and sending; the connection stays. */
  pause() {
    for (const timer of this.#timers) clearInterval(timer);
    this.#timers = [];
  }

  #ping() {
    const ping = { at: Date.now(), from: this.login.sid };
    this.pings.push(ping);
    const iq = $iq({ type: 'get', to: DOMAIN }).c('ping', { xmlns: 'urn:xmpp:ping' });
    this.connection.sendIQ(iq, () => {
      ping.answered = Date.now();
    });
  }

  #message(to) {
    this.#number += 1;
    const id = `${this.name}-${to.name}-${this.#number}`;
    const message = { id, at: Date.now(), from: this.login.sid, to: to.login.sid, received: [] };
    this.sent.set(id, message);
    to.expected.set(id, message);
    this.connection.send($msg({ to: to.login.jid, type: 'chat', id }).c('body').t(`number ${this.#number}`));
  }

  /** Logs out; resolves when the connection says that it is closed. */
  leave() {
    this.#wanted = false;
    this.pause();
    if (!this.online) return Promise.resolve();
    return new Promise((resolve) => {
      this.changed = () => !this.online && resolve();
      this.connection.disconnect('done');
    });
  }
}
