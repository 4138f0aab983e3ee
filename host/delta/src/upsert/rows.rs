//! The rows to be: gathered from the batches of the cut and from rows that the table has, and written to new files.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_select::interleave::interleave;
use futures::TryStreamExt;
use millrace_core::batch::ChangeType;
use millrace_core::{Error, Result};
use tokio::task::JoinSet;

use super::feed::Feed;
use super::fold::{At, Fate, Folded, Image, Part, Source, places};
use super::index::FileKeys;
use super::keys::SharedForm;
use crate::file::layout::Layout;
use crate::file::partition::{self, Key};
use crate::file::reader::{FileReader, Rows};
use crate::file::writer::DataFile;
use crate::log::Table;
use crate::log::actions::Add;
use crate::log::schema::Field;
use crate::store::Store;

/// Rows that are gathered at a time: what stands in memory twice.
const CHUNK_ROWS: usize = 32 << 10;

/// Files that rows are read from at a time: it is work for a core.
const MAX_READ_AT_ONCE: usize = 4;

/// The row that the table has under a key.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    pub add: Arc<Add>,
    pub row: u32,
}

/// By key, an index into [`Folded::keys`].
pub(crate) type PresentRows = HashMap<u32, Present>;

/// A new file, with the keys of its rows.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    pub add: Add,
    pub keys: Arc<FileKeys>,
}

/// What the new rows are made of.
pub(crate) struct Gathering<'a> {
    pub parts: &'a [Part],
    pub folded: &'a Folded,
    pub present: &'a PresentRows,
    /// Of the table.
    pub fields: &'a [Field],
    pub partition_by: &'a [String],
}

/// Values read from the table's files.
#[derive(Default)]
pub(super) struct StoredCells {
    /// Columns of the table that were read.
    columns: Vec<u32>,
    pub batches: Vec<Vec<ArrayRef>>,
    /// By key: batch and row.
    pub at: HashMap<u32, (u32, u32)>,
}

impl Gathering<'_> {
    fn images(&self) -> impl Iterator<Item = (u32, &Image)> {
        self.folded.fates.iter().enumerate().filter_map(|(key, fate)| match fate {
            Fate::Row(image) => Some((key as u32, image)),
            Fate::Untouched | Fate::Gone => None,
        })
    }

    /// What the change data feed says of the row to be of a key.
    fn kind(&self, key: u32) -> ChangeType {
        if self.present.contains_key(&key) { ChangeType::UpdatePostimage } else { ChangeType::Insert }
    }

    /// Writes the rows, sorted by partition and key; the files are durable when this answers. `target`: bytes at which a
    /// file ends. `feed`: where the table keeps one.
    pub(super) async fn write(
        &self,
        table: &Table,
        form: &SharedForm,
        target: u64,
        mut feed: Option<&mut Feed<'_>>,
    ) -> Result<Vec<NewFile>> {
        let stored = self.read_stored(table).await?;
        let gatherer = Gatherer::new(self, &stored);
        let rows: Vec<(u32, &Image)> = self.images().collect();
        let partitions = gatherer.partitions(&rows, self.partition_by)?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let key = |at: usize| &self.folded.keys[rows[at].0 as usize];
        let apart = |a: usize, b: usize| {
            if partitions.is_empty() { Ordering::Equal } else { partitions[a].cmp(&partitions[b]) }
        };
        order.sort_unstable_by(|a, b| apart(*a, *b).then_with(|| key(*a).cmp(key(*b))));
        let layout = Arc::new(Layout::whole(self.fields, self.partition_by));
        let mut files = Vec::new();
        for group in order.chunk_by(|a, b| apart(*a, *b).is_eq()) {
            let Some(partition) = group.first().map(|at| partitions.get(*at).cloned().unwrap_or_default()) else {
                continue;
            };
            let sorted: Vec<(u32, &Image)> = group.iter().map(|at| rows[*at]).collect();
            let mut writing = Writing::new(table, &layout, partition.clone(), &mut files);
            for chunk in sorted.chunks(CHUNK_ROWS) {
                let codes = chunk.iter().map(|(key, _)| form.code(&self.folded.keys[*key as usize]));
                let batch = gatherer.batch(chunk, &layout)?;
                if let Some(feed) = &mut feed {
                    let kinds: Vec<ChangeType> = chunk.iter().map(|(key, _)| self.kind(*key)).collect();
                    feed.write(&partition, batch.columns(), &kinds).await?;
                }
                writing.write(&batch, codes.zip(0..), target).await?;
            }
            writing.finish().await?;
        }
        Ok(files)
    }

    /// Reads what images take from the table: only the rows and columns that are needed.
    async fn read_stored(&self, table: &Table) -> Result<StoredCells> {
        let mut columns = BTreeSet::new();
        let mut by_file: BTreeMap<&str, (Arc<Add>, BTreeMap<u32, u32>)> = BTreeMap::new();
        for (column, source) in self.images().flat_map(|(_, image)| &image.patches) {
            let Source::Stored(key) = source else { continue };
            let present = self.present.get(key).ok_or_else(|| Error::bug("a row that is not there is read"))?;
            columns.insert(*column);
            let file = by_file.entry(&present.add.path).or_insert_with(|| (Arc::clone(&present.add), BTreeMap::new()));
            file.1.insert(present.row, *key);
        }
        let fields: Arc<[Field]> = columns.iter().map(|c| self.fields[*c as usize].clone()).collect();
        let mut stored = read_cells(table, by_file.into_values(), fields).await?;
        stored.columns = columns.into_iter().collect();
        metrics::counter!("millrace_delta_rows_read_total", "table" => table.place()).increment(stored.at.len() as u64);
        Ok(stored)
    }
}

