// The conformance kit's transform, by the JavaScript SDK. ../README.md says what each operation does.

import { ConfigError, NOT_SENT, Reject, RetryLater, SchemaError, columnDef, host, scaled, show, transform } from '@millrace/sdk';

const configSchema = { type: 'object', required: ['op'], properties: { op: { type: 'string' } } };

/** The columns beside the key. */
const data = (schema) => schema.columns.map((column) => column.name).filter((name) => name !== 'id');

const operations = {
  pass() {},
  'refuse-config'() {},
  'throw-in-configure'() {},
  'refuse-plan'() {
    throw new SchemaError('the kit refuses this table');
  },
  'throw-in-plan'() {
    throw new Error('thrown on purpose');
  },
  copy(schema, plan) {
    const names = data(schema);
    plan.eachRow((row) => names.forEach((name) => row.set(name, row.get(name))), { read: names, write: names });
  },
  'copy-columns'(schema, plan) {
    for (const name of data(schema)) plan.map(name, (value) => value);
  },
  show(schema, plan) {
    const names = data(schema);
    plan.addColumn(columnDef('shown', 'text'));
    plan.eachRow((row) => row.set('shown', names.map((name) => show(row.get(name))).join(';')), { read: names });
  },
  kinds(schema, plan) {
    plan.addColumn(columnDef('kind', 'text'));
    plan.eachRow((row) => row.set('kind', row.changeType));
  },
  drop: (schema, plan, { column }) => plan.dropColumn(column),
  rename: (schema, plan, { column, to }) => plan.rename(column, to),
  'rename-table': (schema, plan, { to }) => plan.renameTable(to),
  add(schema, plan, { name, type, value }) {
    plan.addColumn(columnDef(name, type));
    plan.eachRow((row) => row.set(name, value));
  },
  cast: (schema, plan, { column, to }) => plan.convert(column, to, show),
  cents: (schema, plan, { column }) => plan.convert(column, 'int64', cents, { as: 'text' }),
  increase(schema, plan, { column }) {
    const more = (value) => (typeof value === 'bigint' ? value + 1n : value + 1);
    plan.eachRow((row) => {
      const value = row.get(column);
      row.set(column, value === null || value === NOT_SENT ? value : more(value));
    }, { read: [column], write: [column] });
  },
  filter: (schema, plan, { column, not }) => plan.filter(column, (text) => text !== not, { as: 'text' }),
  'filter-null': (schema, plan, { column }) => plan.filterCells(column, (cell) => cell !== null),
  'filter-rows'(schema, plan, { column, not }) {
    plan.mayDrop();
    plan.eachRow((row) => { if (row.get(column) === not) row.drop(); }, { read: [column] });
  },
  route: (schema, plan, { column }) => plan.route(column, (text) => `to_${text}`, { as: 'text' }),
  'route-rows'(schema, plan, { column }) {
    plan.mayRoute();
    plan.eachRow((row) => { if (typeof row.get(column) === 'string') row.route(`to_${row.get(column)}`); }, { read: [column] });
  },
  'reject-rows'(schema, plan, { column, value }) {
    plan.eachRow((row) => {
      if (row.get(column) === value) throw new Reject('kit.refused', 'not this one');
    }, { read: [column] });
  },
  hash: (schema, plan, { column, key }) => plan.mapColumn(column, 'text', (cells) => host.hmacSha256(key, cells).hex()),
  log: (schema, plan, { column }) => plan.eachRow((row) => host.log('info', `saw ${row.get(column)}`), { read: [column] }),
  fail: (schema, plan, { column }) => plan.eachRow((row) => fail(row.get(column)), { read: [column] }),
  retry: (schema, plan) => plan.inspect('id', () => { throw new RetryLater(5, 'not now'); }),
};

function cents(text) {
  const value = scaled(text, 2);
  if (value === null) throw new Reject('decimal.parse', `${JSON.stringify(text)} is no amount`);
  return value;
}

function fail(how) {
  if (how === 'throw') throw new Error('thrown on purpose');
  while (how === 'spin');
  const held = [];
  while (how === 'memory') held.push(new Uint8Array(1 << 20));
  if (how === 'recursion') fail(how);
}

export default transform({
  name: 'conformance',
  description: "The conformance kit's plugin, by the JavaScript SDK",
  configSchema,
  configure(config) {
    if (!Object.hasOwn(operations, config.op)) throw new ConfigError(`there is no operation ${config.op}`);
    if (config.op === 'refuse-config') throw new ConfigError('the kit refuses this config');
    if (config.op === 'throw-in-configure') throw new Error('thrown on purpose');
  },
  plan: (schema, plan, config) => operations[config.op](schema, plan, config),
});
