/* The streaming connection: one query at a time or a copy stream, and whether it still lives. */
#ifndef SOURCES_PG_SESSION_H
#define SOURCES_PG_SESSION_H

#include "pg_link.h"
#include "pg_url.h"

#include <fanwire/source.h>
#include <libpq-fe.h>
#include <stdbool.h>

#define PG_ANSWER_MS 10000 /* without a byte this long while an answer is due: it is gone */
#define PG_STREAM_MS 60000 /* the same of a stream, at first */

/* What happens on a connected session. NULL: not minded. Each may query, reopen or lose it. */
struct pg_session_events {
    void (*connected)(void *arg); /* by pg_session_open() or pg_session_reopen() */
    /* It could not connect; NULL, or false: the session is lost for that. True: it was given up
     * here, with more to say. */
    bool (*failed)(void *arg, const char *message);
    /* A result of the query; borrowed. One that failed is not passed. */
    void (*result)(void *arg, const PGresult *result);
    /* The query has ended (see `failed`), or has become a copy stream (see `streaming`), or the
     * stream has ended (neither, or failed). */
    void (*ended)(void *arg);
    /* Something has come, or a pause is over: take notifications (PQnotifies()) or the stream
     * (pg_session_copy()) until nothing is left or `paused`. */
    void (*input)(void *arg);
    void (*idle)(void *arg); /* nothing is in flight: the next query may be sent */
    /* Nothing came for 15 s: ask something; no byte within 10 s of it, and the session is lost. A
     * stream has a minute, and twice as long after each loss (pg_session_went_on()). */
    void (*silent)(void *arg);
};

/* Who owns the session. A lost one is closed already; `message` is borrowed. */
struct pg_session_owner {
    void (*opened)(void *arg);
    void (*lost)(void *arg, const char *message, bool misconfigured);
};

struct pg_session {
    struct fw_host *host;
    struct pg_link link; /* link.conn: from connected() on */
    const struct pg_session_owner *owner;
    void *owner_arg;
    const struct pg_session_events *events;
    void *arg;
    enum { PG_CLOSED, PG_CONNECTING, PG_CONNECTED, PG_OPEN } state; /* open: the hub knows */
    bool in_query, streaming;
    bool paused; /* take no more events */
    /* of the query that has ended */
    bool failed, transient; /* transient: may go away by itself */
    char sqlstate[6];       /* "" if the failure has none */
    char error[PG_MESSAGE_MAX];

    /* the session's own */
    bool broken;            /* the connection is gone, what it brought is still being read */
    bool asked;             /* silent() was called, nothing came since */
    bool resting;           /* the socket is left alone until `work` */
    unsigned unflushed;     /* events since the last fw_host_flush() */
    size_t unflushed_len;   /* their bytes */
    unsigned turn_events;   /* … of this turn */
    unsigned answer_ms;     /* how long the query may be silent */
    unsigned stream_ms;     /* … the stream, once it was asked; outlives the connection */
    int64_t heard_ms;       /* when the server last said something, or was last asked */
    struct fw_timer *work;  /* what must not happen inside the hub's call */
    struct fw_timer *quiet; /* runs while connected */
};

/* `url` is borrowed for the session's life. No I/O. */
void pg_session_init(struct pg_session *session, struct fw_host *host, const struct pg_url *url,
                     const struct pg_session_owner *owner, void *owner_arg);
void pg_session_done(struct pg_session *session); /* closes without telling the owner */

/* Connects; ends in connected() or the owner's lost(), never from inside this call. */
void pg_session_open(struct pg_session *session);
/* The same with a new connection in place of the present one: with `replication` one that speaks
 * the replication protocol besides simple queries. Nobody is told of the end of the present one. */
void pg_session_reopen(struct pg_session *session, bool replication);
/* From now on these hear of the session. */
void pg_session_hand_over(struct pg_session *session, const struct pg_session_events *events,
                          void *arg);

/* Sends a query (one or several statements, simple protocol) on an idle session; PG_ANSWER_MS, or
 * more where the server may rightly be silent for long. */
void pg_session_query(struct pg_session *session, const char *sql, unsigned answer_ms);
/* Has the last query, or the stream, failed on text that has no form in UTF-8? */
bool pg_session_lacks_utf8(const struct pg_session *session);
/* Calls idle() in a while, also from inside the hub's calls. */
void pg_session_look_soon(struct pg_session *session);
/* The next message of the stream: its length > 0 (release *ret_data with PQfreemem()), 0 when there
 * is none yet, -1 when the stream has ended (ended() or lost() tells more). */
int pg_session_copy(struct pg_session *session, char **ret_data);
/* Sends a message into the stream, also while paused. Never blocks; may lose the session. */
void pg_session_put(struct pg_session *session, const char *data, int len);
/* The stream has come to where the server was when it began: what that took is behind it. */
void pg_session_went_on(struct pg_session *session);

/* After each fw_host_append() of `len` bytes: flushes every 256, and before they are so much of the
 * log that pacing came too late. False: take no more (`paused`). What is appended before
 * pg_session_opened() is not paced: nobody follows it. */
bool pg_session_appended(struct pg_session *session, size_t len);
/* The stream is there: tells the hub. The arguments are fw_host_opened()'s. */
void pg_session_opened(struct pg_session *session, const char *mode, const char *guarantee,
                       uint64_t identity);
void pg_session_pause(struct pg_session *session, bool paused); /* the hub's word */

/* Gives the connection up: message of ours, or why the link broke; `misconfigured`: somebody has to
 * act, the message says the command. */
void pg_session_lose(struct pg_session *session, const char *message);
void pg_session_lose_by_link(struct pg_session *session);
void pg_session_misconfigured(struct pg_session *session, const char *message);

#endif
