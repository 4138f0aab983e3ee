//! One table of the sink: what it holds by its own commits, what the cut under way adds, and the commit of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::batch::ChangeBatch;
use millrace_core::compare_and_set::Head;
use millrace_core::cut::Cut;
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{TableName, TableSchema};
use millrace_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Owner;
use super::staging::Staging;
use crate::config::{DeltaConfig, Mode};
use crate::file::evolution::widened;
use crate::file::layout::{Layout, Misfit};
use crate::file::meta::MetaColumns;
use crate::log::actions::{Action, Add, Format, Metadata};
use crate::log::schema::{DeltaSchema, Field};
use crate::log::{Step, Table, TableState, features};
use crate::mutants::{Mutant, has};
use crate::positions::compare;
use crate::upsert::index::KeyCache;
use crate::upsert::{Options, Upserts};

/// Set in a table that the fence made from its name alone: its first rows give it columns and partitions.
const SHELL: &str = "millrace.shell";
/// Others changed files between our plan and our commit: what was planned may miss rows.
pub(super) const FILES_CHANGED: &str = "table.files_changed";
/// Forms of rows that are remembered for a table; routed tables make new ones now and then.
const MAX_LAYOUTS: usize = 64;

/// What a snapshot staged for one table: enough to commit it after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StagedTable {
    pub namespace: String,
    pub table: String,
    pub schema: String,
    pub partition_by: Vec<String>,
    pub adds: Vec<Add>,
    pub positions: BTreeMap<SourceKey, Order>,
    pub rows: u64,
    /// Key columns, in mode `upsert`.
    #[serde(default)]
    pub key: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct SinkTable {
    pub table: Table,
    /// Where this host continues from.
    pub head: Head,
    /// The table's columns, with those that the cut under way adds.
    pub(super) schema: DeltaSchema,
    pub(super) partition_by: Vec<String>,
    layouts: Vec<Arc<Layout>>,
    pub staging: Staging,
    /// Of mode `upsert`.
    pub upserts: Option<Upserts>,
    /// How current rows are written.
    pub(super) options: Options,
    pub compaction: bool,
    /// Row images committed by this host.
    pub committed: u64,
    /// Bytes of deletion vectors that the last cut wrote.
    pub rewritten: u64,
}

fn is_shell(state: &TableState) -> bool {
    state.metadata.property(SHELL) == Some("true")
}

/// Properties that tables have by the settings.
pub(super) fn properties(config: &DeltaConfig) -> BTreeMap<String, Option<String>> {
    let mut properties = BTreeMap::new();
    if config.mode == Mode::Upsert {
        properties.insert(features::MODE.into(), Some(features::UPSERT.into()));
        if config.deletion_vectors {
            properties.insert(features::ENABLE_DELETION_VECTORS.into(), Some("true".into()));
        }
        if config.change_data_feed {
            properties.insert(features::ENABLE_CHANGE_DATA_FEED.into(), Some("true".into()));
        }
    }
    properties
}

pub(super) fn options(config: &DeltaConfig) -> Options {
    Options {
        target_size: config.target_file_size,
        deletion_vectors: config.deletion_vectors,
        change_data_feed: config.change_data_feed,
    }
}

/// Refuses a table that could be broken, or that holds something else than the mode keeps.
pub(crate) fn check_state(place: &str, state: &TableState, config: &DeltaConfig) -> Result<()> {
    features::check_writable(place, &state.protocol, &state.metadata, &state.schema)?;
    if config.mode == Mode::Upsert {
        let vectors = config.deletion_vectors && !config.upgrade_protocol;
        features::check_upsertable(place, &state.protocol, &state.metadata, &state.schema, vectors)
    } else {
        features::check_appendable(place, &state.metadata)
    }
}

