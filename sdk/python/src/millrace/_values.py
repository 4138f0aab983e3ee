"""What one cell holds.

======================  =======================================================================
type                    value
======================  =======================================================================
boolean                 ``bool``
int8 … int64, uint64    ``int``
float32, float64        ``float``
decimal                 ``decimal.Decimal``, every digit kept, also ``NaN`` and the infinities
text                    ``str``
json                    :class:`Json`, a ``str`` that holds one document
binary                  ``bytes``
uuid                    ``uuid.UUID``
date                    :class:`Date`, an ``int``: days since 1970-01-01
time                    :class:`Time`, an ``int``: microseconds since midnight
timestamp(-tz)          :class:`Timestamp`, :class:`TimestampTz`, an ``int``: microseconds since 1970
any other               ``bytes``
======================  =======================================================================

SQL NULL is ``None``. A cell that the source did not send is :data:`NOT_SENT`, which is neither NULL nor a value.
"""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from uuid import UUID


class _NotSent:
    """The one value of its type: the source did not send the cell."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NOT_SENT"

    def __bool__(self) -> bool:
        return False


NOT_SENT = _NotSent()

_I32 = (-(1 << 31), (1 << 31) - 1)
_I64 = (-(1 << 63), (1 << 63) - 1)


class _Infinite:
    __slots__ = ("after",)

    def __init__(self, after: bool):
        self.after = after

    def __repr__(self) -> str:
        return "INFINITY" if self.after else "NEG_INFINITY"


#: For dates and timestamps: after everything, before everything.
INFINITY = _Infinite(True)
NEG_INFINITY = _Infinite(False)


class _Moment(int):
    _bounds = _I64

    def __new__(cls, value):
        if isinstance(value, _Infinite):
            value = cls._bounds[1] if value.after else cls._bounds[0]
        return super().__new__(cls, value)

    @property
    def is_infinite(self) -> bool:
        return int(self) in self._bounds

    def __str__(self) -> str:
        if int(self) == self._bounds[0]:
            return "-infinity"
        return "infinity" if int(self) == self._bounds[1] else int.__repr__(self)

    __repr__ = __str__


class Date(_Moment):
    """Days since 1970-01-01, or an infinity."""

    _bounds = _I32

    def date(self) -> datetime.date:
        """Raises OverflowError for what Python's dates cannot hold: years beyond 1 to 9999, and the infinities."""
        return datetime.date(1970, 1, 1) + datetime.timedelta(days=int(self))


class Timestamp(_Moment):
    """Microseconds since 1970-01-01 of an unknown zone, or an infinity."""

    def datetime(self) -> datetime.datetime:
        """Without zone. Raises OverflowError for years beyond 1 to 9999, and for the infinities."""
        return datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=int(self))


class TimestampTz(_Moment):
    """Microseconds since 1970-01-01 UTC, or an infinity."""

    def datetime(self) -> datetime.datetime:
        """In UTC. Raises OverflowError for years beyond 1 to 9999, and for the infinities."""
        return datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(microseconds=int(self))


class Time(int):
    """Microseconds since midnight."""


class Json(str):
    """One JSON document, as text; :meth:`load` reads it, :meth:`dump` makes one."""

    def load(self):
        return json.loads(self)

    @staticmethod
    def dump(value) -> Json:
        return Json(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def show(value) -> str:
    """A value as text, the same in the SDK of every language."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Decimal):
        return decimal_text(value)
    if value is None:
        return "null"
    if value is NOT_SENT:
        return "not sent"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def decimal_text(value: Decimal) -> str:
    """Every digit, never an exponent."""
    if value.is_finite():
        return format(value, "f")
    if value.is_nan():
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


__all__ = ["INFINITY", "NEG_INFINITY", "NOT_SENT", "UUID", "Date", "Json", "Time", "Timestamp", "TimestampTz", "decimal_text", "show"]
