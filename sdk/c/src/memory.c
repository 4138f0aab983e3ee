// Memory by the call: everything that crosses the boundary, both ways, lives in one arena that is emptied when the call ends, so
// that nothing leaks and no answer has to be freed piece by piece.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define BLOCK ((size_t)64 << 10)
// A block beyond this is given back at the end of the call: one large batch does not hold its memory for good.
#define KEPT ((size_t)1 << 20)

struct arena_block {
    struct arena_block *before;
    size_t used, size;
    char data[] __attribute__((aligned(16)));
};

arena mr_call;

static size_t rounded(size_t size) { return (size + 15) & ~(size_t)15; }

static struct arena_block *new_block(arena *arena, size_t size) {
    struct arena_block *block = malloc(sizeof *block + size);
    // The host sees the trap together with the refused growth, and names the limit.
    if (!block) __builtin_trap();
    *block = (struct arena_block){ arena->block, 0, size };
    return arena->block = block;
}

void *arena_alloc(arena *arena, size_t size) {
    size = rounded(size ? size : 1);
    struct arena_block *block = arena->block;
    if (!block || block->size - block->used < size) {
        size_t next = block && block->size < KEPT ? 2 * block->size : BLOCK;
        block = new_block(arena, size > next ? size : next);
    }
    void *result = block->data + block->used;
    block->used += size;
    return result;
}

void *arena_grow(arena *arena, void *old, size_t old_size, size_t size) {
    struct arena_block *block = arena->block;
    size_t held = rounded(old_size ? old_size : 1), wanted = rounded(size);
    if (old && block && (char *)old + held == block->data + block->used && block->size - block->used >= wanted - held) {
        block->used += wanted - held;
        return old;
    }
    void *result = arena_alloc(arena, size);
    if (old_size) memcpy(result, old, old_size);
    return result;
}

void arena_reset(arena *arena) {
    struct arena_block *block = arena->block, *kept = NULL;
    while (block) {
        struct arena_block *before = block->before;
        // The largest of those that are kept, for the next call needs about as much.
        if (block->size <= KEPT && (!kept || block->size > kept->size)) {
            free(kept);
            kept = block;
        } else {
            free(block);
        }
        block = before;
    }
    if (kept) kept->before = NULL, kept->used = 0;
    arena->block = kept;
}

void arena_free(arena *arena) {
    while (arena->block) {
        struct arena_block *before = arena->block->before;
        free(arena->block);
        arena->block = before;
    }
}

void *arena_push(arena *arena, void *list, size_t size) {
    arena_list *grown = list;
    if (grown->len == grown->room) {
        size_t room = grown->room ? 2 * grown->room : 8;
        grown->ptr = arena_grow(arena, grown->ptr, grown->len * size, room * size);
        grown->room = room;
    }
    return memset((char *)grown->ptr + size * grown->len++, 0, size);
}

mr_text arena_copy(arena *arena, mr_text text) {
    char *data = arena_alloc(arena, text.len + 1);
    if (text.len) memcpy(data, text.data, text.len);
    data[text.len] = 0;
    return (mr_text){ data, text.len };
}

void *mr_alloc(size_t size) { return arena_alloc(&mr_call, size); }

mr_text mr_vformat(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, arguments);
    if (len < 0) len = 0;
    char *data = mr_alloc((size_t)len + 1);
    vsnprintf(data, (size_t)len + 1, format, again);
    va_end(again);
    return (mr_text){ data, (size_t)len };
}

mr_text mr_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    mr_text text = mr_vformat(format, arguments);
    va_end(arguments);
    return text;
}

mr_text mr_str(const char *string) { return (mr_text){ string, string ? strlen(string) : 0 }; }

bool mr_equals(mr_text text, const char *string) {
    size_t len = strlen(string);
    return text.len == len && !memcmp(text.data, string, len);
}

call_error mr_error;

void mr_vfail(mr_error_kind kind, const char *format, va_list arguments) {
    if (mr_error.set) return;
    mr_error = (call_error){ true, kind, 1000, mr_vformat(format, arguments) };
}

void mr_fail(mr_error_kind kind, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    mr_vfail(kind, format, arguments);
    va_end(arguments);
}

void mr_retry(uint32_t after_ms, const char *format, ...) {
    bool first = !mr_error.set;
    va_list arguments;
    va_start(arguments, format);
    mr_vfail(MR_RETRY_LATER, format, arguments);
    va_end(arguments);
    if (first) mr_error.after_ms = after_ms;
}

bool mr_failed(void) { return mr_error.set; }

abi_error mr_take_error(void) {
    abi_error error = { .tag = (uint8_t)mr_error.kind };
    if (mr_error.kind == MR_RETRY_LATER) {
        error.retry.after_ms = mr_error.after_ms;
        error.retry.reason = mr_error.message;
    } else {
        error.message = mr_error.message;
    }
    mr_error = (call_error){ 0 };
    return error;
}

#ifdef __wasm__
// The host allocates what it hands over: arguments, and the answers of its own functions.
__attribute__((export_name("cabi_realloc"))) void *mr_cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)align; // 8 at most, and the arena aligns to 16
    if (!size) return (void *)align;
    return old_size ? arena_grow(&mr_call, old, old_size, size) : mr_alloc(size);
}
#endif
