"""Write Millrace plugins in Python: transforms and validators of change events, as WebAssembly components."""

from . import host
from ._columns import Column, scaled
from ._errors import BugError, ConfigError, Reject, RetryLater, SchemaError
from ._export import plugin
from ._schema import ColumnDef, DataType, Images, Schema
from ._transform import Row, Transform, TransformPlan
from ._validator import CheckPlan, Validator
from ._values import (
    INFINITY,
    NEG_INFINITY,
    NOT_SENT,
    Date,
    Json,
    Time,
    Timestamp,
    TimestampTz,
    show,
)

__all__ = [
    "INFINITY", "NEG_INFINITY", "NOT_SENT", "BugError", "CheckPlan", "Column", "ColumnDef", "ConfigError", "DataType", "Date", "Images",
    "Json", "Reject", "RetryLater", "Row", "Schema", "SchemaError", "Time", "Timestamp", "TimestampTz", "Transform",
    "TransformPlan", "Validator", "host", "plugin", "scaled", "show",
]
