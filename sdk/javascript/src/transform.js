// The role `transform`: a plan of column and row operations, made once a schema and run on every batch.

import { mustBeReadable, Out } from './columns.js';
import { Reject } from './errors.js';
import { dataType, sameType } from './schema.js';
import { NOT_SENT } from './values.js';

const DROP = 1;
const KINDS = ['', 'insert', 'update_preimage', 'update_postimage', 'delete'];

/** The answer to a batch while it is made. */
class Outcome {
  constructor(rows, writes) {
    Object.assign(this, { rows, fates: undefined, columns: new Array(writes).fill(undefined), rejects: [], routes: undefined });
  }

  drop(row) {
    this.fates ??= new Uint8Array(this.rows);
    this.fates[row] = DROP;
  }

  route(row, table) {
    this.routes ??= new Array(this.rows).fill('');
    this.routes[row] = table;
  }
}

/**
 * What is done with the rows of one table, column by column or row by row; columns go by their names.
 *
 * Columns are read as the source sent them: no operation sees what another wrote. NULL and not sent cells pass through column
 * operations untouched, and a filter keeps the rows whose cell was not sent. A column that the table does not have, or that is
 * not granted, is passed over: ask `schema.has(name)` where that matters.
 *
 * `as` says how a column must be readable ('text', 'bytes', 'int', 'float', 'bool'); one that is not is refused before any row flows.
 */
export class TransformPlan {
  constructor(schema) {
    Object.assign(this, {
      schema, reads: [], effects: [], table: undefined, drops: [], renames: new Map(), writes: [], operations: [], rowWrites: new Map(),
    });
  }

  /** Rows leave for this table. */
  renameTable(name) {
    this.table = name;
  }

  /** Gives a column another name. Costs nothing a row. */
  rename(column, to) {
    if (!this.schema.has(column)) return;
    const index = this.schema.at.get(column);
    const write = this.writes.find(({ replaces }) => replaces === index);
    if (write) write.output.name = to;
    else this.renames.set(index, to);
  }

  /** Leaves a column out. Costs nothing a row. */
  dropColumn(column) {
    if (this.schema.has(column)) this.drops.push(this.schema.at.get(column));
  }

  /** Keeps the rows for whose value `keep` says so, and those without one: NULL, or not sent. */
  filter(column, keep, { as } = {}) {
    this.filterAny(column, keep, as, false);
  }

  /** Keeps the rows for whose cell `keep` says so, NULL (null) included; those not sent are kept. */
  filterCells(column, keep, { as } = {}) {
    this.filterAny(column, keep, as, true);
  }

  filterAny(column, keep, as, nulls) {
    const slot = this.input(column, as, 'filter');
    if (slot === undefined) return;
    this.mayDrop();
    this.operations.push((batch, outcome) => {
      const values = batch.columns[slot].values();
      for (let row = 0; row < values.length; row++) {
        const value = values[row];
        if (value !== NOT_SENT && (nulls || value !== null) && !keep(value)) outcome.drop(row);
      }
    });
  }

  /** Sends each row to the table that `to` names for its value; undefined or null, NULL and not sent: the usual one. */
  route(column, to, { as } = {}) {
    const slot = this.input(column, as, 'route');
    if (slot === undefined) return;
    this.mayRoute();
    this.operations.push((batch, outcome) => {
      const values = batch.columns[slot].values();
      for (let row = 0; row < values.length; row++) {
        const value = values[row];
        const table = value === null || value === NOT_SENT ? undefined : to(value);
        if (table !== undefined && table !== null) outcome.route(row, table);
      }
    });
  }

  /** Writes a column anew with the same name and type, value by value. `f` may throw a Reject. */
  map(column, f, { as } = {}) {
    if (this.schema.has(column)) this.convert(column, this.schema.column(column).type, f, { as });
  }

  /** Writes a column anew with the same name and another type, value by value. `f` may throw a Reject. */
  convert(column, to, f, { as } = {}) {
    const slot = this.input(column, as, 'convert');
    if (slot === undefined) return;
    const type = dataType(to);
    const write = this.replace(column, type);
    this.effect('reject');
    this.operations.push((batch, outcome) => {
      const values = batch.columns[slot].values();
      const out = new Out(type, batch.rows);
      const refused = (row, error) => {
        if (!(error instanceof Reject)) throw error;
        outcome.rejects.push({ row, reject: error, column });
      };
      for (let row = 0; row < values.length; row++) {
        const value = values[row];
        if (value === null || value === NOT_SENT) continue;
        try {
          values[row] = f(value);
        } catch (error) {
          refused(row, error);
          values[row] = null;
        }
      }
      if (!out.extend(values)) {
        for (let row = 0; row < values.length; row++) {
          try {
            out.append(values[row]);
          } catch (error) {
            refused(row, error);
            out.append(null);
          }
        }
      }
      outcome.columns[write] = out.column();
    });
  }

