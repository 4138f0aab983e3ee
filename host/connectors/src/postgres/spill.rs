//! Large transactions that the server streams before they commit: kept on disk, one file a transaction, and
//! played back in commit order. Memory is bounded by two buffers.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use millrace_core::error::{Error, Result};

/// 256 KiB: writes and reads of a few hundred rows at once.
const BUFFER: usize = 256 << 10;

/// Before each message: the (sub)transaction's id and the message's length, four bytes each.
const HEADER: usize = 8;

/// Transactions that are under way. What it writes is never read after a restart: the server sends a transaction
/// that was not acknowledged again from its beginning, so nothing is synced to the disk.
#[derive(Debug)]
pub(super) struct Spill {
    dir: PathBuf,
    limit: u64,
    used: u64,
    open: HashMap<u32, Transaction>,
    /// The one that the server sends just now. Only this file is open.
    active: Option<(u32, BufWriter<File>)>,
}

#[derive(Debug, Default)]
struct Transaction {
    bytes: u64,
    /// Subtransactions that were rolled back.
    aborted: BTreeSet<u32>,
}

impl Spill {
    /// An empty one; what an earlier run left in the folder is removed with the first transaction.
    pub(super) fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit, used: 0, open: HashMap::new(), active: None }
    }

    /// Removes what an earlier run left.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.active = None;
        self.open.clear();
        self.used = 0;
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.broken(e)),
            _ => Ok(()),
        }
    }

    /// A block of a transaction begins; `first`: its first one.
    pub(super) fn start(&mut self, xid: u32, first: bool) -> Result<()> {
        if first {
            self.create_dir()?;
            self.drop_transaction(xid)?;
            self.open.insert(xid, Transaction::default());
        } else if !self.open.contains_key(&xid) {
            return Err(unknown(xid));
        }
        let file = File::options().create(true).append(true).open(self.path(xid)).map_err(|e| self.broken(e))?;
        self.active = Some((xid, BufWriter::with_capacity(BUFFER, file)));
        Ok(())
    }

    fn create_dir(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        // Rows in clear are nobody else's to read.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.dir).map_err(|e| self.broken(e))
    }

    /// A message of the block, by the (sub)transaction that made the change.
    pub(super) fn append(&mut self, subxid: u32, message: &[u8]) -> Result<()> {
        let Some((xid, file)) = &mut self.active else { return Err(unknown(subxid)) };
        let bytes = (HEADER + message.len()) as u64;
        if self.used + bytes > self.limit {
            let message =
                format!("open transactions need more than {} MiB in {}", self.limit >> 20, self.dir.display());
            return Err(Error::halt("postgres.spill_full", message)
                .hint("raise spill_limit_mib, or set streaming: false to leave them to the server's disk"));
        }
        let length = message.len() as u32;
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&subxid.to_be_bytes());
        header[4..].copy_from_slice(&length.to_be_bytes());
        let written = file.write_all(&header).and_then(|()| file.write_all(message));
        if let Some(transaction) = self.open.get_mut(xid) {
            transaction.bytes += bytes;
            self.used += bytes;
        }
        written.map_err(|e| self.broken(e))
    }

    /// The block ends.
    pub(super) fn stop(&mut self) -> Result<()> {
        match self.active.take() {
            Some((_, mut file)) => file.flush().map_err(|e| self.broken(e)),
            None => Err(Error::halt("postgres.protocol", "a stream block ends that did not begin")),
        }
    }

    /// A (sub)transaction was rolled back: its changes will not be played back.
    pub(super) fn abort(&mut self, xid: u32, subxid: u32) -> Result<()> {
        if xid == subxid {
            return self.drop_transaction(xid);
        }
        // Of a transaction without a block there is nothing to leave out.
        if let Some(transaction) = self.open.get_mut(&xid) {
            transaction.aborted.insert(subxid);
        }
        Ok(())
    }

    /// The transaction committed: its messages, in order.
    pub(super) fn commit(&mut self, xid: u32) -> Result<Playback> {
        let transaction = self.open.remove(&xid).ok_or_else(|| unknown(xid))?;
        self.used -= transaction.bytes;
        let path = self.path(xid);
        let file = File::open(&path).map_err(|e| self.broken(e))?;
        // The open handle keeps the content; a crash leaves nothing behind.
        fs::remove_file(&path).map_err(|e| self.broken(e))?;
        Ok(Playback {
            file: BufReader::with_capacity(BUFFER, file),
            left: transaction.bytes,
            aborted: transaction.aborted,
            message: Vec::new(),
        })
    }

    fn drop_transaction(&mut self, xid: u32) -> Result<()> {
        if let Some(transaction) = self.open.remove(&xid) {
            self.used -= transaction.bytes;
            fs::remove_file(self.path(xid)).map_err(|e| self.broken(e))?;
        }
        Ok(())
    }

    fn path(&self, xid: u32) -> PathBuf {
        self.dir.join(format!("{xid}.tx"))
    }

    fn broken(&self, e: io::Error) -> Error {
        Error::halt("postgres.spill_failed", format!("open transactions in {}: {e}", self.dir.display()))
            .hint("give spill_dir a folder with room that the host may write to")
    }
}

