/* For authors of a source: what a backend stream declares and offers, and what the hub offers it.
 *
 * A source is single-threaded: every call in either direction happens on the hub's loop, except
 * fw_waker_wake(). A source never blocks, never resolves names itself, never appends before
 * fw_host_opened() (but for the history of a durable one), and reports `ready` only after the
 * backend has confirmed the subscription. */
#ifndef FANWIRE_SOURCE_H
#define FANWIRE_SOURCE_H

#include <fanwire.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fw_host;   /* the hub, as its source sees it */
struct fw_source; /* the source's own object, opaque to the hub */

/* What a source declares (fw_source_class.traits, fw_host_traits()). */
enum fw_source_trait {
    FW_SOURCE_DURABLE = 1, /* positions survive reconnection: the source resumes, no gap follows */
    FW_SOURCE_ORDERED = 2, /* positions rise with the log; otherwise they are local to the log */
    FW_SOURCE_ON_DEMAND = 4, /* must be told channels: subscribe/unsubscribe are called */
    FW_SOURCE_PATTERNS = 8,  /* can subscribe to patterns */
};

/* A publish on its way to the backend. Borrowed during the call. */
struct fw_publish {
    uint64_t request;                 /* given back in fw_host_published() */
    const char *channel, *key, *from; /* key and from: NULL if none; NUL-terminated */
    size_t channel_len;
    const void *data;
    size_t len;
};

/* An event from the backend. Borrowed during fw_host_append(). */
struct fw_source_event {
    const char *channel, *key, *from; /* as above */
    size_t channel_len;
    const void *data;
    size_t len;
    int64_t time_ms; /* 0: now */
    uint64_t pos[2]; /* FW_SOURCE_ORDERED only */
    uint64_t xid;    /* the transaction, 0 = none */
    bool history;    /* re-read at start, not to be delivered live */
};

/* The answer to a snapshot's query: rows, and which events they contain already. Borrowed during
 * fw_host_snapshot().
 *
 * What is not contained is sent after the rows, also where it was appended before the query ended;
 * so the answer is given when no event that the rows contain can be appended any more. Where a
 * source cannot tell (`contains` NULL), everything since the query was asked for comes after the
 * rows: nothing is missing, and what the rows contain may come once more. */
struct fw_snapshot {
    const char *rows; /* for each row its JSON text and a NUL */
    size_t len;       /* of all, ≤ FW_SNAPSHOT_MAX */
    /* FW_SOURCE_ORDERED only. Does the row set show what this event's transaction did? */
    bool (*contains)(const void *arg, const uint64_t pos[2], uint64_t xid);
    const void *arg;
    uint64_t floor[2]; /* everything up to this position is contained: nobody looks further back */
};
#define FW_SNAPSHOT_MAX (16u << 20)

/* The vtable. All functions run on the hub's loop and must not block. */
struct fw_source_class {
    const char *kind;    /* "postgres": titles, metrics, start-up line */
    const char *schemes; /* "postgres postgresql", separated by spaces, without the colon */
    unsigned traits;     /* enum fw_source_trait; until fw_host_traits() says otherwise */
    /* Parses `url` and allocates the source; no I/O. Returns 0 or -EINVAL/-ENOMEM with text. */
    int (*create)(struct fw_host *host, const char *url, struct fw_source **ret,
                  struct fw_error *err);
    /* Starts connecting; ends in fw_host_opened() or fw_host_lost(). Called again after a loss. */
    void (*open)(struct fw_source *source);
    /* Starts listening; ends in fw_host_ready() or fw_host_refused(). Only while opened, only with
     * FW_SOURCE_ON_DEMAND. The hub repeats all wanted channels after every fw_host_opened(). */
    void (*subscribe)(struct fw_source *source, const char *channel, size_t len);
    void (*unsubscribe)(struct fw_source *source, const char *channel, size_t len);
    /* Starts publishing; ends in fw_host_published(). May be called while not opened: sources that
     * cannot, answer "source-down" at once. */
    void (*publish)(struct fw_source *source, const struct fw_publish *publish);
    /* Starts publishing n ≥ 1 events in one transaction: all of them are stored, in this order, or
     * none. Ends in an fw_host_published() for each, in this order: all accepted, or all refused.
     * NULL: the backend has no such thing; the hub publishes one by one, each after the one before
     * was accepted, and stops at the first that is refused. */
    void (*publish_batch)(struct fw_source *source, const struct fw_publish *events, size_t n);
    /* Stop or go on reading the backend (pacing: readers that make progress must not be lapped). */
    void (*pause)(struct fw_source *source, bool paused);
    /* Runs the query (one SELECT, of the configuration) on a consistent view; ends in
     * fw_host_snapshot() or fw_host_snapshot_refused(). One at a time, only while opened; a source
     * that loses its stream meanwhile forgets it, and is asked again. `sql` is borrowed for the
     * source's life. NULL: no queries here. */
    void (*snapshot)(struct fw_source *source, uint64_t request, const char *sql);
    /* Drops all connections, answers all publishes ("source-down"), frees the source. */
    void (*destroy)(struct fw_source *source);
};

