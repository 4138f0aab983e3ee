//! Tables of current rows: their share of a cut, from its batches to the commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_core::batch::ChangeBatch;
use millrace_core::compare_and_set::Head;
use millrace_core::cut::Cut;
use millrace_core::position::{Order, SourceKey};
use millrace_core::quarantine;
use millrace_core::schema::{Images, TableName, TableSchema};
use millrace_core::sink::Refusal;
use millrace_core::{Error, Result};

use super::table::{FILES_CHANGED, SinkTable, StagedTable};
use super::{DeltaSink, Held, Owner};
use crate::config::DeltaConfig;
use crate::file::layout::{Layout, Misfit, table_name_of};
use crate::log::actions::{Action, Metadata};
use crate::log::features::ENABLE_CHANGE_DATA_FEED;
use crate::log::{Step, TableState};
use crate::mutants::{Mutant, has};
use crate::positions::{AppIds, compare};
use crate::upsert::{Form, KEY, Options, Refused, Staged, Upserts};

/// Plans of one cut for one table. Others who change its files more often than that leave no room for us.
const MAX_PLANS: usize = 20;

impl DeltaSink {
    /// Takes a batch whose layout is known: a snapshot's goes to files at once, another is folded at the end of the cut.
    pub(super) fn write_rows(&mut self, name: TableName, layout: Arc<Layout>, batch: ChangeBatch) -> Result<()> {
        let table = self.tables.get_mut(&name).ok_or_else(|| Error::bug("an opened table is gone"))?;
        let upserts = table.upserts.as_mut().ok_or_else(|| Error::bug("a table without a key"))?;
        let unfit = if batch.origin.snapshot {
            upserts.check_rows(&layout, &batch)?
        } else {
            upserts.push(&layout, batch.clone())?
        };
        for (changes, misfit) in unfit {
            let refused = batch.filter(&batch.changes.iter().map(|c| changes.contains(c)).collect())?;
            self.refuse_rows(refused, misfit)?;
        }
        if batch.origin.snapshot {
            self.held.push(Held { table: name, layout, batch });
        }
        Ok(())
    }

    pub(super) fn refuse_rows(&mut self, batch: ChangeBatch, misfit: Misfit) -> Result<()> {
        if batch.origin.snapshot {
            return self.refuse(batch, misfit);
        }
        let refusal = Refusal { batch, code: misfit.code, reason: misfit.reason, column: misfit.column };
        self.note_letters(&refusal);
        self.refusals.push(refusal);
        Ok(())
    }

    /// What comes after a refused change of its key, in whichever table, waits behind it (I15).
    fn behind(&self, refused: &[Refusal]) -> Result<Vec<Refusal>> {
        let all: Vec<&ChangeBatch> = self.refusals.iter().chain(refused).map(|refusal| &refusal.batch).collect();
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let tables = self.tables.values().filter_map(|table| table.upserts.as_ref());
        let written: Vec<&ChangeBatch> = tables.flat_map(Upserts::written).collect();
        let mut waits = Vec::new();
        for batch in quarantine::behind(&all, &written)? {
            let known = |change: u32| {
                let order = batch.origin.orders[change as usize];
                self.letters.contains(&(batch.origin.source.clone(), order))
            };
            let (batch, _) = batch.partition(|change| !known(change))?;
            if !batch.is_empty() {
                waits.push(Refusal { batch, code: quarantine::WAITS, reason: quarantine::BEHIND.into(), column: None });
            }
        }
        Ok(waits)
    }

    /// A refused change leaves every table.
    pub(super) fn note_letters(&mut self, refusal: &Refusal) {
        let origin = &refusal.batch.origin;
        let id = |change: &u32| (origin.source.clone(), origin.orders[*change as usize]);
        self.letters.extend(refusal.batch.changes.iter().map(id));
    }