fn unknown(xid: u32) -> Error {
    Error::halt("postgres.protocol", format!("transaction {xid} goes on that did not begin"))
}

/// A committed transaction's messages.
#[derive(Debug)]
pub(super) struct Playback {
    file: BufReader<File>,
    left: u64,
    aborted: BTreeSet<u32>,
    message: Vec<u8>,
}

impl Playback {
    /// Reads the next message; `None`: that was all. `true` beside it: made by a subtransaction that was rolled back.
    pub(super) fn next(&mut self) -> Result<Option<(bool, &[u8])>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        self.file.read_exact(&mut header).map_err(unreadable)?;
        let [a, b, c, d, length @ ..] = header;
        let subxid = u32::from_be_bytes([a, b, c, d]);
        let length = u32::from_be_bytes(length) as usize;
        self.left = self.left.saturating_sub((HEADER + length) as u64);
        self.message.resize(length, 0);
        self.file.read_exact(&mut self.message).map_err(unreadable)?;
        Ok(Some((self.aborted.contains(&subxid), &self.message)))
    }
}

fn unreadable(e: io::Error) -> Error {
    // The server still has the transaction: it is streamed again.
    Error::retry("postgres.spill_failed", format!("reading back a streamed transaction: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut playback: Playback) -> Vec<(bool, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some((aborted, message)) = playback.next().unwrap() {
            found.push((aborted, message.to_vec()));
        }
        found
    }

    fn block(spill: &mut Spill, xid: u32, first: bool, messages: &[(u32, &str)]) {
        spill.start(xid, first).unwrap();
        for (subxid, message) in messages {
            spill.append(*subxid, message.as_bytes()).unwrap();
        }
        spill.stop().unwrap();
    }

    #[test]
    fn interleaved_transactions_come_back_each_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path().join("spill"), 1 << 20);
        block(&mut spill, 1, true, &[(1, "a"), (1, "b")]);
        block(&mut spill, 2, true, &[(2, "x")]);
        block(&mut spill, 1, false, &[(3, "c"), (1, "d")]);
        block(&mut spill, 2, false, &[(2, "")]);
        spill.abort(1, 3).unwrap();
        let expected = [(false, "a"), (false, "b"), (true, "c"), (false, "d")];
        assert_eq!(all(spill.commit(1).unwrap()), expected.map(|(a, m)| (a, m.as_bytes().to_vec())));
        assert_eq!(all(spill.commit(2).unwrap()), [(false, b"x".to_vec()), (false, Vec::new())]);
        assert_eq!((spill.used, fs::read_dir(dir.path().join("spill")).unwrap().count()), (0, 0));
    }

    #[test]
    fn a_rolled_back_transaction_leaves_nothing_and_frees_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path().to_owned(), 20);
        block(&mut spill, 1, true, &[(1, "0123456789")]);
        spill.start(2, true).unwrap();
        assert_eq!(spill.append(2, b"0123").unwrap_err().code, "postgres.spill_full");
        spill.stop().unwrap();
        spill.abort(1, 1).unwrap();
        block(&mut spill, 2, false, &[(2, "0123456789")]);
        assert_eq!(all(spill.commit(2).unwrap()).len(), 1);
        assert_eq!(spill.commit(1).unwrap_err().code, "postgres.protocol");
    }

    #[test]
    fn what_an_earlier_run_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let spill_dir = dir.path().join("spill");
        fs::create_dir(&spill_dir).unwrap();
        fs::write(spill_dir.join("7.tx"), b"old").unwrap();
        Spill::new(spill_dir.clone(), 1).clear().unwrap();
        assert!(!spill_dir.exists());
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = Spill::new(file.join("spill"), 1 << 20).start(1, true).unwrap_err();
        assert_eq!(error.code, "postgres.spill_failed");
    }
}