/* Every source of this build, NULL-terminated (src/sources/table.c). */
extern const struct fw_source_class *const fw_sources[];

/* ---- what the hub tells its readers on the source's word ---- */

/* The stream is connected. `mode` ("notify", "wal", …) and `guarantee` (a sentence for the start-up
 * line) are static strings; `identity` names the stream its positions belong to (0 if local). */
FW_API void fw_host_opened(struct fw_host *host, const char *mode, const char *guarantee,
                           uint64_t identity);
/* The traits of this source, in place of its class's: they may depend on the URL (said in create())
 * or on what the backend turns out to be (said before fw_host_continue(), fw_host_begin() and
 * fw_host_opened(); never while opened). Readers that come earlier wait for `ready` in either case.
 * A source that has been open before and now states others has another stream: its positions are
 * of another identity (fw_host_begin()), or local, and everybody is told a gap. */
FW_API void fw_host_traits(struct fw_host *host, unsigned traits);
/* The backend has confirmed the channel: from now on nothing of it is missed. */
FW_API void fw_host_ready(struct fw_host *host, const char *channel, size_t len);
/* The backend refuses the channel for good; `code` is one of docs/protocol.md's, static. */
FW_API void fw_host_refused(struct fw_host *host, const char *channel, size_t len, const char *code,
                            const char *message);
/* The stream broke or never came up. The source has dropped its connection; the hub says `down`
 * and calls open() again after a back-off. `reason` is static (connection-lost, restart, …). */
FW_API void fw_host_lost(struct fw_host *host, const char *reason, const char *message);
/* As fw_host_lost(), where waiting does not help but somebody has to act: a missing permission, a
 * contradiction between the URL and the backend. `message` says what is wrong and the command that
 * mends it; it is logged as an error, and open() is called every 5 s, so that the mended backend
 * is found without a restart. */
FW_API void fw_host_misconfigured(struct fw_host *host, const char *message);
/* The stream has ended for good (stdin): the hub says `down` with reason `ended`, keeps serving. */
FW_API void fw_host_ended(struct fw_host *host);
/* Appends an event to the log. Returns 0; too large an event becomes a gap of its channel. One with
 * a key that the log has in this channel is a repeat: it is counted, and not appended. Events
 * without a valid channel name are counted and dropped with -EINVAL. */
FW_API int fw_host_append(struct fw_host *host, const struct fw_source_event *event);
/* Bytes of channel, key, from and payload together that an event may have here. A source that
 * cannot hold a larger one passes its length with data = NULL: it becomes the gap. */
FW_API size_t fw_host_event_max(struct fw_host *host);
/* Answers a publish. The message of a "source-down" begins with "may have been stored" when the
 * event may have reached the backend, with "not stored" otherwise: a caller repeats only the
 * latter. `code` NULL = accepted, else docs/protocol.md's, static; `id` may be NULL. Local sources
 * whose publish is an append answer right after fw_host_append() and pass fw_host_last_id(). */
FW_API void fw_host_published(struct fw_host *host, uint64_t request, const char *code,
                              const char *message, const char *id);
/* Of the last append; of the event that it was a repeat of. Borrowed. */
FW_API const char *fw_host_last_id(struct fw_host *host);
/* The id of an event of the current identity by its position, for fw_host_published(). Borrowed
 * until the next call of this or of fw_host_last_id(). */
/* Answers a snapshot. Other numbers than that of the last request are ignored: a source need not
 * take care that an answer comes too late. */
FW_API void fw_host_snapshot(struct fw_host *host, uint64_t request,
                             const struct fw_snapshot *snapshot);
/* `code` is one of docs/protocol.md's, static; clients are told it alone, `message` is logged. */
FW_API void fw_host_snapshot_refused(struct fw_host *host, uint64_t request, const char *code,
                                     const char *message);
