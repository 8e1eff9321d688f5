/* The log's memory, drawn once for the writer, the readers and the checks. log.c tells the
 * protocol.
 *
 *   page 0    header    constants | head | tail | indexed | beat | wake | up | identity
 *   then      marks     1024 × the first record that starts in each 1/1024 of the ring
 *   then      buckets   2^n × 3 channels' newest offsets, one bucket per 256 bytes of ring
 *   then      ring      records, 8-byte aligned; none wraps
 *
 * Everything that the writer changes while readers look is an atomic word of at most 8 bytes.
 *
 *   I1  bytes in [tail, head) never change.
 *   I2  a record is wholly in [tail, head) or not there.
 *   I3  head − tail ≤ size.
 *   I4  tail, indexed and head are record boundaries, tail ≤ indexed ≤ head.
 *   I5  for offsets < indexed: a bucket has a channel's newest offset exactly, or nothing of the
 *       channel lies after the bucket's floor.
 *   I6  prev is the channel's preceding record, or with NOLINK an upper bound of it.
 *   I7  positions rise with offsets, unless they are local (identity 0).
 *   I8  one writer: the holder of the writable mapping and of the writer lock.
 *
 * Names that begin with log_ and stand here are the log's own; others use log.h. */
#ifndef LOG_LAYOUT_H
#define LOG_LAYOUT_H

#include "log.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#define LOG_MAGIC           UINT64_C(0x676f6c657269776e) /* "nwirelog" */
#define LOG_VERSION         1
#define LOG_LINE            64 /* a cache line */
#define LOG_HEADER_SIZE     4096
#define LOG_MARKS           1024
#define LOG_BUCKET_ENTRIES  3
#define LOG_RING_PER_BUCKET 256

struct log_header {
    /* Constant from log_create() on. */
    alignas(LOG_LINE) uint64_t magic;
    uint64_t version;
    uint64_t size; /* of the ring */
    uint64_t epoch[2];
    uint64_t secret[2]; /* key of the channel hash */

    /* The three counters; I3 and I4. */
    alignas(LOG_LINE) _Atomic uint64_t head;    /* the next record's offset; the writer's own */
    alignas(LOG_LINE) _Atomic uint64_t tail;    /* oldest record held */
    alignas(LOG_LINE) _Atomic uint64_t indexed; /* readers' bound */

    alignas(LOG_LINE) _Atomic int64_t beat;
    alignas(LOG_LINE) _Atomic uint32_t wake; /* a futex: counts wake-ups */
    alignas(LOG_LINE) _Atomic uint32_t up;
    _Atomic uint32_t opened;
    alignas(LOG_LINE) _Atomic uint64_t identity;
    _Atomic uint64_t identity_from; /* positions before this offset are of another identity */
};
static_assert(sizeof(struct log_header) <= LOG_HEADER_SIZE, "the header is one page");

/* seq is odd while the writer changes the mark. */
struct log_mark {
    _Atomic uint64_t seq;
    _Atomic uint64_t off; /* 0: none yet */
    _Atomic uint64_t pos[2];
    _Atomic uint64_t time_ms;
};

struct log_entry {
    _Atomic uint64_t hash; /* 0: free */
    _Atomic uint64_t last; /* the channel's newest record, held or long evicted */
};

/* seq is odd while the writer replaces an entry. floor: the newest `last` ever evicted from here.
 */
struct log_bucket {
    alignas(LOG_LINE) _Atomic uint64_t seq;
    _Atomic uint64_t floor;
    struct log_entry entries[LOG_BUCKET_ENTRIES];
};
static_assert(sizeof(struct log_bucket) == LOG_LINE, "a look-up costs one cache line");

/* In the ring, followed by channel NUL meta NUL payload NUL, zeros to the 8-byte boundary, and then
 * unused bytes where the rest of the ring would be too short for a PAD record. */
struct log_record_head {
    uint64_t off, prev, hash, time_ms, pos[2], xid;
    uint32_t size, len; /* size: head to next head */
    uint16_t channel_len, meta_len, flags, unused;
};
static_assert(sizeof(struct log_record_head) == 72, "a record's head has no holes");

#define LOG_HEAD_WORDS (sizeof(struct log_record_head) / 8)
#define LOG_BODY_NULS  3

/* log_record_head.flags */
#define LOG_KIND_MASK 0x0007 /* enum record_kind */
#define LOG_NOLINK    0x0008 /* prev is an upper bound */
#define LOG_HISTORY   0x0010

struct log {
    struct log_header *header;
    struct log_mark *marks;
    struct log_bucket *buckets;
    _Atomic uint64_t *ring;
    uint64_t mask; /* size of the ring - 1 */
    uint64_t bucket_mask;
    unsigned mark_shift; /* off >> mark_shift numbers the 1/1024 of the ring since creation */
    uint64_t secret[2];
    size_t map_size;
    int fd; /* -1 when attached */
};

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "8-byte atomics must be plain instructions");

/* ---- fences ---- */

/* ThreadSanitizer does not model fences, and gcc says so at each. It needs none here: all shared
 * words are atomics, so there is no race for it to report; what the fences order is proved by
 * tests/log/memory_order.py and the lapping and kill tests. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

/* The two halves of the sleep protocol (wake.c). Tests compile them away to see the loss. */
#ifndef LOG_SLEEPER_FENCE
#define LOG_SLEEPER_FENCE() atomic_thread_fence(memory_order_seq_cst)
#endif
#ifndef LOG_WAKER_FENCE
#define LOG_WAKER_FENCE() atomic_thread_fence(memory_order_seq_cst)
#endif

