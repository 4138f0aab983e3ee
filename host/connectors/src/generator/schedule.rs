//! Which rows a transaction touches, by arithmetic on its number alone: nothing is remembered, so the generator starts
//! anywhere and still knows which rows live and at which version they are.
//!
//! Time is counted in cycles of [`SLOTS`] transactions, and cycles in blocks of [`BLOCK`]. In each cycle one customer
//! signs up and four orders are placed, of which the last is cancelled. Whatever happens to a row later happens a fixed
//! number of blocks after its own (its *lag*), in an order that a seeded permutation of the block gives. A lag's
//! permutation can be inverted, so the moment of each past update is known as well.

/// Cycles of a block: the permutations are taken modulo this power of two.
pub(super) const BLOCK: u64 = 16;
/// Transactions of a cycle.
pub(super) const SLOTS: u64 = 19;
/// Orders that a cycle places; the last one is cancelled, the others are paid, shipped, delivered and purged.
pub(super) const ORDERS: u64 = 4;
const KEPT_ORDERS: u64 = ORDERS - 1;
/// Changes of the longest transaction: the purge of three orders and their payments.
pub(super) const LONGEST: u32 = 2 * KEPT_ORDERS as u32;
/// An order's delivery lies 4 blocks after it, and its purge (half a customer's life) must come later.
pub(super) const LEAST_CUSTOMERS: u64 = 10 * BLOCK;

const PAY: Lagged = Lagged { name: 1, slot: 5, blocks: 1 };
const CANCEL: Lagged = Lagged { name: 2, slot: 8, blocks: 1 };
const SHIP: Lagged = Lagged { name: 3, slot: 10, blocks: 2 };
const DELIVER: Lagged = Lagged { name: 4, slot: 13, blocks: 4 };

/// The final version of a customer: updated four times.
pub(super) const LAST_CUSTOMER_VERSION: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Customers,
    Orders,
    Payments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    /// To this version.
    Update(u8),
    /// At this version.
    Delete(u8),
}

/// One change: `row` counts the rows of a table from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) table: Table,
    pub(super) op: Op,
    pub(super) row: u64,
}

/// The changes of one transaction, in order; none where it would touch rows from before the beginning.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: [Option<Step>; LONGEST as usize],
    len: usize,
}

impl Steps {
    fn push(&mut self, table: Table, op: Op, row: u64) {
        self.steps[self.len] = Some(Step { table, op, row });
        self.len += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Step> + '_ {
        self.steps.iter().flatten().copied()
    }
}

/// Something that happens to a row a number of blocks after its own, in this slot of the cycle.
#[derive(Clone, Copy, Debug)]
struct Lagged {
    name: u64,
    slot: u64,
    blocks: u64,
}

/// Spreads the bits of a number (splitmix64's finaliser).
pub(super) const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone, Debug)]
pub(super) struct Schedule {
    seed: u64,
    /// Blocks that a customer lives.
    life: u64,
    customer_updates: [Lagged; LAST_CUSTOMER_VERSION as usize],
    purge: Lagged,
    close: Lagged,
}

impl Schedule {
    /// `customers`: how many live at once; at least [`LEAST_CUSTOMERS`].
    pub(super) fn new(seed: u64, customers: u64) -> Self {
        let life = (customers / BLOCK).max(LEAST_CUSTOMERS / BLOCK);
        let update = |name: u64, slot, blocks| Lagged { name: 10 + name, slot, blocks };
        Self {
            seed,
            life,
            customer_updates: [
                update(1, 9, 1),
                update(2, 14, life / 4),
                update(3, 15, life / 2),
                update(4, 16, life - 2),
            ],
            purge: Lagged { name: 5, slot: 17, blocks: life / 2 },
            close: Lagged { name: 6, slot: 18, blocks: life },
        }
    }

