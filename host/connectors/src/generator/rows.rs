//! The three tables, and their rows as a function of seed, row number and version.

use std::sync::Arc;

use millrace_core::builder::{Cells, ColumnBuilder, RowsBuilder};
use millrace_core::position::SourceKey;
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};

use super::pools::Pools;
use super::schedule::{Schedule, Table, mix};

/// 2026-01-01T00:00:00Z, microseconds: when transaction 0 would have committed.
const BEGINNING: i64 = 1_767_225_600_000_000;
/// Between two commits: 10 ms. Commit times are part of the events, which must not depend on when they are made.
const BETWEEN: i64 = 10_000;
const DAY: i64 = 86_400_000_000;

const STATUSES: [&str; 4] = ["placed", "paid", "shipped", "delivered"];
const CHANNELS: [&str; 4] = ["web", "web", "app", "store"];
const METHODS: [&str; 4] = ["card", "card", "paypal", "invoice"];

/// Microseconds since 1970-01-01 UTC.
pub(super) fn commit_time(transaction: u64) -> i64 {
    BEGINNING + transaction as i64 * BETWEEN
}

/// A table with its source key.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) source: SourceKey,
    pub(super) schema: Arc<TableSchema>,
}

fn money() -> ColumnType {
    ColumnType::Decimal { precision: 12, scale: 2 }
}

fn form(table: &str, columns: Vec<Column>) -> Form {
    let name = TableName::new("shop", table);
    Form { source: SourceKey::new(name.to_string()), schema: Arc::new(TableSchema::new(name, columns, Images::Full)) }
}

/// In the order of [`Table`].
pub(super) fn forms() -> [Form; 3] {
    let of = |name: &str, ty| Column::new(name, ty).not_null();
    let optional = |name: &str, ty| Column::new(name, ty);
    let id = || Column::new("id", ColumnType::Int64).key();
    [
        form(
            "customers",
            vec![
                id(),
                of("uuid", ColumnType::Uuid),
                of("email", ColumnType::Text),
                of("phone", ColumnType::Text),
                of("name", ColumnType::Text),
                of("city", ColumnType::Text),
                of("country", ColumnType::Text),
                of("created_at", ColumnType::TimestampTz),
                of("credit", money()),
                of("vip", ColumnType::Boolean),
                optional("notes", ColumnType::Text),
                of("address", ColumnType::Json),
            ],
        ),
        form(
            "orders",
            vec![
                id(),
                of("customer_id", ColumnType::Int64),
                of("number", ColumnType::Text),
                of("status", ColumnType::Text),
                of("placed_at", ColumnType::TimestampTz),
                of("updated_at", ColumnType::TimestampTz),
                of("items", ColumnType::Int32),
                of("total", money()),
                of("discount", ColumnType::Float64),
                of("currency", ColumnType::Text),
                of("channel", ColumnType::Text),
                of("lines", ColumnType::Json),
            ],
        ),
        form(
            "payments",
            vec![
                id(),
                of("order_id", ColumnType::Int64),
                of("customer_id", ColumnType::Int64),
                of("method", ColumnType::Text),
                of("status", ColumnType::Text),
                of("amount", money()),
                of("currency", ColumnType::Text),
                optional("card_last4", ColumnType::Text),
                optional("captured_on", ColumnType::Date),
                of("created_at", ColumnType::TimestampTz),
                of("risk", ColumnType::Float64),
                of("reference", ColumnType::Uuid),
            ],
        ),
    ]
}

/// Makes rows.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) schedule: Schedule,
    pools: Pools,
    seed: u64,
}

impl Rows {
    pub(super) fn new(seed: u64, customers: u64) -> Self {
        Self { schedule: Schedule::new(seed, customers), pools: Pools::new(seed), seed: mix(seed) }
    }

