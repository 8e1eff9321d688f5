/* The log: appending, recovery, reading.
 *
 * One writer appends records to a ring in shared memory; any number of readers, in threads and
 * processes, read them without a lock and without the writer knowing. An offset counts bytes since
 * creation, so it never repeats, and `offset & mask` is its place. Three counters tell all:
 *
 *                 tail                              indexed    head
 *     … overwritten │ record │ record │ PAD │ record │ record │ (free)
 *
 * APPEND. The writer first makes room: if the new record would reach beyond tail + size, it gives
 * up at least 1/64 of the ring at once by moving `tail` over whole records (so that it does so
 * rarely, and a reader at the very end is lapped by a step, not by a hair). Then it writes the
 * record, then `head`: from here the record exists. Then it tells the index and the marks, then
 * `indexed`: from here readers may know it. No record wraps. One that does not fit before the end
 * of the ring goes to its beginning, and a PAD record fills the rest; where the rest would be too
 * short for a PAD's head, the record before takes it into its own size, so every record boundary
 * has room for a head.
 *
 * READ. A reader copies first and believes afterwards: it copies the record's head, then looks
 * whether `tail` has passed the record meanwhile; only if not are the sizes in it true and may the
 * body be copied, and then it looks again. Readers that are too slow are told so (lapped), and
 * never get a torn record. For this to hold, the new bytes must not become visible before the new
 * `tail`, and the reader's copy must not happen after its look at `tail`. A release store of `tail`
 * would not hold back the stores after it, nor an acquire load of `tail` the loads before it; so
 * there is a fence(release) between the store of `tail` and the record's stores, and a
 * fence(acquire) between the record's loads and the load of `tail`. The record's bytes themselves
 * move as relaxed 8-byte atomics. The fences are the protocol.
 *
 * WHY `indexed`. Every reader is bounded by `indexed`, whatever it does: reading on, looking
 * whether it may sleep, resuming. A resume takes cut = indexed, asks the index for what its
 * channels have before the cut, and reads on from the cut. Were it to cut at `head`, the newest
 * record could be before the cut and not yet in the index, and nobody would ever deliver it; this
 * loses events within seconds on x86. And a worker that read up to `head` could be ahead of such a
 * cut.
 *
 * THE INDEX (index.c) has the newest offset of each channel by a keyed hash of its name, and
 * records point back to the previous one of their channel (`prev`). So resuming a client costs what
 * its own channels cost, not what the log holds. When a bucket overflows, the channel that was
 * quiet longest leaves it and raises the bucket's floor; its next record then has no exact `prev`
 * but the floor, an upper bound (NOLINK). Whoever meets a bound sweeps the log instead; nothing is
 * ever guessed. Hashes may collide: the name on the record decides.
 *
 * RECOVERY. head and tail are the truth. A writer that died after storing `head` and before storing
 * `indexed` leaves one record (and a PAD) that the index may or may not know. A bucket or a mark in
 * the making has an odd seq. The next writer mends those, puts the record again and stores
 * `indexed`; nothing else can be half done, because what lies after `head` does not exist. Readers
 * need not notice.
 *
 * Who waits for what is in wake.c, resuming in resume.c, the invariants are in layout.h. */
#include "log.h"

#include "layout.h"
#include "siphash.h"

/* ---- the header's words ---- */

uint64_t log_hash(const struct log *log, const void *channel, size_t len)
{
    const uint64_t hash = siphash(log->secret, channel, len);
    return hash ? hash : 1; /* 0 is a free entry of the index */
}

/* Pairs with make_room()'s release store: whoever then loads indexed finds it at or after this
 * tail. */
uint64_t log_tail(const struct log *log)
{
    return atomic_load_explicit(&log->header->tail, memory_order_acquire);
}

/* Pairs with the release store at the end of log_append(): records, index and marks before it. */
uint64_t log_indexed(const struct log *log)
{
    return atomic_load_explicit(&log->header->indexed, memory_order_acquire);
}

/* Pairs with log_append()'s store of head: the record is there. */
uint64_t log_head(const struct log *log)
{
    return atomic_load_explicit(&log->header->head, memory_order_acquire);
}

bool log_used(const struct log *log)
{
    return log_head(log) != log_size(log);
}

/* Release, for log_beat()'s acquire: who sees the beat sees what was appended before it. */
void log_set_beat(struct log *log, int64_t monotonic_ms)
{
    atomic_store_explicit(&log->header->beat, monotonic_ms, memory_order_release);
}

int64_t log_beat(const struct log *log)
{
    return atomic_load_explicit(&log->header->beat, memory_order_acquire);
}

void log_set_up(struct log *log, bool up)
{
    atomic_store_explicit(&log->header->up, up, memory_order_release); /* log_up() */
}

bool log_up(const struct log *log)
{
    return atomic_load_explicit(&log->header->up, memory_order_acquire) != 0; /* log_set_up() */
}

