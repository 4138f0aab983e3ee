// The plugin of the SDK's own tests: does by its config what a test wants to see.

#include "millrace.h"

static bool has_value(mr_cell cell, void *with) { return (void)with, cell.state == MR_VALUE; }
static mr_text by_region(mr_cell region, void *with) { return (void)with, mr_format("orders_%.*s", MR_ARGS(region.bytes)); }
static void twice(mr_cell value, mr_out *out, void *with) { (void)with, mr_out_int(out, 2 * value.integer); }
static void as_text(mr_cell value, mr_out *out, void *with) { (void)with, mr_out_bytes(out, mr_show(value)); }

static mr_column hashed(const mr_column *column, void *with) {
    mr_column hashes = mr_hmac_sha256(with, column);
    return mr_hex(&hashes);
}

static void sum(mr_row *row, void *with) {
    (void)with;
    mr_cell a = mr_row_get(row, 0), b = mr_row_get(row, 1);
    if (a.state == MR_VALUE && a.integer < 0) return mr_row_reject(row, "sum.negative", "%lld is below zero", (long long)a.integer);
    if (a.state == MR_VALUE && b.state == MR_VALUE) mr_out_int(mr_row_out(row, 0), a.integer + b.integer);
    mr_count("rows", NULL, 0, 1);
}

static void *configure(const mr_json *config) {
    if (!mr_json_get(config, "do")) mr_fail(MR_INVALID_CONFIG, "config.do is absent");
    return mr_json_copy(mr_json_get(config, "do"), "");
}

static void plan(void *plugin, const mr_schema *schema, mr_plan *plan) {
    (void)schema;
    mr_text what = mr_str(plugin);
    if (mr_equals(what, "filter")) mr_filter_cells(plan, "a", MR_ANY_VIEW, has_value, NULL);
    if (mr_equals(what, "route")) mr_route(plan, "region", MR_TEXT_VIEW, by_region, NULL);
    if (mr_equals(what, "twice")) mr_map(plan, "a", MR_INT_VIEW, twice, NULL);
    if (mr_equals(what, "text")) mr_convert(plan, "a", mr_type_of(MR_TEXT), MR_ANY_VIEW, as_text, NULL);
    if (mr_equals(what, "hash")) mr_map_column(plan, "a", mr_type_of(MR_TEXT), hashed, "pii");
    if (mr_equals(what, "sum")) {
        mr_read(plan, "a");
        mr_read(plan, "b");
        mr_add_column(plan, "sum", mr_type_of(MR_INT8));
        mr_each_row(plan, sum, NULL);
    }
}

static const mr_transform tested = { "tested", "0.1.0", "", "", configure, plan };
MR_TRANSFORM(tested)
