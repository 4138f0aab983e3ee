//! The runtime with real components: the first-party plugins, and one that does everything wrong.

mod conformance;
mod first_party;
mod fixture;
mod hostile;
mod loading;
mod wasi;
