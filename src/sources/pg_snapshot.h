/* Rows for those who join a channel: the query, the moment it shows, and when the stream has come
 * there. On a connection of its own, opened by the first query and closed after a minute. */
#ifndef SOURCES_PG_SNAPSHOT_H
#define SOURCES_PG_SNAPSHOT_H

#include "buf.h"
#include "pg_link.h"

#include <fanwire/source.h>
#include <stdbool.h>
#include <stdint.h>

struct pg_reader;

/* How a mode joins rows to its events. All zero: it cannot tell what the rows contain. */
struct pg_join {
    /* One statement in the rows' transaction: a place in the stream, before which stands everything
     * that the rows contain. */
    const char *sql;
    bool (*place)(const PGresult *result, uint64_t ret_place[2]); /* false: the very beginning */
    const char *after; /* a statement after the transaction, which may fail; NULL: none */
    bool (*reached)(const struct pg_reader *reader, const uint64_t place[2]);
    /* The position up to which all transactions have ids below `xid`. */
    void (*floor)(const struct pg_reader *reader, uint64_t xid, uint64_t ret_pos[2]);
};

/* pg_current_snapshot(): a transaction is seen if its id is below xmin, or below xmax and not in
 * the list. */
struct pg_visible {
    uint64_t xmin, xmax, *xip; /* xip: in progress, rising */
    size_t n;
};
int pg_visible_read(const char *text, struct pg_visible *ret); /* 0, -EINVAL, -ENOMEM */
bool pg_visible_has(const struct pg_visible *visible, uint64_t xid);
void pg_visible_done(struct pg_visible *visible);

struct pg_snapshot {
    struct fw_host *host;
    struct pg_link link;
    enum { SNAPSHOT_CLOSED, SNAPSHOT_CONNECTING, SNAPSHOT_OPEN } state;
    enum { STEP_IDLE, STEP_BEGIN, STEP_ROWS, STEP_END, STEP_WAIT } step;
    bool reused;                /* the connection may have ended since the last question */
    const struct pg_join *join; /* of the question, as all below */
    const struct pg_reader *reader;
    uint64_t request;
    const char *sql;
    struct buf rows;
    size_t n_rows;
    struct pg_visible visible;
    uint64_t place[2];
    int64_t since_ms;       /* of the step, or since when the connection is idle */
    struct fw_timer *timer; /* the stream's progress; time limits */
};

/* `url` is borrowed for the snapshot's life. No I/O. */
void pg_snapshot_init(struct pg_snapshot *snapshot, struct fw_host *host, const struct pg_url *url);
/* Runs the query; ends in fw_host_snapshot() or fw_host_snapshot_refused(). `join` and `reader` are
 * borrowed until then, or until pg_snapshot_cancel(). */
void pg_snapshot_ask(struct pg_snapshot *snapshot, const struct pg_join *join,
                     const struct pg_reader *reader, uint64_t request, const char *sql);
void pg_snapshot_cancel(struct pg_snapshot *snapshot); /* without an answer */
void pg_snapshot_done(struct pg_snapshot *snapshot);

#endif
