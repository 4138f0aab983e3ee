//! Positions as a table's own commits have them: `txn` actions, one app id a component (I1).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millrace_core::compare_and_set::{Head, Verdict, decide};
use millrace_core::position::{Order, SourceKey};
use millrace_core::{Error, Result};

use crate::log::TableState;
use crate::log::actions::Txn;
use crate::mutants::{Mutant, has};

/// The app ids of one pipeline and one incarnation of its source:
/// `millrace/PIPELINE/INCARNATION/TABLE@PARTITION/COMPONENT`, and `millrace/PIPELINE/epoch`.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppIds {
    epoch: String,
    prefix: String,
}

impl AppIds {
    pub(crate) fn new(pipeline: &str, incarnation: &str) -> Self {
        let pipeline = escaped(pipeline);
        Self {
            epoch: format!("millrace/{pipeline}/epoch"),
            prefix: format!("millrace/{pipeline}/{}/", escaped(incarnation)),
        }
    }

    /// The epoch of a host as its own `txn`. `now`: milliseconds since 1970-01-01 UTC; without it readers that expire
    /// transactions would never keep it.
    pub(crate) fn epoch_txn(&self, epoch: u64, now: i64) -> Result<Txn> {
        let version = i64::try_from(epoch).map_err(|_| Error::bug(format!("epoch {epoch} is too high")))?;
        Ok(Txn { app_id: self.epoch.clone(), version, last_updated: Some(now) })
    }

    /// Every component of a position, changed or not: one that is only written when it grew mixes two positions.
    pub(crate) fn position_txns(&self, source: &SourceKey, order: Order, now: i64) -> impl Iterator<Item = Txn> {
        let base = format!("{}{}/", self.prefix, escaped(&source.to_string()));
        order.0.into_iter().enumerate().map(move |(component, version)| Txn {
            app_id: format!("{base}{component}"),
            version,
            last_updated: Some(now),
        })
    }

    /// What the table's commits say of this pipeline and incarnation.
    pub(crate) fn head(&self, txns: &HashMap<String, Txn>) -> Head {
        let epoch = txns.get(&self.epoch).map_or(0, |t| u64::try_from(t.version).unwrap_or(0));
        let mut parts: BTreeMap<SourceKey, [Option<i64>; Order::COMPONENTS]> = BTreeMap::new();
        for (id, txn) in txns {
            let Some((source, component)) = self.parse(id) else { continue };
            parts.entry(source).or_default()[component] = Some(txn.version);
        }
        let whole = parts.into_iter().filter_map(|(source, parts)| Some((source, whole(parts)?)));
        Head { epoch, positions: whole.collect() }
    }

    fn parse(&self, id: &str) -> Option<(SourceKey, usize)> {
        let (source, component) = id.strip_prefix(&self.prefix)?.rsplit_once('/')?;
        let component = component.parse().ok().filter(|c| *c < Order::COMPONENTS)?;
        Some((SourceKey::try_from(unescaped(source)?).ok()?, component))
    }

    /// The source tables that ever fed the table, by whichever pipeline and incarnation.
    pub(crate) fn feeders(txns: &HashMap<String, Txn>) -> BTreeSet<SourceKey> {
        let source = |id: &String| {
            let (source, _) = id.strip_prefix("millrace/")?.rsplit_once('/')?;
            let (_, source) = source.rsplit_once('/')?;
            SourceKey::try_from(unescaped(source)?).ok()
        };
        txns.keys().filter_map(source).collect()
    }

    pub(crate) fn head_of(&self, state: Option<&TableState>) -> Head {
        state.map(|s| self.head(&s.txns)).unwrap_or_default()
    }
}

fn whole(parts: [Option<i64>; Order::COMPONENTS]) -> Option<Order> {
    let [Some(a), Some(b), Some(c), Some(d)] = parts else { return None };
    Some(Order([a, b, c, d]))
}

/// Names may hold the slash that app ids are divided by.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

fn unescaped(name: &str) -> Option<String> {
    let whole = name.replace("%2F", "/");
    // `%` alone stands for itself only as `%25`.
    (!whole.replace("%25", "").contains('%')).then(|| whole.replace("%25", "%"))
}

/// I6, as an error that says what the engine does. `place`: the table, for messages.
///
/// Errors: `epoch.superseded` (let go), `position.moved` (reload).
pub(crate) fn compare(place: &str, found: &Head, continues_from: &Head) -> Result<()> {
    match decide(found, continues_from) {
        _ if has(Mutant::HeadNotCompared) => Ok(()),
        Verdict::Commit => Ok(()),
        Verdict::LetGo => Err(Error::let_go(
            "epoch.superseded",
            format!(
                "{place} has epoch {} and this host has {}: another host owns the pipeline",
                found.epoch, continues_from.epoch
            ),
        )),
        Verdict::Reload => Err(Error::reload(
            "position.moved",
            format!("{place}: a stored position is not where this host continues from; an earlier commit landed late"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(txns: impl IntoIterator<Item = Txn>) -> HashMap<String, Txn> {
        txns.into_iter().map(|t| (t.app_id.clone(), t)).collect()
    }

    proptest! {
        #[test]
        fn positions_survive_their_app_ids(pipeline in ".{1,8}", incarnation in ".{1,8}", table in ".{1,8}", order in any::<[i64; 4]>()) {
            let ids = AppIds::new(&pipeline, &incarnation);
            let source = SourceKey::new(table.as_str());
            let txns = stored(ids.position_txns(&source, Order(order), 1).chain([ids.epoch_txn(7, 1).unwrap()]));
            let head = ids.head(&txns);
            prop_assert_eq!(head.epoch, 7);
            prop_assert_eq!(head.positions, BTreeMap::from([(source, Order(order))]));
        }
    }

    #[test]
    fn pipelines_and_incarnations_do_not_see_each_other() {
        let ids = AppIds::new("a/b", "c");
        let txns = stored(ids.position_txns(&SourceKey::new("t"), Order::new(1, 2), 1));
        for other in [AppIds::new("a", "b/c"), AppIds::new("a/b", "d"), AppIds::new("a", "b")] {
            assert_eq!(other.head(&txns), Head::default());
        }
    }

    #[test]
    fn the_feeders_of_a_table_are_those_of_all_pipelines() {
        let (its, other) = (SourceKey::new("public.a/b"), SourceKey::new("public.c"));
        let (one, two) = (AppIds::new("p", "i"), AppIds::new("q/r", "j"));
        let at = Order::new(1, 1);
        let mut txns = stored(one.position_txns(&its, at, 1).chain(two.position_txns(&its, at, 1)));
        txns.extend(stored([one.epoch_txn(1, 1).unwrap()]));
        assert_eq!(AppIds::feeders(&txns), [its.clone()].into());
        txns.extend(stored(two.position_txns(&other, at, 1)));
        assert_eq!(AppIds::feeders(&txns), [its, other].into());
    }

    #[test]
    fn names_with_percent_and_slash_survive() {
        for name in ["a/b", "%2F", "%252F", "100%", "/"] {
            assert_eq!(unescaped(&escaped(name)).as_deref(), Some(name));
        }
    }
}
