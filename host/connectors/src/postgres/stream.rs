//! Reads the replication stream: frames, transactions, streamed transactions, and where that leaves the source.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millrace_core::cut::{Boundary, CutBuilder};
use millrace_core::error::{Error, Result};
use postgres_protocol::message::backend;
use tokio::time::{Instant, timeout_at};

use super::catalog;
use super::changes::{Changes, Commit, POSTGRES_EPOCH, malformed};
use super::config::Plan;
use super::connection::{Connection, Purpose};
use super::fault::{Fault, ServerError};
use super::lsn::Lsn;
use super::pgoutput::{self, Malformed, Message};
use super::relation::{Relation, Shape};
use super::settings::Settings;
use super::socket::{Stream, first_frame};
use super::spill::{Playback, Spill};

/// What is appended before the engine is asked to take it, where no batch was full before: some hundred rows, so that
/// the return costs little a row and a cut that is due does not wait.
const APPENDED_LIMIT: usize = 64 << 10;

/// An idle place is told at most so often: each costs a record and an acknowledgement.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

type Lookup = Pin<Box<dyn Future<Output = Result<Relation>> + Send + Sync>>;

/// The stream of one slot.
pub(super) struct StreamReader {
    stream: Stream,
    settings: Settings,
    pub(super) changes: Changes,
    spill: Spill,
    phase: Phase,
    chunk: Bytes,
    /// Bytes of `chunk` that were taken.
    at: usize,
    /// A shape that is being looked up; nothing is read before it is known.
    lookup: Option<Lookup>,
    /// The end of a transaction that has been appended and not been told.
    committed: Option<Lsn>,
    /// Bytes of changes since the last return, and of the transaction under way.
    appended: usize,
    transaction: usize,
    /// End of the server's log, and the gauge that shows how far it is ahead of what is durable here.
    server_end: Lsn,
    durable: Lsn,
    lag: metrics::Gauge,
    /// Everything before it was seen, and none of it is ours beyond what was told.
    idle: Lsn,
    /// What the engine knows.
    told: Lsn,
    idle_due: Instant,
}

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader").field("phase", &self.phase).field("told", &self.told).finish_non_exhaustive()
    }
}

/// Where in the stream we are.
#[derive(Debug)]
enum Phase {
    Between,
    Transaction(Commit),
    /// In a block of a transaction that has not committed.
    Block,
    /// A streamed transaction committed and is played back from the disk.
    Playback {
        playback: Box<Playback>,
        commit: Commit,
        end: Lsn,
    },
}

/// Why the decoder stopped.
enum Step {
    /// Nothing more is buffered.
    Drained,
    Lookup(Shape),
    Tell(Boundary),
    /// Nothing to say yet, but a while has passed.
    Again,
}

impl StreamReader {
    pub(super) fn new(plan: &Plan, stream: Stream, changes: Changes, spill: Spill, start: Lsn) -> Self {
        Self {
            stream,
            settings: plan.settings.clone(),
            changes,
            spill,
            phase: Phase::Between,
            chunk: Bytes::new(),
            at: 0,
            lookup: None,
            committed: None,
            appended: 0,
            transaction: 0,
            server_end: start,
            durable: start,
            lag: metrics::gauge!("millrace_source_lag_bytes", "pipeline" => plan.pipeline.clone()),
            idle: start,
            told: start,
            idle_due: Instant::now(),
        }
    }

    pub(super) fn acknowledge(&mut self, lsn: Lsn) {
        self.durable = self.durable.max(lsn);
        self.show_lag();
        self.stream.acknowledge(lsn);
    }

    pub(super) async fn close(self) {
        self.stream.close().await;
    }

    fn show_lag(&self) {
        self.lag.set(self.server_end.0.saturating_sub(self.durable.0) as f64);
    }

    /// As [`millrace_core::source::Source::read`]. Cancel-safe: what an await waits for stays in `self`.
    pub(super) async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary> {
        loop {
            if let Some(lookup) = &mut self.lookup {
                let relation = lookup.await;
                self.lookup = None;
                self.changes.install(relation?);
            }
            let step = match self.phase {
                Phase::Playback { .. } => self.play_back(into)?,
                _ => self.decode(into)?,
            };
            match step {
                Step::Lookup(shape) => self.lookup = Some(look_up(self.settings.clone(), shape)),
                Step::Tell(boundary) => return Ok(boundary),
                // The engine may have something else to do.
                Step::Again => tokio::task::yield_now().await,
                Step::Drained => {
                    if let Some(boundary) = self.refill(into).await? {
                        return Ok(boundary);
                    }
                }
            }
        }
    }

