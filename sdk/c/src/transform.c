// The role `transform`: a plan of column and row operations, made once a schema and run on every batch.
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { EFFECT_DROP = 1, EFFECT_REJECT = 2, EFFECT_ROUTE = 4 };
enum { KEEP, DROP };

typedef struct operation operation;
struct operation {
    void (*run)(const operation *operation, const mr_plan *plan, const batch *batch, draft *draft);
    size_t slot;  // of the batch's columns
    size_t write; // of the plan's writes
    bool nulls;   // a filter that is asked about NULL
    const char *column;
    union {
        mr_keep keep;
        mr_to_table to;
        mr_write_value write_value;
        mr_write_column write_column;
        void (*look)(const mr_column *, void *);
        void (*each)(mr_row *, void *);
    };
    void *with;
};

typedef struct { int replaces; mr_column_def output; } write;

struct mr_plan {
    arena arena;
    mr_schema schema;
    unsigned effects;
    const char *table;
    arena_list reads, drops, renames, writes, row_writes, operations; // int, int, abi_rename, write, size_t, operation
};

#define AT(type, list, index) ((type *)(list).ptr)[index]

mr_plan *plan_new(const mr_schema *schema) {
    mr_plan *plan = calloc(1, sizeof *plan);
    if (!plan) __builtin_trap();
    plan->schema = schema_keep(&plan->arena, schema);
    return plan;
}

void plan_free(mr_plan *plan) {
    if (!plan) return;
    arena_free(&plan->arena);
    free(plan);
}

bool plan_is_empty(const mr_plan *plan) { return !plan->operations.len && !plan->drops.len && !plan->renames.len && !plan->table; }

static mr_text kept(mr_plan *plan, const char *text) { return arena_copy(&plan->arena, mr_str(text)); }

void mr_rename_table(mr_plan *plan, const char *name) { plan->table = kept(plan, name).data; }

void mr_rename(mr_plan *plan, const char *column, const char *to) {
    int index = schema_index(&plan->schema, column);
    if (index < 0) return;
    for (size_t i = 0; i < plan->writes.len; i++)
        if (AT(write, plan->writes, i).replaces == index) {
            AT(write, plan->writes, i).output.name = kept(plan, to);
            return;
        }
    *(abi_rename *)arena_push(&plan->arena, &plan->renames, sizeof(abi_rename)) = (abi_rename){ (uint16_t)index, kept(plan, to) };
}

void mr_drop_column(mr_plan *plan, const char *column) {
    int index = schema_index(&plan->schema, column);
    if (index >= 0) *(int *)arena_push(&plan->arena, &plan->drops, sizeof(int)) = index;
}

static int read_index(mr_plan *plan, int index) {
    for (size_t i = 0; i < plan->reads.len; i++)
        if (AT(int, plan->reads, i) == index) return (int)i;
    *(int *)arena_push(&plan->arena, &plan->reads, sizeof(int)) = index;
    return (int)plan->reads.len - 1;
}

static size_t replace(mr_plan *plan, int index, mr_type to) {
    mr_column_def output = plan->schema.columns[index];
    if (!mr_type_equals(output.type, to)) output.source_type = mr_str("");
    output.type = to;
    output.type.other = arena_copy(&plan->arena, to.other);
    for (size_t i = 0; i < plan->renames.len; i++)
        if (AT(abi_rename, plan->renames, i).column == index) {
            output.name = AT(abi_rename, plan->renames, i).to;
            AT(abi_rename, plan->renames, i) = AT(abi_rename, plan->renames, --plan->renames.len);
        }
    *(write *)arena_push(&plan->arena, &plan->writes, sizeof(write)) = (write){ index, output };
    return plan->writes.len - 1;
}

// The new operation on a column; NULL: the table has no such column.
static operation *on_column(mr_plan *plan, const char *column, mr_view view, const char *what) {
    int index = schema_index(&plan->schema, column);
    if (index < 0) return NULL;
    must_be_readable(&plan->schema.columns[index], view, what);
    size_t slot = (size_t)read_index(plan, index);
    operation *operation = arena_push(&plan->arena, &plan->operations, sizeof *operation);
    operation->slot = slot;
    operation->column = plan->schema.columns[index].name.data;
    return operation;
}

