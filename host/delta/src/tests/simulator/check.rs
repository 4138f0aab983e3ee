//! What must hold of a log, whatever happened: every version of the table is what its commits say, each change once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, new_null_array};
use futures::TryStreamExt;
use millrace_core::environment::Environment;
use millrace_core::position::Order;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};

use super::super::mirror::shown;
use super::super::support::*;
use super::{Step, World};
use crate::file::layout::Layout;
use crate::file::reader::{FileReader, Rows};
use crate::file::writer::DataFile;
use crate::log::actions::{Action, Add, CommitInfo, Entry, Remove, Txn, write_lines};
use crate::log::schema::{DeltaType, Field};
use crate::log::{Table, deletion_vectors};
use crate::positions::AppIds;

/// Rows as text, the key first.
pub(super) type Shown = Vec<String>;

/// What a foreign commit did to the rows.
pub(super) type Foreign = BTreeMap<u64, Vec<Shown>>;

fn commit_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

impl World {
    pub(super) async fn table(&self) -> Table {
        let environment = Arc::clone(&self.environment) as Arc<dyn Environment>;
        Table::open_with_files(self.store(), environment, 0).await.unwrap()
    }

    /// Rows of a file that no vector marks.
    async fn live(&self, add: &Arc<Add>) -> Vec<u32> {
        let store = self.store();
        let gone = deletion_vectors::Reader::default().read(&store, add).await.unwrap();
        let all = FileReader::open(&store, add).await.unwrap().rows();
        (0..all).filter(|row| !gone.contains(*row)).map(|row| row as u32).collect()
    }

    async fn columns(&self, add: &Arc<Add>, fields: &[Field], rows: Rows<'_>) -> Vec<ArrayRef> {
        let reader = FileReader::open(&self.store(), add).await.unwrap();
        let batches: Vec<Vec<ArrayRef>> = reader.read(fields, rows).unwrap().try_collect().await.unwrap();
        let column = |at: usize| {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch[at].as_ref()).collect();
            arrow_select::concat::concat(&parts).unwrap()
        };
        (0..fields.len()).map(column).collect()
    }

    /// All rows of a file as text.
    async fn texts(&self, add: &Arc<Add>, fields: &[Field]) -> Vec<Shown> {
        let field = |name: &String| fields.iter().find(|f| f.name == *name).cloned();
        let fields: Vec<Field> = self.names.iter().filter_map(field).collect();
        let columns = self.columns(add, &fields, Rows::All).await;
        let rows = columns.first().map_or(0, |column| column.len());
        (0..rows).map(|row| columns.iter().map(|column| shown(column, row)).collect()).collect()
    }

    /// Another writer commits: nothing, a file rewritten, or rows of its own, one of them with a key of ours.
    pub(super) async fn foreign_commit(&self) {
        let mut dice = self.dice("foreign");
        let table = self.table().await;
        let Some(state) = table.state().filter(|state| state.schema.field("k").is_some()) else { return };
        let version = state.version + 1;
        let files: Vec<Arc<Add>> = state.files.as_ref().unwrap().iter().cloned().collect();
        let layout = Arc::new(Layout::whole(&state.schema.fields, &[]));
        let mut actions = vec![Action::CommitInfo(CommitInfo {
            timestamp: 1,
            operation: "WRITE".into(),
            engine_info: Some("Other".into()),
            txn_id: None,
            millrace_pipeline: None,
            is_blind_append: None,
        })];
        let mut rows = Vec::new();
        match dice.below(4) {
            0 => {}
            1 | 2 if !files.is_empty() => {
                let add = &files[dice.below(files.len() as u64) as usize];
                let columns = self.columns(add, &layout.columns, Rows::These(&self.live(add).await)).await;
                let new = self.write(&layout, columns, &format!("{:032x}", dice.next())).await;
                actions.push(Action::Remove(Remove::of(add, 1, false)));
                actions.push(Action::Add(Add { data_change: false, ..new }));
            }
            _ => {
                let mut present = BTreeSet::new();
                for add in &files {
                    let texts = self.texts(add, &layout.columns).await;
                    present.extend(self.live(add).await.into_iter().map(|row| texts[row as usize][0].clone()));
                }
                let free = (0..self.keys).map(|id| self.key_text(id)).find(|key| !present.contains(key));
                let theirs = self.key_text(1_000 + version);
                let keys: Vec<String> = free.into_iter().chain([theirs]).collect();
                let column = |field: &Field| self.foreign_column(field, &keys);
                let columns: Vec<ArrayRef> = layout.columns.iter().map(column).collect();
                rows = keys.iter().map(|key| self.foreign_row(key)).collect();
                let new = self.write(&layout, columns, &format!("{:032x}", dice.next())).await;
                actions.push(Action::Add(new));
            }
        }
        let body = write_lines(&actions).unwrap();
        let store = self.store();
        store.objects().put_opts(&commit_path(version), body.into(), PutMode::Create.into()).await.unwrap();
        self.note(format!("{version}: another writer, {} actions, {} rows", actions.len(), rows.len()));
        self.lock().met.foreign += 1;
        self.lock().foreign.insert(version, rows);
    }

    fn foreign_column(&self, field: &Field, keys: &[String]) -> ArrayRef {
        match (field.name.as_str(), &field.ty) {
            ("k", DeltaType::Long) => Arc::new(Int64Array::from_iter_values(keys.iter().map(|k| k.parse().unwrap()))),
            ("k", _) => Arc::new(StringArray::from_iter_values(keys)),
            ("wide" | "region", _) => Arc::new(StringArray::from_iter_values(keys.iter().map(|_| "theirs"))),
            _ => new_null_array(&field.ty.arrow(), keys.len()),
        }
    }

    fn foreign_row(&self, key: &str) -> Shown {
        let cell = |name: &String| match name.as_str() {
            "k" => key.to_owned(),
            "wide" | "region" => "theirs".into(),
            _ => "NULL".into(),
        };
        self.names.iter().map(cell).collect()
    }

    async fn write(&self, layout: &Arc<Layout>, columns: Vec<ArrayRef>, id: &str) -> Add {
        let mut file = DataFile::create(&self.store(), Arc::clone(layout), Default::default(), id).unwrap();
        file.write(&RecordBatch::try_new(Arc::clone(&layout.arrow), columns).unwrap()).await.unwrap();
        file.finish(1).await.unwrap()
    }

    /// Goes through the log: each version against the model.
    pub(super) async fn check_log(&self) -> Result<(), String> {
        let ids = AppIds::new(PIPELINE, "sys/1");
        let mut log = Log::default();
        let foreign = self.lock().foreign.clone();
        let mut model = Model { steps: &self.steps, position: 0, theirs: BTreeMap::new() };
        let table = self.table().await;
        let Some(state) = table.state() else { return Err("there is no table".into()) };
        for version in 0..=state.version {
            let body = self.store().objects().get(&commit_path(version)).await.map_err(|e| e.to_string())?;
            let entry =
                Entry::parse("sim", &body.bytes().await.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
            let before = ids.head(&log.txns);
            let changes = entry.adds.len() + entry.removes.len();
            log.apply(entry).map_err(|why| format!("version {version}: {why}"))?;
            let now = ids.head(&log.txns);
            if now.epoch < before.epoch {
                return Err(format!("version {version}: epoch {} after {}", now.epoch, before.epoch));
            }
            let position = now.positions.get(&source()).map_or(0, Order::commit);
            model.follow(position, foreign.get(&version)).map_err(|why| format!("version {version}: {why}"))?;
            if changes > 0 {
                let mut rows = Vec::new();
                for add in log.files.values() {
                    if !log.read.contains_key(&add.path) {
                        log.read.insert(add.path.clone(), self.texts(add, &state.schema.fields).await);
                    }
                    let texts = &log.read[&add.path];
                    rows.extend(self.live(add).await.into_iter().map(|row| texts[row as usize].clone()));
                }
                rows.sort();
                let expected = model.rows();
                if rows != expected {
                    let (more, less) = (beyond(&rows, &expected), beyond(&expected, &rows));
                    return Err(format!(
                        "version {version}, position {position}: there are {more:?} and there should be {less:?}"
                    ));
                }
            }
        }
        // What a host reads is what the log says, by way of a checkpoint or not.
        let found: BTreeSet<&str> = state.files.iter().flat_map(|f| f.iter()).map(|add| add.path.as_str()).collect();
        if found != log.files.keys().map(String::as_str).collect() {
            return Err("a table that is opened has other files than its log".into());
        }
        match (model.position, self.steps.last()) {
            (at, Some(last)) if at != last.commit => Err(format!("position {at} and not {}", last.commit)),
            _ => Ok(()),
        }
    }
}

