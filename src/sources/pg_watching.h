/* What is watched: a channel template of a table, and which columns its events have. */
#ifndef SOURCES_PG_WATCHING_H
#define SOURCES_PG_WATCHING_H

#include "pg_row.h"

#include <jansson.h>

struct pg_watch {
    uint32_t id, relation;
    char *channel;
    json_t *columns, *keys; /* arrays of names; NULL: all columns, no key */
    bool active;
    bool doubtful; /* had ended when it was asked: till pg_rows_settle() */
};

/* Sorted by id. */
struct pg_watching {
    struct pg_watch *items;
    size_t n, cap;
    unsigned serial; /* changes with each change */
};

void pg_watching_clear(struct pg_watching *watching);
/* Puts a row in place of the one with its relation and channel. Returns 0, -EINVAL, -ENOMEM. */
int pg_watching_put(struct pg_watching *watching, const struct pg_watch_row *row, bool asked);
void pg_watching_remove(struct pg_watching *watching, const struct pg_watch_row *row);
void pg_watching_settle(struct pg_watching *watching);

#endif
