"""What the host offers: log and metrics always, crypto by grant. Natively, in tests, :mod:`millrace.testing` stands in for it."""

from __future__ import annotations

from ._columns import Column, Fixed
from ._errors import ConfigError
from ._schema import DataType

LEVELS = ("trace", "debug", "info", "warn", "error")


class _Native:
    """Stands in for the host where a plugin's logic runs in CPython."""

    def __init__(self):
        self.log, self.counters, self.observations, self.keys = [], {}, {}, {}

    def write(self, level, message, fields):
        self.log.append((level, message))

    def count(self, name, labels, add):
        self.counters[name] = self.counters.get(name, 0) + add

    def observe(self, name, labels, value):
        self.observations.setdefault(name, []).append(value)

    def hmac_sha256(self, key, column):
        import hashlib
        import hmac

        if key not in self.keys:
            return None
        offsets, data = column.cells.offsets, column.cells.data
        cell = lambda row: hmac.new(self.keys[key], data[offsets[row] : offsets[row + 1]], hashlib.sha256).digest()
        present = lambda row: column.presence is None or column.presence[row] == 1
        hashes = b"".join(cell(row) if present(row) else bytes(32) for row in range(column.rows))
        return Column(DataType("binary"), column.presence, Fixed(32, hashes), column.rows)


#: Set by the component's entry, and by the tests.
_host = _Native()


def log(level: str, message: str, **fields: str) -> None:
    """Writes a line to the host's log: "trace", "debug", "info", "warn" or "error". The host keeps a bounded number a second."""
    if level not in LEVELS:
        raise ValueError(f"there are the levels {', '.join(LEVELS)}, not {level!r}")
    _host.write(level, message, list(fields.items()))


def count(name: str, add: int = 1, **labels: str) -> None:
    """Adds to a counter of the plugin's. Labels must have few values."""
    _host.count(name, list(labels.items()), add)


def observe(name: str, value: float, **labels: str) -> None:
    """Adds a value to a histogram of the plugin's."""
    _host.observe(name, list(labels.items()), value)


def hmac_sha256(key: str, column: Column) -> Column:
    """HMAC-SHA-256 of each cell of a text or binary column under the named key, which never enters the sandbox.

    32 bytes a row (``.hex()`` makes text of them); NULL and not sent stay. Raises ConfigError where the key is not granted.
    """
    hashed = _host.hmac_sha256(key, column)
    if hashed is None:
        raise ConfigError(f'the key "{key}" is not granted: add `grant: {{ crypto: [{key}] }}` to the stage')
    return hashed
