// Runs without a host: `node --test`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { testCase } from '@millrace/sdk/testing';

import plugin from './plugin.js';

const orders = (config = {}) => testCase(plugin, { config }).column('id', 'int64', { key: true })
  .column('status', 'text').column('customer', 'text').column('amount', 'text');

test('orders leave in cents', () => {
  const answer = orders().insert({ id: 1n, status: 'new', customer: 'Ann', amount: '12.5' }).run();
  assert.deepEqual(answer.kept(0), { id: 1n, status: 'new', customer_name: 'Ann', amount: 1250n });
});

test('test orders are left out', () => {
  const answer = orders({ test_status: 'dummy' }).insert({ id: 1n, status: 'dummy' }).insert({ id: 2n, status: 'test' }).run();
  assert.deepEqual(answer.fates, ['dropped', 'kept']);
});

test('what is no amount is refused', () => {
  const answer = orders().insert({ id: 1n, amount: 'much' }).insert({ id: 2n, amount: null }).delete({ id: 3n }).run();
  assert.deepEqual(answer.fates, [{ rejected: 'amount.parse', reason: '"much" is no amount' }, 'kept', 'kept']);
});
