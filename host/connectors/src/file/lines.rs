//! The lines of one file, plain or zstd, with their place.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A line beyond this is an error rather than memory without end: Kafka's own records are 1 MiB by default, and
/// Debezium's greatest values tens of MiB.
pub(super) const LONGEST_LINE: usize = 256 << 20;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

pub(super) struct Lines {
    reader: Box<dyn BufRead + Send + Sync>,
    /// Bytes of the lines that were given out; of the decompressed text where it is zstd.
    pub(super) offset: u64,
    /// Lines that were given out.
    pub(super) count: u64,
    /// The line under way; its beginning may stand here while the file grows.
    buffer: Vec<u8>,
    given: bool,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("offset", &self.offset).field("count", &self.count).finish_non_exhaustive()
    }
}

/// Whether the file is zstd by its first bytes (RFC 8878, section 3.1.1).
pub(super) fn is_zstd(path: &Path) -> io::Result<bool> {
    let mut magic = [0; 4];
    let read = File::open(path)?.read(&mut magic)?;
    Ok(magic[..read] == [0x28, 0xb5, 0x2f, 0xfd])
}

impl Lines {
    pub(super) fn open(path: &Path, zstd: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let reader: Box<dyn BufRead + Send + Sync> = if zstd {
            Box::new(BufReader::with_capacity(CHUNK, zstd::Decoder::new(file)?))
        } else {
            Box::new(BufReader::with_capacity(CHUNK, file))
        };
        Ok(Self { reader, offset: 0, count: 0, buffer: Vec::new(), given: true })
    }

    /// A plain file from a place where a line begins.
    pub(super) fn open_at(path: &Path, offset: u64, count: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let reader = Box::new(BufReader::with_capacity(CHUNK, file));
        Ok(Self { reader, offset, count, buffer: Vec::new(), given: true })
    }

    /// The next line without its end. `None` at the end of the file; where the file may grow (`grows`), a last line
    /// without its end waits for it, else it counts as one.
    pub(super) fn next(&mut self, grows: bool) -> io::Result<Option<&[u8]>> {
        if self.given {
            self.buffer.clear();
            self.given = false;
        }
        let left = (LONGEST_LINE - self.buffer.len()) as u64;
        (&mut self.reader).take(left).read_until(b'\n', &mut self.buffer)?;
        let ended = self.buffer.last() == Some(&b'\n');
        if !ended && self.buffer.len() >= LONGEST_LINE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the line has no end within 256 MiB"));
        }
        if self.buffer.is_empty() || (!ended && grows) {
            return Ok(None);
        }
        self.given = true;
        self.offset += self.buffer.len() as u64;
        self.count += 1;
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// Bytes read of the file so far, with those of a line that waits for its end.
    pub(super) fn seen(&self) -> u64 {
        self.offset + if self.given { 0 } else { self.buffer.len() as u64 }
    }
}