/* ---- crash points ---- */

/* Where the writer may die with something half done: after each store to a shared counter. Only the
 * tests' own build of the log has code here. */
enum log_crash_point {
    LOG_CRASH_TAIL,
    LOG_CRASH_PAD,
    LOG_CRASH_HALF_RECORD,
    LOG_CRASH_RECORD,
    LOG_CRASH_HEAD,
    LOG_CRASH_BUCKET_ODD,
    LOG_CRASH_BUCKET_FLOOR,
    LOG_CRASH_BUCKET_LAST,
    LOG_CRASH_BUCKET_HASH,
    LOG_CRASH_BUCKET_EVEN,
    LOG_CRASH_LAST,
    LOG_CRASH_MARK_ODD,
    LOG_CRASH_MARK_OFF,
    LOG_CRASH_MARK_REST,
    LOG_CRASH_MARK_EVEN,
    LOG_CRASH_INDEXED,
    LOG_CRASH_REPAIR_HASH,
    LOG_CRASH_REPAIR_LAST,
    LOG_CRASH_REPAIR_EVEN,
    LOG_CRASH_REPAIR_MARK,
    LOG_CRASH_REPAIR_PUT,
    LOG_CRASH_POINTS,
};
#ifdef LOG_TEST_HOOKS
void log_crash_point(enum log_crash_point point);
#define LOG_CRASH_AT(point) log_crash_point(point)
#else
#define LOG_CRASH_AT(point) ((void)0)
#endif

/* ---- words ---- */

static inline _Atomic uint64_t *log_words(const struct log *log, uint64_t off)
{
    return log->ring + (off & log->mask) / 8;
}

/* Record bytes move by relaxed 8-byte atomics on both sides: a reader may look while the writer
 * overwrites, and throws away what it saw; a memcpy would be a data race. */
static inline void log_words_store(_Atomic uint64_t *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t word;
        memcpy(&word, (const char *)from + 8 * i, 8);
        atomic_store_explicit(&to[i], word, memory_order_relaxed);
    }
}

static inline void log_words_load(void *to, const _Atomic uint64_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t word = atomic_load_explicit(&from[i], memory_order_relaxed);
        memcpy((char *)to + 8 * i, &word, 8);
    }
}

/* After relaxed loads of the record at off: were the bytes still its own? The fence keeps the loads
 * before the load of tail; it pairs with the writer's fence(release) between its store of tail and
 * its first store over the record (make_room() in log.c): if a load saw a newer byte, tail is seen
 * beyond off. */
static inline bool log_lapped(const struct log *log, uint64_t off)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&log->header->tail, memory_order_relaxed) > off;
}

static inline size_t log_body_words(size_t channel_len, size_t meta_len, size_t len)
{
    return (channel_len + meta_len + len + LOG_BODY_NULS + 7) / 8;
}

static inline bool log_pos_le(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] < b[0] || (a[0] == b[0] && a[1] <= b[1]);
}

/* Records of the control channel have no position of their own. */
static inline bool log_pos_none(const uint64_t pos[2])
{
    return pos[0] == 0 && pos[1] == 0;
}

/* ---- the index (index.c) ---- */

/* Where a channel's newest record is: exactly, or nowhere after off. */
struct log_at {
    uint64_t off;
    bool exact;
};

static inline struct log_bucket *log_bucket_of(const struct log *log, uint64_t hash)
{
    return &log->buckets[hash & log->bucket_mask];
}

struct log_at log_index_get(const struct log *log, uint64_t hash); /* reader */
struct log_at log_index_own(const struct log *log, uint64_t hash); /* the writer's, without retry */
void log_index_put(struct log *log, uint64_t hash, uint64_t off);
/* Mends buckets that a dead writer left half written; `indexed` as it left it. */
void log_index_repair(struct log *log, uint64_t indexed);

/* ---- marks (marks.c) ---- */

struct log_mark_copy {
    uint64_t off, pos[2], time_ms;
};

/* Notes the record if it is the first that starts in its 1/1024 of the ring. */
void log_mark_put(struct log *log, uint64_t off, const uint64_t pos[2], uint64_t time_ms);
/* The mark of the 1/1024 number `slot` (off >> mark_shift); false when it has none (any more). */
bool log_mark_get(const struct log *log, uint64_t slot, struct log_mark_copy *ret);
void log_marks_repair(struct log *log);

/* ---- record heads ---- */

/* Unrolled, so that the head stays in registers: gcc would else read pairs of the words back from
 * the stack by wide loads that have to wait for the stores (twice the time of a sweep). */
static inline struct log_record_head log_record_head_at(const struct log *log, uint64_t off)
{
    struct log_record_head head;
    const _Atomic uint64_t *from = log_words(log, off);
#pragma GCC unroll 9
    for (size_t i = 0; i < LOG_HEAD_WORDS; i++) {
        const uint64_t word = atomic_load_explicit(&from[i], memory_order_relaxed);
        memcpy((char *)&head + 8 * i, &word, 8);
    }
    return head;
}

#endif
