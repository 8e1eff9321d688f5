/* The tables of a stream as it has described them, and what templates make of their columns. */
#ifndef SOURCES_PG_TABLE_H
#define SOURCES_PG_TABLE_H

#include "pg_json.h"
#include "pg_output.h"
#include "pg_watching.h"

#define PG_COLUMNS_MAX 1664 /* of a row, in Postgres */

struct pg_field {
    char *name; /* as it is */
    char *json; /* "name": */
    struct pg_json_type type;
    bool identity;
};

/* What a template makes of a table. */
struct pg_binding {
    const struct pg_watch *watch;
    uint8_t *uses; /* for each column: PG_USE_ROW, PG_USE_KEY */
};
enum { PG_USE_ROW = 1, PG_USE_KEY = 2 };

struct pg_table {
    uint32_t oid;
    bool watching;     /* it is fanwire.watching */
    char *name;        /* as JSON */
    unsigned n_fields; /* at most PG_COLUMNS_MAX */
    struct pg_field *fields;
    bool unbound;
    unsigned serial; /* of what the bindings were made of */
    struct pg_binding *bindings;
    size_t n_bindings;
};

struct pg_user_type {
    uint32_t oid;
    struct pg_json_type type;
};

struct pg_tables {
    struct pg_table *tables;
    size_t n_tables;
    struct pg_user_type *types;
    size_t n_types;
};

void pg_tables_clear(struct pg_tables *all);
/* Each takes a message of its kind. Returns 0, -EBADMSG or -ENOMEM. */
int pg_tables_take_type(struct pg_tables *all, const struct pg_output *m);
int pg_tables_take_relation(struct pg_tables *all, const struct pg_output *m);
struct pg_table *pg_tables_find(const struct pg_tables *all,
                                uint32_t oid); /* NULL: not described */

/* Brings the table's bindings up to date: one for each template that is active, in the order of
 * their ids. They borrow from `watching` until it changes. Returns 0 or -ENOMEM. */
int pg_table_bind(struct pg_table *t, const struct pg_watching *watching);
int pg_table_field(const struct pg_table *t, const char *name, size_t len); /* -1: no such column */

#endif
