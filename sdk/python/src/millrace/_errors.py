"""How a plugin refuses a row, and how it refuses a whole call."""


class Reject(Exception):
    """Raised at a row: its change goes to the dead letters with this code and reason."""

    def __init__(self, code: str, reason: str, *, retryable: bool = False):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.retryable = retryable


class ConfigError(Exception):
    """The config document is wrong: say what, and what would be right."""


class SchemaError(Exception):
    """This table cannot be handled, and is quarantined: say which column, and why."""


class BugError(Exception):
    """A fault of the plugin itself. Any other exception counts as one."""


class RetryLater(Exception):
    """Nothing was decided: the host calls again after so many milliseconds."""

    def __init__(self, after_ms: int, reason: str):
        super().__init__(reason)
        self.after_ms = after_ms
        self.reason = reason
