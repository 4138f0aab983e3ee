// Write Millrace plugins in C or C++. A plugin is a table of functions and a macro:
//
//     static bool keep(mr_cell status, void *unwanted) { return !mr_equals(status.bytes, unwanted); }
//     static void *configure(const mr_json *config) { return mr_json_copy(mr_json_get(config, "status"), "test"); }
//     static void plan(void *plugin, const mr_schema *schema, mr_plan *plan) { mr_filter(plan, "status", MR_TEXT_VIEW, keep, plugin); }
//     static const mr_transform order_filter = { "order-filter", "0.1.0", "", "", configure, plan };
//     MR_TRANSFORM(order_filter)
//
// `plan` runs once for each table schema and says what is done with its columns; the functions that it names then run on every
// batch. What they answer must depend on the row and the config alone: the host cuts batches as it likes, and replaces instances
// at any time.
//
// Memory: whatever the SDK hands to a function lives until the call that it belongs to ends (`configure`, `plan`, or one batch),
// and so does what `mr_alloc` and `mr_format` answer. Use malloc for what the plugin keeps.
#ifndef MILLRACE_H
#define MILLRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MR_PRINTF(at, first) __attribute__((format(printf, at, first)))
#else
#define MR_PRINTF(at, first)
#endif

// ---- Text and memory ------------------------------------------------------------------------------------------------------

// Bytes; not ended by a zero. Print it with "%.*s" and MR_ARGS(text).
typedef struct {
    const char *data;
    size_t len;
} mr_text;

#define MR_ARGS(text) (int)(text).len, (text).data

// A C string as text.
mr_text mr_str(const char *string);
bool mr_equals(mr_text text, const char *string);
// Memory that lives until the call ends.
void *mr_alloc(size_t size);
// As printf, into memory that lives until the call ends.
mr_text mr_format(const char *format, ...) MR_PRINTF(1, 2);

// ---- What is wrong --------------------------------------------------------------------------------------------------------

typedef enum {
    // Nothing was decided: the host calls again after 1 s, or what mr_retry says.
    MR_RETRY_LATER,
    // The table is quarantined, the pipeline goes on.
    MR_UNSUPPORTED_SCHEMA,
    // The config document is wrong: say what, and what would be right.
    MR_INVALID_CONFIG,
    // A fault of the plugin itself.
    MR_BUG,
} mr_error_kind;

// Refuses the whole call: its answer is thrown away once the function returns. The first error of a call counts.
void mr_fail(mr_error_kind kind, const char *format, ...) MR_PRINTF(2, 3);
// As mr_fail(MR_RETRY_LATER, …), with the milliseconds to wait.
void mr_retry(uint32_t after_ms, const char *format, ...) MR_PRINTF(2, 3);
// Whether this call failed already.
bool mr_failed(void);

// ---- Config ---------------------------------------------------------------------------------------------------------------

typedef enum { MR_JSON_NULL, MR_JSON_BOOL, MR_JSON_NUMBER, MR_JSON_TEXT, MR_JSON_LIST, MR_JSON_OBJECT } mr_json_kind;

// A JSON value. Every function takes NULL for "not there".
typedef struct mr_json mr_json;

// NULL: not there, or `value` is no object.
const mr_json *mr_json_get(const mr_json *value, const char *name);
// NULL: beyond the end, or `value` is no list.
const mr_json *mr_json_at(const mr_json *value, size_t index);
// Elements of a list, members of an object; else 0.
size_t mr_json_len(const mr_json *value);
// The name of a member of an object, by its place.
mr_text mr_json_name(const mr_json *value, size_t index);
// MR_JSON_NULL where it is not there.
mr_json_kind mr_json_kind_of(const mr_json *value);
// The text of a string; `otherwise` if it is none.
mr_text mr_json_text(const mr_json *value, const char *otherwise);
// The same as a C string of its own, to be kept and freed.
char *mr_json_copy(const mr_json *value, const char *otherwise);
int64_t mr_json_int(const mr_json *value, int64_t otherwise);
double mr_json_number(const mr_json *value, double otherwise);
bool mr_json_bool(const mr_json *value, bool otherwise);
// Reads a document. NULL, and what is wrong in `*wrong` (may be NULL): it is none.
const mr_json *mr_json_parse(mr_text document, const char **wrong);

// ---- Schema ---------------------------------------------------------------------------------------------------------------

