// XMLHttpRequest as far as Strophe.js uses it, with a browser's manners.
//
// Node has none, and the packages that offer one do not parse `responseXML`, keep no connection per
// page or know nothing of CORS. Here, as in a browser:
// - each page (client) keeps its own connections alive, six at most to one origin;
// - the page is of another origin than the service: a preflight goes first, and an answer without
//   Access-Control-Allow-Origin is a network error (status 0), whatever its status was;
// - a request on a kept connection that ends before any byte of the answer is sent again once;
// - `abort()` closes the connection.
//
// A page is named by the fragment of the URL (`http://…/http-bind#7`), which never leaves here. Programs are no
// browsers: those named `#fresh…` open a connection for each request, and those named `#pooled…` send nothing again.

import dns from 'node:dns';
import http from 'node:http';
import https from 'node:https';

/** The origin of the page that the clients pretend to be. */
export const ORIGIN = 'http://chat.example.com';

const pages = new Map();

// Names with several addresses, for clients that try one after the other as browsers do. A name in
// `.test` never leads out of this machine (RFC 6761).
const names = new Map();

/** Gives a name these addresses. */
export function name(host, addresses) {
  names.set(host, addresses);
}

function lookup(host, options, callback) {
  const addresses = names.get(host);
  if (!addresses) return dns.lookup(host, options, callback);
  const found = addresses.map((address) => ({ address, family: 4 }));
  return options.all ? callback(null, found) : callback(null, found[0].address, 4);
}

const client = (url) => (url.protocol === 'https:' ? https : http);

function page(url) {
  let found = pages.get(url.href);
  if (!found) {
    const agent = new (client(url).Agent)({ keepAlive: !url.hash.startsWith('#fresh'), maxSockets: 6, lookup });
    found = { agent, preflight: null, repeats: !url.hash.startsWith('#pooled') };
    pages.set(url.href, found);
  }
  return found;
}

/** Closes every connection that clients keep, and forgets preflights. */
export function closePages() {
  for (const { agent } of pages.values()) agent.destroy();
  pages.clear();
}

/** Every request: its service, when it began and ended, and with which status; 0 is a failure. */
export const requests = [];

/** What went over the wire, for the figures. */
export const counted = { requests: 0, resent: 0, statuses: {}, refused: {}, failed: {} };

function count(table, key) {
  table[key] = (table[key] ?? 0) + 1;
}

function exchange(agent, url, method, headers, body, onRequest) {
  return new Promise((resolve, reject) => {
    const request = client(url).request(url, { agent, method, headers: { ...headers, Origin: ORIGIN } });
    let answered = false;
    onRequest?.(request);
    request.on('response', (response) => {
      answered = true;
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({ status: response.statusCode, headers: response.headers, text });
      });
    });
    request.on('error', (error) => {
      error.stale = request.reusedSocket && !answered;
      reject(error);
    });
    request.end(body);
  });
}

function mayRead(headers) {
  return ['*', ORIGIN].includes(headers['access-control-allow-origin']);
}

async function preflight(agent, url) {
  const asked = {
    'Access-Control-Request-Method': 'POST',
    'Access-Control-Request-Headers': 'content-type',
  };
  const { status, headers } = await exchange(agent, url, 'OPTIONS', asked);
  const allowed = (headers['access-control-allow-headers'] ?? '').toLowerCase();
  if (status < 200 || status > 299 || !mayRead(headers) || !allowed.includes('content-type')) {
    throw new Error(`preflight refused: status ${status}`);
  }
}

/** The part of XMLHttpRequest that Strophe.js uses; asynchronous only. */
export class XMLHttpRequest {
  readyState = 0;
  status = 0;
  responseText = '';
  responseXML = null;
  onreadystatechange = null;
  #url;
  #method;
  #headers = {};
  #answerHeaders = {};
  #request = null;
  #aborted = false;
  #record = null;

  open(method, url) {
    this.#method = method;
    this.#url = new URL(url);
    this.#become(1);
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }

  getAllResponseHeaders() {
    const lines = Object.entries(this.#answerHeaders).map(([name, value]) => `${name}: ${value}\r\n`);
    return lines.join('');
  }

  getResponseHeader(name) {
    return this.#answerHeaders[name.toLowerCase()] ?? null;
  }

  abort() {
    this.#aborted = true;
    this.#request?.destroy();
    this.readyState = 0;
    this.status = 0;
  }

  send(body) {
    this.#send(body).then(
      (answer) => this.#done(answer),
      (error) => {
        if (!this.#aborted) count(counted.failed, error.message);
        this.#done({ status: 0, headers: {}, text: '' });
      },
    );
  }

  async #send(body) {
    counted.requests += 1;
    this.#record = { at: Date.now(), origin: this.#url.origin };
    requests.push(this.#record);
    const from = page(this.#url);
    from.preflight ??= preflight(from.agent, this.#url);
    await from.preflight.catch((error) => {
      from.preflight = null;
      throw error;
    });
    const answer = await this.#exchange(from.agent, body).catch((error) => {
      if (!error.stale || !from.repeats || this.#aborted) throw error;
      counted.resent += 1;
      return this.#exchange(from.agent, body);
    });
    if (!mayRead(answer.headers)) throw new Error('the answer names no origin that may read it');
    return answer;
  }

  #exchange(agent, body) {
    if (this.#aborted) return Promise.reject(new Error('aborted'));
    const headers = { ...this.#headers, 'Content-Length': Buffer.byteLength(body) };
    return exchange(agent, this.#url, this.#method, headers, body, (request) => {
      this.#request = request;
    });
  }

  #done({ status, headers, text }) {
    Object.assign(this.#record, { ended: Date.now(), status: this.#aborted ? 'aborted' : status });
    if (this.#aborted) return;
    count(counted.statuses, status);
    if (status >= 300) count(counted.refused, text.slice(0, 300));
    this.status = status;
    this.#answerHeaders = headers;
    this.responseText = text;
    this.responseXML = text ? new DOMParser().parseFromString(text, 'text/xml') : null;
    this.#become(4);
  }

  #become(state) {
    this.readyState = state;
    this.onreadystatechange?.();
  }
}
