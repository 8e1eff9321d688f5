/* Keys and batches through a running engine. */
#include "batch.h"
#include "fake_source.h"
#include "inbox.h"
#include "rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE (1u << 20)

static const struct fake_script works = { .open = true, .ready = true, .publish = true };
static const struct fake_script answers_later = { .open = true, .ready = true };

/* "channel key data", separated by commas; key "-" is none. */
static struct buf pack(const char *events, size_t *ret_n)
{
    struct buf b = buf_make(INBOX_BATCH_MAX);
    char text[1024], *rest = text, *one;
    *ret_n = 0;
    (void)snprintf(text, sizeof(text), "%s", events);
    while ((one = strsep(&rest, ","))) {
        const char *channel = strsep(&one, " "), *key = strsep(&one, " ");
        struct batch_event event = { .channel = channel,
                                     .channel_len = strlen(channel),
                                     .key = key,
                                     .key_len = strcmp(key, "-") ? strlen(key) : 0,
                                     .data = one,
                                     .len = strlen(one) };
        assert_int_equal(batch_append(&b, &event), 0);
        ++*ret_n;
    }
    return b;
}

static void publish_batch(struct probe *probe, uint64_t request, const char *events)
{
    size_t n;
    struct buf b = pack(events, &n);
    assert_int_equal(reader_publish_batch(probe->reader, request, b.data, b.len, n, "me"), 0);
    buf_done(&b);
}

static void publish_keyed(struct probe *probe, uint64_t request, const char *key, const char *data)
{
    assert_int_equal(reader_publish(probe->reader, request, "a", 1, data, strlen(data), key, NULL),
                     0);
}

static void start(struct rig *rig, struct probe *probe, const char *url, struct fake_script script)
{
    fake_begin(script);
    rig_start(rig, url, SIZE, 0);
    probe_join(probe, rig);
    probe_expect(probe, "source");
    fake_expect("open");
}

/* Messages in the log, as "data data …". */
static void expect_log(struct rig *rig, const char *expected)
{
    char found[1024] = "";
    uint64_t body[512];
    struct log_record record;
    for (uint64_t at = log_tail(rig->log); at < log_indexed(rig->log); at = record.next) {
        assert_int_equal(log_peek(rig->log, at, &record), 1);
        if (record.kind != RECORD_MESSAGE)
            continue;
        assert_true(log_body_size(&record) <= sizeof(body));
        assert_int_equal(log_body(rig->log, &record, body), 1);
        (void)snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s%.*s",
                       *found ? " " : "", (int)record.len, (const char *)record.data);
    }
    assert_string_equal(found, expected);
}

/* ---- keys ---- */

static void a_repeat_is_counted_and_told_the_first_ones_id(void **state)
{
    struct rig rig;
    struct probe probe;
    char first[256];
    start(&rig, &probe, "plain:", works);
    publish_keyed(&probe, 1, "k", "one");
    probe_expect(&probe, "published 1 ok");
    memcpy(first, probe.id, sizeof(first));
    publish_keyed(&probe, 2, "other", "two");
    probe_expect(&probe, "published 2 ok");
    publish_keyed(&probe, 3, "k", "one again");
    probe_expect(&probe, "published 3 ok");
    assert_string_equal(probe.id, first);
    publish_keyed(&probe, 4, NULL, "three");
    publish_keyed(&probe, 5, NULL, "three");
    probe_expect(&probe, "published 4 ok");
    probe_expect(&probe, "published 5 ok");
    expect_log(&rig, "one two three three");
    assert_int_equal(counted(&rig.counters.source_repeated_events), 1);
    assert_int_equal(counted(&rig.counters.source_events), 4);
    probe_leave(&probe);
    rig_stop(&rig);
}

static void the_next_source_process_knows_the_keys(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "plain:", works);
    publish_keyed(&probe, 1, "k", "one");
    probe_expect(&probe, "published 1 ok");
    probe_leave(&probe);
    rig_restart(&rig);
    probe_join(&probe, &rig);
    probe_expect(&probe, "source");
    publish_keyed(&probe, 2, "k", "one again");
    publish_keyed(&probe, 3, "l", "two");
    probe_expect(&probe, "published 2 ok");
    probe_expect(&probe, "published 3 ok");
    expect_log(&rig, "one two");
    probe_leave(&probe);
    rig_stop(&rig);
}

