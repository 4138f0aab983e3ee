// The conformance kit's transform, by the C SDK. ../README.md says what each operation does.

#include <stdlib.h>
#include <string.h>

#include "millrace.h"

typedef struct kit kit;
typedef struct {
    const char *name;
    void (*plan)(kit *kit, const mr_schema *schema, mr_plan *plan);
    bool on_column; // nothing is planned where the column is not there
} operation;

struct kit {
    const operation *operation;
    char *column, *to, *not, *value, *name, *type, *key;
    // For the row views.
    size_t columns;
    int *inputs, *outputs;
};

static bool is_data(const mr_column_def *column) { return !mr_equals(column->name, "id"); }

// A column's name as a C string that lives as long as the plugin.
static const char *name_of(const mr_column_def *column) {
    char *name = malloc(column->name.len + 1);
    memcpy(name, column->name.data, column->name.len);
    name[column->name.len] = 0;
    return name;
}

static bool is_value(mr_cell cell, mr_kind kind) { return cell.state == MR_VALUE && cell.kind == kind; }

static void pass(kit *kit, const mr_schema *schema, mr_plan *plan) { (void)kit, (void)schema, (void)plan; }

static void copy_row(mr_row *row, void *with) {
    const kit *k = with;
    for (size_t i = 0; i < k->columns; i++) mr_out_cell(mr_row_out(row, k->outputs[i]), mr_row_get(row, k->inputs[i]));
}

// Each schema is planned with inputs and outputs of its own, which live as long as the plugin.
static kit *with_rows(const kit *k, const mr_schema *schema) {
    kit *own = malloc(sizeof *own);
    *own = *k;
    own->columns = 0;
    own->inputs = malloc((schema->columns_len + 1) * sizeof(int));
    own->outputs = malloc((schema->columns_len + 1) * sizeof(int));
    return own;
}

static void copy(kit *k, const mr_schema *schema, mr_plan *plan) {
    kit *own = with_rows(k, schema);
    for (size_t i = 0; i < schema->columns_len; i++) {
        const mr_column_def *column = &schema->columns[i];
        if (!is_data(column)) continue;
        own->inputs[own->columns] = mr_read(plan, name_of(column));
        own->outputs[own->columns++] = mr_write(plan, name_of(column), column->type);
    }
    mr_each_row(plan, copy_row, own);
}

static void copy_cell(mr_cell value, mr_out *out, void *with) {
    (void)with;
    mr_out_cell(out, value);
}

static void copy_columns(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)k;
    for (size_t i = 0; i < schema->columns_len; i++)
        if (is_data(&schema->columns[i])) mr_map(plan, name_of(&schema->columns[i]), MR_ANY_VIEW, copy_cell, NULL);
}

static void show_row(mr_row *row, void *with) {
    const kit *k = with;
    mr_out *shown = mr_row_out(row, 0);
    mr_out_str(shown, "");
    for (size_t i = 0; i < k->columns; i++) {
        if (i) mr_out_str(shown, ";");
        mr_out_bytes(shown, mr_show(mr_row_get(row, k->inputs[i])));
    }
}

static void show(kit *k, const mr_schema *schema, mr_plan *plan) {
    kit *own = with_rows(k, schema);
    for (size_t i = 0; i < schema->columns_len; i++)
        if (is_data(&schema->columns[i])) own->inputs[own->columns++] = mr_read(plan, name_of(&schema->columns[i]));
    mr_add_column(plan, "shown", mr_type_of(MR_TEXT));
    mr_each_row(plan, show_row, own);
}

static void kind_row(mr_row *row, void *with) {
    (void)with;
    mr_out_str(mr_row_out(row, 0), mr_change_name(mr_row_change(row)));
}

static void kinds(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)k, (void)schema;
    mr_add_column(plan, "kind", mr_type_of(MR_TEXT));
    mr_each_row(plan, kind_row, NULL);
}

static void drop(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, mr_drop_column(plan, k->column); }
static void rename_column(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, mr_rename(plan, k->column, k->to); }
static void rename_table(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, mr_rename_table(plan, k->to); }

static mr_type type_named(const char *name) {
    mr_type type = mr_type_of(MR_TEXT);
    if (!mr_type_parse(mr_str(name), &type)) mr_fail(MR_INVALID_CONFIG, "no type %s", name);
    return type;
}

static void add_row(mr_row *row, void *with) {
    const kit *k = with;
    if (k->value) mr_out_str(mr_row_out(row, 0), k->value);
}

