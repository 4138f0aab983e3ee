// What the host offers: log and metrics always, crypto by grant. Natively, testing.c stands in for it.
#include <string.h>

#include "internal.h"

#ifdef __wasm__
#define IMPORT(interface, name) __attribute__((import_module("millrace:plugin/" interface "@0.1.0"), import_name(name)))
IMPORT("log", "threshold") uint32_t mr_host_threshold(void);
IMPORT("log", "write") void mr_host_write(uint32_t level, const char *message, size_t len, const mr_pair *fields, size_t fields_len);
IMPORT("metrics", "count") void mr_host_count(const char *name, size_t len, const mr_pair *labels, size_t labels_len, uint64_t add);
IMPORT("metrics", "observe") void mr_host_observe(const char *name, size_t len, const mr_pair *labels, size_t labels_len, double value);
// The column goes flat: its presence, then the tag of its cells and what the widest of them (vars) needs.
IMPORT("crypto", "hmac-sha256")
void mr_host_hmac(const char *key, size_t key_len, uint32_t some, const uint8_t *presence, size_t presence_len, uint32_t tag,
                  const void *a, size_t b, const void *c, size_t d, void *answer);

typedef struct {
    bool failed;
    union { abi_column column; struct { uint8_t tag; abi_string reason; } error; };
} hmac_result;
enum { NOT_GRANTED };
#else
uint32_t mr_host_threshold(void);
void mr_host_write(uint32_t level, const char *message, size_t len, const mr_pair *fields, size_t fields_len);
void mr_host_count(const char *name, size_t len, const mr_pair *labels, size_t labels_len, uint64_t add);
void mr_host_observe(const char *name, size_t len, const mr_pair *labels, size_t labels_len, double value);
bool mr_host_hmac_cell(const char *key, mr_text cell, uint8_t digest[32]);
#endif

void mr_log(mr_level level, const char *format, ...) {
    if ((uint32_t)level < mr_host_threshold()) return;
    va_list arguments;
    va_start(arguments, format);
    mr_text message = mr_vformat(format, arguments);
    va_end(arguments);
    mr_host_write((uint32_t)level, message.data, message.len, NULL, 0);
}

void mr_log_with(mr_level level, mr_text message, const mr_pair *fields, size_t fields_len) {
    if ((uint32_t)level >= mr_host_threshold()) mr_host_write((uint32_t)level, message.data, message.len, fields, fields_len);
}

void mr_count(const char *name, const mr_pair *labels, size_t labels_len, uint64_t add) {
    mr_host_count(name, strlen(name), labels, labels_len, add);
}

void mr_observe(const char *name, const mr_pair *labels, size_t labels_len, double value) {
    mr_host_observe(name, strlen(name), labels, labels_len, value);
}

static void not_granted(const char *key) {
    mr_fail(MR_INVALID_CONFIG, "the key \"%s\" is not granted: add `grant: { crypto: [%s] }` to the stage", key, key);
}

mr_column mr_hmac_sha256(const char *key, const mr_column *column) {
    mr_column result = { .type = mr_type_of(MR_BINARY), .rows = column->rows, .presence = column->presence, .width = 32 };
    if (!column->offsets) {
        mr_fail(MR_BUG, "hmac: the column is not of text or bytes");
        return result;
    }
#ifdef __wasm__
    hmac_result answer;
    abi_column given = column_to(column);
    mr_host_hmac(key, strlen(key), given.presence.some, given.presence.value.ptr, given.presence.value.len, ABI_VARS, given.cells.vars.offsets,
                 given.cells.vars.offsets_len, given.cells.vars.data, given.cells.vars.data_len, &answer);
    if (answer.failed && answer.error.tag == NOT_GRANTED) not_granted(key);
    else if (answer.failed) mr_fail(MR_BUG, "%.*s", MR_ARGS(answer.error.reason));
    else result = column_from(result.type, column->rows, &answer.column);
#else
    uint8_t *data = mr_alloc(32 * column->rows);
    for (size_t row = 0; row < column->rows; row++)
        if (!mr_host_hmac_cell(key, mr_column_text(column, row), data + 32 * row)) {
            not_granted(key);
            break;
        }
    result.data = data;
#endif
    return result;
}

mr_column mr_hex(const mr_column *column) {
    static const char DIGITS[] = "0123456789abcdef";
    mr_column result = { .type = mr_type_of(MR_TEXT), .rows = column->rows, .presence = column->presence };
    if (!column->width) {
        if (!mr_failed()) mr_fail(MR_BUG, "hex: the column is not of fixed width");
        return result;
    }
    uint32_t *offsets = mr_alloc((column->rows + 1) * sizeof *offsets);
    uint8_t *data = mr_alloc(2 * column->width * column->rows), *at = data;
    offsets[0] = 0;
    for (size_t row = 0; row < column->rows; row++) {
        if (column->data && mr_column_state(column, row) == MR_VALUE)
            for (size_t i = 0; i < column->width; i++) {
                uint8_t byte = column->data[row * column->width + i];
                *at++ = (uint8_t)DIGITS[byte >> 4];
                *at++ = (uint8_t)DIGITS[byte & 15];
            }
        offsets[row + 1] = (uint32_t)(at - data);
    }
    result.offsets = offsets;
    result.data = data;
    return result;
}
