"""Between the SDK and the bindings that componentize-py makes of the contract: the only module that knows them."""

from __future__ import annotations

import functools

from componentize_py_types import Err, Ok
from wit_world.imports import crypto, log, metrics, types

from . import _export, host
from ._columns import Column, Fixed, Vars
from ._errors import BugError, ConfigError, RetryLater, SchemaError
from ._schema import ColumnDef, DataType, Images, Schema
from ._transform import Batch
from ._validator import SEVERITIES

_PLAIN = {
    "boolean": types.DataType_Boolean, "int8": types.DataType_Int8, "int16": types.DataType_Int16,
    "int32": types.DataType_Int32, "int64": types.DataType_Int64, "uint64": types.DataType_Uint64,
    "float32": types.DataType_Float32, "float64": types.DataType_Float64, "text": types.DataType_Text,
    "binary": types.DataType_Binary, "uuid": types.DataType_Uuid, "date": types.DataType_Date, "time": types.DataType_Time,
    "timestamp": types.DataType_Timestamp, "timestamp-tz": types.DataType_TimestampTz, "json": types.DataType_Json,
}
_KIND = {cls: kind for kind, cls in _PLAIN.items()}
_CELLS = {"i32s": types.Cells_I32s, "i64s": types.Cells_I64s, "f32s": types.Cells_F32s, "f64s": types.Cells_F64s}


def type_in(ty) -> DataType:
    if isinstance(ty, (types.DataType_Decimal64, types.DataType_Decimal)):
        return DataType("decimal", ty.value.precision, ty.value.scale)
    if isinstance(ty, types.DataType_Other):
        return DataType("other", name=ty.value)
    return DataType(_KIND[type(ty)])


def type_out(ty: DataType):
    if ty.kind == "decimal":
        decimal = types.DecimalType(ty.precision, ty.scale)
        return types.DataType_Decimal64(decimal) if ty.is_decimal64 else types.DataType_Decimal(decimal)
    return types.DataType_Other(ty.name) if ty.kind == "other" else _PLAIN[ty.kind]()


def schema_in(table) -> Schema:
    columns = [ColumnDef(c.name, type_in(c.ty), c.nullable, c.key, c.source_type, c.ext) for c in table.columns]
    return Schema(table.table, columns, table.namespace, table.connector, Images(min(table.images, 2)))


def column_def_out(column: ColumnDef):
    return types.ColumnDef(
        column.name, type_out(column.type), column.nullable, column.key, column.source_type, column.ext
    )


def column_in(column, ty: DataType, rows: int) -> Column:
    cells = column.cells.value
    if isinstance(column.cells, types.Cells_Vars):
        cells = Vars(cells.offsets, cells.data)
    elif isinstance(column.cells, types.Cells_Fixed):
        cells = Fixed(cells.width, cells.data)
    return Column(ty, column.presence, cells, rows)


def column_out(column: Column):
    from ._columns import layout

    if isinstance(column.cells, Vars):
        cells = types.Cells_Vars(types.VarData(column.cells.offsets, column.cells.data))
    elif isinstance(column.cells, Fixed):
        cells = types.Cells_Fixed(types.FixedData(column.cells.width, column.cells.data))
    elif isinstance(column.cells, (bytes, bytearray)):
        cells = types.Cells_Bools(bytes(column.cells))
    else:
        cells = _CELLS[layout(column.type)](column.cells)
    return types.Column(column.presence, cells)


def batch_in(batch, plan) -> Batch:
    kinds = [plan.schema.columns[index].type for index in plan.reads]
    columns = [column_in(column, ty, batch.rows) for column, ty in zip(batch.columns, kinds)]
    return Batch(batch.rows, batch.change_types, columns)


def told(function):
    """An exception that crosses the boundary is a trap without its message: each becomes an answer instead."""

    @functools.wraps(function)
    def answer(*args):
        try:
            return function(*args)
        except ConfigError as error:
            raise Err(types.StageError_InvalidConfig(str(error))) from None
        except SchemaError as error:
            raise Err(types.StageError_UnsupportedSchema(str(error))) from None
        except RetryLater as error:
            raise Err(types.StageError_RetryLater(types.Retry(error.after_ms, error.reason))) from None
        except BugError as error:
            raise Err(types.StageError_Bug(str(error))) from None
        except MemoryError:
            raise Err(types.StageError_Bug("out of memory")) from None
        except Exception as error:
            raise Err(types.StageError_Bug(_where(error))) from None

    return answer


def _where(error: Exception) -> str:
    """The exception, and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""
    return f"{type(error).__name__}: {error}{at}"


class _Host:
    def write(self, level, message, fields):
        level = log.Level[level.upper()]
        if level.value >= log.threshold().value:
            log.write(level, message, fields)

    def count(self, name, labels, add):
        metrics.count(name, labels, add)

    def observe(self, name, labels, value):
        metrics.observe(name, labels, value)

    def hmac_sha256(self, key, column):
        try:
            hashed = crypto.hmac_sha256(key, column_out(column))
        except Err as error:
            if isinstance(error.value, crypto.Error_NotGranted):
                return None
            raise BugError(error.value.value) from None
        return column_in(hashed, DataType("binary"), column.rows)


host._host = _Host()
slot = _export.Slot(_export.registered.type)


class LifecycleMixin:
    """What both roles export."""

    lifecycle_types = None

    def describe(self):
        info = _export.registered
        return self.lifecycle_types.Info(
            info.name, info.version, info.description, info.config_schema, memory_mib=0, milliseconds=0, ext=[]
        )

    @told
    def configure(self, c):
        slot.configure(c.json)


@told
def transform_plan(transform, id, table):
    plan = slot.plan(id, schema_in(table))
    if plan is None:
        return None
    return transform.TransformPlan(
        reads=plan.reads,
        meta=[],
        effects=plan.effects,
        rename_table=plan.table,
        drops=plan.drops,
        renames=[transform.Rename(index, to) for index, to in plan.renames.items()],
        writes=[transform.Write(replaces, column_def_out(output)) for replaces, output in plan.writes],
        shapes=[],
        ext=[],
    )


@told
def transform_apply(transform, batch):
    plan = slot.planned(batch.schema)
    outcome = plan.run(batch_in(batch, plan))
    routing = None
    if outcome.routes is not None:
        names = list(dict.fromkeys(outcome.routes))
        at = {name: index for index, name in enumerate(names)}
        routing = transform.Routing(names, [at[name] for name in outcome.routes])
    return transform.Outcome(
        fates=bytes(outcome.fates) if outcome.fates is not None else None,
        columns=[column_out(column) if column is not None else None for column in outcome.columns],
        rejects=[
            types.Reject(r.row, r.reject.code, r.reject.reason, r.column, r.reject.retryable, [])
            for r in outcome.rejects
        ],
        emissions=[],
        routing=routing,
    )


@told
def validator_plan(validator, id, table):
    plan = slot.plan(id, schema_in(table))
    if plan is None:
        return None
    rules = [validator.Rule(rule.name, SEVERITIES[rule.severity], rule.columns, []) for rule in plan.rules]
    return validator.CheckPlan(plan.reads, [], rules, [])


@told
def validator_check(validator, batch):
    plan = slot.planned(batch.schema)
    return [validator.Violation(row, rule, message) for row, rule, message in plan.run(batch_in(batch, plan))]


__all__ = ["Ok", "LifecycleMixin", "transform_apply", "transform_plan", "validator_check", "validator_plan"]