    /// The changes of a transaction; they are counted from 1.
    pub(super) fn steps(&self, transaction: u64) -> Steps {
        let (cycle, slot) = ((transaction - 1) / SLOTS, (transaction - 1) % SLOTS);
        let mut steps = Steps::default();
        match slot {
            0 => steps.push(Table::Customers, Op::Insert, cycle),
            1..=4 => {
                let order = cycle * ORDERS + (slot - 1);
                steps.push(Table::Orders, Op::Insert, order);
                steps.push(Table::Payments, Op::Insert, order);
            }
            5..=7 => self.orders_after(PAY, cycle, slot - 5, |order| {
                steps.push(Table::Payments, Op::Update(1), order);
                steps.push(Table::Orders, Op::Update(1), order);
            }),
            8 => self.orders_after(CANCEL, cycle, KEPT_ORDERS, |order| {
                steps.push(Table::Payments, Op::Delete(0), order);
                steps.push(Table::Orders, Op::Delete(0), order);
            }),
            10..=12 => {
                self.orders_after(SHIP, cycle, slot - 10, |order| steps.push(Table::Orders, Op::Update(2), order))
            }
            13 => {
                for i in 0..KEPT_ORDERS {
                    self.orders_after(DELIVER, cycle, i, |order| steps.push(Table::Orders, Op::Update(3), order));
                }
            }
            17 => {
                for i in 0..KEPT_ORDERS {
                    self.orders_after(self.purge, cycle, i, |order| {
                        steps.push(Table::Payments, Op::Delete(1), order);
                        steps.push(Table::Orders, Op::Delete(3), order);
                    });
                }
            }
            18 => {
                if let Some(customer) = self.origin(self.close, cycle) {
                    steps.push(Table::Customers, Op::Delete(LAST_CUSTOMER_VERSION), customer);
                }
            }
            _ => {
                for (version, update) in (1..).zip(self.customer_updates) {
                    if let (true, Some(customer)) = (update.slot == slot, self.origin(update, cycle)) {
                        steps.push(Table::Customers, Op::Update(version), customer);
                    }
                }
            }
        }
        steps
    }

    fn orders_after(&self, lagged: Lagged, cycle: u64, which: u64, mut then: impl FnMut(u64)) {
        if let Some(origin) = self.origin(lagged, cycle) {
            then(origin * ORDERS + which);
        }
    }

    /// Changes of all transactions before this one.
    pub(super) fn changes_before(&self, transaction: u64) -> u64 {
        let (cycle, slot) = ((transaction - 1) / SLOTS, (transaction - 1) % SLOTS);
        let after = |lagged: Lagged, a_cycle: u64| a_cycle * cycle.saturating_sub(lagged.blocks * BLOCK);
        let whole_cycles = cycle * (1 + 2 * ORDERS)
            + after(PAY, 2 * KEPT_ORDERS)
            + after(CANCEL, 2)
            + after(SHIP, KEPT_ORDERS)
            + after(DELIVER, KEPT_ORDERS)
            + self.customer_updates.iter().map(|u| after(*u, 1)).sum::<u64>()
            + after(self.purge, 2 * KEPT_ORDERS)
            + after(self.close, 1);
        let first = cycle * SLOTS + 1;
        whole_cycles + (first..first + slot).map(|t| self.steps(t).len() as u64).sum::<u64>()
    }

    /// The cycle whose rows are touched in this one.
    fn origin(&self, lagged: Lagged, cycle: u64) -> Option<u64> {
        let block = (cycle / BLOCK).checked_sub(lagged.blocks)?;
        let (factor, offset) = self.permutation(lagged, block);
        Some(block * BLOCK + ((cycle % BLOCK * factor + offset) % BLOCK))
    }

    /// The transaction in which it happens to the rows of a cycle: the inverse of [`Schedule::origin`].
    fn moment(&self, lagged: Lagged, origin: u64, which: u64) -> u64 {
        let block = origin / BLOCK;
        let (factor, offset) = self.permutation(lagged, block);
        // The odd numbers modulo 16 form a group whose exponent is 4: the cube is the inverse.
        let inverse = factor * factor * factor % BLOCK;
        let place = (origin % BLOCK + BLOCK - offset) * inverse % BLOCK;
        ((block + lagged.blocks) * BLOCK + place) * SLOTS + lagged.slot + which + 1
    }

    fn permutation(&self, lagged: Lagged, block: u64) -> (u64, u64) {
        let bits = mix(self.seed ^ mix(block * 32 + lagged.name));
        ((bits % BLOCK) | 1, (bits >> 8) % BLOCK)
    }

    /// The transaction in which a customer signed up.
    pub(super) fn customer_since(&self, row: u64) -> u64 {
        row * SLOTS + 1
    }

