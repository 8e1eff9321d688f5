/* A worker's inner state, shared by the files that make up its turn. */
#ifndef TRANSPORTS_TURN_H
#define TRANSPORTS_TURN_H

#include "arena.h"
#include "call_message.h"
#include "channel.h"
#include "conn.h"
#include "frame_cache.h"
#include "http.h"
#include "loop.h"
#include "params.h"
#include "position.h"
#include "reader.h"
#include "routes.h"
#include "snapshot.h"
#include "wheel.h"
#include "worker.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define VISIT_BYTES (64u << 10) /* per connection and visit; always at least one event */
#define VISIT_IOVS  64
#define LINK_FDS    3 /* the inbox, the reader's page until it is mapped, the eventfd */

/* The frames that a connection with one feed and this cursor gets; most connections of a feed share
 * one cursor, so it is put together once for all of them. */
struct gathered {
    const struct feed *feed;
    uint64_t from, upto;
    struct iovec iov[VISIT_IOVS];
    int n_iov;
    size_t bytes;
    uint32_t n_frames;
    uint8_t state; /* the last enum frame_state among them */
    uint64_t to;   /* the cursor when all of it is sent */
    int64_t oldest_ms;
};

/* A connection's feeds, each at its next frame; the smallest offset is next. */
struct merge_head {
    const struct feed *feed;
    uint32_t index;
};
struct merge {
    struct merge_head *heads;
    uint32_t n;
};

struct worker {
    const struct worker_options *options;
    const struct settings *settings;
    struct log *log;
    struct counters *counters;
    struct loop loop;

    /* time, read once per turn or where budgets are checked */
    int64_t now_us, now_ms, wall_ms;

    /* the log and the source process */
    uint64_t frontier;
    struct crowd {
        uint64_t at;       /* told to the source, for pacing */
        uint64_t given_up; /* who stands before this holds nobody */
        int64_t look_ms;   /* when to look again */
        uint64_t none;     /* where the frontier was when nobody was far behind */
        int64_t since_ms;  /* what was sent is counted since then; 0: nobody is far behind */
        uint64_t bytes;    /* sent until then */
        int64_t gave_up_ms, patience_ms;
    } crowd;
    struct {
        uint64_t off;
        char id[POSITION_TEXT_MAX];
    } place; /* the last worker_place(): those who are live all ask for the same */
    struct newest_position newest;
    struct reader *reader;
    int event_fd;           /* as registered with the loop; -1 until greeted */
    int64_t reconnect_ms;   /* when to try the inbox again */
    int64_t detached_ms;    /* since when event_fd is -1 */
    bool lacks_fds;         /* which is for lack of descriptors, and was said */
    int link_fds[LINK_FDS]; /* held for the link, as far as it does not use them itself; or -1 */
    uint64_t last_question;
    struct list tell; /* channels whose interest is to be told */
    struct list asks; /* channels whose rows are to be asked for */
    uint64_t last_snapshot;
    size_t snapshot_bytes;
    bool log_down; /* the source's state in the log, at the frontier */
    bool hung;     /* the source process's beat has stopped, or it cannot be reached */
    bool down;     /* log_down || hung: what streams are told */
    enum gap_reason down_reason;
    char kind[32], mode[32];
    bool durable;
    uint8_t *body; /* of the record being read */
    size_t body_cap;

    /* channels */
    struct map channels;
    struct channel control; /* the reserved channel "" */
    struct arena arena;
    struct list dirty;      /* walkers */
    struct walker everyone; /* over conns, for control frames */
    struct gathered gathered;
    struct merge_head *heads; /* room for all channels a connection may have, and one */

    /* connections */
    struct conn **conns;
    uint32_t n_conns, cap_conns, max_conns;
    uint64_t next_conn_id, told_gaps;
    struct list readable, unblocked, behind, doomed, tails, resolved, settling, paused;
    struct list ahead, ahead_pages; /* joins, history requests */
    bool settle_more;               /* its time was up before all that settle were looked at */
    bool ahead_more;                /* the same of those ahead */
    uint64_t ahead_looked;          /* at `ahead`, when log_indexed() was this */
    int64_t ahead_next_ms;
    size_t tail_bytes, body_bytes;
    struct frame_cache cache;
    struct catchup *catchup; /* scratch of catchup.c */
    struct wheel wheel;
    int spare_fd; /* given up to refuse politely when descriptors run out */

