/* A client's connection: its socket, its cursor, what it subscribed to, and the little it may have
 * to send before the next frame. Everything that an idle connection does not need is in `more`,
 * which exists only while it is needed. */
#ifndef TRANSPORTS_CONN_H
#define TRANSPORTS_CONN_H

#include "arena.h"
#include "buf.h"
#include "channel.h"
#include "counters.h"
#include "frame.h"
#include "list.h"
#include "position.h"
#include "websocket.h"
#include "wheel.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct worker;

#define CONN_CONTROL_MAX (4u << 10)  /* unsent control messages of a stream */
#define TAIL_COPY_MAX    (16u << 10) /* the rest of a cut-off frame is copied up to this */
#define RESPONSE_MAX     (24u << 20) /* an HTTP response being sent */
#define FIELDS_MAX       512
#define CLIENT_FRAME_MAX (64u << 10) /* inbound WebSocket message */

enum conn_state {
    CONN_HTTP,    /* reading requests */
    CONN_WAIT,    /* a request waits for an answer of the source or the application process */
    CONN_STREAM,  /* WebSocket or SSE with subscriptions */
    CONN_ECHO,    /* WebSocket that returns what it gets */
    CONN_CLOSING, /* what is to be sent is sent; the peer's end is awaited */
    CONN_DEAD,    /* freed at the end of the turn */
};

enum conn_flag {
    CONN_BLOCKED = 1 << 0,     /* the socket takes no more until it says writable */
    CONN_BEHIND = 1 << 1,      /* served from the log, in worker->behind unless blocked */
    CONN_GAP_IGNORE = 1 << 2,  /* bare WebSocket: stays open over a gap */
    CONN_GAP_CLOSE = 1 << 3,   /* bare WebSocket: closes with 4102 when its timer fires */
    CONN_PINGED = 1 << 4,      /* nothing has come since the last heartbeat */
    CONN_EOF = 1 << 5,         /* the peer has ended its side; what it asked is still answered */
    CONN_ENDING = 1 << 6,      /* close once everything is sent */
    CONN_ADMIN = 1 << 7,       /* came in by the admin address */
    CONN_REFUSE = 1 << 8,      /* over the limit of connections: answers `overloaded` */
    CONN_KEEP = 1 << 9,        /* HTTP: goes on after the response */
    CONN_HEAD = 1 << 10,       /* HTTP: the request was HEAD, no body */
    CONN_CLOSE_SENT = 1 << 11, /* WebSocket: the close frame is out */
    CONN_SWEEPING = 1 << 12,   /* too far behind for the index's links */
    CONN_DRAINING = 1 << 13,   /* has been told to come back later */
    CONN_GREETED = 1 << 14,    /* the opening catch-up has been evaluated */
    CONN_TOLD_DOWN = 1 << 15,  /* it believes the source to be away */
    CONN_BODY = 1 << 16,       /* HTTP: the head is complete, the body is awaited */
};

/* A GET of the history that waits: until the source has said how far the channel is covered, then
 * (long poll) for the channel's next event. */
struct history_request {
    struct list node; /* in channel->histories or ->polls, or worker->ahead_pages */
    struct conn *conn;
    struct channel *channel;
    struct since asked; /* where the client stands */
    struct since since; /* of a poll: moves on with what was looked at */
    uint32_t last, limit;
    bool poll, ahead; /* ahead: it has waited for the log to come to `since` */
    bool claims;      /* it says something about the past that the source has to confirm */
    int64_t until_ms; /* answered then at the latest */
};

/* Where a subscription begins. */
struct start {
    struct since since;
    uint32_t last;
    bool rows; /* the channel's rows first, then all events that they do not contain */
};

/* A subscription on its way: waiting for the source, replaying, or settling until `ready`. */
struct join {
    struct list node;     /* in conn->more->joins, in order of asking */
    struct list settling; /* in worker->settling; while it is WAITING, in worker->ahead */
    struct sub *sub;      /* NULL once unsubscribed or refused */
    struct conn *conn;
    struct since since;
    uint32_t last;
    bool rows;                 /* it asked for the rows that stand before the events */
    struct snapshot *snapshot; /* which are sent first, in REPLAY; until then it is WAITING */
    enum { JOIN_WAITING, JOIN_REPLAY, JOIN_SETTLING } phase;
    int64_t until_ms; /* WAITING: for a position that the log has not come to; 0: not yet */
    uint64_t from, until, ready_at;  /* REPLAY: what is left of [since, C) */
    uint64_t *offsets;               /* REPLAY of last=N: which records */
    uint32_t n_offsets, next_offset; /* REPLAY of a snapshot: the next frame */
    char ref[];                      /* raw JSON, "" if none */
};