static void run_filter(const operation *op, const mr_plan *plan, const batch *batch, draft *draft) {
    (void)plan;
    const mr_column *column = &batch->columns[op->slot];
    for (size_t row = 0; row < batch->rows; row++) {
        mr_state state = mr_column_state(column, row);
        if (state == MR_NOT_SENT || (state == MR_NULL && !op->nulls)) continue;
        if (!op->keep(mr_column_get(column, row), op->with)) draft_drop(draft, row);
    }
}

static void add_filter(mr_plan *plan, const char *column, mr_view view, mr_keep keep, void *with, bool nulls) {
    operation *op = on_column(plan, column, view, "filter");
    if (!op) return;
    plan->effects |= EFFECT_DROP;
    op->run = run_filter, op->keep = keep, op->with = with, op->nulls = nulls;
}

void mr_filter(mr_plan *plan, const char *column, mr_view view, mr_keep keep, void *with) { add_filter(plan, column, view, keep, with, false); }
void mr_filter_cells(mr_plan *plan, const char *column, mr_view view, mr_keep keep, void *with) { add_filter(plan, column, view, keep, with, true); }

static void run_route(const operation *op, const mr_plan *plan, const batch *batch, draft *draft) {
    (void)plan;
    const mr_column *column = &batch->columns[op->slot];
    for (size_t row = 0; row < batch->rows; row++) {
        if (mr_column_state(column, row) != MR_VALUE) continue;
        mr_text table = op->to(mr_column_get(column, row), op->with);
        if (table.len) draft_route(draft, row, table);
    }
}

void mr_route(mr_plan *plan, const char *column, mr_view view, mr_to_table to, void *with) {
    operation *op = on_column(plan, column, view, "route");
    if (!op) return;
    plan->effects |= EFFECT_ROUTE;
    op->run = run_route, op->to = to, op->with = with;
}

static void run_convert(const operation *op, const mr_plan *plan, const batch *batch, draft *draft) {
    const mr_column *column = &batch->columns[op->slot];
    mr_out out;
    out_start(&out, AT(write, plan->writes, op->write).output.type, batch->rows, column, draft, op->column);
    for (size_t row = 0; row < batch->rows; row++) {
        mr_state state = mr_column_state(column, row);
        if (state == MR_VALUE) op->write_value(mr_column_get(column, row), &out, op->with);
        else out.state = state;
        out_end_row(&out);
    }
    mr_column written = out_finish(&out);
    draft->columns[op->write] = (abi_optional_column){ true, column_to(&written) };
}

void mr_convert(mr_plan *plan, const char *column, mr_type to, mr_view view, mr_write_value write, void *with) {
    operation *op = on_column(plan, column, view, "convert");
    if (!op) return;
    plan->effects |= EFFECT_REJECT;
    op->run = run_convert, op->write_value = write, op->with = with;
    op->write = replace(plan, schema_index(&plan->schema, column), to);
}

void mr_map(mr_plan *plan, const char *column, mr_view view, mr_write_value write, void *with) {
    const mr_column_def *definition = mr_schema_column(&plan->schema, column);
    if (definition) mr_convert(plan, column, definition->type, view, write, with);
}

static void run_map_column(const operation *op, const mr_plan *plan, const batch *batch, draft *draft) {
    mr_column written = op->write_column(&batch->columns[op->slot], op->with);
    if (mr_failed()) return;
    const mr_column_def *output = &AT(write, plan->writes, op->write).output;
    if (written.rows != batch->rows)
        return mr_fail(MR_BUG, "column %.*s was written with %zu rows of %zu", MR_ARGS(output->name), written.rows, batch->rows);
    draft->columns[op->write] = (abi_optional_column){ true, column_to(&written) };
}

void mr_map_column(mr_plan *plan, const char *column, mr_type to, mr_write_column write, void *with) {
    operation *op = on_column(plan, column, MR_ANY_VIEW, "map_column");
    if (!op) return;
    op->run = run_map_column, op->write_column = write, op->with = with;
    op->write = replace(plan, schema_index(&plan->schema, column), to);
}

static void run_inspect(const operation *op, const mr_plan *plan, const batch *batch, draft *draft) {
    (void)plan, (void)draft;
    op->look(&batch->columns[op->slot], op->with);
}

