/* Fanwire: one backend stream in, every subscriber out.
 *
 * A hub opens a backend stream (a URL) once and writes it into one log; every subscription is a
 * cursor on that log. Nothing is lost silently: a subscription gets every event of its channels
 * once and in order, or an explicit gap.
 *
 * Results are > 0 / 0 / negative errno. Human text goes to struct fw_error, on failure only.
 * The library never prints, exits or aborts. */
#ifndef FANWIRE_H
#define FANWIRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FW_API __attribute__((visibility("default")))

#define FW_CHANNEL_MAX  255 /* bytes of UTF-8 in a channel's name */
#define FW_POSITION_MAX 200 /* bytes in a position's text, without the final NUL */

struct fw_hub;
struct fw_sub;

/* What fw_sub_next() returned. */
enum fw_kind {
    FW_MESSAGE = 1,  /* an event of a channel */
    FW_READY = 2,    /* the backend confirmed the channel; everything up to `id` was returned */
    FW_GAP = 3,      /* events after `after` and before `before` may be missing: reload, go on */
    FW_DOWN = 4,     /* the source is away (`reason`); nothing is lost unless a gap follows */
    FW_UP = 5,       /* the source is back */
    FW_SNAPSHOT = 6, /* a row that stands before a channel's events (fw_sub_options.snapshot) */
};

/* The text of a failure. Written on failure only; safe to print. */
struct fw_error {
    int code;          /* a negative errno */
    char message[508]; /* what was attempted, on what, and what to do about it */
};

/* One step of a subscription. All pointers are borrowed until the next call on the subscription;
 * strings are NUL-terminated and never NULL unless said otherwise. */
struct fw_event {
    int kind;            /* enum fw_kind */
    const char *channel; /* "" when it concerns all channels of the subscription */
    const void *data;    /* MESSAGE: the payload; SNAPSHOT: the row, a JSON object. A NUL follows,
                            which `len` does not count */
    size_t len;          /* bytes of data */
    const char *id;      /* position of this event: pass it as `since` to go on after it; SNAPSHOT:
                            "", nobody resumes among rows */
    int64_t time_ms;     /* when the source took it in, ms since 1970 UTC; 0 if unknown */
    const char *after;   /* GAP: the last position known to be complete; NULL if unknown */
    const char *before;  /* GAP: the position from which the stream is whole again */
    const char *reason;  /* GAP, DOWN: lapped expired connection-lost restart not-covered too-large
                            new-epoch slot-lost foreign-position ended hung; "" otherwise */
    const char *from;    /* MESSAGE: the publishing client, "" if unknown */
};

/* The query whose rows stand before the events of a channel: one SELECT (WITH, VALUES, TABLE). */
struct fw_snapshot_query {
    const char *channel;
    const char *sql;
};

/* Zeroed fields mean the default. `size` = sizeof(struct fw_hub_options). */
struct fw_hub_options {
    size_t size;
    size_t retain;      /* bytes of the log, a power of two is rounded up to; default 64 MiB */
    unsigned linger_ms; /* how long a channel is listened to after its last subscription; 60 s */
    int in_process;     /* run the source in a thread of the calling process (as for now it always
                           does). Such a hub does not survive fork(): the child gets -ECHILD. */
    const struct fw_snapshot_query *snapshots; /* n_snapshots, of channels that differ; databases */
    size_t n_snapshots;
};

struct fw_sub_options {
    size_t size;
    const char *since; /* position, "now" (default) or "oldest"; exclusive */
    unsigned last; /* first the newest N events held of the channel (1–1000); not with since */
    int snapshot;  /* first the rows of the channel's query, then exactly the events that they do
                      not contain; not with since or last */
};

/* Opens a hub on `url` ("postgres://…", "memory:", "stdin:CHANNEL"; docs/sources lists all) and
 * starts its source. Returns at once: an absent backend is no error here, subscriptions are told
 * (FW_DOWN) and it is tried again until it is there.
 * Returns 0, -EINVAL for a bad URL or snapshot (a source that runs no queries has none), -ENOMEM,
 * -EAGAIN (no thread or descriptor).
 * Ownership: *ret_hub is owned, released by fw_hub_close(). `url` and `options` are copied.
 * Thread: any. Does not block. */
FW_API int fw_hub_open(const char *url, const struct fw_hub_options *options,
                       struct fw_hub **ret_hub, struct fw_error *err);

/* Publishes to the backend and waits until it has accepted the event.
 * `id` (FW_POSITION_MAX + 1 bytes, may be NULL) gets the position, "" where the backend tells none.
 * Returns 0, -EINVAL (bad channel), -EMSGSIZE (the backend's limit), -ETIMEDOUT (may have been
 * stored), -EAGAIN (source down, not stored), -EIO (refused), -ECHILD (after fork).
 * timeout_ms < 0 waits for ever. Thread: any. Blocks. */
FW_API int fw_hub_publish(struct fw_hub *hub, const char *channel, const void *data, size_t len,
                          int timeout_ms, char *id, struct fw_error *err);

