//! Lines of Debezium envelopes, or of Kafka records around them, in files; or lines as raw messages.
//!
//! Each line is a commit of its own. Order: (number of the line over all files, 1). Token: file, place in it and what
//! the decoder knows of the tables, as JSON; that makes a restart read every line as it was read before.
//!
//! A line that is no change event is a row of the source table `file.bad_lines` and a reject of it, so that it ends among
//! the dead letters with its text.
//!
//! Reading is blocking, a chunk of 256 KiB at a time, mostly from the page cache: a task for each would cost more
//! than it saves.

mod lines;
mod paths;
mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use millrace_core::batch::ChangeType;
use millrace_core::builder::Cells;
use millrace_core::cut::{Boundary, CutBuilder};
use millrace_core::position::{Order, Position, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::source::{Opened, Resume, Source};
use millrace_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::debezium::{Decoder, Failure, Line, Malformed, Message, parse, parse_line};
use lines::Lines;

/// Lines that one read takes at most, so that the engine hears of a boundary every few milliseconds.
const LINES_A_READ: usize = 1_000;
/// How often a followed file is looked at: what a person takes for at once.
const POLL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// By the first bytes of each file.
    #[default]
    Auto,
    None,
    Zstd,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A change event: a Debezium envelope, or a Kafka record around one.
    #[default]
    Debezium,
    /// A raw message for a parser plugin, without a key.
    Lines,
    /// A Kafka record as JSON, whose key and value are a raw message for a parser plugin.
    Records,
}

/// Change events from files: a Debezium envelope, or a Kafka record around one, a line. Or raw messages for a parser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// A file, or several: `*` and `?` may stand in the last part of the path. They are read one after the other, by
    /// name, and must stay as they are (but for growing, where they are followed).
    pub path: PathBuf,
    /// What a line is.
    #[serde(default)]
    pub format: Format,
    /// How the files are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Wait for more lines, and more files, instead of ending. Not for zstd.
    #[serde(default)]
    pub follow: bool,
    /// Key columns by table (`namespace.table`), where the lines are envelopes without a record's key.
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<String>>,
}

impl FileConfig {
    /// One file, read to its end.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: Format::Debezium,
            compression: Compression::Auto,
            follow: false,
            keys: BTreeMap::new(),
        }
    }

    /// Errors: `file.follow` where zstd is to be followed.
    pub fn build(&self) -> Result<FileSource> {
        if self.follow && self.compression == Compression::Zstd {
            return Err(Error::config(
                "file.follow",
                "a zstd file cannot be followed: its frames end when its writer does",
            ));
        }
        Ok(FileSource {
            config: self.clone(),
            decoder: Decoder::new(self.keys.clone()),
            files: Vec::new(),
            current: 0,
            lines: None,
            line: 0,
            ended: false,
        })
    }
}

/// The source; made by [`FileConfig::build`].
#[derive(Debug)]
pub struct FileSource {
    config: FileConfig,
    decoder: Decoder,
    files: Vec<PathBuf>,
    /// Index of the file under way.
    current: usize,
    lines: Option<Lines>,
    /// Lines over all files so far.
    line: u64,
    ended: bool,
}

/// What a position's token holds.
#[derive(Serialize, Deserialize)]
struct Token {
    file: String,
    /// Bytes before the next line; of a zstd file, of its text.
    offset: u64,
    /// Lines before it in this file, and in all.
    file_line: u64,
    line: u64,
    tables: Box<RawValue>,
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::config("file.not_found", message).hint("check `path`; it is relative to where millrace was started")
        }
        std::io::ErrorKind::PermissionDenied => Error::config("file.permission", message),
        std::io::ErrorKind::FileTooLarge => Error::halt("file.line_too_long", message),
        _ => Error::retry("file.read", message),
    }
}

impl FileSource {
    fn open_file(&self, path: &Path) -> Result<Lines> {
        let zstd = self.is_zstd(path)?;
        Lines::open(path, zstd).map_err(|e| unreadable(path, &e))
    }

    fn is_zstd(&self, path: &Path) -> Result<bool> {
        let zstd = match self.config.compression {
            Compression::Auto => lines::is_zstd(path).map_err(|e| unreadable(path, &e))?,
            Compression::None => false,
            Compression::Zstd => true,
        };
        if zstd && self.config.follow {
            let message = format!("{} is zstd, which cannot be followed", path.display());
            return Err(Error::config("file.follow", message).hint("leave `follow` out"));
        }
        Ok(zstd)
    }

    fn list(&self) -> Result<Vec<PathBuf>> {
        paths::list(&self.config.path).map_err(|e| unreadable(&self.config.path, &e))
    }

