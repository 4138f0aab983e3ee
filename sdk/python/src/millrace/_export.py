"""The plugin of a module, and what it planned: the same code in the sandbox and in tests."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ._errors import BugError, ConfigError
from ._schema import Schema
from ._transform import Batch, Transform, TransformPlan
from ._validator import CheckPlan, Validator


@dataclass
class Info:
    name: str
    version: str
    description: str
    config_schema: str
    type: type


#: The one plugin of this program.
registered: Info | None = None


def plugin(name: str, version: str = "0.1.0", description: str = "", config_schema: dict | None = None):
    """Decorates the class that is the plugin of this module. ``config_schema``: JSON Schema that the host checks."""

    def register(type):
        global registered
        if not issubclass(type, (Transform, Validator)):
            raise TypeError(f"{type.__name__} is neither a Transform nor a Validator")
        schema = json.dumps(config_schema, ensure_ascii=False) if config_schema is not None else ""
        registered = Info(name, version, description or (type.__doc__ or "").strip().split("\n")[0], schema, type)
        type.millrace_info = registered
        return type

    return register


class Slot:
    """A configured plugin and its plans, by the host's schema id."""

    def __init__(self, type):
        self._type = type
        self._plugin = None
        self._plans: dict[int, TransformPlan | CheckPlan] = {}

    def configure(self, text: str) -> None:
        try:
            config = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise ConfigError(f"config: {error}") from None
        self._plugin, self._plans = self._type(), {}
        self._plugin.configure(config)

    def plan(self, id: int, schema: Schema) -> TransformPlan | CheckPlan | None:
        """None: rows of this table pass by."""
        if self._plugin is None:
            raise BugError("called before configure")
        plan = (CheckPlan if isinstance(self._plugin, Validator) else TransformPlan)(schema)
        self._plugin.plan(schema, plan)
        empty = not plan.rules if isinstance(plan, CheckPlan) else plan.is_empty
        if empty:
            return None
        self._plans[id] = plan
        return plan

    def planned(self, id: int) -> TransformPlan | CheckPlan:
        if id not in self._plans:
            raise BugError(f"schema {id} was never planned")
        return self._plans[id]


__all__ = ["Batch", "Info", "Slot", "plugin"]