// In the contract's order.
typedef enum {
    MR_BOOLEAN,
    MR_INT8,
    MR_INT16,
    MR_INT32,
    MR_INT64,
    MR_UINT64,
    MR_FLOAT32,
    MR_FLOAT64,
    MR_DECIMAL64, // precision 1 to 18: an integer, the value times 10^scale
    MR_DECIMAL,   // any other precision (0: unconstrained): text
    MR_TEXT,
    MR_BINARY,
    MR_UUID,
    MR_DATE,         // days since 1970-01-01
    MR_TIME,         // microseconds since midnight
    MR_TIMESTAMP,    // microseconds since 1970-01-01 of an unknown zone
    MR_TIMESTAMP_TZ, // microseconds since 1970-01-01 UTC
    MR_JSON,
    MR_OTHER, // a type of that name, which the SDK does not know: pass it on
} mr_kind;

typedef struct {
    mr_kind kind;
    uint8_t precision;
    int8_t scale;
    mr_text other; // of MR_OTHER
} mr_type;

// A type without parameters.
mr_type mr_type_of(mr_kind kind);
// By its name: "int64", "text", "decimal(20,2)", "timestamp-tz" … False: there is none of that name.
bool mr_type_parse(mr_text name, mr_type *type);
bool mr_type_equals(mr_type a, mr_type b);
// The name, as mr_type_parse takes it.
mr_text mr_type_name(mr_type type);

typedef struct {
    mr_text name;
    mr_type type;
    bool nullable;
    bool key;            // part of the row's identity
    mr_text source_type; // the native name, e.g. "numeric(10,2)"
    const void *ext;     // of a later contract: passed on
    size_t ext_len;
} mr_column_def;

typedef struct {
    mr_text connector;
    mr_text name_space; // e.g. "public"
    mr_text table;      // e.g. "orders"
    uint8_t images;     // what updates and deletes carry of the row before: 0 nothing, 1 the key, 2 the whole row
    // The granted columns. The plugin can neither see, name, change nor drop any other.
    const mr_column_def *columns;
    size_t columns_len;
} mr_schema;

// NULL: the table has none of that name, or it is not granted.
const mr_column_def *mr_schema_column(const mr_schema *schema, const char *name);

// ---- Cells ----------------------------------------------------------------------------------------------------------------

// A cell that the source did not send is neither NULL nor a value: sources leave out large columns that an update did not touch,
// and the columns beside the key in a delete.
typedef enum { MR_NULL = 0, MR_VALUE = 1, MR_NOT_SENT = 2 } mr_state;

#define MR_INFINITY INT64_MAX
#define MR_NEG_INFINITY INT64_MIN

typedef struct {
    mr_state state;
    mr_kind kind;
    int8_t scale; // of MR_DECIMAL64
    union {
        bool boolean;
        int64_t integer;   // int8 to int64, decimal64, time; date and timestamps, also MR_INFINITY and MR_NEG_INFINITY
        uint64_t uinteger; // uint64
        double real;       // float32, float64
        mr_text bytes;     // decimal, text, json (UTF-8); binary, uuid (16 bytes), other
    };
} mr_cell;

// The cell as text, the same in the SDK of every language; "null" and "not sent" for what is no value.
mr_text mr_show(mr_cell cell);
// The number times 10^digits as an integer: "-12.5" with 2 digits is -1250. False: no plain decimal, more digits that are not
// zero, or out of range.
bool mr_scaled(mr_text decimal, unsigned digits, int64_t *value);
// The way back: -1250 with scale 2 is "-12.50".
mr_text mr_unscaled(int64_t value, int scale);
// 36 characters.
mr_text mr_uuid_text(mr_text bytes);
// Sixteen bytes of text with or without dashes. False: it is no UUID.
bool mr_uuid_parse(mr_text text, char bytes[16]);

// How an operation must be able to read a column. One that it can not is refused before any row flows.
typedef enum {
    MR_ANY_VIEW,
    MR_TEXT_VIEW,  // text, json, decimal
    MR_BYTES_VIEW, // those, and binary
    MR_INT_VIEW,   // integers but uint64, date, time, timestamps
    MR_FLOAT_VIEW,
    MR_BOOL_VIEW,
} mr_view;

// ---- Columns --------------------------------------------------------------------------------------------------------------