    /// Gets the next chunk, or says why to return without one.
    async fn refill(&mut self, into: &CutBuilder) -> Result<Option<Boundary>> {
        if let Some(chunk) = self.stream.try_next().map_err(lost)? {
            self.take(chunk);
            // What is buffered without end must not keep the engine from its other work.
            tokio::task::yield_now().await;
            return Ok(None);
        }
        if let Some(boundary) = self.due_boundary(into) {
            return Ok(Some(boundary));
        }
        let idle = self.idle > self.told && matches!(self.phase, Phase::Between);
        let deadline = if idle { self.idle_due } else { Instant::now() + Duration::from_secs(3600) };
        if let Ok(chunk) = timeout_at(deadline, self.stream.next()).await {
            self.take(chunk.map_err(lost)?);
        }
        Ok(None)
    }

    fn take(&mut self, chunk: Bytes) {
        self.chunk = chunk;
        self.at = 0;
    }

    /// What is to be said when nothing is buffered.
    fn due_boundary(&mut self, into: &CutBuilder) -> Option<Boundary> {
        match self.phase {
            Phase::Between | Phase::Block if self.committed.is_some() => {
                self.committed.map(|end| self.tell_commit(end))
            }
            Phase::Between => self.tell_idle(),
            Phase::Block => None,
            Phase::Transaction(_) | Phase::Playback { .. } => into.has_closed().then_some(Boundary::Within),
        }
    }

    /// The server's place, where nothing of ours is under way and it has moved; not too often.
    fn tell_idle(&mut self) -> Option<Boundary> {
        if self.idle <= self.told || Instant::now() < self.idle_due {
            return None;
        }
        self.told = self.idle;
        self.idle_due = Instant::now() + IDLE_INTERVAL;
        self.show_lag();
        Some(Boundary::Idle(self.idle.position()))
    }

    fn tell_commit(&mut self, end: Lsn) -> Boundary {
        self.committed = None;
        self.appended = 0;
        self.told = self.told.max(end);
        self.idle = self.idle.max(end);
        self.idle_due = Instant::now() + IDLE_INTERVAL;
        self.show_lag();
        Boundary::Commit(end.position())
    }

    /// Takes whole messages off the chunk until there is something to say.
    fn decode(&mut self, into: &mut CutBuilder) -> Result<Step> {
        let chunk = self.chunk.clone();
        while let Some(frame) = first_frame(&chunk[self.at..]).map_err(lost)? {
            self.at += frame.len();
            if let Some(step) = self.frame(frame, into)? {
                return Ok(step);
            }
        }
        self.chunk = Bytes::new();
        self.at = 0;
        // A large transaction hands on what is full, chunk by chunk.
        if matches!(self.phase, Phase::Transaction(_)) && into.has_closed() {
            return Ok(Step::Tell(Boundary::Within));
        }
        Ok(Step::Drained)
    }

    /// One message of the server, with its header.
    fn frame(&mut self, frame: &[u8], into: &mut CutBuilder) -> Result<Option<Step>> {
        /// Of XLogData: start and end of the WAL, the server's clock.
        const DATA_HEADER: usize = 24;
        const SHORT: Malformed = Malformed("a replication message ends too early");
        match frame {
            [b'd', _, _, _, _, b'w', rest @ ..] => {
                let (header, message) = rest.split_first_chunk::<DATA_HEADER>().ok_or(SHORT).map_err(malformed)?;
                let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = *header;
                self.server_end = Lsn(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
                self.message(message, into)
            }
            [b'd', _, _, _, _, b'k', rest @ ..] => {
                let end = rest.first_chunk::<8>().ok_or(SHORT).map_err(malformed)?;
                let end = Lsn(u64::from_be_bytes(*end));
                self.server_end = end;
                // Inside a transaction the server's place says nothing about what comes of it.
                if matches!(self.phase, Phase::Between) {
                    self.idle = self.idle.max(end);
                }
                Ok(None)
            }
            [b'E', ..] => Err(server_error(frame)),
            // CopyDone: the server shuts down.
            [b'c', ..] => Err(lost(Fault::closed())),
            // Notices, settings, and what ends a copy.
            [b'N' | b'S' | b'C' | b'Z', ..] => Ok(None),
            _ => Err(malformed(Malformed("a message that does not belong into a stream"))),
        }
    }

    fn message(&mut self, bytes: &[u8], into: &mut CutBuilder) -> Result<Option<Step>> {
        if let Phase::Block = self.phase {
            return self.spilled(bytes).map(|()| None);
        }
        let (_, message) = pgoutput::parse(bytes, false).map_err(malformed)?;
        match (&self.phase, message) {
            (Phase::Transaction(commit), Message::Relation(body)) => {
                Ok(self.changes.announce(&body, commit.lsn)?.map(Step::Lookup))
            }
            (Phase::Transaction(_), Message::Commit { end_lsn, .. }) => {
                self.phase = Phase::Between;
                Ok(self.committed(end_lsn, into))
            }
            (Phase::Transaction(_), Message::Origin | Message::Type | Message::Logical) => Ok(None),
            (Phase::Transaction(commit), message) => {
                self.transaction += bytes.len();
                self.changes.apply(&message, *commit, into)?;
                Ok(None)
            }
            (Phase::Between, Message::Begin { final_lsn, commit_time, .. }) => {
                self.phase = Phase::Transaction(Commit { lsn: final_lsn, time: commit_time + POSTGRES_EPOCH });
                Ok(None)
            }
            (Phase::Between, Message::StreamStart { xid, first }) => {
                self.spill.start(xid, first)?;
                self.phase = Phase::Block;
                Ok(None)
            }
            (Phase::Between, Message::StreamAbort { xid, subxid }) => self.spill.abort(xid, subxid).map(|()| None),
            (Phase::Between, Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time }) => {
                let commit = Commit { lsn: commit_lsn, time: commit_time + POSTGRES_EPOCH };
                let playback = Box::new(self.spill.commit(xid)?);
                self.phase = Phase::Playback { playback, commit, end: end_lsn };
                self.play_back(into).map(Some)
            }
            _ => Err(malformed(Malformed("a message that does not belong there"))),
        }
    }

