// Column view: a column of a batch, and how its cells are read and written. Cells are { tag, val } as the contract has them.

import { Reject, SchemaError } from './errors.js';
import { dataType, isDecimal64, typeName } from './schema.js';
import { Bytes, decode, decodeAscii } from './text.js';
import { NOT_SENT, hex, scaled, unhex, unscaled } from './values.js';

const NULL = 0;
const VALUE = 1;
const UNSENT = 2;
const I32 = [-(2 ** 31), 2 ** 31 - 1];
const I64 = [-(2n ** 63n), 2n ** 63n - 1n];
const RANGES = {
  int8: [-128n, 127n], int16: [-32768n, 32767n], int32: [BigInt(I32[0]), BigInt(I32[1])], date: [BigInt(I32[0]), BigInt(I32[1])],
  uint64: [0n, 2n ** 64n - 1n],
};
const LAYOUT = {
  boolean: 'bools', int8: 'i32s', int16: 'i32s', int32: 'i32s', date: 'i32s', int64: 'i64s', uint64: 'i64s', time: 'i64s',
  timestamp: 'i64s', 'timestamp-tz': 'i64s', float32: 'f32s', float64: 'f64s', uuid: 'fixed',
};

export const layout = (type) => (isDecimal64(type) ? 'i64s' : (LAYOUT[type.kind] ?? 'vars'));

const TEXTS = ['text', 'json', 'decimal'];

const infinite = (value, [least, most]) => (value === least ? -Infinity : value === most ? Infinity : value);

/** A function from the row of a value to it. */
function reader(type, { tag, val }) {
  if (tag === 'vars') {
    const { offsets, data } = val;
    if (TEXTS.includes(type.kind)) return (row) => decode(data, offsets[row], offsets[row + 1]);
    return (row) => data.slice(offsets[row], offsets[row + 1]);
  }
  if (tag === 'fixed') {
    const { width, data } = val;
    const cell = (row) => data.slice(row * width, (row + 1) * width);
    if (type.kind !== 'uuid') return cell;
    return (row) => hex(cell(row)).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  }
  switch (type.kind) {
    case 'boolean': return (row) => val[row] !== 0;
    case 'uint64': return (row) => BigInt.asUintN(64, BigInt(val[row]));
    case 'decimal': return (row) => unscaled(BigInt(val[row]), type.scale);
    case 'date': return (row) => infinite(val[row], I32);
    case 'timestamp': case 'timestamp-tz': return (row) => infinite(BigInt(val[row]), I64);
    case 'int64': case 'time': return (row) => BigInt(val[row]);
    default: return (row) => val[row];
  }
}

/** The cells of one column of a batch: `get(row)` is a value, null or NOT_SENT. */
export class Column {
  constructor(type, presence, cells, rows) {
    Object.assign(this, { type: dataType(type), presence, cells, rows });
    this.read = reader(this.type, cells);
  }

  get(row) {
    const state = this.presence ? this.presence[row] : VALUE;
    return state === VALUE ? this.read(row) : state === NULL ? null : NOT_SENT;
  }

  /** All cells at once, which is quicker than one by one. */
  values() {
    const { rows, presence, cells } = this;
    const values = new Array(rows);
    const text = cells.tag === 'vars' && TEXTS.includes(this.type.kind) ? decodeAscii(cells.val.data) : undefined;
    if (text === undefined) for (let row = 0; row < rows; row++) values[row] = this.read(row);
    else {
      const { offsets } = cells.val;
      for (let row = 0; row < rows; row++) values[row] = text.slice(offsets[row], offsets[row + 1]);
    }
    if (presence) {
      for (let row = 0; row < rows; row++) if (presence[row] !== VALUE) values[row] = presence[row] === NULL ? null : NOT_SENT;
    }
    return values;
  }

  /** Bytes, such as the host's hashes, as lower-case hexadecimal text. */
  hex() {
    const out = new Out('text', this.rows);
    for (let row = 0; row < this.rows; row++) {
      const value = this.get(row);
      out.append(ArrayBuffer.isView(value) ? hex(value) : value);
    }
    return out.column();
  }
}

const FITS = {
  text: (type) => ['text', 'json', 'uuid', 'decimal'].includes(type.kind),
  bytes: (type) => ['binary', 'other'].includes(type.kind),
  int: (type) => ['i32s', 'i64s'].includes(layout(type)) && type.kind !== 'decimal',
  float: (type) => type.kind.startsWith('float'),
  bool: (type) => type.kind === 'boolean',
};

