"""The role ``transform``: a plan of column and row operations, made once a schema and run on every batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ._columns import UNSENT, VALUE, Column, Out, must_be_readable, readable_as
from ._errors import BugError, Reject
from ._schema import ColumnDef, DataType, Schema
from ._values import NOT_SENT

KEEP, DROP = 0, 1
_KINDS = {1: "insert", 2: "update_preimage", 3: "update_postimage", 4: "delete"}


class Transform:
    """A plugin that filters, renames, converts, masks, adds and routes. Give it a name with :func:`millrace.plugin`.

    What it answers for a row must depend on the row and the config alone: the host cuts batches as it likes, and replaces
    instances at any time.
    """

    def configure(self, config: dict) -> None:
        """Reads the config. Raises ConfigError where it makes no sense."""

    def plan(self, schema: Schema, plan: TransformPlan) -> None:
        """Says what is done with the rows of a table. A plan that stays empty lets its rows pass by the plugin.

        Raises SchemaError where the table cannot be handled: it is quarantined.
        """
        raise NotImplementedError


@dataclass
class Batch:
    """A run of row images: the columns that the plan reads, in its order."""

    rows: int
    change_types: bytes
    columns: list[Column]


@dataclass
class Refusal:
    row: int
    reject: Reject
    column: str | None


class Outcome:
    """The answer to a batch while it is made."""

    def __init__(self, rows: int, writes: int):
        self.rows = rows
        self.fates: bytearray | None = None
        self.columns: list[Column | None] = [None] * writes
        self.rejects: list[Refusal] = []
        self.routes: list[str] | None = None

    def drop(self, row: int) -> None:
        if self.fates is None:
            self.fates = bytearray(self.rows)
        self.fates[row] = DROP

    def route(self, row: int, table: str) -> None:
        if self.routes is None:
            self.routes = [""] * self.rows
        self.routes[row] = table


class TransformPlan:
    """What is done with the rows of one table, column by column or row by row; columns go by their names.

    Columns are read as the source sent them: no operation sees what another wrote. NULL and *not sent* cells pass through
    column operations untouched, and a filter keeps the rows whose cell was not sent. A column that the table does not have,
    or that is not granted, is passed over: ask ``"name" in schema`` where that matters.

    ``read`` says how a column must be readable: ``str``, ``bytes``, ``int``, ``float``, ``bool``, or ``None`` for any type.
    A column that is not is refused before any row flows; a decimal read as ``str`` stays the source's own text.
    """

    def __init__(self, schema: Schema):
        self.schema = schema
        self.reads: list[int] = []
        self.effects: list[str] = []
        self.table: str | None = None
        self.drops: list[int] = []
        self.renames: dict[int, str] = {}
        self.writes: list[tuple[int | None, ColumnDef]] = []
        self.operations: list = []
        self._row_writes: dict[str, int] = {}

    def rename_table(self, name: str) -> None:
        """Rows leave for this table."""
        self.table = name

    def rename(self, column: str, to: str) -> None:
        """Gives a column another name. Costs nothing a row."""
        if column not in self.schema:
            return
        index = self.schema.index(column)
        for replaces, output in self.writes:
            if replaces == index:
                output.name = to
                return
        self.renames[index] = to

    def drop_column(self, column: str) -> None:
        """Leaves a column out. Costs nothing a row."""
        if column in self.schema:
            self.drops.append(self.schema.index(column))

    def filter(self, column: str, keep, read=None) -> None:
        """Keeps the rows for whose value ``keep`` says so, and those without one: NULL, or not sent."""
        self._filter(column, keep, read, nulls=False)

    def filter_cells(self, column: str, keep, read=None) -> None:
        """Keeps the rows for whose cell ``keep`` says so, NULL (``None``) included; those not sent are kept."""
        self._filter(column, keep, read, nulls=True)

    def _filter(self, column: str, keep, read, nulls: bool) -> None:
        if (slot := self._input(column, read, "filter")) is None:
            return
        self.may_drop()

        def run(batch: Batch, outcome: Outcome) -> None:
            for row, value in enumerate(readable_as(read, batch.columns[slot])):
                if value is not NOT_SENT and (nulls or value is not None) and not keep(value):
                    outcome.drop(row)

        self.operations.append(run)

    def route(self, column: str, to, read=None) -> None:
        """Sends each row to the table that ``to`` names for its value; ``None``, NULL and not sent: the usual one."""
        if (slot := self._input(column, read, "route")) is None:
            return
        self.may_route()

        def run(batch: Batch, outcome: Outcome) -> None:
            for row, value in enumerate(readable_as(read, batch.columns[slot])):
                table = None if value is None or value is NOT_SENT else to(value)
                if table is not None:
                    outcome.route(row, table)

        self.operations.append(run)

    def map(self, column: str, f, read=None) -> None:
        """Writes a column anew with the same name and type, value by value. ``f`` may raise Reject."""
        if column in self.schema:
            self.convert(column, self.schema[column].type, f, read)

    def convert(self, column: str, to: DataType | str, f, read=None) -> None:
        """Writes a column anew with the same name and another type, value by value. ``f`` may raise Reject."""
        if (slot := self._input(column, read, "convert")) is None:
            return
        to = DataType.parse(to)
        write = self._replace(column, to)
        self._effect("reject")

        def run(batch: Batch, outcome: Outcome) -> None:
            out = Out(to, batch.rows)
            values = list(readable_as(read, batch.columns[slot]))
            for row, value in enumerate(values):
                if value is not None and value is not NOT_SENT:
                    try:
                        values[row] = f(value)
                    except Reject as reject:
                        outcome.rejects.append(Refusal(row, reject, column))
                        values[row] = None
            if not out.extend(values):
                for row, value in enumerate(values):
                    try:
                        out.append(value)
                    except Reject as reject:
                        outcome.rejects.append(Refusal(row, reject, column))
                        out.append(None)
            outcome.columns[write] = out.column()

        self.operations.append(run)

    def map_column(self, column: str, to: DataType | str, f) -> None:
        """Writes a column anew as a whole: ``f`` gets a Column and answers one of as many rows, of the given type."""
        if (slot := self._input(column, None, "map_column")) is None:
            return
        write = self._replace(column, DataType.parse(to))

        def run(batch: Batch, outcome: Outcome) -> None:
            outcome.columns[write] = f(batch.columns[slot])

        self.operations.append(run)

    def inspect(self, column: str, f) -> None:
        """Looks at a column of each batch as a whole, to count or to log."""
        if (slot := self._input(column, None, "inspect")) is not None:
            self.operations.append(lambda batch, outcome: f(batch.columns[slot]))

    def add_column(self, column: ColumnDef) -> None:
        """For :meth:`each_row`: a new column. Rows that do not set it are NULL."""
        self.writes.append((None, column))
        self._row_writes[column.name] = len(self.writes) - 1

    def each_row(self, f, read=(), write=()) -> None:
        """Runs ``f`` on every row image, a :class:`Row`: ``row["a"]`` reads, ``row["a"] = value`` writes.

        ``read`` names the columns that it reads; ``write`` those that it writes anew, as a dict with their types or as a list
        where the types stay. A row that raises Reject writes nothing. Say what it may do besides by :meth:`may_drop` and
        :meth:`may_route`. Call it once, after :meth:`add_column`.
        """
        self._effect("reject")
        slots = {name: self._input(name, None, "each_row") for name in read if name in self.schema}
        types = write if isinstance(write, dict) else {name: None for name in write}
        for name in (name for name in types if name in self.schema):
            to = DataType.parse(types[name]) if types[name] is not None else self.schema[name].type
            self._row_writes[name] = self._replace(name, to)
        outputs = dict(self._row_writes)

        def run(batch: Batch, outcome: Outcome) -> None:
            columns = {name: iter(batch.columns[slot]) for name, slot in slots.items()}
            outs = {name: Out(self.writes[index][1].type, batch.rows) for name, index in outputs.items()}
            for index in range(batch.rows):
                row = Row({name: next(cells) for name, cells in columns.items()}, batch, outcome, index, outputs)
                try:
                    f(row)
                    for name, out in outs.items():
                        out.append(row.written.get(name))
                except Reject as reject:
                    outcome.rejects.append(Refusal(index, reject, None))
                    for out in outs.values():
                        if out.rows == index:
                            out.append(None)
            for name, out in outs.items():
                outcome.columns[outputs[name]] = out.column()

        self.operations.append(run)

    def may_drop(self) -> None:
        """Announces that ``each_row`` drops rows."""
        self._effect("drop")

    def may_route(self) -> None:
        """Announces that ``each_row`` routes rows."""
        self._effect("route")

    @property
    def is_empty(self) -> bool:
        return not (self.operations or self.drops or self.renames) and self.table is None

    def run(self, batch: Batch) -> Outcome:
        outcome = Outcome(batch.rows, len(self.writes))
        for operation in self.operations:
            operation(batch, outcome)
        for (_, output), column in zip(self.writes, outcome.columns):
            if column is not None and column.rows != batch.rows:
                raise BugError(f"column {output.name} was written with {column.rows} rows of {batch.rows}")
        return outcome

    def _input(self, column: str, as_type, what: str) -> int | None:
        if column not in self.schema:
            return None
        must_be_readable(self.schema[column].type, column, as_type, what)
        index = self.schema.index(column)
        if index not in self.reads:
            self.reads.append(index)
        return self.reads.index(index)

    def _replace(self, column: str, to: DataType) -> int:
        index = self.schema.index(column)
        before = self.schema.columns[index]
        source_type = before.source_type if before.type == to else ""
        name = self.renames.pop(index, before.name)
        self.writes.append((index, replace(before, type=to, source_type=source_type, name=name)))
        return len(self.writes) - 1

    def _effect(self, effect: str) -> None:
        if effect not in self.effects:
            self.effects.append(effect)


class Row:
    """One row image. A cell reads as a value, ``None`` (NULL) or ``NOT_SENT``."""

    __slots__ = ("_cells", "_batch", "_outcome", "_index", "_outputs", "written")

    def __init__(self, cells, batch, outcome, index, outputs):
        self._cells = cells
        self._batch = batch
        self._outcome = outcome
        self._index = index
        self._outputs = outputs
        self.written = {}

    def __getitem__(self, column: str):
        return self._cells[column]

    def __setitem__(self, column: str, value) -> None:
        if column not in self._outputs:
            raise BugError(f"column {column} is written, but the plan does not say so")
        self.written[column] = value

    def __contains__(self, column: str) -> bool:
        return column in self._cells

    @property
    def change_type(self) -> str:
        """ "insert", "update_preimage", "update_postimage", "delete"; what a later contract adds is "other"."""
        return _KINDS.get(self._batch.change_types[self._index], "other")

    def drop(self) -> None:
        """Leaves the row image out."""
        self._outcome.drop(self._index)

    def route(self, table: str) -> None:
        """Sends the row image to another table."""
        self._outcome.route(self._index, table)


__all__ = ["UNSENT", "VALUE", "Batch", "Outcome", "Row", "Transform", "TransformPlan"]
