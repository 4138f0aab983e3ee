// What one cell holds. NULL is null; a cell that the source did not send is NOT_SENT, which is neither NULL nor a value.
//
//   boolean                   boolean
//   int8, int16, int32        number
//   int64, uint64             bigint
//   float32, float64          number
//   decimal                   string, every digit kept, also 'NaN', 'Infinity' and '-Infinity' (see `scaled`)
//   text, json, uuid          string
//   binary, any other type    Uint8Array
//   date                      number: days since 1970-01-01, or an infinity (Infinity, -Infinity)
//   time                      bigint: microseconds since midnight
//   timestamp, timestamp-tz   bigint: microseconds since 1970-01-01, or an infinity (Infinity, -Infinity)

export const NOT_SENT = Symbol('not sent');

// Bytes by `ArrayBuffer.isView`: those that the host hands over are of another realm, and no `instanceof` of this one.

/** A value as text, the same in the SDK of every language. */
export function show(value) {
  if (value === null) return 'null';
  if (value === NOT_SENT) return 'not sent';
  if (value === Infinity) return 'infinity';
  if (value === -Infinity) return '-infinity';
  return ArrayBuffer.isView(value) ? hex(value) : String(value);
}

const DIGITS = '0123456789abcdef';

export function hex(bytes) {
  let text = '';
  for (const byte of bytes) text += DIGITS[byte >> 4] + DIGITS[byte & 15];
  return text;
}

/** The bytes of hexadecimal text; dashes are passed over. */
export function unhex(text) {
  const digits = text.replaceAll('-', '');
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

/** An unscaled integer as decimal text: unscaled(-1250n, 2) is '-12.50'. */
export function unscaled(value, scale) {
  if (scale <= 0) return value === 0n ? '0' : `${value}${'0'.repeat(-scale)}`;
  const digits = String(value < 0n ? -value : value).padStart(scale + 1, '0');
  return `${value < 0n ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}

/** As `scaled` for what a number holds exactly, which most decimals are; undefined: not so short, or no decimal. */
function scaledShort(text, digits) {
  if (digits < 0 || text.length + digits > 15) return undefined;
  let sum = 0;
  let at = 0;
  const sign = text.charCodeAt(0);
  if (sign === 45 || sign === 43) at = 1;
  let left = -1;
  let seen = false;
  for (; at < text.length; at++) {
    const digit = text.charCodeAt(at) - 48;
    if (digit === -2 && left < 0) left = digits;
    else if (digit < 0 || digit > 9) return undefined;
    else if (left === 0) {
      if (digit !== 0) return undefined;
      seen = true;
    } else {
      sum = sum * 10 + digit;
      seen = true;
      if (left > 0) left--;
    }
  }
  if (!seen) return undefined;
  for (let more = left < 0 ? digits : left; more > 0; more--) sum *= 10;
  return BigInt(sign === 45 ? -sum : sum);
}

/** Decimal text times 10^digits as a bigint: scaled('-12.5', 2) is -1250n. null: no plain decimal, or it has more digits. */
export function scaled(text, digits) {
  const short = scaledShort(text, digits);
  if (short !== undefined) return short;
  const parts = /^([+-]?)(\d*)(?:\.(\d*))?$/.exec(text);
  if (!parts || !(parts[2] || parts[3])) return null;
  const all = parts[2] + (parts[3] ?? '');
  const missing = digits - (parts[3] ?? '').length;
  let value = BigInt(missing >= 0 ? all + '0'.repeat(missing) : all.slice(0, missing) || '0');
  if (missing < 0 && /[1-9]/.test(all.slice(Math.max(0, all.length + missing)))) return null;
  if (missing < 0 && all.length < -missing && /[1-9]/.test(all)) return null;
  if (parts[1] === '-') value = -value;
  return value;
}
