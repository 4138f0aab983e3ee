//! The heart of Millrace: changes, batches, cuts and positions; the seams that every outside system
//! stands behind (source, stage, sink, environment); and the pipeline loop that moves a change from
//! one to the other exactly once. No client library is known here.
//!
//! The numbered invariants (I1 ...) are in ARCHITECTURE.md and quoted where the code upholds them.

pub mod batch;
pub mod builder;
pub mod compare_and_set;
pub mod cut;
pub mod environment;
pub mod error;
pub mod json;
pub mod letters;
pub mod outcome;
pub mod pipeline;
pub mod position;
pub mod quarantine;
pub mod record;
pub mod schema;
#[cfg(feature = "simulator")]
pub mod sim;
pub mod sink;
pub mod source;
pub mod stage;

pub use error::{Error, Result};
