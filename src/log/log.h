/* The log: a fixed-size ring of events in shared memory. One writer, any number of readers; a
 * reader is an offset. Offsets are bytes since creation, monotone, never repeat; 0 means none.
 * log.c tells the protocol, layout.h draws the memory. */
#ifndef LOG_LOG_H
#define LOG_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log;

enum record_kind { RECORD_MESSAGE, RECORD_GAP, RECORD_DOWN, RECORD_UP, RECORD_LIVE, RECORD_PAD };

#define LOG_SIZE_MIN (1u << 16)
/* len and size of a record are 32 bits: an event may take 1/16 of the ring, a PAD little more. */
#define LOG_SIZE_MAX (UINT64_C(1) << 35)
#define LOG_HOPS_MAX 1024 /* a resume that would walk further sweeps instead */

/* ---- creating and mapping ---- */

/* Creates a log of `size` bytes of ring (rounded up to a power of two, ≥ LOG_SIZE_MIN) in a memfd:
 * allocated at once, mapped writable, sealed against shrinking, growing and new writable mappings.
 * Returns 0 or -errno (-ENOSPC/-ENOMEM: not enough memory; -EINVAL: over 32 GiB). Thread: any. */
int log_create(uint64_t size, struct log **ret);
/* Maps an existing log read-only from its descriptor (borrowed; may be closed afterwards).
 * Returns 0, -EPROTO when it is not a log of this layout version. */
int log_attach(int fd, struct log **ret);
void log_close(struct log *log);   /* unmaps, closes its descriptor; NULL allowed */
int log_fd(const struct log *log); /* borrowed; -1 after log_attach */
/* Takes the writer lock for this process (a POSIX record lock on the memfd); -EAGAIN when another
 * process holds it. Released by the process's end, and (POSIX) when the process closes any of its
 * descriptors of this log: a process that writes must not close one. */
int log_lock_writer(struct log *log);

uint64_t log_size(const struct log *log);      /* bytes of ring */
uint64_t log_epoch(const struct log *log);     /* random, names this log in position texts */
uint64_t log_event_max(const struct log *log); /* largest channel + meta + payload: size / 16 */
uint64_t log_hash(const struct log *log, const void *channel, size_t len);

/* ---- the writer ---- */

struct log_event {
    const void *channel, *meta, *data; /* channel of length 0 is the reserved control channel */
    size_t channel_len, meta_len, len;
    int64_t time_ms;
    uint64_t pos[2], xid;
    enum record_kind kind;
    bool history;
};

/* Appends. Returns the record's offset, or 0 when it is larger than log_event_max(). */
uint64_t log_append(struct log *log, const struct log_event *event);
/* Brings a log whose writer died back into order. The new writer calls it before anything else. */
void log_recover(struct log *log);
/* True when a writer has appended before (a restart of the writer finds a used log). */
bool log_used(const struct log *log);

/* Words the writer keeps in the header for all readers. */
void log_set_beat(struct log *log, int64_t monotonic_ms);
int64_t log_beat(const struct log *log);
void log_set_up(struct log *log, bool up); /* is the source there? */
bool log_up(const struct log *log);
void log_set_opened(struct log *log); /* a source has been there: from now on for good */
bool log_opened(const struct log *log);
/* 0: positions are offsets of this log; else the identity of the stream the positions belong to.
 * Set it before appending the first event of a new identity. */
void log_set_identity(struct log *log, uint64_t identity);
uint64_t log_identity(const struct log *log);

/* ---- wake-up (wake.c) ---- */

/* One reader process's page, created by the source process, mapped writable by both. */
struct log_slot {
    _Atomic uint32_t sleeping;
    _Atomic uint32_t unused;
    _Atomic uint64_t cursor; /* how far the reader is; for pacing only */
    _Atomic int64_t beat;    /* monotonic ms of its last turn */
};
/* Writer: after a batch. fence(seq_cst), then true for a slot whose reader must get its eventfd
 * written; log_wake_futex() wakes the readers that wait in log_wait(). */
bool log_wake_slot(struct log_slot *slot); /* call log_wake_fence() once before a round of these */
void log_wake_fence(void);
void log_wake_futex(struct log *log);
/* Reader with a slot: true when it may sleep (nothing after `seen`); the slot then says sleeping.
 */