struct conn_more {
    struct conn *conn; /* whose */
    struct buf in;     /* bytes not yet parsed */
    struct buf out;    /* bytes to send before the next frame */
    struct blob *tail; /* rest of a large frame, sent before `out` */
    size_t tail_sent;
    struct list tails; /* in worker->tails while there is a tail, oldest first */
    struct ws_decoder ws;
    struct list joins;
    uint32_t n_publishes; /* in flight */
    size_t body_reserved; /* of worker->body_bytes: what has come of a body */
    struct history_request *history;
    struct call *call;       /* the request that the application is to answer */
    char fields[FIELDS_MAX]; /* header lines of the response to come (CORS) */
};

struct conn {
    int fd;
    uint32_t slot;  /* in worker->conns */
    uint32_t flags; /* enum conn_flag */
    uint8_t state, transport, format, heartbeat_s;
    uint32_t n_subs, cap_subs;
    uint64_t id;
    uint64_t cursor; /* everything before it that it asked for is sent, or in out/tail */
    int64_t last_in_ms, last_out_ms;
    struct wheel_timer timer;
    struct list readable; /* in worker->readable while bytes may be waiting, or worker->paused */
    struct list work;     /* in worker->behind, worker->unblocked or worker->doomed */
    struct conn_more *more;
    struct sub **subs; /* n_subs; = &only for one */
    struct sub *only;
};

/* What an idle WebSocket costs us: this, its sub, its two places in arrays. Kept under 300. */
_Static_assert(sizeof(struct conn) <= 160, "idle connections have a budget");

struct conn *conn_new(struct worker *w, int fd, bool admin); /* NULL: no memory (fd untouched) */
/* Marks it dead: nothing is sent or read any more. It leaves all lists and is freed at the end of
 * the turn (conns_reap), so that nobody who walks a list meets a hole. Idempotent. `code`: for the
 * metrics. */
void conn_kill(struct worker *w, struct conn *c, unsigned code);
void conns_reap(struct worker *w);
void reserve_body(struct worker *w, struct conn *c, size_t size);
void release_body(struct worker *w, struct conn *c);
struct conn_more *conn_more(struct conn *c); /* makes it when missing; NULL: no memory */
void conn_trim(struct conn *c);              /* gives back what an idle connection does not need */

/* A number below n that is the connection's own: spreads in time what would strike all at once. As
 * good as a random one, and the same each time. */
static inline uint32_t conn_spread(const struct conn *c, uint32_t n)
{
    return (uint32_t)(c->id * 2654435761u % n);
}

/* ---- output ---- */

/* Sends what is in tail and out. 1: all sent; 0: blocked; < 0: the connection is dead. */
int conn_flush(struct worker *w, struct conn *c);
/* Sends, or keeps for later, bytes that belong between frames. Kills the connection (4108) when a
 * stream's unsent control messages exceed CONTROL_MAX. */
void conn_send(struct worker *w, struct conn *c, const void *data, size_t len);
/* The same for something large, to a connection with nothing unsent: what the kernel does not take
 * counts among the tails, whose sum has a bound. */
void conn_send_large(struct worker *w, struct conn *c, const void *data, size_t len);
/* A frame (or run of frames) to a connection with nothing unsent. Returns bytes taken by the
 * kernel, 0 when blocked, < 0 when dead. */
int64_t conn_write(struct worker *w, struct conn *c, struct iovec *iov, int n);
/* Keeps the unsent rest of a cut-off frame. `shared`: where a counted copy of the whole frame is or
 * is to be kept (may be NULL: a copy of its own). */
void conn_keep_tail(struct worker *w, struct conn *c, const uint8_t *frame, size_t len, size_t sent,
                    struct blob **shared);
bool conn_has_unsent(const struct conn *c);

/* ---- endings ---- */

/* WebSocket: sends a close frame and awaits the peer's. */
void conn_close_ws(struct worker *w, struct conn *c, unsigned code, const char *reason);
/* HTTP and SSE: ends after what is unsent. */
void conn_end(struct worker *w, struct conn *c, unsigned code);
/* A stream's end in its own words: close code, or `closing`/`fault` event and end. */
void conn_refuse(struct worker *w, struct conn *c, enum error_code code, const char *message);

#endif
