// The SDK's own tests. What a plugin answers to a host is the conformance kit's: sdk/conformance.

#include "millrace_testing.h"

static mr_case *doing(const char *what, const char *type) {
    mr_case *c = mr_case_new(mr_format("{\"do\": \"%s\"}", what).data);
    mr_case_key(c, "id", "int64");
    mr_case_column(c, "a", type);
    return c;
}

static const char *scaled(const char *text, unsigned digits) {
    int64_t value;
    return mr_scaled(mr_str(text), digits, &value) ? mr_format("%lld", (long long)value).data : "none";
}

static void a_decimal_becomes_an_integer_exactly_or_not_at_all(void) {
    MR_EXPECT_TEXT("1250", scaled("12.5", 2));
    MR_EXPECT_TEXT("-5", scaled("-0.05", 2));
    MR_EXPECT_TEXT("750", scaled("+7.500", 2));
    MR_EXPECT_TEXT("-9223372036854775808", scaled("-92233720368547758.08", 2));
    MR_EXPECT_TEXT("none", scaled("92233720368547758.08", 2));
    const char *const none[] = { "7.501", "", "-", ".", "1e3", "1.2.3", "NaN", "99999999999999999999" };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) MR_EXPECT_TEXT("none", scaled(none[i], 2));
}

static void an_integer_becomes_a_decimal(void) {
    MR_EXPECT_TEXT("-12.50", mr_unscaled(-1250, 2).data);
    MR_EXPECT_TEXT("0.05", mr_unscaled(5, 2).data);
    MR_EXPECT_TEXT("-9223372036854775.808", mr_unscaled(INT64_MIN, 3).data);
    mr_text thousands = mr_unscaled(12, -3);
    MR_EXPECT_TEXT("12000", mr_format("%.*s", MR_ARGS(thousands)).data);
}

static void types_are_found_by_their_names(void) {
    mr_type type;
    const char *const names[] = { "int64", "decimal(10,2)", "decimal(38,-2)", "decimal", "timestamp-tz", "other(interval)" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!mr_type_parse(mr_str(names[i]), &type)) MR_EXPECT_TEXT(names[i], "no type");
        MR_EXPECT_TEXT(names[i], mr_format("%.*s", MR_ARGS(mr_type_name(type))).data);
    }
    MR_EXPECT_TEXT("no type", mr_type_parse(mr_str("money"), &type) ? "a type" : "no type");
}

static void documents_are_read(void) {
    const char *wrong = "";
    const mr_json *json = mr_json_parse(mr_str("{\"a\": [1, -2.5e1, \"\\u00e4\\ud83d\\ude00\\n\"], \"b\": {\"c\": true}}"), &wrong);
    MR_EXPECT_TEXT("", wrong);
    const mr_json *list = mr_json_get(json, "a");
    MR_EXPECT_TEXT("1 -25 ä😀\n 3", mr_format("%lld %g %s %zu", (long long)mr_json_int(mr_json_at(list, 0), 0), mr_json_number(mr_json_at(list, 1), 0),
                                              mr_json_text(mr_json_at(list, 2), "").data, mr_json_len(list)).data);
    MR_EXPECT_TEXT("true", mr_json_bool(mr_json_get(mr_json_get(json, "b"), "c"), false) ? "true" : "false");
    const char *const broken[] = { "", "{", "[1,]", "{\"a\" 1}", "\"", "\"\\x\"", "nul", "1 2", "\"\\ud800\"" };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        MR_EXPECT_TEXT("refused", mr_json_parse(mr_str(broken[i]), NULL) ? broken[i] : "refused");
}

static void values_are_shown_as_in_every_language(void) {
    mr_case *c = doing("text", "float64");
    mr_case_insert(c, "{\"id\": 1, \"a\": 0.1}");
    mr_case_insert(c, "{\"id\": 2, \"a\": -1.5}");
    mr_case_insert(c, "{\"id\": 3, \"a\": 1000000}");
    mr_case_insert(c, "{\"id\": 4, \"a\": null}");
    MR_EXPECT_RUN(c, 0);
    MR_EXPECT_ROW(c, 0, "{\"id\":1,\"a\":\"0.1\"}");
    MR_EXPECT_ROW(c, 1, "{\"id\":2,\"a\":\"-1.5\"}");
    MR_EXPECT_ROW(c, 2, "{\"id\":3,\"a\":\"1000000\"}");
    MR_EXPECT_ROW(c, 3, "{\"id\":4,\"a\":null}");
    mr_case_free(c);
}

