/* A writer that laps its readers: not one torn, unordered or silently missing read, and every
 * resume agrees with reading on. Threads (for TSan) and processes (as in the product). */
#include "child.h"
#include "follow.h"
#include "secret.h"
#include "seed.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define READERS 2

#ifdef __SANITIZE_THREAD__
#define WITH_TSAN true
#else
#define WITH_TSAN false
#endif

struct run {
    struct log *log;
    struct stream stream;
    bool exact;
    uint64_t seed, n_events;
};

static void run_init(struct run *run, uint64_t size, unsigned n_channels)
{
    *run = (struct run){ .seed = test_seed(), .n_events = test_long() ? 100000000 : 1000000 };
    if (n_channels > 1000)
        run->n_events /= 4; /* there the truth takes longer to find */
    assert_int_equal(log_create(size, &run->log), 0);
    secret_set(run->log, run->seed);
    run->stream = (struct stream){ .seed = run->seed,
                                   .n_channels = n_channels,
                                   .event_max = log_event_max(run->log) };
    run->exact = follow_is_exact(run->log, &run->stream);
    log_set_up(run->log, true);
}

/* Sometimes as fast as it can, sometimes so that readers keep up. */
static void write_all(struct run *run)
{
    struct stream_event e;
    for (uint64_t number = 0; number < run->n_events; number++) {
        stream_make(&run->stream, number, &e);
        (void)log_append(run->log, &e.event);
        if (number / 4096 % 2 && number % 16 == 0)
            (void)sched_yield();
    }
    log_set_up(run->log, false);
}

static int follow_to_end(const struct run *run, const struct log *log, unsigned nth)
{
    struct follow f;
    int r = follow_init(&f, log, &run->stream, run->seed + nth, run->exact);
    if (r == 0)
        r = follow_run(&f);
    fprintf(stderr,
            "reader %u: %" PRIu64 " events, lapped %" PRIu64 " times, %" PRIu64 " resumes (%" PRIu64
            " gaps, %" PRIu64 " sweeps) %s\n",
            nth, f.n_events, f.n_laps, f.n_resumes, f.n_gaps, f.n_sweeps, f.why);
    if (r == 0 && (!f.n_events || !f.n_laps || !f.n_resumes)) {
        fprintf(stderr, "reader %u: saw too little to prove anything\n", nth);
        r = -1;
    }
    follow_done(&f);
    return r;
}

struct thread_arg {
    const struct run *run;
    unsigned nth;
    int result;
};

static void *reader_thread(void *arg)
{
    struct thread_arg *a = arg;
    a->result = follow_to_end(a->run, a->run->log, a->nth);
    return NULL;
}

static void check_quiet(struct run *run)
{
    char why[128] = "";
    if (log_check(run->log, why, sizeof(why)) < 0)
        fail_msg("%s", why);
    log_close(run->log);
}

static void with_threads(uint64_t size, unsigned n_channels)
{
    struct run run;
    struct thread_arg args[READERS];
    pthread_t threads[READERS];
    run_init(&run, size, n_channels);
    for (unsigned i = 0; i < READERS; i++) {
        args[i] = (struct thread_arg){ .run = &run, .nth = i };
        assert_int_equal(pthread_create(&threads[i], NULL, reader_thread, &args[i]), 0);
    }
    write_all(&run);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(args[i].result, 0);
    check_quiet(&run);
}

/* As a worker does: maps the log read-only, and unmaps what it inherited. */
static int reader_process(struct run *run, unsigned nth)
{
    struct log *log;
    if (log_attach(log_fd(run->log), &log) < 0)
        return 1;
    log_close(run->log);
    const int r = follow_to_end(run, log, nth);
    log_close(log);
    return r < 0;
}

static void with_processes(uint64_t size, unsigned n_channels)
{
    struct run run;
    pid_t pids[READERS];
    run_init(&run, size, n_channels);
    if (WITH_TSAN)
        run.n_events /= 8; /* it sees nothing of what is between processes */
    for (unsigned i = 0; i < READERS; i++) {
        pids[i] = fork_child();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(reader_process(&run, i));
    }
    write_all(&run);
    for (unsigned i = 0; i < READERS; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    check_quiet(&run);
}

static void threads_with_few_channels(void **state)
{
    with_threads(LOG_SIZE_MIN, 16);
}

static void threads_with_an_overflowing_index(void **state)
{
    with_threads(LOG_SIZE_MIN, 3000);
}

static void processes_with_few_channels(void **state)
{
    with_processes(LOG_SIZE_MIN, 16);
}

static void processes_with_an_overflowing_index(void **state)
{
    with_processes(1 << 18, 12000);
}

/* Busy channels of more records than a resume walks. */
static void processes_with_long_walks(void **state)
{
    with_processes(1 << 21, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_with_few_channels),
        cmocka_unit_test(threads_with_an_overflowing_index),
        cmocka_unit_test(processes_with_few_channels),
        cmocka_unit_test(processes_with_an_overflowing_index),
        cmocka_unit_test(processes_with_long_walks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
