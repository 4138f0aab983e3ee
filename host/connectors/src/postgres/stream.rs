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
    /// Bytes appended since the last return.
    appended: usize,
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
}

impl StreamReader {
    pub(super) fn new(stream: Stream, settings: Settings, changes: Changes, spill: Spill, start: Lsn) -> Self {
        Self {
            stream,
            settings,
            changes,
            spill,
            phase: Phase::Between,
            chunk: Bytes::new(),
            at: 0,
            lookup: None,
            committed: None,
            appended: 0,
            idle: start,
            told: start,
            idle_due: Instant::now(),
        }
    }

    pub(super) fn acknowledge(&self, lsn: Lsn) {
        self.stream.acknowledge(lsn);
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
        let next = match self.stream.try_next().map_err(lost)? {
            Some(chunk) => Some(chunk),
            None => {
                if let Some(boundary) = self.due_boundary(into) {
                    return Ok(Some(boundary));
                }
                let idle = self.idle > self.told && matches!(self.phase, Phase::Between);
                let deadline = if idle { self.idle_due } else { Instant::now() + Duration::from_secs(3600) };
                timeout_at(deadline, self.stream.next()).await.ok().transpose().map_err(lost)?
            }
        };
        if let Some(chunk) = next {
            self.chunk = chunk;
            self.at = 0;
        }
        Ok(None)
    }

    /// What is to be said when nothing is buffered.
    fn due_boundary(&mut self, into: &CutBuilder) -> Option<Boundary> {
        match self.phase {
            Phase::Between | Phase::Block => {
                if let Some(end) = self.committed {
                    return Some(self.tell_commit(end));
                }
                let due =
                    self.idle > self.told && Instant::now() >= self.idle_due && matches!(self.phase, Phase::Between);
                due.then(|| {
                    self.told = self.idle;
                    self.idle_due = Instant::now() + IDLE_INTERVAL;
                    Boundary::Idle(self.idle.position())
                })
            }
            Phase::Transaction(_) | Phase::Playback { .. } => into.has_closed().then_some(Boundary::Within),
        }
    }

    fn tell_commit(&mut self, end: Lsn) -> Boundary {
        self.committed = None;
        self.appended = 0;
        self.told = self.told.max(end);
        self.idle = self.idle.max(end);
        self.idle_due = Instant::now() + IDLE_INTERVAL;
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
                let message = rest.get(DATA_HEADER..).ok_or(SHORT).map_err(malformed)?;
                self.message(message, into)
            }
            [b'd', _, _, _, _, b'k', rest @ ..] => {
                let end = rest.first_chunk::<8>().ok_or(SHORT).map_err(malformed)?;
                // Inside a transaction the server's place says nothing about what comes of it.
                if matches!(self.phase, Phase::Between) {
                    self.idle = self.idle.max(Lsn(u64::from_be_bytes(*end)));
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
            (Phase::Transaction(_), Message::Relation(body)) => Ok(self.changes.announce(&body)?.map(Step::Lookup)),
            (Phase::Transaction(commit), Message::Commit { end_lsn, .. }) => {
                let changed = commit.time != i64::MIN && self.appended > 0;
                self.phase = Phase::Between;
                Ok(self.committed(end_lsn, changed, into))
            }
            (Phase::Transaction(commit), message) => {
                self.appended += bytes.len();
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

    /// A transaction's end. One without a change of ours is as an idle place.
    fn committed(&mut self, end: Lsn, changed: bool, into: &CutBuilder) -> Option<Step> {
        if changed {
            self.committed = Some(end);
        } else if let Some(told) = &mut self.committed {
            *told = end;
        } else {
            self.idle = self.idle.max(end);
        }
        let full = self.committed.is_some() && (into.has_closed() || self.appended >= APPENDED_LIMIT);
        full.then(|| Step::Tell(self.tell_commit(end)))
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
                    if let Some(shape) = self.changes.announce(&body)? {
                        return Ok(Step::Lookup(shape));
                    }
                }
                message if !aborted => self.changes.apply(&message, *commit, into)?,
                _ => {}
            }
            if read >= APPENDED_LIMIT && into.has_closed() {
                return Ok(Step::Tell(Boundary::Within));
            }
        }
        let end = *end;
        self.phase = Phase::Between;
        self.appended += read;
        match self.committed(end, true, into) {
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