static void add(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)schema;
    mr_add_column(plan, k->name, type_named(k->type));
    mr_each_row(plan, add_row, k);
}

static void show_cell(mr_cell value, mr_out *out, void *with) {
    (void)with;
    mr_out_bytes(out, mr_show(value));
}

static void cast(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)schema;
    mr_convert(plan, k->column, type_named(k->to), MR_ANY_VIEW, show_cell, NULL);
}

static void cents_cell(mr_cell amount, mr_out *out, void *with) {
    (void)with;
    int64_t cents;
    if (mr_scaled(amount.bytes, 2, &cents)) mr_out_int(out, cents);
    else mr_out_reject(out, "decimal.parse", "\"%.*s\" is no amount", MR_ARGS(amount.bytes));
}

static void cents(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)schema;
    mr_convert(plan, k->column, mr_type_of(MR_INT64), MR_TEXT_VIEW, cents_cell, NULL);
}

static void increase_row(mr_row *row, void *with) {
    (void)with;
    mr_cell cell = mr_row_get(row, 0);
    mr_out *out = mr_row_out(row, 0);
    int64_t more;
    if (cell.state != MR_VALUE) mr_out_cell(out, cell);
    else if (__builtin_add_overflow(cell.integer, 1, &more)) mr_row_reject(row, "int.overflow", "%lld is the greatest", (long long)cell.integer);
    else mr_out_int(out, more);
}

static void increase(kit *k, const mr_schema *schema, mr_plan *plan) {
    mr_read(plan, k->column);
    mr_write(plan, k->column, mr_schema_column(schema, k->column)->type);
    mr_each_row(plan, increase_row, NULL);
}

static bool is_not(mr_cell text, void *not) { return !mr_equals(text.bytes, not); }
static bool has_value(mr_cell cell, void *with) { return (void)with, cell.state == MR_VALUE; }

static void filter(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, mr_filter(plan, k->column, MR_TEXT_VIEW, is_not, k->not); }

static void filter_null(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)schema;
    mr_filter_cells(plan, k->column, MR_TEXT_VIEW, has_value, NULL);
}

static mr_text to_table(mr_cell text, void *with) { return (void)with, mr_format("to_%.*s", MR_ARGS(text.bytes)); }

static void route(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, mr_route(plan, k->column, MR_TEXT_VIEW, to_table, NULL); }

// The row views on the text of one column.
static void each_row_of(kit *k, mr_plan *plan, void (*each)(mr_row *, void *)) {
    mr_read(plan, k->column);
    mr_each_row(plan, each, k);
}

static void filter_row(mr_row *row, void *with) {
    const kit *k = with;
    mr_cell cell = mr_row_get(row, 0);
    if (is_value(cell, MR_TEXT) && mr_equals(cell.bytes, k->not)) mr_row_drop(row);
}
static void filter_rows(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, mr_may_drop(plan), each_row_of(k, plan, filter_row); }

static void route_row(mr_row *row, void *with) {
    (void)with;
    mr_cell cell = mr_row_get(row, 0);
    if (is_value(cell, MR_TEXT)) mr_row_route(row, to_table(cell, NULL));
}
static void route_rows(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, mr_may_route(plan), each_row_of(k, plan, route_row); }

static void reject_row(mr_row *row, void *with) {
    const kit *k = with;
    mr_cell cell = mr_row_get(row, 0);
    if (is_value(cell, MR_TEXT) && k->value && mr_equals(cell.bytes, k->value)) mr_row_reject(row, "kit.refused", "not this one");
}
static void reject_rows(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, each_row_of(k, plan, reject_row); }

static void log_row(mr_row *row, void *with) {
    (void)with;
    mr_cell cell = mr_row_get(row, 0);
    if (is_value(cell, MR_TEXT)) mr_log(MR_INFO, "saw %.*s", MR_ARGS(cell.bytes));
}
static void log_rows(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, each_row_of(k, plan, log_row); }

static volatile unsigned long turns;

__attribute__((noinline)) static unsigned long recurse(unsigned long depth) {
    volatile unsigned long frame[64] = { depth };
    return depth == turns ? 0 : recurse(depth + 1) + frame[depth % 64];
}

