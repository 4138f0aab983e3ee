//! One instance of a component: a store, and the calls into it. Each call has a deadline, and answers or is a [`Fault`].

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use millrace_core::Error;
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::bindings::types::{Batch, MetaNameParam, Reject, StageError, TableSchemaParam};
use crate::bindings::{converter, lifecycle, parser, transform, validator};
use crate::component::{Prepared, StageIndices};
use crate::engine::TICK;
use crate::host::HostState;
use crate::limits::Limits;
use crate::plan::{Planned, View};
use crate::raw::Declared;

/// A plugin that computes for long gives way to others this often.
const YIELD_TICKS: u64 = 5;

/// Why a call gave no answer. The instance is gone then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Timeout(Duration),
    Memory(u32),
    Stack,
    Answer(u32),
    /// Its name, and the plugin's last words.
    Trap(String),
    /// What the plugin says of itself: the same as a trap, but the instance lives.
    Bug(String),
}

impl Fault {
    /// Stable, for dead letters and errors.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Fault::Timeout(_) => "plugin.timeout",
            Fault::Memory(_) => "plugin.memory",
            Fault::Stack => "plugin.stack",
            Fault::Answer(_) => "plugin.answer_too_large",
            Fault::Trap(_) => "plugin.trap",
            Fault::Bug(_) => "plugin.bug",
        }
    }

    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Fault::Timeout(_) => {
                "raise `limits: { batch_time, time_per_1000_rows }` of the stage if the plugin needs the time"
            }
            Fault::Memory(_) => "raise `limits: { memory }` of the stage if the plugin needs the memory",
            Fault::Stack => "look for a recursion without an end in the plugin",
            Fault::Answer(_) => "raise `limits: { answer_mib }` of the stage if the plugin's rows are that large",
            Fault::Trap(_) | Fault::Bug(_) => "it is a bug of the plugin: run the row through `millrace test`",
        }
    }

    /// May be the fault of an instance that has grown old, not of the rows: once more on a fresh one.
    pub(crate) fn may_be_age(&self) -> bool {
        !matches!(self, Fault::Trap(_) | Fault::Bug(_) | Fault::Answer(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Timeout(time) => write!(f, "took more than {} ms", time.as_millis()),
            Fault::Memory(mib) => write!(f, "wanted more than {mib} MiB of memory"),
            Fault::Stack => write!(f, "ran out of stack"),
            Fault::Answer(mib) => write!(f, "handed more than {mib} MiB to the host"),
            Fault::Trap(words) => write!(f, "trapped: {words}"),
            Fault::Bug(words) => write!(f, "met a bug of its own: {words}"),
        }
    }
}

/// What a plugin says about a whole call, as the engine reacts to it.
pub(crate) fn stage_error(error: StageError) -> Error {
    match error {
        StageError::RetryLater(retry) => {
            Error::retry("plugin.retry_later", format!("{} (it asks to wait {} ms)", retry.reason, retry.after_ms))
        }
        StageError::UnsupportedSchema(reason) => Error::halt_table("plugin.unsupported_schema", reason)
            .hint("leave the table out with `tables:` of the stage, or change the plugin"),
        StageError::InvalidConfig(reason) => {
            Error::config("plugin.invalid_config", reason).hint("see `millrace plugin inspect` for the plugin's config")
        }
        StageError::Bug(reason) => Error::halt("plugin.bug", reason).hint("it is a bug of the plugin"),
    }
}

pub(crate) type Answer<T> = Result<Result<T, StageError>, Fault>;

pub(crate) struct Instance {
    store: Store<HostState>,
    lifecycle: lifecycle::Guest,
    stage: Guest,
    limits: Limits,
    calls: u32,
    deadline: Duration,
    /// Schemas that it has planned.
    pub(crate) planned: HashSet<u32>,
    /// Those that it, a parser, has declared itself.
    pub(crate) declared: Declared,
}

