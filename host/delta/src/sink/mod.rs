//! The Delta sink: a table for each table of the stream, rows and positions in one commit.

mod maintain;
mod staging;
mod table;
mod upserting;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use millrace_core::batch::{ChangeBatch, Changes};
use millrace_core::compare_and_set::Head;
use millrace_core::cut::Cut;
use millrace_core::environment::Environment;
use millrace_core::position::Order;
use millrace_core::record::RecordStore;
use millrace_core::schema::TableName;
use millrace_core::sink::{Claim, Prepared, Provenance, Refusal, Sink, Stored, StoredKeys, StoredLetter};
use millrace_core::{Error, Result, letters};
use tokio::sync::Semaphore;

use self::staging::kept;
use self::table::{SinkTable, StagedTable};
use crate::config::{DeltaConfig, Mode};
use crate::file::layout::{Layout, Misfit};
use crate::file::meta::MetaColumns;
use crate::log::Table;
use crate::positions::{AppIds, compare};
use crate::provenance::ProvenanceTable;
use crate::records::ObjectRecords;
use crate::store::{Store, safe_name};
use crate::template::Template;
use crate::upsert::Refused;
use crate::upsert::index::KeyCache;

pub use maintain::Maintained;
pub(crate) use table::uuid_text;

/// Files under construction, of all tables together: what a cut may hold in memory besides its batches.
const MAX_ENCODED_BYTES: usize = 256 << 20;
/// Tables that are opened and fenced, staged or committed at a time: enough to hide an object store's latency, few enough
/// for its request limits.
const MAX_AT_ONCE: usize = 16;

/// Under what this host writes.
#[derive(Debug)]
pub(crate) struct Owner {
    pub ids: AppIds,
    pub pipeline: String,
    pub incarnation: String,
    pub epoch: u64,
    pub log_retention_hours: u64,
    pub deleted_file_retention_hours: u64,
    pub stores_all_positions: bool,
    /// Properties that every table of the sink has.
    pub properties: BTreeMap<String, Option<String>>,
    /// Held by the one compaction or merge of keys that runs: it takes a core, and the stream wants the others.
    pub compaction_turn: Arc<Semaphore>,
}

/// A batch whose fate is not settled yet: a sister of the same changes may be refused.
#[derive(Debug)]
struct Held {
    table: TableName,
    layout: Arc<Layout>,
    batch: ChangeBatch,
}

/// Writes changes to Delta tables; see [`DeltaConfig`].
pub struct DeltaSink {
    config: DeltaConfig,
    pipeline: String,
    template: Template,
    base: Store,
    environment: Arc<dyn Environment>,
    records: Arc<ObjectRecords>,
    probed: bool,
    owner: Option<Owner>,
    tables: BTreeMap<TableName, SinkTable>,
    /// Whose folder is whose, in lower case: some file systems tell no case.
    folders: BTreeMap<String, TableName>,
    held: Vec<Held>,
    /// Changes of the held batches' origin that a table refused.
    refused: HashSet<u32>,
    refusals: Vec<Refusal>,
    /// Row images committed under earlier epochs of this process.
    committed: BTreeMap<TableName, u64>,
    /// As dead letters: a commit stores every position of its cut, that of each earlier cut included (I5), not only those
    /// of the source tables that have letters in it.
    stores_all_positions: bool,
    /// Of mode `upsert`: the keys of data files.
    cache: Option<Arc<KeyCache>>,
    /// Of mode `upsert`: changes of the cut under way that are letters.
    letters: Refused,
}

impl std::fmt::Debug for DeltaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeltaSink")
            .field("path", &self.config.path)
            .field("tables", &self.tables.len())
            .finish_non_exhaustive()
    }
}

impl DeltaSink {
    /// A sink of the tables of `pipeline`; nothing is read or written before [`Sink::fence`].
    ///
    /// Errors: of kind `Config`.
    pub fn new(config: DeltaConfig, pipeline: &str, environment: Arc<dyn Environment>) -> Result<Self> {
        let template = Template::parse(&config.path)?;
        Self::build(config, template, None, pipeline, environment)
    }

    /// A sink of one table that lies at `config.path` itself, whatever its name: the dead letters.
    ///
    /// Errors: of kind `Config`.
    pub fn single(config: DeltaConfig, pipeline: &str, environment: Arc<dyn Environment>) -> Result<Self> {
        let template = Template::single(&config.path);
        let mut sink = Self::build(config, template, None, pipeline, environment)?;
        sink.stores_all_positions = true;
        Ok(sink)
    }