    /// Appends the cells of a row as it is at this version.
    pub(super) fn append(&self, table: Table, row: u64, version: u8, into: &mut RowsBuilder) {
        let mut cells = Row { columns: into.columns().iter_mut(), bytes: 0 };
        match table {
            Table::Customers => self.customer(row, version, &mut cells),
            Table::Orders => self.order(row, version, &mut cells),
            Table::Payments => self.payment(row, version, &mut cells),
        }
        let bytes = cells.bytes;
        into.count_bytes(bytes);
    }

    fn random(&self, table: Table, row: u64) -> u64 {
        mix(self.seed ^ (row * 4 + table as u64))
    }

    /// Version 1: has moved. 2: has more credit. 3: has a note, or another one. 4: has another mailbox.
    fn customer(&self, row: u64, version: u8, cells: &mut Row<'_>) {
        let random = self.random(Table::Customers, row);
        let home = if version >= 1 { random.rotate_left(24) } else { random };
        let mailbox = (random >> 20) + u64::from(version >= 4);
        let credit = (random >> 36) % 1_000_000 + if version >= 2 { 50_000 } else { 0 };
        let id = row as i64 + 1;
        cells.int64(id);
        cells.uuid(random, row);
        cells.numbered([self.pools.mailboxes.pick(mailbox), self.pools.mail_domains.pick(mailbox >> 9)], row + 1);
        cells.text(self.pools.phones.pick(home >> 3));
        cells.text(self.pools.names.pick(random >> 10));
        cells.text(self.pools.cities.pick(home >> 13));
        cells.text(Pools::country(home).0);
        cells.timestamp(commit_time(self.schedule.customer_since(row)));
        cells.decimal(i128::from(credit));
        cells.boolean(version >= 2 && random & 7 == 0);
        let note = (random >> 50) + u64::from(version >= 3);
        cells.optional_text((version >= 3 || random & 3 == 0).then(|| self.pools.notes.pick(note)));
        cells.text(self.pools.addresses.pick(home >> 23));
    }

    fn order(&self, row: u64, version: u8, cells: &mut Row<'_>) {
        let random = self.random(Table::Orders, row);
        cells.int64(row as i64 + 1);
        cells.int64(self.schedule.customer_of(row, random >> 8) as i64 + 1);
        cells.numbered(["SO-", ""], 100_000_000 + row);
        cells.text(STATUSES[version as usize & 3]);
        cells.timestamp(commit_time(self.schedule.order_moment(row, 0)));
        cells.timestamp(commit_time(self.schedule.order_moment(row, version)));
        cells.int32((random >> 4) as i32 & 7);
        cells.decimal(total(random));
        cells.float64((random >> 16 & 31) as f64 / 100.0);
        cells.text(Pools::country(random >> 3).1);
        cells.text(CHANNELS[random as usize & 3]);
        cells.text(self.pools.lines.pick(random >> 12));
    }

    /// Version 1: captured.
    fn payment(&self, row: u64, version: u8, cells: &mut Row<'_>) {
        let order = self.random(Table::Orders, row);
        let random = self.random(Table::Payments, row);
        let method = METHODS[random as usize & 3];
        cells.int64(row as i64 + 1);
        cells.int64(row as i64 + 1);
        cells.int64(self.schedule.customer_of(row, order >> 8) as i64 + 1);
        cells.text(method);
        cells.text(if version >= 1 { "captured" } else { "authorized" });
        cells.decimal(total(order));
        cells.text(Pools::country(order >> 3).1);
        if method == "card" {
            cells.four_digits(random >> 7)
        } else {
            cells.optional_text(None)
        }
        cells.optional_date((version >= 1).then(|| (commit_time(self.schedule.order_moment(row, 1)) / DAY) as i32));
        cells.timestamp(commit_time(self.schedule.order_moment(row, 0)));
        cells.float64((random >> 20 & 1023) as f64 / 1024.0);
        cells.uuid(random, row);
    }
}

/// Hundredths; the same in the order and its payment.
fn total(order: u64) -> i128 {
    (500 + (order >> 24) % 250_000) as i128
}

