// How a plugin refuses a row, and how it refuses a whole call.

/** Thrown at a row: its change goes to the dead letters with this code and reason. */
export class Reject extends Error {
  constructor(code, reason, { retryable = false } = {}) {
    super(`${code}: ${reason}`);
    this.name = 'Reject';
    Object.assign(this, { code, reason, retryable });
  }
}

/** The config document is wrong: say what, and what would be right. */
export class ConfigError extends Error {}

/** This table cannot be handled, and is quarantined: say which column, and why. */
export class SchemaError extends Error {}

/** Nothing was decided: the host calls again after so many milliseconds. */
export class RetryLater extends Error {
  constructor(afterMs, reason) {
    super(reason);
    Object.assign(this, { afterMs, reason });
  }
}