void mr_inspect(mr_plan *plan, const char *column, void (*look)(const mr_column *, void *), void *with) {
    operation *op = on_column(plan, column, MR_ANY_VIEW, "inspect");
    if (op) op->run = run_inspect, op->look = look, op->with = with;
}

int mr_read(mr_plan *plan, const char *column) {
    int index = schema_index(&plan->schema, column);
    return index < 0 ? -1 : read_index(plan, index);
}

static int row_output(mr_plan *plan, size_t write) {
    *(size_t *)arena_push(&plan->arena, &plan->row_writes, sizeof write) = write;
    return (int)plan->row_writes.len - 1;
}

int mr_write(mr_plan *plan, const char *column, mr_type to) {
    int index = schema_index(&plan->schema, column);
    return index < 0 ? -1 : row_output(plan, replace(plan, index, to));
}

int mr_add_column(mr_plan *plan, const char *name, mr_type type) {
    mr_column_def output = { .name = kept(plan, name), .type = type, .nullable = true };
    output.type.other = arena_copy(&plan->arena, type.other);
    *(write *)arena_push(&plan->arena, &plan->writes, sizeof(write)) = (write){ -1, output };
    return row_output(plan, plan->writes.len - 1);
}

static void run_each_row(const operation *op, const mr_plan *plan, const batch *batch, draft *draft) {
    size_t count = plan->row_writes.len;
    mr_out *outs = mr_alloc(count * sizeof *outs);
    for (size_t i = 0; i < count; i++)
        out_start(&outs[i], AT(write, plan->writes, AT(size_t, plan->row_writes, i)).output.type, batch->rows, NULL, draft, NULL);
    for (size_t index = 0; index < batch->rows; index++) {
        mr_row row = { batch, index, NULL, outs, draft, false };
        op->each(&row, op->with);
        // Whichever of the cells was rejected: the row writes nothing, and is refused once.
        bool rejected = row.rejected;
        for (size_t i = 0; i < count; i++) rejected |= outs[i].rejected;
        for (size_t i = 0; i < count; i++) {
            outs[i].rejected = rejected;
            out_end_row(&outs[i]);
        }
    }
    for (size_t i = 0; i < count; i++) {
        mr_column written = out_finish(&outs[i]);
        draft->columns[AT(size_t, plan->row_writes, i)] = (abi_optional_column){ true, column_to(&written) };
    }
}

void mr_each_row(mr_plan *plan, void (*each)(mr_row *, void *), void *with) {
    plan->effects |= EFFECT_REJECT;
    operation *op = arena_push(&plan->arena, &plan->operations, sizeof *op);
    op->run = run_each_row, op->each = each, op->with = with;
}

void mr_may_drop(mr_plan *plan) { plan->effects |= EFFECT_DROP; }
void mr_may_route(mr_plan *plan) { plan->effects |= EFFECT_ROUTE; }

static abi_u16s indices(const arena_list *list) {
    uint16_t *ptr = mr_alloc(list->len * sizeof *ptr);
    for (size_t i = 0; i < list->len; i++) ptr[i] = (uint16_t)AT(int, *list, i);
    return (abi_u16s){ ptr, list->len };
}

abi_transform_plan plan_answer(const mr_plan *plan) {
    abi_transform_plan answer = { .reads = indices(&plan->reads), .drops = indices(&plan->drops) };
    answer.renames = (abi_renames){ plan->renames.ptr, plan->renames.len };
    answer.rename_table.some = plan->table != NULL;
    answer.rename_table.value = mr_str(plan->table);
    static const char *const EFFECTS[] = { "drop", "reject", "route" };
    answer.effects.ptr = mr_alloc(3 * sizeof(abi_string));
    for (unsigned i = 0; i < 3; i++)
        if (plan->effects >> i & 1) answer.effects.ptr[answer.effects.len++] = mr_str(EFFECTS[i]);
    answer.writes.len = plan->writes.len;
    answer.writes.ptr = mr_alloc(plan->writes.len * sizeof(abi_write));
    for (size_t i = 0; i < plan->writes.len; i++) {
        const write *w = &AT(write, plan->writes, i);
        const mr_column_def *o = &w->output;
        abi_column_def output = { o->name, type_to(o->type), o->nullable, o->key, o->source_type, { (abi_pair *)o->ext, o->ext_len } };
        answer.writes.ptr[i] = (abi_write){ { w->replaces >= 0, (uint16_t)(w->replaces >= 0 ? w->replaces : 0) }, output };
    }
    return answer;
}