  /** Writes a column anew as a whole: `f` gets a Column and answers one of as many rows, of the given type. */
  mapColumn(column, to, f) {
    const slot = this.input(column, undefined, 'mapColumn');
    if (slot === undefined) return;
    const write = this.replace(column, dataType(to));
    this.operations.push((batch, outcome) => { outcome.columns[write] = f(batch.columns[slot]); });
  }

  /** Looks at a column of each batch as a whole, to count or to log. */
  inspect(column, f) {
    const slot = this.input(column, undefined, 'inspect');
    if (slot !== undefined) this.operations.push((batch) => f(batch.columns[slot]));
  }

  /** For `eachRow`: a new column (see `columnDef`). Rows that do not set it are NULL. */
  addColumn(column) {
    this.writes.push({ replaces: undefined, output: column });
    this.rowWrites.set(column.name, this.writes.length - 1);
  }

  /**
   * Runs `f` on every row image: `row.get(name)` reads, `row.set(name, value)` writes.
   *
   * `read` names the columns that it reads; `write` those that it writes anew: an array where their types stay, else an object
   * of types. A row that throws a Reject writes nothing. Say what it may do besides by `mayDrop` and `mayRoute`. Call it once,
   * after `addColumn`.
   */
  eachRow(f, { read = [], write = [] } = {}) {
    this.effect('reject');
    const known = (name) => this.schema.has(name);
    const slots = new Map(read.filter(known).map((name) => [name, this.input(name, undefined, 'eachRow')]));
    const types = Array.isArray(write) ? write.map((name) => [name, undefined]) : Object.entries(write);
    for (const [name, to] of types.filter(([column]) => known(column))) {
      this.rowWrites.set(name, this.replace(name, to === undefined ? this.schema.column(name).type : dataType(to)));
    }
    const outputs = new Map(this.rowWrites);
    this.operations.push((batch, outcome) => {
      const outs = [...outputs].map(([name, index]) => [name, index, new Out(this.writes[index].output.type, batch.rows)]);
      const row = new Row(batch, outcome, slots, outputs);
      for (let index = 0; index < batch.rows; index++) {
        row.start(index);
        try {
          f(row);
          for (const [name, , out] of outs) out.append(row.written.get(name) ?? null);
        } catch (error) {
          if (!(error instanceof Reject)) throw error;
          outcome.rejects.push({ row: index, reject: error, column: undefined });
          for (const [, , out] of outs) if (out.rows === index) out.append(null);
        }
      }
      for (const [, index, out] of outs) outcome.columns[index] = out.column();
    });
  }

  /** Announces that `eachRow` drops rows. */
  mayDrop() {
    this.effect('drop');
  }

  /** Announces that `eachRow` routes rows. */
  mayRoute() {
    this.effect('route');
  }

  get isEmpty() {
    return this.operations.length + this.drops.length + this.renames.size === 0 && this.table === undefined;
  }

  run(batch) {
    const outcome = new Outcome(batch.rows, this.writes.length);
    for (const operation of this.operations) operation(batch, outcome);
    this.writes.forEach(({ output }, index) => {
      const column = outcome.columns[index];
      if (column && column.rows !== batch.rows) throw new Error(`column ${output.name} has ${column.rows} rows of ${batch.rows}`);
    });
    return outcome;
  }

  input(column, as, what) {
    if (!this.schema.has(column)) return undefined;
    mustBeReadable(this.schema.column(column).type, column, as, what);
    const index = this.schema.at.get(column);
    if (!this.reads.includes(index)) this.reads.push(index);
    return this.reads.indexOf(index);
  }

  replace(column, type) {
    const index = this.schema.at.get(column);
    const before = this.schema.columns[index];
    const name = this.renames.get(index) ?? before.name;
    this.renames.delete(index);
    const sourceType = sameType(before.type, type) ? before.sourceType : '';
    this.writes.push({ replaces: index, output: { ...before, name, type, sourceType } });
    return this.writes.length - 1;
  }

  effect(effect) {
    if (!this.effects.includes(effect)) this.effects.push(effect);
  }
}

/** One row image. A cell reads as a value, null (NULL) or NOT_SENT. */
export class Row {
  constructor(batch, outcome, slots, outputs) {
    Object.assign(this, { batch, outcome, slots, outputs, index: 0, written: new Map() });
  }

  start(index) {
    this.index = index;
    this.written.clear();
  }

  /** The cell of a column that the plan reads; undefined: it does not. */
  get(column) {
    const slot = this.slots.get(column);
    return slot === undefined ? undefined : this.batch.columns[slot].get(this.index);
  }

  /** Writes the cell of a column that the plan writes. */
  set(column, value) {
    if (!this.outputs.has(column)) throw new Error(`column ${column} is written, but the plan does not say so`);
    this.written.set(column, value);
  }

  /** 'insert', 'update_preimage', 'update_postimage', 'delete'; what a later contract adds is 'other'. */
  get changeType() {
    return KINDS[this.batch.changeTypes[this.index]] || 'other';
  }

  /** Leaves the row image out. */
  drop() {
    this.outcome.drop(this.index);
  }

  /** Sends the row image to another table. */
  route(table) {
    this.outcome.route(this.index, table);
  }
}