    fn build(
        config: DeltaConfig,
        template: Template,
        base: Option<Store>,
        pipeline: &str,
        environment: Arc<dyn Environment>,
    ) -> Result<Self> {
        config.check()?;
        let base = match base {
            Some(base) => base,
            None => Store::open(&template.base, &config.s3)?,
        };
        let own = base.at(&format!("_millrace/{}", safe_name(pipeline)))?;
        Ok(Self {
            records: Arc::new(ObjectRecords::new(own, Arc::clone(&environment))),
            cache: (config.mode == Mode::Upsert).then(|| Arc::new(KeyCache::new(&config))),
            letters: Refused::new(),
            config,
            pipeline: pipeline.to_owned(),
            template,
            base,
            environment,
            probed: false,
            owner: None,
            tables: BTreeMap::new(),
            folders: BTreeMap::new(),
            held: Vec::new(),
            refused: HashSet::new(),
            refusals: Vec::new(),
            committed: BTreeMap::new(),
            stores_all_positions: false,
        })
    }

    /// On a store of the test's own, whose root is `base`.
    #[cfg(test)]
    pub(crate) fn on_store(
        config: DeltaConfig,
        base: Store,
        pipeline: &str,
        environment: Arc<dyn Environment>,
    ) -> Result<Self> {
        let template = Template::parse("/{namespace}/{table}")?;
        Self::build(config, template, Some(base), pipeline, environment)
    }

    /// As `index_memory`, but less than a pipeline file may say.
    #[cfg(test)]
    pub(crate) fn with_index_memory(mut self, index_memory: u64) -> Self {
        self.cache = Some(Arc::new(KeyCache::new(&DeltaConfig { index_memory, ..self.config.clone() })));
        self
    }

    fn meta(&self) -> MetaColumns {
        let changes = self.cache.is_none();
        MetaColumns { change_type: changes, unavailable: changes }
    }

    fn owner(&self) -> Result<&Owner> {
        self.owner.as_ref().ok_or_else(|| Error::bug("the delta sink is used before its fence"))
    }

    /// The table's folder; refuses one that is, holds or lies in another table's.
    ///
    /// Errors: `sink.path_collision` (halt).
    fn claim_folder(&mut self, name: &TableName) -> Result<Store> {
        let folder = self.template.folder(name);
        let key = folder.to_lowercase();
        let inside =
            |a: &str, b: &str| a == b || a.is_empty() || b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
        let other =
            self.folders.iter().find(|(taken, owner)| *owner != name && (inside(taken, &key) || inside(&key, taken)));
        if let Some((_, other)) = other {
            let path = &self.config.path;
            return Err(Error::halt(
                "sink.path_collision",
                format!("{name} and {other} would both be written under `{folder}` of {path}"),
            )
            .hint("put {namespace} and {table} into `path`, or route the two to one table by a stage"));
        }
        self.folders.insert(key, name.clone());
        self.base.at(&folder)
    }

    async fn open(&mut self, name: &TableName) -> Result<Table> {
        let store = self.claim_folder(name)?;
        open_table(store, &self.environment, &self.config).await
    }

    /// A table that no record names yet.
    async fn open_unnamed(&mut self, name: &TableName) -> Result<()> {
        let table = self.open(name).await?;
        let owner = self.owner()?;
        let found = owner.ids.head_of(table.state());
        compare(&table.place(), &found, &Head { epoch: owner.epoch, positions: found.positions.clone() })?;
        if !found.positions.is_empty() {
            return Err(Error::halt("position.gap", format!("{} holds positions of this pipeline, and its resume record does not name it", table.place()))
                .hint("the record was lost or belongs to another run: restore it, or start under a new pipeline name with a new snapshot"));
        }
        let table = SinkTable::new(table, found, &self.config, self.cache.as_ref())?;
        self.tables.insert(name.clone(), table);
        Ok(())
    }

