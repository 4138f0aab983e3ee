//! Mode `upsert`: the current row of each key, merged on read.
//!
//! A cut's changes are folded by key ([`fold`]), the rows that the table has under those keys are found ([`locate`]), and one
//! commit marks them as gone by deletion vectors and adds the new rows in new files ([`rows`]). Nothing here is the only
//! copy of anything: it is all read again from the table.

mod bounds;
mod compact;
pub(crate) mod feed;
mod fold;
pub(crate) mod index;
pub(crate) mod keys;
mod late;
mod locate;
mod resolve;
mod rewrite;
mod rows;
mod snapshot;
mod vectors;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::position::SourceKey;
use millrace_core::sink::Refusal;
use millrace_core::{Error, Result};
use roaring::RoaringTreemap;
use tokio::sync::Semaphore;

pub(crate) use self::compact::Finished;
use self::feed::Feed;
pub(crate) use self::fold::Refused;
use self::fold::{Folded, Part, fold};
use self::index::KeyCache;
use self::keys::{KeyForm, Keys, SharedForm, can_be_key, form, shown};
use self::late::Ages;
use self::locate::{Found, Target, Wanted};
use self::resolve::{Unresolved, leave, present, truncate_of_a_shared_table, unresolved};
use self::rows::{Gathering, NewFile, PresentRows};
use crate::file::layout::{Given, Layout, Misfit};
use crate::file::partition;
use crate::log::Table;
use crate::log::actions::{Action, Add, Cdc, Remove};
use crate::log::schema::DeltaSchema;

/// One table's share of the cut under way, and what is known of the table from cut to cut.
#[derive(Debug)]
pub(crate) struct Upserts {
    cache: Arc<KeyCache>,
    /// Names of the key columns, once they are known.
    key: Vec<String>,
    /// What tells which of two rows of a key is newer, where the order of the source does not.
    age: Option<SharedForm>,
    /// Of the table as it is now; its form changes with the types of the key columns.
    target: Option<Target>,
    parts: Vec<Part>,
    examined: Option<Examined>,
    staged: Option<Staged>,
    job: Option<compact::Job>,
}

/// The cut's changes beside the rows that the table has now.
#[derive(Debug)]
struct Examined {
    folded: Folded,
    found: Vec<Found>,
    present: PresentRows,
    /// Rows beyond one that a key had.
    duplicates: u64,
    /// The version at which others changed files last, when the table was looked at.
    files_at: Option<u64>,
}

/// What the commit will say of files.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub adds: Vec<Add>,
    pub removes: Vec<Remove>,
    /// Files of the change data feed.
    pub changes: Vec<Cdc>,
    /// The version at which others changed files last, when this was planned.
    pub files_at: Option<u64>,
    /// Row images that it is made of.
    pub images: u64,
    /// Of them, those that came too late.
    pub late: u64,
    /// Bytes of deletion vectors.
    pub rewritten: u64,
    new_files: Vec<NewFile>,
    gone: Vec<(String, String, Arc<RoaringTreemap>)>,
}

impl Staged {
    /// Removes first: an entry is told from the one it replaces by its vector.
    pub(crate) fn actions(&self) -> impl Iterator<Item = Action> {
        let removes = self.removes.iter().cloned().map(Action::Remove);
        let adds = self.adds.iter().cloned().map(Action::Add);
        removes.chain(adds).chain(self.changes.iter().cloned().map(Action::Cdc))
    }
}

/// How to write a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form<'a> {
    pub schema: &'a DeltaSchema,
    pub partition_by: &'a [String],
    pub options: Options,
}

/// What the settings say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Bytes at which a file ends.
    pub target_size: u64,
    /// Rows that go are marked (merge-on-read); else their files are written anew (copy-on-write).
    pub deletion_vectors: bool,
    /// What changed is written beside the table too.
    pub change_data_feed: bool,
}

impl Upserts {
    pub(crate) fn new(cache: Arc<KeyCache>) -> Self {
        Self {
            cache,
            key: Vec::new(),
            age: None,
            target: None,
            parts: Vec::new(),
            examined: None,
            staged: None,
            job: None,
        }
    }

