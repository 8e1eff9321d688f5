/* The two seq_cst fences of the sleep protocol, on the machine itself: a reader goes to sleep at
 * the very moment when the writer appends, over and over. It must either see the event or be woken.
 *
 * Built three times: as it is, where no wake-up may be lost, and with one of the two fences reduced
 * to a barrier for the compiler (EXPECT_LOSS), where one must be: without that this test would
 * prove nothing. Each side's stores are made to wait (lines that the other side has just used),
 * since a processor breaks the protocol by looking before its own store has got out. */
#include "layout.h"
#include "log.h"
#include "seed.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#ifdef EXPECT_LOSS
#define N_ROUNDS 20000000
#elif defined(__SANITIZE_THREAD__)
#define N_ROUNDS 20000 /* looks for races only: its own work is a fence */
#else
#define N_ROUNDS (test_long() ? 5000000 : 500000)
#endif
#define LINES 16

struct line {
    alignas(64) _Atomic uint64_t word;
};

struct duel {
    struct line writers[LINES], readers[LINES];
    alignas(64) struct log_slot slot;
    alignas(64) _Atomic uint64_t round; /* begun by the writer; UINT64_MAX: the end */
    alignas(64) _Atomic uint64_t done; /* 2 × round - 1 the reader is ready, 2 × round it is done */
    struct log *log;
    uint64_t seen; /* what the reader has read, set between rounds */
    bool asleep;   /* the reader's result */
};

static void wait_for(_Atomic uint64_t *word, uint64_t value)
{
    for (unsigned i = 0; atomic_load_explicit(word, memory_order_acquire) < value; i++)
        if (i > 2000)
            (void)sched_yield();
}

/* The writer has more to do before it comes to the point, and yet loses more often when late. */
static void jitter(uint64_t *random, uint64_t max)
{
    for (volatile uint64_t n = random_below(random, max); n; n--)
        ;
}

static void take(struct line *lines) /* into this processor's cache */
{
    for (int i = 0; i < LINES; i++)
        atomic_fetch_add_explicit(&lines[i].word, 1, memory_order_relaxed);
}

static void store_slowly(struct line *lines, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        atomic_store_explicit(&lines[i].word, i, memory_order_relaxed);
}

static void *reader(void *arg)
{
    struct duel *d = arg;
    uint64_t random = 77;
    for (uint64_t round = 1; round <= (uint64_t)N_ROUNDS; round++) {
        const uint64_t clogged = random_below(&random, round % 2 ? LINES : 4);
        take(d->writers);
        atomic_store_explicit(&d->done, 2 * round - 1, memory_order_release);
        for (unsigned i = 0;; i++) {
            const uint64_t begun = atomic_load_explicit(&d->round, memory_order_acquire);
            if (begun == round)
                break;
            if (begun == UINT64_MAX)
                return NULL;
            if (i > 2000)
                (void)sched_yield();
        }
        jitter(&random, 256);
        store_slowly(d->readers, clogged);
        d->asleep = log_sleep(d->log, &d->slot, d->seen);
        atomic_store_explicit(&d->done, 2 * round, memory_order_release);
    }
    return NULL;
}

static bool write_and_wake(struct duel *d, uint64_t clogged)
{
    store_slowly(d->writers, clogged);
    (void)log_append(d->log, &(struct log_event){ .channel = "c", .channel_len = 1 });
    log_wake_fence();
    return log_wake_slot(&d->slot);
}

/* Returns the number of wake-ups lost; at most 1 if told to stop there. */
static uint64_t duel(struct duel *d, bool stop_at_first)
{
    uint64_t random = 99, lost = 0, round = 1;
    for (; round <= (uint64_t)N_ROUNDS && !(stop_at_first && lost); round++) {
        const uint64_t clogged = random_below(&random, LINES);
        wait_for(&d->done, 2 * round - 1);
        take(d->readers);
        d->seen = log_indexed(d->log);
        log_awake(&d->slot);
        atomic_store_explicit(&d->round, round, memory_order_release);
        jitter(&random, 1024);
        const bool woken = write_and_wake(d, clogged);
        wait_for(&d->done, 2 * round);
        lost += d->asleep && !woken;
    }
    atomic_store_explicit(&d->round, UINT64_MAX, memory_order_release);
    fprintf(stderr, "%llu of %llu wake-ups lost\n", (unsigned long long)lost,
            (unsigned long long)round - 1);
    return lost;
}

static uint64_t run(bool stop_at_first)
{
    static struct duel d;
    pthread_t thread;
    assert_int_equal(log_create(0, &d.log), 0);
    assert_int_equal(pthread_create(&thread, NULL, reader, &d), 0);
    const uint64_t lost = duel(&d, stop_at_first);
    assert_int_equal(pthread_join(thread, NULL), 0);
    log_close(d.log);
    return lost;
}

#ifdef EXPECT_LOSS
static void one_fence_less_loses_a_wake_up(void **state)
{
    cpu_set_t cpus;
    assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    if (CPU_COUNT(&cpus) < 2)
        skip(); /* one processor always sees its own stores */
    assert_int_not_equal(run(true), 0);
}
#else
static void no_wake_up_is_lost(void **state)
{
    assert_int_equal(run(false), 0);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef EXPECT_LOSS
        cmocka_unit_test(one_fence_less_loses_a_wake_up),
#else
        cmocka_unit_test(no_wake_up_is_lost),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
