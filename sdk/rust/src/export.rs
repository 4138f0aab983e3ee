//! What the export macros expand to. One instance runs on one thread, so a plain cell holds the plugin and its plans.
#![allow(missing_debug_implementations, missing_docs, reason = "called by the macros alone")]

use std::cell::RefCell;

use crate::bindings::{exports_converter, exports_parser, exports_transform, exports_validator, types};
use crate::config::Config;
use crate::converter::{Conversion, Converter};
use crate::error::Error;
use crate::parser::{Parsed, Parser};
use crate::schema::{ColumnDef, Schema};
use crate::transform::{Program, Transform, TransformPlan};
use crate::validator::{CheckPlan, Checks, Validator};

/// A configured plugin and what it planned, by the host's schema id.
struct Planned<P, R> {
    plugin: P,
    plans: Vec<(u32, R)>,
}

impl<P, R> Planned<P, R> {
    fn set(&mut self, id: u32, plan: R) {
        self.plans.retain(|(known, _)| *known != id);
        self.plans.push((id, plan));
    }

    fn get(&self, id: u32) -> Result<&R, Error> {
        let found = self.plans.iter().find(|(known, _)| *known == id);
        found.map(|(_, plan)| plan).ok_or_else(|| Error::bug(format!("schema {id} was never planned")))
    }
}

/// Holds a plugin of role `transform`.
pub struct TransformSlot<P>(RefCell<Option<Planned<P, Program>>>);

/// Holds a plugin of role `validator`.
pub struct ValidatorSlot<P>(RefCell<Option<Planned<P, Checks>>>);

/// Holds a plugin of role `parser`.
pub struct ParserSlot<P>(RefCell<Option<(P, Parsed)>>);

/// Holds a plugin of role `converter`: a column's name, and what is done with it.
pub struct ConverterSlot<P>(RefCell<Option<Planned<P, (String, Conversion)>>>);

/// Sends a panic's message to the host's log before the instance dies: a trap alone does not say what was wrong.
pub fn log_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| crate::host::log(crate::host::Level::Error, &panic.to_string(), &[])));
}

fn unconfigured() -> types::StageError {
    Error::bug("called before configure").into()
}

impl<P: Transform> TransformSlot<P> {
    #[allow(clippy::new_without_default, reason = "const")]
    pub const fn new() -> Self {
        TransformSlot(RefCell::new(None))
    }

    pub fn configure(&self, json: String, pipeline: String) -> Result<(), types::StageError> {
        log_panics();
        let plugin = P::configure(&Config::new(json, pipeline))?;
        *self.0.borrow_mut() = Some(Planned { plugin, plans: Vec::new() });
        Ok(())
    }

    pub fn plan(
        &self,
        id: u32,
        table: types::TableSchema,
    ) -> Result<Option<exports_transform::TransformPlan>, types::StageError> {
        let mut slot = self.0.borrow_mut();
        let planned = slot.as_mut().ok_or_else(unconfigured)?;
        let schema = Schema::from(table);
        let mut plan = TransformPlan::new(&schema);
        planned.plugin.plan(&schema, &mut plan)?;
        Ok(plan.finish()?.map(|(plan, program)| {
            planned.set(id, program);
            plan
        }))
    }

    pub fn apply(&self, batch: types::Batch) -> Result<exports_transform::Outcome, types::StageError> {
        let slot = self.0.borrow();
        let planned = slot.as_ref().ok_or_else(unconfigured)?;
        Ok(planned.get(batch.schema)?.run(batch)?)
    }
}

impl<P: Validator> ValidatorSlot<P> {
    #[allow(clippy::new_without_default, reason = "const")]
    pub const fn new() -> Self {
        ValidatorSlot(RefCell::new(None))
    }

    pub fn configure(&self, json: String, pipeline: String) -> Result<(), types::StageError> {
        log_panics();
        let plugin = P::configure(&Config::new(json, pipeline))?;
        *self.0.borrow_mut() = Some(Planned { plugin, plans: Vec::new() });
        Ok(())
    }

    pub fn plan(
        &self,
        id: u32,
        table: types::TableSchema,
    ) -> Result<Option<exports_validator::CheckPlan>, types::StageError> {
        let mut slot = self.0.borrow_mut();
        let planned = slot.as_mut().ok_or_else(unconfigured)?;
        let schema = Schema::from(table);
        let mut plan = CheckPlan::new(&schema);
        planned.plugin.plan(&schema, &mut plan)?;
        Ok(plan.finish()?.map(|(plan, checks)| {
            planned.set(id, checks);
            plan
        }))
    }

