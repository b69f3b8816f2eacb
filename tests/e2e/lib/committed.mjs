// The configurations in `config/`, as tests run them.

import { readFileSync } from 'node:fs';

/** A file of `config/` with other places in it: pairs of a text, which the file must have, and its replacement. */
export function committed(name, places) {
  let text = readFileSync(new URL(`../../../config/${name}`, import.meta.url), 'utf8');
  for (const [from, to] of places) {
    if (!text.includes(from)) throw new Error(`config/${name} lacks ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}