enum Guest {
    Parser(parser::Guest),
    Converter(converter::Guest),
    Transform(transform::Guest),
    Validator(validator::Guest),
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Instance {
    /// A fresh instance. Runs whatever the component runs at its start.
    pub(crate) async fn new(prepared: &Prepared, host: HostState, limits: &Limits) -> Result<Self, Fault> {
        let mut store = Store::new(prepared.pre.engine(), host);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.answer_bytes());
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            let next = state.ticks_left.min(YIELD_TICKS);
            if next == 0 {
                return Ok(UpdateDeadline::Interrupt);
            }
            state.ticks_left -= next;
            Ok(UpdateDeadline::Yield(next))
        });
        let deadline = limits.setup_time();
        start_clock(&mut store, deadline);
        let made = async {
            let instance = prepared.pre.instantiate_async(&mut store).await?;
            let lifecycle = prepared.lifecycle.load(&mut store, &instance)?;
            let stage = match &prepared.stage {
                StageIndices::Parser(indices) => Guest::Parser(indices.load(&mut store, &instance)?),
                StageIndices::Converter(indices) => Guest::Converter(indices.load(&mut store, &instance)?),
                StageIndices::Transform(indices) => Guest::Transform(indices.load(&mut store, &instance)?),
                StageIndices::Validator(indices) => Guest::Validator(indices.load(&mut store, &instance)?),
            };
            Ok((lifecycle, stage))
        };
        match made.await {
            Ok((lifecycle, stage)) => {
                let (limits, planned) = (limits.clone(), HashSet::new());
                Ok(Self { store, lifecycle, stage, limits, calls: 0, deadline, planned, declared: Declared::new() })
            }
            Err(error) => Err(fault(&error, store.data(), limits, deadline)),
        }
    }

    pub(crate) async fn describe(&mut self) -> Result<lifecycle::Info, Fault> {
        self.start(self.limits.setup_time());
        let answer = self.lifecycle.call_describe(&mut self.store).await;
        self.end(answer)
    }

    pub(crate) async fn configure(&mut self, json: &str, pipeline: &str) -> Answer<()> {
        self.start(self.limits.setup_time());
        let config = lifecycle::Config { json, pipeline, ext: &[] };
        let answer = self.lifecycle.call_configure(&mut self.store, config).await;
        self.end(answer)
    }

    pub(crate) fn is_parser(&self) -> bool {
        matches!(self.stage, Guest::Parser(_))
    }

    pub(crate) async fn plan_raw(&mut self, meta: &[MetaNameParam<'_>]) -> Answer<parser::RawPlan> {
        self.start(self.limits.setup_time());
        let Guest::Parser(guest) = &self.stage else { return Ok(Err(wrong_role())) };
        let answer = guest.call_plan(&mut self.store, meta).await;
        self.end(answer)
    }

    pub(crate) async fn parse(&mut self, batch: parser::RawBatch<'_>) -> Answer<Verdicts> {
        self.start(self.limits.batch_time(batch.rows as usize));
        let Guest::Parser(guest) = &self.stage else { return Ok(Err(wrong_role())) };
        let answer = guest.call_parse(&mut self.store, batch).await;
        Ok(self.end(answer)?.map(Verdicts::Parsed))
    }

    pub(crate) async fn plan(
        &mut self,
        id: u32,
        view: &View<'_>,
        table: TableSchemaParam<'_>,
        meta: &[MetaNameParam<'_>],
    ) -> Answer<Plan> {
        self.start(self.limits.setup_time());
        match &self.stage {
            Guest::Parser(_) => Ok(Err(wrong_role())),
            Guest::Converter(_) => self.plan_columns(id, view, table).await,
            Guest::Transform(guest) => {
                let answer = guest.call_plan(&mut self.store, id, table, meta).await;
                Ok(self.end(answer)?.map(|plan| plan.map_or(Plan::Bypass, Plan::Transform)))
            }
            Guest::Validator(guest) => {
                let answer = guest.call_plan(&mut self.store, id, table, meta).await;
                Ok(self.end(answer)?.map(|plan| plan.map_or(Plan::Bypass, Plan::Check)))
            }
        }
    }

    /// Asks for each column by itself; what comes of it is the plan of a transform.
    async fn plan_columns(&mut self, id: u32, view: &View<'_>, table: TableSchemaParam<'_>) -> Answer<Plan> {
        let mut plan = transform::TransformPlan {
            reads: Vec::new(),
            meta: Vec::new(),
            effects: vec!["reject".to_string()],
            rename_table: None,
            drops: Vec::new(),
            renames: Vec::new(),
            writes: Vec::new(),
            shapes: Vec::new(),
            ext: Vec::new(),
        };
        for (index, column) in view.convertible() {
            let id = column_id(id, plan.reads.len());
            self.start(self.limits.setup_time());
            let Guest::Converter(guest) = &self.stage else { return Ok(Err(wrong_role())) };
            let answer = guest.call_plan(&mut self.store, id, table.columns[usize::from(index)].clone()).await;
            let ty = match self.end(answer)? {
                Ok(Some(ty)) => ty,
                Ok(None) => continue,
                Err(error) => return Ok(Err(error)),
            };
            plan.reads.push(index);
            let output = transform::ColumnDef {
                name: column.name.to_string(),
                ty,
                nullable: column.nullable,
                key: column.key,
                source_type: String::new(),
                ext: Vec::new(),
            };
            plan.writes.push(transform::Write { replaces: Some(index), output });
        }
        Ok(Ok(if plan.reads.is_empty() { Plan::Bypass } else { Plan::Transform(plan) }))
    }

    /// Each column by itself; what comes of it is the outcome of a transform.
    async fn convert(&mut self, planned: &Planned, batch: Batch<'_>) -> Answer<Verdicts> {
        let mut columns = Vec::with_capacity(batch.columns.len());
        let mut rejects: Vec<Reject> = Vec::new();
        for (at, input) in batch.columns.iter().enumerate() {
            self.start(self.limits.batch_time(batch.rows as usize));
            let Guest::Converter(guest) = &self.stage else { return Ok(Err(wrong_role())) };
            let id = column_id(planned.id, at);
            let answer = guest.call_convert(&mut self.store, id, batch.rows, input.clone()).await;
            match self.end(answer)? {
                Ok(converted) => {
                    columns.push(Some(converted.column));
                    rejects.extend(converted.rejects);
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        let outcome = transform::Outcome { fates: None, columns, rejects, emissions: Vec::new(), routing: None };
        Ok(Ok(Verdicts::Outcome(outcome)))
    }

    pub(crate) async fn run(&mut self, planned: &Planned, batch: Batch<'_>) -> Answer<Verdicts> {
        self.start(self.limits.batch_time(batch.rows as usize));
        match &self.stage {
            Guest::Parser(_) => Ok(Err(wrong_role())),
            Guest::Converter(_) => self.convert(planned, batch).await,
            Guest::Transform(guest) => {
                let answer = guest.call_apply(&mut self.store, batch).await;
                Ok(self.end(answer)?.map(Verdicts::Outcome))
            }
            Guest::Validator(guest) => {
                let answer = guest.call_check(&mut self.store, batch).await;
                Ok(self.end(answer)?.map(Verdicts::Violations))
            }
        }
    }

    /// What a `bug` comes to: a runtime that was refused memory may live on and say so.
    pub(crate) fn bug(&self, words: String) -> Fault {
        match self.store.data().memory.refused {
            true => Fault::Memory(self.limits.memory_mib),
            false => Fault::Bug(words),
        }
    }

    /// Whether it has served its time: calls, or memory that it will not give back.
    pub(crate) fn is_worn(&self) -> bool {
        let memory = &self.store.data().memory;
        self.calls >= self.limits.calls_per_instance
            || memory.bytes >= self.limits.watermark_bytes()
            // Refused memory once: what its runtime made of that is nobody's to know.
            || memory.refused
    }

    pub(crate) fn memory(&self) -> usize {
        self.store.data().memory.bytes
    }

    fn start(&mut self, time: Duration) {
        self.calls += 1;
        self.deadline = time;
        self.store.data_mut().last_error = None;
        start_clock(&mut self.store, time);
    }

    fn end<T>(&mut self, answer: wasmtime::Result<T>) -> Result<T, Fault> {
        answer.map_err(|error| fault(&error, self.store.data(), &self.limits, self.deadline))
    }
}

/// A plan as the plugin answered it.
#[derive(Debug)]
pub(crate) enum Plan {
    Bypass,
    Transform(transform::TransformPlan),
    Check(validator::CheckPlan),
}

/// What the plugin said of a batch.
#[derive(Debug)]
pub(crate) enum Verdicts {
    Outcome(transform::Outcome),
    Violations(Vec<validator::Violation>),
    Parsed(parser::Parsed),
}

/// Columns that a converter may be bound to, of one table: more than any source has.
const CONVERTED: usize = 1 << 12;

/// What a converter knows a column by: the `at`-th that it took of the schema.
fn column_id(schema: u32, at: usize) -> u32 {
    schema.wrapping_mul(CONVERTED as u32).wrapping_add((at % CONVERTED) as u32)
}

/// The host's own mistake: a stage is asked for what its role does.
fn wrong_role() -> StageError {
    StageError::Bug("the host asked for another role's function".to_string())
}

fn start_clock(store: &mut Store<HostState>, time: Duration) {
    // One more: the tick at work has begun before the call.
    let ticks = (time.as_millis() / TICK.as_millis()) as u64 + 1;
    let first = ticks.min(YIELD_TICKS);
    store.data_mut().ticks_left = ticks - first;
    store.set_epoch_deadline(first);
}

fn fault(error: &wasmtime::Error, state: &HostState, limits: &Limits, deadline: Duration) -> Fault {
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return Fault::Trap(format!("it ended itself with exit status {}", exit.0));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Fault::Timeout(deadline),
        Some(Trap::StackOverflow) => Fault::Stack,
        // A guest that is refused memory aborts, in whatever way its language does.
        _ if state.memory.refused => Fault::Memory(limits.memory_mib),
        Some(trap) => {
            let words = state.last_error.as_deref().map(|words| format!(", after it said: {words}"));
            Fault::Trap(format!("{trap}{}", words.unwrap_or_default()))
        }
        None => {
            let text = format!("{error:#}");
            // wasmtime has no type for it.
            if text.contains("too much data is being copied") {
                Fault::Answer(limits.answer_mib)
            } else {
                Fault::Trap(text.lines().next().unwrap_or_default().to_string())
            }
        }
    }
}
