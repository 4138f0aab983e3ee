// The SDK without a host: `node --test`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NOT_SENT, Out, Reject, SchemaError, columnDef, host, scaled, show, transform, unscaled, validator } from '../src/index.js';
import { decode } from '../src/text.js';
import { testCase } from '../src/testing.js';

const shorten = transform({
  name: 'shorten',
  plan(schema, plan, { column }) {
    plan.map(column, (text) => {
      if (!text) throw new Reject('phone.empty', 'there is nothing to keep');
      return text.slice(-4);
    }, { as: 'text' });
    plan.filter('status', (status) => status !== 'test');
    plan.rename('name', 'full_name');
  },
});

const orders = (config) => testCase(shorten, { config }).column('id', 'int64', { key: true }).column('phone', 'text')
  .column('status', 'text').column('name', 'text');

test('a column is written, a row left out and a name changed', () => {
  const answer = orders({ column: 'phone' })
    .insert({ id: 1n, phone: '+49 170 1234567', status: 'new', name: 'Ann' })
    .insert({ id: 2n, phone: '1', status: 'test', name: 'Bob' })
    .run();
  assert.deepEqual(answer.kept(0), { id: 1n, phone: '4567', status: 'new', full_name: 'Ann' });
  assert.deepEqual(answer.fates, ['kept', 'dropped']);
});

test('NULL and not sent stay what they are', () => {
  const answer = orders({ column: 'phone' }).insert({ id: 1n, phone: null }).delete({ id: 2n }).run();
  assert.deepEqual(answer.rows, [{ id: 1n, phone: null }, { id: 2n }]);
});

test('a reject names its code', () => {
  const answer = orders({ column: 'phone' }).insert({ id: 1n, phone: '' }).run();
  assert.deepEqual(answer.fates, [{ rejected: 'phone.empty', reason: 'there is nothing to keep' }]);
});

test('how rows are cut makes no difference', () => {
  const many = orders({ column: 'phone' });
  for (let id = 0; id < 20; id++) many.insert({ id: BigInt(id), phone: '0'.repeat(id), status: id % 3 ? null : 'test' });
  const whole = many.run();
  for (const cut of [1, 7]) assert.deepEqual(many.run(cut), whole);
});

test('a column that can not be read so is refused before a row flows', () => {
  const numbers = testCase(shorten, { config: { column: 'n' } }).column('n', 'int64').insert({ n: 1n });
  assert.throws(() => numbers.run(), (error) => error instanceof SchemaError && /column n is int64/.test(error.message));
});

test('every type is read as it was written', () => {
  const values = {
    int64: -(2n ** 63n), uint64: 2n ** 64n - 1n, boolean: true, text: 'ä€😀', binary: Uint8Array.of(0, 255), 'decimal(10,2)': '-12.50',
    'decimal(38,10)': '1234567890123456789012345678.0123456789', decimal: '-Infinity', uuid: '00000000-0000-0000-0000-000000000007',
    date: Infinity, timestamp: -Infinity, 'timestamp-tz': 9007199254740993n, float64: 0.1, json: '{"a":[1,null]}',
  };
  for (const [type, value] of Object.entries(values)) {
    const out = new Out(type, 3);
    for (const cell of [value, null, NOT_SENT]) out.append(cell);
    const column = out.column();
    assert.deepEqual([0, 1, 2].map((row) => column.get(row)), [value, null, NOT_SENT], type);
  }
});

test('what does not fit is refused', () => {
  for (const [type, value, code] of [['int8', 128, 'int.overflow'], ['decimal(4,2)', '123.45', 'decimal.overflow']]) {
    assert.throws(() => new Out(type, 1).append(value), (error) => error instanceof Reject && error.code === code);
  }
});

test('decimals are exact', () => {
  const cases = [['-12.5', 2, -1250n], ['12.501', 2, null], ['.5', 2, 50n], ['7.500', 2, 750n], ['NaN', 2, null], ['', 2, null],
    ['0.001', 2, null], ['0.001', 0, null], ['.0', 0, 0n], ['92233720368547758.07', 2, 9223372036854775807n]];
  for (const [text, digits, value] of cases) assert.equal(scaled(text, digits), value, text);
  assert.equal(unscaled(-5n, 2), '-0.05');
  assert.equal(unscaled(0n, -3), '0');
});

test('text is UTF-8 without the platform', () => {
  for (const text of ['', 'ascii', 'ä€😀 mixed \u0000 \u{10ffff}', 'x'.repeat(10_000)]) {
    const out = new Out('text', 1);
    out.append(text);
    const { data } = out.column().cells.val;
    assert.deepEqual(data, new TextEncoder().encode(text));
    assert.equal(decode(data, 0, data.length), text);
  }
});

test('the row view adds, drops and routes, and values are shown as in every language', () => {
  const plugin = transform({
    name: 'rows',
    plan(schema, plan) {
      plan.mayDrop();
      plan.mayRoute();
      plan.addColumn(columnDef('shown', 'text'));
      plan.eachRow((row) => {
        if (row.changeType === 'delete') row.drop();
        if (row.get('d') === null) row.route('empty');
        row.set('shown', [row.get('d'), row.get('t')].map(show).join(';'));
      }, { read: ['d', 't'] });
    },
  });
  const answer = testCase(plugin).column('d', 'decimal(4,-3)').column('t', 'timestamp')
    .insert({ d: '12000', t: Infinity }).insert({ d: null }).delete({ d: '0' }).run();
  assert.deepEqual(answer.fates, ['kept', 'kept', 'dropped']);
  assert.deepEqual(answer.tables, ['t', 'empty', 't']);
  assert.deepEqual(answer.rows.map((row) => row.shown), ['12000;infinity', 'null;not sent', '0;not sent']);
});

test('a hash needs its key', () => {
  const plugin = transform({ name: 'h', plan: (_, plan) => plan.mapColumn('v', 'text', (cells) => host.hmacSha256('pii', cells).hex()) });
  const run = (keys) => testCase(plugin, { keys }).column('v', 'text').insert({ v: 'x' }).insert({ v: null }).run();
  assert.equal(run({ pii: 'secret' }).kept(0).v.length, 64);
  assert.equal(run({ pii: 'secret' }).kept(1).v, null);
  assert.throws(() => run({}), /pii/);
});

test('rules judge values and not what was not sent', () => {
  const plugin = validator({
    name: 'v',
    plan(_, plan) {
      plan.check('total >= 0', 'total', (total) => (total.startsWith('-') ? `is ${total}` : undefined));
      plan.required('status there', 'status', { severity: 'warn' });
    },
  });
  const rows = testCase(plugin).column('total', 'decimal(10,2)').column('status', 'text')
    .insert({ total: '-0.01', status: null }).insert({ total: null, status: 'new' }).delete({});
  const expected = [
    { row: 0, rule: 'total >= 0', message: 'total is -0.01' }, { row: 0, rule: 'status there', message: 'status is NULL' }];
  assert.deepEqual(rows.violations(), expected);
  assert.deepEqual(rows.violations(1), expected);
});
