//! Leaves test orders out, renames `customer`, and turns the text `amount` into whole cents; what is no amount is refused.

use millrace_sdk::prelude::*;
use millrace_sdk::scaled_text;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderCents {
    #[serde(default = "test")]
    test_status: String,
}

fn test() -> String {
    "test".to_string()
}

impl Transform for OrderCents {
    const CONFIG_SCHEMA: &'static str =
        r#"{ "type": "object", "properties": { "test_status": { "type": "string" } }, "additionalProperties": false }"#;

    fn configure(config: &Config) -> Result<Self, Error> {
        config.parse()
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        if let Some(status) = plan.column("status") {
            let unwanted = self.test_status.clone();
            plan.filter::<Text>(status, move |status| status != unwanted);
        }
        if let Some(customer) = plan.column("customer") {
            plan.rename(customer, "customer_name");
        }
        if let Some(amount) = plan.column("amount") {
            plan.convert::<Text>(amount, DataType::Int64, |text, out| match scaled_text(text.as_bytes(), 2) {
                Some(cents) => out.set_int(cents),
                None => Err(Reject::new("amount.parse", format!("{text:?} is no amount"))),
            });
        }
        Ok(())
    }
}

millrace_sdk::transform!(OrderCents);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Case, Fate};
    use serde_json::{Value as Json, json};

    fn orders() -> Case {
        let case = Case::table("orders").key("id", DataType::Int64).column("status", DataType::Text);
        case.column("customer", DataType::Text).column("amount", DataType::Text)
    }

    #[test]
    fn orders_leave_in_cents() {
        let order = json!({ "id": 1, "status": "new", "customer": "Ann", "amount": "12.5" });
        let answer = orders().insert(order).transform::<OrderCents>().expect("answered");
        let expected = json!({ "id": 1, "status": "new", "customer_name": "Ann", "amount": 1250 });
        assert_eq!(Json::from(answer.kept(0).clone()), expected);
    }

    #[test]
    fn test_orders_are_left_out() {
        let case = orders().config(json!({ "test_status": "dummy" }));
        let case = case.insert(json!({ "id": 1, "status": "dummy" })).insert(json!({ "id": 2, "status": "test" }));
        let answer = case.transform::<OrderCents>().expect("answered");
        assert_eq!(answer.fates[0], Fate::Dropped);
        assert_eq!(answer.kept(1)["status"], "test");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        let answer = orders().insert(json!({ "id": 1, "amount": "much" })).transform::<OrderCents>().expect("answered");
        let Fate::Rejected { code, .. } = &answer.fates[0] else { panic!("{:?}", answer.fates) };
        assert_eq!(code, "amount.parse");
    }
}
