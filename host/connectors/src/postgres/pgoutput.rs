//! The messages of the `pgoutput` plugin, protocol 1 and 2 (streamed transactions), without copying.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::lsn::Lsn;

/// What does not follow the format; the bytes are never quoted, for they are the users' data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pgoutput: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Which part of the old row an update or delete carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldKind {
    /// The replica identity's columns; the others stand there as NULL.
    Key,
    /// The whole row (`REPLICA IDENTITY FULL`).
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationColumn<'a> {
    /// Part of the replica identity.
    pub(super) key: bool,
    pub(super) name: &'a str,
    pub(super) type_oid: u32,
    pub(super) typmod: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationBody<'a> {
    pub(super) oid: u32,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// `pg_class.relreplident`: d, n, f, i.
    pub(super) replica_identity: u8,
    pub(super) columns: Vec<RelationColumn<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Begin {
        final_lsn: Lsn,
        commit_time: i64,
        xid: u32,
    },
    Commit {
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_time: i64,
    },
    Origin,
    Type,
    /// A logical decoding message of `pg_logical_emit_message`.
    Logical,
    Relation(RelationBody<'a>),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<(OldKind, Tuple<'a>)>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        kind: OldKind,
        old: Tuple<'a>,
    },
    Truncate {
        relations: Oids<'a>,
    },
    StreamStart {
        xid: u32,
        first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_time: i64,
    },
    StreamAbort {
        xid: u32,
        subxid: u32,
    },
}

/// Reads one message. Inside a stream block (between StreamStart and StreamStop) the transaction's id, or its
/// subtransaction's, stands before the body of a change: it is answered beside the message.
///
/// Times are microseconds since 2000-01-01 UTC, as PostgreSQL counts.
pub(super) fn parse(bytes: &[u8], streaming: bool) -> Result<(Option<u32>, Message<'_>), Malformed> {
    let mut r = Reader(bytes);
    let tag = r.u8()?;
    let carries_xid = matches!(tag, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M');
    let xid = if streaming && carries_xid { Some(r.u32()?) } else { None };
    // One arm a message of the protocol.
    let message = match tag {
        b'I' => {
            let relation = r.u32()?;
            r.expect(b'N')?;
            Message::Insert { relation, new: r.last_tuple()? }
        }
        b'U' => update(&mut r)?,
        b'D' => {
            let relation = r.u32()?;
            let kind = old_kind(r.u8()?).ok_or(Malformed("a delete without an old row"))?;
            Message::Delete { relation, kind, old: r.last_tuple()? }
        }
        b'B' => Message::Begin { final_lsn: r.lsn()?, commit_time: r.i64()?, xid: r.u32()? },
        b'C' => {
            r.u8()?; // flags, unused
            Message::Commit { commit_lsn: r.lsn()?, end_lsn: r.lsn()?, commit_time: r.i64()? }
        }
        b'R' => Message::Relation(relation(&mut r)?),
        b'Y' => Message::Type,
        b'O' => Message::Origin,
        b'M' => Message::Logical,
        b'T' => {
            let count = r.u32()? as usize;
            r.u8()?; // CASCADE, RESTART IDENTITY: no matter to a copy
            let oids = r.take(count.checked_mul(4).ok_or(Malformed("too many tables"))?)?;
            Message::Truncate { relations: Oids(oids) }
        }
        b'S' => Message::StreamStart { xid: r.u32()?, first: r.u8()? == 1 },
        b'E' => Message::StreamStop,
        b'c' => {
            let xid = r.u32()?;
            r.u8()?; // flags, unused
            Message::StreamCommit { xid, commit_lsn: r.lsn()?, end_lsn: r.lsn()?, commit_time: r.i64()? }
        }
        b'A' => Message::StreamAbort { xid: r.u32()?, subxid: r.u32()? },
        _ => return Err(Malformed("a message of an unknown kind")),
    };
    Ok((xid, message))
}

fn update<'a>(r: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    let relation = r.u32()?;
    let tag = r.u8()?;
    let old = match old_kind(tag) {
        Some(kind) => {
            let old = r.tuple()?;
            r.expect(b'N')?;
            Some((kind, old))
        }
        None if tag == b'N' => None,
        None => return Err(Malformed("an update without a new row")),
    };
    Ok(Message::Update { relation, old, new: r.last_tuple()? })
}

fn old_kind(tag: u8) -> Option<OldKind> {
    match tag {
        b'K' => Some(OldKind::Key),
        b'O' => Some(OldKind::Full),
        _ => None,
    }
}

