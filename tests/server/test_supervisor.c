/* The supervisor with children that only obey, beat, hang or refuse: restarts and their back-off,
 * hung children, the order of the end, a second signal, and its own death. The supervisor runs in a
 * process of its own; children and hooks report what happens through a pipe. */
#include "supervisor.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N_CHILDREN 3
#define WAIT_MS    20000

enum manner { OBEYS, BEATS, IGNORES_TERM, LEAVES_WITH_USAGE, DIES_AT_ONCE };

struct shared {
    _Atomic int64_t beat[N_CHILDREN];
    _Atomic uint32_t starts[N_CHILDREN];
    _Atomic uint32_t ending; /* 1: children 1…; 2: everybody */
};

struct fixture {
    struct shared *shared;
    enum manner manner[N_CHILDREN];
    uint32_t hang_ms;
    size_t n_last;
    pid_t supervisor;
    int pipe[2]; /* reports */
    FILE *reports;
    struct logger logger;
    char name[8];
};

/* ---- in the supervisor's and the children's processes ---- */

static void report(const struct fixture *f, const char *what, size_t child, long number)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "%s %zu %ld\n", what, child, number);
    if (write(f->pipe[1], line, (size_t)n) != n)
        abort();
}

static void describe(void *arg, size_t child, const char **ret_object, const char **ret_name)
{
    struct fixture *f = arg;
    (void)snprintf(f->name, sizeof(f->name), "%u", (unsigned)child & 7);
    *ret_object = child == 0 ? "source" : "worker";
    *ret_name = f->name;
}

static int obey(const struct fixture *f, size_t child, int life_fd)
{
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    int signal_fd = signalfd(-1, &term, SFD_CLOEXEC);
    report(f, "start", child, getpid());
    struct pollfd fds[] = { { .fd = life_fd, .events = POLLIN },
                            { .fd = signal_fd, .events = POLLIN } };
    for (;;) {
        if (f->manner[child] == BEATS)
            atomic_store(&f->shared->beat[child], clock_monotonic_ms());
        (void)poll(fds, 2, f->manner[child] == BEATS ? 50 : -1);
        if (fds[0].revents)
            return EXIT_FAILED;
        struct signalfd_siginfo info;
        if (fds[1].revents && read(signal_fd, &info, sizeof(info)) == sizeof(info) &&
            f->manner[child] != IGNORES_TERM &&
            atomic_load(&f->shared->ending) >= (child < f->n_last ? 2 : 1))
            return EXIT_OK;
    }
}

static int run(void *arg, size_t child, int life_fd)
{
    struct fixture *f = arg;
    atomic_fetch_add(&f->shared->starts[child], 1);
    if (f->manner[child] == LEAVES_WITH_USAGE)
        return EXIT_USAGE;
    if (f->manner[child] == DIES_AT_ONCE) {
        report(f, "start", child, (long)(clock_monotonic_ms() % 1000000));
        return EXIT_FAILED;
    }
    return obey(f, child, life_fd);
}

static int64_t beat_ms(void *arg, size_t child)
{
    return atomic_load(&((struct fixture *)arg)->shared->beat[child]);
}

static void reaped(void *arg, size_t child, bool restarts)
{
    report(arg, "reaped", child, restarts);
}

static void ending(void *arg, bool everybody)
{
    struct fixture *f = arg;
    atomic_store(&f->shared->ending, everybody ? 2 : 1);
    report(f, "ending", 0, everybody);
}

/* ---- in the test ---- */

static void launch(struct fixture *f)
{
    f->supervisor = fork();
    assert_true(f->supervisor >= 0);
    if (f->supervisor > 0) {
        close(f->pipe[1]);
        f->pipe[1] = -1;
        return;
    }
    struct supervisor_options options = {
        .logger = &f->logger,
        .n_children = N_CHILDREN,
        .n_last = f->n_last,
        .drain_ms = 60000,
        .hang_ms = f->hang_ms,
        .arg = f,
        .describe = describe,
        .run = run,
        .beat_ms = beat_ms,
        .reaped = reaped,
        .ending = ending,
    };
    close(f->pipe[0]);
    _exit(supervisor_run(&options));
}

