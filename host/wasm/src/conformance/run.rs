//! One case: run cut in several ways, compared with itself and with what it expects.

use std::ops::Range;

use millrace_core::Error;
use millrace_core::batch::ChangeBatch;
use millrace_core::json;
use millrace_core::stage::{OnFailure, Stage, StageOutput, StageSpec};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::case::{Case, Expect, Given};
use super::rows;
use crate::log::Tap;
use crate::runtime::WasmRuntime;
use crate::slice::changes;
use crate::stage::WasmStage;

/// Changes a batch.
const CUTS: [usize; 3] = [1, 7, 1_000];
/// More batches than this are not each given a fresh instance, nor a batch without rows before them: CPython takes a millisecond to
/// start.
const FRESH: usize = 1_000;
/// A run of more batches is left out: 100,000 rows cut at 7 and at 1,000 changes say as much as single rows.
const MOST: usize = 20_000;

pub(super) struct Kit<'a> {
    pub(super) runtime: WasmRuntime,
    pub(super) component: &'a [u8],
    pub(super) digest: String,
    pub(super) tap: Tap,
}

/// All that came out of one run, in a form that does not depend on how rows were cut.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Seen {
    rows: Vec<Json>,
    rejects: Vec<Json>,
    dropped: u64,
    log: Vec<String>,
    error: Option<(String, String)>,
    reads: Vec<String>,
    effects: Vec<String>,
    output: Vec<String>,
}

impl Seen {
    fn failed(error: Error) -> Seen {
        Seen { error: Some((error.code.to_string(), error.message)), ..Seen::default() }
    }
}

impl Kit<'_> {
    /// What is wrong, if something is.
    pub(super) async fn run(&self, case: &Case) -> Result<(), String> {
        let batches = batches(case)?;
        self.logged();
        let mut stage = match self.stage(case).await {
            Ok(stage) => stage,
            Err(error) => return compare(&case.expect, &Seen::failed(error)),
        };
        let mut first: Option<(String, Vec<u8>)> = None;
        let mut cut_before = usize::MAX;
        for cut in CUTS {
            let parts: Vec<ChangeBatch> = batches.iter().flat_map(|batch| cut_at(batch, cut)).collect();
            // As many batches as at the cut before are the same batches, and each run starts on a fresh instance.
            let same = parts.len() == std::mem::replace(&mut cut_before, parts.len());
            let runs = [(false, !same && parts.len() <= MOST), (true, !same && (2..=FRESH).contains(&parts.len()))];
            for (fresh, _) in runs.into_iter().filter(|(_, worth)| *worth) {
                let how = format!("cut at {cut}{}", if fresh { ", each batch on a fresh instance" } else { "" });
                let seen = self.once(case, &mut stage, &parts, fresh).await;
                compare(&case.expect, &seen).map_err(|wrong| format!("{how}: {wrong}"))?;
                // How far a run came before it failed is the cut's.
                let bytes = match &seen.error {
                    Some((code, _)) => code.clone().into_bytes(),
                    None => serde_json::to_vec(&seen).map_err(|e| e.to_string())?,
                };
                match &first {
                    None => first = Some((how, bytes)),
                    Some((_, same)) if *same == bytes => {}
                    Some((other, same)) => return Err(differ(other, same, &how, &bytes)),
                }
            }
        }
        Ok(())
    }

    async fn stage(&self, case: &Case) -> Result<WasmStage, Error> {
        let limits = if case.limits.is_null() { String::new() } else { case.limits.to_string() };
        let spec = StageSpec {
            name: "conformance".to_string(),
            digest: self.digest.clone(),
            config: case.config.to_string(),
            grants: case.grant.clone(),
            tables: Vec::new(),
            on_failure: OnFailure::DeadLetter,
            limits,
        };
        self.runtime.stage(&spec, self.component).await
    }

    async fn once(&self, case: &Case, stage: &mut WasmStage, parts: &[ChangeBatch], fresh: bool) -> Seen {
        self.logged();
        let mut seen = Seen::default();
        if let Err(error) = pass(stage, parts, fresh, &mut seen).await {
            seen.error = Seen::failed(error).error;
        }
        let key = |row: &Json| (row[0].as_str().unwrap_or_default().to_string(), row[2].as_i64());
        seen.rows.sort_by_cached_key(key);
        // What a panic leaves in the log, and how often, is the language's and the bisection's.
        seen.log = self.logged();
        if case.expect.log.is_none() {
            seen.log.clear();
        }
        seen
    }

    /// The lines logged since it was asked last.
    fn logged(&self) -> Vec<String> {
        let mut tap = self.tap.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tap.drain(..).map(|(level, message)| format!("{level:?} {message}").to_lowercase()).collect()
    }
}

