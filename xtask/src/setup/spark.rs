//! Spark with Delta Lake, the reader that the others are measured by, into the cache folder.

use std::path::Path;

use super::servers::once;
use super::system;
use crate::Outcome;
use crate::command::Run;

/// The newest Spark that Delta Lake has jars for.
const SPARK: &str = "pyspark==4.2.0";
/// These two alone: what they depend on would put a second Hadoop, Parquet and Jackson beside PySpark's own.
const JARS: [&str; 2] = ["io.delta:delta-spark_4.2_2.13:4.4.0", "io.delta:delta-storage:4.4.0"];
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy";

/// `spark/bin/python` has PySpark, `spark/jars` what it loads beside. Apart from the other readers: it is as large as all
/// of them.
pub(crate) fn install(cache: &Path) -> Outcome {
    system::install(system::SPARK)?;
    once(&cache.join("spark"), &format!("{SPARK} {}", JARS.join(" ")), |folder| {
        Run::new("python3").args(["-m", "venv"]).arg(folder).must()?;
        let pip = Run::new(folder.join("bin/python")).args(["-m", "pip", "install", "--quiet", "--no-input"]);
        pip.args(["--disable-pip-version-check", SPARK]).must()?;
        let to = format!("-DoutputDirectory={}", folder.join("jars").display());
        let copy = |jar: &&str| {
            Run::new("mvn").args(["--quiet", "--batch-mode", COPY, &format!("-Dartifact={jar}"), &to]).must()
        };
        JARS.iter().try_for_each(copy)
    })
}