/// Reads columns of some rows of some files. `files`: with the keys of the rows, by row.
pub(super) async fn read_cells(
    table: &Table,
    mut files: impl Iterator<Item = (Arc<Add>, BTreeMap<u32, u32>)>,
    fields: Arc<[Field]>,
) -> Result<StoredCells> {
    let mut stored = StoredCells::default();
    let mut reading = JoinSet::new();
    let start = |reading: &mut JoinSet<_>, (add, keys): (Arc<Add>, BTreeMap<u32, u32>)| {
        drop(reading.spawn(read_rows(table.store().clone(), add, Arc::clone(&fields), keys)));
    };
    files.by_ref().take(MAX_READ_AT_ONCE).for_each(|file| start(&mut reading, file));
    while let Some(done) = reading.join_next().await {
        let (keys, batches) = done.map_err(|e| Error::bug(format!("reading rows ended: {e}")))??;
        files.by_ref().take(1).for_each(|file| start(&mut reading, file));
        let mut keys = keys.into_iter();
        for batch in batches {
            let number = stored.batches.len() as u32;
            let rows = batch.first().map_or(0, |c| c.len() as u32);
            stored.at.extend(keys.by_ref().take(rows as usize).zip((0..rows).map(|row| (number, row))));
            stored.batches.push(batch);
        }
    }
    Ok(stored)
}

/// The keys of rows in the order of the rows, and batches of those rows.
type ReadRows = (Vec<u32>, Vec<Vec<ArrayRef>>);

/// Reads these columns of some rows of a file. `keys`: by row.
async fn read_rows(store: Store, add: Arc<Add>, fields: Arc<[Field]>, keys: BTreeMap<u32, u32>) -> Result<ReadRows> {
    let rows: Vec<u32> = keys.keys().copied().collect();
    let batches = FileReader::open(&store, &add).await?.read(&fields, Rows::These(&rows))?;
    Ok((keys.into_values().collect(), batches.try_collect().await?))
}

/// Columns of all that rows are gathered from.
struct Gatherer<'a> {
    fields: &'a [Field],
    /// For each column of the table: the arrays that cells come from; the first is one NULL.
    arrays: Vec<Vec<ArrayRef>>,
    /// For each column and part: which of `arrays`.
    of_part: Vec<Vec<usize>>,
    /// For each column and batch of stored cells: which of `arrays`.
    of_stored: Vec<Vec<usize>>,
    stored: &'a StoredCells,
}

impl<'a> Gatherer<'a> {
    fn new(gathering: &Gathering<'a>, stored: &'a StoredCells) -> Self {
        let fields = gathering.fields;
        let mut arrays: Vec<Vec<ArrayRef>> = fields.iter().map(|f| vec![new_null_array(&f.ty.arrow(), 1)]).collect();
        let mut of_part = vec![Vec::with_capacity(gathering.parts.len()); fields.len()];
        let mut of_stored = vec![Vec::new(); fields.len()];
        for part in gathering.parts {
            for (column, place) in places(part, fields).iter().enumerate() {
                of_part[column].push(match place {
                    None => 0,
                    Some(place) => {
                        arrays[column].push(Arc::clone(&part.columns[*place as usize].cells));
                        arrays[column].len() - 1
                    }
                });
            }
        }
        for batch in &stored.batches {
            for (column, cells) in stored.columns.iter().map(|c| *c as usize).zip(batch) {
                arrays[column].push(Arc::clone(cells));
                of_stored[column].push(arrays[column].len() - 1);
            }
        }
        Self { fields, arrays, of_part, of_stored, stored }
    }