// The cells of one column of a batch. Of the pointers below `presence` only those are set that the type travels in.
typedef struct {
    mr_type type;
    size_t rows;
    const uint8_t *presence; // an mr_state a row; NULL: every row has a value
    const uint8_t *bools;    // boolean
    const int32_t *i32s;     // int8 to int32, date
    const int64_t *i64s;     // int64, uint64, decimal64, time, timestamps
    const float *f32s;
    const double *f64s;
    const uint32_t *offsets; // variable cells: row i is data[offsets[i]] to data[offsets[i + 1]]
    const uint8_t *data;
    uint32_t width; // fixed cells: row i is data[i * width] and the next width bytes; else 0
} mr_column;

static inline mr_state mr_column_state(const mr_column *column, size_t row) {
    return column->presence ? (mr_state)column->presence[row] : MR_VALUE;
}

// The bytes of a variable cell.
static inline mr_text mr_column_text(const mr_column *column, size_t row) {
    mr_text text = { (const char *)column->data + column->offsets[row], column->offsets[row + 1] - column->offsets[row] };
    return text;
}

mr_cell mr_column_get(const mr_column *column, size_t row);

// The cells that a plugin writes into one column, row after row. A row that is not set is NULL.
typedef struct mr_out mr_out;

// Text, json, decimal, binary, uuid, other: appends, so that a cell can be written in parts.
void mr_out_bytes(mr_out *out, mr_text bytes);
void mr_out_str(mr_out *out, const char *string);
void mr_out_format(mr_out *out, const char *format, ...) MR_PRINTF(2, 3);
// Integers, decimal64, date, time, timestamps. Rejects the row (int.overflow) where the value does not fit the type.
void mr_out_int(mr_out *out, int64_t value);
void mr_out_uint(mr_out *out, uint64_t value);
void mr_out_float(mr_out *out, double value);
void mr_out_bool(mr_out *out, bool value);
// A cell of any kind, which must be that of the column.
void mr_out_cell(mr_out *out, mr_cell cell);
void mr_out_null(mr_out *out);
// Allowed where the source had not sent the cell.
void mr_out_not_sent(mr_out *out);
// Refuses the row: the change goes to the dead letters. The code is stable, "area.reason"; the reason is for people.
void mr_out_reject(mr_out *out, const char *code, const char *format, ...) MR_PRINTF(3, 4);

// ---- Rows -----------------------------------------------------------------------------------------------------------------

typedef enum { MR_INSERT = 1, MR_UPDATE_PREIMAGE = 2, MR_UPDATE_POSTIMAGE = 3, MR_DELETE = 4 } mr_change;

// "insert", "update_preimage", "update_postimage", "delete"; what a later contract adds is "other".
const char *mr_change_name(mr_change change);

// One row image.
typedef struct mr_row mr_row;

mr_change mr_row_change(const mr_row *row);
// `input`: what mr_read answered; in mr_check_rows, the place among its columns.
mr_cell mr_row_get(const mr_row *row, int input);
// `output`: what mr_write or mr_add_column answered.
mr_out *mr_row_out(mr_row *row, int output);
// Leaves the row image out. Announce it with mr_may_drop.
void mr_row_drop(mr_row *row);
// Sends the row image to another table. Announce it with mr_may_route.
void mr_row_route(mr_row *row, mr_text table);
void mr_row_reject(mr_row *row, const char *code, const char *format, ...) MR_PRINTF(3, 4);

// ---- Transforms -----------------------------------------------------------------------------------------------------------

// What is done with the rows of one table. Columns go by their names; one that the table does not have, or that is not granted, is
// passed over. Columns are read as the source sent them: no operation sees what another wrote. NULL and not sent cells pass
// through column operations untouched, and a filter keeps the rows whose cell was not sent.
// `with` comes back with each call; it must live as long as the plugin, as what `configure` answered does.
typedef struct mr_plan mr_plan;

typedef bool (*mr_keep)(mr_cell cell, void *with);
// Writes the cell for a value.
typedef void (*mr_write_value)(mr_cell value, mr_out *out, void *with);
// The table's name; empty: the usual one.
typedef mr_text (*mr_to_table)(mr_cell value, void *with);
// Answers a column of as many rows, of the type that the plan says.
typedef mr_column (*mr_write_column)(const mr_column *column, void *with);

