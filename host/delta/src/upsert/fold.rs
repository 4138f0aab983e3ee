//! The changes of a cut, folded by key: what becomes of each key, column by column.
//!
//! A preimage or a delete takes its key out, an insert or a postimage puts its key in; what the image of a change does not
//! have comes from the state before it, which may be an earlier image of the cut or the row that the table has now.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::Images;
use millrace_core::{Error, Result};

use super::key_columns;
use super::keys::{Keys, SharedForm};
use super::late::{Ages, ages_of};
use crate::file::layout::Given;
use crate::file::reader::in_type;
use crate::log::schema::Field;

/// A batch of the cut, in the table's types.
#[derive(Debug)]
pub(crate) struct Part {
    /// As it came to the sink.
    pub batch: ChangeBatch,
    pub columns: Vec<Given>,
    pub keys: Keys,
    /// Where rows have an age: that of each row.
    pub ages: Option<Keys>,
}

impl Part {
    /// Gives it the types that the table's columns have now. `form`: of the key, by those types; `age`: of what tells rows'
    /// ages.
    pub(crate) fn retype(&mut self, fields: &[Field], form: &SharedForm, age: Option<&SharedForm>) -> Result<()> {
        for given in &mut self.columns {
            let Some(field) = fields.iter().find(|f| f.name == given.name) else { continue };
            given.cells = in_type(&given.cells, &field.ty.arrow()).map_err(Error::bug)?;
        }
        let without = std::mem::take(&mut self.keys.without);
        self.keys = form.encode(&key_columns(form, &self.columns)?)?;
        self.ages = age.map(|age| ages_of(age, &self.columns)).transpose()?;
        self.keys.without.extend(without);
        self.keys.without.sort_unstable();
        self.keys.without.dedup();
        Ok(())
    }
}

/// Changes that are letters.
pub(crate) type Refused = HashSet<(SourceKey, Order)>;

/// A row of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct At {
    pub part: u32,
    pub row: u32,
}

/// Where the value of a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Cell(At),
    /// The row that the table has under this key, an index into [`Folded::keys`].
    Stored(u32),
    /// Nowhere: the row was taken out before.
    Lost,
}

/// A row to be.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub at: At,
    /// Columns of the table whose value is not that of `at`.
    pub patches: Vec<(u32, Source)>,
    /// The changes that it is made of, the newest last: part and change.
    pub chain: Vec<(u32, u32)>,
}

impl Image {
    fn source(&self, column: u32) -> Source {
        let patch = self.patches.iter().find(|(c, _)| *c == column);
        patch.map_or(Source::Cell(self.at), |(_, source)| *source)
    }
}

/// What becomes of a key.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// The table decides: nothing of it counts.
    Untouched,
    Gone,
    Row(Image),
}

#[derive(Debug, Default)]
pub(crate) struct Folded {
    /// Every row that the table has goes.
    pub truncated: bool,
    pub keys: Vec<Box<[u8]>>,
    /// One a key.
    pub fates: Vec<Fate>,
    /// Row images that were not refused.
    pub images: u64,
    /// Of them, those that came too late.
    pub late: u64,
    /// Keys that a row moved onto before anything else was known of them: the table may have a row there that is to move on
    /// within the same transaction (a deferrable key).
    pub landed: BTreeSet<u32>,
}

/// For each image of a change whether it came too late; empty where rows have no age.
#[derive(Default)]
struct Late {
    before: Vec<bool>,
    after: Vec<bool>,
}

struct Folding<'a> {
    parts: &'a [Part],
    fields: &'a [Field],
    /// For each part, where a column of the table is among its columns.
    places: Vec<Arc<[Option<u32>]>>,
    ids: HashMap<Box<[u8]>, u32>,
    ages: Option<&'a Ages>,
    /// Of those that rows moved onto, the keys under which the table has a row.
    occupied: &'a BTreeSet<u32>,
    /// Rows that were under a key when another moved onto it: the next row before a change there is theirs, in the same
    /// transaction.
    displaced: HashMap<u32, (i64, Fate)>,
    folded: Folded,
}

