/* A value of a column, in the text that Postgres writes, as JSON: what to_jsonb() makes of it. */
#ifndef SOURCES_PG_JSON_H
#define SOURCES_PG_JSON_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pg_json_kind {
    PG_JSON_STRING, /* everything else */
    PG_JSON_NUMBER,
    PG_JSON_BOOL,
    PG_JSON_JSON, /* json, jsonb: as it is */
    PG_JSON_TIMESTAMP,
    PG_JSON_TIMESTAMPTZ,
};

struct pg_json_type {
    enum pg_json_kind kind; /* of the elements, if it is an array */
    bool array;
    char delimiter; /* between an array's elements */
};

/* The built-in type with this oid; text if it is none that is known. */
struct pg_json_type pg_json_type(uint32_t oid);
/* A type by its name, "" or "pg_catalog" being the schema of built-in ones: of a domain, pgoutput
 * tells the type beneath. One of a database's own is text, an array of text if its name begins with
 * an underscore. */
struct pg_json_type pg_json_type_named(const char *name_space, const char *name);

/* Appends the value. Returns what buf_append() returns. What is not as its type says becomes a
 * string. */
int pg_json_write(struct buf *b, struct pg_json_type type, const char *text, size_t len);
/* The same as `->>` gives it: a string without quotes and escapes. */
int pg_json_write_text(struct buf *b, struct pg_json_type type, const char *text, size_t len);

#endif