    /// Names of the key columns.
    pub(crate) fn key(&self) -> &[String] {
        &self.key
    }

    /// By what the rows of `table` are told apart from now on; `wanted`: the table's own names.
    ///
    /// Errors: `upsert.no_key`, `upsert.key_changed`, `upsert.key_column` (halt the table).
    pub(crate) fn set_key(&mut self, table: &Table, schema: &DeltaSchema, wanted: Vec<String>) -> Result<()> {
        let place = table.place();
        if wanted.is_empty() {
            return Err(Error::halt_table("upsert.no_key", format!("{place}: the source table has no primary key"))
                .hint("name its columns under `key:` of the sink, or write it in the mode `changelog`"));
        }
        let stored = table.state().and_then(|s| s.metadata.property(KEY)).and_then(|t| serde_json::from_str(t).ok());
        let before: Vec<String> = stored.unwrap_or_else(|| self.key.clone());
        if !before.is_empty() && before != wanted {
            let (before, now) = (before.join(", "), wanted.join(", "));
            let reason = format!("{place}: its rows are told apart by ({before}), and by ({now}) now");
            return Err(Error::halt_table("upsert.key_changed", reason)
                .hint("rows under the old key would stay; take a new snapshot into another path, or set `key:` to the old one"));
        }
        let new = form(&wanted, &schema.fields).filter(|f| f.fields.iter().all(|field| can_be_key(&field.ty)));
        let Some(new) = new else {
            let names = wanted.join(", ");
            return Err(Error::halt_table(
                "upsert.key_column",
                format!("{place}: ({names}) is no key: a column is missing, or of a type without equality"),
            )
            .hint("check `key:` of the sink against the columns of the table"));
        };
        self.key = wanted;
        let same = |target: &Target| types_of(&target.form) == types_of(&new);
        if !self.target.as_ref().is_some_and(same) {
            if let Some(before) = &mut self.target {
                // What is known of its files is by the types that the key had; of those that no cut looked into, too.
                let files = table.state().and_then(|s| s.files.as_ref());
                files.iter().flat_map(|files| files.iter()).for_each(|add| before.keys.forget(&add.path));
                before.keep(|_| false);
            }
            self.target = Some(Target::new(table.store().clone(), Arc::new(new), Arc::clone(&self.cache)));
        }
        Ok(())
    }

    /// Which of two rows of a key is newer is told by this column from now on, or by the order of the source.
    ///
    /// Errors: `upsert.order_column` (halts the table).
    pub(crate) fn set_order(&mut self, table: &Table, schema: &DeltaSchema, column: Option<&str>) -> Result<()> {
        self.age = column.map(|name| late::form(&table.place(), name, schema)).transpose()?;
        Ok(())
    }

    fn target(&mut self) -> Result<&mut Target> {
        self.target.as_mut().ok_or_else(|| Error::bug("an upsert without a key"))
    }

    /// The types of the table's columns have changed under what was taken of the cut.
    pub(crate) fn retype(&mut self, schema: &DeltaSchema) -> Result<()> {
        let form = Arc::clone(&self.target()?.form);
        self.parts.iter_mut().try_for_each(|part| part.retype(&schema.fields, &form, self.age.as_ref()))
    }

    /// Takes a batch of the cut under way. Answers the changes that can go nowhere: a row of theirs has no key,
    /// or no value where the table wants one.
    pub(crate) fn push(&mut self, layout: &Layout, batch: ChangeBatch) -> Result<Vec<(Vec<u32>, Misfit)>> {
        let columns = layout.cells(&batch)?;
        let form = Arc::clone(&self.target()?.form);
        let of_key = key_columns(&form, &columns)?;
        let mut keys = form.encode(&of_key)?;
        without_partition(&form, layout, &of_key, &mut keys)?;
        let unfit = unfit(&form, layout, (&columns, &of_key, &keys), &batch);
        let ages = self.age.as_ref().filter(|_| !batch.is_truncate());
        let ages = ages.map(|age| late::ages_of(age, &columns)).transpose()?;
        self.parts.push(Part { batch, columns, keys, ages });
        Ok(unfit)
    }

