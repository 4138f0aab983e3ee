// Runs a plugin's logic natively in Node, through the same code as in the sandbox, with a stand-in for the host.
//
//   const answer = testCase(plugin, { config }).column('id', 'int64', { key: true }).column('phone', 'text')
//     .insert({ id: 1n, phone: '+49 170 1234567' }).run();
//   assert.deepEqual(answer.kept(0), { id: 1n, phone: '4567' });
//
// A column that a row leaves out was not sent; null is NULL. Values are those that a plugin sees (see values.js).

import { createHmac } from 'node:crypto';

import { Column, Out } from './columns.js';
import { setHost } from './host.js';
import { columnDef, Schema } from './schema.js';
import { Slot } from './slot.js';
import { NOT_SENT } from './values.js';

const KINDS = { insert: 1, update_preimage: 2, update_postimage: 3, delete: 4 };

/** A table, a config and rows, for one run of a plugin. `keys`: names of `crypto` keys and their bytes. */
export const testCase = (plugin, options = {}) => new Case(plugin, options);

class Case {
  constructor(plugin, { config = {}, table = 't', keys = {} }) {
    Object.assign(this, { plugin, config, table, keys, columns: [], images: [] });
  }

  column(name, type, { key = false, nullable = !key } = {}) {
    this.columns.push(columnDef(name, type, { key, nullable }));
    return this;
  }

  /** A row image: 'insert', 'update_preimage', 'update_postimage', 'delete'. */
  image(kind, row) {
    this.images.push([KINDS[kind], row]);
    return this;
  }

  insert(row) {
    return this.image('insert', row);
  }

  delete(row) {
    return this.image('delete', row);
  }

  /** Runs a transform on the rows, as one batch or cut into batches of so many. Throws what the plugin throws. */
  run(cut) {
    const { plan, seen } = this.start();
    const answer = new Answer(seen);
    for (const rows of this.cut(cut)) {
      if (plan) this.add(answer, plan, plan.run(this.batch(plan, rows)), rows);
      else for (const [, row] of rows) answer.push('kept', { ...row }, this.table);
    }
    return answer;
  }

  /** Runs a validator on the rows: [{ row, rule, message }]. */
  violations(cut) {
    const { plan } = this.start();
    let first = 0;
    return this.cut(cut).flatMap((rows) => {
      const found = plan ? plan.run(this.batch(plan, rows)) : [];
      const named = found.map(({ row, rule, message }) => ({ row: first + row, rule: plan.rules[rule].name, message }));
      first += rows.length;
      return named;
    });
  }

  start() {
    const seen = { log: [], counters: {}, observations: {} };
    setHost(standIn(seen, this.keys));
    const slot = new Slot(this.plugin);
    slot.configure(JSON.stringify(this.config));
    return { seen, plan: slot.plan(1, new Schema({ table: this.table, columns: this.columns })) };
  }

  cut(size = Math.max(this.images.length, 1)) {
    const parts = [];
    for (let at = 0; at < this.images.length; at += size) parts.push(this.images.slice(at, at + size));
    return parts;
  }

  batch(plan, rows) {
    const columns = plan.reads.map((index) => {
      const { name, type } = this.columns[index];
      const out = new Out(type, rows.length);
      for (const [, row] of rows) out.append(name in row ? row[name] : NOT_SENT);
      return out.column();
    });
    return { rows: rows.length, changeTypes: Uint8Array.from(rows, ([kind]) => kind), columns };
  }

  add(answer, plan, outcome, rows) {
    const replaced = new Set(plan.writes.map(({ replaces }) => replaces));
    rows.forEach(([, row], at) => {
      const refused = outcome.rejects.find((reject) => reject.row === at)?.reject;
      const fate = refused ? { rejected: refused.code, reason: refused.reason } : outcome.fates?.[at] ? 'dropped' : 'kept';
      const cells = {};
      this.columns.forEach(({ name }, index) => {
        if (name in row && !replaced.has(index) && !plan.drops.includes(index)) cells[plan.renames.get(index) ?? name] = row[name];
      });
      plan.writes.forEach(({ output }, index) => {
        const value = outcome.columns[index]?.get(at) ?? null;
        if (value !== NOT_SENT) cells[output.name] = value;
      });
      answer.push(fate, cells, outcome.routes?.[at] || plan.table || this.table);
    });
  }
}

/** What a transform answered, a row image each: 'kept', 'dropped' or { rejected, reason }; its cells; its table. */
class Answer {
  constructor(seen) {
    Object.assign(this, { fates: [], rows: [], tables: [], ...seen });
  }

  push(fate, cells, table) {
    this.fates.push(fate);
    this.rows.push(cells);
    this.tables.push(table);
  }

  /** The cells of a row image that goes on. */
  kept(row) {
    if (this.fates[row] !== 'kept') throw new Error(`row ${row} is not kept but ${JSON.stringify(this.fates[row])}`);
    return this.rows[row];
  }
}

function standIn(seen, keys) {
  return {
    write: (level, message) => seen.log.push([level, message]),
    count: (name, _, add) => { seen.counters[name] = (seen.counters[name] ?? 0) + Number(add); },
    observe: (name, _, value) => { (seen.observations[name] ??= []).push(value); },
    hmacSha256(key, column) {
      if (!(key in keys)) return undefined;
      const { offsets, data } = column.cells.val;
      const hashes = new Uint8Array(32 * column.rows);
      for (let row = 0; row < column.rows; row++) {
        const present = !column.presence || column.presence[row] === 1;
        const cell = data.subarray(offsets[row], offsets[row + 1]);
        if (present) hashes.set(createHmac('sha256', keys[key]).update(cell).digest(), 32 * row);
      }
      return new Column('binary', column.presence, { tag: 'fixed', val: { width: 32, data: hashes } }, column.rows);
    },
  };
}