struct fw_publish_options {
    size_t size;
    const char *key;  /* idempotency: an event whose key stands in the log of the hub that reads it,
                         in  this channel, is not delivered again; 1–255 bytes, NULL: none */
    const char *from; /* the client that it comes from, ≤ 64 bytes; NULL: unknown */
};

/* The same with a key, so that it may be repeated after -ETIMEDOUT. -EINVAL, too, for one that is
 * too long. `options` (may be NULL) are copied. */
FW_API int fw_hub_publish_with(struct fw_hub *hub, const char *channel, const void *data,
                               size_t len, const struct fw_publish_options *options, int timeout_ms,
                               char *id, struct fw_error *err);

/* Stops the source and releases the hub. Close its subscriptions first. NULL is allowed.
 * Thread: any, once. Blocks until the source's thread has ended; a name look-up that is under way
 * is waited for, as long as the system's resolver takes. */
FW_API void fw_hub_close(struct fw_hub *hub);

/* Opens a subscription to `channel` (NULL: none yet, see fw_sub_add()).
 * Returns 0, -EINVAL (bad channel, position or options; `snapshot` where the hub has no query for
 * the channel), -ENOMEM, -EMFILE.
 * Ownership: *ret_sub is owned, released by fw_sub_close(). Thread: any. Does not block. */
FW_API int fw_sub_open(struct fw_hub *hub, const char *channel,
                       const struct fw_sub_options *options, struct fw_sub **ret_sub,
                       struct fw_error *err);

/* Adds a channel. With `since` or `last`, its events up to the subscription's place are returned
 * first, then FW_READY, then it merges; order is promised per channel, and over all channels from
 * FW_READY on. With `snapshot` the rows come first, then those events that they do not contain;
 * meanwhile other channels go on. Rows are had for one channel of a subscription after the other.
 * Returns 0, -EINVAL, -EEXIST, -ENOMEM, -ECHILD. Thread: the subscription's. */
FW_API int fw_sub_add(struct fw_sub *sub, const char *channel, const struct fw_sub_options *options,
                      struct fw_error *err);

/* Removes a channel; no event of it is returned from now on. Returns 0 or -ENOENT.
 * Thread: the subscription's. */
FW_API int fw_sub_remove(struct fw_sub *sub, const char *channel);

/* Returns the next step of the subscription: its kind (> 0), 0 when `timeout_ms` passed (< 0: wait
 * for ever; 0: only look), or a negative errno with the text in fw_sub_error(): -ECANCELED after
 * fw_sub_cancel(), -ECHILD after fork(), -EPIPE when the hub was closed; -EACCES, -EINVAL or -EIO
 * when the source refuses a channel, or its rows cannot be had (also -EMSGSIZE, over 16 MiB, and
 * -EAGAIN, which may pass), which is then removed: the others go on with the next call.
 * Ownership: what *ev points to is borrowed until the next call on this subscription.
 * Thread: one at a time. Blocks as told; allocates only when an event outgrows its buffer, and
 * for rows: those of one channel, until they are returned. */
FW_API int fw_sub_next(struct fw_sub *sub, struct fw_event *ev, int timeout_ms);

/* A descriptor that polls readable when fw_sub_next(sub, ev, 0) has something to return, for event
 * loops; level-triggered until fw_sub_next() has returned 0. Borrowed; never read or close it.
 * Returns the descriptor or a negative errno. Thread: the subscription's. */
FW_API int fw_sub_fd(struct fw_sub *sub);

/* Makes the current and every later fw_sub_next() return -ECANCELED.
 * Thread: any; not from signal handlers. */
FW_API void fw_sub_cancel(struct fw_sub *sub);

/* Writes the position up to which the subscription has returned everything; hand it as `since` to
 * resume. `buf` holds FW_POSITION_MAX + 1 bytes. Returns 0, -EINVAL (`buf` too small) or -EAGAIN
 * (where a channel begins is not known yet: its `since` or `last` waits for the source; the
 * subscription has not come to its `since`; or it began with `snapshot` and is not ready).
 * Thread: the subscription's. */
FW_API int fw_sub_position(const struct fw_sub *sub, char *buf, size_t size);

/* The text of the last failure of fw_sub_next(). Borrowed until the next call. */
FW_API const char *fw_sub_error(const struct fw_sub *sub);

/* Ends the subscription. NULL is allowed. Thread: any, once, not during fw_sub_next(). */
FW_API void fw_sub_close(struct fw_sub *sub);

/* A copy of an event that outlives the next call; owned, one allocation. */
FW_API int fw_event_copy(const struct fw_event *ev, struct fw_event **ret_copy);
FW_API void fw_event_free(struct fw_event *copy);

/* The SQL that installs fanwire's functions and tables in a database, safe to run again: what
 * `fanwire sql` prints. `kind` is "postgres" (`mode` NULL or "notify") or "sqlite" (`mode` NULL).
 * It is several statements, for PQexec() or sqlite3_exec(); that of "sqlite" begins and commits a
 * transaction of its own. Returns the text, or NULL where kind or mode is unknown to this version.
 * Ownership: static. Thread: any. Does not block. */
FW_API const char *fw_sql(const char *kind, const char *mode);

/* "0.1.0"; static. */
FW_API const char *fw_version(void);

#ifdef __cplusplus
}
#endif
#endif