    /// Finds what the cut replaces, refuses what can not be applied, and writes the new files.
    pub(super) async fn prepare_rows(&mut self, cut: &Cut) -> Result<()> {
        let pipeline = self.pipeline.clone();
        loop {
            let owner = self.owner.as_ref().ok_or_else(|| Error::bug("the delta sink prepares before its fence"))?;
            let mut refused = Vec::new();
            for table in self.tables.values_mut() {
                table.table.see_newest(&pipeline).await?;
                table.check_head(cut, owner)?;
                refused.extend(table.examine(&self.letters).await?);
            }
            if !cut.is_snapshot() {
                refused.extend(self.behind(&refused)?);
            }
            if refused.is_empty() {
                break;
            }
            refused.iter().for_each(|refusal| self.note_letters(refusal));
            self.refusals.extend(refused);
        }
        for table in self.tables.values_mut() {
            table.stage_rows(cut, &self.letters).await?;
        }
        Ok(())
    }
}

/// The source tables that feed a table.
enum Feeders {
    These(BTreeSet<SourceKey>),
    /// Rows are there that no pipeline put there.
    Others,
}

impl Feeders {
    /// Whether every row of the table is of this source table.
    fn are_only(&self, source: &SourceKey) -> bool {
        match self {
            Feeders::These(found) => found.iter().all(|feeder| feeder == source),
            Feeders::Others => false,
        }
    }
}

impl SinkTable {
    /// What tells the rows of this table apart: what the pipeline says, else the source table's primary key.
    pub(super) fn set_key(&mut self, source: &TableSchema, config: &DeltaConfig) -> Result<()> {
        let Some(upserts) = &mut self.upserts else { return Ok(()) };
        let of_identity = |name: &String| source.columns.iter().any(|c| c.key && *c.name == **name);
        let names: Vec<String> = match config.key.get(&source.name.to_string()) {
            Some(columns) if source.images == Images::Key && !columns.iter().all(of_identity) => {
                let (table, key) = (&source.name, columns.join(", "));
                let reason = format!(
                    "{table}: changes say of the row before no more than its primary key, and it is told apart by ({key})"
                );
                return Err(Error::halt_table("upsert.key_unsent", reason)
                    .hint("a row whose key changes would stay under the old one: `alter table … replica identity full`, or leave `key:` to the primary key"));
            }
            Some(columns) => columns.iter().map(|c| table_name_of(c)).collect(),
            None => source.columns.iter().filter(|c| c.key).map(|c| table_name_of(&c.name)).collect(),
        };
        upserts.set_key(&self.table, &self.schema, names)?;
        let order = config.order_by.get(&source.name.to_string()).map(|column| table_name_of(column));
        upserts.set_order(&self.table, &self.schema, order.as_deref())
    }

    pub(super) fn with_key(&self, mut metadata: Metadata) -> Metadata {
        if let Some(upserts) = &self.upserts {
            metadata.configuration.insert(KEY.into(), serde_json::to_string(upserts.key()).ok());
        }
        metadata
    }

    /// Nothing of the cut goes in.
    pub(super) fn is_empty(&self) -> bool {
        self.staging.is_empty() && self.upserts.as_ref().and_then(Upserts::staged).is_none()
    }

    /// Whose rows the table holds.
    fn feeders(&self) -> Feeders {
        let Some(state) = self.table.state() else { return Feeders::These(BTreeSet::new()) };
        let found = AppIds::feeders(&state.txns);
        let has_rows = state.files.as_ref().is_some_and(|files| files.len() > 0);
        if found.is_empty() && has_rows { Feeders::Others } else { Feeders::These(found) }
    }

    /// A table that keeps a feed by its own property gets it whatever the settings say.
    fn options_now(&self) -> Options {
        let state = self.table.state();
        let keeps_feed = state.and_then(|s| s.metadata.property(ENABLE_CHANGE_DATA_FEED));
        let change_data_feed =
            self.options.change_data_feed || keeps_feed.is_some_and(|v| v.eq_ignore_ascii_case("true"));
        Options { change_data_feed, ..self.options }
    }

