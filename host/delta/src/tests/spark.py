"""One Spark session: a JSON object a line in, a JSON object a line out. It ends with its standard input."""
import glob, json, os, sys, tempfile

from pyspark.sql import SparkSession, functions as F

# VACUUM and others print to standard output.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
folder = tempfile.TemporaryDirectory(prefix="mr-spark-")
settings = {
    "spark.jars": ",".join(glob.glob(sys.prefix + "/jars/*.jar")),
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "OFF",
    "spark.sql.session.timeZone": "UTC",
    "spark.local.dir": folder.name,
    "spark.sql.warehouse.dir": folder.name + "/warehouse",
    # What is read is small, and compiling for it costs more than it brings.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # With the defaults a VACUUM takes a minute.
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    # Retentions of no time are asked for on purpose.
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
}
os.chdir(folder.name)
builder = SparkSession.builder.master("local[2]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()


def shown(name, kind):
    column = F.col(f"`{name}`")
    if kind == "binary":
        column = F.hex(column)
    if kind == "timestamp":
        column = F.unix_micros(column)
    return F.coalesce(column.cast("string"), F.lit("NULL"))


def read(table, names, of_feed):
    reader = spark.read.format("delta")
    if of_feed:
        reader = reader.option("readChangeFeed", "true").option("startingVersion", 0)
    frame = reader.load(table)
    kinds = dict(frame.dtypes)
    return sorted(list(row) for row in frame.select([shown(name, kinds[name]) for name in names]).collect())


def run(sql):
    return [[str(value) for value in row] for row in spark.sql(sql).collect()]


for line in sys.stdin:
    question = json.loads(line)
    try:
        if "sql" in question:
            rows = run(question["sql"])
        else:
            rows = read(question["table"], question["names"], question.get("feed", False))
        answer = {"rows": rows}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), file=answers, flush=True)
spark.stop()
