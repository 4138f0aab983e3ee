// What the SDK's files share.
#ifndef MILLRACE_INTERNAL_H
#define MILLRACE_INTERNAL_H

#include <stdarg.h>

#include "abi.h"

// Memory that is freed as a whole.
typedef struct arena { struct arena_block *block; } arena;

extern arena mr_call; // what lives until the call ends
void *arena_alloc(arena *arena, size_t size);
// The last allocation grows in place where it can.
void *arena_grow(arena *arena, void *old, size_t old_size, size_t size);
void arena_reset(arena *arena);
void arena_free(arena *arena);
mr_text arena_copy(arena *arena, mr_text text);
mr_text mr_vformat(const char *format, va_list arguments);

// A list that grows: `length` elements of `size` bytes, room for more. Answers the new element, zeroed.
void *arena_push(arena *arena, void *list, size_t size);
typedef struct { void *ptr; size_t len, room; } arena_list;

// Errors of the call.
typedef struct { bool set; mr_error_kind kind; uint32_t after_ms; mr_text message; } call_error;
extern call_error mr_error;
void mr_vfail(mr_error_kind kind, const char *format, va_list arguments);
abi_error mr_take_error(void);

// Schema.
mr_schema schema_from(const abi_schema *schema);
abi_type type_to(mr_type type);
mr_column column_from(mr_type type, size_t rows, const abi_column *column);
abi_column column_to(const mr_column *column);
uint8_t layout_of(mr_type type); // ABI_BOOLS …
int schema_index(const mr_schema *schema, const char *name);
// A copy that lives in the arena.
mr_schema schema_keep(arena *arena, const mr_schema *schema);
void must_be_readable(const mr_column_def *column, mr_view view, const char *what);

// The answer to a batch while it is made.
typedef struct draft draft;
struct mr_out {
    mr_type type;
    uint8_t layout;
    bool set;       // this row has a value
    mr_state state; // of this row, if it is not set
    size_t rows, capacity;
    uint8_t *presence;
    union { uint8_t *bools; int32_t *i32s; int64_t *i64s; float *f32s; double *f64s; uint32_t *offsets; };
    uint8_t *data; // vars, fixed
    size_t data_len, data_room;
    draft *draft;
    const char *column; // to blame; NULL: none
    bool rejected;      // this row
};
void out_start(mr_out *out, mr_type type, size_t rows, const mr_column *like, draft *draft, const char *column);
void out_end_row(mr_out *out);
mr_column out_finish(mr_out *out);

struct draft {
    size_t rows, row;
    uint8_t *fates;
    abi_optional_column *columns;
    arena_list rejects; // abi_reject
    arena_list routes;  // abi_string
    uint16_t *by_row;
};
void draft_reject(draft *draft, size_t row, const char *code, const char *column, const char *format, va_list arguments);
void draft_drop(draft *draft, size_t row);
void draft_route(draft *draft, size_t row, mr_text table);

typedef struct {
    size_t rows;
    const uint8_t *changes;
    const mr_column *columns; // that the plan reads, in its order
} batch;

struct mr_row {
    const batch *batch;
    size_t index;
    const int *inputs; // NULL: inputs are the batch's columns
    mr_out *outs;
    draft *draft;
    bool rejected;
};

// A number as the document has it.
mr_text mr_json_number_text(const mr_json *value);

// Plans.
mr_plan *plan_new(const mr_schema *schema);
void plan_free(mr_plan *plan);
bool plan_is_empty(const mr_plan *plan);
abi_transform_plan plan_answer(const mr_plan *plan);
mr_type plan_read_type(const mr_plan *plan, size_t slot);
abi_outcome plan_run(const mr_plan *plan, const batch *batch);

mr_checks *checks_new(const mr_schema *schema);
void checks_free(mr_checks *checks);
bool checks_are_empty(const mr_checks *checks);
abi_check_plan checks_answer(const mr_checks *checks);
mr_type checks_read_type(const mr_checks *checks, size_t slot);
abi_violations checks_run(const mr_checks *checks, const batch *batch);

// The plugin and what it planned, by the host's schema id: the same code in the sandbox and in tests.
void slot_configure(const mr_plugin *plugin, mr_text config);
// Answers the plan (an mr_plan or mr_checks), which the slot keeps; NULL: nothing is to be done, or the call failed.
void *slot_plan(const mr_plugin *plugin, uint32_t id, const mr_schema *schema);
void *slot_planned(const mr_plugin *plugin, uint32_t id);
void slot_clear(void);

#endif
