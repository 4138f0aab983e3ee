// Types, columns and tables, between the contract's form and the SDK's.
#include <stdlib.h>
#include <string.h>

#include "internal.h"

// By mr_kind. The two decimals share a name: the precision tells them apart.
static const char *const NAMES[] = { "boolean", "int8",   "int16", "int32", "int64", "uint64", "float32",   "float64",      "decimal", "decimal",
                                     "text",    "binary", "uuid",  "date",  "time",  "timestamp", "timestamp-tz", "json" };
enum { NAMED = sizeof NAMES / sizeof *NAMES };

mr_type mr_type_of(mr_kind kind) { return (mr_type){ .kind = kind }; }

static bool number(mr_text *text, long *value) {
    char *end, digits[8] = { 0 };
    if (text->len >= sizeof digits || !text->len) return false;
    memcpy(digits, text->data, text->len);
    *value = strtol(digits, &end, 10);
    return end != digits && (*end == 0 || *end == ' ');
}

static bool decimal(mr_text name, mr_type *type) {
    if (mr_equals(name, "decimal")) return *type = mr_type_of(MR_DECIMAL), true;
    const char *comma = memchr(name.data, ',', name.len);
    if (name.len < 11 || memcmp(name.data, "decimal(", 8) || name.data[name.len - 1] != ')' || !comma) return false;
    mr_text before = { name.data + 8, (size_t)(comma - name.data) - 8 };
    mr_text after = { comma + 1, (size_t)(name.data + name.len - 1 - comma - 1) };
    while (after.len && *after.data == ' ') after.data++, after.len--;
    long precision, scale;
    if (!number(&before, &precision) || !number(&after, &scale) || precision < 1 || precision > 255 || scale < -128 || scale > 127) return false;
    *type = (mr_type){ precision <= 18 ? MR_DECIMAL64 : MR_DECIMAL, (uint8_t)precision, (int8_t)scale, { 0 } };
    return true;
}

bool mr_type_parse(mr_text name, mr_type *type) {
    if (name.len > 7 && !memcmp(name.data, "other(", 6)) {
        *type = (mr_type){ .kind = MR_OTHER, .other = { name.data + 6, name.len - 7 } };
        return true;
    }
    if (decimal(name, type)) return true;
    if (mr_equals(name, "bool")) name = mr_str("boolean");
    if (mr_equals(name, "timestamp_tz")) name = mr_str("timestamp-tz");
    for (int kind = 0; kind < NAMED; kind++)
        if (kind != MR_DECIMAL64 && mr_equals(name, NAMES[kind])) return *type = mr_type_of((mr_kind)kind), true;
    return false;
}

mr_text mr_type_name(mr_type type) {
    if (type.kind == MR_OTHER) return mr_format("other(%.*s)", MR_ARGS(type.other));
    if ((type.kind == MR_DECIMAL && type.precision) || type.kind == MR_DECIMAL64) return mr_format("decimal(%d,%d)", type.precision, type.scale);
    return mr_str(NAMES[type.kind]);
}

bool mr_type_equals(mr_type a, mr_type b) {
    return a.kind == b.kind && a.precision == b.precision && a.scale == b.scale && a.other.len == b.other.len &&
           (!a.other.len || !memcmp(a.other.data, b.other.data, a.other.len));
}

uint8_t layout_of(mr_type type) {
    switch (type.kind) {
    case MR_BOOLEAN: return ABI_BOOLS;
    case MR_INT8: case MR_INT16: case MR_INT32: case MR_DATE: return ABI_I32S;
    case MR_INT64: case MR_UINT64: case MR_DECIMAL64: case MR_TIME: case MR_TIMESTAMP: case MR_TIMESTAMP_TZ: return ABI_I64S;
    case MR_FLOAT32: return ABI_F32S;
    case MR_FLOAT64: return ABI_F64S;
    case MR_UUID: return ABI_FIXED;
    case MR_DECIMAL: case MR_TEXT: case MR_BINARY: case MR_JSON: case MR_OTHER: break;
    }
    return ABI_VARS;
}

static mr_type type_from(const abi_type *type) {
    mr_type result = mr_type_of((mr_kind)type->tag);
    if (result.kind == MR_DECIMAL || result.kind == MR_DECIMAL64) result.precision = type->decimal.precision, result.scale = type->decimal.scale;
    if (result.kind == MR_OTHER) result.other = type->other;
    return result;
}

abi_type type_to(mr_type type) {
    abi_type result = { .tag = (uint8_t)type.kind };
    if (type.kind == MR_OTHER) result.other = type.other;
    else result.decimal.precision = type.precision, result.decimal.scale = type.scale;
    return result;
}

