/* Waking readers, once per batch of events.
 *
 * A reader with a slot goes to sleep in its own event loop and is woken by an eventfd:
 *
 *     reader  sleeping = 1;  FENCE;  indexed ≠ seen ? go on : epoll_wait
 *     writer  indexed = …;   FENCE;  sleeping ? take it back, write the eventfd : nothing
 *
 * Each side stores, then loads what the other stores. Without a seq_cst fence on both sides each
 * may load before its own store is seen, the reader sleeps and the writer thinks it awake: a lost
 * wake-up, on x86 too. With both, at least one sees the other.
 *
 * All other readers wait on a futex in the header, which works on a read-only mapping. */
#include "layout.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void log_wake_fence(void)
{
    LOG_WAKER_FENCE(); /* pairs with the fence in log_sleep() */
}

/* A plain load first: of the many slots of a round most readers are awake, and an exchange would
 * take the cache line away from each of them. */
bool log_wake_slot(struct log_slot *slot)
{
    if (!atomic_load_explicit(&slot->sleeping, memory_order_relaxed))
        return false;
    return atomic_exchange_explicit(&slot->sleeping, 0, memory_order_relaxed) != 0;
}

bool log_sleep(struct log *log, struct log_slot *slot, uint64_t seen)
{
    atomic_store_explicit(&slot->sleeping, 1, memory_order_relaxed);
    LOG_SLEEPER_FENCE(); /* pairs with log_wake_fence() */
    if (atomic_load_explicit(&log->header->indexed, memory_order_acquire) == seen)
        return true;
    log_awake(slot);
    return false;
}

void log_awake(struct log_slot *slot)
{
    atomic_store_explicit(&slot->sleeping, 0, memory_order_relaxed);
}

/* The release increment pairs with log_wake_word(): a reader that sees the new word sees the events
 * before it. One that saw the old word is refused its sleep by the kernel, which compares again. */
void log_wake_futex(struct log *log)
{
    atomic_fetch_add_explicit(&log->header->wake, 1, memory_order_release);
    (void)syscall(SYS_futex, &log->header->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint32_t log_wake_word(const struct log *log)
{
    return atomic_load_explicit(&log->header->wake, memory_order_acquire);
}

int log_wait(const struct log *log, uint32_t word, int timeout_ms)
{
    const struct timespec timeout = { .tv_sec = timeout_ms / 1000,
                                      .tv_nsec = timeout_ms % 1000 * 1000000L };
    if (syscall(SYS_futex, &log->header->wake, FUTEX_WAIT, word, timeout_ms < 0 ? NULL : &timeout,
                NULL, 0) == 0)
        return 0;
    return errno == EAGAIN ? 0 : -errno; /* EAGAIN: the word was another one already */
}
