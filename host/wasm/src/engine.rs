//! One wasmtime engine a process, and the clock that interrupts what runs too long.

use std::sync::OnceLock;
use std::time::Duration;

use millrace_core::{Error, Result};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::limits::MEMORY_CEILING_MIB;

/// Limits are counted in these: fine enough for a deadline of milliseconds, and a thousand wake-ups a second are 0.1 % of a core.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Instances that may live at once: 32 plugins, each with one at work, one being swapped in, and one to bisect on, with room for
/// components of several core modules.
const INSTANCES: u32 = 256;
/// The pool keeps this much of a freed memory mapped: the first pages are written by every instance; more than that is
/// memory that nobody uses (500 freed instances at 1 MiB each held 516 MB).
const KEEP_RESIDENT: usize = 128 << 10;
/// Of wasm code. The default; a recursion deeper than this is a bug.
const WASM_STACK: usize = 512 << 10;
/// The fiber that a call runs on: the wasm stack and the host functions on top of it.
const FIBER_STACK: usize = 2 << 20;

/// The engine of this process.
///
/// # Errors
/// `plugin.engine`: this machine can not run compiled wasm.
pub(crate) fn engine() -> Result<Engine> {
    static ENGINE: OnceLock<std::result::Result<Engine, String>> = OnceLock::new();
    let made = ENGINE.get_or_init(|| {
        let engine = build()?;
        start_ticker(&engine)?;
        Ok(engine)
    });
    made.clone().map_err(|e| Error::config("plugin.engine", format!("the plugin runtime can not start: {e}")))
}

fn build() -> std::result::Result<Engine, String> {
    // 256 slots of 4 GiB of address space are more than some containers allow (`ulimit -v`): slower, but it works.
    Engine::new(&config(true)).or_else(|pooled| {
        tracing::warn!(error = %pooled, "no address space for the instance pool, instances are allocated one by one");
        Engine::new(&config(false)).map_err(|e| e.to_string())
    })
}

fn config(pooled: bool) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        // Calls are async to yield while a plugin computes; 390 ns a call without the machinery for concurrent ones, 1,170 with it.
        .concurrency_support(false)
        // 2 to 27 % of the time, where fuel takes 3 to 38 %.
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        // Same input, same bytes, on every machine: a replay must make what was made before (I4).
        // Threads are not even compiled in (a feature of the crate).
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false);
    if pooled {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(INSTANCES)
            .total_core_instances(INSTANCES * 16)
            .total_memories(INSTANCES)
            .total_tables(INSTANCES * 4)
            .total_stacks(INSTANCES)
            .max_memory_size((MEMORY_CEILING_MIB as usize) << 20)
            // Tables are bounded by each plugin's limits; CPython has 10,000 entries.
            .table_elements(200_000)
            // CPython with its libraries is 38 of them; a Rust or JavaScript plugin is one to three.
            .max_core_instances_per_component(64)
            .max_tables_per_component(32)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .decommit_batch_size(1);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// A thread of its own, so that no busy executor delays the interruption of a plugin. It ends with the engine.
fn start_ticker(engine: &Engine) -> std::result::Result<(), String> {
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    let thread = std::thread::Builder::new().name("plugin-ticker".to_string());
    thread.spawn(tick).map(drop).map_err(|e| format!("its clock thread: {e}"))
}