    /// As [`Upserts::push`], of rows that are written as they come.
    pub(crate) fn check_rows(&mut self, layout: &Layout, batch: &ChangeBatch) -> Result<Vec<(Vec<u32>, Misfit)>> {
        let form = Arc::clone(&self.target()?.form);
        let columns = layout.cells(batch)?;
        let of_key = key_columns(&form, &columns)?;
        let mut keys = form.encode(&of_key)?;
        without_partition(&form, layout, &of_key, &mut keys)?;
        Ok(unfit(&form, layout, (&columns, &of_key, &keys), batch))
    }

    /// The batches of the cut under way.
    pub(crate) fn written(&self) -> impl Iterator<Item = &ChangeBatch> {
        self.parts.iter().map(|part| &part.batch)
    }

    /// Source tables that have changes here which are no letters.
    pub(crate) fn sources(&self, refused: &Refused) -> BTreeSet<SourceKey> {
        let goes_in = |part: &&Part| {
            let origin = &part.batch.origin;
            part.batch.changes.iter().any(|c| !refused.contains(&(origin.source.clone(), origin.orders[*c as usize])))
        };
        self.parts.iter().filter(goes_in).map(|part| part.batch.origin.source.clone()).collect()
    }

    /// Finds the rows that the cut replaces. Answers the changes that can not be applied; called again once they are
    /// among `refused`. `alone`: whether no other source table feeds this table.
    pub(crate) async fn examine(
        &mut self,
        table: &Table,
        schema: &DeltaSchema,
        refused: &Refused,
        alone: impl Fn(&SourceKey) -> bool + Send,
    ) -> Result<Vec<Refusal>> {
        self.examined = None;
        if self.parts.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared_truncates(refused, alone);
        if !shared.is_empty() {
            return shared
                .into_iter()
                .map(|(part, change)| self.refusal(part, &[change], &truncate_of_a_shared_table()))
                .collect();
        }
        let mut folded = fold(&self.parts, &schema.fields, refused, None, &BTreeSet::new());
        let target = self.target.as_mut().ok_or_else(|| Error::bug("an upsert without a key"))?;
        let wanted = Arc::new(Wanted::new(&target.form, folded.keys.clone()));
        let state = table.state();
        let files: Vec<Arc<Add>> = match state.and_then(|s| s.files.as_ref()) {
            Some(files) if !folded.truncated => files.iter().cloned().collect(),
            _ => Vec::new(),
        };
        let mut found = target.locate(&wanted, &files).await?;
        let (present, mut duplicates) = present(&folded, &wanted, &found);
        let occupied: BTreeSet<u32> = folded.landed.iter().copied().filter(|id| present.contains_key(id)).collect();
        if self.age.is_none() && !occupied.is_empty() {
            folded = fold(&self.parts, &schema.fields, refused, None, &occupied);
        }
        if let Some(age) = &self.age {
            let ages = Ages::read(table, age, &schema.fields, &present).await?;
            folded = fold(&self.parts, &schema.fields, refused, Some(&ages), &occupied);
            duplicates -= leave(&folded, &wanted, &mut found);
        }
        let unresolved = unresolved(&folded, &present, schema);
        let files_at = state.map(|s| s.files_changed_at);
        self.examined = Some(Examined { folded, found, present, duplicates, files_at });
        unresolved.into_iter().map(|(part, changes, why)| self.refusal(part, &changes, &why)).collect()
    }