bool log_sleep(struct log *log, struct log_slot *slot, uint64_t seen);
void log_awake(struct log_slot *slot);
/* Reader without: returns the wake word; read it BEFORE looking at log_indexed(). */
uint32_t log_wake_word(const struct log *log);
/* Waits until the wake word differs from `word` or timeout_ms passed (< 0: for ever). May return
 * early, as any futex. Returns 0, or -ETIMEDOUT, -EINTR. */
int log_wait(const struct log *log, uint32_t word, int timeout_ms);

/* ---- readers ---- */

uint64_t log_tail(const struct log *log);    /* oldest record held (acquire) */
uint64_t log_indexed(const struct log *log); /* readers' bound: end of the last readable record */
uint64_t log_head(const struct log *log);    /* for the writer and log_check() alone */

struct log_record {
    uint64_t off, next; /* its offset; the offset right after it (what a position names) */
    uint64_t prev, hash, time_ms, pos[2], xid;
    uint32_t len;
    uint16_t channel_len, meta_len;
    enum record_kind kind;
    bool prev_exact; /* prev is the channel's preceding record, else only an upper bound of it */
    bool history;
    const char *channel; /* set by log_body(): into the caller's buffer; NUL-terminated each */
    const char *meta;
    const uint8_t *data;
};

/* Copies the head of the record at `off` (a record boundary < log_indexed()). Returns 1, or 0 when
 * it was overwritten (lapped). PAD records come as RECORD_PAD: go on at next. */
int log_peek(const struct log *log, uint64_t off, struct log_record *ret);
/* Bytes log_body() needs for this record: 8-byte-rounded body + room for the NULs. */
size_t log_body_size(const struct log_record *record);
/* Copies channel, meta and payload to `buf` (8-byte aligned, ≥ log_body_size()), sets the three
 * pointers. Returns 1, or 0 when lapped. */
int log_body(const struct log *log, struct log_record *record, void *buf);

/* ---- resuming (resume.c) ---- */

struct log_channel {
    uint64_t hash;
    const char *name;
    size_t len;
};

/* Is something of the channel held or lost in [since, cut)? Uses the index and prev links.
 * Fills out[] with the offsets, oldest first. Returns their number ≥ 0; -ESTALE when some were
 * overwritten (a gap); -E2BIG when it would take more than `max` or LOG_HOPS_MAX hops or the index
 * has only an upper bound: sweep from log_mark_before(since). since must be ≤ cut; any number is
 * safe: it is compared, never dereferenced. The name is compared on each record. */
int log_walk(const struct log *log, const struct log_channel *channel, uint64_t since, uint64_t cut,
             uint64_t *out, size_t max);
/* The newest n ≤ max records (messages and channel gaps) of the channel before `cut`, oldest first.
 * Returns their number: fewer if fewer are held or known. Falls back to a sweep. */
int log_last(const struct log *log, const struct log_channel *channel, uint64_t cut, size_t n,
             uint64_t *out);
/* A record boundary at or before `off` from which a sweep may start, ≥ log_tail(). `off` in
 * [tail, indexed] only; costs ≤ 1/1024 of the ring of sweeping. Returns tail when nothing better:
 * that is beyond `off` when the writer has overtaken it meanwhile, and then something was missed.
 */
uint64_t log_mark_before(const struct log *log, uint64_t off);
/* Where reading on from `since` starts: the first record boundary ≥ since (since itself, unless a
 * client made it up). -ESTALE when since < tail, -ERANGE when since > indexed. */
int log_seek(const struct log *log, uint64_t since, uint64_t *ret);
/* For ORDERED positions: the offset right after the newest record with position ≤ pos. Looks only
 * at records of the current identity; records without a position ({0, 0}, as down, up and gaps must
 * be appended) are never skipped: they come after the position, not with it. -ESTALE when pos is
 * before the oldest record held, -ERANGE when after the newest. */
int log_seek_position(const struct log *log, const uint64_t pos[2], uint64_t *ret);
/* The position of the newest record before `off` that has one (of the current identity). Returns 0,
 * -ENOENT when there is none, -ESTALE when overtaken on the way. Sweeps ≤ 1/1024 of the ring where
 * events have positions. */
int log_position_before(const struct log *log, uint64_t off, uint64_t ret[2]);
int64_t log_oldest_time_ms(const struct log *log); /* of the oldest readable event; 0 if none */

/* ---- tests ---- */

/* Verifies the invariants I1–I8 that a quiet log can show. Returns 0 or -EINVAL with text. Only
 * while nobody writes. */
int log_check(const struct log *log, char *why, size_t size);

#endif
