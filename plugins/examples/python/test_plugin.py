"""Runs without a host: `python -m unittest`."""

import unittest

from millrace.testing import Case
from plugin import OrderCents


def orders(**config):
    case = Case(OrderCents, config).column("id", "int64", key=True)
    return case.column("status", "text").column("customer", "text").column("amount", "text")


class OrderCentsTest(unittest.TestCase):
    def test_orders_leave_in_cents(self):
        answer = orders().insert(id=1, status="new", customer="Ann", amount="12.5").run()
        self.assertEqual(answer.kept(0), {"id": 1, "status": "new", "customer_name": "Ann", "amount": 1250})

    def test_test_orders_are_left_out(self):
        answer = orders(test_status="dummy").insert(id=1, status="dummy").insert(id=2, status="test").run()
        self.assertEqual(answer.fates, ["dropped", "kept"])

    def test_what_is_no_amount_is_refused(self):
        answer = orders().insert(id=1, amount="much").insert(id=2, amount=None).delete(id=3).run()
        self.assertEqual([fate[:2] if isinstance(fate, tuple) else fate for fate in answer.fates], [("rejected", "amount.parse"), "kept", "kept"])


if __name__ == "__main__":
    unittest.main()