static void append_durable(struct fw_host *host, const char *key, const char *data, uint64_t pos,
                           bool history)
{
    struct fw_source_event event = { .channel = "a",
                                     .channel_len = 1,
                                     .key = key,
                                     .data = data,
                                     .len = strlen(data),
                                     .pos = { pos, 0 },
                                     .history = history };
    assert_int_equal(fw_host_append(host, &event), 0);
}

static void say_durable(struct fw_host *host, void *arg)
{
    uint64_t pos[2] = { 0 };
    assert_false(fw_host_continue(host, 7, pos));
    fw_host_begin(host, 7, (const uint64_t[2]){ 1, 0 });
    append_durable(host, "k", "one", 2, true);
    append_durable(host, "k", "repeat", 3, true);
    fw_host_opened(host, "scripted", "the test says so", 7);
    append_durable(host, "l", "two", 4, false);
    append_durable(host, "k", "repeat", 5, false);
    (void)fw_host_flush(host);
}

static void say_begun_anew(struct fw_host *host, void *arg)
{
    fw_host_lost(host, "connection-lost", "the test says so");
    fw_host_begin(host, 8, (const uint64_t[2]){ 1, 0 });
    append_durable(host, "k", "another one", 2, true);
}

/* Who was given the id of a repeat comes back with a position that the log knows. */
static void a_durable_repeat_is_passed(void **state)
{
    struct rig rig;
    uint64_t pos[2], before;
    fake_begin((struct fake_script){ 0 });
    rig_start(&rig, "stored:", SIZE, 0);
    fake_expect("open");
    fake_run(say_durable, NULL);
    expect_log(&rig, "one two");
    assert_int_equal(log_position_before(rig.log, log_indexed(rig.log), pos), 0);
    assert_int_equal(pos[0], 5);
    assert_int_equal(log_seek_position(rig.log, (const uint64_t[2]){ 5, 0 }, &before), 0);
    assert_int_equal(before, log_indexed(rig.log));
    fake_run(say_begun_anew, NULL); /* what it reads now replaces what it had */
    expect_log(&rig, "one two another one");
    rig_stop(&rig);
}

/* ---- batches, one by one ---- */

static void a_batch_goes_one_by_one_where_there_are_no_transactions(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "plain:", works);
    publish_batch(&probe, 7, "a - one,b k two,a - three,b k two");
    probe_expect(&probe, "published 7 ok 0");
    probe_expect(&probe, "published 7 ok 1");
    probe_expect(&probe, "published 7 ok 2");
    probe_expect(&probe, "published 7 ok 3");
    expect_log(&rig, "one two three");
    probe_leave(&probe);
    rig_stop(&rig);
}

static void each_waits_for_the_one_before_and_nothing_overtakes(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "plain:", answers_later);
    publish_batch(&probe, 1, "a - x,b - x,c - x");
    publish_keyed(&probe, 2, NULL, "after");
    fake_expect("publish a");
    fake_expect_nothing();
    fake_published(NULL, "i1");
    fake_expect("publish b");
    fake_published(NULL, NULL);
    fake_expect("publish c");
    fake_expect_nothing();
    fake_published(NULL, "i3");
    fake_expect("publish a");
    fake_published(NULL, NULL);
    probe_expect(&probe, "published 1 ok 0");
    probe_expect(&probe, "published 1 ok 1");
    probe_expect(&probe, "published 1 ok 2");
    probe_expect(&probe, "published 2 ok 0");
    probe_leave(&probe);
    rig_stop(&rig);
}

static void the_first_refusal_ends_it_and_tells_how_far_it_came(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "plain:", answers_later);
    publish_batch(&probe, 1, "a - x,b - x,c - x");
    fake_expect("publish a");
    fake_published(NULL, NULL);
    fake_expect("publish b");
    fake_published("source-refused", NULL);
    probe_expect(&probe, "published 1 ok 0");
    probe_expect(&probe, "published 1 source-refused 1 in parts");
    fake_expect_nothing();
    probe_leave(&probe);
    rig_stop(&rig);
}

/* ---- batches as a transaction ---- */

