//! `millrace plugin new`: a plugin to start from, with a test, in one of the languages that have an SDK.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use millrace_core::{Error, Result};

use super::{Outcome, say};
use crate::config::reference::io_reason;

/// Names the folder `sdk` of a clone of Millrace.
const SDK_VARIABLE: &str = "MILLRACE_SDK";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    Rust,
    Python,
    Javascript,
    Go,
    C,
}

/// Path and text of a file.
type Template = (&'static str, &'static str);

macro_rules! templates {
    ($language:literal: $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../../../../sdk/templates/", $language, "/", $file, ".in")))),+]
    };
}

impl Language {
    fn templates(self) -> &'static [Template] {
        match self {
            Language::Rust => templates!("rust": "Cargo.toml", "src/lib.rs", "README.md"),
            Language::Python => templates!("python": "plugin.py", "test_plugin.py", "requirements.txt", "README.md"),
            Language::Javascript => {
                templates!("javascript": "package.json", "plugin.js", "plugin.test.js", "README.md")
            }
            Language::Go => templates!("go": "go.mod", "plugin.go", "plugin_test.go", "README.md"),
            Language::C => templates!("c": "Makefile", "plugin.c", "test.c", "README.md"),
        }
    }
}

/// Writes a new plugin into a folder of its name: a transform with a test, and a README that says how to build it
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  millrace plugin new --lang python --sdk ./millrace/sdk order-filter")]
pub(super) struct Args {
    /// The language
    #[arg(long, value_name = "LANGUAGE")]
    lang: Language,
    /// The folder `sdk` of a clone of Millrace [default: that of MILLRACE_SDK, else ./sdk]
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
    /// The plugin's name, and the folder's
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) fn perform(args: &Args) -> Result<Outcome> {
    check_name(&args.name)?;
    let sdk = sdk(args.sdk.as_deref())?;
    let folder = PathBuf::from(&args.name);
    if folder.exists() {
        return Err(Error::config("plugin.exists", format!("{} is there already", folder.display()))
            .hint("give another name, or go to another folder"));
    }
    for (file, text) in args.lang.templates() {
        let text = text
            .replace("{{name}}", &args.name)
            .replace("{{module}}", &args.name.replace('-', "_"))
            .replace("{{sdk}}", &sdk.display().to_string());
        write(&folder.join(file), &text)?;
    }
    say(format_args!("{}: see README.md in it for how to test and build it", folder.display()));
    Ok(Outcome::Done)
}

/// What is a name in Cargo, npm and a pipeline file alike.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) && !name.ends_with('-') {
        return Ok(());
    }
    Err(Error::config("plugin.name", format!("`{name}` is no name of a plugin"))
        .hint("use small letters, digits and dashes, such as order-filter"))
}

fn sdk(given: Option<&Path>) -> Result<PathBuf> {
    let named = given.map(Path::to_owned).or_else(|| std::env::var_os(SDK_VARIABLE).map(PathBuf::from));
    let folder = named.unwrap_or_else(|| PathBuf::from("sdk"));
    match folder.canonicalize() {
        Ok(found) if found.join("conformance").is_dir() => Ok(found),
        _ => Err(Error::config("plugin.sdk_not_found", format!("{} holds no SDKs", folder.display()))
            .hint(format!("give the folder `sdk` of a clone of Millrace with --sdk, or in {SDK_VARIABLE}"))),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).and_then(|()| fs::write(path, text)).map_err(|e| {
        Error::config("plugin.unwritable", format!("{}: {}", path.display(), io_reason(&e)))
            .hint("go to a folder that this user may write")
    })
}
