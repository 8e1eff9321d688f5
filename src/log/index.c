/* The index: each channel's newest record by the channel's hash, and what the index forgot.
 *
 * A bucket holds three channels and a floor. A channel that is not in its bucket has nothing after
 * the floor, because whoever was evicted raised the floor to its own newest offset. Entries outlive
 * their records: a quiet channel's reader is told "complete" however far the log has moved on. */
#include "layout.h"

#include <sched.h>

/* A reader that meets a bucket in the making waits for it, but not for a writer that died in it:
 * after about a millisecond "unknown" is a safe answer, it only costs a sweep. */
#define SPINS  64
#define YIELDS 1000

static inline uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline struct log_at look(const struct log_bucket *bucket, uint64_t hash)
{
    for (int i = 0; i < LOG_BUCKET_ENTRIES; i++)
        if (load(&bucket->entries[i].hash) == hash)
            return (struct log_at){ load(&bucket->entries[i].last), true };
    return (struct log_at){ load(&bucket->floor), false };
}

struct log_at log_index_own(const struct log *log, uint64_t hash)
{
    return look(log_bucket_of(log, hash), hash);
}

/* The acquire load of seq pairs with the release store that made it even; the fence keeps look()'s
 * loads before the second load of seq and pairs with replace()'s fence: whoever saw a word of a
 * replacement sees an odd or newer seq. The fence also pairs with the release store of `last` in
 * log_index_put(): the record it names can be read. */
struct log_at log_index_get(const struct log *log, uint64_t hash)
{
    const struct log_bucket *bucket = log_bucket_of(log, hash);
    for (int tries = 0; tries < SPINS + YIELDS; tries++) {
        const uint64_t seq = atomic_load_explicit(&bucket->seq, memory_order_acquire);
        if (seq % 2 == 0) {
            const struct log_at at = look(bucket, hash);
            atomic_thread_fence(memory_order_acquire);
            if (load(&bucket->seq) == seq)
                return at;
        }
        if (tries >= SPINS)
            (void)sched_yield();
    }
    return (struct log_at){ UINT64_MAX, false };
}

/* The entry to give up: a free one, else the one whose channel was quiet longest. */
static struct log_entry *victim(struct log_bucket *bucket)
{
    struct log_entry *oldest = &bucket->entries[0];
    for (int i = 0; i < LOG_BUCKET_ENTRIES; i++) {
        struct log_entry *entry = &bucket->entries[i];
        if (load(&entry->hash) == 0)
            return entry;
        if (load(&entry->last) < load(&oldest->last))
            oldest = entry;
    }
    return oldest;
}

/* The floor first, `last` second, the hash third: the order in which log_index_repair() can tell
 * how far a dead writer came. The release stores keep it (for readers the fence would do). */
static void replace(struct log_bucket *bucket, uint64_t hash, uint64_t off)
{
    struct log_entry *entry = victim(bucket);
    const uint64_t seq = load(&bucket->seq);
    const uint64_t evicted = load(&entry->hash) ? load(&entry->last) : 0;

    store(&bucket->seq, seq + 1);
    atomic_thread_fence(memory_order_release); /* pairs with log_index_get()'s second look at seq */
    LOG_CRASH_AT(LOG_CRASH_BUCKET_ODD);
    if (evicted > load(&bucket->floor))
        store(&bucket->floor, evicted);
    LOG_CRASH_AT(LOG_CRASH_BUCKET_FLOOR);
    atomic_store_explicit(&entry->last, off, memory_order_release);
    LOG_CRASH_AT(LOG_CRASH_BUCKET_LAST);
    atomic_store_explicit(&entry->hash, hash, memory_order_release);
    LOG_CRASH_AT(LOG_CRASH_BUCKET_HASH);
    atomic_store_explicit(&bucket->seq, seq + 2, memory_order_release); /* log_index_get() */
    LOG_CRASH_AT(LOG_CRASH_BUCKET_EVEN);
}

void log_index_put(struct log *log, uint64_t hash, uint64_t off)
{
    struct log_bucket *bucket = log_bucket_of(log, hash);
    for (int i = 0; i < LOG_BUCKET_ENTRIES; i++)
        if (load(&bucket->entries[i].hash) == hash) {
            /* Pairs with log_index_get()'s fence: the record at off is there. */
            atomic_store_explicit(&bucket->entries[i].last, off, memory_order_release);
            LOG_CRASH_AT(LOG_CRASH_LAST);
            return;
        }
    replace(bucket, hash, off);
}

/* An odd bucket was being changed for the one record that is in the log and not yet indexed. If an
 * entry's `last` is that record, the entry is the half-written one: its hash may be the old or the
 * new channel's, and the old one's offset is in the floor already. Freeing it loses nothing, since
 * recovery puts the record again. Otherwise the entries are still whole. (Clearing all three with
 * floor = head would be safe too, but would tell false gaps to quiet channels.)
 * hash first: a free entry's `last` means nothing, should this writer die as well. */
static void repair(struct log_bucket *bucket, uint64_t indexed)
{
    const uint64_t seq = load(&bucket->seq);
    for (int i = 0; i < LOG_BUCKET_ENTRIES; i++) {
        struct log_entry *entry = &bucket->entries[i];
        if (load(&entry->last) < indexed)
            continue;
        store(&entry->hash, 0);
        LOG_CRASH_AT(LOG_CRASH_REPAIR_HASH);
        atomic_store_explicit(&entry->last, 0, memory_order_release);
        LOG_CRASH_AT(LOG_CRASH_REPAIR_LAST);
    }
    atomic_store_explicit(&bucket->seq, seq + 1, memory_order_release); /* log_index_get() */
    LOG_CRASH_AT(LOG_CRASH_REPAIR_EVEN);
}

void log_index_repair(struct log *log, uint64_t indexed)
{
    for (uint64_t i = 0; i <= log->bucket_mask; i++)
        if (load(&log->buckets[i].seq) % 2)
            repair(&log->buckets[i], indexed);
}
