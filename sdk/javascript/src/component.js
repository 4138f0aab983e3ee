// Between the SDK and the bindings that componentize-js makes of the contract: the only module that knows them.

import * as crypto from 'millrace:plugin/crypto@0.1.0';
import * as log from 'millrace:plugin/log@0.1.0';
import * as metrics from 'millrace:plugin/metrics@0.1.0';

import { Column } from './columns.js';
import { ConfigError, RetryLater, SchemaError } from './errors.js';
import { setHost } from './host.js';
import { isDecimal64, Schema } from './schema.js';
import { Slot } from './slot.js';
import { SEVERITIES } from './validator.js';

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error'];

const typeIn = ({ tag, val }) => {
  if (tag === 'decimal64' || tag === 'decimal') return { kind: 'decimal', precision: val.precision, scale: val.scale };
  return tag === 'other' ? { kind: 'other', name: val } : { kind: tag };
};

const typeOut = (type) => {
  const { kind, precision, scale, name } = type;
  if (kind === 'decimal') return { tag: isDecimal64(type) ? 'decimal64' : 'decimal', val: { precision, scale } };
  return kind === 'other' ? { tag: 'other', val: name } : { tag: kind };
};

const schemaIn = ({ table, namespace, connector, images, columns }) => new Schema({
  table, namespace, connector, images, columns: columns.map(({ ty, ...column }) => ({ ...column, type: typeIn(ty) })),
});

const columnDefOut = ({ type, ...column }) => ({ ...column, ty: typeOut(type) });
const columnOut = (column) => column && { presence: column.presence, cells: column.cells };

const batchIn = (batch, plan) => ({
  rows: batch.rows,
  changeTypes: batch.changeTypes,
  columns: batch.columns.map(({ presence, cells }, i) => new Column(plan.schema.columns[plan.reads[i]].type, presence, cells, batch.rows)),
});

/** An exception that crosses the boundary is a trap without its message: each becomes an answer instead. */
function told(f) {
  return (...args) => {
    try {
      return f(...args);
    } catch (error) {
      throw stageError(error);
    }
  };
}

function stageError(error) {
  if (error instanceof ConfigError) return { tag: 'invalid-config', val: error.message };
  if (error instanceof SchemaError) return { tag: 'unsupported-schema', val: error.message };
  if (error instanceof RetryLater) return { tag: 'retry-later', val: { afterMs: error.afterMs, reason: error.reason } };
  const place = error?.stack ? ` (${String(error.stack).trim().split('\n')[0].trim()})` : '';
  return { tag: 'bug', val: `${error}${place}` };
}

setHost({
  write(level, message, fields) {
    if (LEVELS.indexOf(level) >= LEVELS.indexOf(log.threshold())) log.write(level, message, fields);
  },
  count: (name, labels, add) => metrics.count(name, labels, BigInt(add)),
  observe: (name, labels, value) => metrics.observe(name, labels, value),
  hmacSha256(key, column) {
    try {
      const { presence, cells } = crypto.hmacSha256(key, columnOut(column));
      return new Column('binary', presence, cells, column.rows);
    } catch (error) {
      const payload = error?.payload ?? error;
      if (payload?.tag === 'not-granted') return undefined;
      throw new Error(payload?.val ?? String(error));
    }
  },
});

export function lifecycleOf(plugin, slot) {
  const { name, version, description, configSchema } = plugin;
  const info = {
    name, version, description, configSchema: configSchema ? JSON.stringify(configSchema) : '', memoryMib: 0, milliseconds: 0, ext: [],
  };
  return { describe: () => info, configure: told((config) => { slot.configure(config.json); }) };
}

export function transformOf(slot) {
  return {
    plan: told((id, table) => {
      const plan = slot.plan(id, schemaIn(table));
      return plan && {
        reads: Uint16Array.from(plan.reads),
        meta: [],
        effects: plan.effects,
        renameTable: plan.table,
        drops: Uint16Array.from(plan.drops),
        renames: [...plan.renames].map(([column, to]) => ({ column, to })),
        writes: plan.writes.map(({ replaces, output }) => ({ replaces, output: columnDefOut(output) })),
        shapes: [],
        ext: [],
      };
    }),
    apply: told((batch) => {
      const plan = slot.planned(batch.schema);
      const { fates, columns, rejects, routes } = plan.run(batchIn(batch, plan));
      const names = [...new Set(routes ?? [])];
      const at = new Map(names.map((name, index) => [name, index]));
      return {
        fates,
        columns: columns.map(columnOut),
        rejects: rejects.map(({ row, reject, column }) => (
          { row, code: reject.code, reason: reject.reason, column, retryable: reject.retryable, ext: [] })),
        emissions: [],
        routing: routes && { names, byRow: Uint16Array.from(routes, (name) => at.get(name)) },
      };
    }),
  };
}

export function validatorOf(slot) {
  return {
    plan: told((id, table) => {
      const plan = slot.plan(id, schemaIn(table));
      return plan && {
        reads: Uint16Array.from(plan.reads),
        meta: [],
        rules: plan.rules.map(({ name, severity, columns }) => (
          { name, severity: SEVERITIES.indexOf(severity), columns: Uint16Array.from(columns), ext: [] })),
        ext: [],
      };
    }),
    check: told((batch) => {
      const plan = slot.planned(batch.schema);
      return plan.run(batchIn(batch, plan));
    }),
  };
}

export { Slot };
