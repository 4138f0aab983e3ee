// Leaves test orders out, renames `customer`, and turns the text `amount` into whole cents; what is no amount is refused.

#include "millrace.h"

static void *configure(const mr_json *config) { return mr_json_copy(mr_json_get(config, "test_status"), "test"); }

static bool keep(mr_cell status, void *test_status) { return !mr_equals(status.bytes, test_status); }

static void cents(mr_cell amount, mr_out *out, void *with) {
    (void)with;
    int64_t value;
    if (mr_scaled(amount.bytes, 2, &value)) mr_out_int(out, value);
    else mr_out_reject(out, "amount.parse", "\"%.*s\" is no amount", MR_ARGS(amount.bytes));
}

static void plan(void *test_status, const mr_schema *schema, mr_plan *plan) {
    (void)schema;
    mr_filter(plan, "status", MR_TEXT_VIEW, keep, test_status);
    mr_rename(plan, "customer", "customer_name");
    mr_convert(plan, "amount", mr_type_of(MR_INT64), MR_TEXT_VIEW, cents, NULL);
}

static const mr_transform order_cents = {
    .name = "order-cents-c",
    .version = "0.1.0",
    .description = "Leaves test orders out, renames customer, and turns the text amount into whole cents",
    .config_schema = "{ \"type\": \"object\", \"properties\": { \"test_status\": { \"type\": \"string\" } }, \"additionalProperties\": false }",
    .configure = configure,
    .plan = plan,
};
MR_TRANSFORM(order_cents)
