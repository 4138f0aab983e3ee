//! The `postgres` source as the pipeline file says it.

use std::fmt;
use std::path::{Path, PathBuf};

use millrace_core::error::{Error, Result};
use millrace_core::source::Source;
use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::Settings;
use super::source::PostgresSource;
use super::tables::Patterns;

/// Changes of a PostgreSQL database (15 to 18), by logical replication with `pgoutput`.
///
/// The role needs LOGIN, REPLICATION and SELECT on the tables; to create the publication it must own them.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`, by reference: `${env:SHOP_DB}`.
    /// Parameters: `sslmode` (disable, allow, prefer, require, verify-ca, verify-full; default prefer), `sslrootcert`,
    /// `sslcert`, `sslkey`, `channel_binding`, `connect_timeout`, `application_name`. A host that starts with `/` (as
    /// the parameter `host`) is the folder of a Unix socket.
    pub url: String,
    /// Tables as `schema.table`; `*` stands for any characters: `public.orders`, `billing.*`. Partitioned tables are
    /// named by their root. A table that appears later is read from the next start on.
    #[schemars(length(min = 1))]
    pub tables: Vec<String>,
    /// Name of the replication slot, created if absent. Default: `millrace_` and the pipeline's name. A slot belongs
    /// to one pipeline.
    #[serde(default)]
    pub slot: Option<String>,
    /// Name of the publication, created if absent. Default: the slot's name. One that exists must publish inserts,
    /// updates, deletes and truncates of whole rows; tables that it lacks are added.
    #[serde(default)]
    pub publication: Option<String>,
    /// Whether the rows that are there already are read first.
    #[serde(default)]
    pub snapshot: SnapshotMode,
    /// PEM file with the root certificates that the server's certificate must come from, in the place of the URL's
    /// `sslrootcert`. Default: the public ones.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub sslrootcert: Option<PathBuf>,
    /// Take large transactions while they run (they wait on disk for their commit) instead of in one burst after it.
    #[serde(default = "yes")]
    pub streaming: bool,
    /// Folder for large transactions that have not committed. Default: `spill` in the pipeline's `state_dir`.
    /// It holds row data in clear.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub spill_dir: Option<PathBuf>,
    /// What `spill_dir` may hold at most, in MiB; beyond it the pipeline halts with `postgres.spill_full`.
    #[serde(default = "default_spill_limit")]
    #[schemars(range(min = 1))]
    pub spill_limit_mib: u64,
}

/// Whether the rows that are in the tables at the first start are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// Every table once, consistent with the stream.
    #[default]
    Initial,
    /// Only changes from the slot's place on.
    Never,
}

fn yes() -> bool {
    true
}

/// 16 GiB: several of the largest transactions that a server with `logical_decoding_work_mem` at its default sends.
fn default_spill_limit() -> u64 {
    16 << 10
}

/// The URL may hold the password.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("url", &"[secret]")
            .field("tables", &self.tables)
            .field("slot", &self.slot)
            .field("publication", &self.publication)
            .field("snapshot", &self.snapshot)
            .field("sslrootcert", &self.sslrootcert)
            .field("streaming", &self.streaming)
            .field("spill_dir", &self.spill_dir)
            .field("spill_limit_mib", &self.spill_limit_mib)
            .finish()
    }
}

/// A configuration that can not be wrong any more.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) pipeline: String,
    pub(super) settings: Settings,
    pub(super) tables: Patterns,
    pub(super) slot: String,
    pub(super) publication: String,
    pub(super) snapshot: SnapshotMode,
    pub(super) streaming: bool,
    pub(super) spill_dir: PathBuf,
    pub(super) spill_limit: u64,
}

