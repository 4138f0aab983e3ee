//! The events of a shop that does not exist: customers, orders and payments, with updates and deletes.
//!
//! A transaction's number determines its events wholly (see `schedule`), so the source resumes anywhere with the
//! same events. Order: (transaction number, ordinal within the table). Token: the transaction number, 8 bytes big
//! endian; where the source ended within a transaction, followed by the changes of it that were sent, 4 bytes.

mod ndjson;
mod pools;
mod rows;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::batch::ChangeType;
use millrace_core::cut::{Boundary, CutBuilder};
use millrace_core::position::{Order, Position};
use millrace_core::schema::TableSchema;
use millrace_core::source::{Opened, Resume, Source};
use millrace_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

pub use ndjson::{Lines, generate_ndjson};
use rows::{Form, Rows, commit_time};
use schedule::{LEAST_CUSTOMERS, Op, Step};

/// Changes whenever the same seed gives other events than before: positions of two shapes are never compared. A test
/// holds the digest of the first events.
const SHAPE: u32 = 1;

/// Transactions that one read makes at most: about a full batch of each table.
const TRANSACTIONS_A_READ: u32 = 1_000;

/// Events of a shop that does not exist (customers, orders, payments), for demos, tests and load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Changes (inserts, updates and deletes) to make before it ends. Absent: endless.
    pub events: Option<u64>,
    /// Changes a second. Absent: as fast as they are taken.
    #[schemars(range(min = 1))]
    pub rate: Option<u32>,
    /// The same seed gives the same events, always.
    pub seed: u64,
    /// Customers that live at once (at least 160); as each new one signs up, the oldest closes the account.
    #[schemars(range(min = 160))]
    pub customers: u64,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self { events: None, rate: None, seed: 1, customers: 1_000 }
    }
}

impl GeneratorConfig {
    /// Errors: `generator.rate`, `generator.customers` where a number is out of its range.
    pub fn build(&self) -> Result<GeneratorSource> {
        if self.rate == Some(0) {
            return Err(Error::config("generator.rate", "a rate of 0 changes a second never ends")
                .hint("leave `rate` out for full speed"));
        }
        if !(LEAST_CUSTOMERS..=1 << 40).contains(&self.customers) {
            let message = format!("customers: {} is not between {LEAST_CUSTOMERS} and 2^40", self.customers);
            return Err(Error::config("generator.customers", message));
        }
        Ok(GeneratorSource {
            rows: Rows::new(self.seed, self.customers),
            forms: rows::forms(),
            events: self.events.unwrap_or(u64::MAX),
            made: 0,
            transaction: 0,
            within: 0,
            pace: self.rate.map(Pace::new),
            incarnation: format!("generator:{}:{}:v{SHAPE}", self.seed, self.customers),
        })
    }
}

/// The source; made by [`GeneratorConfig::build`].
#[derive(Debug)]
pub struct GeneratorSource {
    rows: Rows,
    forms: [Form; 3],
    events: u64,
    /// Changes of all transactions so far.
    made: u64,
    /// The last transaction that was made.
    transaction: u64,
    /// Changes of it that were made, where `events` ended it early; else 0.
    within: u32,
    pace: Option<Pace>,
    incarnation: String,
}

impl GeneratorSource {
    /// The tables that it writes.
    pub fn schemas(&self) -> Vec<Arc<TableSchema>> {
        self.forms.iter().map(|f| f.schema.clone()).collect()
    }

    fn position(&self) -> Position {
        let mut token = self.transaction.to_be_bytes().to_vec();
        if self.within > 0 {
            token.extend(self.within.to_be_bytes());
        }
        // At or after each change that was sent, before each that was not.
        let ordinal = match (self.transaction, self.within) {
            (0, _) => 0,
            (_, 0) => schedule::LONGEST,
            (_, within) => within,
        };
        Position { order: Order::new(self.transaction as i64, i64::from(ordinal)), token: token.into() }
    }

    fn start_at(&mut self, token: &Bytes) -> Result<()> {
        let bad = || Error::halt("position.token", "the recorded position is not one of the generator");
        let (number, within) = token.split_first_chunk::<8>().ok_or_else(bad)?;
        self.transaction = u64::from_be_bytes(*number);
        self.within = match within {
            [] => 0,
            _ => u32::from_be_bytes(within.try_into().map_err(|_| bad())?),
        };
        let is_part = !within.is_empty();
        let fits = |schedule: &schedule::Schedule| {
            self.transaction > 0 && (1..schedule.steps(self.transaction).len()).contains(&(self.within as usize))
        };
        if self.transaction >= 1 << 56 || (is_part && !fits(&self.rows.schedule)) {
            return Err(bad());
        }
        self.made = self.rows.schedule.changes_before(self.transaction + u64::from(!is_part)) + u64::from(self.within);
        Ok(())
    }