async fn pass(stage: &mut WasmStage, parts: &[ChangeBatch], fresh: bool, seen: &mut Seen) -> Result<(), Error> {
    stage.renew();
    for (index, part) in parts.iter().enumerate() {
        if fresh {
            stage.renew();
        }
        if let Some(plan) = stage.plan(&part.schema).await? {
            seen.reads = plan.reads;
            seen.effects = plan.effects;
            seen.effects.sort();
            seen.output = plan.output.columns.iter().map(rows::words).collect();
        }
        if index < FRESH {
            let nothing = stage.apply_nothing(part).await?;
            if nothing.batches.iter().any(|batch| !batch.is_empty()) || !nothing.rejects.is_empty() {
                return Err(Error::bug("a batch without rows was answered with rows"));
            }
        }
        collect(&stage.apply(part).await?, part, seen);
    }
    Ok(())
}

fn batches(case: &Case) -> Result<Vec<ChangeBatch>, String> {
    let mut given = case.given.clone();
    if case.repeat > 0 {
        given = case.given.iter().cycle().take(case.repeat).cloned().collect();
        given.iter_mut().enumerate().for_each(|(id, change)| renumber(change, id));
    }
    let mut batches = Vec::new();
    let mut first = 1;
    let all = std::iter::once((&case.table, &given)).chain(case.then.iter().map(|later| (&later.table, &later.given)));
    for (table, given) in all {
        batches.extend(rows::batch(&rows::schema(table)?, given, first)?);
        first += given.len();
    }
    Ok(batches)
}

fn renumber(change: &mut Given, id: usize) {
    let rows = match change {
        Given::Insert(row) | Given::Delete(row) => vec![row],
        Given::Update { before, after } => before.iter_mut().chain([after]).collect(),
    };
    for row in rows {
        row.insert("id".to_string(), id.into());
    }
}

/// The batch in parts of so many changes.
fn cut_at(batch: &ChangeBatch, size: usize) -> Vec<ChangeBatch> {
    let ranges: Vec<Range<usize>> = changes(batch, 0..batch.rows()).collect();
    let part = |ranges: &[Range<usize>]| {
        let (from, to) = (ranges[0].start, ranges[ranges.len() - 1].end);
        batch.slice(from, to - from)
    };
    ranges.chunks(size).map(part).collect()
}

fn collect(output: &StageOutput, input: &ChangeBatch, seen: &mut Seen) {
    for batch in &output.batches {
        for row in 0..batch.rows() {
            let cells = Json::Object(json::row(batch, row, |_| false));
            let change = batch.order(row).0[1];
            seen.rows.push(json!([batch.schema.name.to_string(), batch.change_types[row].name(), change, cells]));
        }
    }
    for reject in &output.rejects {
        let change = input.origin.orders[reject.change as usize].0[1];
        seen.rejects.push(json!([change, &*reject.code, reject.column.as_deref(), reject.reason]));
    }
    seen.dropped += output.dropped;
}

fn compare(expect: &Expect, seen: &Seen) -> Result<(), String> {
    let says = |text: &str| expect.says.as_deref().is_none_or(|says| text.contains(says));
    match (&expect.error, &seen.error) {
        (None, Some((code, message))) => return Err(format!("{code}: {message}")),
        (Some(expected), None) => return Err(format!("no error, but {expected} is expected")),
        (Some(expected), Some((code, message))) if !expected.split('|').any(|e| e == code) || !says(message) => {
            return Err(format!("{code}: {message}; expected {expected}, saying {:?}", expect.says));
        }
        (Some(_), Some(_)) => return Ok(()),
        (None, None) => {}
    }
    let sorted = |list: &Vec<String>| {
        let mut list = list.clone();
        list.sort();
        list
    };
    same("rows", expect.rows.as_ref(), &seen.rows)?;
    same("count of rows", expect.count, seen.rows.len())?;
    same("dropped row images", expect.dropped, seen.dropped)?;
    same("log", expect.log.as_ref(), &seen.log)?;
    same("columns read", expect.reads.as_ref(), &seen.reads)?;
    same("effects", expect.effects.as_ref().map(sorted), seen.effects.clone())?;
    same("columns of the output", expect.output.as_ref(), &seen.output)?;
    let Some(rejects) = &expect.rejects else { return Ok(()) };
    let fits = |(e, s): (&Json, &Json)| {
        let code = s[1].as_str().unwrap_or_default();
        let one_of = e[1].as_str().unwrap_or_default().split('|').any(|e| e == code);
        e[0] == s[0] && one_of && (e[2].is_null() || e[2] == s[2]) && says(s[3].as_str().unwrap_or_default())
    };
    match rejects.len() == seen.rejects.len() && rejects.iter().zip(&seen.rejects).all(fits) {
        true => Ok(()),
        false => Err(format!("rejects: expected {}, got {}", json!(rejects), json!(seen.rejects))),
    }
}

fn same<T: PartialEq + Serialize>(what: &str, expected: Option<T>, got: T) -> Result<(), String> {
    match expected {
        Some(expected) if expected != got => Err(format!("{what}: expected\n{}\ngot\n{}", json!(expected), json!(got))),
        _ => Ok(()),
    }
}

/// Two runs that should be the same, from where they are not.
fn differ(one: &str, first: &[u8], other: &str, second: &[u8]) -> String {
    let at = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(60).min(bytes.len())..(at + 120).min(bytes.len())];
        String::from_utf8_lossy(part).into_owned()
    };
    format!("{one} and {other} differ: … {} … against … {} …", around(first), around(second))
}