mr_type plan_read_type(const mr_plan *plan, size_t slot) { return plan->schema.columns[AT(int, plan->reads, slot)].type; }

abi_outcome plan_run(const mr_plan *plan, const batch *batch) {
    draft draft = { .rows = batch->rows };
    size_t writes = plan->writes.len;
    draft.columns = memset(mr_alloc(writes * sizeof *draft.columns), 0, writes * sizeof *draft.columns);
    for (size_t i = 0; i < plan->operations.len && !mr_failed(); i++) {
        const operation *operation = &AT(struct operation, plan->operations, i);
        operation->run(operation, plan, batch, &draft);
    }
    // A row that is dropped is not rejected.
    size_t rejects = 0;
    abi_reject *reject = draft.rejects.ptr;
    for (size_t i = 0; i < draft.rejects.len; i++)
        if (!draft.fates || draft.fates[reject[i].row] == KEEP) reject[rejects++] = reject[i];
    abi_outcome outcome = { .fates = { draft.fates != NULL, { draft.fates, draft.fates ? batch->rows : 0 } },
                            .columns = { draft.columns, writes },
                            .rejects = { reject, rejects } };
    outcome.routing.some = draft.by_row != NULL;
    outcome.routing.value = (abi_routing){ { draft.routes.ptr, draft.routes.len }, { draft.by_row, draft.by_row ? batch->rows : 0 } };
    return outcome;
}

void draft_reject(draft *draft, size_t row, const char *code, const char *column, const char *format, va_list arguments) {
    mr_text reason = mr_vformat(format, arguments);
    abi_reject *reject = arena_push(&mr_call, &draft->rejects, sizeof *reject);
    reject->row = (uint32_t)row, reject->code = arena_copy(&mr_call, mr_str(code)), reject->reason = reason;
    reject->column.some = column != NULL;
    reject->column.value = mr_str(column);
}

void draft_drop(draft *draft, size_t row) {
    if (!draft->fates) draft->fates = memset(mr_alloc(draft->rows), KEEP, draft->rows);
    draft->fates[row] = DROP;
}

void draft_route(draft *draft, size_t row, mr_text table) {
    if (!draft->by_row) {
        draft->by_row = memset(mr_alloc(draft->rows * sizeof(uint16_t)), 0, draft->rows * sizeof(uint16_t));
        *(abi_string *)arena_push(&mr_call, &draft->routes, sizeof(abi_string)) = mr_str("");
    }
    // From the last: neighbours often go the same way. Tables are few beside rows.
    for (size_t i = draft->routes.len; i-- > 0;) {
        abi_string known = AT(abi_string, draft->routes, i);
        if (known.len == table.len && !memcmp(known.data, table.data, table.len)) {
            draft->by_row[row] = (uint16_t)i;
            return;
        }
    }
    draft->by_row[row] = (uint16_t)draft->routes.len;
    mr_text copy = arena_copy(&mr_call, table);
    *(abi_string *)arena_push(&mr_call, &draft->routes, sizeof(abi_string)) = copy;
}

const char *mr_change_name(mr_change change) {
    switch (change) {
    case MR_INSERT: return "insert";
    case MR_UPDATE_PREIMAGE: return "update_preimage";
    case MR_UPDATE_POSTIMAGE: return "update_postimage";
    case MR_DELETE: return "delete";
    }
    return "other";
}

mr_change mr_row_change(const mr_row *row) { return (mr_change)row->batch->changes[row->index]; }

mr_cell mr_row_get(const mr_row *row, int input) {
    return mr_column_get(&row->batch->columns[row->inputs ? row->inputs[input] : input], row->index);
}

mr_out *mr_row_out(mr_row *row, int output) { return &row->outs[output]; }
void mr_row_drop(mr_row *row) { draft_drop(row->draft, row->index); }
void mr_row_route(mr_row *row, mr_text table) { draft_route(row->draft, row->index, table); }

void mr_row_reject(mr_row *row, const char *code, const char *format, ...) {
    if (row->rejected) return;
    va_list arguments;
    va_start(arguments, format);
    draft_reject(row->draft, row->index, code, NULL, format, arguments);
    va_end(arguments);
    row->rejected = true;
}