impl SinkTable {
    /// `cache`: in mode `upsert`. Errors: `table.unsupported`, `table.other_mode`, `table.no_deletion_vectors` (halt).
    pub(crate) fn new(table: Table, head: Head, config: &DeltaConfig, cache: Option<&Arc<KeyCache>>) -> Result<Self> {
        let (schema, partition_by) = match table.state() {
            Some(state) => {
                check_state(&table.place(), state, config)?;
                if is_shell(state) {
                    (DeltaSchema::default(), config.partition_by.clone())
                } else {
                    (state.schema.clone(), state.metadata.partition_columns.clone())
                }
            }
            None => (DeltaSchema::default(), config.partition_by.clone()),
        };
        Ok(Self {
            table,
            head,
            schema,
            partition_by,
            layouts: Vec::new(),
            staging: Staging::default(),
            upserts: cache.map(|cache| Upserts::new(Arc::clone(cache))),
            options: options(config),
            compaction: config.compaction,
            committed: 0,
            rewritten: 0,
        })
    }

    /// The way of batches of this schema into the table; grows the table's columns where the policy allows it.
    pub(crate) fn layout(
        &mut self,
        source: &Arc<TableSchema>,
        config: &DeltaConfig,
        meta: MetaColumns,
    ) -> Result<Result<Arc<Layout>, Misfit>> {
        // Routed batches carry a schema of their own each, equal to the last.
        let known = self.layouts.iter().find(|l| Arc::ptr_eq(&l.source, source) || l.source == *source);
        if let Some(layout) = known {
            return Ok(Ok(Arc::clone(layout)));
        }
        let before = self.schema.clone();
        let planned = Layout::plan(source, &mut self.schema, &self.partition_by, config, meta)?;
        if planned.is_ok() {
            self.set_key(source, config)?;
            let same = |field: &Field| self.schema.field(&field.name).is_some_and(|now| now.ty == field.ty);
            if !before.fields.iter().all(same) {
                self.retype()?;
            }
        }
        Ok(planned.map(|layout| {
            if self.layouts.len() >= MAX_LAYOUTS {
                self.layouts.clear();
            }
            let layout = Arc::new(layout);
            self.layouts.push(Arc::clone(&layout));
            layout
        }))
    }

    /// The types of columns have changed: rows of a known form go another way from now on, and so do those of the cut that
    /// wait for its end.
    fn retype(&mut self) -> Result<()> {
        self.layouts.clear();
        match &mut self.upserts {
            Some(upserts) => upserts.retype(&self.schema),
            None => Ok(()),
        }
    }

