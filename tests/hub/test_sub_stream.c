/* What a subscription is told of a stream that comes, goes, refuses, ends and is too fast. */
#include "fake_source.h"
#include "rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RETAIN (1u << 20)

static const struct fake_script works = { .open = true, .ready = true, .publish = true };
static const struct fake_script opens = { .open = true };
static const struct fake_script silent = { 0 };

static void before_the_first_connection_there_is_no_down(void **state)
{
    fake_begin(silent);
    struct fw_hub *hub = open_hub("demand:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    fake_expect("open");
    nothing_next(sub);
    fake_opened();
    fake_expect("subscribe a");
    fake_ready("a");
    next_step(sub, FW_READY, "a");
    fake_append("a", "x");
    next_message(sub, "a", "x");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_failed_first_connection_is_down_once(void **state)
{
    fake_begin(silent);
    struct fw_hub *hub = open_hub("demand:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    fake_expect("open");
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    fake_expect("open"); /* tried again */
    fake_lost("connection-lost");
    fake_expect("open");
    nothing_next(sub);
    fake_opened();
    fake_expect("subscribe a");
    nothing_next(sub); /* not up before the source has confirmed */
    fake_ready("a");
    next_step(sub, FW_UP, ""); /* nothing was missed: it never was up */
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void an_outage_is_down_gap_up(void **state)
{
    fake_begin(works);
    struct fw_hub *hub = open_hub("demand:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    fake_append("a", "1");
    char last[FW_POSITION_MAX + 1];
    (void)snprintf(last, sizeof(last), "%s", next_step(sub, FW_MESSAGE, "a")->id);
    for (int outage = 0; outage < 3; outage++) {
        fake_lost("connection-lost");
        next_down(sub, "connection-lost");
        struct fw_event *gap = next_step(sub, FW_GAP, "");
        assert_string_equal(gap->reason, "connection-lost");
        if (outage == 0)
            assert_string_equal(gap->after, last);
        assert_string_equal(gap->before, gap->id);
        next_step(sub, FW_UP, "");
        fake_append("a", "2");
        next_message(sub, "a", "2");
    }
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_durable_source_has_no_gap(void **state)
{
    fake_begin(works);
    struct fw_hub *hub = open_hub("durable:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    next_step(sub, FW_UP, "");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void who_comes_during_an_outage_is_told_first(void **state)
{
    fake_begin(silent);
    struct fw_hub *hub = open_hub("plain:", RETAIN, 0);
    fake_expect("open");
    fake_opened();
    fake_append("a", "old");
    fake_lost("restart");
    struct fw_sub *sub = open_sub(hub, "a");
    next_down(sub, "restart");
    nothing_next(sub);
    fake_expect("open");
    fake_opened();
    next_gap(sub, "", "connection-lost");
    next_step(sub, FW_UP, "");
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* The gap of an outage belongs to every resume from before it. */
static void a_resume_over_an_outage_is_told_its_gap(void **state)
{
    fake_begin(works);
    struct fw_hub *hub = open_hub("demand:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    char before[FW_POSITION_MAX + 1], after[FW_POSITION_MAX + 1];
    next_step(sub, FW_READY, "a");
    fake_append("a", "1");
    (void)snprintf(before, sizeof(before), "%s", next_step(sub, FW_MESSAGE, "a")->id);
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    next_gap(sub, "", "connection-lost");
    (void)snprintf(after, sizeof(after), "%s", next_step(sub, FW_UP, "")->id);
    fake_append("a", "2");
    next_message(sub, "a", "2");
    struct fw_sub *resumed = open_sub_since(hub, "a", before, 0);
    next_gap(resumed, "a", "connection-lost");
    next_message(resumed, "a", "2");
    next_step(resumed, FW_READY, "a");
    nothing_next(resumed);
    fw_sub_close(resumed);
    resumed = open_sub_since(hub, "a", after, 0);
    next_message(resumed, "a", "2");
    next_step(resumed, FW_READY, "a");
    fw_sub_close(resumed);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void while_nobody_listens_is_a_gap(void **state)
{
    fake_begin(works);
    struct fw_hub *hub = open_hub("demand:", RETAIN, 1);
    struct fw_sub *sub = open_sub(hub, "a");
    char place[FW_POSITION_MAX + 1];
    next_step(sub, FW_READY, "a");
    fake_append("a", "1");
    (void)snprintf(place, sizeof(place), "%s", next_step(sub, FW_MESSAGE, "a")->id);
    fake_expect("open");
    fake_expect("subscribe a");
    fw_sub_close(sub);
    fake_expect("unsubscribe a");
    fake_append("b", "meanwhile");
    sub = open_sub_since(hub, "a", place, 0);
    fake_expect("subscribe a");
    struct fw_event *gap = next_step(sub, FW_GAP, "a");
    assert_string_equal(gap->reason, "not-covered");
    assert_string_equal(gap->after, place);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void lingering_covers_a_short_absence(void **state)
{
    fake_begin(works);
    struct fw_hub *hub = open_hub("demand:", RETAIN, 60000);
    struct fw_sub *sub = open_sub(hub, "a");
    char place[FW_POSITION_MAX + 1];
    (void)snprintf(place, sizeof(place), "%s", next_step(sub, FW_READY, "a")->id);
    fw_sub_close(sub);
    fake_append("a", "1");
    sub = open_sub_since(hub, "a", place, 0);
    next_message(sub, "a", "1");
    next_step(sub, FW_READY, "a");
    fake_expect("open");
    fake_expect("subscribe a");
    fake_expect_nothing();
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_refused_channel_is_an_error_of_its_own(void **state)
{
    fake_begin(opens);
    struct fw_hub *hub = open_hub("demand:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "good");
    struct fw_event ev;
    struct fw_error err;
    fake_expect("open");
    fake_expect("subscribe good");
    fake_ready("good");
    next_step(sub, FW_READY, "good");
    assert_int_equal(fw_sub_add(sub, "bad", NULL, &err), 0);
    fake_expect("subscribe bad");
    fake_refused("bad");
    assert_int_equal(fw_sub_next(sub, &ev, PATIENCE_MS), -EIO);
    assert_non_null(strstr(fw_sub_error(sub), "bad"));
    assert_non_null(strstr(fw_sub_error(sub), "source-refused"));
    assert_int_equal(fw_sub_remove(sub, "bad"), -ENOENT);
    fake_append("good", "x");
    next_message(sub, "good", "x"); /* the others go on */
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void an_ended_stream_stays_readable(void **state)
{
    fake_begin(works);
    struct fw_hub *hub = open_hub("plain:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    fake_append("a", "1");
    fake_ended();
    next_message(sub, "a", "1");
    next_down(sub, "ended");
    nothing_next(sub);
    struct fw_sub *late = open_sub_since(hub, "a", "oldest", 0);
    next_down(late, "ended");
    next_message(late, "a", "1");
    next_step(late, FW_READY, "a");
    fw_sub_close(late);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void append_bytes(struct fw_host *host, void *arg)
{
    size_t len = *(size_t *)arg;
    char *data = calloc(1, len);
    struct fw_source_event event = { .channel = "big", .channel_len = 3, .data = data, .len = len };
    (void)fw_host_append(host, &event);
    (void)fw_host_flush(host);
    free(data);
}

static void too_large_an_event_is_a_gap_of_its_channel(void **state)
{
    fake_begin(works);
    struct fw_hub *hub = open_hub("plain:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "big"), *other = open_sub(hub, "small");
    next_step(sub, FW_READY, "big");
    next_step(other, FW_READY, "small");
    size_t fits = RETAIN / 16 - 3, not = fits + 1;
    fake_run(append_bytes, &fits);
    fake_run(append_bytes, &not );
    fake_append("big", "x");
    fake_append("small", "y");
    assert_int_equal(next_step(sub, FW_MESSAGE, "big")->len, fits);
    next_gap(sub, "big", "too-large");
    next_message(sub, "big", "x");
    next_message(other, "small", "y"); /* not its gap */
    fw_sub_close(other);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void append_many(struct fw_host *host, void *arg)
{
    int n = *(int *)arg;
    char data[100] = { 0 };
    struct fw_source_event event = {
        .channel = "a", .channel_len = 1, .data = data, .len = sizeof(data)
    };
    for (int i = 0; i < n; i++)
        (void)fw_host_append(host, &event);
    (void)fw_host_flush(host);
}

static void a_lapped_subscription_is_told_and_goes_on(void **state)
{
    int many = 3000;
    fake_begin(works);
    struct fw_hub *hub = open_hub("plain:", 1 << 16, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    fake_run(append_many, &many);
    struct fw_event *gap = next_step(sub, FW_GAP, "");
    assert_string_equal(gap->reason, "lapped");
    assert_null(gap->after);
    assert_string_equal(gap->before, gap->id);
    nothing_next(sub);
    fake_append("a", "x");
    next_message(sub, "a", "x");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* The record that told the outage was overwritten before it was read. */
static void a_lapped_subscription_still_learns_of_an_outage(void **state)
{
    int many = 3000;
    struct fake_script script = opens;
    fake_begin(script);
    struct fw_hub *hub = open_hub("plain:", 1 << 16, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    fake_begin(silent);
    fake_run(append_many, &many);
    fake_lost("connection-lost");
    next_gap(sub, "", "lapped");
    next_down(sub, "connection-lost");
    fake_expect("open");
    fake_opened();
    next_gap(sub, "", "connection-lost");
    next_step(sub, FW_UP, "");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void append_at(struct fw_host *host, void *arg)
{
    uint64_t pos = *(uint64_t *)arg;
    struct fw_source_event event = {
        .channel = "a", .channel_len = 1, .data = "x", .len = 1, .pos = { pos, 3 }
    };
    (void)fw_host_append(host, &event);
    (void)fw_host_flush(host);
}

static void durable_positions_are_told_and_resumed(void **state)
{
    struct fake_script script = works;
    char place[FW_POSITION_MAX + 1], second[FW_POSITION_MAX + 1];
    script.identity = 0x77;
    fake_begin(script);
    struct fw_hub *hub = open_hub("durable:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    for (uint64_t pos = 10; pos <= 40; pos += 10)
        fake_run(append_at, &pos);
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p77.a.3");
    (void)snprintf(second, sizeof(second), "%s", next_step(sub, FW_MESSAGE, "a")->id);
    assert_string_equal(second, "p77.14.3");
    assert_int_equal(fw_sub_position(sub, place, sizeof(place)), 0);
    assert_string_equal(place, second);
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", place, 0);
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p77.1e.3");
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p77.28.3");
    assert_string_equal(next_step(sub, FW_READY, "a")->id, "p77.28.3");
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", "p78.14.3", 0); /* of another stream */
    next_gap(sub, "a", "foreign-position");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_first_connection_there_is_no_down),
        cmocka_unit_test(a_failed_first_connection_is_down_once),
        cmocka_unit_test(an_outage_is_down_gap_up),
        cmocka_unit_test(a_durable_source_has_no_gap),
        cmocka_unit_test(who_comes_during_an_outage_is_told_first),
        cmocka_unit_test(a_resume_over_an_outage_is_told_its_gap),
        cmocka_unit_test(while_nobody_listens_is_a_gap),
        cmocka_unit_test(lingering_covers_a_short_absence),
        cmocka_unit_test(a_refused_channel_is_an_error_of_its_own),
        cmocka_unit_test(an_ended_stream_stays_readable),
        cmocka_unit_test(too_large_an_event_is_a_gap_of_its_channel),
        cmocka_unit_test(a_lapped_subscription_is_told_and_goes_on),
        cmocka_unit_test(a_lapped_subscription_still_learns_of_an_outage),
        cmocka_unit_test(durable_positions_are_told_and_resumed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
