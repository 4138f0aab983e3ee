// The stand-in of the host for unit tests: see millrace_testing.h.
#ifndef __wasm__
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "millrace_testing.h"
#include "sha256.h"

typedef struct { mr_fate fate; mr_text code, reason, table, cells; } answer;
typedef struct { const char *name; uint64_t sum; } counter;
typedef struct { uint8_t change; const mr_json *cells; } image;

struct mr_case {
    mr_text config;
    arena_list columns, images, answers, crypto, log, counters, violations; // abi_column_def, image, answer, mr_pair, mr_text, counter, mr_text
    mr_text error;
};

#define AT(type, list, index) ((type *)(list).ptr)[index]
#define PUSH(type, list) (*(type *)arena_push(&tests, &(list), sizeof(type)))

static arena tests; // of the one case
static mr_case *current;

static void die(const char *what, const char *about) {
    fprintf(stderr, "%s: %s\n", what, about);
    exit(2);
}

mr_case *mr_case_new(const char *config) {
    mr_case *c = arena_alloc(&tests, sizeof *c);
    memset(c, 0, sizeof *c);
    c->config = mr_str(config ? config : "{}");
    return current = c;
}

void mr_case_free(mr_case *c) {
    (void)c;
    slot_clear();
    arena_free(&mr_call);
    arena_free(&tests);
    current = NULL;
}

static abi_column_def *column(mr_case *c, const char *name, const char *type) {
    mr_type parsed;
    if (!mr_type_parse(mr_str(type), &parsed)) die("no type", type);
    abi_column_def *added = &PUSH(abi_column_def, c->columns);
    *added = (abi_column_def){ .name = mr_str(name), .type = type_to(parsed), .nullable = true, .source_type = mr_str("") };
    return added;
}

void mr_case_column(mr_case *c, const char *name, const char *type) { column(c, name, type); }

void mr_case_key(mr_case *c, const char *name, const char *type) {
    abi_column_def *added = column(c, name, type);
    added->key = true, added->nullable = false;
}

void mr_case_crypto(mr_case *c, const char *name, const char *material) { PUSH(mr_pair, c->crypto) = (mr_pair){ mr_str(name), mr_str(material) }; }

static void add_image(mr_case *c, mr_change change, const char *row) {
    const char *wrong = "";
    const mr_json *cells = mr_json_parse(mr_str(row), &wrong);
    if (mr_json_kind_of(cells) != MR_JSON_OBJECT) die(row, wrong);
    PUSH(image, c->images) = (image){ (uint8_t)change, cells };
}

void mr_case_insert(mr_case *c, const char *row) { add_image(c, MR_INSERT, row); }
void mr_case_delete(mr_case *c, const char *row) { add_image(c, MR_DELETE, row); }

void mr_case_update(mr_case *c, const char *before, const char *after) {
    if (before) add_image(c, MR_UPDATE_PREIMAGE, before);
    add_image(c, MR_UPDATE_POSTIMAGE, after);
}

// ---- cells <-> JSON

static mr_text render(const mr_json *value);

static void append(mr_text *text, mr_text more) { *text = mr_format("%.*s%.*s", MR_ARGS(*text), MR_ARGS(more)); }

static mr_text quoted(mr_text text) {
    mr_text result = mr_str("\"");
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (c == '"' || c == '\\') append(&result, mr_format("\\%c", c));
        else if ((unsigned char)c < 0x20) append(&result, mr_format("\\u%04x", c));
        else append(&result, (mr_text){ &text.data[i], 1 });
    }
    append(&result, mr_str("\""));
    return result;
}

static mr_text render_members(const mr_json *value, bool named) {
    mr_text result = mr_str(named ? "{" : "[");
    for (size_t i = 0; i < mr_json_len(value); i++) {
        if (i) append(&result, mr_str(","));
        if (named) append(&result, mr_format("%.*s:", MR_ARGS(quoted(mr_json_name(value, i)))));
        append(&result, render(mr_json_at(value, i)));
    }
    append(&result, mr_str(named ? "}" : "]"));
    return result;
}

