/* A value of a column, in the text that Postgres writes, as JSON: what to_jsonb() makes of it. */
#include "pg_json.h"

#include "json.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define DIMENSIONS_MAX 6 /* of an array, in Postgres */

/* The types whose text is not simply a string. Their oids are fixed for ever (pg_type.dat). */
static const struct {
    uint32_t oid, array;
    const char *name;
    enum pg_json_kind kind;
} plain[] = {
    { 16, 1000, "bool", PG_JSON_BOOL },
    { 20, 1016, "int8", PG_JSON_NUMBER },
    { 21, 1005, "int2", PG_JSON_NUMBER },
    { 23, 1007, "int4", PG_JSON_NUMBER },
    { 114, 199, "json", PG_JSON_JSON },
    { 700, 1021, "float4", PG_JSON_NUMBER },
    { 701, 1022, "float8", PG_JSON_NUMBER },
    { 1114, 1115, "timestamp", PG_JSON_TIMESTAMP },
    { 1184, 1185, "timestamptz", PG_JSON_TIMESTAMPTZ },
    { 1700, 1231, "numeric", PG_JSON_NUMBER },
    { 3802, 3807, "jsonb", PG_JSON_JSON },
};
#define N_PLAIN (sizeof plain / sizeof plain[0])

/* The other built-in arrays: of strings. */
static const uint16_t string_arrays[] = {
    143,  271,  629,  651,  719,  775,  791,  1001, 1002, 1003, 1006, 1008, 1009, 1010,
    1011, 1012, 1013, 1014, 1015, 1017, 1018, 1019, 1020, 1027, 1028, 1034, 1040, 1041,
    1182, 1183, 1187, 1263, 1270, 1561, 1563, 2201, 2207, 2208, 2209, 2210, 2211, 2949,
    2951, 3221, 3643, 3644, 3645, 3735, 3770, 3905, 3907, 3909, 3911, 3913, 3927, 4073,
    4090, 4097, 4192, 5039, 6150, 6151, 6152, 6153, 6155, 6157,
};
#define BOX_ARRAY 1020 /* the one whose elements are full of commas */

struct pg_json_type pg_json_type(uint32_t oid)
{
    struct pg_json_type type = { .delimiter = oid == BOX_ARRAY ? ';' : ',' };
    for (size_t i = 0; i < N_PLAIN; i++)
        if (plain[i].oid == oid || plain[i].array == oid) {
            type.kind = plain[i].kind;
            type.array = plain[i].array == oid;
            return type;
        }
    for (size_t i = 0; i < sizeof string_arrays / sizeof string_arrays[0] && !type.array; i++)
        type.array = string_arrays[i] == oid;
    return type;
}

struct pg_json_type pg_json_type_named(const char *name_space, const char *name)
{
    struct pg_json_type type = { .array = name[0] == '_', .delimiter = ',' };
    bool built_in = !name_space[0] || !strcmp(name_space, "pg_catalog");
    if (!strcmp(name, "_box"))
        type.delimiter = ';';
    for (size_t i = 0; i < N_PLAIN && built_in; i++)
        if (!strcmp(plain[i].name, name + type.array))
            type.kind = plain[i].kind;
    return type;
}

/* ---- scalars ---- */

/* NaN and the infinities are none in JSON. */
static bool is_number(const char *text, size_t len)
{
    static const char allowed[] = "0123456789+-.eE";
    for (size_t i = 0; i < len; i++)
        if (!memchr(allowed, text[i], sizeof allowed - 1))
            return false;
    return json_valid(text, len, NULL);
}

/* Of what a time is written with, none needs an escape in JSON. */
static bool is_time(const char *text, size_t len)
{
    static const char allowed[] = "0123456789 +-:.infityBC";
    for (size_t i = 0; i < len; i++)
        if (!memchr(allowed, text[i], sizeof allowed - 1))
            return false;
    return true;
}

/* "2026-11-22 08:15:02.5+01" → "2026-11-22T08:15:02.5+01:00"; "infinity" and " BC" stay. */
static void write_timestamp(struct buf *b, const char *text, size_t len, bool zone)
{
    const char *space = memchr(text, ' ', len), *end = text + len;
    if (!space) {
        (void)buf_append(b, text, len);
        return;
    }
    const char *sign = zone ? space : end;
    while (sign < end && *sign != '+' && *sign != '-')
        sign++;
    const char *after = sign;
    while (after < end && *after != ' ')
        after++;
    (void)buf_append(b, text, (size_t)(space - text));
    (void)buf_append_char(b, 'T');
    (void)buf_append(b, space + 1, (size_t)(after - space - 1));
    if (after - sign == 3)
        (void)buf_append_str(b, ":00");
    (void)buf_append(b, after, (size_t)(end - after));
}

/* The value without quotes, if it is one that needs none of JSON's escapes; false otherwise. */
static bool write_plain(struct buf *b, enum pg_json_kind kind, const char *text, size_t len)
{
    if (kind == PG_JSON_BOOL && len == 1 && (text[0] == 't' || text[0] == 'f'))
        (void)buf_append_str(b, text[0] == 't' ? "true" : "false");
    else if (kind == PG_JSON_NUMBER && is_number(text, len))
        (void)buf_append(b, text, len);
    else
        return false;
    return true;
}

