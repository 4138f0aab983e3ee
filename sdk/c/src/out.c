// The cells that a plugin writes.
#include <string.h>

#include "internal.h"

static size_t width(uint8_t layout) { return layout == ABI_BOOLS ? 1 : layout == ABI_I64S || layout == ABI_F64S ? 8 : 4; }

// `like`: a column of about as many bytes; NULL: 16 a row.
void out_start(mr_out *out, mr_type type, size_t rows, const mr_column *like, draft *draft, const char *column) {
    *out = (mr_out){ .type = type, .layout = layout_of(type), .capacity = rows, .draft = draft, .column = column };
    bool variable = out->layout == ABI_VARS;
    if (out->layout != ABI_FIXED) out->bools = mr_alloc((rows + variable) * width(out->layout));
    if (variable) out->offsets[0] = 0;
    if (variable || out->layout == ABI_FIXED) {
        out->data_room = variable && like && like->offsets ? like->offsets[rows] : 16 * rows;
        out->data = mr_alloc(out->data_room);
    }
}

static void wrong(mr_out *out, const char *what) {
    mr_fail(MR_BUG, "a column is written as %s, but is declared as %.*s", what, MR_ARGS(mr_type_name(out->type)));
}

void mr_out_bytes(mr_out *out, mr_text bytes) {
    if (out->layout != ABI_VARS && out->layout != ABI_FIXED) return wrong(out, "bytes");
    if (out->data_room - out->data_len < bytes.len) {
        size_t room = 2 * out->data_room > out->data_len + bytes.len ? 2 * out->data_room : out->data_len + bytes.len;
        out->data = arena_grow(&mr_call, out->data, out->data_room, room);
        out->data_room = room;
    }
    if (bytes.len) memcpy(out->data + out->data_len, bytes.data, bytes.len);
    out->data_len += bytes.len;
    out->set = true;
}

void mr_out_str(mr_out *out, const char *string) { mr_out_bytes(out, mr_str(string)); }

void mr_out_format(mr_out *out, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    mr_out_bytes(out, mr_vformat(format, arguments));
    va_end(arguments);
}

static void overflow(mr_out *out, int64_t value) {
    mr_out_reject(out, "int.overflow", "%lld does not fit into %.*s", (long long)value, MR_ARGS(mr_type_name(out->type)));
}

void mr_out_int(mr_out *out, int64_t value) {
    if (out->layout == ABI_I64S) {
        out->i64s[out->rows] = value;
        out->set = true;
        return;
    }
    if (out->layout != ABI_I32S) return wrong(out, "an integer");
    int64_t most = out->type.kind == MR_INT8 ? INT8_MAX : out->type.kind == MR_INT16 ? INT16_MAX : INT32_MAX;
    if (out->type.kind == MR_DATE && value == MR_INFINITY) value = INT32_MAX;
    if (out->type.kind == MR_DATE && value == MR_NEG_INFINITY) value = INT32_MIN;
    if (value > most || value < -most - 1) return overflow(out, value);
    out->i32s[out->rows] = (int32_t)value;
    out->set = true;
}

void mr_out_uint(mr_out *out, uint64_t value) {
    if (out->type.kind != MR_UINT64 && value > INT64_MAX)
        return mr_out_reject(out, "int.overflow", "%llu does not fit into %.*s", (unsigned long long)value, MR_ARGS(mr_type_name(out->type)));
    mr_out_int(out, (int64_t)value);
}

void mr_out_float(mr_out *out, double value) {
    if (out->layout == ABI_F64S) out->f64s[out->rows] = value;
    else if (out->layout == ABI_F32S) out->f32s[out->rows] = (float)value;
    else return wrong(out, "a float");
    out->set = true;
}

void mr_out_bool(mr_out *out, bool value) {
    if (out->layout != ABI_BOOLS) return wrong(out, "a boolean");
    out->bools[out->rows] = value;
    out->set = true;
}

void mr_out_cell(mr_out *out, mr_cell cell) {
    if (cell.state == MR_NULL) return mr_out_null(out);
    if (cell.state == MR_NOT_SENT) return mr_out_not_sent(out);
    switch (cell.kind) {
    case MR_BOOLEAN: return mr_out_bool(out, cell.boolean);
    case MR_UINT64: return mr_out_uint(out, cell.uinteger);
    case MR_FLOAT32: case MR_FLOAT64: return mr_out_float(out, cell.real);
    case MR_DECIMAL: case MR_TEXT: case MR_BINARY: case MR_UUID: case MR_JSON: case MR_OTHER: return mr_out_bytes(out, cell.bytes);
    case MR_DECIMAL64:
        if (out->layout == ABI_VARS) return mr_out_bytes(out, mr_show(cell));
        break;
    case MR_INT8: case MR_INT16: case MR_INT32: case MR_INT64: case MR_DATE: case MR_TIME: case MR_TIMESTAMP: case MR_TIMESTAMP_TZ: break;
    }
    mr_out_int(out, cell.integer);
}

static void absent(mr_out *out, mr_state state) {
    out->set = false;
    out->state = state;
}

void mr_out_null(mr_out *out) { absent(out, MR_NULL); }
void mr_out_not_sent(mr_out *out) { absent(out, MR_NOT_SENT); }

void mr_out_reject(mr_out *out, const char *code, const char *format, ...) {
    if (out->rejected) return;
    va_list arguments;
    va_start(arguments, format);
    draft_reject(out->draft, out->rows, code, out->column, format, arguments);
    va_end(arguments);
    out->rejected = true;
}

void out_end_row(mr_out *out) {
    size_t row = out->rows++;
    bool set = out->set && !out->rejected;
    if (!set) {
        if (!out->presence) {
            out->presence = mr_alloc(out->capacity);
            memset(out->presence, MR_VALUE, out->capacity);
        }
        out->presence[row] = (uint8_t)(out->rejected ? MR_NULL : out->state);
        if (out->layout == ABI_VARS) out->data_len = out->offsets[row];
        else if (out->layout != ABI_FIXED) memset(out->bools + row * width(out->layout), 0, width(out->layout));
    }
    if (out->layout == ABI_VARS) out->offsets[row + 1] = (uint32_t)out->data_len;
    if (out->layout == ABI_FIXED) {
        size_t end = 16 * (row + 1);
        if (!set) memset(out->data + 16 * row, 0, 16);
        else if (out->data_len != end) mr_fail(MR_BUG, "a uuid is written with %zu bytes", out->data_len - 16 * row);
        out->data_len = end;
    }
    out->set = out->rejected = false;
    out->state = MR_NULL;
}

mr_column out_finish(mr_out *out) {
    mr_column column = { .type = out->type, .rows = out->rows, .presence = out->presence };
    switch (out->layout) {
    case ABI_BOOLS: column.bools = out->bools; break;
    case ABI_I32S: column.i32s = out->i32s; break;
    case ABI_I64S: column.i64s = out->i64s; break;
    case ABI_F32S: column.f32s = out->f32s; break;
    case ABI_F64S: column.f64s = out->f64s; break;
    case ABI_VARS: column.offsets = out->offsets, column.data = out->data; break;
    default: column.width = 16, column.data = out->data;
    }
    return column;
}