static mr_text render(const mr_json *value) {
    switch (mr_json_kind_of(value)) {
    case MR_JSON_BOOL: return mr_str(mr_json_bool(value, false) ? "true" : "false");
    case MR_JSON_NUMBER: return mr_json_number_text(value);
    case MR_JSON_TEXT: return quoted(mr_json_text(value, ""));
    case MR_JSON_LIST: return render_members(value, false);
    case MR_JSON_OBJECT: return render_members(value, true);
    case MR_JSON_NULL: break;
    }
    return mr_str("null");
}

static void put(mr_out *out, const mr_json *value) {
    mr_text text = mr_json_text(value, "");
    int64_t number;
    char uuid[16];
    switch (out->type.kind) {
    case MR_BOOLEAN: mr_out_bool(out, mr_json_bool(value, false)); break;
    case MR_FLOAT32: case MR_FLOAT64: mr_out_float(out, mr_json_number(value, 0)); break;
    case MR_DECIMAL64:
        if (!mr_scaled(text, out->type.scale > 0 ? (unsigned)out->type.scale : 0, &number)) die("no decimal", render(value).data);
        for (int i = 0; i > out->type.scale; i--) {
            if (number % 10) die("no decimal of that scale", render(value).data);
            number /= 10;
        }
        mr_out_int(out, number);
        break;
    case MR_UUID:
        if (!mr_uuid_parse(text, uuid)) die("no uuid", render(value).data);
        mr_out_bytes(out, (mr_text){ uuid, 16 });
        break;
    case MR_BINARY: {
        for (size_t i = 0; i + 1 < text.len; i += 2) {
            char digits[3] = { text.data[i], text.data[i + 1], 0 }, byte = (char)strtol(digits, NULL, 16);
            mr_out_bytes(out, (mr_text){ &byte, 1 });
        }
        if (!text.len) mr_out_bytes(out, text);
        break;
    }
    case MR_JSON: mr_out_bytes(out, render(value)); break;
    case MR_TEXT: case MR_DECIMAL: case MR_OTHER: mr_out_bytes(out, text); break;
    default: mr_out_int(out, mr_json_int(value, 0));
    }
}

static mr_text cell_json(mr_cell cell) {
    if (cell.state == MR_NULL) return mr_str("null");
    switch (cell.kind) {
    case MR_DECIMAL64: case MR_DECIMAL: case MR_TEXT: case MR_BINARY: case MR_UUID: case MR_OTHER: return quoted(mr_show(cell));
    case MR_DATE: case MR_TIMESTAMP: case MR_TIMESTAMP_TZ: return mr_format("%lld", (long long)cell.integer);
    default: return mr_show(cell);
    }
}

// ---- running

static batch make_batch(mr_case *c, void *plan, size_t reads, size_t from, size_t rows) {
    uint8_t *changes = mr_alloc(rows);
    for (size_t i = 0; i < rows; i++) changes[i] = AT(image, c->images, from + i).change;
    mr_column *columns = mr_alloc(reads * sizeof *columns);
    abi_u16s indices = mr_the_plugin.is_validator ? checks_answer(plan).reads : plan_answer(plan).reads;
    for (size_t k = 0; k < reads; k++) {
        const abi_column_def *definition = &AT(abi_column_def, c->columns, indices.ptr[k]);
        mr_type type = mr_the_plugin.is_validator ? checks_read_type(plan, k) : plan_read_type(plan, k);
        mr_out out;
        out_start(&out, type, rows, NULL, NULL, NULL);
        for (size_t i = 0; i < rows; i++) {
            const mr_json *value = mr_json_get(AT(image, c->images, from + i).cells, definition->name.data);
            if (!value) mr_out_not_sent(&out);
            else if (mr_json_kind_of(value) != MR_JSON_NULL || type.kind == MR_JSON) put(&out, value);
            out_end_row(&out);
        }
        columns[k] = out_finish(&out);
    }
    return (batch){ rows, changes, columns };
}

static void add_cell(mr_text *row, mr_text name, mr_text value) {
    append(row, mr_format("%s%.*s:%.*s", row->len > 1 ? "," : "", MR_ARGS(quoted(name)), MR_ARGS(value)));
}