/** Refuses a column that an operation cannot read, before any row flows. */
export function mustBeReadable(type, name, as, what) {
  if (as !== undefined && !FITS[as]) throw new TypeError(`\`as\` is one of ${Object.keys(FITS).join(', ')}, not ${as}`);
  if (as !== undefined && !FITS[as](type)) {
    throw new SchemaError(`column ${name} is ${typeName(type)}, which \`${what}\` cannot read as ${as}`);
  }
}

const ARRAYS = {
  bools: Uint8Array, i32s: Int32Array, i64s: BigInt64Array, f32s: Float32Array, f64s: Float64Array,
};

/** The cells that a plugin writes, row after row. */
export class Out {
  constructor(type, rows) {
    this.type = dataType(type);
    this.layout = layout(this.type);
    this.rows = 0;
    this.presence = null;
    this.capacity = rows;
    const fixed = this.layout === 'fixed';
    this.values = ARRAYS[this.layout] ? new ARRAYS[this.layout](rows) : fixed ? new Uint8Array(16 * rows) : new Bytes(16 * rows);
    if (this.layout === 'vars') this.offsets = new Uint32Array(rows + 1);
  }

  /** A value, null or NOT_SENT. Throws a Reject where it does not fit the type: int.overflow, decimal.overflow. */
  append(value) {
    const row = this.rows;
    if (value === null || value === undefined || value === NOT_SENT) {
      this.presence ??= new Uint8Array(this.capacity).fill(VALUE);
      this.presence[row] = value === NOT_SENT ? UNSENT : NULL;
    } else {
      this.write(row, value);
    }
    this.rows++;
    if (this.layout === 'vars') this.offsets[this.rows] = this.values.length;
  }

  /** All values at once, where they need no second look: bigints that fit. False: append them one by one. */
  extend(values) {
    const { kind } = this.type;
    if (this.layout !== 'i64s' || kind === 'uint64' || kind === 'decimal') return false;
    for (let row = 0; row < values.length; row++) {
      const value = values[row];
      if (typeof value !== 'bigint' || BigInt.asIntN(64, value) !== value) return false;
      this.values[row] = value;
    }
    this.rows = values.length;
    return true;
  }

  write(row, value) {
    switch (this.layout) {
      case 'vars': this.writeBytes(value); break;
      case 'fixed': this.values.set(ArrayBuffer.isView(value) ? value : unhex(value), 16 * row); break;
      case 'bools': this.values[row] = value ? 1 : 0; break;
      case 'i32s': this.values[row] = Number(this.integer(value)); break;
      case 'i64s': this.values[row] = BigInt.asIntN(64, this.integer(value)); break;
      default:
        if (typeof value !== 'number') this.wrong(value);
        this.values[row] = value;
    }
  }

  writeBytes(value) {
    if (ArrayBuffer.isView(value)) this.values.append(value);
    else if (this.type.kind === 'decimal') this.values.text(this.decimal(String(value)));
    else if (typeof value === 'string') this.values.text(value);
    else this.wrong(value);
  }

  decimal(text) {
    const { precision, scale } = this.type;
    if (!precision) return text;
    return unscaled(this.unscaled(text, precision, scale), scale);
  }

  unscaled(text, precision, scale) {
    const value = scaled(text, scale);
    const size = value === null ? null : value < 0n ? -value : value;
    if (size === null || size >= 10n ** BigInt(precision)) {
      throw new Reject('decimal.overflow', `${text} does not fit into ${typeName(this.type)}`);
    }
    return value;
  }

  integer(value) {
    const { kind, precision, scale } = this.type;
    if (kind === 'decimal') return this.unscaled(String(value), precision, scale);
    if (value === Infinity || value === -Infinity) {
      const [least, most] = kind === 'date' ? RANGES.date : I64;
      return value > 0 ? most : least;
    }
    if (typeof value !== 'bigint' && !Number.isInteger(value)) this.wrong(value);
    const integer = BigInt(value);
    const [least, most] = RANGES[kind] ?? I64;
    if (integer < least || integer > most) throw new Reject('int.overflow', `${integer} does not fit into ${kind}`);
    return integer;
  }

  wrong(value) {
    throw new TypeError(`a ${typeof value} was written into a column of ${typeName(this.type)}`);
  }

  column() {
    const val = this.layout === 'vars' ? { offsets: this.offsets, data: this.values.finish() }
      : this.layout === 'fixed' ? { width: 16, data: this.values } : this.values;
    return new Column(this.type, this.presence ?? undefined, { tag: this.layout, val }, this.rows);
  }
}
