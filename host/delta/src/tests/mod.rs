//! The sink as a whole, on real files.

mod exactly_once;
mod faults;
mod foreign;
mod mirror;
mod modes;
mod readers;
mod s3;
mod schemas;
mod support;
mod upsert;
mod upsert_compaction;
mod upsert_faults;
mod upsert_foreign;
mod upsert_index;
mod upsert_property;
mod upsert_race;