mr_schema schema_from(const abi_schema *schema) {
    size_t count = schema->columns.len;
    mr_column_def *columns = mr_alloc(count * sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        const abi_column_def *c = &schema->columns.ptr[i];
        columns[i] = (mr_column_def){ c->name, type_from(&c->type), c->nullable, c->key, c->source_type, c->ext.ptr, c->ext.len };
    }
    return (mr_schema){ schema->connector, schema->name_space, schema->table, schema->images, columns, count };
}

mr_schema schema_keep(arena *arena, const mr_schema *schema) {
    mr_schema kept = *schema;
    mr_column_def *columns = arena_alloc(arena, kept.columns_len * sizeof *columns);
    for (size_t i = 0; i < kept.columns_len; i++) {
        mr_column_def *c = &columns[i];
        *c = schema->columns[i];
        c->name = arena_copy(arena, c->name);
        c->source_type = arena_copy(arena, c->source_type);
        c->type.other = arena_copy(arena, c->type.other);
        abi_pair *ext = arena_alloc(arena, c->ext_len * sizeof *ext);
        for (size_t k = 0; k < c->ext_len; k++) {
            const abi_pair *pair = (const abi_pair *)c->ext + k;
            ext[k] = (abi_pair){ arena_copy(arena, pair->name), arena_copy(arena, pair->value) };
        }
        c->ext = ext;
    }
    kept.columns = columns;
    return kept;
}

int schema_index(const mr_schema *schema, const char *name) {
    for (size_t i = 0; i < schema->columns_len; i++)
        if (mr_equals(schema->columns[i].name, name)) return (int)i;
    return -1;
}

const mr_column_def *mr_schema_column(const mr_schema *schema, const char *name) {
    int index = schema_index(schema, name);
    return index < 0 ? NULL : &schema->columns[index];
}

static bool readable(mr_kind kind, mr_view view) {
    bool text = kind == MR_TEXT || kind == MR_JSON || kind == MR_DECIMAL;
    uint8_t layout = layout_of(mr_type_of(kind));
    switch (view) {
    case MR_TEXT_VIEW: return text;
    case MR_BYTES_VIEW: return text || kind == MR_BINARY;
    case MR_INT_VIEW: return (layout == ABI_I32S || layout == ABI_I64S) && kind != MR_UINT64 && kind != MR_DECIMAL64;
    case MR_FLOAT_VIEW: return kind == MR_FLOAT32 || kind == MR_FLOAT64;
    case MR_BOOL_VIEW: return kind == MR_BOOLEAN;
    case MR_ANY_VIEW: break;
    }
    return true;
}

void must_be_readable(const mr_column_def *column, mr_view view, const char *what) {
    static const char *const VIEWS[] = { "any", "text", "bytes", "an integer", "a float", "a boolean" };
    if (!readable(column->type.kind, view))
        mr_fail(MR_UNSUPPORTED_SCHEMA, "column %.*s is %.*s, which `%s` cannot read as %s", MR_ARGS(column->name),
                MR_ARGS(mr_type_name(column->type)), what, VIEWS[view]);
}

mr_column column_from(mr_type type, size_t rows, const abi_column *column) {
    mr_column result = { .type = type, .rows = rows, .presence = column->presence.some ? column->presence.value.ptr : NULL };
    switch (column->cells.tag) {
    case ABI_BOOLS: result.bools = column->cells.list.ptr; break;
    case ABI_I32S: result.i32s = column->cells.list.ptr; break;
    case ABI_I64S: result.i64s = column->cells.list.ptr; break;
    case ABI_F32S: result.f32s = column->cells.list.ptr; break;
    case ABI_F64S: result.f64s = column->cells.list.ptr; break;
    case ABI_VARS: result.offsets = column->cells.vars.offsets, result.data = column->cells.vars.data; break;
    default: result.width = column->cells.fixed.width, result.data = column->cells.fixed.data; break;
    }
    return result;
}

abi_column column_to(const mr_column *column) {
    size_t rows = column->rows;
    abi_column result = { .presence = { column->presence != NULL, { (uint8_t *)column->presence, column->presence ? rows : 0 } } };
    abi_cells *cells = &result.cells;
    if (column->width) {
        cells->tag = ABI_FIXED;
        cells->fixed.width = column->width, cells->fixed.data = column->data, cells->fixed.data_len = rows * column->width;
        return result;
    }
    cells->tag = layout_of(column->type);
    cells->list.len = rows;
    switch (cells->tag) {
    case ABI_BOOLS: cells->list.ptr = column->bools; break;
    case ABI_I32S: cells->list.ptr = column->i32s; break;
    case ABI_I64S: cells->list.ptr = column->i64s; break;
    case ABI_F32S: cells->list.ptr = column->f32s; break;
    case ABI_F64S: cells->list.ptr = column->f64s; break;
    default:
        cells->vars.offsets = column->offsets, cells->vars.offsets_len = rows + 1;
        cells->vars.data = column->data, cells->vars.data_len = column->offsets[rows];
    }
    return result;
}
