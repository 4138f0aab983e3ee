//! What a plugin's instance can reach: its limits, its log and metrics, the granted keys, an empty WASI.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::types::{CellsResult, ColumnResult, FixedDataResult};
use crate::bindings::{crypto, log, metrics, types};
use crate::keys::Keys;
use crate::log::{Level, PluginLog};

type Labels = Vec<(String, String)>;

/// The state of one instance's store.
pub(crate) struct HostState {
    pub(crate) memory: Memory,
    /// Ticks left for the call at work, beyond those that the store's deadline already holds.
    pub(crate) ticks_left: u64,
    /// The last line that the plugin logged as an error: a panic's message, mostly.
    pub(crate) last_error: Option<String>,
    log: PluginLog,
    keys: Keys,
    granted: Vec<String>,
    /// Made when a WASI function is first called: most plugins import none.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

/// What an instance takes of memory, and how much it may.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    table_entries: usize,
    /// Of all its linear memories.
    pub(crate) bytes: usize,
    /// It wanted more than the limit.
    pub(crate) refused: bool,
}

impl HostState {
    pub(crate) fn new(limits: &crate::Limits, log: PluginLog, keys: Keys, granted: Vec<String>) -> Self {
        let memory = Memory {
            limit: limits.memory_bytes(),
            table_entries: limits.table_entries as usize,
            bytes: 0,
            refused: false,
        };
        let table = ResourceTable::new();
        Self { memory, ticks_left: 0, last_error: None, log, keys, granted, wasi: None, table }
    }
}

impl HostState {
    /// What WASI hands out: streams, pollables.
    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl std::fmt::Debug for HostState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostState").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Everything that this host offers. `state` and `lookup` are not in it: a component that needs them is refused before.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    types::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |s| s)?;
    log::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |s| s)?;
    metrics::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |s| s)?;
    crypto::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |s| s)?;
    crate::wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.bytes.saturating_sub(current).saturating_add(desired);
        if after > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.bytes = after;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_entries)
    }

    /// A component of several core modules (an adapter, CPython's libraries) has one instance of each.
    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        32
    }

    fn memories(&self) -> usize {
        8
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| crate::wasi::context(&self.log));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn threshold(&mut self) -> wasmtime::Result<log::Level> {
        Ok(match self.log.threshold() {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        })
    }

    fn write(&mut self, level: log::Level, message: String, fields: Labels) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.log.write(level, &message, &fields);
        if level == Level::Error {
            self.last_error = Some(message);
        }
        Ok(())
    }
}

impl metrics::Host for HostState {
    fn count(&mut self, name: String, labels: Labels, add: u64) -> wasmtime::Result<()> {
        self.log.count(&name, &labels, add);
        Ok(())
    }

    fn observe(&mut self, name: String, labels: Labels, value: f64) -> wasmtime::Result<()> {
        self.log.observe(&name, &labels, value);
        Ok(())
    }
}

impl crypto::Host for HostState {
    fn hmac_sha256(
        &mut self,
        key: String,
        input: ColumnResult,
    ) -> wasmtime::Result<Result<ColumnResult, crypto::Error>> {
        if !self.granted.contains(&key) {
            return Ok(Err(crypto::Error::NotGranted));
        }
        let Some(material) = self.keys.get(&key) else { return Ok(Err(crypto::Error::NotGranted)) };
        Ok(hash_column(material, input).map_err(crypto::Error::Failed))
    }
}

/// 32 bytes a row; zeros where there is no value.
fn hash_column(key: &[u8], input: ColumnResult) -> Result<ColumnResult, String> {
    let CellsResult::Vars(vars) = &input.cells else { return Err("the column is not of text or bytes".to_string()) };
    let rows = vars.offsets.len().checked_sub(1).ok_or("the column has no offsets")?;
    if input.presence.as_ref().is_some_and(|p| p.len() != rows) {
        return Err("presence and cells differ in length".to_string());
    }
    let keyed = Hmac::<Sha256>::new_from_slice(key).map_err(|e| e.to_string())?;
    let mut data = Vec::with_capacity(32 * rows);
    for (row, ends) in vars.offsets.windows(2).enumerate() {
        if input.presence.as_ref().is_some_and(|p| p[row] != 1) {
            data.extend_from_slice(&[0; 32]);
            continue;
        }
        let cell = vars.data.get(ends[0] as usize..ends[1] as usize).ok_or("an offset is out of range")?;
        let mut mac = keyed.clone();
        mac.update(cell);
        data.extend_from_slice(&mac.finalize().into_bytes());
    }
    let cells = CellsResult::Fixed(FixedDataResult { width: 32, data });
    Ok(ColumnResult { presence: input.presence, cells })
}