/// The cells of one row, appended from the first column to the last. A cell of another type than the column's is
/// left out, and the batch's own check names that as a bug.
struct Row<'a> {
    columns: std::slice::IterMut<'a, ColumnBuilder>,
    bytes: usize,
}

impl Row<'_> {
    fn int64(&mut self, value: i64) {
        if let Some(ColumnBuilder { cells: Cells::Int64(builder), .. }) = self.columns.next() {
            builder.append_value(value);
            self.bytes += 8;
        }
    }

    fn int32(&mut self, value: i32) {
        if let Some(ColumnBuilder { cells: Cells::Int32(builder), .. }) = self.columns.next() {
            builder.append_value(value);
            self.bytes += 4;
        }
    }

    fn float64(&mut self, value: f64) {
        if let Some(ColumnBuilder { cells: Cells::Float64(builder), .. }) = self.columns.next() {
            builder.append_value(value);
            self.bytes += 8;
        }
    }

    fn decimal(&mut self, unscaled: i128) {
        if let Some(ColumnBuilder { cells: Cells::Decimal(builder), .. }) = self.columns.next() {
            builder.append_value(unscaled);
            self.bytes += 16;
        }
    }

    fn boolean(&mut self, value: bool) {
        if let Some(ColumnBuilder { cells: Cells::Boolean(builder), .. }) = self.columns.next() {
            builder.append_value(value);
            self.bytes += 1;
        }
    }

    /// Microseconds.
    fn timestamp(&mut self, value: i64) {
        if let Some(ColumnBuilder { cells: Cells::Timestamp(builder), .. }) = self.columns.next() {
            builder.append_value(value);
            self.bytes += 8;
        }
    }

    /// Days.
    fn optional_date(&mut self, value: Option<i32>) {
        if let Some(ColumnBuilder { cells: Cells::Date(builder), .. }) = self.columns.next() {
            builder.append_option(value);
            self.bytes += 4;
        }
    }

    fn text(&mut self, value: &str) {
        if let Some(ColumnBuilder { cells: Cells::Text(builder), .. }) = self.columns.next() {
            builder.append_value(value);
            self.bytes += value.len();
        }
    }

    fn optional_text(&mut self, value: Option<&str>) {
        if let Some(ColumnBuilder { cells: Cells::Text(builder), .. }) = self.columns.next() {
            builder.append_option(value);
            self.bytes += value.map_or(0, str::len);
        }
    }

    /// A text with a number between its two parts.
    fn numbered(&mut self, parts: [&str; 2], number: u64) {
        let mut buffer = [0; 80];
        let text = join(parts, number, &mut buffer);
        self.text(text);
    }

    fn four_digits(&mut self, random: u64) {
        let mut buffer = [0; 80];
        let text = join(["", ""], 1_000 + random % 9_000, &mut buffer);
        self.text(text);
    }

    /// A random one (version 4) by its form.
    fn uuid(&mut self, random: u64, row: u64) {
        if let Some(ColumnBuilder { cells: Cells::Uuid(builder), .. }) = self.columns.next() {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&random.to_be_bytes());
            bytes[8..].copy_from_slice(&mix(random ^ row).to_be_bytes());
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            // Fails only for another width than 16, which the batch's own check would name.
            if builder.append_value(bytes).is_ok() {
                self.bytes += 16;
            }
        }
    }
}

/// Writes the parts with the number between them; what does not fit in the buffer is left out (the longest mailbox
/// of the pool has 30 bytes).
fn join<'b>(parts: [&str; 2], mut number: u64, buffer: &'b mut [u8; 80]) -> &'b str {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while number > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let mut end = 0;
    for part in [parts[0].as_bytes(), &digits[at..], parts[1].as_bytes()] {
        let length = part.len().min(buffer.len() - end);
        buffer[end..end + length].copy_from_slice(&part[..length]);
        end += length;
    }
    std::str::from_utf8(&buffer[..end]).unwrap_or("")
}
