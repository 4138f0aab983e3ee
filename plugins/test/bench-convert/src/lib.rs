//! Filter, rename and convert, as the bench has it: rows with status "test" go, `customer` gets another name (and is read),
//! the decimal text `amount` becomes int64 cents.

use millrace_sdk::prelude::*;

struct FilterRenameConvert;

impl Transform for FilterRenameConvert {
    fn configure(_: &Config) -> Result<Self, Error> {
        Ok(FilterRenameConvert)
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        let (Some(status), Some(amount), Some(customer)) =
            (plan.column("status"), plan.column("amount"), plan.column("customer"))
        else {
            return Ok(());
        };
        plan.read(customer);
        plan.filter::<Bytes>(status, |status| status != b"test");
        plan.rename(customer, "customer_name");
        plan.convert::<Bytes>(amount, DataType::Int64, |text, out| match millrace_sdk::scaled_text(text, 2) {
            Some(cents) => out.set_int(cents),
            None => Err(Reject::new("amount.parse", format!("{:?} is no amount", String::from_utf8_lossy(text)))),
        });
        Ok(())
    }
}

millrace_sdk::transform!(FilterRenameConvert);
