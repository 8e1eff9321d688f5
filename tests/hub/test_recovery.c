/* The source process is killed and replaced: readers find the next one, the log tells what
 * happened. The test holds the log and the listening socket, as a supervisor does. */
#include "control.h"
#include "fake_source.h"
#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct stage {
    struct log *log;
    int listen_fd;
    struct sockaddr_un address;
    socklen_t address_len;
    const char *url;
    bool (*peer_allowed)(void *arg, pid_t pid);
    pid_t pid;
};

static void setup(struct stage *stage, const char *url)
{
    *stage = (struct stage){ .url = url, .address_len = sizeof(stage->address) };
    assert_int_equal(log_create(1 << 20, &stage->log), 0);
    stage->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un any = { .sun_family = AF_UNIX }; /* the kernel chooses an abstract name */
    assert_int_equal(bind(stage->listen_fd, (struct sockaddr *)&any, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(stage->listen_fd, 16), 0);
    assert_int_equal(getsockname(stage->listen_fd, (struct sockaddr *)&stage->address,
                                 &stage->address_len),
                     0);
}

static void run_source_process(struct stage *stage)
{
    struct engine *engine;
    struct fw_error err;
    struct engine_options options = { .url = stage->url,
                                      .sources = *stage->url == 'm' ? NULL : fake_sources,
                                      .log = stage->log,
                                      .listen_fd = stage->listen_fd,
                                      .peer_allowed = stage->peer_allowed };
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    fake_begin((struct fake_script){ .open = true, .ready = true, .publish = true });
    if (engine_new(&options, &engine, &err) < 0)
        _exit(err.code == -EAGAIN ? 11 : 1);
    (void)engine_run(engine);
    _exit(0);
}

static void start(struct stage *stage)
{
    stage->pid = fork();
    assert_true(stage->pid >= 0);
    if (stage->pid == 0)
        run_source_process(stage);
}

static void end(struct stage *stage)
{
    int status;
    assert_int_equal(kill(stage->pid, SIGKILL), 0);
    assert_int_equal(waitpid(stage->pid, &status, 0), stage->pid);
}

static void teardown(struct stage *stage)
{
    char why[256];
    end(stage);
    log_recover(stage->log);
    if (log_check(stage->log, why, sizeof(why)) < 0)
        fail_msg("the log: %s", why);
    log_close(stage->log);
    close(stage->listen_fd);
}

static void join(struct stage *stage, struct probe *probe)
{
    struct reader *reader;
    assert_int_equal(reader_connect(&stage->address, stage->address_len, &reader), 0);
    probe_adopt(probe, reader);
}

/* The kinds of the records of "" as letters: gap, down, up, begin (of a durable stream); the reason
 * must be `restart` where there is one. */
static void control_records(const struct log *log, char *out, size_t size)
{
    struct log_record record;
    size_t n = 0;
    for (uint64_t off = log_tail(log); off < log_indexed(log) && n + 1 < size; off = record.next) {
        char body[256] __attribute__((aligned(8)));
        uint64_t after;
        enum gap_reason reason;
        assert_int_equal(log_peek(log, off, &record), 1);
        if (record.kind == RECORD_PAD || record.channel_len > 0)
            continue;
        assert_int_equal(log_body(log, &record, body), 1);
        assert_int_equal(control_decode(record.data, record.len, &after, &reason), 0);
        bool why = record.kind == RECORD_DOWN || record.kind == RECORD_GAP;
        assert_int_equal(reason, why ? REASON_RESTART : REASON_NONE);
        out[n++] = "-gdub"[record.kind];
    }
    out[n] = '\0';
}

static void wait_up(const struct log *log)
{
    for (uint32_t word; word = log_wake_word(log), !log_up(log);)
        assert_int_not_equal(log_wait(log, word, PATIENCE_MS), -ETIMEDOUT);
}

static void what_was_accepted_survives(void **state)
{
    enum { ROUNDS = 15 };
    struct stage stage;
    char controls[8 * ROUNDS];
    struct probe probe;
    unsigned seed = 3;
    int accepted = 0, uncertain = 0;
    setup(&stage, "memory:");
    for (int round = 0; round < ROUNDS; round++) {
        start(&stage);
        join(&stage, &probe);
        probe_subscribe(&probe, "a");
        probe_expect(&probe, "source memory memory");
        probe_expect(&probe, "ready a");
        int before_kill = (int)(rand_r(&seed) % 50);
        for (uint64_t i = 0; !probe.gone; i++) {
            if ((int)i == before_kill)
                end(&stage); /* somewhere between a request and its answer */
            if (reader_publish(probe.reader, i, "a", 1, "x", 1, NULL, NULL) == 0)
                uncertain++;
            struct pollfd p = { .fd = reader_fd(probe.reader), .events = POLLIN };
            assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
            probe_look(&probe);
            accepted += (int)probe.n_answers;
            probe.n_answers = 0;
        }
        probe_leave(&probe);
    }
    start(&stage);
    join(&stage, &probe);
    probe_subscribe(&probe, "a");
    probe_expect(&probe, "source");
    probe_expect(&probe, "ready a"); /* now it has said all */
    probe_leave(&probe);
    control_records(stage.log, controls, sizeof(controls));
    assert_int_equal(controls[0], 'u');
    for (int round = 0; round < ROUNDS; round++)
        assert_memory_equal(controls + 1 + 3 * round, "dgu", 3);
    int held = 0;
    struct log_record record;
    for (uint64_t off = log_tail(stage.log); off < log_indexed(stage.log); off = record.next) {
        assert_int_equal(log_peek(stage.log, off, &record), 1);
        held += record.kind == RECORD_MESSAGE;
    }
    assert_in_range(held, accepted, uncertain);
    teardown(&stage);
}

/* Channels that are repeated at once share the gap of all; one that comes later has its own. */
static void repeated_channels_are_covered_or_told(void **state)
{
    struct stage stage;
    struct probe early, late;
    char controls[16];
    setup(&stage, "demand:");
    start(&stage);
    join(&stage, &early);
    probe_expect(&early, "source");
    probe_subscribe(&early, "a");
    probe_expect(&early, "ready a");
    probe_subscribe(&early, "b");
    probe_expect(&early, "ready b");
    uint64_t covered = early.covered_from;
    end(&stage);
    probe_expect_gone(&early);
    probe_leave(&early);
    join(&stage, &early); /* before there is a next one: it waits in the backlog */
    probe_ask_again(&early, "a", covered);
    start(&stage);
    probe_expect(&early, "source");
    probe_expect(&early, "ready a");
    control_records(stage.log, controls, sizeof(controls));
    assert_string_equal(controls, "udgu");
    struct log_channel a = { log_hash(stage.log, "a", 1), "a", 1 };
    struct log_channel b = { log_hash(stage.log, "b", 1), "b", 1 };
    uint64_t offsets[4];
    assert_int_equal(log_walk(stage.log, &a, 0, log_indexed(stage.log), offsets, 4), 0);
    join(&stage, &late);
    probe_expect(&late, "source");
    probe_ask_again(&late, "b", covered);
    probe_expect(&late, "ready b");
    assert_int_equal(log_walk(stage.log, &b, 0, log_indexed(stage.log), offsets, 4), 1);
    assert_true(late.ready_at > offsets[0]);
    probe_leave(&early);
    probe_leave(&late);
    teardown(&stage);
}

static void a_second_writer_is_refused(void **state)
{
    struct stage stage;
    struct probe probe;
    int status;
    setup(&stage, "memory:");
    start(&stage);
    join(&stage, &probe);
    probe_expect(&probe, "source");
    pid_t second = fork();
    if (second == 0)
        run_source_process(&stage);
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_int_equal(WEXITSTATUS(status), 11);
    assert_int_equal(reader_publish(probe.reader, 1, "a", 1, "x", 1, NULL, NULL), 0);
    probe_expect(&probe, "published 1 ok");
    probe_leave(&probe);
    teardown(&stage);
}

static bool nobody(void *arg, pid_t pid)
{
    return false;
}

static void strangers_are_turned_away(void **state)
{
    struct stage stage;
    struct probe probe;
    setup(&stage, "memory:");
    stage.peer_allowed = nobody;
    start(&stage);
    join(&stage, &probe);
    probe_expect_gone(&probe);
    probe_leave(&probe);
    teardown(&stage);
}

/* An orderly end says so; the next one has nothing to add but its gap. */
static void an_orderly_end_is_down_once(void **state)
{
    struct rig rig;
    char controls[16];
    fake_begin((struct fake_script){ .open = true });
    rig_start(&rig, "plain:", 1 << 16, 0);
    wait_up(rig.log);
    rig_restart(&rig);
    wait_up(rig.log);
    control_records(rig.log, controls, sizeof(controls));
    assert_string_equal(controls, "udgu");
    rig_stop(&rig);
}

static void open_durable(struct fw_host *host, void *arg)
{
    uint64_t pos[2];
    assert_false(fw_host_continue(host, 7, pos));
    fw_host_begin(host, 7, (uint64_t[2]){ 1, 0 });
    fw_host_opened(host, "scripted", "what the test says", 7);
}

static void open_plain(struct fw_host *host, void *arg)
{
    fw_host_opened(host, "scripted", "what the test says", 0);
}

/* Nobody was promised anything by one that was never open: its successor has no gap to tell. */
static void one_that_was_never_open_leaves_no_gap(void **state)
{
    static const struct {
        const char *url, *controls;
        void (*open)(struct fw_host *host, void *arg);
    } kinds[] = { { "plain:", "du", open_plain }, { "stored:", "dbu", open_durable } };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct rig rig;
        char controls[16];
        fake_begin((struct fake_script){ .identity = 7 });
        rig_start(&rig, kinds[i].url, 1 << 16, 0);
        fake_expect("open");
        fake_lost("restart");
        rig_restart(&rig);
        fake_expect("open");
        fake_run(kinds[i].open, NULL);
        wait_up(rig.log);
        control_records(rig.log, controls, sizeof(controls));
        assert_string_equal(controls, kinds[i].controls);
        rig_stop(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_accepted_survives),
        cmocka_unit_test(repeated_channels_are_covered_or_told),
        cmocka_unit_test(a_second_writer_is_refused),
        cmocka_unit_test(strangers_are_turned_away),
        cmocka_unit_test(an_orderly_end_is_down_once),
        cmocka_unit_test(one_that_was_never_open_leaves_no_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