/// `fields`: of the table. `ages`: by which rows that come too late are left out. `occupied`: of [`Folded::landed`], the keys
/// under which the table has a row. Both are of the keys that a fold without them has.
pub(crate) fn fold(
    parts: &[Part],
    fields: &[Field],
    refused: &Refused,
    ages: Option<&Ages>,
    occupied: &BTreeSet<u32>,
) -> Folded {
    let places = parts.iter().map(|part| places(part, fields)).collect();
    let (ids, displaced, folded) = (HashMap::new(), HashMap::new(), Folded::default());
    let mut folding = Folding { parts, fields, places, ids, ages, occupied, displaced, folded };
    let mut first = 0;
    while first < parts.len() {
        let origin = &parts[first].batch.origin;
        let together = parts[first..].iter().take_while(|p| Arc::ptr_eq(&p.batch.origin, origin)).count();
        folding.origin(first..first + together, refused);
        first += together;
    }
    folding.folded
}

/// Where each column of the table is in a part.
pub(crate) fn places(part: &Part, fields: &[Field]) -> Arc<[Option<u32>]> {
    fields.iter().map(|f| part.columns.iter().position(|c| c.name == f.name).map(|i| i as u32)).collect()
}

impl Folding<'_> {
    /// Batches of the same changes are gone through together: their order is that of the changes.
    fn origin(&mut self, range: std::ops::Range<usize>, refused: &Refused) {
        let parts = self.parts;
        let mut next: Vec<usize> = vec![0; range.len()];
        loop {
            let heads = range.clone().zip(&next).filter_map(|(part, row)| parts[part].batch.changes.get(*row));
            let Some(change) = heads.min().copied() else { return };
            let mut images = Vec::new();
            for (part, row) in range.clone().zip(next.iter_mut()) {
                let batch = &parts[part].batch;
                while batch.changes.get(*row) == Some(&change) {
                    images.push(At { part: part as u32, row: *row as u32 });
                    *row += 1;
                }
            }
            let origin = &parts[range.start].batch.origin;
            let letter =
                !refused.is_empty() && refused.contains(&(origin.source.clone(), origin.orders[change as usize]));
            if !letter {
                self.change(&images);
            }
        }
    }

    fn kind(&self, at: At) -> ChangeType {
        self.parts[at.part as usize].batch.change_types[at.row as usize]
    }

    fn change(&mut self, images: &[At]) {
        self.folded.images += images.len() as u64;
        if images.iter().any(|at| self.kind(*at) == ChangeType::Truncate) {
            self.ids.clear();
            self.displaced.clear();
            let Folded { images, late, .. } = self.folded;
            self.folded = Folded { truncated: true, images, late, ..Folded::default() };
            return;
        }
        let mut before: Vec<(At, u32, Fate)> = Vec::new();
        let mut moves_on = BTreeSet::new();
        let mut after: Vec<(At, u32)> = Vec::new();
        for at in images {
            let id = self.id(*at);
            match self.kind(*at) {
                ChangeType::UpdatePreimage | ChangeType::Delete => {
                    let displaced = self.displaced.remove(&id).filter(|(commit, _)| *commit == self.commit(*at));
                    moves_on.extend(displaced.as_ref().map(|_| id));
                    before.push((*at, id, displaced.map_or_else(|| self.before(id), |(_, row)| row)));
                }
                ChangeType::Insert | ChangeType::UpdatePostimage => after.push((*at, id)),
                ChangeType::Truncate => {}
            }
        }
        let late = self.late(&before, &after);
        self.folded.late += late.before.iter().chain(&late.after).filter(|late| **late).count() as u64;
        for (place, (_, id, _)) in before.iter().enumerate() {
            if late.before.get(place) != Some(&true) && !moves_on.contains(id) {
                self.folded.fates[*id as usize] = Fate::Gone;
            }
        }
        let posts = after.len();
        for (place, (at, id)) in after.into_iter().enumerate() {
            if late.after.get(place) == Some(&true) {
                continue;
            }
            let same_key = before.iter().find(|(_, old, _)| *old == id);
            let pair = same_key.or_else(|| before.get(place).filter(|_| before.len() == posts));
            let image = match pair {
                Some((pre, old, state)) => self.image(at, *old, state, Some(*pre)),
                // A key that only this change touched is new in `ids`: the table decides.
                None => self.image(at, id, &self.before(id), None),
            };
            if pair.is_some_and(|(_, old, _)| *old != id) {
                self.note_landing(at, id);
            }
            self.folded.fates[id as usize] = Fate::Row(image);
        }
    }

    /// The transaction of an image.
    fn commit(&self, at: At) -> i64 {
        self.parts[at.part as usize].batch.order(at.row as usize).commit()
    }

    /// A row moves onto a key. No key but a deferrable one lets it do that where another row is, and PostgreSQL asks for
    /// `replica identity full` there.
    fn note_landing(&mut self, at: At, id: u32) {
        if self.parts[at.part as usize].batch.schema.images != Images::Full {
            return;
        }
        let there = self.before(id);
        let is_there = match &there {
            Fate::Row(_) => true,
            Fate::Untouched => {
                self.folded.landed.insert(id);
                self.occupied.contains(&id)
            }
            Fate::Gone => false,
        };
        if is_there {
            self.displaced.insert(id, (self.commit(at), there));
        }
    }

    /// The key's index.
    fn id(&mut self, at: At) -> u32 {
        let key = self.parts[at.part as usize].keys.get(at.row as usize);
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = self.folded.keys.len() as u32;
        self.folded.keys.push(key.into());
        self.ids.insert(key.into(), id);
        self.folded.fates.push(Fate::Untouched);
        id
    }

    /// What is known of a key before a change.
    fn before(&self, id: u32) -> Fate {
        match &self.folded.fates[id as usize] {
            Fate::Untouched if self.folded.truncated => Fate::Gone,
            known => known.clone(),
        }
    }

    /// Which images of a change are older than the row that there is under their key.
    fn late(&self, before: &[(At, u32, Fate)], after: &[(At, u32)]) -> Late {
        let Some(ages) = self.ages else { return Late::default() };
        let of_after: Vec<bool> = after.iter().map(|(at, id)| self.is_late(ages, self.age(ages, *at), *id)).collect();
        let of_before = |(at, id, _): &(At, u32, Fate)| match after.iter().position(|(_, new)| new == id) {
            // The row that replaces it decides.
            Some(place) => of_after[place],
            None => {
                let of_new = || after.first().and_then(|(new, _)| self.age(ages, *new));
                self.is_late(ages, self.age(ages, *at).or_else(of_new), *id)
            }
        };
        Late { before: before.iter().map(of_before).collect(), after: of_after }
    }

    /// `age`: of an image; without one nothing says that it is late.
    fn is_late(&self, ages: &Ages, age: Option<&[u8]>, id: u32) -> bool {
        let stored = |id: u32| ages.stored.get(&id).map(|age| &**age);
        let now = match &self.folded.fates[id as usize] {
            Fate::Untouched if !self.folded.truncated => stored(id),
            Fate::Untouched | Fate::Gone => None,
            Fate::Row(image) => match image.source(ages.column) {
                Source::Cell(at) => self.age(ages, at),
                Source::Stored(id) => stored(id),
                Source::Lost => None,
            },
        };
        age.zip(now).is_some_and(|(age, now)| age < now)
    }

    fn age(&self, ages: &Ages, at: At) -> Option<&[u8]> {
        let known = self.parts[at.part as usize].ages.as_ref()?;
        let row = at.row as usize;
        (known.has(row) && !self.unavailable(at, ages.column as usize)).then(|| known.get(row))
    }

    fn unavailable(&self, at: At, column: usize) -> bool {
        let Some(place) = self.places[at.part as usize][column] else { return false };
        let bits = &self.parts[at.part as usize].columns[place as usize].unavailable;
        bits.as_ref().is_some_and(|bits| bits.value(at.row as usize))
    }

    fn image(&self, at: At, old: u32, state: &Fate, pre: Option<At>) -> Image {
        let change = self.parts[at.part as usize].batch.changes[at.row as usize];
        let mut image = Image { at, patches: Vec::new(), chain: Vec::new() };
        let mut leans = false;
        if self.parts[at.part as usize].columns.iter().any(|c| c.unavailable.is_some()) {
            for column in (0..self.fields.len()).filter(|c| self.unavailable(at, *c)) {
                let sent = pre
                    .filter(|pre| self.places[pre.part as usize][column].is_some() && !self.unavailable(*pre, column));
                let source = match (sent, state) {
                    (Some(pre), _) => Source::Cell(pre),
                    (None, Fate::Untouched) => Source::Stored(old),
                    (None, Fate::Gone) => Source::Lost,
                    (None, Fate::Row(earlier)) => {
                        leans = true;
                        earlier.source(column as u32)
                    }
                };
                image.patches.push((column as u32, source));
            }
        }
        if let (true, Fate::Row(earlier)) = (leans, state) {
            image.chain.clone_from(&earlier.chain);
        }
        image.chain.push((at.part, change));
        image
    }
}

#[cfg(test)]
mod tests;