static void a_source_with_transactions_gets_all_of_it_at_once(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "whole:", answers_later);
    publish_batch(&probe, 1, "a k x,b - y");
    fake_expect("batch of 2");
    fake_published(NULL, "id");
    probe_expect(&probe, "published 1 ok 0");
    probe_expect(&probe, "published 1 ok 1");
    publish_batch(&probe, 2, "a - x,b - y,c - z");
    fake_expect("batch of 3");
    fake_published("source-refused", NULL);
    probe_expect(&probe, "published 2 source-refused 0");
    publish_keyed(&probe, 3, NULL, "x");
    fake_expect("publish a");
    fake_published(NULL, NULL);
    probe_expect(&probe, "published 3 ok 0"); /* and none of the other two of the batch */
    probe_leave(&probe);
    rig_stop(&rig);
}

static void one_bad_event_spoils_all_before_any_is_published(void **state)
{
    static const char *const urls[] = { "plain:", "whole:" };
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        struct probe probe;
        start(&rig, &probe, urls[i], works);
        publish_batch(&probe, 1, "a - x,$fanwire/b - y,c - z");
        probe_expect(&probe, "published 1 bad-channel 0");
        fake_expect_nothing();
        expect_log(&rig, "");
        probe_leave(&probe);
        rig_stop(&rig);
    }
}

/* What its reader has asked for is carried out when it is gone; what is left when the engine ends
 * is freed. */
static void a_reader_that_leaves_has_its_batch_published(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "plain:", answers_later);
    publish_batch(&probe, 1, "a - x,b - x,c - x");
    fake_expect("publish a");
    probe_leave(&probe);
    fake_expect_nothing();
    fake_published(NULL, NULL);
    fake_expect("publish b");
    rig_stop(&rig);
}

static void a_batch_that_ends_with_the_engine_is_freed(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "whole:", answers_later);
    publish_batch(&probe, 1, "a - x,b - x,c - x");
    fake_expect("batch of 3");
    rig_stop(&rig);
    probe_expect(&probe, "published 1 source-down 0");
    probe_expect_gone(&probe);
    probe_leave(&probe);
}

/* Larger than the log: it goes on as its reader does, which is never lapped. */
static void a_large_batch_is_paced(void **state)
{
    enum { N = 700, LEN = 2000 };
    struct rig rig;
    struct probe probe;
    struct buf b = buf_make(INBOX_BATCH_MAX);
    char data[LEN];
    memset(data, 'x', sizeof(data));
    start(&rig, &probe, "plain:", works);
    const struct batch_event event = { .channel = "a", .channel_len = 1, .data = data, .len = LEN };
    for (int i = 0; i < N; i++)
        assert_int_equal(batch_append(&b, &event), 0);
    uint64_t cursor = log_indexed(rig.log);
    struct log_slot *slot = reader_slot(probe.reader);
    atomic_store_explicit(&slot->cursor, cursor, memory_order_relaxed);
    assert_int_equal(reader_publish_batch(probe.reader, 1, b.data, b.len, N, NULL), 0);
    for (unsigned n = 0; n < N; n++) {
        char expected[64];
        (void)snprintf(expected, sizeof(expected), "published 1 ok %u", n);
        probe_expect(&probe, expected);
        struct log_record record; /* one record for one answer */
        do {
            assert_int_equal(log_peek(rig.log, cursor, &record), 1);
            cursor = record.next;
        } while (record.kind != RECORD_MESSAGE);
        atomic_store_explicit(&slot->cursor, cursor, memory_order_relaxed);
    }
    buf_done(&b);
    probe_leave(&probe);
    rig_stop(&rig);
}

/* ---- what a reader may not send ---- */

static void expect_dropped(uint64_t n, const char *events, size_t len)
{
    struct rig rig;
    struct probe probe;
    char buf[256];
    fake_begin(works);
    rig_start(&rig, "plain:", SIZE, 0);
    int fd = rig_raw(&rig);
    struct inbox_message hello = { .type = INBOX_HELLO, .code = INBOX_VERSION };
    assert_int_equal(inbox_send(fd, &hello, NULL, 0), 0);
    struct inbox_message batch = {
        .type = INBOX_BATCH, .b = len, .c = n, .data = events, .len = len
    };
    assert_int_equal(inbox_send(fd, &batch, NULL, 0), 0);
    probe_join(&probe, &rig); /* the engine lives */
    probe_expect(&probe, "source");
    int64_t r;
    while ((r = inbox_receive(fd, buf, sizeof(buf), NULL)) > 0 || r == -EAGAIN)
        ;
    assert_true(rig_has_line(&rig, "reader-dropped"));
    close(fd);
    probe_leave(&probe);
    rig_stop(&rig);
}

