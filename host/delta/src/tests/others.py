"""DuckDB, delta-rs and polars: a JSON object a line in, a JSON object a line out. It ends with its standard input."""
import glob, json, sys, sysconfig

import duckdb, polars
from deltalake import DeltaTable, QueryBuilder

site = sysconfig.get_paths()["purelib"]
(extension,) = glob.glob(site + "/duckdb_extension_delta/extensions/*/delta.duckdb_extension")
duck = duckdb.connect()
duck.execute("set timezone = 'UTC'")
duck.execute("set enable_progress_bar = false")
duck.execute(f"load '{extension}'")


def types(table):
    return dict(row[:2] for row in duck.execute(f"describe select * from delta_scan('{table}')").fetchall())


def duck_texts(kinds, names):
    def shown(name):
        if kinds[name] == "BLOB": return f'coalesce(hex("{name}"), \'NULL\')'
        if kinds[name].startswith("TIMESTAMP"): return f'coalesce(epoch_us("{name}")::varchar, \'NULL\')'
        return f'coalesce("{name}"::varchar, \'NULL\')'

    return map(shown, names)


def with_duckdb(table, names):
    columns = ", ".join(duck_texts(types(table), names))
    rows = duck.execute(f"select {columns} from delta_scan('{table}')").fetchall()
    count = duck.execute(f"select count(*) from delta_scan('{table}')").fetchone()[0]
    assert count == len(rows), f"DuckDB counts {count} rows of {table} and reads {len(rows)}"
    return rows


def with_deltalake(table, names):
    kinds = types(table)

    def shown(name):
        if kinds[name] == "BLOB": return f'coalesce(upper(encode("{name}", \'hex\')), \'NULL\')'
        if kinds[name].startswith("TIMESTAMP"): return f'coalesce(cast(cast("{name}" as bigint) as varchar), \'NULL\')'
        return f'coalesce(cast("{name}" as varchar), \'NULL\')'

    texts = ", ".join(f"{shown(name)} c{place}" for place, name in enumerate(names))
    found = QueryBuilder().register("t", DeltaTable(table)).execute(f"select {texts} from t").read_all()
    return zip(*(found[f"c{place}"].to_pylist() for place in range(len(names))))


def with_polars(table, names):
    kinds = types(table)

    def shown(name):
        column = polars.col(name)
        if kinds[name] == "BLOB": column = column.bin.encode("hex").str.to_uppercase()
        if kinds[name].startswith("TIMESTAMP"): column = column.dt.epoch("us")
        return column.cast(polars.String).fill_null("NULL")

    return polars.read_delta(table).select([shown(name) for name in names]).rows()


def feed_of_deltalake(table, names):
    duck.register("feed", DeltaTable(table).load_cdf(starting_version=0).read_all())
    kinds = dict(row[:2] for row in duck.execute("describe feed").fetchall())
    return duck.execute(f"select {', '.join(duck_texts(kinds, names))} from feed").fetchall()


READERS = {"DuckDB": with_duckdb, "delta-rs": with_deltalake, "polars": with_polars, "feed of delta-rs": feed_of_deltalake}
for line in sys.stdin:
    question = json.loads(line)
    try:
        answer = {"rows": sorted(map(list, READERS[question["reader"]](question["table"], question["names"])))}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
