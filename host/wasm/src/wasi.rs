//! The WASI that some languages' runtimes insist on: empty, and the same at every run.
//!
//! No files, no environment, no arguments, no network; the clock stands still at 1970, who sleeps wakes at once, entropy is a
//! fixed sequence, and what is written to the standard streams goes to the plugin's log.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};

use crate::host::HostState;
use crate::log::{Level, PluginLog};

/// Any sequence does; this one is not all zeros, which some generators can not start from.
const ENTROPY: [u8; 16] = *b"millrace-plugins";

/// Bytes that a plugin may ask of `random` at once.
const MAX_RANDOM: u64 = 1 << 20;

/// Links the empty WASI.
pub(crate) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // wasmtime's own waits by the machine's clock, whatever clock a context has, and no deadline runs while the host waits: a
    // plugin could hold its pipeline for as long as it likes.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, NoWaiting>(linker, |state| Timeless(state.table()))?;
    linker.allow_shadowing(false);
    Ok(())
}

struct NoWaiting;

impl HasData for NoWaiting {
    type Data<'a> = Timeless<'a>;
}

/// A clock that stands still, on which every moment that one can wait for has come.
struct Timeless<'a>(&'a mut ResourceTable);

struct Come;

#[async_trait]
impl Pollable for Come {
    async fn ready(&mut self) {}
}

impl Timeless<'_> {
    fn come(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let come = self.0.push(Come)?;
        subscribe(self.0, come)
    }
}

impl monotonic_clock::Host for Timeless<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::now(&StoppedClock))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::resolution(&StoppedClock))
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.come()
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.come()
    }
}

/// The context of one instance.
pub(crate) fn context(log: &PluginLog) -> WasiCtx {
    WasiCtxBuilder::new()
        .secure_random(Deterministic::new(ENTROPY.to_vec()))
        .insecure_random(Deterministic::new(ENTROPY.to_vec()))
        .insecure_random_seed(0)
        .max_random_size(MAX_RANDOM)
        .wall_clock(StoppedClock)
        .monotonic_clock(StoppedClock)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stdout(ToLog { log: log.clone(), level: Level::Info })
        .stderr(ToLog { log: log.clone(), level: Level::Warn })
        .build()
}

struct StoppedClock;

impl HostWallClock for StoppedClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for StoppedClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Standard output or error of a plugin.
#[derive(Clone)]
struct ToLog {
    log: PluginLog,
    level: Level,
}

impl IsTerminal for ToLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for ToLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for ToLog {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.trim().is_empty()) {
            self.log.write(self.level, line, &[]);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
