// Fails if testssl.sh has found anything: findings.mjs NAME FILE.
import { readFileSync } from 'node:fs';

// Why each is no finding about Bowline is in `run`.
const EXCEPT = new Set([
    'engine_problem', 'cert_revocation', 'OCSP_stapling', 'DNS_CAArecord',
    'HSTS', 'security_headers', 'sessionresumption_ticket',
]);
// What must be among the results, or testssl.sh has not looked.
const SEEN = ['TLS1_2', 'TLS1_3', 'SSLv3', 'heartbleed', 'ROBOT', 'cert_chain_of_trust', 'cipher_order'];

const [name, file] = process.argv.slice(2);
const results = JSON.parse(readFileSync(file, 'utf8'));
const bare = (id) => id.split(' ')[0];
const found = results.filter(({ id, severity }) => !['OK', 'INFO'].includes(severity) && !EXCEPT.has(bare(id)));
const missing = SEEN.filter((id) => !results.some((result) => bare(result.id) === id));
const grade = results.find(({ id }) => id === 'overall_grade')?.finding;
for (const { id, severity, finding } of found) console.error(`${name}: ${severity} ${id}: ${finding}`);
if (missing.length) console.error(`${name}: testssl.sh did not look at ${missing.join(', ')}`);
const isGood = !found.length && !missing.length && (grade ?? 'A').startsWith('A');
console.log(`${name}: ${results.length} results, ${found.length} findings, grade ${grade ?? 'not given'}`);
process.exit(isGood ? 0 : 1);
