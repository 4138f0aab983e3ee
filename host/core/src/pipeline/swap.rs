//! Other code in force, between two cuts (I4).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::chain::Chain;
use super::keeper::Keeper;
use super::replay::Replay;
use super::{ConfiguredStage, Pipeline, SwapReport};
use crate::environment::Task;
use crate::error::{Error, Result};
use crate::schema::TableSchema;
use crate::stage::{Stage, StageLoader, StageSpec};

/// Code that is to take the place of what runs.
pub(super) struct Swap {
    pub configured: Vec<ConfiguredStage>,
    pub stages: Vec<Box<dyn Stage>>,
    /// A changed output schema is meant.
    pub allow_schema_change: bool,
    /// Nobody waits for the swap of a start.
    pub reply: Option<oneshot::Sender<Result<SwapReport>>>,
}

/// Code that is in force from a cut on.
pub(super) struct Swapped {
    pub configured: Vec<ConfiguredStage>,
    pub reply: Option<oneshot::Sender<Result<SwapReport>>>,
}

/// What runs at a start, and what is to take its place at the first cut that allows it.
pub(super) struct Code {
    pub stages: Vec<Box<dyn Stage>>,
    pub waiting: Option<Swap>,
}

/// What the record names runs first; what the pipeline file names now takes its place at once where nothing that was begun
/// is left, else at the first cut that allows it (I4).
pub(super) async fn load_stages(pipeline: &Pipeline, keeper: &mut Keeper, replay: &Replay) -> Result<Code> {
    let recorded = keeper.record().stages.clone();
    let configured: Vec<StageSpec> = pipeline.stages.iter().map(|s| s.spec.clone()).collect();
    if recorded == configured {
        return Ok(Code { stages: load(pipeline.loader.as_ref(), &pipeline.stages).await?, waiting: None });
    }
    let new = load(pipeline.loader.as_ref(), &pipeline.stages).await?;
    if replay.is_over_at(keeper.record()) {
        for stage in &pipeline.stages {
            keeper.store().put_artifact(&stage.spec.digest, &stage.artifact).await?;
        }
        keeper.set_stages(configured);
        keeper.write().await?;
        return Ok(Code { stages: new, waiting: None });
    }
    let mut running = Vec::new();
    for spec in recorded {
        let artifact = keeper.store().artifact(&spec.digest).await?.ok_or_else(|| {
            Error::halt("plugin.absent", format!("the code of {} that a cut was begun with is gone", spec.identity()))
                .hint("put the component back under `_millrace/` beside the tables: what was begun under a version is finished by it")
        })?;
        running.push(ConfiguredStage { spec, artifact: artifact.into() });
    }
    let old = load(pipeline.loader.as_ref(), &running).await?;
    let waiting = Swap { configured: pipeline.stages.clone(), stages: new, allow_schema_change: true, reply: None };
    Ok(Code { stages: old, waiting: Some(waiting) })
}

pub(super) async fn load(loader: &dyn StageLoader, configured: &[ConfiguredStage]) -> Result<Vec<Box<dyn Stage>>> {
    let mut stages = Vec::with_capacity(configured.len());
    for stage in configured {
        stages.push(loader.load(&stage.spec, &stage.artifact).await?);
    }
    Ok(stages)
}

impl Chain {
    /// The newest request; one that it overtakes is told so.
    pub(super) fn take_swap(&mut self) {
        while let Ok(swap) = self.swaps.try_recv() {
            if let Some(Swap { reply: Some(reply), .. }) = self.waiting.replace(swap) {
                answer(
                    reply,
                    Err(Error::config("swap.overtaken", "a newer version arrived before this one was put in force")),
                );
            }
        }
    }

    /// Plans the new code against the live schemas and puts it in force; what runs stays where a check fails.
    pub(super) async fn swap(&mut self) -> Option<Swapped> {
        let mut swap = self.waiting.take()?;
        match self.check(&mut swap).await {
            Ok(()) => {
                self.stages = swap.stages;
                self.stops.forget();
                Some(Swapped { configured: swap.configured, reply: swap.reply })
            }
            Err(error) => {
                tracing::error!(pipeline = %self.pipeline, %error, "the new version is refused; the old one goes on");
                if let Some(reply) = swap.reply {
                    answer(reply, Err(error));
                }
                None
            }
        }
    }

    async fn check(&mut self, swap: &mut Swap) -> Result<()> {
        for schema in self.live.values() {
            let new = outputs(&mut swap.stages, schema).await?;
            if swap.allow_schema_change {
                continue;
            }
            let old = outputs(&mut self.stages, schema).await?;
            if new != old {
                return Err(Error::config(
                    "swap.schema_change",
                    format!("the new version changes what leaves for {}", schema.name),
                )
                .hint("allow it with `allow_schema_change: true` in the pipeline file, or keep the output columns and types as they are"));
            }
        }
        Ok(())
    }
}

/// The forms that rows of a schema leave the stages with.
async fn outputs(stages: &mut [Box<dyn Stage>], schema: &Arc<TableSchema>) -> Result<Vec<Arc<TableSchema>>> {
    let mut forms = vec![schema.clone()];
    for stage in stages.iter_mut() {
        let mut next = Vec::new();
        for form in forms {
            let plan = if stage.spec().sees(&form.name.to_string()) { stage.plan(&form).await? } else { None };
            match plan {
                Some(plan) if plan.parses => {}
                Some(plan) => {
                    next.push(plan.output);
                    next.extend(plan.shapes);
                }
                None => next.push(form),
            }
        }
        forms = next;
    }
    Ok(forms)
}

fn answer(reply: oneshot::Sender<Result<SwapReport>>, result: Result<SwapReport>) {
    if reply.send(result).is_err() {
        tracing::debug!("nobody waits for the answer to a swap any more");
    }
}

/// Loads new code beside the running one; the stream goes on meanwhile.
pub(super) fn load_beside(
    pipeline: &Pipeline,
    configured: Vec<ConfiguredStage>,
    allow_schema_change: bool,
    reply: oneshot::Sender<Result<SwapReport>>,
    swaps: mpsc::Sender<Swap>,
) -> Task {
    let loader = pipeline.loader.clone();
    let loaded = async move {
        match load(loader.as_ref(), &configured).await {
            Ok(stages) => {
                let swap = Swap { configured, stages, allow_schema_change, reply: Some(reply) };
                if swaps.send(swap).await.is_err() {
                    tracing::debug!("the stages are gone before the new code came");
                }
            }
            Err(error) => {
                if reply.send(Err(error)).is_err() {
                    tracing::debug!("nobody waits for the answer to a swap any more");
                }
            }
        }
    };
    pipeline.env.spawn("load", Box::pin(loaded))
}
