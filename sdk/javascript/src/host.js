// What the host offers: log and metrics always, crypto by grant. Natively, in tests, ./testing.js stands in for it.

import { ConfigError } from './errors.js';

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error'];
const pairs = (fields) => Object.entries(fields).map(([name, value]) => [name, String(value)]);

let host;

/** Set by the component's entry, and by the tests. */
export function setHost(implementation) {
  host = implementation;
}

/** Writes a line to the host's log: 'trace', 'debug', 'info', 'warn' or 'error'. The host keeps a bounded number a second. */
export function log(level, message, fields = {}) {
  if (!LEVELS.includes(level)) throw new TypeError(`there are the levels ${LEVELS.join(', ')}, not ${level}`);
  host.write(level, message, pairs(fields));
}

/** Adds to a counter of the plugin's. Labels must have few values. */
export function count(name, add = 1, labels = {}) {
  host.count(name, pairs(labels), add);
}

/** Adds a value to a histogram of the plugin's. */
export function observe(name, value, labels = {}) {
  host.observe(name, pairs(labels), value);
}

/**
 * HMAC-SHA-256 of each cell of a text or binary column under the named key, which never enters the sandbox: a Column of 32 bytes
 * a row (`.hex()` makes text of them). Throws a ConfigError where the key is not granted.
 */
export function hmacSha256(key, column) {
  const hashed = host.hmacSha256(key, column);
  if (!hashed) throw new ConfigError(`the key "${key}" is not granted: add \`grant: { crypto: [${key}] }\` to the stage`);
  return hashed;
}
