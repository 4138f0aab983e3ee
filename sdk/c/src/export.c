// The calls of the host: a configured plugin and what it planned, by the host's schema id.
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef struct planned {
    struct planned *next;
    uint32_t id;
    void *plan;
} planned;

static struct {
    bool configured;
    void *plugin; // what `configure` answered
    planned *plans;
} slot;

static void plan_drop(const mr_plugin *plugin, void *plan) {
    if (plugin->is_validator) checks_free(plan);
    else plan_free(plan);
}

void slot_clear(void) {
    for (planned *p = slot.plans, *next; p; p = next) {
        next = p->next;
        plan_drop(&mr_the_plugin, p->plan);
        free(p);
    }
    slot.plans = NULL;
    slot.plugin = NULL;
    slot.configured = false;
}

void slot_configure(const mr_plugin *plugin, mr_text config) {
    slot_clear();
    const char *wrong = NULL;
    bool blank = true;
    for (size_t i = 0; i < config.len; i++) blank &= config.data[i] == ' ' || config.data[i] == '\n';
    const mr_json *json = mr_json_parse(blank ? mr_str("{}") : config, &wrong);
    if (!json) return mr_fail(MR_INVALID_CONFIG, "config: %s", wrong);
    void *(*configure)(const mr_json *) =
        plugin->is_validator ? ((const mr_validator *)plugin->plugin)->configure : ((const mr_transform *)plugin->plugin)->configure;
    slot.plugin = configure ? configure(json) : NULL;
    slot.configured = !mr_failed();
}

void *slot_planned(const mr_plugin *plugin, uint32_t id) {
    (void)plugin;
    for (planned *p = slot.plans; p; p = p->next)
        if (p->id == id) return p->plan;
    mr_fail(MR_BUG, "schema %u was never planned", id);
    return NULL;
}

static void keep(const mr_plugin *plugin, uint32_t id, void *plan) {
    for (planned *p = slot.plans; p; p = p->next)
        if (p->id == id) {
            plan_drop(plugin, p->plan);
            p->plan = plan;
            return;
        }
    planned *added = malloc(sizeof *added);
    if (!added) __builtin_trap();
    *added = (planned){ slot.plans, id, plan };
    slot.plans = added;
}

void *slot_plan(const mr_plugin *plugin, uint32_t id, const mr_schema *schema) {
    if (!slot.configured) return mr_fail(MR_BUG, "called before configure"), NULL;
    bool empty;
    void *plan;
    if (plugin->is_validator) {
        mr_checks *checks = plan = checks_new(schema);
        ((const mr_validator *)plugin->plugin)->plan(slot.plugin, schema, checks);
        empty = checks_are_empty(checks);
    } else {
        mr_plan *made = plan = plan_new(schema);
        ((const mr_transform *)plugin->plugin)->plan(slot.plugin, schema, made);
        empty = plan_is_empty(made);
    }
    if (empty || mr_failed()) return plan_drop(plugin, plan), NULL;
    keep(plugin, id, plan);
    return plan;
}

#ifdef __wasm__
void *mr_wasm_describe(const mr_plugin *plugin) {
    const mr_transform *t = plugin->plugin; // both roles begin alike
    abi_info *info = mr_alloc(sizeof *info);
    *info = (abi_info){ mr_str(t->name), mr_str(t->version), mr_str(t->description), mr_str(t->config_schema), 0, 0, { 0 } };
    return info;
}

void *mr_wasm_configure(const mr_plugin *plugin, const char *json, size_t len) {
    slot_configure(plugin, (mr_text){ json, len });
    abi_unit_result *result = memset(mr_alloc(sizeof *result), 0, sizeof *result);
    if ((result->failed = mr_failed())) result->error = mr_take_error();
    return result;
}

void *mr_wasm_plan(const mr_plugin *plugin, void *arguments) {
    const abi_plan_arguments *given = arguments;
    mr_schema schema = schema_from(&given->schema);
    void *plan = slot_plan(plugin, given->id, &schema);
    // The two results begin alike, and the longer one has room for both.
    abi_transform_plan_result *result = memset(mr_alloc(sizeof *result), 0, sizeof *result);
    if ((result->failed = mr_failed())) {
        result->error = mr_take_error();
    } else if (plan && plugin->is_validator) {
        ((abi_check_plan_result *)result)->plan.some = true;
        ((abi_check_plan_result *)result)->plan.value = checks_answer(plan);
    } else if (plan) {
        result->plan.some = true;
        result->plan.value = plan_answer(plan);
    }
    return result;
}

void *mr_wasm_run(const mr_plugin *plugin, uint32_t schema, uint32_t rows, const uint8_t *changes, const void *given, size_t count) {
    void *plan = slot_planned(plugin, schema);
    abi_outcome_result *result = memset(mr_alloc(sizeof *result), 0, sizeof *result);
    if (plan) {
        mr_column *columns = mr_alloc(count * sizeof *columns);
        for (size_t i = 0; i < count; i++) {
            mr_type type = plugin->is_validator ? checks_read_type(plan, i) : plan_read_type(plan, i);
            columns[i] = column_from(type, rows, (const abi_column *)given + i);
        }
        batch batch = { rows, changes, columns };
        if (plugin->is_validator) ((abi_violations_result *)result)->violations = checks_run(plan, &batch);
        else result->outcome = plan_run(plan, &batch);
    }
    if ((result->failed = mr_failed())) result->error = mr_take_error();
    return result;
}

void mr_wasm_end_call(void) { arena_reset(&mr_call); }
#endif
