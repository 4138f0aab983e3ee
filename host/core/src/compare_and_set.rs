//! The one decision of rules 6 and 13, shared by every store of positions (Delta, and the simulator's).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::position::{Order, SourceKey};

/// What a table's own commits say: the epoch of the host that committed last, and up to where each source
/// table's changes are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub epoch: u64,
    pub positions: BTreeMap<SourceKey, Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of ours moved: commit.
    Commit,
    /// Our epoch still stands, but a position is not where we continue from: an earlier commit of this host landed
    /// late, or a former owner's did before our fence. Drop what is in flight and start again from the record.
    Reload,
    /// A higher epoch was seen, position moved or not: another host owns the table.
    LetGo,
}

/// Compares what the table says now with what the commit continues from.
///
/// I6: the epoch decides at any reading, whether or not the position moved; and positions are compared for
/// equality, not for `stored < mine`, which would let a commit of a former owner pass as our past.
pub fn decide(found: &Head, continues_from: &Head) -> Verdict {
    if found.epoch > continues_from.epoch {
        Verdict::LetGo
    } else if found.positions != continues_from.positions {
        Verdict::Reload
    } else {
        Verdict::Commit
    }
}
