//! A plugin as a step on the way: one warm instance, its plans, and what happens when a call fails.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use millrace_core::batch::ChangeBatch;
use millrace_core::outcome::resolve;
use millrace_core::schema::TableSchema;
use millrace_core::stage::{Stage, StageOutput, StagePlan, StageSpec};
use millrace_core::{Error, Result};

use crate::batch::Shipment;
use crate::bindings::types::StageError;
use crate::component::Prepared;
use crate::host::HostState;
use crate::instance::{Answer, Fault, Instance, Plan, Verdicts, stage_error};
use crate::keys::Keys;
use crate::limits::Limits;
use crate::log::PluginLog;
use crate::outcome::{core_plan, of_check, of_transform, poison, truncate};
use crate::plan::{META, Planned, View, Work};
use crate::raw::{Declared, Raw, RawShipment, of_parse};
use crate::slice::{Part, middle, parts};
use crate::telemetry::Telemetry;

/// Plans of old versions of a table's schema that are kept: a replay goes through a few.
const PLANS: usize = 1_000;

/// What a stage's instances are made with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) spec: StageSpec,
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) limits: Limits,
    pub(crate) keys: Keys,
    pub(crate) log: PluginLog,
    pub(crate) telemetry: Telemetry,
    pub(crate) pipeline: String,
}

/// A plugin at work, of whatever role.
#[derive(Debug)]
pub(crate) struct WasmStage {
    settings: Settings,
    /// None: it is made for the next call.
    instance: Option<Instance>,
    plans: Vec<(Arc<TableSchema>, Option<Arc<Planned>>)>,
    /// Never used twice, for an instance knows its schemas by them.
    next_id: u32,
}

impl Settings {
    pub(crate) fn host(&self) -> HostState {
        HostState::new(&self.limits, self.log.clone(), self.keys.clone(), self.spec.grants.crypto.clone())
    }

    /// Names the plugin and its version in front of what went wrong.
    fn named(&self, error: Error) -> Error {
        error.context(format_args!("plugin {}", self.spec.identity()))
    }

    fn failed(&self, what: &str, fault: &Fault) -> Error {
        self.named(Error::halt(fault.code(), format!("{what} {fault}")).hint(fault.hint()))
    }

    pub(crate) async fn configured(&self) -> Result<Instance> {
        let made = Instance::new(&self.prepared, self.host(), &self.limits).await;
        let mut instance = made.map_err(|fault| self.failed("its start", &fault))?;
        let config = if self.spec.config.trim().is_empty() { "{}" } else { &self.spec.config };
        let answer = instance.configure(config, &self.pipeline).await;
        answer.map_err(|fault| self.failed("configure", &fault))?.map_err(|e| self.named(stage_error(e)))?;
        Ok(instance)
    }

    pub(crate) async fn ask_plan(
        &self,
        instance: &mut Instance,
        schema: &Arc<TableSchema>,
        id: u32,
    ) -> Result<Option<Planned>> {
        let view = View::new(schema, &self.spec.grants);
        let columns = view.columns();
        let table = view.table(&self.pipeline, &columns);
        let what = || format!("plan for {}", schema.name);
        if instance.is_parser() {
            let raw = Raw::of(&view).map_err(|e| self.named(e.context(what())))?;
            let answer = instance.plan_raw(&Raw::offers(&view)).await.map_err(|fault| self.failed(&what(), &fault))?;
            instance.planned.insert(id);
            let plan = answer.map_err(|e| self.named(stage_error(e).context(what())))?;
            let raw = raw.with_meta(&view, &plan.meta).map_err(|e| self.named(e.context(what())))?;
            return Ok(Some(view.parse(id, raw)));
        }
        let answer = instance.plan(id, &view, table, &META).await.map_err(|fault| self.failed(&what(), &fault))?;
        instance.planned.insert(id);
        let checked = match answer.map_err(|e| self.named(stage_error(e).context(what())))? {
            Plan::Bypass => return Ok(None),
            Plan::Transform(plan) => view.transform(id, plan),
            Plan::Check(plan) => view.check(id, plan),
        };
        checked.map(Some).map_err(|e| self.named(e.context(what())))
    }
}

impl WasmStage {
    pub(crate) fn new(settings: Settings, instance: Instance) -> Self {
        Self { settings, instance: Some(instance), plans: Vec::new(), next_id: 1 }
    }

    /// Bytes that its instance holds; 0 where it has none.
    pub(crate) fn memory(&self) -> usize {
        self.instance.as_ref().map_or(0, Instance::memory)
    }

    /// Lets go of the instance: the next call is made on a fresh one, which must plan the same.
    pub(crate) fn renew(&mut self) {
        self.instance = None;
    }

    /// Sends a batch without a row, which the engine never does but the contract allows: the answer must be empty too.
    pub(crate) async fn apply_nothing(&mut self, batch: &ChangeBatch) -> Result<StageOutput> {
        let Some(planned) = self.planned(&batch.schema).await? else { return Ok(StageOutput::default()) };
        let fault = match self.call(&batch.slice(0, 0), &planned).await? {
            Ok(output) => return Ok(output),
            Err(fault) => fault,
        };
        Err(self.settings.failed("a batch without rows", &fault))
    }

