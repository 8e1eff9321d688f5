/* A logical replication stream as events: its transactions, its history, and what the server is
 * told.
 *
 * A position is {LSN of the commit record, place in the transaction}: the first is known when a
 * transaction begins, so that reading may stop and be resumed in its midst. Places rise, and are
 * the same whenever the WAL is read again, by whatever fanwire: the change's number, from 1, then
 * the template's (pg_row_event.sub). {LSN, 0} is before all transactions whose commit record begins
 * there or later. */
#ifndef SOURCES_PG_STREAM_H
#define SOURCES_PG_STREAM_H

#include "pg_horizon.h"
#include "pg_row.h"
#include "pg_session.h"
#include "pg_trail.h"

struct pg_stream {
    struct pg_session *session;
    struct fw_host *host;
    const char *guarantee; /* static */
    struct pg_rows *rows;
    struct pg_trail trail;
    struct pg_horizon horizon;
    struct fw_timer *timer;
    /* set before pg_stream_begin() */
    uint64_t identity;
    uint64_t now;      /* the server's position when we came: history is what is before it */
    uint64_t next_xid; /* then; widens the stream's 32 bits */
    uint64_t last[2];  /* newest position in the log: nothing up to it is appended again */

    bool opened;  /* events are live */
    bool arrived; /* where the server was */
    uint64_t received, confirmed;
    bool in_transaction;
    uint64_t commit; /* the transaction's */
    uint64_t change; /* its number in the transaction, from 1 */
    uint64_t xid;
    int64_t time_ms;
};

/* `session` and `guarantee` are borrowed. retain_for_ms: how long WAL is kept, < 0 for a slot that
 * is not durable. Returns 0 or -ENOMEM; pg_stream_done() in either case. */
int pg_stream_init(struct pg_stream *stream, struct pg_session *session, const char *guarantee,
                   int64_t retain_for_ms);
void pg_stream_done(struct pg_stream *stream);
void pg_stream_reset(struct pg_stream *stream); /* the connection is lost */

/* The session is streaming from `start`. Opens it when history is over, or at_once. */
void pg_stream_begin(struct pg_stream *stream, uint64_t start, bool at_once);
void pg_stream_input(struct pg_stream *stream); /* takes what has come, up to a pause */
void pg_stream_ask(struct pg_stream *stream);   /* a sign of life, which the server is to answer */

/* Tells the log that everything before `lsn` is in it. So a position that a client got here is soon
 * reached by other servers and by those that start, also where no event follows. */
void pg_stream_mark(struct pg_stream *stream, uint64_t lsn);
bool pg_before(const uint64_t a[2], const uint64_t b[2]);

#endif
