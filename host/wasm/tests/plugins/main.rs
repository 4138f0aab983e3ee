//! The runtime with real components: the first-party plugins, and one that does everything wrong.

mod fixture;
mod first_party;
mod hostile;
mod loading;
