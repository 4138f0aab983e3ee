//! `millrace dlq`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};
use millrace_core::Result;
use millrace_core::quarantine::WAITS;
use millrace_core::record::Record;
use millrace_delta::Letter;
use serde_json::{Value, json};

use super::table::{table, thousands};
use super::{Outcome, print, say, validate};
use crate::config;
use crate::config::secret::redact;
use crate::environment::TokioEnvironment;
use crate::wiring;

/// Looks at dead letters
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Ls(Args),
}

/// Lists the dead letters of a pipeline, and which keys wait behind them
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  millrace dlq ls shop.yaml --table public.orders\n  position    table          key  stage  code           reason\n  26736984/1  public.orders  [7]  rules  rule.violated  total is 5000\n  1 letter; 0 of them waiting behind another; 1 key whose later changes wait"
)]
pub(super) struct Args {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Of this source table alone
    #[arg(long)]
    table: Option<String>,
    /// Of this key alone, as the column `key` shows it
    #[arg(long)]
    key: Option<String>,
    /// How many to show, the newest
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn ls(args: &Args) -> Result<Outcome> {
    let loaded = match config::load(&args.file) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(validate::refused(&problems, args.json)),
    };
    let env = Arc::new(TokioEnvironment::new());
    let records = wiring::records(&loaded, env.clone())?;
    let record = Record::latest(records.as_ref()).await?;
    let letters = millrace_delta::letters(&wiring::letters_table(&loaded)?, &loaded.config.pipeline, env).await?;
    let is_wanted = |letter: &&Letter| {
        args.table.as_ref().is_none_or(|table| *letter.source.table == **table)
            && args.key.as_ref().is_none_or(|key| letter.keys.contains(key))
    };
    let wanted: Vec<&Letter> = letters.iter().filter(is_wanted).collect();
    let shown = &wanted[wanted.len().saturating_sub(args.limit)..];
    let holds = |letter: &Letter| wiring::has_quarantine(&loaded) && holds_back(letter, record.as_ref());
    let mut keys: Vec<_> =
        wanted.iter().filter(|l| holds(l)).flat_map(|l| l.keys.iter().map(|k| (&l.source, k))).collect();
    keys.sort();
    keys.dedup();
    let waiting = wanted.iter().filter(|l| l.code == WAITS).count();
    if args.json {
        let letters: Vec<Value> = shown.iter().map(|letter| as_json(letter, holds(letter))).collect();
        say(json!({ "letters": letters, "total": wanted.len(), "waiting": waiting, "keys_waiting": keys.len() }));
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = shown.iter().map(|letter| as_row(letter)).collect();
    if !rows.is_empty() {
        print(table(&["position", "table", "key", "stage", "code", "reason"], &rows));
    }
    let counted = |n: usize, what: &str| format!("{} {what}{}", thousands(n as u64), if n == 1 { "" } else { "s" });
    let hidden = wanted.len() - shown.len();
    let more = if hidden > 0 { format!(" ({} older not shown)", thousands(hidden as u64)) } else { String::new() };
    say(format_args!(
        "{}{more}; {} of them waiting behind another; {} whose later changes wait",
        counted(wanted.len(), "letter"),
        thousands(waiting as u64),
        counted(keys.len(), "key"),
    ));
    Ok(Outcome::Done)
}

/// Whether later changes of its key wait: not where its table has got a new snapshot since.
fn holds_back(letter: &Letter, record: Option<&Record>) -> bool {
    let snapshot = record.and_then(|record| record.snapshots.get(&letter.source));
    !letter.keys.is_empty() && snapshot.is_none_or(|snapshot| letter.order.commit() >= snapshot.commit())
}

/// Cells wider than this push the others off the screen.
const WIDEST: usize = 80;

fn as_row(letter: &Letter) -> Vec<String> {
    let short = |text: &str| {
        let text = redact(text).replace('\n', " ");
        let mut cut: String = text.chars().take(WIDEST).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        cut
    };
    let key = letter.keys.join(" ");
    let cells = [&letter.order.to_string(), &*letter.source.table, &*key, &letter.stage, &letter.code, &letter.reason];
    cells.iter().map(|cell| short(cell)).collect()
}

fn as_json(letter: &Letter, holds_back: bool) -> Value {
    let Letter { source, order, table, stage, code, reason, keys } = letter;
    json!({
        "position": order.to_sortable(), "source": source.to_string(), "table": table, "stage": stage, "code": code,
        "reason": reason, "keys": keys, "holds_back": holds_back,
    })
}
