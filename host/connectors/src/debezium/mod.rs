//! Debezium's change events as JSON, with and without their schema, on whatever carries them (files now, topics later).
//!
//! [`parse`] and [`parse_line`] read the envelope and leave the rows as raw text; [`Decoder`] knows the tables and appends rows to
//! column builders. Form of the messages: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>
//! (and the pages of the other connectors).
//!
//! Rules where the messages leave a choice:
//! - With a schema block, types are the block's (see `schema`). Without one they are inferred (see `infer`).
//! - A deleted row of which only the key is known (PostgreSQL's default replica identity) comes with nulls for the rest:
//!   as long as a PostgreSQL table has not shown a whole preimage, such nulls count as unavailable, not as NULL.
//! - `__debezium_unavailable_value` is "unavailable" in a column of any type.
//! - A row read by Debezium's snapshot is an insert at its place in the stream: not a snapshot of ours.
//! - A key change comes as a delete and an insert, which it stays.

mod bigint;
mod cells;
mod decoder;
pub(crate) mod encode;
mod envelope;
mod infer;
mod mongodb;
mod schema;
mod wire;

pub use decoder::{Decoder, Failure};
pub use envelope::{Envelope, Ignored, Malformed, Message, Operation};
pub use wire::{Line, parse, parse_line};

/// What Debezium writes for a value that the server did not send.
pub(crate) const UNAVAILABLE: &str = "__debezium_unavailable_value";

#[cfg(test)]
mod tests;
