//! A snapshot into a table of current rows: its files are written as they come and are compared with what is there at the
//! end. Where one source table alone feeds the table, the snapshot replaces it; else its rows replace those of the same
//! keys.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::TryStreamExt;
use millrace_core::batch::ChangeType;
use millrace_core::{Error, Result};
use roaring::RoaringTreemap;

use super::feed::{self, Feed};
use super::index::FileKeys;
use super::locate::{Target, file_keys};
use super::{Form, Staged, Upserts, report_duplicates, take_out};
use crate::file::reader::{FileReader, Rows};
use crate::log::Table;
use crate::log::actions::{Add, Cdc, Remove};
use crate::log::deletion_vectors;

/// Rows of two files that may have the same key: of the one that came earlier, and of the later one.
type Pairs = Vec<(u32, u32)>;

/// Rows that go, by the file's path.
type Marked = BTreeMap<Arc<str>, (Arc<Add>, RoaringTreemap)>;

impl Upserts {
    /// Plans the commit of a snapshot's files, made of `images`. `whole`: everything that the table has goes.
    pub(crate) async fn stage_snapshot(
        &mut self,
        table: &Table,
        form: Form<'_>,
        adds: &[Add],
        (whole, images): (bool, u64),
    ) -> Result<()> {
        let target = self.target.as_mut().ok_or_else(|| Error::bug("an upsert without a key"))?;
        let state = table.state();
        let present: Vec<Arc<Add>> =
            state.and_then(|s| s.files.as_ref()).map_or(Vec::new(), |f| f.iter().cloned().collect());
        let new: Vec<Arc<Add>> = adds.iter().cloned().map(Arc::new).collect();
        let mut staged = Staged { files_at: state.map(|s| s.files_changed_at), images, ..Staged::default() };
        let mut marked = Marked::new();
        let mut before: Vec<Arc<Add>> = if whole { Vec::new() } else { present.clone() };
        let mut repeated = 0;
        for file in &new {
            let keys = target.keys_of(file).await?;
            let within = target.repeated_within(file, &keys).await?;
            repeated += within.len();
            mark(&mut marked, file, within);
            for earlier in &before {
                let rows = target.shadowed(earlier, file, &keys).await?;
                mark(&mut marked, earlier, rows);
            }
            before.push(Arc::clone(file));
        }
        let now = table.now_millis();
        if whole {
            staged.removes.extend(present.iter().map(|add| Remove::of(add, now, true)));
        }
        let all: &[Arc<Add>] = if whole { &present } else { &[] };
        if form.options.change_data_feed && (!whole || !marked.is_empty() || feed::is_needed(all.iter())) {
            staged.changes = changes(table, target, form, (all, &new), &marked).await?;
        }
        // A new file of which rows go is added once, with its vector, or written anew.
        let is_new = |path: &str| adds.iter().any(|a| a.path == path);
        staged.adds.extend(adds.iter().filter(|a| !marked.contains_key(a.path.as_str())).cloned());
        take_out(table, target, form, marked.into_values().collect(), &mut staged).await?;
        staged.removes.retain(|remove| !is_new(&remove.path));
        if repeated > 0 {
            report_duplicates(table, repeated as u64);
        }
        self.staged = Some(staged);
        Ok(())
    }
}

/// Rows of the table that go, and those that come. `all`: files of which every row goes.
async fn changes(
    table: &Table,
    target: &mut Target,
    form: Form<'_>,
    (all, new): (&[Arc<Add>], &[Arc<Add>]),
    marked: &Marked,
) -> Result<Vec<Cdc>> {
    let mut feed = Feed::new(table, form);
    let mut vectors = deletion_vectors::Reader::default();
    for add in all {
        let gone = target.gone(add, &mut vectors).await?;
        feed.rest(add, &gone, ChangeType::Delete).await?;
    }
    let is_new = |add: &Add| new.iter().any(|n| n.path == add.path);
    for (add, rows) in marked.values().filter(|(add, _)| !is_new(add)) {
        let rows: Vec<u32> = rows.iter().map(|row| row as u32).collect();
        feed.stored(add, &rows, &vec![ChangeType::Delete; rows.len()]).await?;
    }
    let nothing = RoaringTreemap::new();
    for add in new {
        let gone = marked.get(add.path.as_str()).map_or(&nothing, |(_, rows)| rows);
        feed.rest(add, gone, ChangeType::Insert).await?;
    }
    feed.finish().await
}

