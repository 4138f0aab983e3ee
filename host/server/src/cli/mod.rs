//! The command line: one file a verb.
//!
//! Every verb answers `--help` with an example, prints a table for people and `--json` for programs, and exits with 0
//! (done), 1 (failed) or 2 (wrong usage). Data goes to standard output; problems and logs go to standard error.

mod dlq;
mod generate;
mod maintain;
mod plugin;
mod plugin_bench;
mod plugin_new;
mod plugin_test;
mod report;
mod resnapshot;
mod run;
mod schema;
mod table;
mod test;
mod validate;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millrace_core::{Error, Result};
use serde_json::{Value, json};

use crate::config::problem::Problem;
use crate::config::secret::redact;

/// Moves change events through WebAssembly plugins into Delta Lake, exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "millrace",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  millrace run shop.yaml\n\nExit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Test(test::Args),
    Validate(validate::Args),
    #[command(subcommand)]
    Plugin(plugin::Verb),
    #[command(subcommand)]
    Dlq(dlq::Verb),
    Resnapshot(resnapshot::Args),
    Maintain(maintain::Args),
    Schema(schema::Args),
    Generate(generate::Args),
}

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It has said why.
    Failed,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two crates of ours bring TLS; without a word rustls does not choose for them.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("warning: TLS was set up before");
    }
    let (runtime, json) = match &cli.verb {
        Verb::Run(args) => (Threads::Many, args.json),
        Verb::Test(args) => (Threads::One, args.json),
        Verb::Validate(args) => (Threads::One, args.json),
        Verb::Plugin(plugin::Verb::Inspect(args)) => (Threads::One, args.json),
        Verb::Plugin(plugin::Verb::Test(args)) => (Threads::One, args.json),
        Verb::Plugin(plugin::Verb::Bench(args)) => (Threads::One, args.json),
        Verb::Dlq(dlq::Verb::Ls(args)) => (Threads::Many, args.json),
        Verb::Resnapshot(_) => (Threads::Many, false),
        Verb::Maintain(args) => (Threads::Many, args.json),
        Verb::Plugin(plugin::Verb::Build(_) | plugin::Verb::New(_)) | Verb::Schema(_) | Verb::Generate(_) => {
            (Threads::One, false)
        }
    };
    let outcome = runtime.build().and_then(|runtime| runtime.block_on(cli.verb.perform()));
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Err(error) => {
            say_error(&error, json);
            ExitCode::from(1)
        }
    }
}

impl Verb {
    async fn perform(self) -> Result<Outcome> {
        match self {
            Verb::Run(args) => run::perform(args).await,
            Verb::Test(args) => test::perform(&args).await,
            Verb::Validate(args) => validate::perform(&args).await,
            Verb::Plugin(plugin::Verb::Inspect(args)) => plugin::inspect(&args).await,
            Verb::Plugin(plugin::Verb::New(args)) => plugin_new::perform(&args),
            Verb::Plugin(plugin::Verb::Test(args)) => plugin_test::perform(&args).await,
            Verb::Plugin(plugin::Verb::Bench(args)) => plugin_bench::perform(&args).await,
            Verb::Plugin(plugin::Verb::Build(args)) => plugin::build(&args),
            Verb::Dlq(dlq::Verb::Ls(args)) => dlq::ls(&args).await,
            Verb::Resnapshot(args) => resnapshot::perform(&args).await,
            Verb::Maintain(args) => maintain::perform(&args).await,
            Verb::Schema(args) => schema::perform(&args),
            Verb::Generate(args) => generate::perform(&args),
        }
    }
}

#[derive(Clone, Copy)]
enum Threads {
    /// One a core: decoding, stages and commits of a pipeline run side by side.
    Many,
    One,
}

/// Threads for blocking calls (local files). 32: many more than disks serve at once, and each costs a stack.
const BLOCKING_THREADS: usize = 32;

impl Threads {
    fn build(self) -> Result<tokio::runtime::Runtime> {
        let mut builder = match self {
            Threads::Many => tokio::runtime::Builder::new_multi_thread(),
            Threads::One => tokio::runtime::Builder::new_current_thread(),
        };
        let built = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build();
        built.map_err(|e| {
            Error::config("host.threads", format!("no threads: {e}")).hint("raise the limit of processes (ulimit -u)")
        })
    }
}

/// `error[code]: what is wrong`, and what to do.
fn shown(error: &Error) -> String {
    let mut text = format!("error[{}]: {}", error.code, error.message);
    if let Some(hint) = &error.hint {
        text += &format!("\n  hint: {hint}");
    }
    redact(&text).into_owned()
}

fn error_json(error: &Error) -> Value {
    let hint = error.hint.as_deref().map(redact);
    json!({ "code": error.code, "kind": error.kind.name(), "message": redact(&error.message), "hint": hint })
}

/// A line on standard output. A reader that has enough (`| head`) ends the program quietly.
fn say(line: impl std::fmt::Display) {
    print(format_args!("{line}\n"));
}

fn print(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = write!(out, "{text}").and_then(|()| out.flush()) {
        let is_closed = error.kind() == std::io::ErrorKind::BrokenPipe;
        if !is_closed {
            eprintln!("standard output: {error}");
        }
        std::process::exit(if is_closed { 0 } else { 1 });
    }
}

fn say_error(error: &Error, json: bool) {
    if json {
        say(json!({ "error": error_json(error) }));
    }
    eprintln!("{}", shown(error));
}

/// Every problem on a line of its own; with `json` as one array on standard output.
fn say_problems(problems: &[Problem], json: bool) {
    if json {
        say(json!({ "problems": problems }));
        return;
    }
    for problem in problems {
        eprintln!("{}", redact(&problem.to_string()));
    }
}