    /* publishing */
    struct map publishes;
    struct list unsent; /* publishes that the inbox did not take yet */
    uint64_t next_request;
    size_t publish_bytes; /* outstanding */

    /* the application process and what it is asked */
    struct {
        int fd; /* -1: not connected */
        bool greeted;
        bool more; /* it may have sent more than was read */
        struct buf in;
        struct map calls;         /* every struct call, by id */
        struct list held, queued; /* those that wait for their channel; those to be sent */
        size_t queued_bytes;
        uint32_t n_calls;
        uint64_t next_id;
        int64_t reconnect_ms, away_ms; /* when to try again; since when it is away */
    } app;

    /* scratch */
    struct buf encode, text, response;
    uint8_t *inbuf;
    time_t date_of; /* the second that `date` tells */
    char date[40];

    /* ending */
    int signal_fd;
    bool draining, quit;
    int64_t drain_until_ms, next_drain_ms;
    int64_t next_check_ms; /* of the source process's beat */
};

/* ---- ingest.c: from the log into the arena ---- */
void ingest(struct worker *w); /* one slice */
bool ingest_pending(const struct worker *w);
/* Copies body into w->body (grown as needed). 1, 0 lapped, -ENOMEM. */
int read_body(struct worker *w, struct log_record *record);
/* Appends the wire frame of any record (message or control) in the format; nothing for records that
 * the format does not show. */
int encode_record(struct worker *w, struct buf *out, enum frame_format format,
                  const struct log_record *record);

/* Appends a message's JSON object without type and channel, as /history has it. */
int record_json(struct worker *w, struct buf *out, const struct log_record *record);

/* ---- flush.c: from the arena to sockets ---- */
void flush(struct worker *w, int64_t budget_us);
/* Sends everything new to one connection, or marks it blocked or behind. */
void visit(struct worker *w, struct conn *c);
void set_behind(struct worker *w, struct conn *c, bool behind);
void observe_delivery(struct worker *w, const struct conn *c, uint32_t frames, size_t bytes,
                      int64_t oldest_ms);

/* ---- catchup.c: from the log to sockets ---- */
void catch_up(struct worker *w, int64_t budget_us);
void catch_up_done(struct worker *w);
int compare_offsets(const void *a, const void *b); /* of log offsets, for qsort() */

/* ---- crowd.c ---- */
/* The place that the source is told of this worker, for pacing. */
uint64_t crowd_progress(struct worker *w);
/* When it has to be asked again, though nothing happens: the source waits for it. -1: need not. */
int crowd_wait_ms(const struct worker *w);

/* ---- wanted.c ---- */
struct channel *channel_acquire(struct worker *w, const char *name, size_t len);
void channel_release(struct worker *w, struct channel *channel);
bool channel_named(const void *channel, const void *name, size_t len);
void channel_wake_polls(struct worker *w, struct channel *channel); /* it has something new */
void channel_resolved(struct worker *w, struct channel *channel);   /* all who wait for it get on */
void tell_source(struct worker *w); /* interests that the inbox did not take yet */
void on_ready(void *worker, const struct reader_channel *answer, uint64_t covered_from,
              uint64_t ready_at);
void on_refused(void *worker, const struct reader_channel *answer, enum error_code code,
                const char *message);
void channels_forget_source(struct worker *w); /* the source process is gone: ask the next one */
void resolve(struct worker *w, int64_t budget_us); /* those whose channels were answered get on */

/* ---- subscribe.c ---- */
/* Begins a subscription; joins_advance() takes it further. 0, -EEXIST, -EMFILE (too many channels),
 * -ENOMEM. */
int subscribe(struct worker *w, struct conn *c, const char *name, size_t len,
              const struct start *start, const char *ref);
struct join *join_of(const struct sub *sub); /* NULL: it is over */
/* 0 or -ENOENT. */
int unsubscribe(struct worker *w, struct conn *c, const char *name, size_t len);
void unsubscribe_all(struct worker *w, struct conn *c);
int sub_enter(struct worker *w, struct sub *sub);    /* from waiting into its feed; 0 or -ENOMEM */
void sub_refused(struct worker *w, struct sub *sub); /* tells it, and ends it */
void sub_end(struct worker *w, struct sub *sub, enum error_code code,
             const char *why); /* as well */
