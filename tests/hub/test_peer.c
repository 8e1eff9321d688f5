/* What a reader must not send, and how much it may. */
#include "fake_source.h"
#include "inbox.h"
#include "peer.h"
#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE (32u << 20)

static const struct fake_script works = { .open = true, .ready = true, .publish = true };

static void send_message(int fd, const struct inbox_message *message)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    int r;
    while ((r = inbox_send(fd, message, NULL, 0)) == -EAGAIN)
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    assert_int_equal(r, 0);
}

static void send_hello(int fd)
{
    send_message(fd, &(struct inbox_message){ .type = INBOX_HELLO, .code = INBOX_VERSION });
}

static void expect_dropped(int fd)
{
    char packet[INBOX_FRAGMENT_MAX];
    struct pollfd p = { .fd = fd, .events = POLLIN };
    for (;;) {
        int fds[2];
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        int64_t n = inbox_receive(fd, packet, sizeof(packet), fds);
        for (int i = 0; i < 2; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        if (n == 0 || n == -EPIPE)
            break;
        assert_true(n > 0);
    }
    close(fd);
}

/* Nobody else is disturbed. */
static void expect_healthy(struct rig *rig)
{
    struct probe probe;
    probe_join(&probe, rig);
    probe_expect(&probe, "source");
    probe_subscribe(&probe, "healthy");
    probe_expect(&probe, "ready healthy");
    probe_leave(&probe);
}

static void packets_that_are_no_message_drop_the_reader(void **state)
{
    static const char zeros[64];
    struct rig rig;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    size_t lens[] = { 1, 31, 32, 64 };
    for (int greeted = 0; greeted < 2; greeted++)
        for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
            int fd = rig_raw(&rig);
            if (greeted)
                send_hello(fd);
            assert_int_equal(send(fd, zeros, lens[i], MSG_NOSIGNAL), lens[i]);
            expect_dropped(fd);
        }
    char *huge = calloc(1, 2 * INBOX_FRAGMENT_MAX);
    int fd = rig_raw(&rig);
    assert_true(send(fd, huge, 2 * INBOX_FRAGMENT_MAX, MSG_NOSIGNAL) > 0);
    expect_dropped(fd);
    free(huge);
    expect_healthy(&rig);
    assert_true(rig_has_line(&rig, "reader-dropped"));
    rig_stop(&rig);
}

static void random_packets_never_hurt(void **state)
{
    struct rig rig;
    unsigned seed = 7;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    for (int round = 0; round < 200; round++) {
        int fd = rig_raw(&rig);
        send_hello(fd);
        for (int i = 0; i < 20; i++) {
            char packet[256];
            struct inbox_message m = { .type = (enum inbox_type)(rand_r(&seed) % INBOX_N_TYPES),
                                       .more = rand_r(&seed) % 2,
                                       .code = (uint16_t)rand_r(&seed),
                                       .a = (uint64_t)rand_r(&seed),
                                       .b = (uint64_t)rand_r(&seed) % 200,
                                       .texts = { { "abc", rand_r(&seed) % 4 }, { "k", 1 } },
                                       .data = packet,
                                       .len = rand_r(&seed) % 100 };
            memset(packet, 'x', sizeof(packet));
            if (inbox_send(fd, &m, NULL, 0) == -EPIPE)
                break;
        }
        close(fd);
    }
    expect_healthy(&rig);
    rig_stop(&rig);
}

