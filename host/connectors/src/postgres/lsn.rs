//! Places in PostgreSQL's write-ahead log, and the positions that are made of them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use millrace_core::error::{Error, Result};
use millrace_core::position::{Order, Position};

/// A byte of the write-ahead log, written `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub(super) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let part = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| ());
        Ok(Lsn(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl Lsn {
    /// The order of a change: its transaction's commit record, and its ordinal within its table there, from 1.
    pub(super) fn order(self, ordinal: i64) -> Order {
        Order::new(self.0 as i64, ordinal)
    }

    /// Behind every change that committed before this byte. A commit record may begin exactly at a
    /// transaction's end, at a snapshot's consistent point or at a keepalive's position, so the byte before it stands
    /// for what is behind: records are aligned to 8 bytes, so no commit is ever there.
    pub(super) fn order_before(self, ordinal: i64) -> Order {
        Order::new(self.0.saturating_sub(1) as i64, ordinal)
    }

    /// Where to start again once everything that committed before this byte is durable.
    pub(super) fn position(self) -> Position {
        Position { order: self.order_before(i64::MAX), token: self.token() }
    }

    /// The LSN as text, so that a person can read a resume record.
    pub(super) fn token(self) -> Bytes {
        Bytes::from(self.to_string())
    }

    pub(super) fn from_token(token: &[u8]) -> Result<Self> {
        std::str::from_utf8(token)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::halt("position.gap", "the resume record's token is not a place in a write-ahead log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_survives_its_text_and_its_token() {
        for lsn in [Lsn(0), Lsn(0x16_B374_D848), Lsn(u64::MAX)] {
            assert_eq!(lsn.to_string().parse(), Ok(lsn));
            assert_eq!(Lsn::from_token(&lsn.token()).unwrap(), lsn);
        }
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert!(Lsn::from_token(b"16B374D848").is_err());
    }

    #[test]
    fn a_commit_at_a_position_is_beyond_it_and_those_before_are_not() {
        let here = Lsn(0x1000);
        assert!(here.order(1) > here.position().order);
        assert!(Lsn(0xff8).order(i64::MAX) < here.position().order);
    }
}
