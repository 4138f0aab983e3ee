//! What wit-bindgen makes of the contract (`sdk/bindgen` writes it). Out of a plugin author's sight: the modules beside it
//! are the API.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub, dead_code, unsafe_op_in_unsafe_fn, clippy::all)]
#![allow(clippy::unwrap_used, clippy::pedantic)]

/// Role `transform`, and the types and host interfaces that all roles share.
#[rustfmt::skip]
pub mod transform;
/// Role `converter`.
#[rustfmt::skip]
pub mod converter;
/// Role `parser`.
#[rustfmt::skip]
pub mod parser;
/// Role `validator`.
#[rustfmt::skip]
pub mod validator;

pub use converter::exports::millrace::plugin::converter as exports_converter;
pub use parser::exports::millrace::plugin::parser as exports_parser;
pub use transform::exports::millrace::plugin::transform as exports_transform;
pub use transform::millrace::plugin::types;
#[cfg(target_family = "wasm")]
pub use transform::millrace::plugin::{crypto, log, metrics};
pub use validator::exports::millrace::plugin::validator as exports_validator;