    /// The transaction in which an order, and its payment, reached this version.
    pub(super) fn order_moment(&self, row: u64, version: u8) -> u64 {
        let (cycle, which) = (row / ORDERS, row % ORDERS);
        match version {
            0 => cycle * SLOTS + 2 + which,
            1 => self.moment(PAY, cycle, which),
            2 => self.moment(SHIP, cycle, which),
            _ => self.moment(DELIVER, cycle, 0),
        }
    }

    /// Who placed an order: a customer that is there before it, and closes the account after the order is purged.
    pub(super) fn customer_of(&self, order: u64, random: u64) -> u64 {
        let cycle = order / ORDERS;
        let block = cycle / BLOCK;
        if block == 0 {
            return random % (cycle + 1);
        }
        let oldest = (block + 1).saturating_sub(self.life / 2);
        let oldest = oldest.min(block - 1);
        oldest * BLOCK + random % ((block - oldest) * BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_row_is_inserted_then_updated_version_by_version_then_deleted() {
        let schedule = Schedule::new(7, LEAST_CUSTOMERS);
        let mut live: HashMap<(u8, u64), u8> = HashMap::new();
        let mut counts = [0u64; 3];
        for transaction in 1..=SLOTS * BLOCK * 30 {
            for step in schedule.steps(transaction).iter() {
                let key = (step.table as u8, step.row);
                match step.op {
                    Op::Insert => assert_eq!(live.insert(key, 0), None, "{step:?} at {transaction}"),
                    Op::Update(version) => {
                        assert_eq!(live.insert(key, version), Some(version - 1), "{step:?} at {transaction}");
                    }
                    Op::Delete(version) => assert_eq!(live.remove(&key), Some(version), "{step:?} at {transaction}"),
                }
                counts[step.table as usize] += 1;
            }
        }
        assert!(counts.iter().all(|c| *c > 1_000), "{counts:?}");
        assert!(live.len() < 3_000, "the rows that live are bounded: {}", live.len());
    }

    #[test]
    fn every_order_belongs_to_a_customer_that_lives_as_long_as_it() {
        let schedule = Schedule::new(3, LEAST_CUSTOMERS + 40);
        let mut customers = std::collections::HashSet::new();
        let mut orders = HashMap::new();
        for transaction in 1..=SLOTS * BLOCK * 40 {
            for step in schedule.steps(transaction).iter() {
                match (step.table, step.op) {
                    (Table::Customers, Op::Insert) => assert!(customers.insert(step.row)),
                    (Table::Customers, Op::Delete(_)) => {
                        assert!(customers.remove(&step.row));
                        assert!(orders.values().all(|c| *c != step.row), "customer {} still has orders", step.row);
                    }
                    (Table::Orders, Op::Insert) => {
                        let customer = schedule.customer_of(step.row, mix(step.row));
                        assert!(customers.contains(&customer), "order {} at {transaction}", step.row);
                        orders.insert(step.row, customer);
                    }
                    (Table::Orders, Op::Delete(_)) => assert!(orders.remove(&step.row).is_some()),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_changes_before_a_transaction_are_counted_without_walking_them() {
        let schedule = Schedule::new(11, LEAST_CUSTOMERS);
        let mut changes = 0;
        for transaction in 1..=SLOTS * BLOCK * 12 {
            assert_eq!(schedule.changes_before(transaction), changes, "before {transaction}");
            changes += schedule.steps(transaction).len() as u64;
        }
    }

    #[test]
    fn the_moment_of_an_update_is_the_transaction_that_makes_it() {
        let schedule = Schedule::new(5, LEAST_CUSTOMERS);
        for transaction in 1..=SLOTS * BLOCK * 12 {
            for step in schedule.steps(transaction).iter() {
                match (step.table, step.op) {
                    (Table::Orders, Op::Insert) => assert_eq!(schedule.order_moment(step.row, 0), transaction),
                    (Table::Orders, Op::Update(version)) => {
                        assert_eq!(schedule.order_moment(step.row, version), transaction)
                    }
                    (Table::Customers, Op::Insert) => assert_eq!(schedule.customer_since(step.row), transaction),
                    _ => {}
                }
            }
        }
    }
}