fn relation<'a>(r: &mut Reader<'a>) -> Result<RelationBody<'a>, Malformed> {
    let oid = r.u32()?;
    let namespace = match r.text()? {
        // Protocol: empty for pg_catalog.
        "" => "pg_catalog",
        other => other,
    };
    let name = r.text()?;
    let replica_identity = r.u8()?;
    let count = r.u16()?;
    let mut columns = Vec::with_capacity(usize::from(count.min(1_600)));
    for _ in 0..count {
        let key = r.u8()? & 1 == 1;
        columns.push(RelationColumn { key, name: r.text()?, type_oid: r.u32()?, typmod: r.i32()? });
    }
    Ok(RelationBody { oid, namespace, name, replica_identity, columns })
}

/// The cell of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Null,
    /// An unchanged TOASTed value, which the server does not send.
    Unchanged,
    Text(&'a [u8]),
}

/// A row that has not been walked over yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuple<'a> {
    columns: u16,
    body: &'a [u8],
}

impl<'a> Tuple<'a> {
    pub(super) fn columns(&self) -> usize {
        usize::from(self.columns)
    }

    pub(super) fn cells(&self) -> Cells<'a> {
        Cells { left: self.columns, rest: Reader(self.body) }
    }

    /// Bytes as sent.
    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// The cells of a row, in order.
#[derive(Debug, Clone)]
pub(super) struct Cells<'a> {
    left: u16,
    rest: Reader<'a>,
}

impl<'a> Cells<'a> {
    #[inline]
    fn read(&mut self) -> Result<Cell<'a>, Malformed> {
        match self.rest.u8()? {
            b't' => {
                let length = self.rest.u32()? as usize;
                Ok(Cell::Text(self.rest.take(length)?))
            }
            b'n' => Ok(Cell::Null),
            b'u' => Ok(Cell::Unchanged),
            b'b' => Err(Malformed("a binary value, which was not asked for")),
            _ => Err(Malformed("a value of an unknown kind")),
        }
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Result<Cell<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(self.read())
    }
}

/// Object ids as they stand in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Oids<'a>(&'a [u8]);

impl Oids<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.as_chunks::<4>().0.iter().map(|four| u32::from_be_bytes(*four))
    }
}

#[derive(Debug, Clone)]
struct Reader<'a>(&'a [u8]);

