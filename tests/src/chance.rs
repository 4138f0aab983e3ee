//! Chance from a seed, so that what failed can be run again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A sequence of numbers that its seed determines (SplitMix64).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// From `MILLRACE_SEED`, else from the clock; prints the seed. Real processes add chance of their own: the seed
    /// brings back the plan of a run, not its every interleaving.
    pub fn announced(what: &str) -> Chance {
        let named = std::env::var("MILLRACE_SEED").ok().map(|seed| seed.parse().expect("MILLRACE_SEED is a number"));
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
        let seed = named.unwrap_or_else(clock);
        println!("result: {what}: seed {seed} (again: MILLRACE_SEED={seed})");
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A time between these, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How much of something a test does: what the variable says (`cargo xtask soak` sets it), else its short form.
pub fn amount(variable: &str, short: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => short,
    }
}
