/* Which foreign names the server is told to LISTEN to, and how it gets there: a set of names, each
 * wanted or not, each known to the server or not, brought together in batches. No I/O. */
#ifndef SOURCES_PG_NAMES_H
#define SOURCES_PG_NAMES_H

#include "buf.h"
#include "list.h"
#include "map.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PG_NAME_MAX    63  /* bytes; LISTEN cuts longer names silently */
#define PG_NAMES_BATCH 500 /* statements in one query */

struct pg_names {
    struct map map;
    struct list pending; /* names whose state and wish may differ */
    struct list batch;   /* names in the query that is in flight */
    unsigned n_batch;
    uint64_t key[2];
    /* May call pg_names_want() and pg_names_drop(). */
    void (*on_ready)(void *arg, const char *name, size_t len);
    void (*on_refused)(void *arg, const char *name, size_t len, const char *message);
    void *arg;
};

void pg_names_init(struct pg_names *names);
void pg_names_reset(struct pg_names *names); /* forgets all: a new connection listens to nothing */

/* Wish and withdrawal; on_ready or on_refused is called later, by next() or settle(). */
int pg_names_want(struct pg_names *names, const char *name, size_t len); /* 0 or -ENOMEM */
void pg_names_drop(struct pg_names *names, const char *name, size_t len);

/* Writes the next query, NUL-terminated, for a connection without a query in flight. Returns the
 * number of statements; 0 = nothing to do, nothing written. settle() must follow. */
unsigned pg_names_next(struct pg_names *names, PGconn *conn, struct buf *sql);
/* The query of next() has ended. When a batch failed, its names are tried again one by one, so that
 * only the bad one is refused. */
void pg_names_settle(struct pg_names *names, bool ok, const char *message);

#endif
