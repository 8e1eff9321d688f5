/* Sleeping and waking: slots with a descriptor, the futex word, threads and another process. */
#include "child.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define EVENTS 20000

static int setup(void **state)
{
    struct log *log = NULL;
    if (log_create(1 << 22, &log) < 0)
        return -1;
    *state = log;
    return 0;
}

static int teardown(void **state)
{
    log_close(*state);
    return 0;
}

static void append(struct log *log)
{
    (void)log_append(log, &(struct log_event){ .channel = "c", .channel_len = 1 });
}

/* ---- slots ---- */

static void a_reader_with_news_does_not_sleep(void **state)
{
    struct log *log = *state;
    struct log_slot slot = { 0 };
    const uint64_t seen = log_indexed(log);
    append(log);
    assert_false(log_sleep(log, &slot, seen));
    assert_int_equal(slot.sleeping, 0);
    log_wake_fence();
    assert_false(log_wake_slot(&slot));
}

static void a_sleeper_is_woken_once(void **state)
{
    struct log *log = *state;
    struct log_slot slot = { 0 };
    assert_true(log_sleep(log, &slot, log_indexed(log)));
    assert_int_equal(slot.sleeping, 1);
    append(log);
    log_wake_fence();
    assert_true(log_wake_slot(&slot));
    assert_int_equal(slot.sleeping, 0);
    assert_false(log_wake_slot(&slot));
}

static void a_reader_that_woke_by_itself_is_not_woken(void **state)
{
    struct log *log = *state;
    struct log_slot slot = { 0 };
    assert_true(log_sleep(log, &slot, log_indexed(log)));
    log_awake(&slot);
    assert_false(log_wake_slot(&slot));
}

struct reader {
    struct log *log;
    struct log_slot *slot;
    int eventfd;
    uint64_t n_events;
};

static uint64_t count(const struct log *log, uint64_t *off, uint64_t end)
{
    uint64_t n = 0;
    struct log_record record;
    while (*off < end && log_peek(log, *off, &record)) {
        n += record.kind != RECORD_PAD;
        *off = record.next;
    }
    return n;
}

/* A worker's loop. A lost wake-up shows as a poll that times out. */
static void *read_all(void *arg)
{
    struct reader *r = arg;
    uint64_t off = log_size(r->log), unused;
    while (r->n_events < EVENTS) {
        const uint64_t end = log_indexed(r->log);
        r->n_events += count(r->log, &off, end);
        if (r->n_events >= EVENTS || !log_sleep(r->log, r->slot, end))
            continue;
        struct pollfd p = { .fd = r->eventfd, .events = POLLIN };
        if (poll(&p, 1, 60000) != 1 || read(r->eventfd, &unused, 8) != 8)
            break;
        log_awake(r->slot);
    }
    return NULL;
}

static void write_all(struct log *log, struct reader *readers, int n_readers)
{
    const uint64_t one = 1;
    for (int i = 0; i < EVENTS; i++) {
        append(log);
        log_wake_fence();
        for (int k = 0; k < n_readers; k++)
            if (log_wake_slot(readers[k].slot))
                assert_int_equal(write(readers[k].eventfd, &one, 8), 8);
    }
}

static void no_event_is_slept_through(void **state)
{
    enum { N = 3 };
    static struct log_slot slots[N];
    struct reader readers[N];
    pthread_t threads[N];
    for (int i = 0; i < N; i++) {
        readers[i] = (struct reader){ *state, &slots[i], eventfd(0, EFD_CLOEXEC), 0 };
        assert_true(readers[i].eventfd >= 0);
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &readers[i]), 0);
    }
    write_all(*state, readers, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(readers[i].n_events, EVENTS);
        assert_int_equal(close(readers[i].eventfd), 0);
    }
}

/* ---- the futex ---- */

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void an_old_word_does_not_wait(void **state)
{
    const uint32_t word = log_wake_word(*state);
    log_wake_futex(*state);
    assert_int_not_equal(log_wake_word(*state), word);
    assert_int_equal(log_wait(*state, word, -1), 0);
    assert_int_equal(log_wait(*state, word, 0), 0);
}

static void waiting_times_out(void **state)
{
    const int64_t start = now_ms();
    assert_int_equal(log_wait(*state, log_wake_word(*state), 0), -ETIMEDOUT);
    assert_int_equal(log_wait(*state, log_wake_word(*state), 20), -ETIMEDOUT);
    assert_true(now_ms() - start >= 20);
}

static void on_signal(int signal)
{
    (void)signal;
}

static void a_signal_interrupts_waiting(void **state)
{
    const struct sigaction action = { .sa_handler = on_signal };
    struct sigaction old;
    timer_t timer;
    /* Fires again and again, so that one that comes before the wait does no harm. */
    const struct itimerspec often = { { 0, 5000000 }, { 0, 5000000 } };
    assert_int_equal(sigaction(SIGALRM, &action, &old), 0);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, NULL, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &often, NULL), 0);
    assert_int_equal(log_wait(*state, log_wake_word(*state), 60000), -EINTR);
    assert_int_equal(timer_delete(timer), 0);
    assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
}

static uint64_t wait_for_all(const struct log *log)
{
    uint64_t off = log_size(log), n = 0;
    while (n < EVENTS) {
        const uint32_t word = log_wake_word(log); /* before looking */
        n += count(log, &off, log_indexed(log));
        if (n < EVENTS && log_wait(log, word, 60000) == -ETIMEDOUT)
            break;
    }
    return n;
}

static void *wait_thread(void *arg)
{
    struct reader *r = arg;
    r->n_events = wait_for_all(r->log);
    return NULL;
}

static void append_and_wake(struct log *log)
{
    for (int i = 0; i < EVENTS; i++) {
        append(log);
        log_wake_futex(log);
    }
}

static void threads_wait_on_the_word(void **state)
{
    enum { N = 3 };
    struct reader readers[N];
    pthread_t threads[N];
    for (int i = 0; i < N; i++) {
        readers[i] = (struct reader){ .log = *state };
        assert_int_equal(pthread_create(&threads[i], NULL, wait_thread, &readers[i]), 0);
    }
    append_and_wake(*state);
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(readers[i].n_events, EVENTS);
    }
}

/* A futex wait works on a read-only mapping in another process. */
static void processes_wait_on_the_word(void **state)
{
    struct log *log = *state;
    const pid_t pid = fork_child();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct log *reader = NULL;
        if (log_attach(log_fd(log), &reader) < 0)
            _exit(2);
        const uint64_t n = wait_for_all(reader);
        log_close(reader);
        _exit(n == EVENTS ? 0 : 1);
    }
    append_and_wake(log);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_reader_with_news_does_not_sleep),
        TEST(a_sleeper_is_woken_once),
        TEST(a_reader_that_woke_by_itself_is_not_woken),
        TEST(no_event_is_slept_through),
        TEST(an_old_word_does_not_wait),
        TEST(waiting_times_out),
        TEST(a_signal_interrupts_waiting),
        TEST(threads_wait_on_the_word),
        TEST(processes_wait_on_the_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