/* The next report; false: end of file, everybody who could report has gone. */
static bool next_report(struct fixture *f, char *what, size_t *child, long *number)
{
    char line[64];
    struct pollfd fd = { .fd = f->pipe[0], .events = POLLIN };
    size_t n = 0;
    for (;;) {
        if (poll(&fd, 1, WAIT_MS) <= 0)
            fail_msg("nothing was reported for %d ms", WAIT_MS);
        ssize_t r = read(f->pipe[0], line + n, 1);
        if (r == 0)
            return false;
        assert_int_equal(r, 1);
        if (line[n] == '\n')
            break;
        assert_true(++n < sizeof(line));
    }
    line[n] = '\0';
    assert_int_equal(sscanf(line, "%15s %zu %ld", what, child, number), 3);
    return true;
}

static long expect(struct fixture *f, const char *want, size_t want_child)
{
    char what[16];
    size_t child;
    long number;
    assert_true(next_report(f, what, &child, &number));
    assert_string_equal(what, want);
    assert_int_equal(child, want_child);
    return number;
}

/* All have started, in whatever order; their pids. */
static void expect_starts(struct fixture *f, long pids[N_CHILDREN])
{
    for (size_t i = 0; i < N_CHILDREN; i++) {
        char what[16];
        size_t child;
        long number;
        assert_true(next_report(f, what, &child, &number));
        assert_string_equal(what, "start");
        pids[child] = number;
    }
}