static void wrong_messages_drop_the_reader(void **state)
{
    static const struct {
        struct inbox_message messages[2];
    } cases[] = {
        { { { .type = INBOX_HELLO, .code = INBOX_VERSION } } }, /* a second one */
        { { { .type = INBOX_READY } } },
        { { { .type = INBOX_SOURCE } } },
        { { { .type = INBOX_DATA, .data = "x", .len = 1 } } },
        { { { .type = INBOX_PUBLISH, .b = INBOX_PUBLISH_MAX + 1, .more = true } } },
        { { { .type = INBOX_PUBLISH, .b = UINT64_MAX, .more = true } } },
        { { { .type = INBOX_PUBLISH, .b = 2, .data = "x", .len = 1 } } },  /* ends too early */
        { { { .type = INBOX_PUBLISH, .b = 1, .data = "xy", .len = 2 } } }, /* too much */
        { { { .type = INBOX_PUBLISH, .b = 9, .data = "xy", .len = 2, .more = true },
            { .type = INBOX_PUBLISH, .b = 1, .data = "x", .len = 1 } } }, /* one inside another */
        { { { .type = INBOX_PUBLISH, .b = 3, .data = "xy", .len = 2, .more = true },
            { .type = INBOX_DATA, .data = "xy", .len = 2 } } },
    };
    struct rig rig;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int fd = rig_raw(&rig);
        send_hello(fd);
        for (int m = 0; m < 2 && cases[i].messages[m].type; m++)
            send_message(fd, &cases[i].messages[m]);
        expect_dropped(fd);
    }
    int fd = rig_raw(&rig);
    send_message(fd, &(struct inbox_message){ .type = INBOX_HELLO, .code = INBOX_VERSION + 1 });
    expect_dropped(fd);
    fd = rig_raw(&rig);
    send_message(fd, &(struct inbox_message){ .type = INBOX_POKE }); /* before hello */
    expect_dropped(fd);
    fake_expect("open");
    fake_expect_nothing(); /* no half publish was carried out */
    expect_healthy(&rig);
    rig_stop(&rig);
}

static void fragments_are_put_together(void **state)
{
    struct rig rig;
    struct probe probe;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_expect(&probe, "source");
    char *data = malloc(INBOX_PUBLISH_MAX), *body = malloc(INBOX_PUBLISH_MAX + 1024);
    for (size_t i = 0; i < INBOX_PUBLISH_MAX; i++)
        data[i] = (char)(i * 7 >> 5);
    const struct reader_channel b = { "b", 1, 0 };
    size_t sizes[] = { 0, 1, 32000, 32768, 32769, 100000, INBOX_PUBLISH_MAX };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        uint64_t at = log_indexed(rig.log);
        char key[] = { 'k', 'e', (char)('0' + i), '\0' };
        int r;
        while ((r = reader_publish(probe.reader, i, "a", 1, data, sizes[i], key, "me")) == -EAGAIN)
            probe_look(&probe);
        assert_int_equal(r, 0);
        /* other messages may stand between the fragments */
        while (reader_subscribe(probe.reader, &b) == -EAGAIN)
            probe_look(&probe);
        char expected[64];
        (void)snprintf(expected, sizeof(expected), "published %zu ok 0", i);
        bool published = false, ready = false;
        while (!published || !ready) {
            struct pollfd p = { .fd = reader_fd(probe.reader),
                                .events = POLLIN | (reader_blocked(probe.reader) ? POLLOUT : 0) };
            assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
            probe_look(&probe);
            for (size_t n = 0; n < probe.n_answers; n++) {
                published |= strcmp(probe.answers[n], expected) == 0;
                ready |= strcmp(probe.answers[n], "ready b") == 0;
            }
        }
        probe.n_answers = probe.n_expected = 0;
        struct log_record record;
        assert_int_equal(log_peek(rig.log, at, &record), 1);
        while (record.kind == RECORD_PAD)
            assert_int_equal(log_peek(rig.log, record.next, &record), 1);
        assert_int_equal(record.len, sizes[i]);
        assert_int_equal(log_body(rig.log, &record, body), 1);
        assert_memory_equal(record.data, data, sizes[i]);
        assert_string_equal(record.meta, key);
    }
    assert_int_equal(reader_publish(probe.reader, 9, "a", 1, data, INBOX_PUBLISH_MAX + 1, NULL,
                                    NULL),
                     -EMSGSIZE);
    free(data);
    free(body);
    probe_leave(&probe);
    rig_stop(&rig);
}

