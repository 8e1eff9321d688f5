/* Marks: for each 1/1024 of the ring the first record that starts in it, so that an offset or a
 * position is found by looking at few records. A 1/1024 in which no record starts keeps the mark of
 * an earlier lap; its offset says so. */
#include "layout.h"

static inline uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline struct log_mark *mark_of(const struct log *log, uint64_t slot)
{
    return &log->marks[slot % LOG_MARKS];
}

void log_mark_put(struct log *log, uint64_t off, const uint64_t pos[2], uint64_t time_ms)
{
    const uint64_t slot = off >> log->mark_shift;
    struct log_mark *mark = mark_of(log, slot);
    if (load(&mark->off) >> log->mark_shift == slot)
        return;

    const uint64_t seq = load(&mark->seq);
    store(&mark->seq, seq + 1);
    atomic_thread_fence(memory_order_release); /* pairs with log_mark_get()'s second look at seq */
    LOG_CRASH_AT(LOG_CRASH_MARK_ODD);
    store(&mark->off, off);
    LOG_CRASH_AT(LOG_CRASH_MARK_OFF);
    store(&mark->pos[0], pos[0]);
    store(&mark->pos[1], pos[1]);
    store(&mark->time_ms, time_ms);
    LOG_CRASH_AT(LOG_CRASH_MARK_REST);
    atomic_store_explicit(&mark->seq, seq + 2, memory_order_release); /* log_mark_get()'s first */
    LOG_CRASH_AT(LOG_CRASH_MARK_EVEN);
}

/* A mark in the making is no mark: its neighbour is as good. The acquire load pairs with
 * log_mark_put()'s last store, the fence with its fence. */
bool log_mark_get(const struct log *log, uint64_t slot, struct log_mark_copy *ret)
{
    const struct log_mark *mark = mark_of(log, slot);
    const uint64_t seq = atomic_load_explicit(&mark->seq, memory_order_acquire);
    *ret = (struct log_mark_copy){ .off = load(&mark->off),
                                   .pos = { load(&mark->pos[0]), load(&mark->pos[1]) },
                                   .time_ms = load(&mark->time_ms) };
    atomic_thread_fence(memory_order_acquire);
    return seq % 2 == 0 && load(&mark->seq) == seq && ret->off >> log->mark_shift == slot;
}

/* A mark left half written is forgotten; recovery puts its record again. */
void log_marks_repair(struct log *log)
{
    for (int i = 0; i < LOG_MARKS; i++) {
        struct log_mark *mark = &log->marks[i];
        const uint64_t seq = load(&mark->seq);
        if (seq % 2 == 0)
            continue;
        store(&mark->off, 0);
        atomic_store_explicit(&mark->seq, seq + 1,
                              memory_order_release); /* log_mark_get()'s first */
        LOG_CRASH_AT(LOG_CRASH_REPAIR_MARK);
    }
}

uint64_t log_mark_before(const struct log *log, uint64_t off)
{
    const uint64_t tail = log_tail(log), indexed = log_indexed(log);
    if (off > indexed)
        off = indexed;
    for (uint64_t slot = off >> log->mark_shift; slot >= tail >> log->mark_shift; slot--) {
        struct log_mark_copy mark;
        if (log_mark_get(log, slot, &mark) && mark.off >= tail && mark.off <= off)
            return mark.off;
    }
    return tail;
}