    /// I6: what another host owns, or has moved on, is no table to plan on. Beside a snapshot that is being staged the
    /// stream moves on.
    fn check_head(&self, cut: &Cut, owner: &Owner) -> Result<()> {
        let found = owner.ids.head_of(self.table.state());
        let positions = if cut.is_snapshot() { &found.positions } else { &self.head.positions };
        let continues_from = Head { epoch: owner.epoch, positions: positions.clone() };
        compare(&self.table.place(), &found, &continues_from)
    }

    pub(super) async fn examine(&mut self, letters: &Refused) -> Result<Vec<Refusal>> {
        let feeders = self.feeders();
        let Some(upserts) = &mut self.upserts else { return Ok(Vec::new()) };
        upserts.examine(&self.table, &self.schema, letters, move |source| feeders.are_only(source)).await
    }

    /// Writes what the commit will refer to.
    pub(super) async fn stage_rows(&mut self, cut: &Cut, letters: &Refused) -> Result<()> {
        let options = self.options_now();
        let Some(upserts) = &mut self.upserts else { return Ok(()) };
        let form = Form { schema: &self.schema, partition_by: &self.partition_by, options };
        if cut.is_snapshot() {
            return if self.staging.is_empty() { Ok(()) } else { self.stage_snapshot().await };
        }
        for source in upserts.sources(letters) {
            // Only its name is used: the commit takes the order from the cut.
            self.staging.sources.insert(source, Order::START);
        }
        if self.staging.sources.is_empty() {
            upserts.forget();
            return Ok(());
        }
        upserts.stage(&self.table, form).await
    }

    async fn stage_snapshot(&mut self) -> Result<()> {
        let mut sources = self.staging.sources.keys();
        let whole = match (sources.next(), sources.next()) {
            (Some(source), None) => self.feeders().are_only(source),
            _ => false,
        };
        let options = self.options_now();
        let form = Form { schema: &self.schema, partition_by: &self.partition_by, options };
        let upserts = self.upserts.as_mut().ok_or_else(|| Error::bug("a table without a key"))?;
        upserts.stage_snapshot(&self.table, form, &self.staging.adds, (whole, self.staging.rows)).await
    }

