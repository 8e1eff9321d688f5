/* A subscription that comes with a position which the log has not come to: of a hub that reads the
 * same database more quickly, or of a stream that was lost. */
#include "fake_source.h"
#include "rig.h"
#include "sub.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define RETAIN (4u << 20)

static struct fw_hub *open_stored(int ahead_ms)
{
    fake_begin((struct fake_script){ .identity = 7 });
    struct fw_hub *hub = open_hub("stored:", RETAIN, 0);
    hub_core(hub)->ahead_ms = ahead_ms;
    fake_expect("open");
    fake_open_stored();
    fake_store("a", "1", 1, 50);
    fake_store("a", "2", 2, 50);
    return hub;
}

/* Until it has its answer: another channel's comes after it. */
static struct fw_sub *open_ahead(struct fw_hub *hub, const char *since)
{
    struct fw_error err;
    struct fw_sub *sub = open_sub_since(hub, "a", since, 0);
    assert_int_equal(fw_sub_add(sub, "x", NULL, &err), 0);
    next_step(sub, FW_READY, "x");
    return sub;
}

static void it_waits_until_the_log_is_there(void **state)
{
    struct fw_hub *hub = open_stored(10 * PATIENCE_MS);
    struct fw_sub *sub = open_ahead(hub, "p7.4.0");
    char place[FW_POSITION_MAX + 1];
    nothing_next(sub);
    assert_int_equal(fw_sub_position(sub, place, sizeof(place)), -EAGAIN);
    fake_store("a", "3", 3, 50);
    nothing_next(sub); /* had from the other */
    fake_store("x", "4", 4, 50);
    next_message(sub, "x", "4");
    next_step(sub, FW_READY, "a");
    fake_store("a", "5", 5, 50);
    next_message(sub, "a", "5");
    nothing_next(sub);
    assert_int_equal(fw_sub_position(sub, place, sizeof(place)), 0);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* Also where the log jumps over it while the subscription looks elsewhere. */
static void what_came_after_it_is_returned(void **state)
{
    struct fw_hub *hub = open_stored(10 * PATIENCE_MS);
    struct fw_sub *sub = open_ahead(hub, "p7.4.0");
    for (uint64_t at = 3; at <= 5; at++)
        fake_store("a", at == 5 ? "5" : "had", at, 50);
    next_message(sub, "a", "5");
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* The log has come to it and beyond while the subscription has not: until it is there, no place is
 * named that would repeat what it had. */
static void it_is_not_sent_back_to_before_it(void **state)
{
    enum { HAD = 4500, X = 4300, END = 4520 };
    struct fw_hub *hub = open_stored(10 * PATIENCE_MS);
    struct fw_sub *sub = open_ahead(hub, "p7.1194.0"); /* HAD */
    char place[FW_POSITION_MAX + 1];
    nothing_next(sub);
    for (uint64_t at = 3; at <= END; at++)
        fake_store(at == X ? "x" : "a", at > HAD ? "new" : "had", at, 50);
    next_message(sub, "x", "had"); /* on the way */
    assert_int_equal(fw_sub_position(sub, place, sizeof(place)), -EAGAIN);
    assert_string_equal(next_step(sub, FW_READY, "a")->id, "p7.1194.0");
    assert_int_equal(fw_sub_position(sub, place, sizeof(place)), 0);
    assert_string_equal(place, "p7.1194.0");
    for (uint64_t at = HAD + 1; at <= END; at++)
        next_message(sub, "a", "new");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void expect_all_held(struct fw_sub *sub)
{
    next_gap(sub, "a", "foreign-position");
    next_message(sub, "a", "1");
    next_message(sub, "a", "2");
    next_step(sub, FW_READY, "a");
}

/* Nothing comes that would wake it. */
static void one_that_never_comes_is_a_gap(void **state)
{
    struct fw_hub *hub = open_stored(20);
    struct fw_sub *sub = open_sub_since(hub, "a", "p7.9.0", 0);
    expect_all_held(sub);
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void the_descriptor_shows_that_the_time_is_over(void **state)
{
    struct fw_hub *hub = open_stored(20);
    struct fw_sub *sub = open_sub(hub, "x");
    struct pollfd p = { .fd = fw_sub_fd(sub), .events = POLLIN };
    struct fw_sub_options ahead = { .size = sizeof(ahead), .since = "p7.9.0" };
    struct fw_error err;
    struct fw_event ev;
    next_step(sub, FW_READY, "x");
    assert_int_equal(fw_sub_add(sub, "a", &ahead, &err), 0);
    for (int kind; (kind = fw_sub_next(sub, &ev, 0)) != FW_GAP;) {
        assert_int_equal(kind, 0);
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    }
    assert_string_equal(ev.reason, "foreign-position");
    next_message(sub, "a", "1");
    next_message(sub, "a", "2");
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    assert_int_equal(poll(&p, 1, 0), 0); /* no longer */
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void while_the_source_is_down_the_time_does_not_run(void **state)
{
    struct fw_hub *hub = open_stored(10 * PATIENCE_MS);
    struct fw_sub *sub = open_ahead(hub, "p7.3.0");
    struct fw_event ev;
    nothing_next(sub);
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    list_entry(sub->ahead.next, struct sub_channel, queue)->until_ms = 1; /* long ago */
    assert_int_equal(fw_sub_next(sub, &ev, 20), 0);
    assert_int_equal(replay_deadline_ms(sub), -1);
    fake_expect("open");
    fake_open_stored();
    next_step(sub, FW_UP, "");
    nothing_next(sub); /* it began anew */
    fake_store("a", "3", 3, 50);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void who_waits_may_leave(void **state)
{
    struct fw_hub *hub = open_stored(10 * PATIENCE_MS);
    struct fw_sub *sub = open_ahead(hub, "p7.9.0");
    struct fw_error err;
    nothing_next(sub);
    assert_int_equal(fw_sub_remove(sub, "a"), 0);
    assert_int_equal(fw_sub_add(sub, "a", NULL, &err), 0);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    sub = open_ahead(hub, "p7.9.0");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void of_another_stream_it_is_a_gap_at_once(void **state)
{
    struct fw_hub *hub = open_stored(10 * PATIENCE_MS);
    struct fw_sub *sub = open_sub_since(hub, "a", "p8.9.0", 0);
    expect_all_held(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_waits_until_the_log_is_there),
        cmocka_unit_test(what_came_after_it_is_returned),
        cmocka_unit_test(it_is_not_sent_back_to_before_it),
        cmocka_unit_test(one_that_never_comes_is_a_gap),
        cmocka_unit_test(the_descriptor_shows_that_the_time_is_over),
        cmocka_unit_test(while_the_source_is_down_the_time_does_not_run),
        cmocka_unit_test(who_waits_may_leave),
        cmocka_unit_test(of_another_stream_it_is_a_gap_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
