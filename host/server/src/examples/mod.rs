//! `millrace test`: the examples of a pipeline file, run through the real plugins.
//!
//! The given changes of each table form one batch, as in a cut. What comes out is compared table by table, in order;
//! across tables there is no order.

pub mod cases;
mod compare;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::batch::{ChangeBatch, ChangeType, Reject};
use millrace_core::error::Kind;
use millrace_core::json;
use millrace_core::stage::{OnFailure, Stage, StageOutput};
use millrace_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::model::{TestCase, TestReject};

pub use compare::Difference;
pub use rows::column_type;

/// One change as it comes out of the stages, or as it is expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    Insert(Map<String, Value>),
    Update {
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Map<String, Value>>,
        after: Map<String, Value>,
    },
    Delete(Map<String, Value>),
    Reject(TestReject),
}

/// What comes out, by table.
pub type Tables = BTreeMap<String, Vec<Seen>>;

/// How one example went.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub name: String,
    pub passed: bool,
    /// Row images that the stages dropped.
    pub dropped: u64,
    pub differences: Vec<Difference>,
    /// The example could not be run.
    pub error: Option<String>,
}

/// What came out of the stages.
pub(crate) struct Came {
    tables: Tables,
    /// With the table's name where it was refused.
    rejects: Vec<(String, Reject)>,
    dropped: u64,
}

impl Report {
    fn passed(name: &str) -> Self {
        Self { name: name.to_owned(), passed: true, dropped: 0, differences: Vec::new(), error: None }
    }
}

/// Runs one example through stages made for it.
pub async fn run(case: &TestCase, stages: &mut [Box<dyn Stage>]) -> Report {
    judged(case, outcome(case, stages).await)
}

/// What came out against what the example expects.
fn judged(case: &TestCase, came: Result<Came>) -> Report {
    let report = Report::passed(&case.name);
    let came = match came {
        Ok(came) => came,
        Err(error) => return Report { passed: false, error: Some(error.to_string()), ..report },
    };
    let (mut tables, dropped) = (came.tables, came.dropped);
    for (table, reject) in came.rejects {
        let seen = TestReject { code: reject.code.to_string(), column: reject.column.map(|c| c.to_string()) };
        tables.entry(table).or_default().push(Seen::Reject(seen));
    }
    let mut differences = compare::compare(case, &tables);
    differences.extend(case.dropped.filter(|d| *d != dropped).map(|d| Difference::dropped(d, dropped)));
    Report { passed: differences.is_empty(), dropped, differences, ..report }
}

async fn outcome(case: &TestCase, stages: &mut [Box<dyn Stage>]) -> Result<Came> {
    let mut came = Came { tables: Tables::new(), rejects: Vec::new(), dropped: 0 };
    for batch in rows::batches(case)? {
        let passed = pass(batch, stages).await?;
        came.dropped += passed.dropped;
        for batch in &passed.batches {
            collect(batch, &mut came.tables);
        }
        came.rejects.extend(passed.rejects);
    }
    Ok(came)
}

#[derive(Default)]
struct Passed {
    batches: Vec<ChangeBatch>,
    /// With the table's name where it was refused.
    rejects: Vec<(String, Reject)>,
    dropped: u64,
}

/// All stages in order, as the engine does it.
async fn pass(batch: ChangeBatch, stages: &mut [Box<dyn Stage>]) -> Result<Passed> {
    let mut passed = Passed { batches: vec![batch], ..Passed::default() };
    let mut refused = BTreeSet::new();
    for stage in stages {
        let mut next = Vec::new();
        for batch in std::mem::take(&mut passed.batches) {
            let table = batch.schema.name.to_string();
            if !stage.spec().sees(&table) {
                next.push(batch);
                continue;
            }
            let output = apply(stage.as_mut(), &batch).await?;
            passed.dropped += output.dropped;
            for reject in output.rejects {
                if refused.insert(reject.change) {
                    passed.rejects.push((table.clone(), reject));
                }
            }
            next.extend(output.batches);
        }
        passed.batches = next;
    }
    // A change that is refused in one table leaves the others too.
    let stays = |batch: &ChangeBatch| batch.changes.iter().map(|c| !refused.contains(c)).collect();
    passed.batches = passed.batches.iter().map(|b| b.filter(&stays(b))).collect::<Result<_>>()?;
    Ok(passed)
}

async fn apply(stage: &mut dyn Stage, batch: &ChangeBatch) -> Result<StageOutput> {
    match stage.apply(batch).await {
        Ok(output) => Ok(output),
        Err(error) if stage.spec().on_failure == OnFailure::DeadLetter && error.kind != Kind::HaltTable => {
            Ok(all_refused(batch, &error))
        }
        Err(error) => Err(error.context(format!("stage {}", stage.spec().name))),
    }
}

fn all_refused(batch: &ChangeBatch, error: &Error) -> StageOutput {
    let changes: BTreeSet<u32> = batch.changes.iter().copied().collect();
    let refuse = |change| Reject { change, code: error.code.into(), reason: error.message.clone(), column: None };
    StageOutput { rejects: changes.into_iter().map(refuse).collect(), ..StageOutput::default() }
}

/// Row images back into changes: a preimage and the postimage after it are one update.
fn collect(batch: &ChangeBatch, tables: &mut Tables) {
    if batch.is_empty() {
        return;
    }
    let out = tables.entry(batch.schema.name.to_string()).or_default();
    let image = |row| json::row(batch, row, |_| false);
    let mut row = 0;
    while row < batch.rows() {
        let next_is_post = batch.change_types.get(row + 1) == Some(&ChangeType::UpdatePostimage);
        out.push(match batch.change_types[row] {
            ChangeType::Insert => Seen::Insert(image(row)),
            ChangeType::Delete | ChangeType::Truncate => Seen::Delete(image(row)),
            ChangeType::UpdatePreimage if next_is_post && batch.changes[row] == batch.changes[row + 1] => {
                row += 1;
                Seen::Update { before: Some(image(row - 1)), after: image(row) }
            }
            ChangeType::UpdatePreimage => Seen::Delete(image(row)),
            ChangeType::UpdatePostimage => Seen::Update { before: None, after: image(row) },
        });
        row += 1;
    }
}
