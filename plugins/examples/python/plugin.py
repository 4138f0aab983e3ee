"""Leaves test orders out, renames `customer`, and turns the text `amount` into whole cents; what is no amount is refused."""

import millrace
from millrace import Reject

CONFIG = {"type": "object", "properties": {"test_status": {"type": "string"}}, "additionalProperties": False}


@millrace.plugin("order-cents-python", "0.1.0", config_schema=CONFIG)
class OrderCents(millrace.Transform):
    def configure(self, config):
        self.test_status = config.get("test_status", "test")

    def plan(self, schema, plan):
        plan.filter("status", lambda status: status != self.test_status, read=str)
        plan.rename("customer", "customer_name")
        plan.convert("amount", "int64", cents, read=str)


def cents(text):
    value = millrace.scaled(text, 2)
    if value is None:
        raise Reject("amount.parse", f"{text!r} is no amount")
    return value
