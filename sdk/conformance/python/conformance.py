"""The conformance kit's transform, by the Python SDK. ../README.md says what each operation does."""

import millrace
from millrace import ColumnDef, ConfigError, DataType, Reject, RetryLater, SchemaError

SCHEMA = {"type": "object", "required": ["op"], "properties": {"op": {"type": "string"}}}


@millrace.plugin("conformance", "0.1.0", "The conformance kit's plugin, by the Python SDK", SCHEMA)
class Kit(millrace.Transform):
    def configure(self, config):
        self.config = config
        self.op = getattr(self, config["op"].replace("-", "_") + "_", None)
        if self.op is None:
            raise ConfigError(f"there is no operation {config['op']}")
        if config["op"] == "refuse-config":
            raise ConfigError("the kit refuses this config")
        if config["op"] == "throw-in-configure":
            raise RuntimeError("thrown on purpose")

    def plan(self, schema, plan):
        self.op(schema, plan, **{name: value for name, value in self.config.items() if name != "op"})

    def pass_(self, schema, plan):
        pass

    refuse_config_ = throw_in_configure_ = pass_

    def refuse_plan_(self, schema, plan):
        raise SchemaError("the kit refuses this table")

    def throw_in_plan_(self, schema, plan):
        raise RuntimeError("thrown on purpose")

    def copy_(self, schema, plan):
        names = data(schema)

        def each(row):
            for name in names:
                row[name] = row[name]

        plan.each_row(each, read=names, write=names)

    def copy_columns_(self, schema, plan):
        for name in data(schema):
            plan.map(name, lambda value: value)

    def show_(self, schema, plan):
        names = data(schema)
        plan.add_column(ColumnDef("shown", "text"))

        def each(row):
            row["shown"] = ";".join(millrace.show(row[name]) for name in names)

        plan.each_row(each, read=names)

    def kinds_(self, schema, plan):
        plan.add_column(ColumnDef("kind", "text"))

        def each(row):
            row["kind"] = row.change_type

        plan.each_row(each)

    def drop_(self, schema, plan, column):
        plan.drop_column(column)

    def rename_(self, schema, plan, column, to):
        plan.rename(column, to)

    def rename_table_(self, schema, plan, to):
        plan.rename_table(to)

    def add_(self, schema, plan, name, type, value):
        plan.add_column(ColumnDef(name, DataType.parse(type)))

        def each(row):
            row[name] = value

        plan.each_row(each)

    def cast_(self, schema, plan, column, to):
        plan.convert(column, to, millrace.show)

    def cents_(self, schema, plan, column):
        plan.convert(column, "int64", cents, read=str)

    def increase_(self, schema, plan, column):
        def each(row):
            row[column] = row[column] if row[column] is None else row[column] + 1

        plan.each_row(each, read=[column], write=[column])

    def filter_(self, schema, plan, column, **config):
        plan.filter(column, lambda text: text != config["not"], read=str)

    def filter_null_(self, schema, plan, column):
        plan.filter_cells(column, lambda cell: cell is not None)

    def filter_rows_(self, schema, plan, column, **config):
        plan.may_drop()
        plan.each_row(lambda row: row.drop() if row[column] == config["not"] else None, read=[column])

    def route_(self, schema, plan, column):
        plan.route(column, lambda text: f"to_{text}", read=str)

    def route_rows_(self, schema, plan, column):
        plan.may_route()
        plan.each_row(lambda row: row.route(f"to_{row[column]}") if isinstance(row[column], str) else None, read=[column])

    def reject_rows_(self, schema, plan, column, value):
        def each(row):
            if row[column] == value:
                raise Reject("kit.refused", "not this one")

        plan.each_row(each, read=[column])

    def hash_(self, schema, plan, column, key):
        plan.map_column(column, "text", lambda cells: millrace.host.hmac_sha256(key, cells).hex())

    def log_(self, schema, plan, column):
        plan.each_row(lambda row: millrace.host.log("info", f"saw {row[column]}"), read=[column])

    def fail_(self, schema, plan, column):
        plan.each_row(lambda row: fail(row[column]), read=[column])

    def retry_(self, schema, plan):
        def later(_):
            raise RetryLater(5, "not now")

        plan.inspect("id", later)


def data(schema):
    """The columns beside the key."""
    return [column.name for column in schema.columns if column.name != "id"]


def cents(text):
    value = millrace.scaled(text, 2)
    if value is None:
        raise Reject("decimal.parse", f"{text!r} is no amount")
    return value


def fail(how):
    if how == "throw":
        raise RuntimeError("thrown on purpose")
    while how == "spin":
        pass
    if how == "memory":
        held = []
        while True:
            held.append(bytearray(1 << 20))
    if how == "recursion":
        fail(how)
