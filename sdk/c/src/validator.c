// The role `validator`: named rules, and verdicts. It cannot change data.
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef struct check {
    uint16_t rule;
    const char *column; // NULL: the rule is on rows
    size_t slot;
    bool nulls;
    mr_judge judge;
    void (*judge_row)(const mr_row *, mr_verdict *, void *);
    int *inputs;
    size_t inputs_len;
    void *with;
} check;

struct mr_checks {
    arena arena;
    mr_schema schema;
    arena_list reads, rules, checks; // uint16_t, abi_rule, check
};

struct mr_verdict {
    arena_list *violations; // abi_violation
    const check *check;
    uint32_t row;
    bool said;
};

#define AT(type, list, index) ((type *)(list).ptr)[index]

mr_checks *checks_new(const mr_schema *schema) {
    mr_checks *checks = calloc(1, sizeof *checks);
    if (!checks) __builtin_trap();
    checks->schema = schema_keep(&checks->arena, schema);
    return checks;
}

void checks_free(mr_checks *checks) {
    if (!checks) return;
    arena_free(&checks->arena);
    free(checks);
}

bool checks_are_empty(const mr_checks *checks) { return !checks->rules.len; }

static size_t read_index(mr_checks *checks, int index) {
    for (size_t i = 0; i < checks->reads.len; i++)
        if (AT(uint16_t, checks->reads, i) == index) return i;
    *(uint16_t *)arena_push(&checks->arena, &checks->reads, sizeof(uint16_t)) = (uint16_t)index;
    return checks->reads.len - 1;
}

static check *add(mr_checks *checks, const char *rule, mr_severity severity, const int *columns, size_t len) {
    uint16_t *named = arena_alloc(&checks->arena, len * sizeof *named);
    for (size_t i = 0; i < len; i++) named[i] = (uint16_t)columns[i];
    abi_rule *added = arena_push(&checks->arena, &checks->rules, sizeof *added);
    added->name = arena_copy(&checks->arena, mr_str(rule));
    added->severity = (uint8_t)severity;
    added->columns = (abi_u16s){ named, len };
    check *check = arena_push(&checks->arena, &checks->checks, sizeof *check);
    check->rule = (uint16_t)(checks->rules.len - 1);
    return check;
}

static check *on_column(mr_checks *checks, const char *rule, const char *column, mr_severity severity, mr_view view) {
    int index = schema_index(&checks->schema, column);
    if (index < 0) return NULL;
    must_be_readable(&checks->schema.columns[index], view, rule);
    check *check = add(checks, rule, severity, &index, 1);
    check->slot = read_index(checks, index);
    check->column = checks->schema.columns[index].name.data;
    return check;
}

static void required(mr_cell cell, mr_verdict *verdict, void *with) {
    (void)with;
    if (cell.state == MR_NULL) mr_violation(verdict, "is NULL");
}

void mr_required(mr_checks *checks, const char *rule, const char *column, mr_severity severity) {
    mr_check_cells(checks, rule, column, severity, MR_ANY_VIEW, required, NULL);
}

void mr_check(mr_checks *checks, const char *rule, const char *column, mr_severity severity, mr_view view, mr_judge judge, void *with) {
    check *check = on_column(checks, rule, column, severity, view);
    if (check) check->judge = judge, check->with = with;
}

void mr_check_cells(mr_checks *checks, const char *rule, const char *column, mr_severity severity, mr_view view, mr_judge judge, void *with) {
    check *check = on_column(checks, rule, column, severity, view);
    if (check) check->judge = judge, check->with = with, check->nulls = true;
}

void mr_check_rows(mr_checks *checks, const char *rule, const char *const *columns, size_t len, mr_severity severity,
                   void (*judge)(const mr_row *, mr_verdict *, void *), void *with) {
    int *indices = arena_alloc(&checks->arena, len * sizeof *indices);
    for (size_t i = 0; i < len; i++)
        if ((indices[i] = schema_index(&checks->schema, columns[i])) < 0) return;
    check *check = add(checks, rule, severity, indices, len);
    for (size_t i = 0; i < len; i++) indices[i] = (int)read_index(checks, indices[i]);
    check->judge_row = judge, check->with = with, check->inputs = indices, check->inputs_len = len;
}

void mr_violation(mr_verdict *verdict, const char *format, ...) {
    if (verdict->said) return;
    va_list arguments;
    va_start(arguments, format);
    mr_text message = mr_vformat(format, arguments);
    va_end(arguments);
    if (verdict->check->column) message = mr_format("%s %.*s", verdict->check->column, MR_ARGS(message));
    abi_violation *violation = arena_push(&mr_call, verdict->violations, sizeof *violation);
    *violation = (abi_violation){ verdict->row, verdict->check->rule, message };
    verdict->said = true;
}

abi_check_plan checks_answer(const mr_checks *checks) {
    return (abi_check_plan){ .reads = { checks->reads.ptr, checks->reads.len }, .rules = { checks->rules.ptr, checks->rules.len } };
}

mr_type checks_read_type(const mr_checks *checks, size_t slot) { return checks->schema.columns[AT(uint16_t, checks->reads, slot)].type; }

static bool all_sent(const check *check, const batch *batch, size_t row) {
    for (size_t i = 0; i < check->inputs_len; i++)
        if (mr_column_state(&batch->columns[check->inputs[i]], row) == MR_NOT_SENT) return false;
    return true;
}

static void judge(const check *check, const batch *batch, size_t index, mr_verdict *verdict) {
    if (check->judge_row) {
        mr_row row = { batch, index, check->inputs, NULL, NULL, false };
        if (all_sent(check, batch, index)) check->judge_row(&row, verdict, check->with);
        return;
    }
    const mr_column *column = &batch->columns[check->slot];
    mr_state state = mr_column_state(column, index);
    if (state == MR_VALUE || (state == MR_NULL && check->nulls)) check->judge(mr_column_get(column, index), verdict, check->with);
}

// The first violation of a row gives the reason: rows in order, rules in the order of the plan.
static int by_row(const void *a, const void *b) {
    const abi_violation *one = a, *other = b;
    if (one->row != other->row) return one->row < other->row ? -1 : 1;
    return (one->rule > other->rule) - (one->rule < other->rule);
}

abi_violations checks_run(const mr_checks *checks, const batch *batch) {
    arena_list violations = { 0 };
    for (size_t i = 0; i < checks->checks.len; i++) {
        const struct check *check = &AT(struct check, checks->checks, i);
        for (size_t row = 0; row < batch->rows && !mr_failed(); row++) {
            mr_verdict verdict = { &violations, check, (uint32_t)row, false };
            judge(check, batch, row, &verdict);
        }
    }
    if (violations.len) qsort(violations.ptr, violations.len, sizeof(abi_violation), by_row);
    return (abi_violations){ violations.ptr, violations.len };
}
