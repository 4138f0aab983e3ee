// Write Millrace plugins in JavaScript or TypeScript: transforms and validators of change events, as WebAssembly components.

export { Column, Out } from './columns.js';
export { ConfigError, Reject, RetryLater, SchemaError } from './errors.js';
export * as host from './host.js';
export { columnDef, dataType, Schema, typeName } from './schema.js';
export { transform, validator } from './slot.js';
export { Row, TransformPlan } from './transform.js';
export { CheckPlan } from './validator.js';
export { hex, NOT_SENT, scaled, show, unhex, unscaled } from './values.js';