static void write_scalar(struct buf *b, enum pg_json_kind kind, const char *text, size_t len)
{
    if (write_plain(b, kind, text, len))
        return;
    if (kind == PG_JSON_JSON && json_valid(text, len, NULL)) {
        (void)buf_append(b, text, len);
    } else if ((kind == PG_JSON_TIMESTAMP || kind == PG_JSON_TIMESTAMPTZ) && is_time(text, len)) {
        (void)buf_append_char(b, '"');
        write_timestamp(b, text, len, kind == PG_JSON_TIMESTAMPTZ);
        (void)buf_append_char(b, '"');
    } else {
        (void)json_append_string(b, text, len);
    }
}

/* ---- arrays: {1,NULL,"a \"b\""}, {{1,2},{3,4}}, [0:1]={1,2} ---- */

struct array {
    const char *at, *end;
    struct pg_json_type type;
    char *element; /* as long as the text */
};

/* Takes the element that begins here, unescaped. Returns its length. */
static size_t take_element(struct array *a, bool *ret_quoted)
{
    size_t len = 0;
    *ret_quoted = a->at < a->end && *a->at == '"';
    if (*ret_quoted)
        a->at++;
    while (a->at < a->end) {
        char c = *a->at;
        if (*ret_quoted ? c == '"' : c == a->type.delimiter || c == '}')
            break;
        if (c == '\\' && a->end - a->at > 1)
            c = *++a->at;
        a->element[len++] = c;
        a->at++;
    }
    if (*ret_quoted && a->at < a->end)
        a->at++;
    return len;
}

/* False if there is none. */
static bool write_element(struct array *a, struct buf *b)
{
    bool quoted;
    size_t len = take_element(a, &quoted);
    if (!quoted && len == 4 && !memcmp(a->element, "NULL", 4))
        (void)buf_append_str(b, "null");
    else
        write_scalar(b, a->type.kind, a->element, len);
    return quoted || len > 0;
}

static void skip_bounds(struct array *a)
{
    const char *equals =
        a->at < a->end && *a->at == '[' ? memchr(a->at, '=', (size_t)(a->end - a->at)) : NULL;
    if (equals)
        a->at = equals + 1;
}

/* True when it was an array to its end. */
static bool write_elements(struct array *a, struct buf *b)
{
    unsigned depth = 0;
    bool value_due = true; /* not a delimiter or a closing brace */
    skip_bounds(a);
    do {
        char c = a->at < a->end ? *a->at : '\0';
        if (c == '{' && value_due && depth < DIMENSIONS_MAX) {
            depth++;
            a->at++;
            (void)buf_append_char(b, '[');
            value_due = a->at == a->end || *a->at != '}';
        } else if (c == '}' && !value_due && depth > 0) {
            depth--;
            a->at++;
            (void)buf_append_char(b, ']');
        } else if (c == a->type.delimiter && !value_due && depth > 0) {
            a->at++;
            (void)buf_append_char(b, ',');
            value_due = true;
        } else if (value_due && depth > 0 && a->at < a->end && write_element(a, b)) {
            value_due = false;
        } else {
            return false;
        }
    } while (depth > 0);
    return a->at == a->end;
}

static int write_array(struct buf *b, struct pg_json_type type, const char *text, size_t len)
{
    struct array a = { .at = text, .end = text + len, .type = type, .element = malloc(len + 1) };
    size_t before = b->len;
    if (!a.element)
        return b->failed = -ENOMEM;
    bool ok = write_elements(&a, b);
    free(a.element);
    if (ok || b->failed)
        return b->failed;
    b->len = before;
    return json_append_string(b, text, len);
}

int pg_json_write(struct buf *b, struct pg_json_type type, const char *text, size_t len)
{
    if (type.array)
        return write_array(b, type, text, len);
    write_scalar(b, type.kind, text, len);
    return b->failed;
}

static bool write_json_string(struct buf *b, const char *text, size_t len)
{
    json_t *value = len > 0 && text[0] == '"' ? json_loadb(text, len, JSON_DECODE_ANY, NULL) : NULL;
    if (value)
        (void)buf_append(b, json_string_value(value), json_string_length(value));
    json_decref(value);
    return value;
}

int pg_json_write_text(struct buf *b, struct pg_json_type type, const char *text, size_t len)
{
    if (type.array)
        return write_array(b, type, text, len);
    if (type.kind == PG_JSON_TIMESTAMP || type.kind == PG_JSON_TIMESTAMPTZ)
        write_timestamp(b, text, len, type.kind == PG_JSON_TIMESTAMPTZ);
    else if (!write_plain(b, type.kind, text, len) &&
             !(type.kind == PG_JSON_JSON && write_json_string(b, text, len)))
        (void)buf_append(b, text, len);
    return b->failed;
}
