//! Dead letters as NDJSON: for sinks that have no tables. A file has no position to compare and set, so a letter may be
//! there twice after a crash (at least once).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use millrace_core::batch::ChangeBatch;
use millrace_core::cut::Cut;
use millrace_core::letters::TABLE;
use millrace_core::schema::TableName;
use millrace_core::sink::{Claim, Prepared, Sink, Stored};
use millrace_core::{Error, Result, json};
use serde_json::Value;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use crate::config::reference::io_reason;

/// Appends letters to a file, one JSON object a line.
#[derive(Debug)]
pub struct NdjsonLetters {
    path: PathBuf,
    /// Opened by the first letter: a pipeline without letters leaves no file.
    file: Option<File>,
    /// Of the cut under way.
    lines: Vec<u8>,
    rows: u64,
    committed: u64,
}

impl NdjsonLetters {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, lines: Vec::new(), rows: 0, committed: 0 }
    }

    fn refused(&self, error: &std::io::Error) -> Error {
        Error::retry("letters.write", format!("{}: {}", self.path.display(), io_reason(error)))
            .hint("the dead letters need a folder that this user may write, with space left")
    }

    async fn append(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                tokio::fs::create_dir_all(folder).await?;
            }
            let file = OpenOptions::new().create(true).append(true).open(&self.path).await?;
            sync_folder(&self.path).await?;
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.lines).await?;
            file.sync_data().await?;
        }
        Ok(())
    }
}

/// The file's name is durable only once its folder is (I7).
async fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder).await?.sync_all().await,
        None => Ok(()),
    }
}

#[async_trait]
impl Sink for NdjsonLetters {
    async fn fence(&mut self, _claim: &Claim) -> Result<Stored> {
        self.lines.clear();
        self.rows = 0;
        Ok(Stored::new())
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        for row in 0..batch.rows() {
            let mut letter = json::row(&batch, row, |_| false);
            letter.insert("position".into(), batch.order(row).to_sortable().into());
            letter.insert("commit_time".into(), json::timestamp(batch.commit_time(row), "Z").into());
            serde_json::to_writer(&mut self.lines, &Value::Object(letter)).map_err(|e| Error::bug(e.to_string()))?;
            self.lines.push(b'\n');
        }
        self.rows += batch.rows() as u64;
        Ok(())
    }

    async fn prepare(&mut self, _cut: &Cut) -> Result<Prepared> {
        Ok(Prepared::default())
    }

    async fn commit(&mut self, _cut: &Cut) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.append().await {
            // What a torn write left is repeated whole: at least once.
            self.file = None;
            return Err(self.refused(&error));
        }
        self.lines.clear();
        self.committed += std::mem::take(&mut self.rows);
        Ok(())
    }

    fn committed(&self) -> BTreeMap<TableName, u64> {
        BTreeMap::from([(TableName::new("", TABLE), self.committed)])
    }

    fn location(&self, _table: &TableName) -> Option<String> {
        Some(self.path.display().to_string())
    }
}