void mr_rename_table(mr_plan *plan, const char *name);
void mr_rename(mr_plan *plan, const char *column, const char *to);
void mr_drop_column(mr_plan *plan, const char *column);
// Keeps the rows for whose value `keep` says so, and those without one: NULL, or not sent.
void mr_filter(mr_plan *plan, const char *column, mr_view view, mr_keep keep, void *with);
// As mr_filter, but `keep` is asked about NULL too.
void mr_filter_cells(mr_plan *plan, const char *column, mr_view view, mr_keep keep, void *with);
void mr_route(mr_plan *plan, const char *column, mr_view view, mr_to_table to, void *with);
// Writes a column anew, value by value: with the same type, or another.
void mr_map(mr_plan *plan, const char *column, mr_view view, mr_write_value write, void *with);
void mr_convert(mr_plan *plan, const char *column, mr_type to, mr_view view, mr_write_value write, void *with);
// Writes a column anew as a whole.
void mr_map_column(mr_plan *plan, const char *column, mr_type to, mr_write_column write, void *with);
// Looks at a column of each batch as a whole, to count or to log.
void mr_inspect(mr_plan *plan, const char *column, void (*look)(const mr_column *column, void *with), void *with);

// For mr_each_row. -1: there is no such column.
int mr_read(mr_plan *plan, const char *column);
int mr_write(mr_plan *plan, const char *column, mr_type to);
int mr_add_column(mr_plan *plan, const char *name, mr_type type);
// Runs `each` on every row image. A row that it rejects writes nothing. Call it once, after the inputs and outputs.
void mr_each_row(mr_plan *plan, void (*each)(mr_row *row, void *with), void *with);
// Announces that mr_each_row drops rows, or routes them.
void mr_may_drop(mr_plan *plan);
void mr_may_route(mr_plan *plan);

typedef struct {
    const char *name;
    const char *version;
    const char *description;
    const char *config_schema; // JSON Schema of the config, which the host checks; empty: anything
    // Reads the config; what it answers is handed to `plan`. May be NULL.
    void *(*configure)(const mr_json *config);
    void (*plan)(void *plugin, const mr_schema *schema, mr_plan *plan);
} mr_transform;

// ---- Validators -----------------------------------------------------------------------------------------------------------

typedef enum { MR_WARN, MR_REJECT, MR_QUARANTINE } mr_severity;

// The rules of one table. Cells that were not sent are never judged.
typedef struct mr_checks mr_checks;
typedef struct mr_verdict mr_verdict;

// Says what is wrong; the column's name goes before it in mr_check and mr_check_cells.
void mr_violation(mr_verdict *verdict, const char *format, ...) MR_PRINTF(2, 3);

typedef void (*mr_judge)(mr_cell cell, mr_verdict *verdict, void *with);

// Every row must have a value.
void mr_required(mr_checks *checks, const char *rule, const char *column, mr_severity severity);
// Judges values; NULL is not judged.
void mr_check(mr_checks *checks, const char *rule, const char *column, mr_severity severity, mr_view view, mr_judge judge, void *with);
// Judges cells, NULL included.
void mr_check_cells(mr_checks *checks, const char *rule, const char *column, mr_severity severity, mr_view view, mr_judge judge, void *with);
// Judges several columns, row by row; not asked about rows in which one of them was not sent. A rule with a column that the table
// does not have is passed over.
void mr_check_rows(mr_checks *checks, const char *rule, const char *const *columns, size_t columns_len, mr_severity severity,
                   void (*judge)(const mr_row *row, mr_verdict *verdict, void *with), void *with);

typedef struct {
    const char *name;
    const char *version;
    const char *description;
    const char *config_schema;
    void *(*configure)(const mr_json *config);
    void (*plan)(void *plugin, const mr_schema *schema, mr_checks *checks);
} mr_validator;

// ---- The host -------------------------------------------------------------------------------------------------------------

typedef enum { MR_TRACE, MR_DEBUG, MR_INFO, MR_WARNING, MR_ERROR } mr_level;

typedef struct {
    mr_text name;
    mr_text value;
} mr_pair;

