// UTF-8: the engine in the sandbox has no TextDecoder.

/** Bytes that are UTF-8 (the host has checked text) as a string. */
export function decode(data, from, to) {
  let text = '';
  let at = from;
  while (at < to) {
    let end = at;
    while (end < to && end - at < 4096 && data[end] < 0x80) end++;
    if (end > at) text += String.fromCharCode.apply(null, data.subarray(at, end));
    at = end;
    if (at >= to || data[at] < 0x80) continue;
    const lead = data[at];
    const more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    let code = lead & (0x3f >> more);
    for (let i = 1; i <= more; i++) code = (code << 6) | (data[at + i] & 0x3f);
    text += String.fromCodePoint(code);
    at += more + 1;
  }
  return text;
}

/** Bytes as a string if they are ASCII, which most text is: read as a whole, without a look at each. Else undefined. */
export function decodeAscii(data) {
  let text = '';
  for (let at = 0; at < data.length; at += 4096) text += String.fromCharCode.apply(null, data.subarray(at, at + 4096));
  return /[^\x00-\x7f]/.test(text) ? undefined : text;
}

/** Appends text to a growing buffer. A half of a surrogate pair becomes U+FFFD, as in TextEncoder. */
export function encodeInto(bytes, text) {
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if (code < 0x80) {
      bytes.push(code);
      continue;
    }
    if (code >= 0xd800 && code < 0xe000) {
      const low = code < 0xdc00 ? text.charCodeAt(i + 1) : NaN;
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        i++;
      } else code = 0xfffd;
    }
    if (code < 0x800) bytes.push(0xc0 | (code >> 6));
    else {
      if (code < 0x10000) bytes.push(0xe0 | (code >> 12));
      else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 0x3f));
      bytes.push(0x80 | ((code >> 6) & 0x3f));
    }
    bytes.push(0x80 | (code & 0x3f));
  }
}

/** Bytes that grow: an array of numbers would take eight times as much. */
export class Bytes {
  constructor(room) {
    this.data = new Uint8Array(room);
    this.length = 0;
  }

  room(more) {
    if (this.length + more <= this.data.length) return;
    const grown = new Uint8Array(Math.max(2 * this.data.length, this.length + more));
    grown.set(this.data.subarray(0, this.length));
    this.data = grown;
  }

  push(...bytes) {
    this.room(bytes.length);
    for (const byte of bytes) this.data[this.length++] = byte;
  }

  append(bytes) {
    this.room(bytes.length);
    this.data.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** Text; ASCII, which is most of it, without a call a character. */
  text(text) {
    this.room(text.length);
    let i = 0;
    for (; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code >= 0x80) break;
      this.data[this.length++] = code;
    }
    if (i < text.length) encodeInto(this, text.slice(i));
  }

  finish() {
    return this.data.slice(0, this.length);
  }
}
