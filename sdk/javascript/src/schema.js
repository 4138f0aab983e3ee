// What a plugin is told of a table: the granted columns, in table order.
//
// A type is an object: { kind: 'int64' }, { kind: 'decimal', precision: 10, scale: 2 }, { kind: 'other', name: 'interval' };
// precision 0 is an unconstrained decimal. Wherever the SDK takes a type, its name does: 'int64', 'decimal(10,2)'.

const PLAIN = [
  'boolean', 'int8', 'int16', 'int32', 'int64', 'uint64', 'float32', 'float64', 'text', 'binary', 'uuid', 'date', 'time',
  'timestamp', 'timestamp-tz', 'json',
];

/** The type of a name, or the type itself. */
export function dataType(type) {
  if (typeof type !== 'string') return type;
  if (PLAIN.includes(type)) return { kind: type };
  if (type === 'decimal') return { kind: 'decimal', precision: 0, scale: 0 };
  const decimal = /^decimal\((\d+),\s*(-?\d+)\)$/.exec(type);
  if (decimal) return { kind: 'decimal', precision: Number(decimal[1]), scale: Number(decimal[2]) };
  const other = /^other\((.*)\)$/.exec(type);
  if (other) return { kind: 'other', name: other[1] };
  throw new TypeError(`no type of a column: ${type}`);
}

export function typeName(type) {
  if (type.kind === 'decimal') return type.precision ? `decimal(${type.precision},${type.scale})` : 'decimal';
  return type.kind === 'other' ? `other(${type.name})` : type.kind;
}

export const sameType = (a, b) => typeName(a) === typeName(b);

/** More digits than an integer of 64 bits holds travel as text. */
export const isDecimal64 = (type) => type.kind === 'decimal' && type.precision >= 1 && type.precision <= 18;

/** A column of a plugin's own: nullable and no key unless said otherwise. */
export function columnDef(name, type, more = {}) {
  return { name, type: dataType(type), nullable: true, key: false, sourceType: '', ext: [], ...more };
}

/** A table at one schema version, as far as the pipeline granted it to the plugin. */
export class Schema {
  constructor({ table, columns, namespace = 'public', connector = '', images = 2 }) {
    Object.assign(this, { table, columns, namespace, connector, images });
    this.at = new Map(columns.map((column, index) => [column.name, index]));
  }

  has(name) {
    return this.at.has(name);
  }

  column(name) {
    return this.columns[this.at.get(name)];
  }

  get fullName() {
    return this.namespace ? `${this.namespace}.${this.table}` : this.table;
  }
}