    /// Commits the cut's rows and positions together (I1). A plan that others overtook is made anew.
    ///
    /// Errors: as [`millrace_core::sink::Sink::commit`]; `table.replanned` (reload) where the table as it is now refuses
    /// changes that are on their way.
    pub(super) async fn commit_rows(&mut self, cut: &Cut, owner: &Owner, letters: &Refused) -> Result<()> {
        self.rewritten = 0;
        if self.is_empty() {
            return Ok(());
        }
        let positions = self.new_positions(cut, owner)?;
        for _ in 0..MAX_PLANS {
            let staged = self.upserts.as_ref().and_then(Upserts::staged);
            let staged = staged.ok_or_else(|| Error::bug("a cut is committed before it is prepared"))?;
            let (files, images): (Vec<Action>, u64) = (staged.actions().collect(), staged.images);
            self.rewritten = staged.rewritten;
            let answer = self.commit_files(files, positions.clone(), owner, Some(staged.files_at)).await;
            match answer {
                Ok(()) => return self.note_committed(images),
                Err(error) if error.code == FILES_CHANGED => self.plan_anew(cut, owner, letters).await?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::retry(
            "table.busy",
            format!("{}: others changed its files {MAX_PLANS} times before us", self.table.place()),
        ))
    }

    /// Commits the table's share, whatever its mode.
    pub(super) async fn commit_any(&mut self, cut: &Cut, owner: &Owner, letters: &Refused) -> Result<()> {
        if self.upserts.is_none() {
            return self.commit(cut, owner).await;
        }
        self.commit_rows(cut, owner, letters).await?;
        if let Some(upserts) = &mut self.upserts {
            upserts.merge_keys(&self.table, &owner.compaction_turn);
        }
        if self.compaction
            && let Err(error) = self.compact(owner).await
        {
            // The cut is committed whatever became of this; the next one reads the table anew.
            let table = self.table.place();
            tracing::warn!(%table, %error, "no compaction; it is tried again");
            metrics::counter!("millrace_delta_compaction_failures_total", "table" => table).increment(1);
        }
        Ok(())
    }

    /// Commits compaction that is finished, and starts what is next.
    async fn compact(&mut self, owner: &Owner) -> Result<()> {
        let Some(upserts) = &mut self.upserts else { return Ok(()) };
        if let Some(finished) = upserts.finished_compaction()?
            && let Some(plan) = upserts.plan_compaction(&self.table, &finished, self.options.deletion_vectors).await?
        {
            self.commit_compaction(&plan, owner).await?;
            if let Some(upserts) = &mut self.upserts {
                upserts.compacted(&self.table, plan)?;
            }
        }
        match &mut self.upserts {
            Some(upserts) => upserts.start_compaction(&self.table, self.options, &owner.compaction_turn).await,
            None => Ok(()),
        }
    }

    async fn commit_compaction(&mut self, plan: &Staged, owner: &Owner) -> Result<()> {
        let place = self.table.place();
        let head = self.head.clone();
        let check = |state: Option<&TableState>| {
            compare(&place, &owner.ids.head_of(state), &head)?;
            if plan.files_at != state.map(|s| s.files_changed_at) && !has(Mutant::CompactionUnchecked) {
                return Err(Error::reload(FILES_CHANGED, format!("{place}: others added or removed files")));
            }
            Ok(Step::Commit)
        };
        self.table.commit("OPTIMIZE", &owner.pipeline, plan.actions().collect(), &check).await
    }

    fn note_committed(&mut self, images: u64) -> Result<()> {
        self.staging = Default::default();
        self.note_rows(images);
        match &mut self.upserts {
            Some(upserts) => upserts.committed(&self.table),
            None => Ok(()),
        }
    }

    /// Looks at the table again. The letters of this cut are stored: there can be no more of them.
    async fn plan_anew(&mut self, cut: &Cut, owner: &Owner, letters: &Refused) -> Result<()> {
        metrics::counter!("millrace_delta_replans_total", "table" => self.table.place()).increment(1);
        self.table.see_newest(&owner.pipeline).await?;
        self.check_head(cut, owner)?;
        if !self.examine(letters).await?.is_empty() {
            let place = self.table.place();
            return Err(Error::reload(
                "table.replanned",
                format!("{place}: others removed rows that this cut takes values from"),
            ));
        }
        self.stage_rows(cut, letters).await
    }

    /// Commits what a snapshot of an earlier run staged.
    pub(super) async fn recommit_rows(&mut self, staged: StagedTable, owner: &Owner) -> Result<()> {
        let upserts = self.upserts.as_mut().ok_or_else(|| Error::bug("a table without a key"))?;
        upserts.set_key(&self.table, &self.schema, staged.key.clone())?;
        self.staging.adds.clone_from(&staged.adds);
        self.staging.rows = staged.rows;
        self.staging.sources = staged.positions.clone();
        for _ in 0..MAX_PLANS {
            self.table.see_newest(&owner.pipeline).await?;
            self.stage_snapshot().await?;
            let plan = self.upserts.as_ref().and_then(Upserts::staged);
            let plan = plan.ok_or_else(|| Error::bug("a snapshot that was not planned"))?;
            let (files, images): (Vec<Action>, u64) = (plan.actions().collect(), plan.images);
            match self.commit_files(files, staged.positions.clone(), owner, Some(plan.files_at)).await {
                Ok(()) => return self.note_committed(images),
                Err(error) if error.code == FILES_CHANGED => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::retry("table.busy", format!("{}: others change its files all the time", self.table.place())))
    }
}
