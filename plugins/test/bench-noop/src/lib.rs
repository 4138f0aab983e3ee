//! Reads three columns and does nothing: what the boundary alone costs.

use millrace_sdk::prelude::*;

struct Noop;

impl Transform for Noop {
    fn configure(_: &Config) -> Result<Self, Error> {
        Ok(Noop)
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        for name in ["status", "amount", "customer"] {
            if let Some(column) = plan.column(name) {
                plan.inspect(column, |_| Ok(()));
            }
        }
        Ok(())
    }
}

millrace_sdk::transform!(Noop);
