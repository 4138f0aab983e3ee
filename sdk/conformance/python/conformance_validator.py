"""The conformance kit's validator, by the Python SDK. ../README.md says what each kind of rule does."""

import millrace
from millrace import ConfigError


@millrace.plugin("conformance-validator", "0.1.0", "The conformance kit's plugin, by the Python SDK")
class Kit(millrace.Validator):
    def configure(self, config):
        self.rules = config["rules"]
        for rule in self.rules:
            if rule["kind"] not in ("required", "not", "throw", "differ"):
                raise ConfigError(f"there is no kind {rule['kind']}")

    def plan(self, schema, plan):
        for rule in self.rules:
            name, severity, column = rule["name"], rule["severity"], rule.get("column")
            if rule["kind"] == "required":
                plan.required(name, column, severity)
            elif rule["kind"] == "differ":
                plan.check_rows(name, rule["columns"], differ(rule["columns"]), severity)
            else:
                plan.check(name, column, judge(rule["kind"], rule["value"]), severity, read=str)


def differ(columns):
    def both(row):
        a, b = (row[column] for column in columns)
        return f"{' and '.join(columns)} are both {a}" if a is not None and a == b else None

    return both


def judge(kind, unwanted):
    def wrong(text):
        if text != unwanted:
            return None
        if kind == "throw":
            raise RuntimeError("thrown on purpose")
        return f"is {text}"

    return wrong
