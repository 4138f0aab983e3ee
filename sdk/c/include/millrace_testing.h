// Runs a plugin's logic natively, through the same code as in the sandbox, with a stand-in for the host.
//
//     mr_case *orders = mr_case_new(NULL);
//     mr_case_key(orders, "id", "int64");
//     mr_case_column(orders, "status", "text");
//     mr_case_insert(orders, "{\"id\": 1, \"status\": \"test\"}");
//     mr_case_run(orders, 0);
//     MR_EXPECT_FATE(orders, 0, MR_DROPPED);
//     mr_case_free(orders);
//
// Rows are JSON objects: a member that is absent was not sent, null is NULL. Text, decimals and uuids are strings, json is itself,
// binary is hexadecimal, dates and timestamps are the numbers that the contract sends. One case at a time.
#ifndef MILLRACE_TESTING_H
#define MILLRACE_TESTING_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "millrace.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mr_case mr_case;
typedef enum { MR_KEPT, MR_DROPPED, MR_REJECTED } mr_fate;

// A table "public.t" without columns. `config`: JSON; NULL: {}
mr_case *mr_case_new(const char *config);
void mr_case_free(mr_case *c);
void mr_case_key(mr_case *c, const char *name, const char *type);
void mr_case_column(mr_case *c, const char *name, const char *type);
// Grants a key of `crypto`.
void mr_case_crypto(mr_case *c, const char *name, const char *material);
void mr_case_insert(mr_case *c, const char *row);
void mr_case_delete(mr_case *c, const char *row);
// `before` may be NULL.
void mr_case_update(mr_case *c, const char *before, const char *after);
// Runs the plugin on the rows cut into batches of so many; 0: all in one. The answer must not depend on it. False: it refused
// the call, and mr_case_error says why.
bool mr_case_run(mr_case *c, size_t cut);
const char *mr_case_error(const mr_case *c);

// Of a transform, a row image each:
mr_fate mr_case_fate(const mr_case *c, size_t row);
const char *mr_case_code(const mr_case *c, size_t row);   // of a row that is rejected; else ""
const char *mr_case_reason(const mr_case *c, size_t row); // the same
const char *mr_case_table(const mr_case *c, size_t row);  // that it leaves for
// The cells as a JSON object without blanks, in the table's order, new columns last; those that were not sent are absent.
const char *mr_case_row(const mr_case *c, size_t row);
// Of a validator: lines of `row: rule: message`.
const char *mr_case_violations(const mr_case *c);
// Lines of `level message`, and of `name sum` for each counter.
const char *mr_case_log(const mr_case *c);
const char *mr_case_counters(const mr_case *c);

// End the program with the place and both values where they differ.
static inline void mr_expect_text(const char *file, int line, const char *expected, const char *got) {
    if (strcmp(expected, got) == 0) return;
    fprintf(stderr, "%s:%d:\nexpected %s\ngot      %s\n", file, line, expected, got);
    exit(1);
}
static inline void mr_expect_fate(const char *file, int line, mr_fate expected, mr_fate got) {
    static const char *const NAMES[] = { "kept", "dropped", "rejected" };
    mr_expect_text(file, line, NAMES[expected], NAMES[got]);
}
#define MR_EXPECT_TEXT(expected, got) mr_expect_text(__FILE__, __LINE__, expected, got)
#define MR_EXPECT_ROW(c, row, expected) mr_expect_text(__FILE__, __LINE__, expected, mr_case_row(c, row))
#define MR_EXPECT_FATE(c, row, expected) mr_expect_fate(__FILE__, __LINE__, expected, mr_case_fate(c, row))
#define MR_EXPECT_RUN(c, cut) mr_expect_text(__FILE__, __LINE__, "", mr_case_run(c, cut) ? "" : mr_case_error(c))

#ifdef __cplusplus
}
#endif

#endif