    /// Truncates of a table that others feed as well: whose rows they mean can not be told.
    fn shared_truncates(&self, refused: &Refused, alone: impl Fn(&SourceKey) -> bool) -> Vec<(u32, u32)> {
        let mut shared = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let origin = &part.batch.origin;
            let others = self.parts.iter().any(|p| p.batch.origin.source != origin.source);
            if !part.batch.is_truncate() || (alone(&origin.source) && !others) {
                continue;
            }
            for (kind, change) in part.batch.change_types.iter().zip(&part.batch.changes) {
                let id = (origin.source.clone(), origin.orders[*change as usize]);
                if *kind == ChangeType::Truncate && !refused.contains(&id) {
                    shared.push((number as u32, *change));
                }
            }
        }
        shared
    }

    /// The rows of `changes` as they came to the sink.
    fn refusal(&self, part: u32, changes: &[u32], why: &Unresolved) -> Result<Refusal> {
        let part = &self.parts[part as usize];
        let keep = part.batch.changes.iter().map(|c| changes.contains(c)).collect();
        let batch = part.batch.filter(&keep)?;
        let key = match &self.target {
            Some(target) if !batch.is_truncate() => {
                let row = part.batch.changes.iter().rposition(|c| changes.contains(c)).unwrap_or_default();
                format!(" ({})", shown(&target.form, &key_columns(&target.form, &part.columns)?, row))
            }
            _ => String::new(),
        };
        Ok(Refusal { batch, code: why.code, reason: format!("{}{key}", why.reason), column: why.column.clone() })
    }

    /// Writes the new rows and deletion vectors; nobody refers to them yet.
    pub(crate) async fn stage(&mut self, table: &Table, form: Form<'_>) -> Result<()> {
        let Some(examined) = self.examined.take() else { return Ok(()) };
        let gathering = Gathering {
            parts: &self.parts,
            folded: &examined.folded,
            present: &examined.present,
            fields: &form.schema.fields,
            partition_by: form.partition_by,
        };
        let target = self.target.as_mut().ok_or_else(|| Error::bug("an upsert without a key"))?;
        // Files of which every row goes.
        let all: Vec<Arc<Add>> = match table.state().and_then(|s| s.files.as_ref()) {
            Some(files) if examined.folded.truncated => files.iter().cloned().collect(),
            _ => Vec::new(),
        };
        let is_needed = !examined.folded.truncated || feed::is_needed(all.iter());
        let wants_feed = form.options.change_data_feed && is_needed;
        let mut feed = wants_feed.then(|| Feed::new(table, form));
        let new_files = gathering.write(table, &target.form, form.options.target_size, feed.as_mut()).await?;
        let mut staged = Staged {
            adds: new_files.iter().map(|f| f.add.clone()).collect(),
            files_at: examined.files_at,
            images: examined.folded.images,
            late: examined.folded.late,
            new_files,
            ..Staged::default()
        };
        staged.changes = examined.feed(feed, target, &all).await?;
        if examined.folded.truncated {
            let now = table.now_millis();
            staged.removes = all.iter().map(|add| Remove::of(add, now, true)).collect();
        } else {
            let rows = |found: &Found| (Arc::clone(&found.add), found.hits.iter().map(|h| u64::from(h.row)).collect());
            take_out(table, target, form, examined.found.iter().map(rows).collect(), &mut staged).await?;
        }
        if examined.duplicates > 0 {
            report_duplicates(table, examined.duplicates);
        }
        self.staged = Some(staged);
        Ok(())
    }

    /// Every change of the cut is a letter.
    pub(crate) fn forget(&mut self) {
        self.parts.clear();
        self.examined = None;
    }

    pub(crate) fn staged(&self) -> Option<&Staged> {
        self.staged.as_ref()
    }

    /// The table has what was staged.
    pub(crate) fn committed(&mut self, table: &Table) -> Result<()> {
        self.parts.clear();
        match self.staged.take() {
            Some(staged) => {
                if staged.late > 0 {
                    let table = table.place();
                    tracing::debug!(%table, images = staged.late, "older than their row: they are left out");
                    metrics::counter!("millrace_delta_late_images_total", "table" => table).increment(staged.late);
                }
                self.note(table, staged)
            }
            None => Ok(()),
        }
    }

    /// Merges keys beside the stream. `turn`: held while it is done.
    pub(crate) fn merge_keys(&mut self, table: &Table, turn: &Arc<Semaphore>) {
        if let Some(target) = &mut self.target {
            target.merge_keys(table, turn);
        }
    }

    /// Takes in what the table has now.
    fn note(&mut self, table: &Table, staged: Staged) -> Result<()> {
        let target = self.target()?;
        for (path, id, rows) in &staged.gone {
            target.note_gone(path, id.clone(), rows);
        }
        let files = table.state().and_then(|s| s.files.as_ref());
        target.keep(|path| files.is_some_and(|f| f.get(path).is_some()));
        let since = target.keys.now();
        for file in &staged.new_files {
            drop(target.keys.insert(&file.add, &file.keys, since));
        }
        let count = files.map_or(0, |f| f.len());
        metrics::gauge!("millrace_delta_files", "table" => table.place()).set(count as f64);
        Ok(())
    }
}

