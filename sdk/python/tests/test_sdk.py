"""The SDK without a host: `python -m unittest` in this folder's parent, with `src` on the path."""

import unittest
import uuid
from decimal import Decimal

import millrace
from millrace import INFINITY, NEG_INFINITY, NOT_SENT, ColumnDef, Date, Reject, SchemaError, Timestamp
from millrace.testing import Case


class Shorten(millrace.Transform):
    def configure(self, config):
        self.column = config["column"]

    def plan(self, schema, plan):
        plan.map(self.column, self.last4, read=str)
        plan.filter("status", lambda status: status != "test")
        plan.rename("name", "full_name")

    @staticmethod
    def last4(text):
        if not text:
            raise Reject("phone.empty", "there is nothing to keep")
        return text[-4:]


class Describe(millrace.Transform):
    def plan(self, schema, plan):
        plan.add_column(ColumnDef("shown", "text"))
        names = [column.name for column in schema.columns]

        def each(row):
            row["shown"] = ";".join(millrace.show(row[name]) for name in names)

        plan.each_row(each, read=names)


class Positive(millrace.Validator):
    def plan(self, schema, plan):
        plan.check("total >= 0", "total", lambda total: f"is {total}" if total < 0 else None)
        plan.required("status there", "status", "warn")


def orders(plugin, **config):
    case = Case(plugin, config).column("id", "int64", key=True).column("phone", "text").column("status", "text")
    return case.column("name", "text")


class TransformTest(unittest.TestCase):
    def test_a_column_is_written_a_row_left_out_and_a_name_changed(self):
        case = orders(Shorten, column="phone")
        case.insert(id=1, phone="+49 170 1234567", status="new", name="Ann")
        case.insert(id=2, phone="1", status="test", name="Bob")
        answer = case.run()
        self.assertEqual(answer.kept(0), {"id": 1, "phone": "4567", "status": "new", "full_name": "Ann"})
        self.assertEqual(answer.fates, ["kept", "dropped"])

    def test_null_and_not_sent_stay_what_they_are(self):
        answer = orders(Shorten, column="phone").insert(id=1, phone=None).delete(id=2).run()
        self.assertEqual(answer.rows, [{"id": 1, "phone": None}, {"id": 2}])

    def test_a_reject_names_its_code(self):
        answer = orders(Shorten, column="phone").insert(id=1, phone="").run()
        self.assertEqual(answer.fates, [("rejected", "phone.empty", "there is nothing to keep")])

    def test_how_rows_are_cut_makes_no_difference(self):
        case = orders(Shorten, column="phone")
        for id in range(20):
            case.insert(id=id, phone="0" * id, status="test" if id % 3 == 0 else None)
        whole = case.run()
        for cut in (1, 7):
            self.assertEqual(case.run(cut), whole)

    def test_a_column_that_can_not_be_read_so_is_refused_before_a_row_flows(self):
        case = Case(Shorten, {"column": "n"}).column("n", "int64")
        with self.assertRaisesRegex(SchemaError, "column n is int64"):
            case.run()

    def test_an_empty_plan_lets_rows_pass(self):
        answer = Case(Shorten, {"column": "absent"}).column("id", "int64").insert(id=1).run()
        self.assertEqual(answer.kept(0), {"id": 1})


class ValueTest(unittest.TestCase):
    def test_every_type_is_read_as_it_was_written(self):
        values = {
            "int64": -(1 << 63), "uint64": (1 << 64) - 1, "boolean": True, "text": "ä€😀", "binary": b"\x00\xff",
            "decimal(10,2)": Decimal("-12.50"), "decimal(38,10)": Decimal("1234567890123456789012345678.0123456789"),
            "decimal": Decimal("-Infinity"), "uuid": uuid.UUID(int=7), "date": Date(INFINITY), "float64": 0.1,
            "timestamp": Timestamp(NEG_INFINITY), "json": millrace.Json.dump({"a": [1, None]}),
        }
        for type, value in values.items():
            out = millrace._columns.Out(millrace.DataType.parse(type), 3)
            for cell in (value, None, NOT_SENT):
                out.append(cell)
            with self.subTest(type):
                self.assertEqual(list(out.column()), [value, None, NOT_SENT])

    def test_what_does_not_fit_is_refused(self):
        for type, value, code in (("int8", 128, "int.overflow"), ("decimal(4,2)", Decimal("123.45"), "decimal.overflow")):
            out = millrace._columns.Out(millrace.DataType.parse(type), 1)
            with self.subTest(type), self.assertRaises(Reject) as raised:
                out.append(value)
            self.assertEqual(raised.exception.code, code)

    def test_values_are_shown_as_in_every_language(self):
        case = Case(Describe).column("d", "decimal(4,-3)").column("t", "timestamp").column("b", "boolean")
        answer = case.insert(d=Decimal(12000), t=Timestamp(INFINITY), b=True).insert(d=Decimal(0), t=None).run()
        self.assertEqual([row["shown"] for row in answer.rows], ["12000;infinity;true", "0;null;not sent"])


class ScaledTest(unittest.TestCase):
    def test_a_decimal_becomes_an_integer_exactly_or_not_at_all(self):
        amounts = {"12.5": 1250, "-0.05": -5, "+7.500": 750, "7.501": None, ".5": 50, "1.": 100, "100": 10000}
        amounts.update(dict.fromkeys(["", "-", ".", "1e3", "1.2.3", "NaN", " 1", "1_0", "\u0661"]))
        for text, cents in amounts.items():
            with self.subTest(text):
                self.assertEqual(millrace.scaled(text, 2), cents)
                if cents is not None:
                    self.assertEqual(millrace.scaled(Decimal(text), 2), cents)
        self.assertEqual([millrace.scaled(text, -3) for text in ("12000", "-1000", "12")], [12, -1, None])
        self.assertEqual([millrace.scaled(text, 0) for text in (".0", "5.0", ".5")], [0, 5, None])


class ValidatorTest(unittest.TestCase):
    def test_rules_judge_values_and_not_what_was_not_sent(self):
        case = Case(Positive).column("total", "decimal(10,2)").column("status", "text")
        case.insert(total=Decimal("-0.01"), status=None).insert(total=None, status="new").delete()
        expected = [(0, "total >= 0", "total is -0.01"), (0, "status there", "status is NULL")]
        self.assertEqual(case.violations(), expected)
        self.assertEqual(case.violations(cut=1), expected)


if __name__ == "__main__":
    unittest.main()
