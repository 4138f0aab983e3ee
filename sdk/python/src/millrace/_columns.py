"""Column view: a column of a batch, and the layouts that columns travel in.

``cells`` is one of: ``bytes`` (booleans, one byte a row), a list of ``int`` or ``float``, :class:`Vars`, :class:`Fixed`.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from ._errors import BugError, Reject, SchemaError
from ._schema import DataType
from ._values import NOT_SENT, Date, Json, Time, Timestamp, TimestampTz, _Infinite, decimal_text

NULL, VALUE, UNSENT = 0, 1, 2

_RANGES = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
    "date": (-(1 << 31), (1 << 31) - 1),
}
_WIDE = (-(1 << 63), (1 << 63) - 1)
_TEXT = ("text", "json")


class Vars:
    """Cells of any length: row i is ``data[offsets[i]:offsets[i + 1]]``."""

    __slots__ = ("offsets", "data")

    def __init__(self, offsets, data):
        self.offsets = offsets
        self.data = data


class Fixed:
    """Cells of one width."""

    __slots__ = ("width", "data")

    def __init__(self, width, data):
        self.width = width
        self.data = data


def layout(type: DataType) -> str:
    """How a type travels: "bools", "i32s", "i64s", "f32s", "f64s", "vars" or "fixed"."""
    kind = type.kind
    if kind == "boolean":
        return "bools"
    if kind in ("int8", "int16", "int32", "date"):
        return "i32s"
    if kind in ("int64", "uint64", "time", "timestamp", "timestamp-tz") or type.is_decimal64:
        return "i64s"
    if kind in ("float32", "float64"):
        return "f32s" if kind == "float32" else "f64s"
    return "fixed" if kind == "uuid" else "vars"


class Column:
    """The cells of one column of a batch. ``column[row]`` is a value, ``None`` or ``NOT_SENT``; ``list(column)`` all of them."""

    __slots__ = ("type", "presence", "cells", "rows")

    def __init__(self, type: DataType, presence, cells, rows: int):
        self.type = type
        self.presence = presence
        self.cells = cells
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int):
        if self.presence is not None and self.presence[row] != VALUE:
            return None if self.presence[row] == NULL else NOT_SENT
        return reader(self)(row)

    def __iter__(self):
        presence = self.presence
        if self.type.kind == "text" and isinstance(self.cells, Vars):
            values = _texts(self.cells)
        elif presence is None:
            return map(reader(self), range(self.rows))
        else:
            read = reader(self)
            return (read(row) if (state := presence[row]) == VALUE else None if state == NULL else NOT_SENT for row in range(self.rows))
        if presence is None:
            return iter(values)
        return (value if state == VALUE else None if state == NULL else NOT_SENT for value, state in zip(values, presence))

    def hex(self) -> Column:
        """Bytes, such as the host's hashes, as lower-case hexadecimal text."""
        out = Out(DataType("text"), self.rows)
        for value in self:
            out.append(value.hex() if isinstance(value, (bytes, bytearray)) else value)
        return out.column()


def _texts(cells: Vars) -> list[str]:
    """All texts of a column at once: ASCII, which most columns are, is decoded as a whole and then cut."""
    offsets, data = cells.offsets, cells.data
    if data.isascii():
        text = data.decode("ascii")
        return [text[start:end] for start, end in pairwise(offsets)]
    return [data[start:end].decode() for start, end in pairwise(offsets)]


def reader(column: Column):
    """A function from the row of a value to it."""
    cells, kind = column.cells, column.type.kind
    if isinstance(cells, Vars):
        offsets, data = cells.offsets, cells.data
        if kind == "text":
            return lambda row: data[offsets[row] : offsets[row + 1]].decode()
        if kind == "json":
            return lambda row: Json(data[offsets[row] : offsets[row + 1]].decode())
        if kind == "decimal":
            return lambda row: Decimal(data[offsets[row] : offsets[row + 1]].decode())
        return lambda row: data[offsets[row] : offsets[row + 1]]
    if isinstance(cells, Fixed):
        width, data = cells.width, cells.data
        if kind == "uuid":
            return lambda row: UUID(bytes=data[row * width : row * width + width])
        return lambda row: data[row * width : row * width + width]
    if kind == "boolean":
        return lambda row: cells[row] != 0
    if kind == "uint64":
        return lambda row: cells[row] & 0xFFFF_FFFF_FFFF_FFFF
    if kind == "decimal":
        scale = column.type.scale
        return lambda row: unscaled(cells[row], scale)
    wrap = {"date": Date, "time": Time, "timestamp": Timestamp, "timestamp-tz": TimestampTz}.get(kind)
    return (lambda row: wrap(cells[row])) if wrap else cells.__getitem__


def unscaled(value: int, scale: int) -> Decimal:
    """value / 10^scale, with exactly scale digits after the point."""
    if scale <= 0:
        return Decimal(value * 10**-scale)
    return Decimal((1 if value < 0 else 0, tuple(map(int, str(abs(value)))), -scale))


def scaled(value: Decimal | str, scale: int) -> int | None:
    """value * 10^scale as an integer; None: it is none. Digit by digit: arithmetic would round to the context's precision.

    Of text, it must be a plain decimal such as "-12.50"; that is several times as fast as by way of a Decimal.
    """
    if isinstance(value, str):
        return _scaled_text(value, scale)
    if not value.is_finite():
        return None
    sign, digits, exponent = value.as_tuple()
    number, exponent = int("".join(map(str, digits))), exponent + scale
    if exponent < 0:
        number, rest = divmod(number, 10**-exponent)
        if rest:
            return None
    else:
        number *= 10**exponent
    return -number if sign else number