// NULL: the plan writes another one, or the cell was not sent.
static void add_written(mr_text *row, const abi_transform_plan *plan, const abi_outcome *outcome, size_t write, size_t at, size_t rows) {
    const abi_column_def *output = &plan->writes.ptr[write].output;
    if (!outcome->columns.ptr[write].some) return;
    abi_column_def columns[1] = { *output };
    abi_schema schema = { .columns = { columns, 1 } };
    mr_type type = schema_from(&schema).columns[0].type;
    mr_column column = column_from(type, rows, &outcome->columns.ptr[write].value);
    mr_cell cell = mr_column_get(&column, at);
    if (cell.state != MR_NOT_SENT) add_cell(row, output->name, cell_json(cell));
}

static mr_text cells_after(mr_case *c, const abi_transform_plan *plan, const abi_outcome *outcome, size_t image_index, size_t at, size_t rows) {
    mr_text row = mr_str("{");
    for (size_t i = 0; i < c->columns.len; i++) {
        mr_text name = AT(abi_column_def, c->columns, i).name;
        const mr_json *value = mr_json_get(AT(image, c->images, image_index).cells, name.data);
        bool gone = false;
        for (size_t k = 0; plan && k < plan->drops.len; k++) gone |= plan->drops.ptr[k] == i;
        for (size_t k = 0; plan && k < plan->writes.len; k++)
            if (plan->writes.ptr[k].replaces.some && plan->writes.ptr[k].replaces.value == i) {
                add_written(&row, plan, outcome, k, at, rows);
                gone = true;
            }
        for (size_t k = 0; plan && k < plan->renames.len; k++)
            if (plan->renames.ptr[k].column == i) name = plan->renames.ptr[k].to;
        if (!gone && value) add_cell(&row, name, render(value));
    }
    for (size_t k = 0; plan && k < plan->writes.len; k++)
        if (!plan->writes.ptr[k].replaces.some) add_written(&row, plan, outcome, k, at, rows);
    append(&row, mr_str("}"));
    return row;
}

static void add_answers(mr_case *c, const abi_transform_plan *plan, const abi_outcome *outcome, size_t from, size_t rows) {
    for (size_t at = 0; at < rows; at++) {
        answer a = { .fate = MR_KEPT, .code = mr_str(""), .reason = mr_str(""), .table = mr_str("t") };
        if (plan && plan->rename_table.some) a.table = plan->rename_table.value;
        if (plan && outcome->routing.some) {
            mr_text to = outcome->routing.value.names.ptr[outcome->routing.value.by_row.ptr[at]];
            if (to.len) a.table = to;
        }
        if (plan && outcome->fates.some && outcome->fates.value.ptr[at]) a.fate = MR_DROPPED;
        for (size_t i = plan ? outcome->rejects.len : 0; i-- > 0;)
            if (outcome->rejects.ptr[i].row == at) a.fate = MR_REJECTED, a.code = outcome->rejects.ptr[i].code, a.reason = outcome->rejects.ptr[i].reason;
        a.cells = cells_after(c, plan, outcome, from + at, at, rows);
        // The call's memory stays until the case is freed.
        PUSH(answer, c->answers) = a;
    }
}

static bool failed(mr_case *c) {
    if (!mr_failed()) return false;
    static const char *const KINDS[] = { "retry later", "unsupported schema", "invalid config", "bug" };
    c->error = mr_format("%s: %.*s", KINDS[mr_error.kind], MR_ARGS(mr_error.message));
    mr_error = (call_error){ 0 };
    return true;
}