    /// The path as it was given, and the first line: what stays while a file grows.
    fn incarnation(&self) -> Result<String> {
        let first = &self.files[0];
        let mut lines = self.open_file(first)?;
        let line = lines.next(self.config.follow).map_err(|e| unreadable(first, &e))?;
        if line.is_none() && self.config.follow {
            return Err(Error::retry("file.empty", format!("{} has no line yet", first.display())));
        }
        let digest = Sha256::digest(line.unwrap_or_default());
        let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        Ok(format!("file:{}:{hex}", self.config.path.display()))
    }

    fn start(&mut self, resume: &Resume) -> Result<()> {
        self.ended = false;
        let Some(position) = &resume.position else {
            (self.current, self.line) = (0, 0);
            self.decoder = Decoder::new(self.config.keys.clone());
            self.lines = Some(self.open_file(&self.files[0])?);
            return Ok(());
        };
        let token: Token = serde_json::from_slice(&position.token)
            .map_err(|e| Error::halt("position.token", format!("the recorded position is not one of files: {e}")))?;
        let gap = |what: &str| {
            Error::halt("position.gap", format!("{}: {what}", token.file)).hint("put the file back as it was")
        };
        let named = |p: &PathBuf| p.to_string_lossy() == token.file;
        self.current = self.files.iter().position(named).ok_or_else(|| gap("the file that was read last is gone"))?;
        let path = &self.files[self.current];
        let zstd = self.is_zstd(path)?;
        let lines = if zstd { skip(self.open_file(path)?, token.file_line) } else { at(path, &token) };
        let lines = lines
            .map_err(|e| unreadable(path, &e))?
            .ok_or_else(|| gap("the file is shorter than what was read of it"))?;
        self.decoder.restore(token.tables.get())?;
        self.line = token.line;
        self.lines = Some(lines);
        Ok(())
    }

    fn position(&mut self) -> Result<Position> {
        let tables = self.decoder.state()?;
        let (offset, file_line) = self.lines.as_ref().map_or((0, 0), |l| (l.offset, l.count));
        let token = Token {
            file: self.files[self.current].to_string_lossy().into_owned(),
            offset,
            file_line,
            line: self.line,
            tables: RawValue::from_string(tables.to_string()).map_err(|e| Error::bug(e.to_string()))?,
        };
        let token = serde_json::to_vec(&token).map_err(|e| Error::bug(e.to_string()))?;
        Ok(Position { order: Order::new(self.line as i64, 1), token: token.into() })
    }

    /// Takes the lines that are there, up to a limit. Answers whether there were any.
    fn take_lines(&mut self, into: &mut CutBuilder) -> Result<bool> {
        let mut taken = 0;
        while taken < LINES_A_READ {
            let is_last = self.current + 1 == self.files.len();
            let grows = self.config.follow && is_last;
            let path = &self.files[self.current];
            let Some(lines) = &mut self.lines else { return Err(Error::bug("read before open")) };
            let file_line = lines.count + 1;
            match lines.next(grows).map_err(|e| unreadable(path, &e))? {
                Some(line) => {
                    self.line += 1;
                    taken += 1;
                    let place = Place { file: path, file_line, order: Order::new(self.line as i64, 1) };
                    take(line, &place, self.config.format, &mut self.decoder, into)?;
                    if into.has_closed() {
                        break;
                    }
                }
                None if !is_last => {
                    self.lines = Some(self.open_file(&self.files[self.current + 1])?);
                    self.current += 1;
                }
                None => {
                    self.ended = !self.config.follow;
                    break;
                }
            }
        }
        Ok(taken > 0)
    }

    /// At the end of what is there: new files, and whether the one under way is still what it was.
    fn look_again(&mut self) -> Result<()> {
        let path = &self.files[self.current];
        let length = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?.len();
        if self.lines.as_ref().is_some_and(|l| length < l.seen()) {
            let message = format!("{} became shorter than what was read of it", path.display());
            return Err(
                Error::halt("position.gap", message).hint("followed files may only grow; write new files beside them")
            );
        }
        let known = path.clone();
        let mut files = self.list()?;
        if let Some(current) = files.iter().position(|f| *f == known) {
            if current > self.current {
                tracing::warn!(file = %files[0].display(), "a new file sorts before those that were read: it is not read");
            }
            self.current = current;
            self.files = std::mem::take(&mut files);
        }
        Ok(())
    }
}

/// A zstd file has no places to go to: what was read is read again, and left out.
fn skip(mut lines: Lines, count: u64) -> std::io::Result<Option<Lines>> {
    while lines.count < count {
        if lines.next(false)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(lines))
}