const SHORT: Malformed = Malformed("a message ends too early");

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    #[inline]
    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    fn expect(&mut self, tag: u8) -> Result<(), Malformed> {
        if self.u8()? == tag { Ok(()) } else { Err(Malformed("a row is not where it belongs")) }
    }

    /// Text up to its NUL.
    fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(SHORT)?;
        let text = self.take(end)?;
        self.u8()?;
        std::str::from_utf8(text).map_err(|_| Malformed("a name is not UTF-8"))
    }

    /// A row that something follows: walked over to find its end.
    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let columns = self.u16()?;
        let start = self.0;
        let mut cells = Cells { left: columns, rest: self.clone() };
        for cell in cells.by_ref() {
            cell?;
        }
        self.0 = cells.rest.0;
        Ok(Tuple { columns, body: &start[..start.len() - self.0.len()] })
    }

    /// The row that ends the message.
    #[inline]
    fn last_tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let columns = self.u16()?;
        Ok(Tuple { columns, body: std::mem::take(&mut self.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type OwnedCell = Option<Option<Vec<u8>>>;

    fn tuple_bytes(cells: &[OwnedCell]) -> Vec<u8> {
        let mut out = (cells.len() as u16).to_be_bytes().to_vec();
        for cell in cells {
            match cell {
                None => out.push(b'u'),
                Some(None) => out.push(b'n'),
                Some(Some(text)) => {
                    out.push(b't');
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text);
                }
            }
        }
        out
    }

    fn owned(tuple: &Tuple<'_>) -> Vec<OwnedCell> {
        let cell = |c: Result<Cell<'_>, Malformed>| match c.unwrap() {
            Cell::Unchanged => None,
            Cell::Null => Some(None),
            Cell::Text(text) => Some(Some(text.to_vec())),
        };
        tuple.cells().map(cell).collect()
    }

    fn cells() -> impl Strategy<Value = Vec<OwnedCell>> {
        prop::collection::vec(prop::option::of(prop::option::of(prop::collection::vec(any::<u8>(), 0..20))), 0..12)
    }

    fn walk(message: &Message<'_>) {
        let all = |t: &Tuple<'_>| t.cells().take_while(Result::is_ok).count();
        match message {
            Message::Insert { new, .. } => assert!(all(new) <= new.columns()),
            Message::Update { old, new, .. } => {
                old.iter().for_each(|(_, t)| assert_eq!(all(t), t.columns()));
                assert!(all(new) <= new.columns());
            }
            Message::Delete { old, .. } => assert!(all(old) <= old.columns()),
            Message::Truncate { relations } => assert!(relations.iter().count() < 1 << 20),
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn updates_with_and_without_old_rows_come_back_as_sent(
            old in prop::option::of((any::<bool>(), cells())), new in cells(), relation: u32, xid in prop::option::of(any::<u32>()),
        ) {
            let mut bytes = vec![b'U'];
            xid.iter().for_each(|x| bytes.extend(x.to_be_bytes()));
            bytes.extend(relation.to_be_bytes());
            if let Some((full, old)) = &old {
                bytes.push(if *full { b'O' } else { b'K' });
                bytes.extend(tuple_bytes(old));
            }
            bytes.push(b'N');
            bytes.extend(tuple_bytes(&new));
            let (found_xid, message) = parse(&bytes, xid.is_some()).unwrap();
            prop_assert_eq!(found_xid, xid);
            let Message::Update { relation: r, old: o, new: n } = message else { panic!("an update") };
            prop_assert_eq!(r, relation);
            prop_assert_eq!(owned(&n), new);
            prop_assert_eq!(o.map(|(k, t)| (k == OldKind::Full, owned(&t))), old);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), streaming: bool) {
            if let Ok((_, message)) = parse(&bytes, streaming) {
                walk(&message);
            }
        }

        #[test]
        fn a_known_tag_with_arbitrary_bytes_never_panics(
            tag in prop::sample::select(b"BCORYIUDTMSEcA".to_vec()),
            body in prop::collection::vec(prop::sample::select(b"\0\0\0\x01\x02\x10NKOtnub\xff".to_vec()), 0..80),
            streaming: bool,
        ) {
            let mut bytes = vec![tag];
            bytes.extend(body);
            if let Ok((_, message)) = parse(&bytes, streaming) {
                walk(&message);
            }
        }

        #[test]
        fn every_prefix_of_a_message_is_an_error_or_a_shorter_row(new in cells()) {
            let mut bytes = vec![b'I', 0, 0, 0, 7, b'N'];
            bytes.extend(tuple_bytes(&new));
            for end in 0..bytes.len() {
                match parse(&bytes[..end], false) {
                    Ok((_, Message::Insert { new: short, .. })) => {
                        prop_assert!(short.cells().any(|c| c.is_err()) || short.columns() == 0);
                    }
                    Ok(_) => prop_assert!(false, "a prefix became another message"),
                    Err(_) => {}
                }
            }
        }
    }

    #[test]
    fn a_relation_is_read_with_its_replica_identity() {
        let mut bytes = b"R\0\0\x40\x01public\0orders\0d\0\x02".to_vec();
        bytes.extend(b"\x01id\0\0\0\0\x14\xff\xff\xff\xff");
        bytes.extend(b"\0total\0\0\0\x06\xa4\0\x0a\0\x06");
        let (_, Message::Relation(r)) = parse(&bytes, false).unwrap() else { panic!("a relation") };
        assert_eq!((r.oid, r.namespace, r.name, r.replica_identity), (0x4001, "public", "orders", b'd'));
        assert_eq!(r.columns[0], RelationColumn { key: true, name: "id", type_oid: 20, typmod: -1 });
        assert_eq!(r.columns[1], RelationColumn { key: false, name: "total", type_oid: 1700, typmod: 0xa0006 });
    }

    #[test]
    fn the_frame_of_a_transaction_is_read() {
        let begin = [&[b'B'][..], &5u64.to_be_bytes(), &6u64.to_be_bytes(), &7u32.to_be_bytes()].concat();
        let expected = Message::Begin { final_lsn: Lsn(5), commit_time: 6, xid: 7 };
        assert_eq!(parse(&begin, false).unwrap().1, expected);
        let abort = [&[b'A'][..], &9u32.to_be_bytes(), &10u32.to_be_bytes()].concat();
        assert_eq!(parse(&abort, true).unwrap().1, Message::StreamAbort { xid: 9, subxid: 10 });
        let truncate = [&[b'T'][..], &2u32.to_be_bytes(), &[1], &3u32.to_be_bytes(), &4u32.to_be_bytes()].concat();
        let (_, Message::Truncate { relations }) = parse(&truncate, false).unwrap() else { panic!("a truncate") };
        assert_eq!(relations.iter().collect::<Vec<_>>(), [3, 4]);
    }
}