static int exit_code(struct fixture *f)
{
    int status;
    assert_int_equal(waitpid(f->supervisor, &status, 0), f->supervisor);
    f->supervisor = 0;
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect_end(struct fixture *f)
{
    char what[16];
    size_t child;
    long number;
    while (next_report(f, what, &child, &number))
        assert_string_not_equal(what, "start");
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->shared =
        mmap(NULL, sizeof(*f->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(f->shared, MAP_FAILED);
    f->logger = (struct logger){ .fd = open("/dev/null", O_WRONLY | O_CLOEXEC), .level = 0 };
    f->hang_ms = 60000;
    f->n_last = 1;
    assert_int_equal(pipe2(f->pipe, O_CLOEXEC), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->supervisor > 0) {
        (void)kill(f->supervisor, SIGKILL);
        (void)waitpid(f->supervisor, NULL, 0);
    }
    close(f->pipe[0]);
    if (f->pipe[1] >= 0)
        close(f->pipe[1]);
    close(f->logger.fd);
    (void)munmap(f->shared, sizeof(*f->shared));
    free(f);
    return 0;
}

/* ---- cases ---- */

static void ends_the_others_first_then_child_0(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    launch(f);
    expect_starts(f, pids);
    assert_int_equal(kill(f->supervisor, SIGTERM), 0);
    assert_int_equal(expect(f, "ending", 0), 0);
    char what[16];
    size_t order[N_CHILDREN];
    for (size_t i = 1; i < N_CHILDREN; i++) {
        long restarts;
        assert_true(next_report(f, what, &order[i], &restarts));
        assert_string_equal(what, "reaped");
        assert_int_not_equal(order[i], 0);
        assert_int_equal(restarts, 0);
    }
    assert_int_equal(expect(f, "ending", 0), 1);
    assert_int_equal(expect(f, "reaped", 0), 0);
    assert_int_equal(exit_code(f), EXIT_OK);
    expect_end(f);
}

/* Those that end last are restarted while others still need them, and end together. */
static void ends_some_last(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    f->n_last = 2;
    f->manner[2] = IGNORES_TERM;
    launch(f);
    expect_starts(f, pids);
    assert_int_equal(kill(f->supervisor, SIGTERM), 0);
    assert_int_equal(expect(f, "ending", 0), 0);
    assert_int_equal(kill((pid_t)pids[1], SIGKILL), 0);
    assert_int_equal(expect(f, "reaped", 1), 1);
    (void)expect(f, "start", 1);
    assert_int_equal(kill((pid_t)pids[2], SIGKILL), 0);
    assert_int_equal(expect(f, "reaped", 2), 0);
    assert_int_equal(expect(f, "ending", 0), 1);
    expect_end(f);
    assert_int_equal(exit_code(f), EXIT_OK);
}

static void is_not_confused_by_signals_to_everybody(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    launch(f);
    expect_starts(f, pids);
    /* as systemd does to a whole control group, and a terminal to its foreground */
    assert_int_equal(kill((pid_t)pids[0], SIGTERM), 0);
    assert_int_equal(kill((pid_t)pids[1], SIGTERM), 0);
    assert_int_equal(kill(f->supervisor, SIGINT), 0);
    assert_int_equal(expect(f, "ending", 0), 0);
    expect_end(f);
    assert_int_equal(exit_code(f), EXIT_OK);
}

static void restarts_what_dies_with_growing_delay(void **state)
{
    struct fixture *f = *state;
    f->manner[2] = DIES_AT_ONCE;
    launch(f);
    long at[5];
    size_t n = 0;
    while (n < 5) {
        char what[16];
        size_t child;
        long number;
        assert_true(next_report(f, what, &child, &number));
        if (child == 2 && strcmp(what, "start") == 0)
            at[n++] = number;
    }
    /* at once, then 100, 200, 400 ms */
    assert_true(at[2] - at[1] >= 100);
    assert_true(at[3] - at[2] >= 200);
    assert_true(at[4] - at[3] >= 400);
    assert_true(at[4] - at[0] < 5000);
    assert_int_equal(atomic_load(&f->shared->starts[1]), 1);
}

static void restarts_a_killed_child_at_once(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    launch(f);
    expect_starts(f, pids);
    for (size_t i = 0; i < N_CHILDREN; i++) {
        int64_t before = clock_monotonic_ms();
        assert_int_equal(kill((pid_t)pids[i], SIGKILL), 0);
        assert_int_equal(expect(f, "reaped", i), 1);
        assert_int_not_equal(expect(f, "start", i), pids[i]);
        assert_true(clock_monotonic_ms() - before < 2000);
    }
}

static void kills_and_restarts_a_hung_child(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    f->hang_ms = 300;
    f->manner[0] = f->manner[1] = BEATS; /* child 2 never beats: it is not judged */
    launch(f);
    expect_starts(f, pids);
    while (atomic_load(&f->shared->beat[1]) == 0 || atomic_load(&f->shared->beat[0]) == 0)
        (void)poll(NULL, 0, 10);
    assert_int_equal(kill((pid_t)pids[1], SIGSTOP), 0);
    assert_int_equal(expect(f, "reaped", 1), 1);
    assert_int_not_equal(expect(f, "start", 1), pids[1]);
    assert_int_equal(kill((pid_t)pids[0], SIGSTOP), 0);
    assert_int_equal(expect(f, "reaped", 0), 1);
    (void)expect(f, "start", 0);
}

static void ends_when_a_child_says_that_the_configuration_is_wrong(void **state)
{
    struct fixture *f = *state;
    f->manner[0] = LEAVES_WITH_USAGE;
    launch(f);
    char what[16];
    size_t child;
    long number;
    while (next_report(f, what, &child, &number))
        ;
    assert_int_equal(exit_code(f), EXIT_USAGE);
    assert_int_equal(atomic_load(&f->shared->starts[0]), 1);
}

static void a_second_signal_ends_at_once(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    f->manner[1] = IGNORES_TERM;
    launch(f);
    expect_starts(f, pids);
    int64_t before = clock_monotonic_ms();
    assert_int_equal(kill(f->supervisor, SIGINT), 0);
    assert_int_equal(expect(f, "ending", 0), 0);
    assert_int_equal(expect(f, "reaped", 2), 0);
    assert_int_equal(kill(f->supervisor, SIGINT), 0);
    assert_int_equal(expect(f, "ending", 0), 1);
    expect_end(f);
    assert_int_equal(exit_code(f), EXIT_OK);
    assert_true(clock_monotonic_ms() - before < 10000); /* the drain would have been a minute */
}

static void stays_when_told_to_reload(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    launch(f);
    expect_starts(f, pids);
    assert_int_equal(kill(f->supervisor, SIGHUP), 0);
    assert_int_equal(kill((pid_t)pids[2], SIGKILL), 0);
    assert_int_equal(expect(f, "reaped", 2), 1);
    (void)expect(f, "start", 2);
}

static void children_leave_when_the_supervisor_is_killed(void **state)
{
    struct fixture *f = *state;
    long pids[N_CHILDREN];
    launch(f);
    expect_starts(f, pids);
    assert_int_equal(kill((pid_t)pids[1], SIGSTOP), 0); /* a stopped one can't look at a pipe */
    assert_int_equal(kill(f->supervisor, SIGKILL), 0);
    expect_end(f); /* end of file: every process that holds the pipe has gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ends_the_others_first_then_child_0, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ends_some_last, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_not_confused_by_signals_to_everybody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(restarts_what_dies_with_growing_delay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(restarts_a_killed_child_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(kills_and_restarts_a_hung_child, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ends_when_a_child_says_that_the_configuration_is_wrong,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_signal_ends_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stays_when_told_to_reload, set_up, tear_down),
        cmocka_unit_test_setup_teardown(children_leave_when_the_supervisor_is_killed, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
