#![doc = include_str!("../README.md")]

mod batch;
#[doc(hidden)]
pub mod bindings;
mod cell;
mod column;
mod config;
mod converter;
mod error;
#[doc(hidden)]
pub mod export;
pub mod host;
mod out;
mod parser;
mod schema;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod text;
mod transform;
mod validator;

pub use batch::{ChangeType, Input, Meta, MetaInput, Row};
pub use cell::{Cell, Decimal, Moment, Uuid, Value, scaled_text};
pub use column::{Any, Bool, Bytes, Column, Float, Int, Read, Text};
pub use config::Config;
pub use converter::{Conversion, Converter};
pub use error::{Error, Reject};
pub use out::Out;
pub use parser::{Form, Message, Parsed, Parser};
pub use schema::{ColumnDef, DataType, Images, Schema};
pub use transform::{Col, Output, RowOut, Transform, TransformPlan};
pub use validator::{CheckPlan, RuleBuilder, Severity, Validator};

pub use serde;
pub use serde_json;

/// What most plugins need.
pub mod prelude {
    pub use crate::{
        Any, Bool, Bytes, Cell, CheckPlan, Column, ColumnDef, Config, DataType, Error, Float, Int, Reject, Schema,
        Severity, Text, Transform, TransformPlan, Validator, Value, host,
    };
    pub use serde::Deserialize;
}
