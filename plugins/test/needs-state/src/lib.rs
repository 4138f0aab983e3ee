//! Imports `state`, which this version of the host does not offer: it must be refused by name.

use millrace_sdk::bindings::transform::millrace::plugin::state;
use millrace_sdk::bindings::types::VarData;
use millrace_sdk::prelude::*;

struct NeedsState;

impl Transform for NeedsState {
    fn configure(_: &Config) -> Result<Self, Error> {
        state::get(&VarData { offsets: vec![0], data: vec![] }).map_err(|e| Error::Bug(format!("{e:?}")))?;
        Ok(NeedsState)
    }

    fn plan(&self, _: &Schema, _: &mut TransformPlan) -> Result<(), Error> {
        Ok(())
    }
}

millrace_sdk::transform!(NeedsState);