impl PostgresConfig {
    /// Every problem that needs no server to be seen; empty: none.
    pub fn problems(&self) -> Vec<Error> {
        let checks = [
            self.settings().err(),
            Patterns::parse(&self.tables).err(),
            self.slot.as_deref().and_then(|name| slot_name(name).err()),
            self.publication.as_deref().and_then(|name| publication_name(name).err()),
            (self.spill_limit_mib == 0)
                .then(|| Error::config("postgres.spill_limit", "spill_limit_mib is 0").hint("leave it out for 16 GiB")),
        ];
        checks.into_iter().flatten().collect()
    }

    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::parse(&self.url).map_err(|e| {
            Error::config("postgres.url", e.to_string()).hint(
                "postgres://USER:PASSWORD@HOST:PORT/DATABASE; special characters of the password are percent-encoded",
            )
        })?;
        if let Some(path) = &self.sslrootcert {
            settings.sslrootcert = Some(path.clone());
        }
        Ok(settings)
    }

    fn plan(&self, pipeline: &str, state_dir: &Path) -> Result<Plan> {
        if let Some(problem) = self.problems().into_iter().next() {
            return Err(problem);
        }
        let slot = self.slot.clone().unwrap_or_else(|| default_name(pipeline));
        let spill_dir = self.spill_dir.clone().unwrap_or_else(|| state_dir.join("spill"));
        Ok(Plan {
            pipeline: pipeline.to_owned(),
            settings: self.settings()?,
            tables: Patterns::parse(&self.tables)?,
            publication: self.publication.clone().unwrap_or_else(|| slot.clone()),
            snapshot: self.snapshot,
            streaming: self.streaming,
            spill_dir: spill_dir.join(&slot),
            spill_limit: self.spill_limit_mib.saturating_mul(1 << 20),
            slot,
        })
    }
}

/// A source for this pipeline; nothing is connected yet. `state_dir` is the pipeline's folder for what has no other
/// place.
///
/// Errors: the first of [`PostgresConfig::problems`].
pub fn build(config: &PostgresConfig, pipeline: &str, state_dir: &Path) -> Result<Box<dyn Source>> {
    Ok(Box::new(PostgresSource::new(config.plan(pipeline, state_dir)?)))
}

/// What PostgreSQL allows: lower-case letters, digits and `_`, at most 63.
fn slot_name(name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=63).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(Error::config("postgres.slot_name", format!("slot `{name}` is no name for a replication slot"))
        .hint("lower-case letters, digits and _, at most 63"))
}

fn publication_name(name: &str) -> Result<()> {
    if (1..=63).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(Error::config("postgres.publication_name", "the publication's name has not 1 to 63 bytes"))
}

fn default_name(pipeline: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name = pipeline.chars().map(|c| c.to_ascii_lowercase()).map(|c| if fits(c) { c } else { '_' });
    "millrace_".chars().chain(name).take(63).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> PostgresConfig {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_short_config_gets_names_from_the_pipeline() {
        let config = config(serde_json::json!({ "url": "postgres://u:pw@h/d", "tables": ["public.orders"] }));
        let plan = config.plan("Shop-EU", Path::new("/state")).unwrap();
        assert_eq!((plan.slot.as_str(), plan.publication.as_str()), ("millrace_shop_eu", "millrace_shop_eu"));
        assert_eq!(plan.spill_dir, Path::new("/state/spill/millrace_shop_eu"));
        assert_eq!((plan.spill_limit, plan.streaming, plan.snapshot), (16 << 30, true, SnapshotMode::Initial));
    }

    #[test]
    fn all_problems_are_told_at_once_and_none_shows_the_url() {
        let config = config(serde_json::json!({
            "url": "postgres://u:hunter2@h:0/d", "tables": [], "slot": "Bad-Slot", "publication": "", "spill_limit_mib": 0
        }));
        let codes: Vec<_> = config.problems().iter().map(|e| e.code).collect();
        assert_eq!(
            codes,
            [
                "postgres.url",
                "postgres.tables",
                "postgres.slot_name",
                "postgres.publication_name",
                "postgres.spill_limit"
            ]
        );
        let shown = format!("{config:?} {:?}", config.problems());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn every_field_has_a_line_for_the_editor() {
        let schema = schemars::schema_for!(PostgresConfig);
        let properties = schema.get("properties").and_then(|p| p.as_object()).unwrap();
        assert_eq!(properties.len(), 9);
        for (name, property) in properties {
            assert!(property.get("description").is_some(), "{name} has no description");
        }
    }
}