static void a_reader_whose_batch_is_none_is_dropped(void **state)
{
    size_t n;
    struct buf b = pack("a - x,b - y", &n);
    expect_dropped(0, "", 0);
    expect_dropped(INBOX_EVENTS_MAX + 1, (const char *)b.data, b.len);
    expect_dropped(3, (const char *)b.data, b.len);
    expect_dropped(2, (const char *)b.data, b.len - 1);
    buf_done(&b);
}

/* ---- which question an answer is for ---- */

static void answers_bear_the_number_of_their_question(void **state)
{
    struct rig rig;
    struct probe probe;
    start(&rig, &probe, "demand:", (struct fake_script){ .open = true });
    probe_ask(&probe, "a", 41);
    fake_expect("subscribe a");
    probe_unsubscribe(&probe, "a");
    probe_ask(&probe, "a", 42);
    fake_expect_nothing(); /* it is asked already */
    fake_ready("a");
    probe_expect(&probe, "ready a");
    assert_int_equal(probe.question, 42);
    probe_unsubscribe(&probe, "a");
    probe_ask(&probe, "a", 43);
    probe_expect(&probe, "ready a");
    assert_int_equal(probe.question, 43);
    probe_ask(&probe, "b", 44);
    fake_expect("subscribe b");
    fake_refused("b");
    probe_expect(&probe, "refused b");
    assert_int_equal(probe.question, 44);
    probe_leave(&probe);
    rig_stop(&rig);
}

/* The answer to the first subscription is unread when the channel comes back with a `since`: taken
 * for the answer to that one, it would have vouched for what was not heard meanwhile. */
static void an_unread_answer_is_not_taken_for_the_next_question(void **state)
{
    struct fw_error err;
    fake_begin((struct fake_script){ .open = true, .ready = true });
    struct fw_hub *hub = open_hub("demand:", SIZE, 0);
    struct fw_sub *sub = open_sub(hub, "other");
    next_step(sub, FW_READY, "other");
    fake_expect("open");
    fake_expect("subscribe other");
    assert_int_equal(fw_sub_add(sub, "a", NULL, &err), 0);
    fake_expect("subscribe a"); /* and its answer is on its way */
    fake_expect_nothing();
    assert_int_equal(fw_sub_remove(sub, "a"), 0);
    fake_expect_nothing();
    fake_begin((struct fake_script){ .open = true }); /* it is asked again only after a loss */
    fake_lost("connection-lost");
    assert_int_equal(fw_sub_add(sub, "a", NULL, &err), 0);
    struct fw_event ev;
    int r;
    while ((r = fw_sub_next(sub, &ev, 0)) > 0)
        assert_int_not_equal(r, FW_READY);
    assert_int_equal(r, 0);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_repeat_is_counted_and_told_the_first_ones_id),
        cmocka_unit_test(the_next_source_process_knows_the_keys),
        cmocka_unit_test(a_durable_repeat_is_passed),
        cmocka_unit_test(a_batch_goes_one_by_one_where_there_are_no_transactions),
        cmocka_unit_test(each_waits_for_the_one_before_and_nothing_overtakes),
        cmocka_unit_test(the_first_refusal_ends_it_and_tells_how_far_it_came),
        cmocka_unit_test(a_source_with_transactions_gets_all_of_it_at_once),
        cmocka_unit_test(one_bad_event_spoils_all_before_any_is_published),
        cmocka_unit_test(a_reader_that_leaves_has_its_batch_published),
        cmocka_unit_test(a_batch_that_ends_with_the_engine_is_freed),
        cmocka_unit_test(a_large_batch_is_paced),
        cmocka_unit_test(a_reader_whose_batch_is_none_is_dropped),
        cmocka_unit_test(answers_bear_the_number_of_their_question),
        cmocka_unit_test(an_unread_answer_is_not_taken_for_the_next_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
