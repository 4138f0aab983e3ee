//! The source: opens the session, reads the snapshots and then the stream.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::cut::{Boundary, CutBuilder};
use millrace_core::error::{Error, Result};
use millrace_core::position::{Position, SourceKey};
use millrace_core::source::{Opened, Resume, Source};

use super::catalog::{self, Found};
use super::changes::Changes;
use super::config::{Plan, SnapshotMode};
use super::connection::{Connection, Purpose, duration_setting, quoted_name, quoted_text};
use super::fault::GAP;
use super::lsn::Lsn;
use super::publication;
use super::slot;
use super::snapshot::{Snapshots, Wanted};
use super::socket::Stream;
use super::spill::Spill;
use super::stream::StreamReader;

/// Older servers are not refused for their age alone but for what they lack: `publish_via_partition_root` came with 13.
const OLDEST: u32 = 130_000;

/// Streamed transactions (protocol 2) came with 14.
const STREAMING_SINCE: u32 = 140_000;

/// A PostgreSQL database, read through one slot.
#[derive(Debug)]
pub(super) struct PostgresSource {
    plan: Plan,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    snapshots: Snapshots,
    stream: StreamReader,
}

impl PostgresSource {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, session: None }
    }

    /// Everything that comes before the stream, over one replication connection.
    async fn prepare(&self, connection: &mut Connection, resume: &Resume) -> Result<(String, Vec<Found>, Lsn)> {
        let place = self.plan.settings.place();
        if connection.version() < OLDEST {
            let message = format!("{place} is PostgreSQL {}", connection.version() / 10_000);
            return Err(Error::config("postgres.version", message).hint("versions 15 to 18 are supported"));
        }
        let incarnation = catalog::incarnation(connection).await.map_err(|e| e.at(&place))?;
        if let Some(recorded) = resume.incarnation.as_ref().filter(|recorded| **recorded != incarnation) {
            let message = format!(
                "{place} is system/timeline {incarnation}, and the resume record belongs to {recorded}: \
                 another server, a restored copy, or a standby that was promoted"
            );
            return Err(Error::halt("position.gap", message).hint(GAP));
        }
        let found = catalog::find_tables(connection, &self.plan.tables).await?;
        if self.plan.snapshot == SnapshotMode::Initial {
            catalog::refuse_unreadable(connection, &found).await?;
        }
        publication::ensure(connection, &self.plan.publication, &found).await?;
        let start = slot::ensure(connection, &self.plan.slot, resume).await?;
        Ok((incarnation, found, start))
    }

    /// Starts the stream, which takes the slot: from here on nobody else reads it.
    async fn stream(&self, mut connection: Connection, start: Lsn) -> Result<Stream> {
        let place = format!("starting slot `{}`", self.plan.slot);
        let timeout = catalog::setting(&mut connection, "wal_sender_timeout").await.map_err(|e| e.at(&place))?;
        let streaming = self.plan.streaming && connection.version() >= STREAMING_SINCE;
        let options = if streaming { "proto_version '2', streaming 'on'" } else { "proto_version '1'" };
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {start} ({options}, publication_names {})",
            quoted_name(&self.plan.slot),
            quoted_text(&quoted_name(&self.plan.publication)),
        );
        let (socket, read) = connection.copy_both(&command).await.map_err(|e| e.at(&place))?;
        Ok(Stream::start(socket, read, start, duration_setting(&timeout).unwrap_or_default()))
    }

    /// Sorts the tables into those whose snapshot is recorded and those that need one.
    fn tables(&self, found: Vec<Found>, resume: &Resume) -> (Changes, Vec<Wanted>) {
        let mut changes = Changes::default();
        let mut wanted = Vec::new();
        for Found { relation, .. } in found {
            let source = SourceKey::new(relation.schema.name.to_string());
            let relation = Arc::new(relation);
            let table = changes.add_table(source.clone(), relation.clone());
            match resume.snapshots.get(&source) {
                Some(order) => changes.skip_through(table, order.commit()),
                None if self.plan.snapshot == SnapshotMode::Initial => wanted.push(Wanted { table, source, relation }),
                None => {}
            }
        }
        (changes, wanted)
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(|| Error::bug("the postgres source is used before it is open"))
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn open(&mut self, resume: &Resume) -> Result<Opened> {
        self.session = None;
        let settings = &self.plan.settings;
        let connecting = format!("connecting to {}", settings.place());
        let mut connection = Connection::open(settings, Purpose::Replication).await.map_err(|e| e.at(connecting))?;
        let encrypted = connection.is_encrypted();
        let (incarnation, found, start) = self.prepare(&mut connection, resume).await?;
        let version = connection.version();
        let stream = self.stream(connection, start).await?;
        let mut spill = Spill::new(self.plan.spill_dir.clone(), self.plan.spill_limit);
        spill.clear()?;
        let (changes, wanted) = self.tables(found, resume);
        tracing::info!(
            server = %settings.place(), version, encrypted, slot = %self.plan.slot, position = %start, snapshots = wanted.len(),
            "reading PostgreSQL"
        );
        self.session = Some(Session {
            snapshots: Snapshots::new(settings.clone(), wanted),
            stream: StreamReader::new(stream, settings.clone(), changes, spill, start),
        });
        Ok(Opened { incarnation, start: start.position() })
    }

    async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary> {
        let Session { snapshots, stream } = self.session()?;
        match snapshots.read(into).await? {
            Some((boundary, complete)) => {
                if let Some(complete) = complete {
                    stream.changes.skip_through(complete.table, complete.skip_through);
                }
                Ok(boundary)
            }
            None => stream.read(into).await,
        }
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let lsn = Lsn::from_token(&position.token)?;
        self.session()?.stream.acknowledge(lsn);
        Ok(())
    }

    /// A slot lets in one reader.
    fn is_exclusive(&self) -> bool {
        true
    }
}
