// The conformance kit's validator, by the JavaScript SDK. ../README.md says what each kind of rule does.

import { ConfigError, validator } from '@millrace/sdk';

const KINDS = ['required', 'not', 'throw', 'differ'];

function judge(kind, unwanted) {
  return (text) => {
    if (text !== unwanted) return undefined;
    if (kind === 'throw') throw new Error('thrown on purpose');
    return `is ${text}`;
  };
}

export default validator({
  name: 'conformance-validator',
  description: "The conformance kit's plugin, by the JavaScript SDK",
  configure({ rules }) {
    const odd = rules.find(({ kind }) => !KINDS.includes(kind));
    if (odd) throw new ConfigError(`there is no kind ${odd.kind}`);
  },
  plan(schema, plan, { rules }) {
    for (const { name, severity, kind, column, columns, value } of rules) {
      if (kind === 'required') plan.required(name, column, { severity });
      else if (kind === 'differ') {
        const [a, b] = columns;
        const both = (row) => (row[a] !== null && row[a] === row[b] ? `${a} and ${b} are both ${row[a]}` : undefined);
        plan.checkRows(name, columns, both, { severity });
      } else plan.check(name, column, judge(kind, value), { severity, as: 'text' });
    }
  },
});