    pub(crate) async fn encode(&mut self, layout: &Arc<Layout>, batch: &ChangeBatch, target: u64) -> Result<()> {
        self.staging.encode(&self.table, layout, batch, target).await
    }

    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.staging.finish(&self.table).await
    }

    /// What the manifest of a snapshot says of this table; `None` where it has no rows.
    pub(crate) fn staged(&self, name: &TableName, cut: &Cut, owner: &Owner) -> Result<Option<StagedTable>> {
        if self.staging.is_empty() {
            return Ok(None);
        }
        Ok(Some(StagedTable {
            namespace: name.namespace.to_string(),
            table: name.table.to_string(),
            schema: self.schema.to_text(),
            partition_by: self.partition_by.clone(),
            adds: self.staging.adds.clone(),
            positions: self.new_positions(cut, owner)?,
            rows: self.staging.rows,
            key: self.upserts.as_ref().map_or(Vec::new(), |u| u.key().to_vec()),
        }))
    }

    /// The end of the cut, for each source table that has rows here.
    pub(super) fn new_positions(&self, cut: &Cut, owner: &Owner) -> Result<BTreeMap<SourceKey, Order>> {
        if owner.stores_all_positions {
            let mut all = cut.last.clone();
            all.extend(cut.snapshot.iter().map(|(source, order)| (source.clone(), *order)));
            return Ok(all);
        }
        let position = |source: SourceKey| match cut.snapshot.get(&source).or_else(|| cut.last.get(&source)) {
            Some(order) => Ok((source, *order)),
            None => Err(Error::bug(format!("cut {} has rows of {source} and no last change of it", cut.number))),
        };
        self.staging.source_keys().into_iter().map(position).collect()
    }

    /// Commits the cut's rows and positions together. Without rows there is nothing to commit (I1).
    ///
    /// Errors: as [`millrace_core::sink::Sink::commit`].
    pub(crate) async fn commit(&mut self, cut: &Cut, owner: &Owner) -> Result<()> {
        if self.staging.is_empty() {
            return Ok(());
        }
        let positions = self.new_positions(cut, owner)?;
        let staging = std::mem::take(&mut self.staging);
        let adds = staging.adds.into_iter().map(Action::Add).collect();
        self.commit_files(adds, positions, owner, None).await?;
        self.note_rows(staging.rows);
        Ok(())
    }

    pub(super) fn note_rows(&mut self, rows: u64) {
        self.committed += rows;
        metrics::counter!("millrace_delta_rows_total", "table" => self.table.place()).increment(rows);
    }

    /// `files_at`: the version at which others changed files last, where the plan depends on the table's files.
    pub(super) async fn commit_files(
        &mut self,
        files: Vec<Action>,
        positions: BTreeMap<SourceKey, Order>,
        owner: &Owner,
        files_at: Option<Option<u64>>,
    ) -> Result<()> {
        let now = self.table.now_millis();
        let mut actions = self.schema_actions(owner);
        if self.head.epoch < owner.epoch {
            actions.push(Action::Txn(owner.ids.epoch_txn(owner.epoch, now)?));
        }
        for (source, order) in &positions {
            let txns = owner.ids.position_txns(source, *order, now).map(Action::Txn);
            actions.extend(txns.filter(|_| !has(Mutant::PositionLeftOut)));
        }
        actions.extend(files);
        let place = self.table.place();
        let planned_at = self.table.state().map(|s| s.changed_at);
        let continues_from = Head { epoch: owner.epoch, positions: self.head.positions.clone() };
        let check = |state: Option<&TableState>| {
            compare(&place, &owner.ids.head_of(state), &continues_from)?;
            if state.map(|s| s.changed_at) != planned_at {
                return Err(Error::reload(
                    "table.changed",
                    format!("{place}: others changed its columns or properties"),
                ));
            }
            let overtaken = files_at.is_some_and(|planned| planned != state.map(|s| s.files_changed_at));
            if overtaken && !has(Mutant::ForeignFilesUnseen) {
                return Err(Error::reload(FILES_CHANGED, format!("{place}: others added or removed files")));
            }
            Ok(Step::Commit)
        };
        let operation = if files_at.is_some() { "MERGE" } else { "WRITE" };
        self.table.commit(operation, &owner.pipeline, actions, &check).await?;
        self.head.epoch = owner.epoch;
        self.head.positions.extend(positions);
        Ok(())
    }

    /// What must change about the table itself in the commit of its rows: creation, columns, properties.
    fn schema_actions(&self, owner: &Owner) -> Vec<Action> {
        let Some(state) = self.table.state() else {
            let metadata = new_metadata(&self.table, &self.schema, &self.partition_by, owner);
            let metadata = self.with_key(metadata);
            let protocol = features::new_protocol(&metadata, &self.schema);
            return vec![Action::Protocol(protocol), Action::MetaData(metadata)];
        };
        let mut metadata = state.metadata.clone();
        metadata.configuration.extend(owner.properties.clone());
        if state.schema != self.schema || is_shell(state) {
            metadata.schema_string = self.schema.to_text();
        }
        if self.schema.has_widened() {
            metadata.configuration.insert(features::ENABLE_TYPE_WIDENING.into(), Some("true".into()));
        }
        if metadata.configuration.remove(SHELL).is_some() {
            metadata.partition_columns.clone_from(&self.partition_by);
        }
        let metadata = self.with_key(metadata);
        let upgrade = features::upgraded_protocol(&state.protocol, &metadata, &self.schema).map(Action::Protocol);
        let changed = (metadata != state.metadata).then_some(Action::MetaData(metadata));
        upgrade.into_iter().chain(changed).collect()
    }

    /// Commits the owner's epoch, and creates the table where it is only a name: no commit of an earlier owner
    /// can land unseen afterwards (I13).
    ///
    /// Errors: `epoch.superseded` (let go).
    pub(crate) async fn fence(table: &mut Table, owner: &Owner, meta: MetaColumns) -> Result<Head> {
        let now = table.now_millis();
        let mut actions = vec![Action::Txn(owner.ids.epoch_txn(owner.epoch, now)?)];
        if table.state().is_none() {
            let schema = DeltaSchema { fields: meta.fields() };
            let mut metadata = new_metadata(table, &schema, &[], owner);
            metadata.configuration.insert(SHELL.into(), Some("true".into()));
            actions.insert(0, Action::Protocol(features::new_protocol(&metadata, &schema)));
            actions.insert(1, Action::MetaData(metadata));
        }
        let creating = table.state().is_none();
        let place = table.place();
        let check = |state: Option<&TableState>| {
            let found = owner.ids.head_of(state);
            compare(&place, &found, &Head { epoch: owner.epoch, positions: found.positions.clone() })?;
            if creating && state.is_some() {
                return Err(Error::reload("table.changed", format!("{place} was created by another host meanwhile")));
            }
            Ok(if found.epoch == owner.epoch { Step::Skip } else { Step::Commit })
        };
        table.commit("FENCE", &owner.pipeline, actions, &check).await?;
        Ok(owner.ids.head_of(table.state()))
    }

    /// Commits what a snapshot of an earlier run staged, unless the table has it.
    pub(crate) async fn recommit(&mut self, staged: StagedTable, owner: &Owner) -> Result<()> {
        let has =
            |(source, order): (&SourceKey, &Order)| self.head.positions.get(source).is_some_and(|has| has >= order);
        if staged.positions.iter().all(has) {
            return Ok(());
        }
        let place = self.table.place();
        let wanted = DeltaSchema::parse(&place, &staged.schema)?;
        for field in wanted.fields {
            match self.schema.fields.iter_mut().find(|f| f.name == field.name) {
                None => self.schema.fields.push(field),
                Some(present) if present.ty == field.ty => present.nullable |= field.nullable,
                Some(present) if widened(&present.ty, &field.ty).as_ref() == Some(&field.ty) => *present = field,
                Some(present) => {
                    let name = &field.name;
                    let reason =
                        format!("{place}: column `{name}` is {} and the staged snapshot has {}", present.ty, field.ty);
                    return Err(Error::halt("sink.type_mismatch", reason)
                        .hint("the table was changed by others; take a new snapshot"));
                }
            }
        }
        if self.table.state().is_none_or(is_shell) {
            self.partition_by.clone_from(&staged.partition_by);
        }
        if self.upserts.is_some() {
            return self.recommit_rows(staged, owner).await;
        }
        let adds = staged.adds.into_iter().map(Action::Add).collect();
        self.commit_files(adds, staged.positions, owner, None).await?;
        self.committed += staged.rows;
        Ok(())
    }
}

/// The metadata of a new table. Retentions are set in hours; that of `txn` never is: our positions would be forgotten.
fn new_metadata(table: &Table, schema: &DeltaSchema, partition_by: &[String], owner: &Owner) -> Metadata {
    let hours = |n: u64| Some(format!("interval {n} hours"));
    let mut configuration = BTreeMap::from([
        ("delta.logRetentionDuration".to_owned(), hours(owner.log_retention_hours)),
        ("delta.deletedFileRetentionDuration".to_owned(), hours(owner.deleted_file_retention_hours)),
    ]);
    configuration.extend(owner.properties.clone());
    Metadata {
        id: uuid_text(&table.random_id()),
        name: None,
        description: None,
        format: Format::default(),
        schema_string: schema.to_text(),
        partition_columns: partition_by.to_vec(),
        created_time: Some(table.now_millis()),
        configuration,
    }
}

/// 32 hexadecimal digits as a UUID (version 4 by form: all of it is random).
pub(crate) fn uuid_text(digits: &str) -> String {
    let random = u128::from_str_radix(digits, 16).unwrap_or_default();
    uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().to_string()
}
