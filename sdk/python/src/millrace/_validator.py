"""The role ``validator``: named rules, and verdicts. It cannot change data."""

from __future__ import annotations

from dataclasses import dataclass

from ._columns import must_be_readable, readable_as
from ._schema import Schema
from ._transform import Batch
from ._values import NOT_SENT

SEVERITIES = {"warn": 0, "reject": 1, "quarantine": 2}


class Validator:
    """A plugin that judges rows. Give it a name with :func:`millrace.plugin`."""

    def configure(self, config: dict) -> None:
        """Reads the config. Raises ConfigError where it makes no sense."""

    def plan(self, schema: Schema, plan: CheckPlan) -> None:
        """Names the rules of a table. A plan without rules lets its rows pass by the plugin."""
        raise NotImplementedError


@dataclass
class Rule:
    name: str
    severity: str
    columns: list[int]


class CheckPlan:
    """The rules of one table. Cells that were not sent are never judged. A rule on a column that the table does not have, or
    that is not granted, is passed over.

    A judge answers what is wrong as text, and ``None`` (or nothing) where all is well. Severities: "warn" (counted and
    shown), "reject" (the change goes to the dead letters), "quarantine" (the table is).
    """

    def __init__(self, schema: Schema):
        self.schema = schema
        self.reads: list[int] = []
        self.rules: list[Rule] = []
        self._checks: list = []

    def required(self, name: str, column: str, severity: str = "reject") -> None:
        """Every row must have a value."""
        self.check_cells(name, column, lambda value: "is NULL" if value is None else None, severity)

    def check(self, name: str, column: str, judge, severity: str = "reject", read=None) -> None:
        """``judge`` answers what is wrong with a value; NULL and not sent are not judged."""
        self.check_cells(name, column, lambda value: None if value is None else judge(value), severity, read)

    def check_cells(self, name: str, column: str, judge, severity: str = "reject", read=None) -> None:
        """``judge`` answers what is wrong with a cell, NULL (``None``) included; not sent is not judged."""
        if column not in self.schema:
            return
        must_be_readable(self.schema[column].type, column, read, f'rule "{name}"')
        slot, rule = self._read(column), self._add(name, severity, [column])

        def run(batch: Batch, violations: list) -> None:
            for row, value in enumerate(readable_as(read, batch.columns[slot])):
                wrong = None if value is NOT_SENT else judge(value)
                if wrong is not None:
                    violations.append((row, rule, f"{column} {wrong}"))

        self._checks.append(run)

    def check_rows(self, name: str, columns: list[str], judge, severity: str = "reject") -> None:
        """A rule on several columns, judged row by row: ``judge`` gets a dict of cells. Rows in which one was not sent are
        not judged."""
        if any(column not in self.schema for column in columns):
            return
        slots, rule = {column: self._read(column) for column in columns}, self._add(name, severity, columns)

        def run(batch: Batch, violations: list) -> None:
            cells = [list(batch.columns[slot]) for slot in slots.values()]
            for row, values in enumerate(zip(*cells)):
                if NOT_SENT in values:
                    continue
                wrong = judge(dict(zip(columns, values)))
                if wrong is not None:
                    violations.append((row, rule, wrong))

        self._checks.append(run)

    def run(self, batch: Batch) -> list[tuple[int, int, str]]:
        """Violations: row, rule, message. The first of a row gives the reason: rows in order, rules as planned."""
        violations: list[tuple[int, int, str]] = []
        for check in self._checks:
            check(batch, violations)
        return sorted(violations, key=lambda violation: violation[:2])

    def _add(self, name: str, severity: str, columns: list[str]) -> int:
        if severity not in SEVERITIES:
            raise ValueError(f"there are the severities {', '.join(SEVERITIES)}, not {severity!r}")
        self.rules.append(Rule(name, severity, [self.schema.index(column) for column in columns]))
        return len(self.rules) - 1

    def _read(self, column: str) -> int:
        index = self.schema.index(column)
        if index not in self.reads:
            self.reads.append(index)
        return self.reads.index(index)