    pub fn check(&self, batch: types::Batch) -> Result<Vec<exports_validator::Violation>, types::StageError> {
        let slot = self.0.borrow();
        let planned = slot.as_ref().ok_or_else(unconfigured)?;
        Ok(planned.get(batch.schema)?.run(batch)?)
    }
}

impl<P: Parser> ParserSlot<P> {
    #[allow(clippy::new_without_default, reason = "const")]
    pub const fn new() -> Self {
        ParserSlot(RefCell::new(None))
    }

    pub fn configure(&self, json: String, pipeline: String) -> Result<(), types::StageError> {
        log_panics();
        let plugin = P::configure(&Config::new(json, pipeline))?;
        *self.0.borrow_mut() = Some((plugin, Parsed::default()));
        Ok(())
    }

    pub fn plan(&self) -> exports_parser::RawPlan {
        let meta = P::META.iter().map(|name| (*name).to_string()).collect();
        exports_parser::RawPlan { meta, ext: Vec::new() }
    }

    pub fn parse(&self, batch: exports_parser::RawBatch) -> Result<exports_parser::Parsed, types::StageError> {
        let mut slot = self.0.borrow_mut();
        let (plugin, parsed) = slot.as_mut().ok_or_else(unconfigured)?;
        Ok(parsed.parse(plugin, batch)?)
    }
}

impl<P: Converter> ConverterSlot<P> {
    #[allow(clippy::new_without_default, reason = "const")]
    pub const fn new() -> Self {
        ConverterSlot(RefCell::new(None))
    }

    pub fn configure(&self, json: String, pipeline: String) -> Result<(), types::StageError> {
        log_panics();
        let plugin = P::configure(&Config::new(json, pipeline))?;
        *self.0.borrow_mut() = Some(Planned { plugin, plans: Vec::new() });
        Ok(())
    }

    pub fn plan(&self, id: u32, column: types::ColumnDef) -> Result<Option<types::DataType>, types::StageError> {
        let mut slot = self.0.borrow_mut();
        let planned = slot.as_mut().ok_or_else(unconfigured)?;
        let column = ColumnDef::from(column);
        let Some(conversion) = planned.plugin.plan(&column)? else { return Ok(None) };
        let to = conversion.to();
        planned.set(id, (column.name, conversion));
        Ok(Some(to))
    }

    pub fn convert(
        &self,
        id: u32,
        rows: u32,
        input: types::Column,
    ) -> Result<exports_converter::Converted, types::StageError> {
        let slot = self.0.borrow();
        let planned = slot.as_ref().ok_or_else(unconfigured)?;
        let (name, conversion) = planned.get(id)?;
        Ok(conversion.run(name, rows, input)?)
    }
}

/// Exports a type that implements [`crate::Transform`] as the plugin of this crate. Name, version and description are the
/// package's.
#[macro_export]
macro_rules! transform {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::{exports_transform, types};
    ::std::thread_local!(static SLOT: $crate::export::TransformSlot<$plugin> =
                const { $crate::export::TransformSlot::new() });
            struct Export;
            $crate::__lifecycle!(transform, <$plugin as $crate::Transform>::CONFIG_SCHEMA);
            impl exports_transform::Guest for Export {
                fn plan(
                    id: u32,
                    table: types::TableSchema,
                    _: ::std::vec::Vec<::std::string::String>,
                ) -> ::std::result::Result<::std::option::Option<exports_transform::TransformPlan>, types::StageError>
                {
                    SLOT.with(|slot| slot.plan(id, table))
                }
                fn apply(batch: types::Batch) -> ::std::result::Result<exports_transform::Outcome, types::StageError> {
                    SLOT.with(|slot| slot.apply(batch))
                }
            }
    $crate::bindings::transform::export_transform!(Export with_types_in $crate::bindings::transform);
        };
        // Natively nothing is exported, but unit tests run the plugin: it is no dead code.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            #[allow(dead_code)]
            fn exported(config: &$crate::Config) -> ::std::result::Result<$plugin, $crate::Error> {
                <$plugin as $crate::Transform>::configure(config)
            }
        };
    };
}