static void a_filter_keeps_what_was_not_sent(void) {
    mr_case *c = doing("filter", "text");
    mr_case_insert(c, "{\"id\": 1, \"a\": null}");
    mr_case_delete(c, "{\"id\": 2}");
    MR_EXPECT_RUN(c, 0);
    MR_EXPECT_FATE(c, 0, MR_DROPPED);
    MR_EXPECT_FATE(c, 1, MR_KEPT);
    mr_case_free(c);
}

static void rows_are_routed_by_a_value(void) {
    mr_case *c = doing("route", "text");
    mr_case_column(c, "region", "text");
    mr_case_insert(c, "{\"id\": 1, \"region\": \"eu\"}");
    mr_case_insert(c, "{\"id\": 2, \"region\": null}");
    MR_EXPECT_RUN(c, 0);
    MR_EXPECT_TEXT("orders_eu", mr_case_table(c, 0));
    MR_EXPECT_TEXT("t", mr_case_table(c, 1));
    mr_case_free(c);
}

static void what_does_not_fit_is_refused(void) {
    mr_case *c = doing("twice", "int8");
    mr_case_insert(c, "{\"id\": 1, \"a\": 63}");
    mr_case_insert(c, "{\"id\": 2, \"a\": -65}");
    MR_EXPECT_RUN(c, 0);
    MR_EXPECT_ROW(c, 0, "{\"id\":1,\"a\":126}");
    MR_EXPECT_TEXT("int.overflow", mr_case_code(c, 1));
    MR_EXPECT_TEXT("-130 does not fit into int8", mr_case_reason(c, 1));
    mr_case_free(c);
}

static void rows_are_answered_alike_however_they_are_cut(void) {
    for (size_t cut = 0; cut < 3; cut++) {
        mr_case *c = doing("sum", "int64");
        mr_case_column(c, "b", "int64");
        mr_case_insert(c, "{\"id\": 1, \"a\": 1, \"b\": 2}");
        mr_case_insert(c, "{\"id\": 2, \"a\": -1, \"b\": 2}");
        mr_case_insert(c, "{\"id\": 3, \"a\": 100, \"b\": 100}");
        mr_case_insert(c, "{\"id\": 4, \"a\": 1}");
        MR_EXPECT_RUN(c, cut);
        MR_EXPECT_ROW(c, 0, "{\"id\":1,\"a\":1,\"b\":2,\"sum\":3}");
        MR_EXPECT_TEXT("sum.negative", mr_case_code(c, 1));
        MR_EXPECT_TEXT("int.overflow", mr_case_code(c, 2));
        MR_EXPECT_ROW(c, 3, "{\"id\":4,\"a\":1,\"sum\":null}");
        MR_EXPECT_TEXT("rows 3\n", mr_case_counters(c));
        mr_case_free(c);
    }
}

// RFC 4231, test case 2.
static void hashes_are_made_under_a_granted_key(void) {
    mr_case *c = doing("hash", "text");
    mr_case_insert(c, "{\"id\": 1, \"a\": \"what do ya want for nothing?\"}");
    MR_EXPECT_TEXT("refused", mr_case_run(c, 0) ? "run" : "refused");
    MR_EXPECT_TEXT("invalid config: the key \"pii\" is not granted: add `grant: { crypto: [pii] }` to the stage", mr_case_error(c));
    mr_case_crypto(c, "pii", "Jefe");
    MR_EXPECT_RUN(c, 0);
    MR_EXPECT_ROW(c, 0, "{\"id\":1,\"a\":\"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843\"}");
    mr_case_free(c);
}

static void a_column_that_can_not_be_read_so_is_refused_before_a_row_flows(void) {
    mr_case *c = doing("twice", "boolean");
    MR_EXPECT_TEXT("refused", mr_case_run(c, 0) ? "run" : "refused");
    MR_EXPECT_TEXT("unsupported schema: column a is boolean, which `convert` cannot read as an integer", mr_case_error(c));
    mr_case_free(c);
}

int main(void) {
    a_decimal_becomes_an_integer_exactly_or_not_at_all();
    an_integer_becomes_a_decimal();
    types_are_found_by_their_names();
    documents_are_read();
    values_are_shown_as_in_every_language();
    a_filter_keeps_what_was_not_sent();
    rows_are_routed_by_a_value();
    what_does_not_fit_is_refused();
    rows_are_answered_alike_however_they_are_cut();
    hashes_are_made_under_a_granted_key();
    a_column_that_can_not_be_read_so_is_refused_before_a_row_flows();
    puts("sdk/c: 11 passed");
}