fn mark(marked: &mut Marked, add: &Arc<Add>, rows: Vec<u32>) {
    if rows.is_empty() {
        return;
    }
    let entry = marked.entry(add.path.as_str().into()).or_insert_with(|| (Arc::clone(add), RoaringTreemap::new()));
    entry.1.extend(rows.into_iter().map(u64::from));
}

impl Target {
    /// The keys of a whole file, from memory or from the file.
    async fn keys_of(&mut self, add: &Arc<Add>) -> Result<Arc<FileKeys>> {
        if let Some(keys) = self.keys.get(&add.path) {
            return Ok(keys);
        }
        if let Some(keys) = self.keys.load(add).await? {
            return Ok(keys);
        }
        let since = self.keys.now();
        let reader = FileReader::open(&self.store, add).await?;
        let keys = Arc::new(file_keys(reader, &self.form).await?);
        drop(self.keys.insert(add, &keys, since));
        Ok(keys)
    }

    /// Rows of a file whose key a later row of it has as well.
    async fn repeated_within(&mut self, add: &Arc<Add>, keys: &FileKeys) -> Result<Vec<u32>> {
        let groups: Vec<Vec<u32>> = keys.repeated().into_iter().map(|(_, rows)| rows).collect();
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let exact = self.form.is_exact();
        let bytes = if exact { HashMap::new() } else { self.keys_at(add, groups.iter().flatten().copied()).await? };
        let mut earlier = Vec::new();
        for rows in groups {
            for (place, row) in rows.iter().enumerate() {
                let later = &rows[place + 1..];
                if later.iter().any(|other| exact || bytes.get(row) == bytes.get(other)) {
                    earlier.push(*row);
                }
            }
        }
        Ok(earlier)
    }

    /// Rows of `earlier` whose key a row of `later` has.
    async fn shadowed(&mut self, earlier: &Arc<Add>, later: &Arc<Add>, keys: &FileKeys) -> Result<Vec<u32>> {
        let (one, two) = (self.facts(earlier), self.facts(later));
        if let (Some(a), Some(b)) = (&one.bounds, &two.bounds)
            && (a.greatest < b.least || b.greatest < a.least)
        {
            return Ok(Vec::new());
        }
        let pairs: Pairs = self.keys_of(earlier).await?.common(keys);
        if pairs.is_empty() || self.form.is_exact() {
            return Ok(pairs.into_iter().map(|(row, _)| row).collect());
        }
        let of_earlier = self.keys_at(earlier, pairs.iter().map(|p| p.0)).await?;
        let of_later = self.keys_at(later, pairs.iter().map(|p| p.1)).await?;
        let equal = |pair: &&(u32, u32)| of_earlier.get(&pair.0) == of_later.get(&pair.1);
        Ok(pairs.iter().filter(equal).map(|(row, _)| *row).collect())
    }

    /// The keys of some rows of a file.
    async fn keys_at(&self, add: &Arc<Add>, rows: impl Iterator<Item = u32>) -> Result<HashMap<u32, Box<[u8]>>> {
        let mut rows: Vec<u32> = rows.collect();
        rows.sort_unstable();
        rows.dedup();
        let mut found = HashMap::with_capacity(rows.len());
        let mut batches = FileReader::open(&self.store, add).await?.read(&self.form.fields, Rows::These(&rows))?;
        let mut next = rows.into_iter();
        while let Some(columns) = batches.try_next().await? {
            let keys = self.form.encode(&columns)?;
            found.extend(next.by_ref().take(keys.len()).enumerate().map(|(place, row)| (row, keys.get(place).into())));
        }
        Ok(found)
    }
}