// A line of the host's log. The host keeps a bounded number of lines a second.
void mr_log(mr_level level, const char *format, ...) MR_PRINTF(2, 3);
void mr_log_with(mr_level level, mr_text message, const mr_pair *fields, size_t fields_len);
// Adds to a counter, or a value to a histogram. Labels must have few values.
void mr_count(const char *name, const mr_pair *labels, size_t labels_len, uint64_t add);
void mr_observe(const char *name, const mr_pair *labels, size_t labels_len, double value);
// HMAC-SHA-256 of each cell of a text or binary column under the named key, which never enters the sandbox: 32 bytes a row.
// A key that is not granted fails the call.
mr_column mr_hmac_sha256(const char *key, const mr_column *column);
// Fixed cells, such as those, as hexadecimal text.
mr_column mr_hex(const mr_column *column);

// ---- The exports: one of the two macros, once, at the end of the plugin ---------------------------------------------------

typedef struct {
    bool is_validator;
    const void *plugin; // an mr_transform or an mr_validator
} mr_plugin;

#ifdef __wasm__
#define MR_EXPORT(name) __attribute__((export_name("millrace:plugin/" name)))
void *mr_wasm_describe(const mr_plugin *plugin);
void *mr_wasm_configure(const mr_plugin *plugin, const char *json, size_t json_len);
void *mr_wasm_plan(const mr_plugin *plugin, void *arguments);
void *mr_wasm_run(const mr_plugin *plugin, uint32_t schema, uint32_t rows, const uint8_t *changes, const void *columns, size_t columns_len);
void mr_wasm_end_call(void);
#define MR_EXPORTS(role, call)                                                                                                    \
    MR_EXPORT("lifecycle@0.1.0#describe") void *mr_export_describe(void) { return mr_wasm_describe(&mr_the_plugin); }             \
    MR_EXPORT("lifecycle@0.1.0#configure")                                                                                        \
    void *mr_export_configure(const char *json, size_t json_len, const char *pipeline, size_t pipeline_len, void *ext, size_t n) { \
        (void)pipeline, (void)pipeline_len, (void)ext, (void)n;                                                                   \
        return mr_wasm_configure(&mr_the_plugin, json, json_len);                                                                 \
    }                                                                                                                             \
    MR_EXPORT(role "@0.1.0#plan") void *mr_export_plan(void *arguments) { return mr_wasm_plan(&mr_the_plugin, arguments); }       \
    MR_EXPORT(role "@0.1.0#" call)                                                                                                \
    void *mr_export_run(uint32_t schema, uint32_t partition, uint32_t snapshot, uint32_t rows, const uint8_t *changes,            \
                        size_t changes_len, uint32_t numbered, const uint32_t *numbers, size_t numbers_len, void *meta,           \
                        size_t meta_len, const void *columns, size_t columns_len) {                                               \
        (void)partition, (void)snapshot, (void)changes_len, (void)numbered, (void)numbers, (void)numbers_len, (void)meta,         \
            (void)meta_len;                                                                                                       \
        return mr_wasm_run(&mr_the_plugin, schema, rows, changes, columns, columns_len);                                          \
    }                                                                                                                             \
    MR_EXPORT_END("lifecycle@0.1.0#describe", mr_export_end_describe)                                                             \
    MR_EXPORT_END("lifecycle@0.1.0#configure", mr_export_end_configure)                                                           \
    MR_EXPORT_END(role "@0.1.0#plan", mr_export_end_plan)                                                                         \
    MR_EXPORT_END(role "@0.1.0#" call, mr_export_end_run)
#define MR_EXPORT_END(name, symbol)                                                                                               \
    __attribute__((export_name("cabi_post_millrace:plugin/" name))) void symbol(void *answer) { (void)answer; mr_wasm_end_call(); }
#else
#define MR_EXPORTS(role, call)
#endif

// The plugin, also for its unit tests (millrace_testing.h).
extern const mr_plugin mr_the_plugin;
#define MR_TRANSFORM(transform)                                                                                                   \
    MR_BEGIN_EXPORTS const mr_plugin mr_the_plugin = { false, &(transform) };                                                     \
    MR_EXPORTS("transform", "apply") MR_END_EXPORTS
#define MR_VALIDATOR(validator)                                                                                                   \
    MR_BEGIN_EXPORTS const mr_plugin mr_the_plugin = { true, &(validator) };                                                      \
    MR_EXPORTS("validator", "check") MR_END_EXPORTS
#ifdef __cplusplus
#define MR_BEGIN_EXPORTS extern "C" {
#define MR_END_EXPORTS }
#else
#define MR_BEGIN_EXPORTS
#define MR_END_EXPORTS
#endif

#ifdef __cplusplus
}
#endif

#endif
