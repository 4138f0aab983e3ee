// How the contract's types (wit/0.1.0) lie in memory: C's layout of these structs on a 32-bit machine is that of the component
// model's canonical ABI, so that nothing is copied or generated. `option<T>` is a flag and a T, a variant a tag and a union.
// Natively, in unit tests, the same structs are passed from the stand-in of the host.
#ifndef MILLRACE_ABI_H
#define MILLRACE_ABI_H

#include "millrace.h"

#define ABI_LIST(name, type) typedef struct { type *ptr; size_t len; } name

typedef mr_text abi_string;
ABI_LIST(abi_strings, abi_string);
ABI_LIST(abi_u8s, uint8_t);
ABI_LIST(abi_u16s, uint16_t);
ABI_LIST(abi_u32s, uint32_t);
typedef struct { abi_string name, value; } abi_pair;
ABI_LIST(abi_pairs, abi_pair);
typedef struct { bool some; abi_string value; } abi_optional_string;
typedef struct { bool some; abi_u8s value; } abi_optional_u8s;
typedef struct { bool some; uint16_t value; } abi_optional_u16;

typedef struct {
    uint8_t tag; // mr_kind
    union { struct { uint8_t precision; int8_t scale; } decimal; abi_string other; };
} abi_type;

typedef struct { abi_string name; abi_type type; bool nullable, key; abi_string source_type; abi_pairs ext; } abi_column_def;
ABI_LIST(abi_column_defs, abi_column_def);

typedef struct {
    abi_string connector, name_space, table;
    abi_optional_string registry_ref;
    uint8_t images;
    abi_pairs ext;
    abi_column_defs columns;
} abi_schema;

enum { ABI_BOOLS, ABI_I32S, ABI_I64S, ABI_F32S, ABI_F64S, ABI_VARS, ABI_FIXED };
typedef struct {
    uint8_t tag;
    union {
        struct { const void *ptr; size_t len; } list; // of every other tag
        struct { const uint32_t *offsets; size_t offsets_len; const uint8_t *data; size_t data_len; } vars;
        struct { uint32_t width; const uint8_t *data; size_t data_len; } fixed;
    };
} abi_cells;
typedef struct { abi_optional_u8s presence; abi_cells cells; } abi_column;
ABI_LIST(abi_columns, abi_column);
typedef struct { bool some; abi_column value; } abi_optional_column;
ABI_LIST(abi_optional_columns, abi_optional_column);

typedef struct {
    uint8_t tag; // mr_error_kind
    union { struct { uint32_t after_ms; abi_string reason; } retry; abi_string message; };
} abi_error;

typedef struct { abi_string name, version, description, config_schema; uint32_t memory_mib, milliseconds; abi_pairs ext; } abi_info;
typedef struct { uint32_t id; abi_schema schema; abi_strings available_meta; } abi_plan_arguments;

typedef struct { uint16_t column; abi_string to; } abi_rename;
ABI_LIST(abi_renames, abi_rename);
typedef struct { abi_optional_u16 replaces; abi_column_def output; } abi_write;
ABI_LIST(abi_writes, abi_write);
ABI_LIST(abi_nothing, void); // shapes, emissions: always empty
typedef struct {
    abi_u16s reads;
    abi_strings meta, effects;
    abi_optional_string rename_table;
    abi_u16s drops;
    abi_renames renames;
    abi_writes writes;
    abi_nothing shapes;
    abi_pairs ext;
} abi_transform_plan;

typedef struct { uint32_t row; abi_string code, reason; abi_optional_string column; bool retryable; abi_pairs ext; } abi_reject;
ABI_LIST(abi_rejects, abi_reject);
typedef struct { abi_strings names; abi_u16s by_row; } abi_routing;
typedef struct {
    abi_optional_u8s fates;
    abi_optional_columns columns;
    abi_rejects rejects;
    abi_nothing emissions;
    struct { bool some; abi_routing value; } routing;
} abi_outcome;

typedef struct { abi_string name; uint8_t severity; abi_u16s columns; abi_pairs ext; } abi_rule;
ABI_LIST(abi_rules, abi_rule);
typedef struct { abi_u16s reads; abi_strings meta; abi_rules rules; abi_pairs ext; } abi_check_plan;
typedef struct { uint32_t row; uint16_t rule; abi_string message; } abi_violation;
ABI_LIST(abi_violations, abi_violation);

// result<option<plan>, stage-error>, and what the calls on a batch answer.
typedef struct { bool failed; union { struct { bool some; abi_transform_plan value; } plan; abi_error error; }; } abi_transform_plan_result;
typedef struct { bool failed; union { struct { bool some; abi_check_plan value; } plan; abi_error error; }; } abi_check_plan_result;
typedef struct { bool failed; union { abi_outcome outcome; abi_error error; }; } abi_outcome_result;
typedef struct { bool failed; union { abi_violations violations; abi_error error; }; } abi_violations_result;
typedef struct { bool failed; abi_error error; } abi_unit_result;

#ifdef __wasm__
_Static_assert(sizeof(abi_column_def) == 40 && sizeof(abi_column) == 32 && sizeof(abi_reject) == 44, "canonical ABI");
_Static_assert(sizeof(abi_transform_plan) == 76 && sizeof(abi_error) == 16 && sizeof(abi_schema) == 56, "canonical ABI");
#endif

#endif