bool mr_case_run(mr_case *c, size_t cut) {
    c->answers.len = c->violations.len = c->log.len = c->counters.len = 0;
    slot_configure(&mr_the_plugin, c->config);
    if (failed(c)) return false;
    abi_schema table = { mr_str("test"), mr_str("public"), mr_str("t"), { 0 }, 2, { 0 }, { c->columns.ptr, c->columns.len } };
    mr_schema schema = schema_from(&table);
    void *plan = slot_plan(&mr_the_plugin, 1, &schema);
    if (failed(c)) return false;
    for (size_t from = 0, rows; from < c->images.len; from += rows) {
        rows = cut && cut < c->images.len - from ? cut : c->images.len - from;
        if (!plan) {
            add_answers(c, NULL, NULL, from, rows);
        } else if (mr_the_plugin.is_validator) {
            abi_check_plan answer = checks_answer(plan);
            batch batch = make_batch(c, plan, answer.reads.len, from, rows);
            abi_violations found = checks_run(plan, &batch);
            for (size_t i = 0; i < found.len; i++)
                PUSH(mr_text, c->violations) =
                    mr_format("%zu: %.*s: %.*s", from + found.ptr[i].row, MR_ARGS(answer.rules.ptr[found.ptr[i].rule].name), MR_ARGS(found.ptr[i].message));
        } else {
            abi_transform_plan answer = plan_answer(plan);
            batch batch = make_batch(c, plan, answer.reads.len, from, rows);
            abi_outcome outcome = plan_run(plan, &batch);
            if (!mr_failed()) add_answers(c, &answer, &outcome, from, rows);
        }
        if (failed(c)) return false;
    }
    return true;
}

const char *mr_case_error(const mr_case *c) { return c->error.data ? c->error.data : ""; }

static const answer *at(const mr_case *c, size_t row) {
    if (row >= c->answers.len) die("no answer for row", mr_format("%zu", row).data);
    return &AT(answer, c->answers, row);
}

mr_fate mr_case_fate(const mr_case *c, size_t row) { return at(c, row)->fate; }
const char *mr_case_code(const mr_case *c, size_t row) { return at(c, row)->code.data; }
const char *mr_case_reason(const mr_case *c, size_t row) { return at(c, row)->reason.data; }
const char *mr_case_table(const mr_case *c, size_t row) { return at(c, row)->table.data; }
const char *mr_case_row(const mr_case *c, size_t row) { return at(c, row)->cells.data; }

static const char *lines(const arena_list *texts) {
    mr_text all = mr_str("");
    for (size_t i = 0; i < texts->len; i++) append(&all, mr_format("%.*s\n", MR_ARGS(AT(mr_text, *texts, i))));
    return all.data;
}

const char *mr_case_violations(const mr_case *c) { return lines(&c->violations); }
const char *mr_case_log(const mr_case *c) { return lines(&c->log); }

const char *mr_case_counters(const mr_case *c) {
    mr_text all = mr_str("");
    for (size_t i = 0; i < c->counters.len; i++)
        append(&all, mr_format("%s %llu\n", AT(counter, c->counters, i).name, (unsigned long long)AT(counter, c->counters, i).sum));
    return all.data;
}

// ---- what the host offers

uint32_t mr_host_threshold(void) { return MR_TRACE; }

void mr_host_write(uint32_t level, const char *message, size_t len, const mr_pair *fields, size_t fields_len) {
    (void)fields, (void)fields_len;
    static const char *const LEVELS[] = { "trace", "debug", "info", "warn", "error" };
    if (current) PUSH(mr_text, current->log) = mr_format("%s %.*s", LEVELS[level], (int)len, message);
}

void mr_host_count(const char *name, size_t len, const mr_pair *labels, size_t labels_len, uint64_t add) {
    (void)labels, (void)labels_len;
    for (size_t i = 0; current && i < current->counters.len; i++)
        if (!strcmp(AT(counter, current->counters, i).name, name)) {
            AT(counter, current->counters, i).sum += add;
            return;
        }
    if (current) PUSH(counter, current->counters) = (counter){ arena_copy(&tests, (mr_text){ name, len }).data, add };
}

void mr_host_observe(const char *name, size_t len, const mr_pair *labels, size_t labels_len, double value) {
    (void)name, (void)len, (void)labels, (void)labels_len, (void)value;
}

bool mr_host_hmac_cell(const char *key, mr_text cell, uint8_t digest[32]) {
    for (size_t i = 0; current && i < current->crypto.len; i++) {
        mr_pair known = AT(mr_pair, current->crypto, i);
        if (mr_equals(known.name, key)) return hmac_sha256((const uint8_t *)known.value.data, known.value.len, (const uint8_t *)cell.data, cell.len, digest), true;
    }
    return false;
}
#endif
