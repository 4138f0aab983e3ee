// The role `validator`: named rules, and verdicts. It cannot change data.

import { mustBeReadable } from './columns.js';
import { NOT_SENT } from './values.js';

export const SEVERITIES = ['warn', 'reject', 'quarantine'];

/**
 * The rules of one table. Cells that were not sent are never judged. A rule on a column that the table does not have, or that is
 * not granted, is passed over.
 *
 * A judge answers what is wrong as text, and nothing where all is well. Severities: 'warn' (counted and shown), 'reject' (the
 * change goes to the dead letters; the default), 'quarantine' (the table is).
 */
export class CheckPlan {
  constructor(schema) {
    Object.assign(this, { schema, reads: [], rules: [], checks: [] });
  }

  /** Every row must have a value. */
  required(name, column, { severity } = {}) {
    this.checkCells(name, column, (value) => (value === null ? 'is NULL' : undefined), { severity });
  }

  /** `judge` answers what is wrong with a value; NULL and not sent are not judged. */
  check(name, column, judge, { severity, as } = {}) {
    this.checkCells(name, column, (value) => (value === null ? undefined : judge(value)), { severity, as });
  }

  /** `judge` answers what is wrong with a cell, NULL (null) included; not sent is not judged. */
  checkCells(name, column, judge, { severity = 'reject', as } = {}) {
    if (!this.schema.has(column)) return;
    mustBeReadable(this.schema.column(column).type, column, as, `rule "${name}"`);
    const slot = this.read(column);
    const rule = this.add(name, severity, [column]);
    this.checks.push((batch, violations) => {
      const cells = batch.columns[slot];
      for (let row = 0; row < batch.rows; row++) {
        const value = cells.get(row);
        const wrong = value === NOT_SENT ? undefined : judge(value);
        if (wrong) violations.push({ row, rule, message: `${column} ${wrong}` });
      }
    });
  }

  /** A rule on several columns: `judge` gets an object of cells. Rows in which one was not sent are not judged. */
  checkRows(name, columns, judge, { severity = 'reject' } = {}) {
    if (columns.some((column) => !this.schema.has(column))) return;
    const slots = columns.map((column) => this.read(column));
    const rule = this.add(name, severity, columns);
    this.checks.push((batch, violations) => {
      for (let row = 0; row < batch.rows; row++) {
        const cells = slots.map((slot) => batch.columns[slot].get(row));
        if (cells.includes(NOT_SENT)) continue;
        const wrong = judge(Object.fromEntries(columns.map((column, i) => [column, cells[i]])));
        if (wrong) violations.push({ row, rule, message: wrong });
      }
    });
  }

  get isEmpty() {
    return this.rules.length === 0;
  }

  /** The first violation of a row gives the reason: rows in order, rules as planned. */
  run(batch) {
    const violations = [];
    for (const check of this.checks) check(batch, violations);
    return violations.sort((a, b) => a.row - b.row || a.rule - b.rule);
  }

  add(name, severity, columns) {
    if (!SEVERITIES.includes(severity)) throw new TypeError(`there are ${SEVERITIES.join(', ')}, not ${severity}`);
    this.rules.push({ name, severity, columns: columns.map((column) => this.schema.at.get(column)) });
    return this.rules.length - 1;
  }

  read(column) {
    const index = this.schema.at.get(column);
    if (!this.reads.includes(index)) this.reads.push(index);
    return this.reads.indexOf(index);
  }
}
