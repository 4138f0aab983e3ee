//! What bindgen makes of the contract: one set of types for the widest world; a component exports some of its interfaces.
//!
//! `Borrowing` lends Arrow's buffers to a call as they are. The generated calls skip a type check that they did once before;
//! no unsafe code of ours is here.
#![allow(unsafe_code, dead_code, missing_debug_implementations, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit/0.1.0",
    world: "multi-plugin",
    exports: { default: async },
    imports: { default: trappable },
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub(crate) use self::exports::millrace::plugin::{converter, lifecycle, parser, transform, validator};
pub(crate) use self::millrace::plugin::{crypto, log, metrics, types};