    /// Encodes what is held, less the changes that some table refused.
    async fn settle_held(&mut self) -> Result<()> {
        let refused = std::mem::take(&mut self.refused);
        for held in std::mem::take(&mut self.held) {
            let batch = kept(self.config.mode, without(held.batch, &refused)?)?;
            if let Some(table) = self.tables.get_mut(&held.table) {
                table.encode(&held.layout, &batch, self.config.target_file_size).await?;
            }
        }
        if self.tables.values().map(|t| t.staging.memory()).sum::<usize>() > MAX_ENCODED_BYTES {
            for table in self.tables.values_mut() {
                table.staging.relieve().await?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, batch: ChangeBatch, misfit: Misfit) -> Result<()> {
        let first = batch.changes.first().map(|c| batch.origin.orders[*c as usize]);
        let source = &batch.origin.source;
        let late = |table: &SinkTable| table.staging.sources.get(source).is_some_and(|last| Some(*last) >= first);
        if let Some((name, _)) = self.tables.iter().find(|(_, table)| late(table)) {
            return Err(Error::bug(format!(
                "changes of {source} are refused after others of their rows went to {name}"
            )));
        }
        self.refused.extend(&batch.changes);
        self.refusals.push(Refusal { batch, code: misfit.code, reason: misfit.reason, column: misfit.column });
        Ok(())
    }
}

fn is_of(held: &[Held], origin: &Arc<Changes>) -> bool {
    held.iter().all(|h| Arc::ptr_eq(&h.batch.origin, origin))
}

fn without(batch: ChangeBatch, refused: &HashSet<u32>) -> Result<ChangeBatch> {
    if refused.is_empty() {
        return Ok(batch);
    }
    batch.filter(&batch.changes.iter().map(|c| !refused.contains(c)).collect())
}

/// The manifest of a snapshot's cut.
#[derive(serde::Serialize, serde::Deserialize)]
struct Manifest {
    tables: Vec<StagedTable>,
}

#[async_trait]
impl Sink for DeltaSink {
    async fn fence(&mut self, claim: &Claim) -> Result<Stored> {
        if claim.pipeline != self.pipeline {
            return Err(Error::bug(format!("the sink of pipeline {} is claimed by {}", self.pipeline, claim.pipeline)));
        }
        self.committed = self.committed();
        self.tables.clear();
        self.folders.clear();
        self.held.clear();
        self.refused.clear();
        self.refusals.clear();
        self.letters.clear();
        if !self.probed {
            self.base.probe_conditional_put(&format!("_millrace/probe-{:016x}", self.environment.random())).await?;
            self.probed = true;
        }
        let owner = Owner {
            ids: AppIds::new(&claim.pipeline, &claim.incarnation),
            pipeline: claim.pipeline.clone(),
            incarnation: claim.incarnation.clone(),
            epoch: claim.epoch,
            log_retention_hours: self.config.log_retention_hours,
            deleted_file_retention_hours: self.config.deleted_file_retention_hours,
            stores_all_positions: self.stores_all_positions,
            properties: table::properties(&self.config),
            compaction_turn: Arc::new(Semaphore::new(1)),
        };
        let mut stores = Vec::with_capacity(claim.tables.len());
        for name in &claim.tables {
            stores.push((name.clone(), self.claim_folder(name)?));
        }
        let with = Fencing {
            config: &self.config,
            environment: &self.environment,
            cache: self.cache.as_ref(),
            meta: self.meta(),
        };
        let fenced = stream::iter(stores).map(|(name, store)| fence_table(name, store, &owner, with));
        let fenced: Vec<(TableName, SinkTable)> = fenced.buffered(MAX_AT_ONCE).try_collect().await?;
        let stored = fenced.iter().map(|(name, table)| (name.clone(), table.head.positions.clone())).collect();
        self.tables.extend(fenced);
        self.owner = Some(owner);
        Ok(stored)
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if !is_of(&self.held, &batch.origin) {
            self.settle_held().await?;
        }
        let name = batch.schema.name.clone();
        if !self.tables.contains_key(&name) {
            self.open_unnamed(&name).await?;
        }
        let meta = self.meta();
        let table = self.tables.get_mut(&name).ok_or_else(|| Error::bug("an opened table is gone"))?;
        match table.layout(&batch.schema, &self.config, meta)? {
            Ok(layout) if table.upserts.is_some() => self.write_rows(name, layout, batch),
            Ok(layout) => {
                self.held.push(Held { table: name, layout, batch });
                Ok(())
            }
            Err(misfit) if table.upserts.is_some() => self.refuse_rows(batch, misfit),
            Err(misfit) => self.refuse(batch, misfit),
        }
    }

    async fn prepare(&mut self, cut: &Cut) -> Result<Prepared> {
        self.settle_held().await?;
        let tables = stream::iter(self.tables.values_mut().map(Ok));
        tables.try_for_each_concurrent(MAX_AT_ONCE, SinkTable::finish).await?;
        if self.cache.is_some() {
            self.prepare_rows(cut).await?;
        }
        // That others made it is no difference: a start has to fence it.
        let is_new = |(name, table): (&TableName, &SinkTable)| {
            (table.head.positions.is_empty() && !table.is_empty()).then(|| name.clone())
        };
        let manifest = if cut.is_snapshot() { Some(self.manifest(cut)?) } else { None };
        Ok(Prepared {
            refused: std::mem::take(&mut self.refusals),
            new_tables: self.tables.iter().filter_map(is_new).collect(),
            manifest,
        })
    }

    async fn commit(&mut self, cut: &Cut) -> Result<()> {
        let owner = self.owner.as_ref().ok_or_else(|| Error::bug("the delta sink commits before its fence"))?;
        let letters = &self.letters;
        let commits: Vec<_> = self.tables.values_mut().map(|table| table.commit_any(cut, owner, letters)).collect();
        // Every table gets its chance; the first error is the answer.
        let answers: Vec<Result<()>> = stream::iter(commits).buffered(MAX_AT_ONCE).collect().await;
        answers.into_iter().collect::<Result<()>>()?;
        self.letters.clear();
        Ok(())
    }

    async fn recommit(&mut self, manifest: &str) -> Result<()> {
        let manifest: Manifest = serde_json::from_str(manifest).map_err(|e| {
            Error::halt("record.damaged", format!("the manifest of a staged snapshot does not parse: {e}"))
        })?;
        for staged in manifest.tables {
            let name = TableName::new(staged.namespace.as_str(), staged.table.as_str());
            if !self.tables.contains_key(&name) {
                self.open_unnamed(&name).await?;
            }
            let owner = self.owner.as_ref().ok_or_else(|| Error::bug("the delta sink recommits before its fence"))?;
            if let Some(table) = self.tables.get_mut(&name) {
                table.recommit(staged, owner).await?;
            }
        }
        Ok(())
    }

    fn records(&self) -> Option<Arc<dyn RecordStore>> {
        Some(Arc::clone(&self.records) as Arc<dyn RecordStore>)
    }

    async fn stored_letters(&mut self, after: Option<Order>) -> Result<Vec<StoredLetter>> {
        let owner = self.owner()?;
        match self.tables.get(&letters::schema().name) {
            Some(table) => crate::stored_letters::read(&table.table, owner, after).await,
            None => Ok(Vec::new()),
        }
    }

    async fn stored_keys(&mut self) -> Result<Vec<StoredKeys>> {
        let owner = self.owner()?;
        match self.tables.get(&letters::schema().name) {
            Some(table) => crate::stored_letters::read_keys(&table.table, owner).await,
            None => Ok(Vec::new()),
        }
    }

    async fn provenance(&mut self, line: &Provenance) -> Result<()> {
        let store = self.base.at(&format!("_millrace/{}/provenance", safe_name(&self.pipeline)))?;
        let mut table = ProvenanceTable::open(store, Arc::clone(&self.environment)).await?;
        table.append(line).await
    }

    fn rewritten(&self) -> u64 {
        self.tables.values().map(|table| table.rewritten).sum()
    }

    fn committed(&self) -> BTreeMap<TableName, u64> {
        let mut all = self.committed.clone();
        for (name, table) in self.tables.iter().filter(|(_, table)| table.committed > 0) {
            *all.entry(name.clone()).or_default() += table.committed;
        }
        all
    }

    fn location(&self, table: &TableName) -> Option<String> {
        self.base.at(&self.template.folder(table)).ok().map(|store| store.location())
    }
}

impl DeltaSink {
    fn manifest(&self, cut: &Cut) -> Result<String> {
        let owner = self.owner()?;
        let staged = self.tables.iter().map(|(name, table)| table.staged(name, cut, owner));
        let tables = staged.filter_map(Result::transpose).collect::<Result<_>>()?;
        serde_json::to_string(&Manifest { tables }).map_err(|e| Error::bug(e.to_string()))
    }
}

/// What fencing a table needs of the sink.
#[derive(Clone, Copy)]
struct Fencing<'a> {
    config: &'a DeltaConfig,
    environment: &'a Arc<dyn Environment>,
    cache: Option<&'a Arc<KeyCache>>,
    meta: MetaColumns,
}

async fn fence_table(
    name: TableName,
    store: Store,
    owner: &Owner,
    with: Fencing<'_>,
) -> Result<(TableName, SinkTable)> {
    let mut table = open_table(store, with.environment, with.config).await?;
    if owner.ids.head_of(table.state()) != Head::default() {
        table.check_not_rewound(&owner.pipeline).await?;
    }
    if let Some(state) = table.state() {
        table::check_state(&table.place(), state, with.config)?;
    }
    let head = SinkTable::fence(&mut table, owner, with.meta).await?;
    Ok((name, SinkTable::new(table, head, with.config, with.cache)?))
}

async fn open_table(store: Store, environment: &Arc<dyn Environment>, config: &DeltaConfig) -> Result<Table> {
    let (environment, every) = (Arc::clone(environment), config.checkpoint_interval);
    if config.mode == Mode::Upsert {
        let mut table = Table::open_with_files(store, environment, every).await?;
        if config.vacuum {
            table.vacuum();
        }
        Ok(table)
    } else {
        Table::open(store, environment, every).await
    }
}