void sub_free(struct worker *w, struct sub *sub);

/* ---- ahead.c: positions that the log has not come to ---- */
bool join_waits(struct worker *w, struct join *join); /* then it is advanced again later */
bool page_waits(struct worker *w, struct history_request *history);
bool is_ahead(struct worker *w, const struct since *since);
void ahead_check(struct worker *w, int64_t budget_us); /* those whose position has come get on */

/* ---- join.c ---- */
/* Evaluates what waits on this connection, as far as its channels have been answered. */
void joins_advance(struct worker *w, struct conn *c);
void join_replayed(struct worker *w, struct join *join);
void joins_free(struct worker *w, struct conn *c);
void join_free(struct worker *w, struct join *join);
/* The newest gap of the whole source at or after the position, before `cut`. */
struct resume resume_control(struct worker *w, const struct since *since, uint64_t cut);
void settle(struct worker *w, int64_t budget_us); /* tells `ready` where it is due */
/* Announces to one connection; nothing for bare WebSockets but what ends them. */
void tell_gap(struct worker *w, struct conn *c, const struct channel *channel, uint64_t after,
              uint64_t before, enum gap_reason reason);
/* The same of a resume: what was missed begins where the client stands, in its own words. */
void tell_missed(struct worker *w, struct conn *c, const struct channel *channel,
                 const struct since *since, const struct resume *resume);
void tell_down_up(struct worker *w, struct conn *c);
void send_control(struct worker *w, struct conn *c, const char *name, const struct buf *json);

/* ---- publish.c ---- */
/* What is published; borrowed, copied by publish(). Texts that are absent are "". */
struct publication {
    const char *channel; /* of a batch: "" */
    size_t channel_len;
    const void *data; /* of a batch: its events, as batch.h packs them */
    size_t len;
    size_t n_events; /* of a batch; 0: it is none */
    const char *key, *from;
    const char *ref; /* raw JSON, comes back in the answer */
};

/* Sends to the source process; the answer goes to the connection by http_published() and its like,
 * or ws_published(). 0 or -ENOMEM. */
int publish(struct worker *w, struct conn *c, const struct publication *what);
bool publish_full(const struct worker *w); /* publishers are not read until it is false */
void publish_resend(struct worker *w);     /* what the inbox did not take yet */
void on_published(void *worker, const struct reader_published *answer);
void publishes_fail(struct worker *w);                   /* the source process is gone */
void publishes_forget(struct worker *w, struct conn *c); /* the connection is gone */
void publish_done(struct worker *w);

/* ---- call.c: requests that the application answers ---- */
struct call;
void call_begin(struct worker *w, struct conn *c, const struct http_request *request,
                const struct route_match *match, const char *body, size_t len);
bool call_is_stream(const struct conn *c);          /* is it one that waits to become a stream? */
void call_late(struct worker *w, struct conn *c);   /* its time is up */
void call_forget(struct worker *w, struct conn *c); /* the client is gone */
void calls_check(struct worker *w); /* streams whose channel is ready; an application away */
void calls_answer(struct worker *w, struct call_message *message);
void calls_fail_sent(struct worker *w); /* the application process is gone */
/* The next bytes to send; false: none. */
bool calls_unsent(struct worker *w, const uint8_t **ret_data, size_t *ret_len);
void calls_sent(struct worker *w, size_t n);
void calls_done(struct worker *w);

/* ---- application_link.c: the connection to the application process ---- */
void application_init(struct worker *w);
void application_connect(struct worker *w);
void application_event(struct worker *w);
void application_flush(struct worker *w); /* sends calls, as far as it takes them */
void application_done(struct worker *w);

/* ---- access.c ---- */
bool may_read(const struct worker *w, const char *channel, size_t len);
bool may_write(const struct worker *w, const char *channel, size_t len);
/* What is wrong with reading (or writing) this channel; CODE_OK: nothing. */
enum error_code check_channel(const struct worker *w, const char *channel, size_t len, bool write,
                              char *detail, size_t size);
/* What is wrong with asking for its rows. */
enum error_code check_rows(const struct worker *w, const char *channel, size_t len, char *detail,
                           size_t size);