static void fail_row(mr_row *row, void *with) {
    (void)with;
    mr_cell cell = mr_row_get(row, 0);
    if (!is_value(cell, MR_TEXT)) return;
    if (mr_equals(cell.bytes, "throw")) mr_fail(MR_BUG, "thrown on purpose");
    if (mr_equals(cell.bytes, "spin"))
        for (;;) turns++;
    if (mr_equals(cell.bytes, "memory"))
        for (;;) memset(mr_alloc(1 << 20), 1, 1 << 20);
    if (mr_equals(cell.bytes, "recursion")) turns = ~0UL, recurse(0);
}
static void fail(kit *k, const mr_schema *schema, mr_plan *plan) { (void)schema, each_row_of(k, plan, fail_row); }

static mr_column hash_column(const mr_column *column, void *key) {
    mr_column hashes = mr_hmac_sha256(key, column);
    return mr_hex(&hashes);
}
static void hash(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)schema;
    mr_map_column(plan, k->column, mr_type_of(MR_TEXT), hash_column, k->key);
}

static void later(const mr_column *column, void *with) { (void)column, (void)with, mr_retry(5, "not now"); }
static void retry(kit *k, const mr_schema *schema, mr_plan *plan) { (void)k, (void)schema, mr_inspect(plan, "id", later, NULL); }

static void refuse_plan(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)k, (void)schema, (void)plan;
    mr_fail(MR_UNSUPPORTED_SCHEMA, "the kit refuses this table");
}
static void throw_in_plan(kit *k, const mr_schema *schema, mr_plan *plan) {
    (void)k, (void)schema, (void)plan;
    mr_fail(MR_BUG, "thrown on purpose");
}

static const operation OPERATIONS[] = {
    { "pass", pass, false }, { "copy", copy, false }, { "copy-columns", copy_columns, false }, { "show", show, false },
    { "kinds", kinds, false }, { "drop", drop, true }, { "rename", rename_column, true }, { "rename-table", rename_table, false },
    { "add", add, false }, { "cast", cast, true }, { "cents", cents, true }, { "increase", increase, true },
    { "filter", filter, true }, { "filter-null", filter_null, true }, { "filter-rows", filter_rows, true }, { "route", route, true },
    { "route-rows", route_rows, true }, { "reject-rows", reject_rows, true }, { "hash", hash, true }, { "log", log_rows, true },
    { "fail", fail, true }, { "retry", retry, false }, { "refuse-config", pass, false }, { "throw-in-configure", pass, false },
    { "refuse-plan", refuse_plan, false }, { "throw-in-plan", throw_in_plan, false },
};

static void *configure(const mr_json *config) {
    mr_text op = mr_json_text(mr_json_get(config, "op"), "");
    if (mr_equals(op, "refuse-config")) mr_fail(MR_INVALID_CONFIG, "the kit refuses this config");
    if (mr_equals(op, "throw-in-configure")) mr_fail(MR_BUG, "thrown on purpose");
    kit *k = calloc(1, sizeof *k);
    for (size_t i = 0; i < sizeof OPERATIONS / sizeof *OPERATIONS; i++)
        if (mr_equals(op, OPERATIONS[i].name)) k->operation = &OPERATIONS[i];
    if (!k->operation) mr_fail(MR_INVALID_CONFIG, "there is no operation %.*s", MR_ARGS(op));
    k->column = mr_json_copy(mr_json_get(config, "column"), "");
    k->to = mr_json_copy(mr_json_get(config, "to"), "");
    k->not = mr_json_copy(mr_json_get(config, "not"), "");
    k->name = mr_json_copy(mr_json_get(config, "name"), "");
    k->type = mr_json_copy(mr_json_get(config, "type"), "");
    k->key = mr_json_copy(mr_json_get(config, "key"), "");
    if (mr_json_kind_of(mr_json_get(config, "value")) == MR_JSON_TEXT) k->value = mr_json_copy(mr_json_get(config, "value"), "");
    return k;
}

static void plan(void *plugin, const mr_schema *schema, mr_plan *plan) {
    kit *k = plugin;
    if (!k->operation->on_column || mr_schema_column(schema, k->column)) k->operation->plan(k, schema, plan);
}

static const mr_transform conformance = {
    .name = "conformance",
    .version = "0.1.0",
    .description = "The conformance kit's plugin, by the C SDK",
    .config_schema = "{\"type\":\"object\",\"required\":[\"op\"],\"properties\":{\"op\":{\"type\":\"string\"}}}",
    .configure = configure,
    .plan = plan,
};
MR_TRANSFORM(conformance)