/// What `a` has more of than `b`.
fn beyond(a: &[Shown], b: &[Shown]) -> Vec<Shown> {
    let mut counts: BTreeMap<&Shown, i64> = BTreeMap::new();
    a.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    b.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(row, _)| row.clone()).collect()
}

/// The table as its log has it.
#[derive(Default)]
struct Log {
    files: BTreeMap<String, Arc<Add>>,
    txns: HashMap<String, Txn>,
    /// Rows of files that were read.
    read: HashMap<String, Vec<Shown>>,
}

impl Log {
    fn apply(&mut self, entry: Entry) -> Result<(), String> {
        for remove in entry.removes {
            match self.files.remove(&remove.path) {
                Some(add) if add.deletion_vector == remove.deletion_vector => {}
                Some(_) => return Err(format!("{} is removed with another vector", remove.path)),
                None => return Err(format!("{} is removed, and is not there", remove.path)),
            }
        }
        for add in entry.adds {
            if self.files.insert(add.path.clone(), Arc::new(add)).is_some() {
                return Err("a file is added, and is there".into());
            }
        }
        self.txns.extend(entry.txns.into_iter().map(|txn| (txn.app_id.clone(), txn)));
        Ok(())
    }
}

/// The rows that must be there.
struct Model<'a> {
    steps: &'a [Step],
    position: i64,
    /// Rows of others that no change of ours has met since, by key.
    theirs: BTreeMap<String, Shown>,
}

impl Model<'_> {
    fn follow(&mut self, position: i64, foreign: Option<&Vec<Shown>>) -> Result<(), String> {
        if position < self.position {
            return Err(format!("position {position} after {}", self.position));
        }
        for step in self.steps.iter().filter(|step| step.commit > self.position && step.commit <= position) {
            match &step.touched {
                Some(keys) => self.theirs.retain(|key, _| !keys.contains(key)),
                None => self.theirs.clear(),
            }
        }
        if position > 0 && self.steps.iter().all(|step| step.commit != position) {
            return Err(format!("position {position} is the end of no cut"));
        }
        self.position = position;
        self.theirs.extend(foreign.into_iter().flatten().map(|row| (row[0].clone(), row.clone())));
        Ok(())
    }

    fn rows(&self) -> Vec<Shown> {
        let ours = self.steps.iter().find(|step| step.commit == self.position).map(|step| step.expected.as_slice());
        let mut rows: Vec<Shown> = ours.unwrap_or_default().iter().chain(self.theirs.values()).cloned().collect();
        rows.sort();
        rows
    }
}