    /// The plan for a schema, made and checked when it is first seen.
    async fn planned(&mut self, schema: &Arc<TableSchema>) -> Result<Option<Arc<Planned>>> {
        let known = self.plans.iter().find(|(s, _)| Arc::ptr_eq(s, schema) || s == schema);
        if let Some((_, planned)) = known {
            return Ok(planned.clone());
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut instance = self.take().await?;
        let planned = self.settings.ask_plan(&mut instance, schema, id).await?.map(Arc::new);
        self.instance = Some(instance);
        if self.plans.len() >= PLANS {
            self.plans.remove(0);
        }
        self.plans.push((schema.clone(), planned.clone()));
        Ok(planned)
    }

    async fn take(&mut self) -> Result<Instance> {
        match self.instance.take() {
            Some(instance) => Ok(instance),
            None => self.settings.configured().await,
        }
    }

    /// An instance that knows the schema. A fresh one plans again, and must plan the same.
    async fn ready(&mut self, schema: &Arc<TableSchema>, planned: &Planned) -> Result<Instance> {
        let mut instance = self.take().await?;
        if instance.planned.contains(&planned.id) {
            return Ok(instance);
        }
        match self.settings.ask_plan(&mut instance, schema, planned.id).await? {
            Some(again) if again == *planned => Ok(instance),
            _ => {
                let message = format!("two instances plan differently for {}", schema.name);
                let hint = "a plan must depend on the config and the schema alone: it is a bug of the plugin";
                Err(self.settings.named(Error::halt("plugin.plan_unstable", message).hint(hint)))
            }
        }
    }

    /// One call. The outer error is the stage's, the inner one a fault that the rows may be to blame for.
    async fn call(&mut self, batch: &ChangeBatch, planned: &Planned) -> Result<Result<StageOutput, Fault>> {
        let mut instance = self.ready(&batch.schema, planned).await?;
        let start = Instant::now();
        let answer = ship(&mut instance, batch, planned).await?;
        self.settings.telemetry.call(batch.rows(), start.elapsed(), instance.memory());
        let answer = match answer {
            Ok(Err(StageError::Bug(words))) => {
                let fault = instance.bug(words);
                if !instance.is_worn() {
                    self.instance = Some(instance);
                }
                self.settings.telemetry.fault(fault.code());
                return Ok(Err(fault));
            }
            answer => answer,
        };
        let verdicts = match answer {
            Ok(verdicts) => verdicts,
            Err(fault) => {
                self.settings.telemetry.fault(fault.code());
                tracing::debug!(plugin = self.settings.spec.identity(), rows = batch.rows(), %fault, "a call failed");
                return Ok(Err(fault));
            }
        };
        let judged = match verdicts {
            Ok(verdicts) => self.judge(batch, planned, verdicts, &mut instance.declared),
            Err(error) => Err(self.settings.named(stage_error(error))),
        };
        if instance.is_worn() {
            self.settings.telemetry.recycled();
        } else {
            self.instance = Some(instance);
        }
        let output = judged?;
        let rows = output.batches.iter().map(ChangeBatch::rows).sum();
        self.settings.telemetry.answered(rows, output.rejects.len());
        Ok(Ok(output))
    }

    fn judge(
        &self,
        batch: &ChangeBatch,
        planned: &Planned,
        verdicts: Verdicts,
        declared: &mut Declared,
    ) -> Result<StageOutput> {
        let bad_answer = |wrong| {
            let message = format!("its answer for {} rows of {}: {wrong}", batch.rows(), batch.schema.name);
            let hint = "it is a bug of the plugin: its answer does not fit the contract or its plan";
            self.settings.named(Error::halt("plugin.bad_answer", message).hint(hint))
        };
        let outcome = match (verdicts, &planned.work) {
            (Verdicts::Parsed(parsed), _) => return of_parse(batch, parsed, declared).map_err(bad_answer),
            (Verdicts::Outcome(outcome), _) => of_transform(batch, planned, outcome).map_err(bad_answer),
            (Verdicts::Violations(violations), Work::Check { rules, .. }) => {
                let judged = of_check(batch, rules, violations).map_err(bad_answer)?;
                for (rule, times) in rules.iter().zip(&judged.counts).filter(|(_, times)| **times > 0) {
                    self.settings.telemetry.violated(&rule.name, *times);
                }
                match judged.quarantine {
                    None => Ok(judged.outcome),
                    Some(reason) => {
                        let hint =
                            "the rule's severity is `quarantine`: mend the rows at the source, or change the rule";
                        Err(self.settings.named(Error::halt_table("rule.quarantine", reason).hint(hint)))
                    }
                }
            }
            (Verdicts::Violations(_), _) => Err(bad_answer("it judges, but planned something else".to_string())),
        }?;
        resolve(batch, core_plan(planned), outcome)
    }

    /// Runs the rows, and finds the changes that the plugin can not stand: they are refused, the rest goes on.
    async fn run(&mut self, batch: &ChangeBatch, planned: &Planned) -> Result<StageOutput> {
        let mut fault = match self.call(batch, planned).await? {
            Ok(output) => return Ok(output),
            Err(fault) => fault,
        };
        if fault.may_be_age() {
            fault = match self.call(batch, planned).await? {
                Ok(output) => return Ok(output),
                Err(fault) => fault,
            };
        }
        self.bisect(batch, planned, fault).await
    }

    /// Left to right, each half on the instance that is left or a fresh one.
    async fn bisect(&mut self, batch: &ChangeBatch, planned: &Planned, first: Fault) -> Result<StageOutput> {
        let mut output = StageOutput::default();
        let mut poisoned = 0;
        let mut failed = Some(first);
        #[allow(clippy::single_range_in_vec_init, reason = "a stack of ranges that starts with one")]
        let mut waiting = vec![0..batch.rows()];
        while let Some(rows) = waiting.pop() {
            let part = batch.slice(rows.start, rows.len());
            // The whole batch has failed already.
            let fault = match failed.take() {
                Some(fault) => fault,
                None => match self.call(&part, planned).await? {
                    Ok(answered) => {
                        merge(&mut output, answered);
                        continue;
                    }
                    Err(fault) => fault,
                },
            };
            if let Some(at) = middle(batch, rows.clone()) {
                waiting.push(at..rows.end);
                waiting.push(rows.start..at);
                continue;
            }
            poisoned += 1;
            if poisoned > self.settings.limits.poison_rows {
                return Err(self.over_budget(batch, &fault));
            }
            let reason = format!("plugin {} {fault}", self.settings.spec.identity());
            merge(&mut output, self.refuse(&part, planned, fault.code(), &reason)?);
        }
        Ok(output)
    }

    fn over_budget(&self, batch: &ChangeBatch, last: &Fault) -> Error {
        let rows = self.settings.limits.poison_rows;
        let what = format!("more than {rows} changes of a batch of {} fail; the last one", batch.schema.name);
        self.settings.failed(&what, last)
    }

    fn refuse(&self, part: &ChangeBatch, planned: &Planned, code: &str, reason: &str) -> Result<StageOutput> {
        let output = resolve(part, core_plan(planned), poison(part, planned, code, reason))?;
        self.settings.telemetry.answered(0, output.rejects.len());
        Ok(output)
    }

    fn too_large(&self, batch: &ChangeBatch, planned: &Planned, rows: Range<usize>) -> Result<StageOutput> {
        let limits = &self.settings.limits;
        let reason = format!(
            "the change takes more than {} MiB, a quarter of the memory of plugin {}: raise `limits: {{ memory }}`",
            limits.slice_bytes() >> 20,
            self.settings.spec.identity()
        );
        self.refuse(&batch.slice(rows.start, rows.len()), planned, "row.too_large", &reason)
    }
}

/// One call into the plugin, with what it asked for.
async fn ship(instance: &mut Instance, batch: &ChangeBatch, planned: &Planned) -> Result<Answer<Verdicts>> {
    if let Work::Parse { raw, .. } = &planned.work {
        let shipment = RawShipment::new(batch, raw)?;
        let meta = shipment.meta();
        return Ok(instance.parse(shipment.batch(&meta)).await);
    }
    let shipment = Shipment::new(batch, planned)?;
    let (meta, columns) = shipment.params();
    Ok(instance.run(planned, shipment.batch(&meta, &columns)).await)
}

fn merge(into: &mut StageOutput, from: StageOutput) {
    into.batches.extend(from.batches);
    into.rejects.extend(from.rejects);
    into.dropped += from.dropped;
    into.emitted += from.emitted;
}

#[async_trait]
impl Stage for WasmStage {
    fn spec(&self) -> &StageSpec {
        &self.settings.spec
    }

    async fn plan(&mut self, schema: &Arc<TableSchema>) -> Result<Option<StagePlan>> {
        Ok(self.planned(schema).await?.map(|planned| planned.stage_plan.clone()))
    }

    async fn apply(&mut self, batch: &ChangeBatch) -> Result<StageOutput> {
        let Some(planned) = self.planned(&batch.schema).await? else {
            return Ok(StageOutput { batches: vec![batch.clone()], ..StageOutput::default() });
        };
        if batch.is_truncate() {
            return Ok(StageOutput { batches: vec![truncate(batch, core_plan(&planned))], ..StageOutput::default() });
        }
        if batch.is_empty() {
            return Ok(StageOutput::default());
        }
        let parts = parts(batch, &planned, &self.settings.limits);
        if let [Part::Run(_)] = parts.as_slice() {
            return self.run(batch, &planned).await;
        }
        let mut output = StageOutput::default();
        for part in parts {
            let answered = match part {
                Part::Run(rows) => self.run(&batch.slice(rows.start, rows.len()), &planned).await?,
                Part::TooLarge(rows) => self.too_large(batch, &planned, rows)?,
            };
            merge(&mut output, answered);
        }
        Ok(output)
    }
}
