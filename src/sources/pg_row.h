/* Changes of watched tables as events: what is watched, how the tables look, the contract's JSON.
 *
 * All of it comes out of the stream: relations and types are described before their first change,
 * and what is watched is a table of the publication itself, fanwire.watching. Only how that one was
 * when the stream began is asked beforehand. */
#ifndef SOURCES_PG_ROW_H
#define SOURCES_PG_ROW_H

#include "pg_output.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PG_ROW_SUB_BITS 24 /* of pg_row_event.sub */

struct pg_row_event {
    const char *channel;
    size_t channel_len;
    const void *data; /* NULL: too large, `len` is what is too much */
    size_t len;
    uint32_t sub; /* rises among the events of one change, and is the same each time it is read */
};

/* Who takes the events. */
struct pg_row_sink {
    void (*event)(void *arg, const struct pg_row_event *event);
    void (*refused)(void *arg, const char *why); /* why: lent for the call */
    void *arg;
};

/* A row of fanwire.watching, as text; NULL: null. */
struct pg_watch_row {
    const char *id, *relation, *channel, *columns, *keys, *ended;
};

struct pg_rows;

struct pg_rows *pg_rows_new(size_t event_max); /* NULL: out of memory */
void pg_rows_free(struct pg_rows *rows);
void pg_rows_reset(struct pg_rows *rows); /* a new stream begins */

/* What was watched when it was asked. What has ended counts as watched until pg_rows_settle(): the
 * stream may begin before that end. Returns 0, -EINVAL or -ENOMEM. */
int pg_rows_watch(struct pg_rows *rows, const struct pg_watch_row *row);
/* The stream has come to where it was asked: what had ended then has ended. */
void pg_rows_settle(struct pg_rows *rows);

/* Takes a message: a relation, a type, or a change, of a transaction with this id. Others are
 * ignored. Returns 0, -EBADMSG for what does not fit together, -ENOMEM. */
int pg_rows_take(struct pg_rows *rows, const struct pg_output *message, uint64_t xid,
                 const struct pg_row_sink *sink);

#endif