def _scaled_text(text: str, scale: int) -> int | None:
    if scale < 0:
        number = _scaled_text(text, 0)
        return None if number is None or number % 10**-scale else number // 10**-scale
    whole, _, fraction = text.partition(".")
    missing = scale - len(fraction)
    if missing < 0 and fraction[scale:].strip("0"):
        return None
    number = whole + fraction[:scale]
    # Of what `int` reads only ASCII digits with a sign before them are a decimal: no blanks, no underscores.
    digits = number[1:] if number[:1] in ("-", "+") else number
    if not digits and fraction:
        return 0
    if not (digits.isdecimal() and digits.isascii()):
        return None
    return int(number) * 10**missing if missing > 0 else int(number)


def must_be_readable(type: DataType, name: str, as_type, what: str) -> None:
    """Refuses a column that an operation cannot read, before any row flows."""
    fits = as_type is None or (as_type is str and (type.kind in _TEXT or (type.kind == "decimal" and not type.is_decimal64)))
    fits = fits or (as_type is bytes and type.kind in ("binary", "other"))
    fits = fits or (as_type is int and layout(type) in ("i32s", "i64s") and type.kind != "decimal")
    fits = fits or (as_type is float and type.kind.startswith("float")) or (as_type is bool and type.kind == "boolean")
    if not fits:
        raise SchemaError(f"column {name} is {type}, which `{what}` cannot read as {as_type.__name__}")


def readable_as(as_type, column: Column):
    """The column as an iterable of values of that Python type: a decimal read as str stays the source's own text."""
    if as_type is str and column.type.kind == "decimal":
        return Column(DataType("text"), column.presence, column.cells, column.rows)
    return column


class Out:
    """The cells that a plugin writes, row after row."""

    __slots__ = ("type", "layout", "presence", "values", "offsets", "rows")

    def __init__(self, type: DataType, rows: int):
        self.type = type
        self.layout = layout(type)
        self.presence = None
        self.values = bytearray() if self.layout in ("vars", "fixed", "bools") else []
        self.offsets = [0] if self.layout == "vars" else None
        self.rows = 0

    def append(self, value) -> None:
        """A value, ``None`` or ``NOT_SENT``. Raises Reject("int.overflow") for an integer that does not fit the type."""
        if value is None or value is NOT_SENT:
            self.absent(NULL if value is None else UNSENT)
            return
        how = self.layout
        if how == "vars":
            self.values += self.bytes_of(value)
            self.offsets.append(len(self.values))
        elif how == "fixed":
            self.values += value.bytes if isinstance(value, UUID) else UUID(value).bytes
        elif how == "bools":
            self.values.append(1 if value else 0)
        elif how == "i32s" or how == "i64s":
            self.values.append(self.integer_of(value))
        else:
            self.values.append(float(value))
        self.rows += 1
        if self.presence is not None:
            self.presence.append(VALUE)

    def extend(self, values: list) -> bool:
        """All values at once, where they need no second look: integers that fit. False: append them one by one."""
        if self.layout not in ("i32s", "i64s") or self.type.kind == "decimal" or set(map(type, values)) != {int}:
            return False
        least, most = _RANGES.get(self.type.kind, _WIDE)
        if min(values) < least or max(values) > min(most, _WIDE[1]):
            return False
        self.values = values
        self.rows = len(values)
        return True

    def absent(self, state: int) -> None:
        if self.presence is None:
            self.presence = bytearray([VALUE]) * self.rows
        self.presence.append(state)
        self.rows += 1
        if self.layout == "vars":
            self.offsets.append(len(self.values))
        elif self.layout == "fixed":
            self.values += bytes(16)
        elif self.layout in ("f32s", "f64s"):
            self.values.append(0.0)
        else:
            self.values.append(0)

    def bytes_of(self, value) -> bytes:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, (bytes, bytearray)):
            return value
        if isinstance(value, Decimal) or (self.type.kind == "decimal" and isinstance(value, int)):
            value = Decimal(value)
            if self.type.precision and value.is_finite():
                number = scaled(value, self.type.scale)
                if number is None or abs(number) >= 10**self.type.precision:
                    raise Reject("decimal.overflow", f"{value} does not fit into {self.type}")
                value = unscaled(number, self.type.scale)
            return decimal_text(value).encode()
        raise BugError(f"a {type(value).__name__} was written into a column of {self.type}")

    def integer_of(self, value) -> int:
        kind = self.type.kind
        if isinstance(value, _Infinite):
            value = (Date if kind == "date" else Timestamp)(value)
        if kind == "decimal":
            number = scaled(Decimal(value), self.type.scale)
            if number is None or abs(number) >= 10**self.type.precision:
                raise Reject("decimal.overflow", f"{value} does not fit into {self.type}")
            return number
        if not isinstance(value, int):
            raise BugError(f"a {type(value).__name__} was written into a column of {self.type}")
        least, most = _RANGES.get(kind, _WIDE)
        if not least <= value <= most:
            raise Reject("int.overflow", f"{int(value)} does not fit into {self.type}")
        return int(value) - (1 << 64) if kind == "uint64" and value >= 1 << 63 else int(value)

    def column(self) -> Column:
        if self.layout == "vars":
            cells = Vars(self.offsets, bytes(self.values))
        elif self.layout == "fixed":
            cells = Fixed(16, bytes(self.values))
        else:
            cells = bytes(self.values) if self.layout == "bools" else self.values
        return Column(self.type, bytes(self.presence) if self.presence is not None else None, cells, self.rows)


def f32(value: float) -> float:
    """The nearest float of 32 bits."""
    return struct.unpack("f", struct.pack("f", value))[0]