static void publishes_with_bad_names_are_answered(void **state)
{
    struct rig rig;
    struct probe probe;
    char key[300];
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_expect(&probe, "source");
    memset(key, 'k', sizeof(key));
    key[sizeof(key) - 1] = '\0';
    assert_int_equal(reader_publish(probe.reader, 1, "", 0, "x", 1, NULL, NULL), 0);
    assert_int_equal(reader_publish(probe.reader, 2, "$fanwire/x", 10, "x", 1, NULL, NULL), 0);
    assert_int_equal(reader_publish(probe.reader, 3, "a", 1, "x", 1, key, NULL), 0);
    assert_int_equal(reader_publish(probe.reader, 4, "a", 1, "x", 1, NULL, key), 0);
    probe_expect(&probe, "published 1 bad-channel");
    probe_expect(&probe, "published 2 bad-channel");
    probe_expect(&probe, "published 3 bad-request");
    probe_expect(&probe, "published 4 bad-request");
    fake_expect("open");
    fake_expect_nothing();
    probe_leave(&probe);
    rig_stop(&rig);
}

/* It asks for ever and never reads an answer: it blocks itself, nobody else. */
static void a_reader_that_never_reads_blocks_itself(void **state)
{
    struct rig rig;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    int fd = rig_raw(&rig), r = 0, sent = 0;
    send_hello(fd);
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    while (sent < 100000) {
        struct inbox_message m = { .type = INBOX_SUBSCRIBE, .texts = { { "a", 1 } } };
        r = inbox_send(fd, &m, NULL, 0);
        if (r == -EAGAIN && poll(&p, 1, 300) == 0)
            break; /* the engine does not take more */
        sent += r == 0;
    }
    assert_int_equal(r, -EAGAIN);
    assert_in_range(sent, 100, 20000);
    expect_healthy(&rig);
    close(fd);
    expect_healthy(&rig);
    rig_stop(&rig);
}

/* What it asked to be published is carried out although it is gone. */
static void publishes_outlive_their_reader(void **state)
{
    struct rig rig;
    struct probe probe;
    struct fake_script slow = { .open = true };
    fake_begin(slow);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&probe, &rig);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(reader_publish(probe.reader, i, "a", 1, "x", 1, NULL, NULL), 0);
    probe_leave(&probe);
    fake_expect("open");
    for (int i = 0; i < 10; i++)
        fake_expect("publish a");
    fake_published(NULL, "id"); /* to nobody */
    expect_healthy(&rig);
    assert_int_equal(counted(&rig.counters.source_publishes[CODE_OK]), 10);
    rig_stop(&rig);
}

/* More in the source's hands than is fair: the engine stops reading this reader until answers come.
 */
static void what_is_held_for_a_reader_is_bounded(void **state)
{
    struct rig rig;
    struct probe probe;
    struct fake_script slow = { .open = true };
    char *data = calloc(1, 256 * 1024);
    fake_begin(slow);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_expect(&probe, "source");
    uint64_t sent = 0;
    for (bool stuck = false; !stuck && sent < 64;) {
        if (reader_publish(probe.reader, sent, "a", 1, data, 256 * 1024, NULL, NULL) == 0) {
            sent++;
            continue;
        }
        struct pollfd p = { .fd = reader_fd(probe.reader), .events = POLLIN | POLLOUT };
        stuck = poll(&p, 1, 1000) == 0;
        probe_look(&probe);
    }
    assert_in_range(sent, PEER_HELD_MAX / (256 * 1024), PEER_HELD_MAX / (256 * 1024) + 3);
    expect_healthy(&rig);
    int patience = PATIENCE_MS / 20;
    for (uint64_t answered = 0; answered < sent;) {
        struct pollfd p = { .fd = reader_fd(probe.reader),
                            .events = POLLIN | (reader_blocked(probe.reader) ? POLLOUT : 0) };
        fake_published("source-refused", NULL); /* what the source has got so far */
        (void)poll(&p, 1, 20);
        probe_look(&probe);
        answered += probe.n_answers;
        patience = probe.n_answers ? PATIENCE_MS / 20 : patience - 1;
        assert_true(patience > 0);
        probe.n_answers = 0;
    }
    free(data);
    probe_leave(&probe);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_that_are_no_message_drop_the_reader),
        cmocka_unit_test(random_packets_never_hurt),
        cmocka_unit_test(wrong_messages_drop_the_reader),
        cmocka_unit_test(fragments_are_put_together),
        cmocka_unit_test(publishes_with_bad_names_are_answered),
        cmocka_unit_test(a_reader_that_never_reads_blocks_itself),
        cmocka_unit_test(publishes_outlive_their_reader),
        cmocka_unit_test(what_is_held_for_a_reader_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
