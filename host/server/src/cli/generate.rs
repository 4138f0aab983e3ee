//! `millrace generate`.

use std::io::{self, Write};

use clap::Args as ClapArgs;
use millrace_connectors::generator::{GeneratorConfig, Lines, generate_ndjson};
use millrace_core::Result;

use super::Outcome;

/// Prints the generator's events as NDJSON: what the `file` source reads
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  millrace generate --events 1000 --seed 7 > shop.ndjson")]
pub(super) struct Args {
    /// Changes (inserts, updates, deletes) to print
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// The same seed gives the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Customers that live at once
    #[arg(long, default_value_t = 1_000)]
    customers: u64,
    /// Give each line its schema, so that the types survive
    #[arg(long)]
    schemas: bool,
}

pub(super) fn perform(args: &Args) -> Result<Outcome> {
    let config = GeneratorConfig {
        events: Some(args.events),
        seed: args.seed,
        customers: args.customers,
        ..GeneratorConfig::default()
    };
    let lines = if args.schemas { Lines::WithSchemas } else { Lines::Plain };
    let mut out = Pipe { out: std::io::stdout().lock(), is_closed: false };
    match generate_ndjson(&config, lines, &mut out) {
        Err(_) if out.is_closed => Ok(Outcome::Done),
        result => result.map(|_| Outcome::Done),
    }
}

/// Standard output that notes when its reader has enough: `millrace generate | head` is no failure.
struct Pipe<W> {
    out: W,
    is_closed: bool,
}

impl<W: Write> Pipe<W> {
    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.is_closed |= result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.noted(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.noted(flushed)
    }
}
