// The conformance kit's validator, by the C SDK from C++. ../README.md says what each kind of rule does.

#include <string_view>

#include "millrace.h"

namespace {

struct Rule {
    char *name;
    char *column;
    char *value;
    const char *const *columns;
    size_t columns_len;
    mr_severity severity;
    enum Kind { REQUIRED, NOT, THROW, DIFFER } kind;
};

struct Kit {
    Rule *rules;
    size_t len;
};

std::string_view view(mr_text text) { return { text.data, text.len }; }

Rule::Kind kind_of(std::string_view name) {
    if (name == "required") return Rule::REQUIRED;
    if (name == "not") return Rule::NOT;
    if (name == "throw") return Rule::THROW;
    if (name != "differ") mr_fail(MR_INVALID_CONFIG, "there is no kind %.*s", (int)name.size(), name.data());
    return Rule::DIFFER;
}

mr_severity severity_of(std::string_view name) { return name == "warn" ? MR_WARN : name == "quarantine" ? MR_QUARANTINE : MR_REJECT; }

// What lives as long as the plugin.
template <typename T> T *list(size_t len) { return static_cast<T *>(__builtin_malloc((len + 1) * sizeof(T))); }

void *configure(const mr_json *config) {
    const mr_json *rules = mr_json_get(config, "rules");
    Kit *kit = list<Kit>(1);
    *kit = { list<Rule>(mr_json_len(rules)), mr_json_len(rules) };
    for (size_t i = 0; i < kit->len; i++) {
        const mr_json *rule = mr_json_at(rules, i), *columns = mr_json_get(rule, "columns");
        auto text = [rule](const char *name) { return mr_json_copy(mr_json_get(rule, name), ""); };
        const char **named = list<const char *>(mr_json_len(columns));
        for (size_t k = 0; k < mr_json_len(columns); k++) named[k] = mr_json_copy(mr_json_at(columns, k), "");
        kit->rules[i] = { text("name"), text("column"), text("value"), named, mr_json_len(columns),
                          severity_of(view(mr_json_text(mr_json_get(rule, "severity"), ""))),
                          kind_of(view(mr_json_text(mr_json_get(rule, "kind"), ""))) };
    }
    return kit;
}

void judge(mr_cell cell, mr_verdict *verdict, void *with) {
    const Rule *rule = static_cast<const Rule *>(with);
    if (view(cell.bytes) != rule->value) return;
    if (rule->kind == Rule::THROW) mr_fail(MR_BUG, "thrown on purpose");
    else mr_violation(verdict, "is %.*s", MR_ARGS(cell.bytes));
}

void differ(const mr_row *row, mr_verdict *verdict, void *with) {
    const Rule *rule = static_cast<const Rule *>(with);
    mr_cell a = mr_row_get(row, 0), b = mr_row_get(row, 1);
    if (a.state == MR_VALUE && b.state == MR_VALUE && view(a.bytes) == view(b.bytes))
        mr_violation(verdict, "%s and %s are both %.*s", rule->columns[0], rule->columns[1], MR_ARGS(a.bytes));
}

void plan(void *plugin, const mr_schema *, mr_checks *checks) {
    Kit *kit = static_cast<Kit *>(plugin);
    for (size_t i = 0; i < kit->len; i++) {
        Rule *rule = &kit->rules[i];
        if (rule->kind == Rule::REQUIRED) mr_required(checks, rule->name, rule->column, rule->severity);
        else if (rule->kind == Rule::DIFFER) mr_check_rows(checks, rule->name, rule->columns, rule->columns_len, rule->severity, differ, rule);
        else mr_check(checks, rule->name, rule->column, rule->severity, MR_TEXT_VIEW, judge, rule);
    }
}

const mr_validator conformance = {
    .name = "conformance-validator",
    .version = "0.1.0",
    .description = "The conformance kit's plugin, by the C SDK from C++",
    .config_schema = "",
    .configure = configure,
    .plan = plan,
};

} // namespace

MR_VALIDATOR(conformance)