    /// Makes the next transaction, or what is left of one that was ended early; answers its changes.
    fn transaction(&mut self, into: &mut CutBuilder) -> Result<u64> {
        if self.within == 0 {
            self.transaction += 1;
        }
        let steps = self.rows.schedule.steps(self.transaction);
        let done = self.within as usize;
        let left = (steps.len() - done) as u64;
        let now = left.min(self.events - self.made);
        let mut ordinals = [0; 3];
        for (index, step) in steps.iter().enumerate().take(done + now as usize) {
            let ordinal = &mut ordinals[step.table as usize];
            *ordinal += 1;
            if index >= done {
                self.change(step, *ordinal, into)?;
            }
        }
        self.made += now;
        self.within = if now < left { self.within + now as u32 } else { 0 };
        Ok(now)
    }

    fn change(&self, step: Step, ordinal: i64, into: &mut CutBuilder) -> Result<()> {
        let form = &self.forms[step.table as usize];
        let builder = into.table(&form.source, &form.schema, false)?;
        builder.begin_change(Order::new(self.transaction as i64, ordinal), commit_time(self.transaction));
        match step.op {
            Op::Insert => self.image(step, ChangeType::Insert, 0, builder),
            Op::Update(version) => {
                self.image(step, ChangeType::UpdatePreimage, version - 1, builder);
                self.image(step, ChangeType::UpdatePostimage, version, builder);
            }
            Op::Delete(version) => self.image(step, ChangeType::Delete, version, builder),
        }
        Ok(())
    }

    fn image(
        &self,
        step: Step,
        change_type: ChangeType,
        version: u8,
        builder: &mut millrace_core::builder::RowsBuilder,
    ) {
        builder.begin_row(change_type);
        self.rows.append(step.table, step.row, version, builder);
    }
}

#[async_trait]
impl Source for GeneratorSource {
    async fn open(&mut self, resume: &Resume) -> Result<Opened> {
        if resume.incarnation.as_ref().is_some_and(|i| *i != self.incarnation) {
            let was = resume.incarnation.as_deref().unwrap_or_default();
            let message = format!("the pipeline was fed by {was}, and this is {}", self.incarnation);
            return Err(Error::halt("position.gap", message)
                .hint("give back the old `seed` and `customers`, or the pipeline another name"));
        }
        match &resume.position {
            Some(position) => self.start_at(&position.token)?,
            None => (self.made, self.transaction, self.within) = (0, 0, 0),
        }
        if let Some(pace) = &mut self.pace {
            *pace = Pace::new(pace.rate);
        }
        Ok(Opened {
            incarnation: self.incarnation.clone(),
            start: self.position(),
            holds_log: false,
            tables: None,
            gaps: BTreeSet::new(),
        })
    }

    async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary> {
        if self.made >= self.events {
            return Ok(Boundary::End(self.position()));
        }
        let mut budget = match &mut self.pace {
            Some(pace) => pace.wait().await,
            None => u64::MAX,
        };
        // No await from here on: what is appended is answered for.
        for _ in 0..TRANSACTIONS_A_READ {
            let changes = self.transaction(into)?;
            budget = budget.saturating_sub(changes);
            if let Some(pace) = &mut self.pace {
                pace.sent += changes;
            }
            if self.made >= self.events {
                return Ok(Boundary::End(self.position()));
            }
            if into.has_closed() || budget == 0 {
                break;
            }
        }
        Ok(Boundary::Commit(self.position()))
    }

    async fn acknowledge(&mut self, _position: &Position) -> Result<()> {
        Ok(())
    }
}

/// Keeps to a rate: what is due is made at once, and at most a second is caught up after a pause.
#[derive(Debug)]
struct Pace {
    rate: u32,
    start: Instant,
    sent: u64,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { rate, start: Instant::now(), sent: 0 }
    }

    /// Waits until a change is due; answers how many are.
    async fn wait(&mut self) -> u64 {
        let rate = f64::from(self.rate);
        let due = self.start + Duration::from_secs_f64(self.sent as f64 / rate);
        tokio::time::sleep_until(due).await;
        let late = due.elapsed().as_secs_f64();
        if late > 1.0 {
            self.start += Duration::from_secs_f64(late - 1.0);
        }
        1 + (late.min(1.0) * rate) as u64
    }
}

#[cfg(test)]
mod tests;
