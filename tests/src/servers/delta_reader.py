"""Answers questions about Delta tables: a JSON object a line in, a JSON object a line out."""
import datetime, decimal, json, math, os, sys, uuid

import duckdb, duckdb_extension_delta


def plain(value):
    """What JSON can hold, without loss."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta, uuid.UUID)):
        return str(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def objects(names, rows):
    return [dict(zip(names, map(plain, row))) for row in rows]


def with_duckdb(question):
    cursor = duck.execute(question["sql"])
    return objects([column[0] for column in cursor.description], cursor.fetchall())


def with_deltalake(question):
    import deltalake
    table = deltalake.DeltaTable(question["uri"], storage_options=question["storage"])
    found = deltalake.QueryBuilder().register("t", table).execute(question["sql"]).read_all()
    rows = found.to_struct_array().to_pylist() if hasattr(found, "to_struct_array") else found.to_pylist()
    return [{name: plain(value) for name, value in row.items()} for row in rows]


def write_sample(question):
    import deltalake, arro3.core as arrow
    rows = arrow.Table.from_pydict({
        "id": arrow.Array([1, 2], arrow.DataType.int64()), "name": arrow.Array(["a", None], arrow.DataType.utf8())})
    deltalake.write_deltalake(question["uri"], rows, storage_options=question["storage"])
    return []


ENGINES = {"duckdb": with_duckdb, "deltalake": with_deltalake, "sample": write_sample}
folder = os.path.join(os.path.dirname(duckdb_extension_delta.__file__), "extensions", "v" + duckdb.__version__)
duck = duckdb.connect()
duck.execute("SET enable_progress_bar=false")  # it goes to standard output, among the answers
duck.execute(f"LOAD '{folder}/delta.duckdb_extension'")
duck.execute("SET TimeZone='UTC'")
for line in sys.stdin:
    question = json.loads(line)
    try:
        answer = {"rows": ENGINES[question["engine"]](question)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
