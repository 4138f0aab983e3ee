//! A source that says when it flows: readiness without a word in the engine.

use async_trait::async_trait;
use millrace_core::Result;
use millrace_core::cut::{Boundary, CutBuilder};
use millrace_core::position::{Position, SourceKey};
use millrace_core::source::{Opened, Resume, Source};

use crate::telemetry::{Health, Stand};

/// The engine reads only after the record, the fence and the stages are in place: its first read means ready. It drops
/// the source when it starts anew.
pub(super) struct ObservedSource {
    source: Box<dyn Source>,
    pipeline: String,
    health: Health,
    flows: bool,
    /// It reads the stream, and not a snapshot beside it.
    streams: bool,
}

impl ObservedSource {
    pub(super) fn new(source: Box<dyn Source>, pipeline: &str, health: Health) -> Self {
        Self { source, pipeline: pipeline.to_owned(), health, flows: false, streams: false }
    }
}

impl Drop for ObservedSource {
    fn drop(&mut self) {
        if self.streams {
            self.health.pause(&self.pipeline);
        }
    }
}

#[async_trait]
impl Source for ObservedSource {
    async fn open(&mut self, resume: &Resume) -> Result<Opened> {
        self.streams = true;
        self.health.set(&self.pipeline, Stand::Starting);
        let opened = self.source.open(resume).await?;
        tracing::info!(pipeline = %self.pipeline, incarnation = %opened.incarnation, position = %opened.start.order, "source is open");
        Ok(opened)
    }

    async fn open_snapshot(&mut self, table: &SourceKey) -> Result<Opened> {
        // The stream beside it flows.
        self.flows = true;
        self.source.open_snapshot(table).await
    }

    async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary> {
        if !self.flows {
            self.flows = true;
            self.health.set(&self.pipeline, Stand::Running);
            tracing::info!(pipeline = %self.pipeline, "changes flow");
        }
        self.source.read(into).await
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        self.source.acknowledge(position).await
    }

    async fn close(&mut self) -> Result<()> {
        self.source.close().await
    }

    fn is_exclusive(&self) -> bool {
        self.source.is_exclusive()
    }
}
