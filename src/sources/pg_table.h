/* The tables of a stream as it has described them, and what templates make of their columns.
 *
 * Rows of a partition are told as those of the table that is published, but logged as the
 * partition's own replica identity says. The stream describes that table, then the partition,
 * before a row of it comes for the first time; which partition a row is of it does not say. So a
 * table knows what of old rows may be missing, though its own identity promises all of them:
 * `n_less`, `n_has`. */
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
    unsigned n_has; /* of the table's n_less: those that log the column of an old row */
};

/* What a template makes of a table. */
struct pg_binding {
    const struct pg_watch *watch;
    uint8_t *uses; /* for each column: PG_USE_ROW, PG_USE_KEY */
    bool lacks;    /* a column that it tells is not there any more */
};
enum { PG_USE_ROW = 1, PG_USE_KEY = 2 };

struct pg_table {
    uint32_t oid;
    bool watching;     /* it is fanwire.watching */
    char *name;        /* as JSON */
    bool full;         /* REPLICA IDENTITY FULL */
    uint32_t whole;    /* the table that it may be a partition of; 0: of none */
    unsigned n_fields; /* at most PG_COLUMNS_MAX */
    struct pg_field *fields;
    unsigned n_less; /* of a full one: its partitions that log less of old rows */
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
    uint32_t described; /* by the last message; 0: that was none that describes a table */
};

void pg_tables_clear(struct pg_tables *all);
/* Each takes a message of its kind. Returns 0, -EBADMSG or -ENOMEM. */
int pg_tables_take_type(struct pg_tables *all, const struct pg_output *m);
int pg_tables_take_relation(struct pg_tables *all, const struct pg_output *m);
void pg_tables_take_change(struct pg_tables *all); /* any other message */
struct pg_table *pg_tables_find(const struct pg_tables *all,
                                uint32_t oid); /* NULL: not described */

/* Brings the table's bindings up to date: one for each template that is active, in the order of
 * their ids. They borrow from `watching` until it changes. Returns 0 or -ENOMEM. */
int pg_table_bind(struct pg_table *t, const struct pg_watching *watching);
int pg_table_field(const struct pg_table *t, const char *name, size_t len); /* -1: no such column */

#endif
