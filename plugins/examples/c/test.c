// Runs without a host: `make test`.

#include "millrace_testing.h"

static mr_case *orders(const char *config) {
    mr_case *c = mr_case_new(config);
    mr_case_key(c, "id", "int64");
    mr_case_column(c, "status", "text");
    mr_case_column(c, "customer", "text");
    mr_case_column(c, "amount", "text");
    return c;
}

static void orders_leave_in_cents(void) {
    mr_case *c = orders(NULL);
    mr_case_insert(c, "{\"id\": 1, \"status\": \"new\", \"customer\": \"Ann\", \"amount\": \"12.5\"}");
    MR_EXPECT_RUN(c, 0);
    MR_EXPECT_ROW(c, 0, "{\"id\":1,\"status\":\"new\",\"customer_name\":\"Ann\",\"amount\":1250}");
    mr_case_free(c);
}

static void test_orders_are_left_out(void) {
    mr_case *c = orders("{\"test_status\": \"dummy\"}");
    mr_case_insert(c, "{\"id\": 1, \"status\": \"dummy\"}");
    mr_case_insert(c, "{\"id\": 2, \"status\": \"test\"}");
    MR_EXPECT_RUN(c, 1);
    MR_EXPECT_FATE(c, 0, MR_DROPPED);
    MR_EXPECT_FATE(c, 1, MR_KEPT);
    mr_case_free(c);
}

static void what_is_no_amount_is_refused(void) {
    mr_case *c = orders(NULL);
    mr_case_insert(c, "{\"id\": 1, \"amount\": \"much\"}");
    mr_case_insert(c, "{\"id\": 2, \"amount\": null}");
    mr_case_delete(c, "{\"id\": 3}");
    MR_EXPECT_RUN(c, 0);
    MR_EXPECT_FATE(c, 0, MR_REJECTED);
    MR_EXPECT_TEXT("amount.parse", mr_case_code(c, 0));
    MR_EXPECT_FATE(c, 1, MR_KEPT);
    MR_EXPECT_ROW(c, 2, "{\"id\":3}");
    mr_case_free(c);
}

int main(void) {
    orders_leave_in_cents();
    test_orders_are_left_out();
    what_is_no_amount_is_refused();
    puts("3 passed");
}
