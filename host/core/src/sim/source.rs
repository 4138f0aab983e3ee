//! The simulated source: a fixed history that becomes visible bit by bit, snapshots, and a place that it was acknowledged to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::check;
use super::executor::lock;
use super::world::{Change, Link, SOURCES, STEP, commit_of};
use crate::batch::ChangeType;
use crate::builder::{Cells, RowsBuilder};
use crate::cut::{Boundary, CutBuilder};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::position::{Order, Position, SourceKey};
use crate::schema::{Column, ColumnType, Images, TableName, TableSchema};
use crate::source::{Opened, Resume, Source};

pub(super) struct SimSource {
    link: Link,
    schemas: BTreeMap<&'static str, Arc<TableSchema>>,
    to_snapshot: VecDeque<&'static str>,
    reading: Option<Reading>,
    /// Next transaction, and next change in it.
    next: (usize, usize),
    /// A snapshot is taken beside the stream.
    alone: bool,
}

/// A snapshot under way.
struct Reading {
    place: i64,
    rows: Vec<(i64, char)>,
    read: usize,
}

impl SimSource {
    pub(super) fn new(link: Link) -> Self {
        let schema = |source: &str| {
            let columns = vec![Column::new("id", ColumnType::Int64).key(), Column::new("value", ColumnType::Text)];
            Arc::new(TableSchema::new(TableName::new("", source), columns, Images::Full))
        };
        let schemas = SOURCES.map(|s| (s, schema(s))).into();
        Self { link, schemas, to_snapshot: VecDeque::new(), reading: None, next: (0, 0), alone: false }
    }

    fn position(&self) -> Position {
        place(self.next.0)
    }

    /// A few changes of the transaction under way; nothing is awaited between appending and taking note.
    fn append(&mut self, into: &mut CutBuilder, transaction: &[Change]) -> Result<Boundary> {
        let commit = commit_of(self.next.0);
        for change in transaction.iter().skip(self.next.1).take(3) {
            let rows = into.table(&SourceKey::new(change.source), &self.schemas[change.source], false)?;
            rows.begin_change(Order::new(commit, change.ordinal), commit);
            for (change_type, value) in change.images() {
                row(rows, change_type, change.id, value);
            }
            self.next.1 += 1;
        }
        if self.next.1 < transaction.len() {
            return Ok(Boundary::Within);
        }
        self.next = (self.next.0 + 1, 0);
        Ok(Boundary::Commit(self.position()))
    }

    /// A few rows of the snapshot under way: it is long, and the engine hears of it in between.
    fn snapshot(&mut self, into: &mut CutBuilder, source: &'static str) -> Result<Boundary> {
        let begin = || {
            let mut world = lock(&self.link.world);
            let rows = world.state(source, world.head).into_iter().collect();
            Reading { place: world.begin_snapshot(), rows, read: 0 }
        };
        let reading = self.reading.get_or_insert_with(begin);
        let key = SourceKey::new(source);
        for (id, value) in reading.rows.iter().skip(reading.read).take(3) {
            let rows = into.table(&key, &self.schemas[source], true)?;
            reading.read += 1;
            rows.begin_change(Order::new(reading.place, reading.read as i64), 0);
            row(rows, ChangeType::Insert, *id, *value);
        }
        if reading.read < reading.rows.len() {
            return Ok(Boundary::Within);
        }
        let order = Order::new(reading.place, i64::MAX);
        self.reading = None;
        self.to_snapshot.pop_front();
        Ok(Boundary::Snapshot { source: key, order })
    }
}

/// Where a source starts that has sent the first `count` transactions.
fn place(count: usize) -> Position {
    Position {
        order: Order::new(commit_of(count) - STEP, i64::MAX),
        token: (count as u64).to_be_bytes().to_vec().into(),
    }
}

fn row(rows: &mut RowsBuilder, change_type: ChangeType, id: i64, value: char) {
    rows.begin_row(change_type);
    if let Cells::Int64(cells) = &mut rows.column(0).cells {
        cells.append_value(id);
    }
    if let Cells::Text(cells) = &mut rows.column(1).cells {
        cells.append_value(value.to_string());
    }
}

#[async_trait]
impl Source for SimSource {
    async fn open(&mut self, resume: &Resume) -> Result<Opened> {
        let (head, acknowledged) = self.link.read(|world| (world.head, world.acknowledged)).await;
        let start = resume.position.clone().unwrap_or_else(|| place(head));
        if start.order.commit() < acknowledged {
            return Err(Error::halt(
                "position.gap",
                format!("acknowledged {acknowledged}, the record holds {}", start.order),
            ));
        }
        let token: [u8; 8] = start.token.as_ref().try_into().map_err(|_| Error::bug("token"))?;
        self.next = (u64::from_be_bytes(token) as usize, 0);
        self.reading = None;
        self.to_snapshot =
            SOURCES.into_iter().filter(|s| !resume.snapshots.contains_key(&SourceKey::new(*s))).collect();
        Ok(Opened { incarnation: "sim".into(), start, holds_log: true, tables: None, gaps: BTreeSet::new() })
    }

    async fn open_snapshot(&mut self, table: &SourceKey) -> Result<Opened> {
        self.link.pause().await;
        self.to_snapshot = SOURCES.into_iter().filter(|source| **source == *table.table).collect();
        self.alone = true;
        let start = place(0);
        Ok(Opened { incarnation: "sim".into(), start, holds_log: true, tables: None, gaps: BTreeSet::new() })
    }

    async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary> {
        self.link.pause().await;
        if self.alone && self.to_snapshot.is_empty() {
            return Ok(Boundary::End(self.position()));
        }
        if let Some(source) = self.to_snapshot.front().copied() {
            return self.snapshot(into, source);
        }
        loop {
            let next = {
                let world = lock(&self.link.world);
                let visible = self.next.0 < world.head;
                visible.then(|| world.transactions[self.next.0].clone()).ok_or(world.head == world.transactions.len())
            };
            match next {
                Ok(transaction) => return self.append(into, &transaction),
                Err(true) => return Ok(Boundary::End(self.position())),
                Err(false) => self.link.env.sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        self.link.pause().await;
        let mut world = lock(&self.link.world);
        let place = position.order.commit();
        if let Some(lost) = check::not_durable(&world, place) {
            world.violate(format!("commit {place} is acknowledged, {lost} is not durable"));
        }
        world.acknowledged = world.acknowledged.max(place);
        Ok(())
    }
}