void log_set_opened(struct log *log)
{
    atomic_store_explicit(&log->header->opened, 1, memory_order_relaxed); /* writers alone ask */
}

bool log_opened(const struct log *log)
{
    return atomic_load_explicit(&log->header->opened, memory_order_relaxed) != 0;
}

/* The release store pairs with log_identity(): whoever sees the new identity also sees from which
 * offset on the log's positions are of it. */
void log_set_identity(struct log *log, uint64_t identity)
{
    struct log_header *header = log->header;
    if (atomic_load_explicit(&header->identity, memory_order_relaxed) == identity)
        return;
    atomic_store_explicit(&header->identity_from, log_head(log), memory_order_relaxed);
    atomic_store_explicit(&header->identity, identity, memory_order_release);
}

uint64_t log_identity(const struct log *log)
{
    return atomic_load_explicit(&log->header->identity, memory_order_acquire);
}

/* ---- append ---- */

/* The writer's own look; nobody else stores these counters. */
static inline uint64_t own(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline uint64_t left_in_ring(const struct log *log, uint64_t off)
{
    return log->mask + 1 - (off & log->mask);
}

static bool too_large(const struct log *log, const struct log_event *event)
{
    const uint64_t max = log_event_max(log);
    return event->channel_len > UINT16_MAX || event->meta_len > UINT16_MAX || event->len > max ||
           event->channel_len + event->meta_len + event->len > max;
}

/* A record boundary at or after `goal`, from the marks: to walk there by the records' sizes would
 * read each of them back from memory (a quarter of the time of an append in a ring of 64 MiB). */
static uint64_t boundary_after(const struct log *log, uint64_t tail, uint64_t goal, uint64_t head)
{
    struct log_mark_copy mark;
    for (uint64_t slot = (goal >> log->mark_shift) + 1; slot <= head >> log->mark_shift; slot++)
        if (log_mark_get(log, slot, &mark))
            return mark.off;
    while (tail < goal)
        tail += log_record_head_at(log, tail).size;
    return tail;
}

/* Gives up whole records until `need` bytes after head are free. */
static void make_room(struct log *log, uint64_t head, uint64_t need)
{
    const uint64_t size = log->mask + 1;
    uint64_t tail = own(&log->header->tail);
    if (head + need - tail <= size)
        return;

    const uint64_t goal = head + need - size + size / 64; /* < head: need is less than size / 7 */
    tail = boundary_after(log, tail, goal, head);
    /* The store pairs with log_tail(). It does not hold back the stores after it: the fence does,
     * and pairs with log_lapped()'s. */
    atomic_store_explicit(&log->header->tail, tail, memory_order_release);
    atomic_thread_fence(memory_order_release);
    LOG_CRASH_AT(LOG_CRASH_TAIL);
}

static void put_pad(struct log *log, uint64_t off, uint64_t size)
{
    const struct log_record_head pad = { .off = off, .size = (uint32_t)size, .flags = RECORD_PAD };
    log_words_store(log_words(log, off), &pad, LOG_HEAD_WORDS);
    LOG_CRASH_AT(LOG_CRASH_PAD);
}

/* Collects the parts of a body into words. */
struct body {
    _Atomic uint64_t *to;
    size_t fill; /* bytes in stage */
    uint64_t stage[32];
};

static void body_flush(struct body *body)
{
    const size_t words = (body->fill + 7) / 8;
    memset((char *)body->stage + body->fill, 0, words * 8 - body->fill);
    log_words_store(body->to, body->stage, words);
    body->to += words;
    body->fill = 0;
}

static void body_put(struct body *body, const void *data, size_t len)
{
    const char *from = data;
    while (len > sizeof(body->stage) - body->fill) {
        const size_t n = sizeof(body->stage) - body->fill;
        memcpy((char *)body->stage + body->fill, from, n);
        body->fill += n;
        from += n;
        len -= n;
        body_flush(body);
        LOG_CRASH_AT(LOG_CRASH_HALF_RECORD);
    }
    if (len) {
        memcpy((char *)body->stage + body->fill, from, len);
        body->fill += len;
    }
}

static void body_put_string(struct body *body, const void *data, size_t len)
{
    body_put(body, data, len);
    body_put(body, "", 1);
}

static void put_record(struct log *log, const struct log_record_head *head,
                       const struct log_event *event)
{
    _Atomic uint64_t *to = log_words(log, head->off);
    log_words_store(to, head, LOG_HEAD_WORDS);
    LOG_CRASH_AT(LOG_CRASH_HALF_RECORD);
    struct body body;
    body.to = to + LOG_HEAD_WORDS;
    body.fill = 0;
    body_put_string(&body, event->channel, event->channel_len);
    body_put_string(&body, event->meta, event->meta_len);
    body_put_string(&body, event->data, event->len);
    body_flush(&body);
    LOG_CRASH_AT(LOG_CRASH_RECORD);
}

static uint16_t flags_of(const struct log_event *event, struct log_at prev)
{
    return (uint16_t)(event->kind | (prev.exact ? 0 : LOG_NOLINK) |
                      (event->history ? LOG_HISTORY : 0));
}

/* What head stands at is known now: tell the index and the marks, then the readers. */
static void publish(struct log *log, const struct log_record_head *head)
{
    log_index_put(log, head->hash, head->off);
    log_mark_put(log, head->off, head->pos, head->time_ms);
    atomic_store_explicit(&log->header->indexed, head->off + head->size,
                          memory_order_release); /* log_indexed() */
    LOG_CRASH_AT(LOG_CRASH_INDEXED);
}

uint64_t log_append(struct log *log, const struct log_event *event)
{
    if (too_large(log, event))
        return 0;
    const uint64_t hash = log_hash(log, event->channel, event->channel_len);
    __builtin_prefetch(log_bucket_of(log, hash));

    const uint64_t end = own(&log->header->head), left = left_in_ring(log, end);
    uint64_t size = sizeof(struct log_record_head) +
                    8 * log_body_words(event->channel_len, event->meta_len, event->len);
    const uint64_t pad = size > left ? left : 0;
    if (!pad && left - size < sizeof(struct log_record_head))
        size = left;
    make_room(log, end, pad + size);
    if (pad)
        put_pad(log, end, pad);

    const struct log_at prev = log_index_own(log, hash);
    const struct log_record_head head = {
        .off = end + pad,
        .prev = prev.off,
        .hash = hash,
        .time_ms = (uint64_t)event->time_ms,
        .pos = { event->pos[0], event->pos[1] },
        .xid = event->xid,
        .size = (uint32_t)size,
        .len = (uint32_t)event->len,
        .channel_len = (uint16_t)event->channel_len,
        .meta_len = (uint16_t)event->meta_len,
        .flags = flags_of(event, prev),
    };
    put_record(log, &head, event);
    atomic_store_explicit(&log->header->head, head.off + size, memory_order_release);
    LOG_CRASH_AT(LOG_CRASH_HEAD);
    publish(log, &head);
    return head.off;
}

/* ---- recovery ---- */

void log_recover(struct log *log)
{
    const uint64_t end = log_head(log), tail = log_tail(log);
    uint64_t off = log_indexed(log);

    log_index_repair(log, off);
    log_marks_repair(log);
    if (off < tail)
        off = tail;
    while (off < end) {
        const struct log_record_head head = log_record_head_at(log, off);
        if ((head.flags & LOG_KIND_MASK) != RECORD_PAD) {
            log_index_put(log, head.hash, off);
            log_mark_put(log, off, head.pos, head.time_ms);
            LOG_CRASH_AT(LOG_CRASH_REPAIR_PUT);
        }
        off += head.size;
    }
    atomic_store_explicit(&log->header->indexed, end, memory_order_release); /* log_indexed() */
    LOG_CRASH_AT(LOG_CRASH_INDEXED);
}

/* ---- read ---- */

/* The head of a record that was not lapped is as the writer wrote it; this keeps a reader inside
 * its mapping should the writer be broken, or `off` no record boundary. */
static bool sane(const struct log *log, const struct log_record_head *head, uint64_t off)
{
    const size_t body = head->channel_len + (size_t)head->meta_len + head->len + LOG_BODY_NULS;
    return head->off == off && head->size % 8 == 0 && head->size <= left_in_ring(log, off) &&
           head->size >= sizeof(*head) &&
           ((head->flags & LOG_KIND_MASK) == RECORD_PAD || body <= head->size - sizeof(*head));
}

int log_peek(const struct log *log, uint64_t off, struct log_record *ret)
{
    if (left_in_ring(log, off) < sizeof(struct log_record_head) || off % 8)
        return 0;
    const struct log_record_head head = log_record_head_at(log, off);
    if (log_lapped(log, off) || !sane(log, &head, off))
        return 0;
    *ret = (struct log_record){
        .off = off,
        .next = off + head.size,
        .prev = head.prev,
        .hash = head.hash,
        .time_ms = head.time_ms,
        .pos = { head.pos[0], head.pos[1] },
        .xid = head.xid,
        .len = head.len,
        .channel_len = head.channel_len,
        .meta_len = head.meta_len,
        .kind = head.flags & LOG_KIND_MASK,
        .prev_exact = !(head.flags & LOG_NOLINK),
        .history = (head.flags & LOG_HISTORY) != 0,
    };
    return 1;
}

size_t log_body_size(const struct log_record *record)
{
    return 8 * log_body_words(record->channel_len, record->meta_len, record->len);
}

int log_body(const struct log *log, struct log_record *record, void *buf)
{
    char *channel = buf;
    log_words_load(buf, log_words(log, record->off) + LOG_HEAD_WORDS, log_body_size(record) / 8);
    if (log_lapped(log, record->off))
        return 0;
    record->channel = channel;
    record->meta = channel + record->channel_len + 1;
    record->data = (uint8_t *)channel + record->channel_len + 1 + record->meta_len + 1;
    return 1;
}
