//! The first third of the way: from the source into batches and cuts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::settings::Settings;
use crate::batch::ChangeBatch;
use crate::cut::{Boundary, Cut, CutBuilder};
use crate::environment::Environment;
use crate::error::Result;
use crate::position::Position;
use crate::source::Source;

/// What moves from the reader to the stages.
#[derive(Debug)]
pub(super) enum Read {
    Batch(ChangeBatch),
    Cut(Cut),
}

pub(super) struct Reader {
    pub source: Box<dyn Source>,
    pub out: mpsc::Sender<Read>,
    /// Where the source starts.
    pub start: Position,
    /// Positions that are durable and recorded.
    pub acknowledge: watch::Receiver<Option<Position>>,
    pub stop: watch::Receiver<bool>,
    pub pace: Arc<Pace>,
    pub settings: Settings,
    pub env: Arc<dyn Environment>,
}

/// What the last commit says of how long cuts should be.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How long it took.
    micros: AtomicU64,
    /// Rows by which what it wrote anew would be paid.
    worth_rows: AtomicU64,
}

impl Pace {
    pub(super) fn note_time(&self, took: Duration) {
        self.micros.store(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// `bytes`: [`crate::sink::Sink::rewritten`].
    pub(super) fn note_rewritten(&self, bytes: u64) {
        self.worth_rows.store(bytes / REWRITTEN_A_ROW, Ordering::Relaxed);
    }

    /// How long a cut that has so many rows waits from its first change on: longer where commits are slow, and as long as
    /// it may where its few rows are not worth what a commit writes anew.
    fn interval(&self, rows: u64, settings: &Settings) -> Duration {
        let commit = Duration::from_micros(self.micros.load(Ordering::Relaxed));
        let longest = settings.cut_interval_max.max(settings.cut_interval);
        if rows > 0 && rows < self.worth_rows.load(Ordering::Relaxed) {
            return longest;
        }
        (commit * 5).clamp(settings.cut_interval, longest)
    }
}

/// Bytes that a commit may write anew for each of its rows before cuts get longer. 4 KiB: about what a commit of one row
/// writes in any case, its file's footer and the log.
const REWRITTEN_A_ROW: u64 = 4 << 10;

/// How often a cut goes through where nothing happens: what a person waits for a new version on a quiet source.
const BEAT: Duration = Duration::from_secs(1);

/// Where the cut under way stands.
struct Progress {
    cut: CutBuilder,
    number: u64,
    /// The last complete boundary, and how many rows the cut had there.
    at: Option<(Position, u64)>,
    /// The last boundary that was sent, or where the source started.
    sent: Position,
    /// Nothing was appended since that boundary, nor is a transaction under way.
    idle: bool,
    opened: Option<Duration>,
}

/// What the reader waits for.
enum Event {
    /// False: the committer is gone.
    Acknowledge(bool),
    Stop,
    Due,
    Read(Result<Boundary>),
}

impl Reader {
    /// Reads until the source ends, a stop finds a boundary, or the stages are gone.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut progress = Progress {
            cut: CutBuilder::new(self.settings.batch),
            number: 0,
            at: None,
            sent: self.start.clone(),
            idle: true,
            opened: None,
        };
        loop {
            let wait = self.until_due(&progress);
            let event = tokio::select! {
                biased;
                changed = self.acknowledge.changed() => Event::Acknowledge(changed.is_ok()),
                _ = self.stop.wait_for(|stop| *stop) => Event::Stop,
                () = wait => Event::Due,
                boundary = self.source.read(&mut progress.cut) => Event::Read(boundary),
            };
            match event {
                Event::Acknowledge(true) => self.pass_acknowledgement().await?,
                Event::Acknowledge(false) => return Ok(()),
                Event::Stop => return self.drain(progress).await,
                Event::Due => {
                    if !self.beat(&mut progress).await? {
                        return Ok(());
                    }
                }
                Event::Read(boundary) => {
                    let boundary = boundary?;
                    let ended = matches!(boundary, Boundary::End(_));
                    if !self.note(&mut progress, boundary).await? {
                        return Ok(());
                    }
                    if ended {
                        return self.acknowledge_until_the_end().await;
                    }
                }
            }
            if self.is_due(&progress) && !self.end_cut(&mut progress, false).await? {
                return Ok(());
            }
        }
    }

    /// Takes note of where the source stands, and hands closed batches on. Answers false where nobody listens any more.
    async fn note(&mut self, progress: &mut Progress, boundary: Boundary) -> Result<bool> {
        if progress.opened.is_none() && progress.cut.rows() > 0 {
            progress.opened = Some(self.env.monotonic());
        }
        for batch in progress.cut.take_closed() {
            if self.out.send(Read::Batch(batch)).await.is_err() {
                return Ok(false);
            }
        }
        let rows = progress.cut.rows();
        progress.idle = !matches!(boundary, Boundary::Within);
        match boundary {
            // A snapshot is one cut, however long (I9): a part of it would be stored twice by a start that takes it anew.
            Boundary::Within if rows >= self.settings.split_rows && !progress.cut.is_snapshot() => {
                self.end_part(progress).await
            }
            Boundary::Within => Ok(true),
            Boundary::Commit(position) => {
                // Also without a row of ours: the place is to be recorded and acknowledged before long.
                progress.opened.get_or_insert_with(|| self.env.monotonic());
                progress.at = Some((position, rows));
                Ok(true)
            }
            Boundary::Idle(position) => {
                progress.at = Some((position, rows));
                if rows == 0 { self.end_cut(progress, false).await } else { Ok(true) }
            }
            Boundary::Snapshot { source, order } => {
                let (batches, mut cut) = progress.cut.finish()?;
                cut.snapshot.insert(source.clone(), order);
                // A table without rows has its snapshot all the same.
                cut.last.insert(source, order);
                self.send(progress, batches, cut).await
            }
            Boundary::End(position) => {
                progress.at = Some((position, rows));
                self.end_cut(progress, true).await
            }
        }
    }

