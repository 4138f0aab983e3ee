// JSON documents: the config of a plugin, and the rows of its unit tests.
#include <stdlib.h>
#include <string.h>

#include "internal.h"

// Deeper documents are refused: the reader recurses, and the stack is small.
#define MAX_DEPTH 64

struct mr_json {
    mr_json_kind kind;
    bool boolean;
    mr_text text; // of a string without its escapes; of a number as it is
    arena_list members;
};
typedef struct { mr_text name; mr_json value; } member; // of a list: without a name

typedef struct { const char *at, *end, *wrong; unsigned depth; } reader;

static bool fail(reader *r, const char *wrong) {
    if (!r->wrong) r->wrong = wrong;
    return false;
}

static void blank(reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) r->at++;
}

static bool take(reader *r, char c) {
    blank(r);
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

static bool word(reader *r, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len)) return fail(r, "it is no JSON");
    r->at += len;
    return true;
}

static bool hex4(reader *r, uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        char c = r->at < r->end ? *r->at : 0;
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0) return fail(r, "a \\u without four hexadecimal digits");
        *code = *code << 4 | (uint32_t)digit;
    }
    return true;
}

static char *utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6), *to++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *to++ = (char)(0xE0 | code >> 12), *to++ = (char)(0x80 | (code >> 6 & 63)), *to++ = (char)(0x80 | (code & 63));
    } else {
        *to++ = (char)(0xF0 | code >> 18), *to++ = (char)(0x80 | (code >> 12 & 63));
        *to++ = (char)(0x80 | (code >> 6 & 63)), *to++ = (char)(0x80 | (code & 63));
    }
    return to;
}

static bool escape(reader *r, char **to) {
    static const char NAMES[] = "\"\\/bfnrt", VALUES[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->end ? *r->at++ : 0;
    const char *known = c ? strchr(NAMES, c) : NULL;
    if (known) return *(*to)++ = VALUES[known - NAMES], true;
    uint32_t code, low;
    if (c != 'u') return fail(r, "an unknown escape");
    if (!hex4(r, &code)) return false;
    if (code >= 0xD800 && code < 0xDC00) {
        if (!word(r, "\\u") || !hex4(r, &low) || low < 0xDC00 || low > 0xDFFF) return fail(r, "half a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    *to = utf8(*to, code);
    return true;
}

static bool string(reader *r, mr_text *text) {
    if (!take(r, '"')) return fail(r, "a string is expected");
    const char *end = r->at;
    while (end < r->end && *end != '"') end += *end == '\\' ? 2 : 1;
    if (end >= r->end) return fail(r, "a string without an end");
    // Escapes are longer than what they stand for.
    char *data = mr_alloc((size_t)(end - r->at) + 1), *to = data;
    while (r->at < end) {
        if (*r->at != '\\') *to++ = *r->at++;
        else if (r->at++, !escape(r, &to)) return false;
    }
    r->at = end + 1;
    *to = 0;
    *text = (mr_text){ data, (size_t)(to - data) };
    return true;
}

static bool value(reader *r, mr_json *json);

static bool members(reader *r, mr_json *json, char close) {
    r->at++;
    if (++r->depth > MAX_DEPTH) return fail(r, "it is too deep");
    if (!take(r, close))
        do {
            member *m = arena_push(&mr_call, &json->members, sizeof *m), read = { 0 };
            size_t index = json->members.len - 1;
            if (close == '}' && (!string(r, &read.name) || !take(r, ':'))) return fail(r, "a member without a name");
            if (!value(r, &read.value)) return false;
            m = (member *)json->members.ptr + index;
            *m = read;
            if (take(r, close)) break;
            if (!take(r, ',')) return fail(r, "a comma is expected");
        } while (true);
    r->depth--;
    return true;
}

static bool number(reader *r, mr_json *json) {
    const char *start = r->at;
    while (r->at < r->end && ((*r->at >= '0' && *r->at <= '9') || strchr("+-.eE", *r->at))) r->at++;
    json->kind = MR_JSON_NUMBER;
    json->text = arena_copy(&mr_call, (mr_text){ start, (size_t)(r->at - start) });
    return r->at > start || fail(r, "it is no JSON");
}

static bool value(reader *r, mr_json *json) {
    blank(r);
    *json = (mr_json){ 0 };
    switch (r->at < r->end ? *r->at : 0) {
    case '{': return json->kind = MR_JSON_OBJECT, members(r, json, '}');
    case '[': return json->kind = MR_JSON_LIST, members(r, json, ']');
    case '"': return json->kind = MR_JSON_TEXT, string(r, &json->text);
    case 'n': return word(r, "null");
    case 't': return json->kind = MR_JSON_BOOL, json->boolean = true, word(r, "true");
    case 'f': return json->kind = MR_JSON_BOOL, word(r, "false");
    default: return number(r, json);
    }
}

const mr_json *mr_json_parse(mr_text document, const char **wrong) {
    reader reader = { document.data, document.data + document.len, NULL, 0 };
    mr_json *json = mr_alloc(sizeof *json);
    bool read = value(&reader, json);
    blank(&reader);
    if (read && reader.at != reader.end) read = fail(&reader, "there is more after the document");
    if (read) return json;
    if (wrong) *wrong = mr_format("%s, at byte %zu", reader.wrong, (size_t)(reader.at - document.data)).data;
    return NULL;
}

mr_json_kind mr_json_kind_of(const mr_json *json) { return json ? json->kind : MR_JSON_NULL; }
size_t mr_json_len(const mr_json *json) { return json ? json->members.len : 0; }

const mr_json *mr_json_get(const mr_json *json, const char *name) {
    if (mr_json_kind_of(json) != MR_JSON_OBJECT) return NULL;
    const member *members = json->members.ptr;
    // The last of two with one name counts, as in other readers.
    for (size_t i = json->members.len; i-- > 0;)
        if (mr_equals(members[i].name, name)) return &members[i].value;
    return NULL;
}

const mr_json *mr_json_at(const mr_json *json, size_t index) { return index < mr_json_len(json) ? &((member *)json->members.ptr)[index].value : NULL; }

mr_text mr_json_name(const mr_json *json, size_t index) {
    return index < mr_json_len(json) ? ((member *)json->members.ptr)[index].name : mr_str("");
}

mr_text mr_json_text(const mr_json *json, const char *otherwise) {
    return mr_json_kind_of(json) == MR_JSON_TEXT ? json->text : mr_str(otherwise);
}

char *mr_json_copy(const mr_json *json, const char *otherwise) {
    mr_text text = mr_json_text(json, otherwise);
    char *copy = malloc(text.len + 1);
    if (!copy) __builtin_trap();
    if (text.len) memcpy(copy, text.data, text.len);
    copy[text.len] = 0;
    return copy;
}

int64_t mr_json_int(const mr_json *json, int64_t otherwise) {
    if (mr_json_kind_of(json) != MR_JSON_NUMBER) return otherwise;
    int64_t exact;
    if (mr_scaled(json->text, 0, &exact)) return exact;
    return (int64_t)strtod(json->text.data, NULL);
}

double mr_json_number(const mr_json *json, double otherwise) {
    return mr_json_kind_of(json) == MR_JSON_NUMBER ? strtod(json->text.data, NULL) : otherwise;
}

bool mr_json_bool(const mr_json *json, bool otherwise) { return mr_json_kind_of(json) == MR_JSON_BOOL ? json->boolean : otherwise; }

mr_text mr_json_number_text(const mr_json *json) { return json->text; }