/* Is the server called so? A name of somebody else's that leads here (DNS rebinding) makes a page
 * of that name look like one of ours: Origin and Host agree. */
bool host_allowed(const struct worker *w, const struct http_request *request);
/* Is the host allowed, and the page that asks? */
bool origin_allowed(const struct worker *w, const struct http_request *request);

/* ---- sessions ---- */
void http_readable(struct worker *w, struct conn *c); /* bytes in more->in */
void http_published(struct worker *w, struct conn *c, enum error_code code, const char *message,
                    const char *id);
/* All of a batch was accepted: `ids`, the inside of a JSON array; or it was not. */
void http_batch_published(struct worker *w, struct conn *c, const struct buf *ids);
void http_batch_refused(struct worker *w, struct conn *c, const struct reader_published *answer);
/* After the response: reads on, or ends. */
void http_answered(struct worker *w, struct conn *c);
/* Queues a whole response. `fields`: further header lines, each ending in CRLF, or "". */
void http_respond(struct worker *w, struct conn *c, unsigned status, const char *type,
                  const char *fields, const void *body, size_t len);
void http_problem(struct worker *w, struct conn *c, enum error_code code, const char *detail);
/* With a further member, as JSON: `,"name":value`; or "". */
void http_problem_with(struct worker *w, struct conn *c, enum error_code code, const char *detail,
                       const char *member);
void history_begin(struct worker *w, struct conn *c, const struct params *params);
void history_advance(struct worker *w, struct conn *c); /* answers, or lets it wait (on) */
void http_answer_history(struct worker *w, struct conn *c);
void history_answer_polls(struct worker *w); /* all that wait, at once */
void history_cancel(struct worker *w, struct conn *c);
/* Answers /metrics, /readyz. False: no such path. */
bool admin_request(struct worker *w, struct conn *c, const struct http_request *request);
/* Stops reading it until publish_full() is false again. */
void conn_pause(struct worker *w, struct conn *c);
void ws_readable(struct worker *w, struct conn *c, uint8_t *data, size_t len);
void ws_published(struct worker *w, struct conn *c, enum error_code code, const char *message,
                  const char *id, const char *ref);
/* A text message of fanwire.v1. */
void protocol_message(struct worker *w, struct conn *c, const uint8_t *data, size_t len);

/* ---- stream.c ---- */
/* "Complete up to `off`", as an id; borrowed until the next call. */
const char *worker_place(struct worker *w, uint64_t off);
/* Turns the connection into a stream of this format and greets; subscriptions follow. */
void stream_begin(struct worker *w, struct conn *c, enum transport transport,
                  enum frame_format format, unsigned heartbeat_s);
void stream_closing(struct worker *w, struct conn *c, enum error_code code, unsigned retry_ms);
void conn_timer(struct worker *w, struct conn *c);
void conn_arm(struct worker *w, struct conn *c); /* its next timer, by state */
void client_name(const struct worker *w, const struct conn *c, char out[24]);

/* ---- intake.c: accepting, reading, writable edges ---- */
void intake_listen(struct worker *w, int fd, bool admin); /* as many as there are, ≤ 64 */
void intake_event(struct worker *w, struct conn *c, bool readable, bool writable);
void intake_read(struct worker *w, int64_t budget_us); /* readable connections, round-robin */
void intake_resume(struct worker *w);                  /* paused publishers, when there is room */

/* ---- source_link.c: the connection to the source process ---- */
void link_init(struct worker *w);
void link_connect(struct worker *w);
void link_process(struct worker *w);
void link_check(struct worker *w); /* its beat, twice a second */
/* Takes what the link will need to attach again out of clients' reach. False: descriptors are
 * lacking, and nobody else may have one. */
bool link_reserve(struct worker *w);
void link_done(struct worker *w);

/* Has any channel of the connection begun? */
static inline bool has_begun(const struct conn *c)
{
    for (uint32_t i = 0; i < c->n_subs; i++)
        if (c->subs[i]->feed)
            return true;
    return false;
}

/* What concerns all channels: gaps, down, up. Where none has begun, a gap is nobody's: each looks
 * for those after its position when it begins, and the state is told as such (tell_down_up()). */
static inline struct feed *control_feed(const struct worker *w, const struct conn *c)
{
    return has_begun(c) ? w->control.feeds[c->format] : NULL;
}

#endif
