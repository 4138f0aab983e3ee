// Leaves test orders out, renames `customer`, and turns the text `amount` into whole cents; what is no amount is refused.

import { Reject, scaled, transform } from '@millrace/sdk';

export default transform({
  name: 'order-cents-javascript',
  configSchema: { type: 'object', properties: { test_status: { type: 'string' } }, additionalProperties: false },
  plan(schema, plan, { test_status: testStatus = 'test' }) {
    plan.filter('status', (status) => status !== testStatus, { as: 'text' });
    plan.rename('customer', 'customer_name');
    plan.convert('amount', 'int64', cents, { as: 'text' });
  },
});

function cents(text) {
  const value = scaled(text, 2);
  if (value === null) throw new Reject('amount.parse', `${JSON.stringify(text)} is no amount`);
  return value;
}
