/* pgoutput, protocol version 1: the messages of a logical replication stream, without I/O.
 *
 * Postgres documentation, "Logical Replication Message Formats". Any bytes may come in: a message
 * that does not parse to its last byte is refused, so that what is read from a parsed one needs no
 * further checks. */
#ifndef SOURCES_PG_OUTPUT_H
#define SOURCES_PG_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Unread bytes; borrowed from the message. */
struct pg_span {
    const uint8_t *at;
    size_t len;
};

/* A row: pg_tuple_next() takes its values, in the order of the relation's columns. */
struct pg_tuple {
    uint16_t n; /* values that are left */
    struct pg_span rest;
};

struct pg_value {
    char kind; /* 'n' null, 'u' unchanged and not sent (TOAST), 't' text */
    const char *text;
    size_t len;
};

struct pg_column {
    const char *name;
    uint32_t type;
    bool identity; /* part of the replica identity */
};

enum pg_output_kind {
    PG_BEGIN = 'B',
    PG_COMMIT = 'C',
    PG_ORIGIN = 'O',
    PG_RELATION = 'R',
    PG_TYPE = 'Y',
    PG_INSERT = 'I',
    PG_UPDATE = 'U',
    PG_DELETE = 'D',
    PG_TRUNCATE = 'T',
    PG_MESSAGE = 'M',
};

/* A message; all of it is borrowed from the bytes. */
struct pg_output {
    enum pg_output_kind kind;
    uint64_t lsn;                  /* begin, commit: of the commit record; message: its own */
    uint64_t end_lsn;              /* commit: behind the commit record */
    int64_t time_ms;               /* begin, commit: of the commit, since 1970 */
    uint32_t xid;                  /* begin */
    uint32_t oid;                  /* relation and changes: the table; type: the type */
    const char *name_space, *name; /* relation, type; "" for pg_catalog; name: origin as well */
    struct pg_tuple columns;       /* relation: pg_column_next() */
    char identity; /* relation: its replica identity, 'd' key, 'i' index, 'f' full, 'n' nothing */
    char old_kind; /* update, delete: 'K' the identity's columns, 'O' all, 0 none */
    struct pg_tuple old_row, row;
    struct pg_tuple tables; /* truncate: pg_oid_next() */
    bool transactional;     /* message */
    const char *prefix, *content;
    size_t content_len;
};

/* Returns 0, or -EBADMSG for what is no message of this protocol. */
int pg_output_parse(const void *data, size_t len, struct pg_output *ret);

/* Each takes the next one; false at the end. */
bool pg_tuple_next(struct pg_tuple *tuple, struct pg_value *ret);
bool pg_column_next(struct pg_tuple *columns, struct pg_column *ret);
bool pg_oid_next(struct pg_tuple *tables, uint32_t *ret);

#endif
