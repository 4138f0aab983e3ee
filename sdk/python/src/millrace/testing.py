"""Runs a plugin's logic natively, through the same code as in the sandbox, with a stand-in for the host.

    case = Case(Mask, config={"columns": ["phone"]}).column("id", "int64", key=True).column("phone", "text")
    answer = case.insert(id=1, phone="+49 170 1234567").run()
    assert answer.kept(0) == {"id": 1, "phone": "4567"}

A column that a row leaves out was not sent; ``None`` is NULL. Values are those that a plugin sees (see the package's table).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from . import host
from ._columns import Out
from ._export import Batch, Slot
from ._schema import ColumnDef, DataType, Schema
from ._transform import DROP, TransformPlan
from ._values import NOT_SENT

_KINDS = {"insert": 1, "update_preimage": 2, "update_postimage": 3, "delete": 4}


@dataclass
class Answer:
    """What a transform answered, a row image each."""

    #: "kept", "dropped", or ("rejected", code, reason)
    fates: list = field(default_factory=list)
    #: the cells of each row image; those not sent are absent
    rows: list[dict] = field(default_factory=list)
    #: the table that each row image leaves for
    tables: list[str] = field(default_factory=list)
    #: (level, message)
    log: list[tuple[str, str]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    def kept(self, row: int) -> dict:
        """The cells of a row image that goes on."""
        if self.fates[row] != "kept":
            raise AssertionError(f"row {row} is not kept but {self.fates[row]}")
        return self.rows[row]


class Case:
    """A table, a config and rows, for one run of a plugin."""

    def __init__(self, plugin: type, config: dict | None = None, table: str = "t", keys: dict[str, bytes] | None = None):
        self.plugin, self.config, self.keys = plugin, config or {}, keys or {}
        self.schema = Schema(table, [])
        self.images: list[tuple[int, dict]] = []

    def column(self, name: str, type: DataType | str, *, key: bool = False, nullable: bool = True) -> Case:
        self.schema.columns.append(ColumnDef(name, DataType.parse(type), nullable and not key, key))
        return self

    def image(self, kind: str, **row) -> Case:
        """A row image: "insert", "update_preimage", "update_postimage", "delete"."""
        self.images.append((_KINDS[kind], row))
        return self

    def insert(self, **row) -> Case:
        return self.image("insert", **row)

    def delete(self, **row) -> Case:
        return self.image("delete", **row)

    def run(self, cut: int | None = None) -> Answer:
        """Runs a transform on the rows, as one batch or cut into batches of so many. Raises what the plugin raises."""
        slot, stand_in, plan = self._start()
        answer = Answer()
        for rows in self._cut(cut):
            if plan is None:
                self._pass(answer, rows)
            else:
                self._add(answer, plan, plan.run(self._batch(plan, rows)), rows)
        answer.log, answer.counters = stand_in.log, stand_in.counters
        return answer

    def violations(self, cut: int | None = None) -> list[tuple[int, str, str]]:
        """Runs a validator on the rows: row, rule, message."""
        _, _, plan = self._start()
        found, first = [], 0
        for rows in self._cut(cut):
            if plan is not None:
                run = plan.run(self._batch(plan, rows))
                found += [(first + row, plan.rules[rule].name, message) for row, rule, message in run]
            first += len(rows)
        return found

    def _start(self):
        stand_in = host._host = host._Native()
        stand_in.keys = self.keys
        slot = Slot(self.plugin)
        slot.configure(json.dumps(self.config))
        return slot, stand_in, slot.plan(1, self.schema)

    def _cut(self, size: int | None):
        size = size or max(len(self.images), 1)
        return [self.images[at : at + size] for at in range(0, len(self.images), size)]

    def _batch(self, plan, rows) -> Batch:
        columns = []
        for definition in (self.schema.columns[index] for index in plan.reads):
            out = Out(definition.type, len(rows))
            for _, row in rows:
                out.append(row.get(definition.name, NOT_SENT))
            columns.append(out.column())
        return Batch(len(rows), bytes(kind for kind, _ in rows), columns)

    def _pass(self, answer: Answer, rows) -> None:
        for _, row in rows:
            answer.fates.append("kept")
            answer.rows.append(dict(row))
            answer.tables.append(self.schema.table)

    def _add(self, answer: Answer, plan: TransformPlan, outcome, rows) -> None:
        rejects = {refusal.row: refusal.reject for refusal in reversed(outcome.rejects)}
        written = {index for index, _ in plan.writes if index is not None}
        for at, (_, row) in enumerate(rows):
            dropped = outcome.fates is not None and outcome.fates[at] == DROP
            fate = ("rejected", rejects[at].code, rejects[at].reason) if at in rejects else "dropped" if dropped else "kept"
            cells = {
                plan.renames.get(index, column.name): row[column.name]
                for index, column in enumerate(self.schema.columns)
                if index not in written and index not in plan.drops and column.name in row
            }
            for (_, output), column in zip(plan.writes, outcome.columns):
                value = column[at] if column is not None else NOT_SENT
                if value is not NOT_SENT:
                    cells[output.name] = value
            answer.fates.append(fate)
            answer.rows.append(cells)
            route = outcome.routes[at] if outcome.routes is not None else ""
            answer.tables.append(route or plan.table or self.schema.table)
