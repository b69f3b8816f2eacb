// A certificate of the test's own.

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Makes a certificate for 127.0.0.1, `chat.pem` and `chat.key`, and both in one file for HAProxy. */
export function makeCertificate(folder) {
  const [certificate, key] = ['chat.pem', 'chat.key'].map((name) => path.join(folder, name));
  const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', certificate], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`openssl: ${made.error ?? made.stderr}`);
  writeFileSync(path.join(folder, 'chat-and-key.pem'), readFileSync(certificate, 'utf8') + readFileSync(key, 'utf8'), { mode: 0o600 });
  return { certificate, key };
}