/// Exports a type that implements [`crate::Validator`] as the plugin of this crate. Name, version and description are the
/// package's.
#[macro_export]
macro_rules! validator {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::{exports_validator, types};
    ::std::thread_local!(static SLOT: $crate::export::ValidatorSlot<$plugin> =
                const { $crate::export::ValidatorSlot::new() });
            struct Export;
            $crate::__lifecycle!(validator, <$plugin as $crate::Validator>::CONFIG_SCHEMA);
            impl exports_validator::Guest for Export {
                fn plan(
                    id: u32,
                    table: types::TableSchema,
                    _: ::std::vec::Vec<::std::string::String>,
                ) -> ::std::result::Result<::std::option::Option<exports_validator::CheckPlan>, types::StageError>
                {
                    SLOT.with(|slot| slot.plan(id, table))
                }
                fn check(
                    batch: types::Batch,
                ) -> ::std::result::Result<::std::vec::Vec<exports_validator::Violation>, types::StageError> {
                    SLOT.with(|slot| slot.check(batch))
                }
            }
    $crate::bindings::validator::export_validator!(Export with_types_in $crate::bindings::validator);
        };
        // Natively nothing is exported, but unit tests run the plugin: it is no dead code.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            #[allow(dead_code)]
            fn exported(config: &$crate::Config) -> ::std::result::Result<$plugin, $crate::Error> {
                <$plugin as $crate::Validator>::configure(config)
            }
        };
    };
}

/// Exports a type that implements [`crate::Parser`] as the plugin of this crate. Name, version and description are the
/// package's.
#[macro_export]
macro_rules! parser {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::{exports_parser, types};
    ::std::thread_local!(static SLOT: $crate::export::ParserSlot<$plugin> =
                const { $crate::export::ParserSlot::new() });
            struct Export;
            $crate::__lifecycle!(parser, <$plugin as $crate::Parser>::CONFIG_SCHEMA);
            impl exports_parser::Guest for Export {
                fn plan(
                    _: ::std::vec::Vec<::std::string::String>,
                ) -> ::std::result::Result<exports_parser::RawPlan, types::StageError> {
                    Ok(SLOT.with(|slot| slot.plan()))
                }
                fn parse(
                    batch: exports_parser::RawBatch,
                ) -> ::std::result::Result<exports_parser::Parsed, types::StageError> {
                    SLOT.with(|slot| slot.parse(batch))
                }
            }
    $crate::bindings::parser::export_parser!(Export with_types_in $crate::bindings::parser);
        };
        // Natively nothing is exported, but unit tests run the plugin: it is no dead code.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            #[allow(dead_code)]
            fn exported(config: &$crate::Config) -> ::std::result::Result<$plugin, $crate::Error> {
                <$plugin as $crate::Parser>::configure(config)
            }
        };
    };
}

/// Exports a type that implements [`crate::Converter`] as the plugin of this crate. Name, version and description are the
/// package's.
#[macro_export]
macro_rules! converter {
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::{exports_converter, types};
    ::std::thread_local!(static SLOT: $crate::export::ConverterSlot<$plugin> =
                const { $crate::export::ConverterSlot::new() });
            struct Export;
            $crate::__lifecycle!(converter, <$plugin as $crate::Converter>::CONFIG_SCHEMA);
            impl exports_converter::Guest for Export {
                fn plan(
                    id: u32,
                    column: types::ColumnDef,
                ) -> ::std::result::Result<::std::option::Option<types::DataType>, types::StageError> {
                    SLOT.with(|slot| slot.plan(id, column))
                }
                fn convert(
                    id: u32,
                    rows: u32,
                    input: types::Column,
                ) -> ::std::result::Result<exports_converter::Converted, types::StageError> {
                    SLOT.with(|slot| slot.convert(id, rows, input))
                }
            }
    $crate::bindings::converter::export_converter!(Export with_types_in $crate::bindings::converter);
        };
        // Natively nothing is exported, but unit tests run the plugin: it is no dead code.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            #[allow(dead_code)]
            fn exported(config: &$crate::Config) -> ::std::result::Result<$plugin, $crate::Error> {
                <$plugin as $crate::Converter>::configure(config)
            }
        };
    };
}

/// The interface `lifecycle`, which every role exports.
#[doc(hidden)]
#[macro_export]
macro_rules! __lifecycle {
    ($role:ident, $schema:expr) => {
        impl $crate::bindings::$role::exports::millrace::plugin::lifecycle::Guest for Export {
            fn describe() -> $crate::bindings::$role::exports::millrace::plugin::lifecycle::Info {
                $crate::bindings::$role::exports::millrace::plugin::lifecycle::Info {
                    name: ::std::env!("CARGO_PKG_NAME").into(),
                    version: ::std::env!("CARGO_PKG_VERSION").into(),
                    description: ::std::env!("CARGO_PKG_DESCRIPTION").into(),
                    config_schema: $schema.into(),
                    memory_mib: 0,
                    milliseconds: 0,
                    ext: ::std::vec::Vec::new(),
                }
            }
            fn configure(
                config: $crate::bindings::$role::exports::millrace::plugin::lifecycle::Config,
            ) -> ::std::result::Result<(), types::StageError> {
                SLOT.with(|slot| slot.configure(config.json, config.pipeline))
            }
        }
    };
}