    fn cut_interval(&self, progress: &Progress) -> Duration {
        self.pace.interval(progress.cut.rows(), &self.settings)
    }

    /// Sleeps until the cut's time is over; for ever where it has no rows, or stands inside a transaction, since only the
    /// source can change that.
    fn until_due(&self, progress: &Progress) -> futures::future::BoxFuture<'static, ()> {
        match progress.opened {
            Some(opened) if progress.is_at_boundary() => {
                let due = (opened + self.cut_interval(progress)).saturating_sub(self.env.monotonic());
                self.env.sleep(due)
            }
            _ if progress.is_idle() => self.env.sleep(BEAT),
            _ => Box::pin(std::future::pending()),
        }
    }

    /// A cut without anything, where nothing happens: new code waits for a cut to come in force (I4).
    async fn beat(&mut self, progress: &mut Progress) -> Result<bool> {
        if !progress.is_idle() {
            return Ok(true);
        }
        let (batches, mut cut) = progress.cut.finish()?;
        cut.position = Some(progress.sent.clone());
        self.send(progress, batches, cut).await
    }

    fn is_due(&self, progress: &Progress) -> bool {
        let (Some(opened), true) = (progress.opened, progress.is_at_boundary()) else { return false };
        progress.cut.rows() >= self.settings.cut_rows
            || progress.cut.bytes() >= self.settings.cut_bytes
            || self.env.monotonic().saturating_sub(opened) >= self.cut_interval(progress)
    }

    /// Ends the cut at the boundary where it stands.
    async fn end_cut(&mut self, progress: &mut Progress, end: bool) -> Result<bool> {
        let Some((position, _)) = progress.at.take() else { return Ok(true) };
        if !end && progress.cut.rows() == 0 && progress.sent == position {
            return Ok(true);
        }
        let (batches, mut cut) = progress.cut.finish()?;
        progress.sent = position.clone();
        cut.position = Some(position);
        cut.end = end;
        self.send(progress, batches, cut).await
    }

    /// Ends the cut inside a transaction that exceeds the size limit (I11): resumable by order, not by token.
    async fn end_part(&mut self, progress: &mut Progress) -> Result<bool> {
        let (batches, cut) = progress.cut.finish()?;
        progress.at = None;
        self.send(progress, batches, cut).await
    }

    async fn send(&mut self, progress: &mut Progress, batches: Vec<ChangeBatch>, mut cut: Cut) -> Result<bool> {
        progress.number += 1;
        progress.opened = None;
        cut.number = progress.number;
        for batch in batches {
            if self.out.send(Read::Batch(batch)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(self.out.send(Read::Cut(cut)).await.is_ok())
    }

    async fn pass_acknowledgement(&mut self) -> Result<()> {
        let position = self.acknowledge.borrow_and_update().clone();
        match position {
            Some(position) => self.source.acknowledge(&position).await,
            None => Ok(()),
        }
    }

    /// A stop: what is complete is committed; the beginning of a transaction is left for the next start.
    async fn drain(mut self, mut progress: Progress) -> Result<()> {
        if !progress.is_at_boundary() {
            progress.at = None;
        }
        if progress.at.is_some() && !self.end_cut(&mut progress, true).await? {
            return Ok(());
        }
        self.acknowledge_until_the_end().await
    }

    /// Nothing more is read: closes the queue, passes on acknowledgements until the committer is done, and lets go of the
    /// source.
    async fn acknowledge_until_the_end(&mut self) -> Result<()> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.out, closed));
        while self.acknowledge.changed().await.is_ok() {
            self.pass_acknowledgement().await?;
        }
        self.source.close().await
    }
}

impl Progress {
    fn is_idle(&self) -> bool {
        self.idle && self.at.is_none() && self.cut.rows() == 0
    }

    /// Whether nothing was appended since the last complete boundary.
    fn is_at_boundary(&self) -> bool {
        self.at.as_ref().is_some_and(|(_, rows)| *rows == self.cut.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_get_longer_where_commits_are_slow_or_write_much_anew_for_few_rows() {
        let seconds = Duration::from_secs;
        let settings = Settings { cut_interval: seconds(1), cut_interval_max: seconds(10), ..Settings::default() };
        let pace = Pace::default();
        assert_eq!(pace.interval(5, &settings), seconds(1));
        pace.note_time(seconds(1));
        assert_eq!(pace.interval(5, &settings), seconds(5));
        pace.note_time(seconds(7));
        assert_eq!(pace.interval(5, &settings), seconds(10), "not beyond the bound");
        pace.note_time(Duration::ZERO);
        pace.note_rewritten(800 << 10);
        assert_eq!(pace.interval(199, &settings), seconds(10), "4 KiB a row are worth waiting for more rows");
        assert_eq!(pace.interval(200, &settings), seconds(1), "enough rows end the cut at its time");
        assert_eq!(pace.interval(0, &settings), seconds(1), "a place without rows commits nothing");
        pace.note_rewritten(0);
        assert_eq!(pace.interval(1, &settings), seconds(1));
    }
}