    /// A transaction's end. One without a change is as an idle place.
    fn committed(&mut self, end: Lsn, into: &CutBuilder) -> Option<Step> {
        let bytes = std::mem::take(&mut self.transaction);
        self.appended += bytes;
        if bytes > 0 || self.committed.is_some() {
            self.committed = Some(end);
            let full = into.has_closed() || self.appended >= APPENDED_LIMIT;
            return full.then(|| Step::Tell(self.tell_commit(end)));
        }
        self.idle = self.idle.max(end);
        self.tell_idle().map(Step::Tell)
    }

    /// A message inside a block goes to the disk as it is.
    fn spilled(&mut self, bytes: &[u8]) -> Result<()> {
        match bytes {
            [b'E', ..] => {
                self.spill.stop()?;
                self.phase = Phase::Between;
                Ok(())
            }
            // Origins and the names of types are not needed.
            [b'O' | b'Y' | b'M', ..] => Ok(()),
            [b'R' | b'I' | b'U' | b'D' | b'T', a, b, c, d, ..] => {
                self.spill.append(u32::from_be_bytes([*a, *b, *c, *d]), bytes)
            }
            _ => Err(malformed(Malformed("a message that does not belong into a stream block"))),
        }
    }

    /// Plays back until there is something to say.
    fn play_back(&mut self, into: &mut CutBuilder) -> Result<Step> {
        let Phase::Playback { playback, commit, end } = &mut self.phase else { return Ok(Step::Drained) };
        let mut read = 0;
        while let Some((aborted, bytes)) = playback.next()? {
            read += bytes.len();
            let (_, message) = pgoutput::parse(bytes, true).map_err(malformed)?;
            match message {
                // Also of a subtransaction that was rolled back: the server does not announce a shape twice in a
                // transaction, and announces it anew where the rollback undid it.
                Message::Relation(body) => {
                    if let Some(shape) = self.changes.announce(&body, commit.lsn)? {
                        return Ok(Step::Lookup(shape));
                    }
                }
                message if !aborted => self.changes.apply(&message, *commit, into)?,
                _ => {}
            }
            if read >= APPENDED_LIMIT {
                self.transaction += read;
                return Ok(if into.has_closed() { Step::Tell(Boundary::Within) } else { Step::Again });
            }
        }
        let end = *end;
        self.phase = Phase::Between;
        self.transaction += read;
        match self.committed(end, into) {
            Some(step) => Ok(step),
            None => self.decode(into),
        }
    }
}

fn lost(fault: Fault) -> Error {
    fault.at("reading the replication stream")
}

fn server_error(frame: &[u8]) -> Error {
    match backend::Message::parse(&mut BytesMut::from(frame)) {
        Ok(Some(backend::Message::ErrorResponse(e))) => lost(Fault::Server(ServerError::read(e.fields()))),
        _ => lost(Fault::protocol("an error that cannot be read")),
    }
}

/// Asks the catalog, over a connection of its own, what the stream does not say of a shape.
fn look_up(settings: Settings, shape: Shape) -> Lookup {
    Box::pin(async move {
        let place = format!("reading the columns of {}.{}", shape.namespace, shape.name);
        let mut connection = Connection::open(&settings, Purpose::Queries).await.map_err(|e| e.at(&place))?;
        let description = catalog::describe(&mut connection, &shape).await.map_err(|e| e.at(&place))?;
        connection.close();
        Ok(Relation::new(shape, &description))
    })
}
