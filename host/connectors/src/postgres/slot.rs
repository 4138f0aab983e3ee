//! The replication slot: created if absent, and held against the resume record.

use millrace_core::error::{Error, Result};
use millrace_core::source::Resume;

use super::catalog;
use super::connection::{Connection, quoted_name, quoted_text};
use super::fault::GAP;
use super::lsn::Lsn;

/// Where to start: the resume record's place, or the slot's at a first start. Creates the slot at a first start.
///
/// Errors: `position.gap` where the slot cannot give what comes after the record: it is gone, invalidated, or was
/// acknowledged beyond it by somebody else.
pub(super) async fn ensure(connection: &mut Connection, name: &str, resume: &Resume) -> Result<Lsn> {
    let place = format!("slot `{name}`");
    let recorded = match &resume.position {
        Some(position) => Some(Lsn::from_token(&position.token)?),
        None => None,
    };
    let sql = format!(
        "SELECT plugin, database = pg_catalog.current_database(), confirmed_flush_lsn, coalesce(wal_status, ''), temporary \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        quoted_text(name)
    );
    let rows = connection.query(&sql).await.map_err(|e| e.at(&place))?;
    let Some(row) = rows.first() else {
        return match recorded {
            None => create(connection, name).await,
            Some(lsn) => {
                let message = format!("{place} is gone, and the resume record is at {lsn}");
                Err(Error::halt("position.gap", message).hint(GAP))
            }
        };
    };
    if row.text(0) != "pgoutput" || !row.is_true(1) {
        let message = format!("{place} is not one of plugin pgoutput on this database");
        return Err(Error::config("postgres.slot_mismatch", message).hint("name another `slot`, or drop this one"));
    }
    if row.text(3) == "lost" {
        let message = format!("{place} was invalidated by the server (max_slot_wal_keep_size)");
        return Err(Error::halt("position.gap", message).hint(GAP));
    }
    let confirmed: Lsn = row.text(2).parse().map_err(|()| {
        Error::retry("postgres.slot_not_ready", format!("{place} is being created"))
            .hint("another process creates it just now")
    })?;
    match recorded {
        Some(recorded) if confirmed > recorded => {
            let message = format!("{place} was acknowledged up to {confirmed}, and the resume record is at {recorded}");
            Err(Error::halt("position.gap", message).hint(GAP))
        }
        Some(recorded) => Ok(recorded),
        None => Ok(confirmed),
    }
}

async fn create(connection: &mut Connection, name: &str) -> Result<Lsn> {
    let place = format!("creating slot `{name}`");
    let level = catalog::setting(connection, "wal_level").await.map_err(|e| e.at(&place))?;
    if level != "logical" {
        return Err(Error::config("postgres.wal_level", format!("{place}: the server's wal_level is {level}"))
            .hint("ALTER SYSTEM SET wal_level = logical, and restart the server"));
    }
    tracing::info!(slot = name, "creating the slot: the server waits for the transactions that run now");
    let command = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT", quoted_name(name));
    let row = connection.query_one(&command).await.map_err(|e| e.at(&place))?;
    consistent_point(row.text(1)).map_err(|e| e.context(place))
}

/// The second column of what CREATE_REPLICATION_SLOT answers.
pub(super) fn consistent_point(text: &str) -> Result<Lsn> {
    text.parse().map_err(|()| Error::halt("postgres.protocol", format!("`{text}` is no consistent point")))
}