/// Takes these rows out of these files; a file of which nothing is left is removed.
async fn take_out(
    table: &Table,
    target: &mut Target,
    form: Form<'_>,
    rows: Vec<(Arc<Add>, RoaringTreemap)>,
    staged: &mut Staged,
) -> Result<()> {
    if form.options.deletion_vectors {
        vectors::mark(table, target, rows, staged).await
    } else {
        rewrite::rewrite(table, target, form, rows, staged).await
    }
}

/// In a table's properties: its key columns, as a JSON list.
pub(crate) const KEY: &str = "millrace.key";

/// A key column by which the table is partitioned is NULL in the table where its value has no text (an empty one, a year
/// beyond 9999): such a row would not be found again.
fn without_partition(form: &KeyForm, layout: &Layout, of_key: &[ArrayRef], keys: &mut Keys) -> Result<()> {
    for (field, cells) in form.fields.iter().zip(of_key) {
        if layout.partition.iter().all(|(f, ..)| f.name != field.name) {
            continue;
        }
        for row in 0..cells.len() {
            if partition::value(cells, row)?.is_none() {
                keys.without.push(row as u32);
            }
        }
    }
    keys.without.sort_unstable();
    keys.without.dedup();
    Ok(())
}

fn unfit(
    form: &KeyForm,
    layout: &Layout,
    (columns, of_key, keys): (&[Given], &[ArrayRef], &Keys),
    batch: &ChangeBatch,
) -> Vec<(Vec<u32>, Misfit)> {
    if batch.is_truncate() {
        return Vec::new();
    }
    keyless(form, of_key, keys, batch).into_iter().chain(layout.nulls(columns, batch)).collect()
}

fn keyless(form: &KeyForm, of_key: &[ArrayRef], keys: &Keys, batch: &ChangeBatch) -> Option<(Vec<u32>, Misfit)> {
    let first = *keys.without.first()? as usize;
    let missing = form.fields.iter().zip(of_key).find(|(_, cells)| cells.is_null(first));
    let column = missing.map(|(field, _)| field.name.clone());
    let reason = match &column {
        Some(column) => format!("the row has no value for the key column `{column}`"),
        None => "the value of a key column can not be that of a partition".to_owned(),
    };
    let mut changes: Vec<u32> = keys.without.iter().map(|row| batch.changes[*row as usize]).collect();
    changes.dedup();
    Some((changes, Misfit { code: "sink.key_missing", reason, column }))
}

fn types_of(form: &KeyForm) -> Vec<(&str, &crate::log::schema::DeltaType)> {
    form.fields.iter().map(|f| (f.name.as_str(), &f.ty)).collect()
}

fn key_columns(form: &SharedForm, columns: &[Given]) -> Result<Vec<ArrayRef>> {
    let cells = |field: &crate::log::schema::Field| columns.iter().find(|c| c.name == field.name);
    form.fields
        .iter()
        .map(|field| match cells(field) {
            Some(column) => Ok(Arc::clone(&column.cells)),
            None => Err(Error::halt("upsert.key_column", format!("rows come without the key column `{}`", field.name))
                .hint("a stage removed or renamed it; keep it, or set `key:` of the sink")),
        })
        .collect()
}

fn report_duplicates(table: &Table, duplicates: u64) {
    let place = table.place();
    tracing::warn!(table = %place, rows = duplicates, "rows beyond one of the same key were in the table; they are removed");
    metrics::counter!("millrace_delta_duplicates_removed_total", "table" => place).increment(duplicates);
}
