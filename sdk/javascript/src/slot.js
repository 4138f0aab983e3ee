// A configured plugin and what it planned: the same code in the sandbox and in tests.

import { ConfigError } from './errors.js';
import { TransformPlan } from './transform.js';
import { CheckPlan } from './validator.js';

/** A transform: { name, version, description, configSchema, configure(config), plan(schema, plan) }. */
export const transform = (plugin) => ({ version: '0.1.0', description: '', ...plugin, role: 'transform' });

/** A validator: the same, with the plan of a validator. */
export const validator = (plugin) => ({ version: '0.1.0', description: '', ...plugin, role: 'validator' });

export class Slot {
  constructor(plugin) {
    Object.assign(this, { plugin, state: undefined, plans: new Map() });
  }

  configure(text) {
    let config;
    try {
      config = text.trim() ? JSON.parse(text) : {};
    } catch (error) {
      throw new ConfigError(`config: ${error.message}`);
    }
    this.plans.clear();
    // What `configure` answers is what `plan` gets; a plugin without it gets the document.
    this.state = { config: this.plugin.configure ? this.plugin.configure(config) ?? config : config };
  }

  /** undefined: rows of this table pass by. */
  plan(id, schema) {
    if (!this.state) throw new Error('called before configure');
    const plan = this.plugin.role === 'validator' ? new CheckPlan(schema) : new TransformPlan(schema);
    this.plugin.plan(schema, plan, this.state.config);
    if (plan.isEmpty) return undefined;
    this.plans.set(id, plan);
    return plan;
  }

  planned(id) {
    const plan = this.plans.get(id);
    if (!plan) throw new Error(`schema ${id} was never planned`);
    return plan;
  }
}
