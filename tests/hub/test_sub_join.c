/* How a channel joins a subscription: from a position, with the last N, in the middle of things. */
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

static void publish_range(struct fw_hub *hub, const char *channel, int from, int to)
{
    char text[16];
    for (int i = from; i <= to; i++) {
        (void)snprintf(text, sizeof(text), "%d", i);
        publish(hub, channel, text);
    }
}

static void next_range(struct fw_sub *sub, const char *channel, int from, int to)
{
    char text[16];
    for (int i = from; i <= to; i++) {
        (void)snprintf(text, sizeof(text), "%d", i);
        next_message(sub, channel, text);
    }
}

static void a_position_goes_on_right_after_it(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    char ids[11][FW_POSITION_MAX + 1];
    next_step(sub, FW_READY, "a");
    publish_range(hub, "a", 1, 10);
    for (int i = 1; i <= 10; i++)
        (void)snprintf(ids[i], sizeof(ids[i]), "%s", next_step(sub, FW_MESSAGE, "a")->id);
    fw_sub_close(sub);
    for (int i = 1; i <= 10; i++) {
        sub = open_sub_since(hub, "a", ids[i], 0);
        next_range(sub, "a", i + 1, 10);
        next_step(sub, FW_READY, "a");
        nothing_next(sub);
        fw_sub_close(sub);
    }
    fw_hub_close(hub);
}

