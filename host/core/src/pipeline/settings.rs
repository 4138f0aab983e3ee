//! What the engine can be told, each with its default's reason.

use std::time::Duration;

use crate::cut::BatchLimits;
use crate::quarantine::Policy;

#[derive(Clone, Debug)]
pub struct Settings {
    pub batch: BatchLimits,
    /// A cut is committed when its first change has waited this long. 250 ms: between the 100 ms that a person
    /// sees and the second after which small commits stop paying.
    pub cut_interval: Duration,
    /// What the interval may grow to when commits are slow (one should cost at most a fifth of the time), or write much anew
    /// for few rows.
    pub cut_interval_max: Duration,
    /// Row images after which a cut ends at the next commit. 100,000: a good Parquet file, some 50 MB in Arrow.
    pub cut_rows: u64,
    /// Bytes of values after which a cut ends at the next commit.
    pub cut_bytes: u64,
    /// Row images after which a transaction is split over cuts (I11): what a sink stages for one commit stays bounded.
    pub split_rows: u64,
    /// How often the resume record is written: what a restart reads again at most.
    pub record_interval: Duration,
    /// Bytes of the source's log that a table that stands may hold back (I12); beyond, it is let go and needs a new snapshot.
    /// 1 GiB: hours of a middling server, and less than the space that one should have free.
    pub held_log: u64,
    /// A lease that was not renewed for this long may be taken (I13).
    pub lease: Duration,
    /// Take the lease at once.
    pub take_over: bool,
    /// Batches between reader, stages and committer. 16: at 4 MiB a batch, 64 MiB a queue.
    pub queue: usize,
    /// Keep in dead letters also the columns that stages may be there to mask.
    pub keep_original: bool,
    /// Later changes of a key wait behind its letters (I15).
    pub quarantine: Option<Policy>,
    /// Pauses between starts after an error of kind `Retry`.
    pub retry_pause: Duration,
    pub retry_pause_max: Duration,
    /// How often a stage that answers `retry later` is asked again before the pipeline starts anew.
    pub stage_retries: u32,
    /// For the simulator: a rule left out on purpose. Always `None` elsewhere.
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: BatchLimits::default(),
            cut_interval: Duration::from_millis(250),
            cut_interval_max: Duration::from_secs(2),
            cut_rows: 100_000,
            cut_bytes: 64 << 20,
            split_rows: 2_000_000,
            record_interval: Duration::from_secs(5),
            held_log: 1 << 30,
            lease: Duration::from_secs(15),
            take_over: false,
            queue: 16,
            keep_original: false,
            quarantine: None,
            retry_pause: Duration::from_millis(200),
            retry_pause_max: Duration::from_secs(30),
            stage_retries: 20,
            mutant: None,
        }
    }
}

/// Seeded bugs: each leaves out one rule, and the simulator must catch it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    AcknowledgeBeforeRecord,
    PositionPerSinkTable,
    SwapInsideCut,
    SwapInReplay,
    SwapRecordedLate,
    LettersAfterData,
    StoredLetterJudgedAgain,
    /// In the simulator's store.
    StoredLessThanMine,
    /// In the simulator's store.
    EpochNotCompared,
    SnapshotWithoutManifest,
    AcknowledgePastHalted,
    QuarantineForgotten,
}