fn at(path: &Path, token: &Token) -> std::io::Result<Option<Lines>> {
    if std::fs::metadata(path)?.len() < token.offset {
        return Ok(None);
    }
    Lines::open_at(path, token.offset, token.file_line).map(Some)
}

/// Where a line stands.
struct Place<'a> {
    file: &'a Path,
    /// From 1.
    file_line: u64,
    order: Order,
}

fn take(line: &[u8], place: &Place<'_>, format: Format, decoder: &mut Decoder, into: &mut CutBuilder) -> Result<()> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let taken = match format {
        Format::Debezium => decode(line, place.order, decoder, into),
        Format::Lines | Format::Records => raw::append(line, format, place, into),
    };
    match taken {
        Ok(()) => Ok(()),
        Err(Failure::Engine(error)) => Err(error),
        Err(Failure::Message(why)) => bad_line(line, place, &why, into),
    }
}

fn decode(line: &[u8], order: Order, decoder: &mut Decoder, into: &mut CutBuilder) -> Result<(), Failure> {
    let text = std::str::from_utf8(line).map_err(|e| Malformed(format!("not UTF-8: {e}")))?;
    let mut append = |message: Message<'_>| match message {
        Message::Change(envelope) => decoder.append(&envelope, order, into),
        Message::Ignored(_) => Ok(()),
    };
    match parse_line(text)? {
        Line::Message(message) => append(message),
        Line::Quoted { key, value } => append(parse(key, Some(&value))?),
    }
}

/// The table of lines that are no change events.
fn bad_lines() -> &'static (SourceKey, Arc<TableSchema>) {
    static FORM: LazyLock<(SourceKey, Arc<TableSchema>)> = LazyLock::new(|| {
        let name = TableName::new("file", "bad_lines");
        let columns = vec![
            Column::new("file", ColumnType::Text).key(),
            Column::new("line", ColumnType::Int64).key(),
            // What is not UTF-8 stands in `bytes` instead.
            Column::new("raw", ColumnType::Text),
            Column::new("bytes", ColumnType::Binary),
        ];
        (SourceKey::new(name.to_string()), Arc::new(TableSchema::new(name, columns, Images::None)))
    });
    &FORM
}

fn bad_line(line: &[u8], place: &Place<'_>, why: &Malformed, into: &mut CutBuilder) -> Result<()> {
    let (source, schema) = bad_lines();
    let text = std::str::from_utf8(line).ok();
    let builder = into.table(source, schema, false)?;
    builder.begin_change(place.order, 0);
    builder.begin_row(ChangeType::Insert);
    for (index, column) in builder.columns().iter_mut().enumerate() {
        match (&mut column.cells, index) {
            (Cells::Text(b), 0) => b.append_value(place.file.to_string_lossy()),
            (Cells::Text(b), _) => b.append_option(text),
            (Cells::Binary(b), _) => b.append_option(text.is_none().then_some(line)),
            (Cells::Int64(b), _) => b.append_value(place.file_line as i64),
            _ => return Err(Error::bug("the table of bad lines has another form")),
        }
    }
    builder.count_bytes(line.len());
    builder.reject("file.bad_line", format!("{}, line {}: {why}", place.file.display(), place.file_line), Some("raw"));
    Ok(())
}

#[async_trait]
impl Source for FileSource {
    async fn open(&mut self, resume: &Resume) -> Result<Opened> {
        self.files = self.list()?;
        if self.files.is_empty() {
            let message = format!("no file fits {}", self.config.path.display());
            return Err(Error::config("file.not_found", message)
                .hint("check `path`; it is relative to where millrace was started"));
        }
        let incarnation = self.incarnation()?;
        if resume.incarnation.as_ref().is_some_and(|i| *i != incarnation) {
            let message = format!(
                "{} is not the file that was read before: its first line, or the path, is another",
                self.files[0].display()
            );
            return Err(
                Error::halt("position.gap", message).hint("put the old file back, or give the pipeline another name")
            );
        }
        self.start(resume)?;
        Ok(Opened { incarnation, start: self.position()?, holds_log: false, tables: None, gaps: BTreeSet::new() })
    }

    async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary> {
        loop {
            let taken = !self.ended && self.take_lines(into)?;
            if self.ended {
                return Ok(Boundary::End(self.position()?));
            }
            if taken {
                return Ok(Boundary::Commit(self.position()?));
            }
            self.look_again()?;
            if self.current + 1 == self.files.len() {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    async fn acknowledge(&mut self, _position: &Position) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