static void oldest_and_last_replay(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    publish_range(hub, "a", 1, 10);
    publish_range(hub, "b", 1, 10);
    struct fw_sub *sub = open_sub_since(hub, "a", "oldest", 0);
    next_range(sub, "a", 1, 10);
    next_step(sub, FW_READY, "a");
    publish_range(hub, "a", 11, 11);
    next_range(sub, "a", 11, 11);
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", NULL, 3);
    next_range(sub, "a", 9, 11);
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", NULL, 1000);
    next_range(sub, "a", 1, 11);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    sub = open_sub_since(hub, "quiet", NULL, 5);
    next_step(sub, FW_READY, "quiet");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* More than the links are followed for: the replay sweeps. */
static void long_replays_are_whole(void **state)
{
    enum { N = 3000 };
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    char id[FW_POSITION_MAX + 1];
    struct fw_error err;
    assert_int_equal(fw_hub_publish(hub, "a", "0", 1, -1, id, &err), 0);
    for (int i = 1; i <= N; i++) {
        publish_range(hub, "a", i, i);
        publish(hub, "b", "x");
    }
    struct fw_sub *sub = open_sub_since(hub, "a", id, 0);
    next_range(sub, "a", 1, N);
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_channel_joins_a_running_subscription(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_error err;
    struct fw_sub_options oldest = { .size = sizeof(oldest), .since = "oldest" };
    publish_range(hub, "b", 1, 5);
    next_step(sub, FW_READY, "a");
    publish_range(hub, "a", 1, 2);
    publish_range(hub, "b", 6, 8);
    next_range(sub, "a", 1, 1); /* the cursor stands before a's 2 */
    assert_int_equal(fw_sub_add(sub, "b", &oldest, &err), 0);
    struct fw_event ev;
    int next_a = 2, next_b = 1, kind;
    bool ready = false;
    char text[16];
    while (next_a < 3 || next_b < 9 || !ready) {
        kind = fw_sub_next(sub, &ev, PATIENCE_MS);
        if (kind == FW_READY) {
            assert_string_equal(ev.channel, "b");
            ready = true;
            continue;
        }
        assert_int_equal(kind, FW_MESSAGE);
        (void)snprintf(text, sizeof(text), "%d", *ev.channel == 'a' ? next_a++ : next_b++);
        assert_string_equal(ev.data, text); /* each channel in order, nothing twice */
    }
    publish_range(hub, "b", 9, 9);
    next_range(sub, "b", 9, 9);
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* A subscription that lags adds a channel at a place that another has already read to. */
static void a_position_ahead_of_the_cursor_repeats_nothing(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *slow = open_sub(hub, "x"), *fast = open_sub(hub, "b");
    struct fw_error err;
    next_step(slow, FW_READY, "x");
    next_step(fast, FW_READY, "b");
    publish_range(hub, "x", 1, 3);
    publish_range(hub, "b", 1, 3);
    next_range(fast, "b", 1, 2);
    char place[FW_POSITION_MAX + 1];
    assert_int_equal(fw_sub_position(fast, place, sizeof(place)), 0);
    struct fw_sub_options since = { .size = sizeof(since), .since = place };
    assert_int_equal(fw_sub_add(slow, "b", &since, &err), 0);
    bool ready = false, third = false;
    int x = 0;
    struct fw_event ev;
    while (!ready || !third || x < 3) {
        int kind = fw_sub_next(slow, &ev, PATIENCE_MS);
        ready |= kind == FW_READY;
        if (kind == FW_MESSAGE && *ev.channel == 'b') {
            assert_string_equal(ev.data, "3");
            assert_false(third);
            third = true;
        } else {
            assert_true(kind == FW_READY || kind == FW_MESSAGE);
            x += kind == FW_MESSAGE;
        }
    }
    nothing_next(slow);
    fw_sub_close(slow);
    fw_sub_close(fast);
    fw_hub_close(hub);
}

static void positions_of_strangers_are_gaps(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    publish_range(hub, "a", 1, 2);
    static const struct {
        const char *since, *after, *reason;
    } cases[] = { { "p1.2.3", "p1.2.3", "foreign-position" },
                  { "1526985058136-0", NULL, "foreign-position" }, /* of no make that we know */
                  { "l1.100000", "l1.100000", "new-epoch" } };
    for (size_t i = 0; i < 3; i++) {
        struct fw_sub *sub = open_sub_since(hub, "a", cases[i].since, 0);
        struct fw_event *gap = next_step(sub, FW_GAP, "a");
        assert_string_equal(gap->reason, cases[i].reason);
        if (cases[i].after)
            assert_string_equal(gap->after, cases[i].after);
        else
            assert_null(gap->after);
        assert_true(strlen(gap->before) > 3);
        next_range(sub, "a", 1, 2); /* goes on at the oldest that is held */
        next_step(sub, FW_READY, "a");
        fw_sub_close(sub);
    }
    fw_hub_close(hub);
}

static void a_position_from_the_future_is_a_gap(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    char id[FW_POSITION_MAX + 1], future[FW_POSITION_MAX + 10];
    struct fw_error err;
    assert_int_equal(fw_hub_publish(hub, "a", "1", 1, -1, id, &err), 0);
    (void)snprintf(future, sizeof(future), "%s0", id); /* sixteen times further on */
    struct fw_sub *sub = open_sub_since(hub, "a", future, 0);
    next_gap(sub, "a", "foreign-position");
    next_range(sub, "a", 1, 1);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void what_was_overwritten_is_a_gap(void **state)
{
    struct fw_hub *hub = open_hub("memory:", 1 << 16, 0);
    char id[FW_POSITION_MAX + 1], *big = calloc(1, 3000);
    struct fw_error err;
    assert_int_equal(fw_hub_publish(hub, "a", "1", 1, -1, id, &err), 0);
    assert_int_equal(fw_hub_publish(hub, "quiet", "1", 1, -1, NULL, &err), 0);
    char after_quiet[FW_POSITION_MAX + 1];
    assert_int_equal(fw_hub_publish(hub, "x", "1", 1, -1, after_quiet, &err), 0);
    for (int i = 0; i < 60; i++)
        assert_int_equal(fw_hub_publish(hub, "a", big, 3000, -1, NULL, &err), 0);
    struct fw_sub *sub = open_sub_since(hub, "a", id, 0);
    struct fw_event *gap = next_step(sub, FW_GAP, "a");
    assert_string_equal(gap->reason, "expired");
    assert_string_equal(gap->after, id);
    fw_sub_close(sub);
    sub = open_sub_since(hub, "quiet", after_quiet, 0);
    next_step(sub, FW_READY, "quiet"); /* nothing of it was published since: it is whole */
    free(big);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void positions_resume_a_subscription(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    char place[FW_POSITION_MAX + 1], small[4];
    assert_int_equal(fw_sub_position(sub, place, sizeof(place)), 0);
    publish_range(hub, "a", 1, 6);
    fw_sub_close(sub);
    for (int i = 1; i <= 6; i += 2) {
        sub = open_sub_since(hub, "a", place, 0);
        assert_int_equal(fw_sub_position(sub, place, sizeof(place)), -EAGAIN); /* not known yet */
        next_range(sub, "a", i, i + 1);
        assert_int_equal(fw_sub_position(sub, small, sizeof(small)), -EINVAL);
        assert_int_equal(fw_sub_position(sub, place, sizeof(place)), 0);
        fw_sub_close(sub);
    }
    sub = open_sub_since(hub, "a", place, 0);
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_removed_channel_ends_its_replay(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_error err;
    struct fw_sub_options oldest = { .size = sizeof(oldest), .since = "oldest" };
    publish_range(hub, "a", 1, 9);
    struct fw_sub *sub = open_sub_since(hub, "a", "oldest", 0);
    next_range(sub, "a", 1, 3);
    assert_int_equal(fw_sub_remove(sub, "a"), 0);
    nothing_next(sub);
    assert_int_equal(fw_sub_add(sub, "a", &oldest, &err), 0);
    next_range(sub, "a", 1, 9);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* ---- against a plain model ---- */

/* Whatever is added and removed at whatever place: each channel's numbers come without a hole from
 * where it was asked to begin. */
static void joins_at_random_miss_nothing(void **state)
{
    enum { CHANNELS = 4, STEPS = 3000 };
    struct fw_hub *hub = open_hub("memory:", 8u << 20, 0);
    struct fw_sub *sub = open_sub(hub, NULL);
    struct fw_error err;
    int published[CHANNELS] = { 0 }, expected[CHANNELS];
    bool has[CHANNELS] = { false };
    unsigned seed = 12345;
    char name[2] = "a", text[16];
    for (int step = 0; step < STEPS; step++) {
        int c = (int)(rand_r(&seed) % CHANNELS), what = rand_r(&seed) % 16;
        name[0] = (char)('a' + c);
        if (what < 8) {
            (void)snprintf(text, sizeof(text), "%d", published[c]++);
            publish(hub, name, text);
        } else if (what < 9 && has[c]) {
            assert_int_equal(fw_sub_remove(sub, name), 0);
            has[c] = false;
        } else if (what < 10 && !has[c]) {
            unsigned last = rand_r(&seed) % 4;
            struct fw_sub_options o = { .size = sizeof(o), .last = last };
            if (last == 3)
                o = (struct fw_sub_options){ .size = sizeof(o), .since = "oldest" };
            assert_int_equal(fw_sub_add(sub, name, &o, &err), 0);
            has[c] = true;
            expected[c] = last == 3 ? 0 : -1; /* -1: with its first event it tells where */
        } else {
            struct fw_event ev;
            int kind = fw_sub_next(sub, &ev, 0);
            assert_true(kind >= 0 && kind <= FW_READY);
            if (kind != FW_MESSAGE)
                continue;
            int from = ev.channel[0] - 'a', n = atoi(ev.data);
            assert_true(has[from]);
            if (expected[from] >= 0)
                assert_int_equal(n, expected[from]);
            expected[from] = n + 1;
        }
    }
    for (struct fw_event ev; fw_sub_next(sub, &ev, 50) > 0;)
        if (ev.kind == FW_MESSAGE) {
            int from = ev.channel[0] - 'a', n = atoi(ev.data);
            if (expected[from] >= 0)
                assert_int_equal(n, expected[from]);
            expected[from] = n + 1;
        }
    for (int c = 0; c < CHANNELS; c++)
        if (has[c] && expected[c] >= 0)
            assert_int_equal(expected[c], published[c]);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_position_goes_on_right_after_it),
        cmocka_unit_test(oldest_and_last_replay),
        cmocka_unit_test(long_replays_are_whole),
        cmocka_unit_test(a_channel_joins_a_running_subscription),
        cmocka_unit_test(a_position_ahead_of_the_cursor_repeats_nothing),
        cmocka_unit_test(positions_of_strangers_are_gaps),
        cmocka_unit_test(a_position_from_the_future_is_a_gap),
        cmocka_unit_test(what_was_overwritten_is_a_gap),
        cmocka_unit_test(positions_resume_a_subscription),
        cmocka_unit_test(a_removed_channel_ends_its_replay),
        cmocka_unit_test(joins_at_random_miss_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
