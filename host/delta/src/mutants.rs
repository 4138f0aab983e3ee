//! Bugs that the simulator must catch. No build but that of the tests has them.

/// A bug, by what it does.
#[cfg_attr(not(test), allow(dead_code, reason = "only tests seed them"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A new deletion vector lacks what the one before it marked.
    OldVectorForgotten,
    /// A commit does not ask whether position and epoch are those that it continues from.
    HeadNotCompared,
    /// A commit does not ask whether others changed files since its plan.
    ForeignFilesUnseen,
    /// A compacted file keeps rows that went while it was written.
    VectorsGrewUnseen,
    /// Compaction does not ask whether others changed files since its plan.
    CompactionUnchecked,
    /// The keys of a compacted file are those of its first part.
    KeysMisplaced,
    /// A removal does not say which vector its file had.
    RemovedWithoutVector,
    /// A commit does not say up to where it goes.
    PositionLeftOut,
}

#[cfg(test)]
thread_local! {
    static SEEDED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// What this thread does from now on.
#[cfg(test)]
pub(crate) fn seed(mutant: Option<Mutant>) {
    SEEDED.set(mutant);
}

/// Whether this thread has this bug.
#[cfg(test)]
pub(crate) fn has(mutant: Mutant) -> bool {
    SEEDED.get() == Some(mutant)
}

#[cfg(not(test))]
pub(crate) const fn has(_: Mutant) -> bool {
    false
}
