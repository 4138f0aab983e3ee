"""What a plugin is told of a table: the granted columns, in table order."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

_PLAIN = (
    "boolean", "int8", "int16", "int32", "int64", "uint64", "float32", "float64", "text", "binary", "uuid", "date", "time",
    "timestamp", "timestamp-tz", "json",
)
#: More digits than a 64-bit integer holds travel as text.
_DIGITS_64 = 18


@dataclass(frozen=True)
class DataType:
    """The type of a column: ``DataType("int64")``, ``DataType("decimal", 10, 2)``, ``DataType("other", name="interval")``.

    Precision 0 is an unconstrained decimal. ``DataType.parse("decimal(10,2)")`` reads the contract's names.
    """

    kind: str
    precision: int = 0
    scale: int = 0
    name: str = ""

    @staticmethod
    def parse(text: DataType | str) -> DataType:
        if isinstance(text, DataType):
            return text
        if text in _PLAIN:
            return DataType(text)
        if text == "decimal":
            return DataType("decimal")
        if text.startswith("decimal(") and text.endswith(")"):
            precision, _, scale = text[8:-1].partition(",")
            return DataType("decimal", int(precision), int(scale or 0))
        if text.startswith("other(") and text.endswith(")"):
            return DataType("other", name=text[6:-1])
        raise ValueError(f"no type of a column: {text!r}")

    @property
    def is_decimal64(self) -> bool:
        return self.kind == "decimal" and 1 <= self.precision <= _DIGITS_64

    def __str__(self) -> str:
        if self.kind == "decimal":
            return f"decimal({self.precision},{self.scale})" if self.precision else "decimal"
        return f"other({self.name})" if self.kind == "other" else self.kind


class Images(IntEnum):
    """Before-images that updates and deletes of a table carry."""

    NONE = 0
    KEY = 1
    FULL = 2


@dataclass
class ColumnDef:
    """One column."""

    name: str
    type: DataType
    nullable: bool = True
    #: part of the row's identity
    key: bool = False
    #: the native name, e.g. "numeric(10,2)"; empty for a plugin's own column
    source_type: str = ""
    #: what a later contract may add: passed on as it is
    ext: list = field(default_factory=list)

    def __post_init__(self):
        self.type = DataType.parse(self.type)


@dataclass
class Schema:
    """A table at one schema version, as far as the pipeline granted it to the plugin."""

    table: str
    columns: list[ColumnDef]
    namespace: str = "public"
    connector: str = ""
    images: Images = Images.FULL

    def __contains__(self, name: str) -> bool:
        return any(column.name == name for column in self.columns)

    def __getitem__(self, name: str) -> ColumnDef:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def index(self, name: str) -> int:
        for index, column in enumerate(self.columns):
            if column.name == name:
                return index
        raise KeyError(name)

    @property
    def full_name(self) -> str:
        return f"{self.namespace}.{self.table}" if self.namespace else self.table