FW_API const char *fw_host_id(struct fw_host *host, const uint64_t pos[2]);
/* After a batch of appends: wakes the readers, says whether to go on reading now. When false,
 * stop; pause(false) will come. Call at least every 256 appends and at the end of each batch. */
FW_API bool fw_host_flush(struct fw_host *host);

/* ---- the history of a durable, ordered source, before each fw_host_opened() ---- */

/* Does the log hold the stream of this identity (not 0)? True: *ret_pos is the newest position in
 * it, and only what comes after that is to be appended, once opened and without `history`:
 * connected clients have not had it. False: fw_host_begin(), then the history, then
 * fw_host_opened(). */
FW_API bool fw_host_continue(struct fw_host *host, uint64_t identity, uint64_t ret_pos[2]);
/* From here on the log holds the stream of this identity, complete after position `floor`. If it
 * held another one, everybody is told a gap (new-epoch). */
FW_API void fw_host_begin(struct fw_host *host, uint64_t identity, const uint64_t floor[2]);
/* What lies between the last append and position `pos` can't be read any more: a gap of every
 * channel
 * (`reason`: expired, slot-lost, …). `history`: only resumes are told, nobody had it live. */
FW_API void fw_host_gap(struct fw_host *host, const char *reason, const uint64_t pos[2],
                        bool history);

/* Nothing more will come before position `pos`, which is behind the last append: it becomes the
 * newest position of the log. For a backend that is to be told how far it has been read. */
FW_API void fw_host_mark(struct fw_host *host, const uint64_t pos[2]);

enum fw_log_level { FW_LOG_ERROR = 3, FW_LOG_WARNING = 4, FW_LOG_INFO = 6, FW_LOG_DEBUG = 7 };
FW_API void fw_host_log(struct fw_host *host, enum fw_log_level level, const char *event,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Counts an event that was refused (bad envelope, bad name); repeats are counted, not printed. */
FW_API void fw_host_refuse_event(struct fw_host *host, const char *why);

/* What the source knows of its backend, as of now; each stays until it is set again. */
enum fw_gauge {
    FW_GAUGE_LAG_MS,         /* age of the oldest event that is committed but cannot be read yet */
    FW_GAUGE_RETAINED_BYTES, /* what the backend keeps for us on its disk */
};
FW_API void fw_host_gauge(struct fw_host *host, enum fw_gauge gauge, uint64_t value);

/* ---- the hub's loop ---- */

enum { FW_READABLE = 1, FW_WRITABLE = 2 };
struct fw_watch;
typedef void (*fw_watch_fn)(void *arg, unsigned events);
/* Watches a descriptor, level-triggered. events = 0 pauses. The descriptor stays the caller's; free
 * the watch before closing it. Returns 0 or -errno. */
FW_API int fw_host_watch(struct fw_host *host, int fd, unsigned events, fw_watch_fn fn, void *arg,
                         struct fw_watch **ret);
FW_API int fw_watch_set(struct fw_watch *watch, unsigned events);
FW_API void fw_watch_free(struct fw_watch *watch); /* NULL allowed; allowed inside its callback */

struct fw_timer;
typedef void (*fw_timer_fn)(void *arg);
FW_API int fw_host_timer(struct fw_host *host, fw_timer_fn fn, void *arg, struct fw_timer **ret);
FW_API void fw_timer_start(struct fw_timer *timer, unsigned timeout_ms); /* once; restarts */
FW_API void fw_timer_stop(struct fw_timer *timer);
FW_API void fw_timer_free(struct fw_timer *timer);
FW_API int64_t fw_host_now_ms(struct fw_host *host); /* monotonic */

struct fw_resolve;
/* `addresses`: numeric, in the resolver's order; n = 0 on failure, then `error` is its text. */
typedef void (*fw_resolve_fn)(void *arg, const char *const *addresses, unsigned n,
                              const char *error);
FW_API int fw_host_resolve(struct fw_host *host, const char *name, fw_resolve_fn fn, void *arg,
                           struct fw_resolve **ret);
FW_API void fw_resolve_cancel(struct fw_resolve *resolve); /* fn is not called any more */

struct fw_waker;
FW_API int fw_host_waker(struct fw_host *host, fw_timer_fn fn, void *arg, struct fw_waker **ret);
FW_API void fw_waker_wake(struct fw_waker *waker); /* thread: any */
FW_API void fw_waker_free(struct fw_waker *waker);

#ifdef __cplusplus
}
#endif
#endif
