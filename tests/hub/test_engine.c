/* The engine on a scripted source: what readers are answered when, pacing, counting, saying so. */
#include "fake_source.h"
#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE (1u << 20)

static const struct fake_script works = { .open = true, .ready = true, .publish = true };
static const struct fake_script opens = { .open = true };
static const struct fake_script silent = { 0 };

static void a_reader_is_greeted_and_answered(void **state)
{
    struct rig rig;
    struct probe probe;
    fake_begin(works);
    rig_start(&rig, "demand:", SIZE, 0);
    fake_expect("open");
    probe_join(&probe, &rig);
    probe_expect(&probe, "source demand scripted");
    probe_subscribe(&probe, "a");
    probe_expect(&probe, "ready a");
    assert_true(probe.covered_from > 0 && probe.ready_at >= probe.covered_from);
    assert_non_null(reader_slot(probe.reader));
    assert_true(reader_eventfd(probe.reader) >= 0);
    probe_subscribe(&probe, "");
    probe_expect(&probe, "refused  bad-channel");
    probe_subscribe(&probe, "a\x01");
    probe_expect(&probe, "refused a\x01 bad-channel");
    probe_leave(&probe);
    rig_stop(&rig);
}

static void the_mode_is_told_again_when_it_is_known(void **state)
{
    struct rig rig;
    struct probe probe;
    fake_begin(silent);
    rig_start(&rig, "durable:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_subscribe(&probe, "a");
    fake_expect("open");
    fake_opened();
    probe_expect(&probe, "source durable scripted durable");
    fake_expect("subscribe a");
    fake_ready("a");
    probe_expect(&probe, "ready a");
    probe_leave(&probe);
    rig_stop(&rig);
}

static void answers_wait_for_the_source(void **state)
{
    struct rig rig;
    struct probe probe;
    fake_begin(silent);
    rig_start(&rig, "demand:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_subscribe(&probe, "a");
    probe_subscribe(&probe, "b");
    fake_expect("open");
    fake_lost("connection-lost");
    fake_expect("open");
    fake_opened();
    probe_expect(&probe, "source");
    fake_expect("subscribe a");
    fake_expect("subscribe b");
    fake_ready("a");
    fake_expect_nothing();
    probe_look(&probe);
    assert_int_equal(probe.n_answers, 0); /* b is not confirmed: it is not said to be up yet */
    assert_false(log_up(rig.log));
    fake_ready("b");
    probe_expect(&probe, "ready a");
    probe_expect(&probe, "ready b");
    assert_true(log_up(rig.log));
    probe_leave(&probe);
    rig_stop(&rig);
}

/* Two readers, one channel: the source hears of it once, and again only after both have gone. */
static void interest_is_shared_and_withdrawn(void **state)
{
    struct rig rig;
    struct probe one, two;
    fake_begin(works);
    rig_start(&rig, "demand:", SIZE, 1);
    probe_join(&one, &rig);
    probe_join(&two, &rig);
    probe_expect(&one, "source");
    probe_expect(&two, "source");
    probe_subscribe(&one, "a");
    probe_expect(&one, "ready a");
    uint64_t covered = one.covered_from;
    fake_append("a", "x");
    probe_subscribe(&two, "a");
    probe_expect(&two, "ready a");
    assert_true(two.covered_from == covered);
    assert_true(two.ready_at > one.ready_at);
    probe_unsubscribe(&one, "a");
    fake_expect("open");
    fake_expect("subscribe a");
    fake_expect_nothing();
    probe_leave(&two); /* its end of file is enough */
    fake_expect("unsubscribe a");
    probe_leave(&one);
    rig_stop(&rig);
}

static void a_refusal_reaches_those_who_asked(void **state)
{
    struct rig rig;
    struct probe one, two;
    fake_begin(opens);
    rig_start(&rig, "demand:", SIZE, 0);
    probe_join(&one, &rig);
    probe_join(&two, &rig);
    probe_expect(&one, "source");
    probe_expect(&two, "source");
    probe_subscribe(&one, "a");
    fake_expect("open");
    fake_expect("subscribe a");
    fake_refused("a");
    probe_expect(&one, "refused a source-refused");
    probe_look(&two);
    assert_int_equal(two.n_answers, 0);
    probe_leave(&one);
    probe_leave(&two);
    rig_stop(&rig);
}

/* A reader that comes back after the source process was replaced says from where it was covered. */
static void a_hole_of_one_channel_is_told_once(void **state)
{
    struct rig rig;
    struct probe one, two;
    fake_begin(works);
    rig_start(&rig, "demand:", SIZE, 0);
    probe_join(&one, &rig);
    probe_join(&two, &rig);
    probe_expect(&one, "source");
    probe_expect(&two, "source");
    uint64_t before = log_indexed(rig.log);
    probe_ask_again(&one, "a", 8);
    probe_expect(&one, "ready a");
    uint64_t after = log_indexed(rig.log);
    assert_true(after > before);
    struct log_channel a = { log_hash(rig.log, "a", 1), "a", 1 };
    uint64_t offsets[8];
    struct log_record gap;
    assert_int_equal(log_walk(rig.log, &a, 0, after, offsets, 8), 1);
    assert_int_equal(log_peek(rig.log, offsets[0], &gap), 1);
    assert_int_equal(gap.kind, RECORD_GAP);
    assert_true(gap.off >= one.covered_from);
    assert_true(one.ready_at == after);
    probe_ask_again(&two, "a", 8);
    probe_expect(&two, "ready a");
    probe_ask_again(&two, "a", two.covered_from);
    probe_expect(&two, "ready a");
    assert_true(log_indexed(rig.log) == after); /* the record is there for all readers */
    fake_lost("connection-lost");
    probe_expect(&one, "source");
    probe_ask_again(&one, "a", 8); /* a gap of all stands after */
    probe_expect(&one, "ready a");
    assert_int_equal(log_walk(rig.log, &a, 0, log_indexed(rig.log), offsets, 8), 1);
    probe_leave(&one);
    probe_leave(&two);
    rig_stop(&rig);
}

static void a_poke_wakes_its_reader(void **state)
{
    struct rig rig;
    struct probe probe;
    eventfd_t value;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_expect(&probe, "source");
    uint32_t word = log_wake_word(rig.log);
    assert_int_equal(reader_poke(probe.reader), 0);
    struct pollfd p = { .fd = reader_eventfd(probe.reader), .events = POLLIN };
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    assert_int_equal(eventfd_read(p.fd, &value), 0);
    while (log_wake_word(rig.log) == word)
        (void)log_wait(rig.log, word, 1000);
    probe_leave(&probe);
    rig_stop(&rig);
}

static void a_sleeping_reader_is_woken_once_per_batch(void **state)
{
    struct rig rig;
    struct probe probe;
    eventfd_t value;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_expect(&probe, "source");
    struct log_slot *slot = reader_slot(probe.reader);
    assert_true(log_sleep(rig.log, slot, log_indexed(rig.log)));
    fake_append("a", "x");
    struct pollfd p = { .fd = reader_eventfd(probe.reader), .events = POLLIN };
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    fake_append("a", "y"); /* awake: nothing more to say */
    assert_int_equal(eventfd_read(p.fd, &value), 0);
    assert_int_equal(value, 1);
    probe_leave(&probe);
    rig_stop(&rig);
}

/* ---- pacing ---- */

struct batch {
    int appended;
    bool go_on;
};

static void append_batch(struct fw_host *host, void *arg)
{
    struct batch *batch = arg;
    char data[1000] = { 0 };
    struct fw_source_event event = {
        .channel = "a", .channel_len = 1, .data = data, .len = sizeof(data)
    };
    batch->go_on = true;
    for (batch->appended = 0; batch->appended < 400 && batch->go_on; batch->appended++) {
        (void)fw_host_append(host, &event);
        if (batch->appended % 16 == 15)
            batch->go_on = fw_host_flush(host);
    }
}

static void a_busy_reader_pauses_the_source(void **state)
{
    struct rig rig;
    struct probe probe;
    struct batch batch;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_expect(&probe, "source");
    struct log_slot *slot = reader_slot(probe.reader);
    atomic_store(&slot->cursor, log_indexed(rig.log));
    fake_expect("open");
    fake_run(append_batch, &batch);
    assert_false(batch.go_on);
    assert_in_range(batch.appended, SIZE / 4 / 1100, SIZE / 4 / 1000 + 16);
    atomic_store(&slot->cursor, log_indexed(rig.log)); /* it has read on */
    fake_expect("go on");
    fake_run(append_batch, &batch);
    assert_false(batch.go_on);
    fake_expect("go on"); /* it stands still now: 250 ms later it holds nobody any more */
    fake_run(append_batch, &batch);
    assert_true(batch.go_on);
    assert_true(counted(&rig.counters.source_paused_ms) >= 200);
    probe_leave(&probe);
    rig_stop(&rig);
}

/* Publishes that are appends would lap the reader that the pause is for. */
static void publishes_wait_while_paused(void **state)
{
    struct rig rig;
    struct probe reader, writer;
    struct batch batch;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    probe_join(&reader, &rig);
    probe_join(&writer, &rig);
    probe_expect(&reader, "source");
    probe_expect(&writer, "source");
    assert_int_equal(reader_publish(writer.reader, 1, "a", 1, "x", 1, NULL, NULL), 0);
    probe_expect(&writer, "published 1 ok");
    struct log_slot *slot = reader_slot(reader.reader);
    atomic_store(&slot->cursor, log_indexed(rig.log));
    fake_expect("open");
    fake_expect("publish a");
    fake_run(append_batch, &batch);
    assert_false(batch.go_on);
    uint64_t head = log_indexed(rig.log);
    assert_int_equal(reader_publish(writer.reader, 2, "a", 1, "x", 1, NULL, NULL), 0);
    assert_int_equal(reader_publish(writer.reader, 3, "a", 1, "y", 1, NULL, NULL), 0);
    probe_subscribe(&writer, "b"); /* subscriptions are not held back */
    probe_expect(&writer, "ready b");
    assert_true(log_indexed(rig.log) == head);
    atomic_store(&slot->cursor, head);
    fake_expect("go on");
    probe_expect(&writer, "published 2 ok");
    probe_expect(&writer, "published 3 ok");
    probe_leave(&reader);
    probe_leave(&writer);
    rig_stop(&rig);
}

/* ---- what is counted and told ---- */

static void append_bad_names(struct fw_host *host, void *arg)
{
    static const char *const names[] = { "", "a\nb", "\xc0\x80", "$fanwire/x", "fine" };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct fw_source_event event = {
            .channel = names[i], .channel_len = strlen(names[i]), .data = "x", .len = 1
        };
        assert_int_equal(fw_host_append(host, &event), i < 3 ? -EINVAL : 0);
    }
}

static void events_are_counted_and_bad_names_refused(void **state)
{
    struct rig rig;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    fake_expect("open");
    fake_run(append_bad_names, NULL);
    assert_int_equal(counted(&rig.counters.source_refused_events), 3);
    assert_int_equal(counted(&rig.counters.source_events), 2);
    assert_int_equal(counted(&rig.counters.source_bytes), 2);
    assert_true(counted(&rig.counters.source_last_event_ms) > 0);
    assert_true(rig_has_line(&rig, "event-refused"));
    char *first = strstr(rig.lines, "event-refused");
    assert_null(strstr(first + 1, "event-refused")); /* repeats are counted, not printed */
    fake_lost("connection-lost");
    fake_expect("open");
    fake_expect_nothing();
    assert_int_equal(counted(&rig.counters.source_reconnects), 1);
    assert_true(rig_has_line(&rig, "lost"));
    rig_stop(&rig);
}

static void the_beat_goes_on(void **state)
{
    struct rig rig;
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    int64_t first = log_beat(rig.log);
    assert_true(first > 0);
    for (int i = 0; i < 200 && log_beat(rig.log) == first; i++)
        (void)log_wait(rig.log, log_wake_word(rig.log), 50);
    assert_true(log_beat(rig.log) > first);
    rig_stop(&rig);
}

static void two_writers_of_one_log_are_refused(void **state)
{
    struct fw_error err = { 0 };
    struct engine *engine;
    struct engine_options options = { .url = "nosuch:", .listen_fd = -1 };
    assert_int_equal(engine_new(&options, &engine, &err), -EINVAL);
    assert_non_null(strstr(err.message, "nosuch"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_is_greeted_and_answered),
        cmocka_unit_test(the_mode_is_told_again_when_it_is_known),
        cmocka_unit_test(answers_wait_for_the_source),
        cmocka_unit_test(interest_is_shared_and_withdrawn),
        cmocka_unit_test(a_refusal_reaches_those_who_asked),
        cmocka_unit_test(a_hole_of_one_channel_is_told_once),
        cmocka_unit_test(a_poke_wakes_its_reader),
        cmocka_unit_test(a_sleeping_reader_is_woken_once_per_batch),
        cmocka_unit_test(a_busy_reader_pauses_the_source),
        cmocka_unit_test(publishes_wait_while_paused),
        cmocka_unit_test(events_are_counted_and_bad_names_refused),
        cmocka_unit_test(the_beat_goes_on),
        cmocka_unit_test(two_writers_of_one_log_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
