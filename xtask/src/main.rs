//! All automation of the project: `cargo xtask NAME`. Needs nothing but cargo to start with.

mod bench;
mod check;
mod command;
mod conformance;
mod demo;
mod kits;
mod paths;
mod plugins;
mod setup;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

/// What a step answers; the text says what is wrong and what to do.
pub(crate) type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "\
cargo xtask COMMAND

  setup [demo|test|guests|all]   install what the demo, the tests or `conformance` need, and say what it does (default: all)
  demo [--json]              run the main job on the embedded default, swap its plugin meanwhile, reconcile the counts
  test [FILTER]              the tests of all workspaces, with real servers
  check [STEP...]            format, tidy, the model of the protocol, lints, documentation, licences
  conformance [LANGUAGE...]  build the conformance kit's plugins with every SDK and run the kit: a line for each language
  plugins                    build plugins/ as components into plugins/dist/
  bench [NAME...] [--json FILE]   benches, as a table with medians and an A/A control
  soak NAME                  what is too long for `test` (kills, simulator, swaps, load, upsert, upsert-kills,
                             upsert-simulator), with a dated result file
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["setup"] => setup::run(setup::Scope::All),
        ["setup", scope] => setup::Scope::parse(scope).and_then(setup::run),
        ["demo", rest @ ..] => demo::run(rest),
        ["test", rest @ ..] => test::run(rest),
        ["check", only @ ..] => check::run(only),
        ["conformance", only @ ..] => conformance::run(only),
        ["plugins"] => plugins::build_all().map(|_| ()),
        ["bench", rest @ ..] => bench::run(rest),
        ["soak", name] => soak::run(name),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
