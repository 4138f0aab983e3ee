// Cells, decimals, and what they look like as text.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static int64_t day(int32_t value) { return value == INT32_MIN ? MR_NEG_INFINITY : value == INT32_MAX ? MR_INFINITY : value; }

mr_cell mr_column_get(const mr_column *column, size_t row) {
    mr_cell cell = { mr_column_state(column, row), column->type.kind, column->type.scale, { .integer = 0 } };
    if (cell.state != MR_VALUE) return cell;
    if (column->offsets) cell.bytes = mr_column_text(column, row);
    else if (column->i64s) cell.integer = column->i64s[row];
    else if (column->i32s) cell.integer = cell.kind == MR_DATE ? day(column->i32s[row]) : column->i32s[row];
    else if (column->bools) cell.boolean = column->bools[row] != 0;
    else if (column->f64s) cell.real = column->f64s[row];
    else if (column->f32s) cell.real = column->f32s[row];
    else cell.bytes = (mr_text){ (const char *)column->data + row * column->width, column->width };
    return cell;
}

// Wherever nothing can overflow, without looking: each checked multiplication of 64 bits is a call.
static bool scaled_short(bool negative, mr_text text, unsigned digits, int64_t *value) {
    int64_t sum = 0;
    size_t at = 0, whole, fraction = 0;
    for (; at < text.len && (unsigned char)(text.data[at] - '0') < 10; at++) sum = sum * 10 + (text.data[at] - '0');
    whole = at;
    if (at < text.len && text.data[at] == '.')
        for (at++; at < text.len && (unsigned char)(text.data[at] - '0') < 10; at++, fraction++) {
            if (fraction < digits) sum = sum * 10 + (text.data[at] - '0');
            else if (text.data[at] != '0') return false;
        }
    if (at != text.len || whole + fraction == 0) return false;
    for (; fraction < digits; fraction++) sum *= 10;
    *value = negative ? -sum : sum;
    return true;
}

bool mr_scaled(mr_text text, unsigned digits, int64_t *value) {
    bool negative = text.len && *text.data == '-';
    if (negative || (text.len && *text.data == '+')) text.data++, text.len--;
    if (text.len + digits <= 18) return scaled_short(negative, text, digits, value);
    // Summed as a negative number: INT64_MIN has no positive counterpart.
    int64_t sum = 0;
    unsigned after_point = 0;
    bool seen_digit = false, seen_point = false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned char)text.data[i] - '0';
        if (digit < 10 && seen_point && after_point == digits) {
            if (digit) return false;
        } else if (digit < 10) {
            if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_sub_overflow(sum, (int64_t)digit, &sum)) return false;
            after_point += seen_point;
            seen_digit = true;
        } else if (text.data[i] == '.' && !seen_point) {
            seen_point = true;
        } else {
            return false;
        }
    }
    if (!seen_digit) return false;
    for (; after_point < digits; after_point++)
        if (__builtin_mul_overflow(sum, 10, &sum)) return false;
    if (!negative && sum == INT64_MIN) return false;
    *value = negative ? sum : -sum;
    return true;
}

mr_text mr_unscaled(int64_t value, int scale) {
    if (scale <= 0) {
        mr_text text = mr_format("%lld%0*d", (long long)value, -scale, 0);
        // Zero has no zeros after it; and a width of 0 still prints one.
        if (value == 0 || scale == 0) text.len = (size_t)snprintf(NULL, 0, "%lld", (long long)value);
        return text;
    }
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    mr_text digits = mr_format("%0*llu", scale + 1, (unsigned long long)size);
    int whole = (int)digits.len - scale;
    return mr_format("%s%.*s.%.*s", value < 0 ? "-" : "", whole, digits.data, scale, digits.data + whole);
}

mr_text mr_uuid_text(mr_text bytes) {
    static const char DIGITS[] = "0123456789abcdef";
    char *text = mr_alloc(36), *at = text;
    for (size_t i = 0; i < 16 && i < bytes.len; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
        *at++ = DIGITS[(uint8_t)bytes.data[i] >> 4];
        *at++ = DIGITS[(uint8_t)bytes.data[i] & 15];
    }
    return (mr_text){ text, (size_t)(at - text) };
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool mr_uuid_parse(mr_text text, char bytes[16]) {
    size_t digits = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '-') continue;
        int digit = hex_digit(text.data[i]);
        if (digit < 0 || digits == 32) return false;
        bytes[digits / 2] = (char)(digits % 2 ? bytes[digits / 2] | digit : digit << 4);
        digits++;
    }
    return digits == 32;
}

// The shortest that reads back as the same, without an exponent where the number has none to speak of.
static mr_text show_float(double value, bool single) {
    if (value != value) return mr_str("NaN");
    if (value - value != 0) return mr_str(value > 0 ? "inf" : "-inf");
    for (int precision = 1; precision < 17; precision++) {
        mr_text text = mr_format("%.*g", precision, value);
        double back = strtod(text.data, NULL);
        if (single ? (float)back == (float)value : back == value) return memchr(text.data, 'e', text.len) ? mr_format("%.*f", value < 1 && value > -1 ? 17 : 0, value) : text;
    }
    return mr_format("%.17g", value);
}

mr_text mr_show(mr_cell cell) {
    if (cell.state == MR_NULL) return mr_str("null");
    if (cell.state == MR_NOT_SENT) return mr_str("not sent");
    switch (cell.kind) {
    case MR_BOOLEAN: return mr_str(cell.boolean ? "true" : "false");
    case MR_UINT64: return mr_format("%llu", (unsigned long long)cell.uinteger);
    case MR_FLOAT32: case MR_FLOAT64: return show_float(cell.real, cell.kind == MR_FLOAT32);
    case MR_DECIMAL64: return mr_unscaled(cell.integer, cell.scale);
    case MR_DECIMAL: case MR_TEXT: case MR_JSON: return cell.bytes;
    case MR_UUID: return mr_uuid_text(cell.bytes);
    case MR_DATE: case MR_TIMESTAMP: case MR_TIMESTAMP_TZ:
        if (cell.integer == MR_INFINITY) return mr_str("infinity");
        if (cell.integer == MR_NEG_INFINITY) return mr_str("-infinity");
        break;
    case MR_BINARY: case MR_OTHER: {
        char *text = mr_alloc(2 * cell.bytes.len + 1);
        for (size_t i = 0; i < cell.bytes.len; i++) snprintf(text + 2 * i, 3, "%02x", (uint8_t)cell.bytes.data[i]);
        return (mr_text){ text, 2 * cell.bytes.len };
    }
    case MR_INT8: case MR_INT16: case MR_INT32: case MR_INT64: case MR_TIME: break;
    }
    return mr_format("%lld", (long long)cell.integer);
}