    fn cell(&self, column: usize, at: At) -> (usize, usize) {
        match self.of_part[column][at.part as usize] {
            0 => (0, 0),
            array => (array, at.row as usize),
        }
    }

    fn column(&self, column: usize, rows: &[(u32, &Image)]) -> Result<ArrayRef> {
        let mut indices = Vec::with_capacity(rows.len());
        for (_, image) in rows {
            let patch = image.patches.iter().find(|(c, _)| *c as usize == column);
            indices.push(match patch.map_or(Source::Cell(image.at), |(_, source)| *source) {
                Source::Cell(at) => self.cell(column, at),
                Source::Stored(key) => {
                    let (batch, row) =
                        self.stored.at.get(&key).ok_or_else(|| Error::bug("a stored row was not read"))?;
                    (self.of_stored[column][*batch as usize], *row as usize)
                }
                Source::Lost => return Err(Error::bug("a lost value is written")),
            });
        }
        let arrays: Vec<&dyn arrow_array::Array> = self.arrays[column].iter().map(|a| a.as_ref()).collect();
        interleave(&arrays, &indices).map_err(|e| Error::bug(e.to_string()))
    }

    /// The partition of each row; empty where the table has none.
    fn partitions(&self, rows: &[(u32, &Image)], partition_by: &[String]) -> Result<Vec<Key>> {
        if partition_by.is_empty() {
            return Ok(Vec::new());
        }
        let columns =
            partition_by.iter().map(|name| self.column(self.index(name)?, rows)).collect::<Result<Vec<_>>>()?;
        (0..rows.len()).map(|row| columns.iter().map(|c| partition::value(c, row)).collect()).collect()
    }

    fn index(&self, name: &str) -> Result<usize> {
        let found = self.fields.iter().position(|f| f.name == name);
        found.ok_or_else(|| Error::bug(format!("a file has a column `{name}` and its table has none")))
    }

    fn batch(&self, rows: &[(u32, &Image)], layout: &Layout) -> Result<RecordBatch> {
        let columns = layout.columns.iter().map(|field| self.column(self.index(&field.name)?, rows));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::clone(&layout.arrow), columns, &options)
            .map_err(|e| Error::bug(e.to_string()))
    }
}

/// The files of one partition, one after the other.
pub(super) struct Writing<'a> {
    table: &'a Table,
    layout: &'a Arc<Layout>,
    partition: Key,
    open: Option<(DataFile, Vec<(u64, u32)>)>,
    files: &'a mut Vec<NewFile>,
}

impl<'a> Writing<'a> {
    pub(super) fn new(table: &'a Table, layout: &'a Arc<Layout>, partition: Key, files: &'a mut Vec<NewFile>) -> Self {
        Self { table, layout, partition, open: None, files }
    }

    /// `codes`: of the keys, each with its row. `target`: bytes at which a file ends.
    pub(super) async fn write(
        &mut self,
        rows: &RecordBatch,
        codes: impl Iterator<Item = (u64, u32)>,
        target: u64,
    ) -> Result<()> {
        let (file, keys) = match &mut self.open {
            Some(open) => open,
            none => {
                let id = self.table.random_id();
                let file = DataFile::create(self.table.store(), Arc::clone(self.layout), self.partition.clone(), &id)?;
                none.insert((file, Vec::new()))
            }
        };
        let first = file.rows();
        keys.extend(codes.map(|(code, row)| (code, first + row)));
        file.write(rows).await?;
        if file.bytes() as u64 >= target { self.finish().await } else { Ok(()) }
    }

    pub(super) async fn finish(&mut self) -> Result<()> {
        let Some((file, keys)) = self.open.take() else { return Ok(()) };
        let add = file.finish(self.table.now_millis()).await?;
        self.files.push(NewFile { add, keys: Arc::new(FileKeys::build(keys)) });
        Ok(())
    }
}
