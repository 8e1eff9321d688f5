/* The library on memory:, as an application uses it. */
#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define RETAIN (1u << 20)

static void what_is_published_is_read(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_error err;
    char id[FW_POSITION_MAX + 1] = "x", ready_id[FW_POSITION_MAX + 1];
    (void)snprintf(ready_id, sizeof(ready_id), "%s", next_step(sub, FW_READY, "a")->id);
    assert_int_equal(fw_hub_publish(hub, "a", "one\0two", 7, -1, id, &err), 0);
    publish(hub, "other", "x");
    publish(hub, "a", "");
    struct fw_event *ev = next_step(sub, FW_MESSAGE, "a");
    assert_int_equal(ev->len, 7);
    assert_memory_equal(ev->data, "one\0two", 8); /* and a NUL after it */
    assert_string_equal(ev->id, id);
    assert_string_not_equal(ev->id, ready_id);
    assert_string_equal(ev->from, "");
    assert_string_equal(ev->reason, "");
    assert_true(ev->time_ms > 1577836800000);
    next_message(sub, "a", "");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* Between opening and the source's answer nothing may be lost. */
static void what_is_published_before_ready_is_read(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    for (int i = 0; i < 50; i++) {
        struct fw_sub *sub = open_sub(hub, "a");
        publish(hub, "a", "x");
        bool message = false, ready = false;
        while (!message || !ready) {
            struct fw_event ev;
            int kind = fw_sub_next(sub, &ev, PATIENCE_MS);
            assert_true(kind == FW_MESSAGE || kind == FW_READY);
            assert_false(kind == FW_MESSAGE && message);
            message |= kind == FW_MESSAGE;
            ready |= kind == FW_READY;
        }
        fw_sub_close(sub);
    }
    fw_hub_close(hub);
}

static void large_and_many_events_are_read(void **state)
{
    struct fw_hub *hub = open_hub("memory:", 32u << 20, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    size_t sizes[] = { 0, 1, 7, 8, 4095, 4096, 32700, 32768, 65536, 300000, 1 << 20 };
    char *data = malloc(1 << 20);
    struct fw_error err;
    for (size_t i = 0; i < 1 << 20; i++)
        data[i] = (char)(i * 31 >> 3);
    next_step(sub, FW_READY, "a");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        assert_int_equal(fw_hub_publish(hub, "a", data, sizes[i], PATIENCE_MS, NULL, &err), 0);
        struct fw_event *ev = next_step(sub, FW_MESSAGE, "a");
        assert_int_equal(ev->len, sizes[i]);
        assert_memory_equal(ev->data, data, sizes[i]);
        assert_int_equal(((const char *)ev->data)[ev->len], '\0');
    }
    free(data);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void publishes_are_checked(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_error err = { 0 };
    char *big = calloc(1, (1 << 20) + 1), name[300];
    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    static const char *const bad[] = { "", "a\nb", "\x7f", "\xff", "$fanwire/x" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(fw_hub_publish(hub, bad[i], "x", 1, -1, NULL, &err), -EINVAL);
    assert_int_equal(fw_hub_publish(hub, NULL, "x", 1, -1, NULL, &err), -EINVAL);
    assert_int_equal(fw_hub_publish(hub, name, "x", 1, -1, NULL, &err), -EINVAL);
    assert_int_equal(err.code, -EINVAL);
    assert_true(strlen(err.message) > 10);
    name[255] = '\0';
    assert_int_equal(fw_hub_publish(hub, name, "x", 1, -1, NULL, &err), 0);
    assert_int_equal(fw_hub_publish(hub, "a", big, (1 << 20) + 1, -1, NULL, &err), -EMSGSIZE);
    /* more than 1/16 of this log: refused here, not turned into a gap */
    assert_int_equal(fw_hub_publish(hub, "a", big, RETAIN / 16, -1, NULL, &err), -EMSGSIZE);
    assert_non_null(strstr(err.message, "too-large"));
    free(big);
    fw_hub_close(hub);
}

static void urls_are_checked(void **state)
{
    struct fw_hub *hub;
    struct fw_error err = { 0 };
    static const char *const bad[] = { "",          "memory",      "x",
                                       ":",         "nosuch:",     "nosuch://u:secret@h/d",
                                       "memory:x",  "memory:?a=b", "stdin:a?b=c",
                                       "stdin:%zz", "stdin:%ff",   "stdin:a%0a",
                                       "+:",        "memory+:x" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        err.message[0] = '\0';
        assert_int_equal(fw_hub_open(bad[i], NULL, &hub, &err), -EINVAL);
        assert_true(strlen(err.message) > 10);
        assert_null(strstr(err.message, "secret"));
        assert_int_equal(engine_check_url(bad[i], &err), -EINVAL);
    }
    assert_int_equal(fw_hub_open("nosuch:", NULL, &hub, &err), -EINVAL);
    assert_non_null(strstr(err.message, "memory"));
    assert_non_null(strstr(err.message, "postgres"));
    assert_int_equal(engine_check_url("memory:", &err), 0);
    assert_int_equal(engine_check_url("MEMORY:", &err), 0);
    assert_int_equal(engine_check_url("stdin:a%3Fb", &err), 0);
    struct fw_hub_options options = { .size = sizeof(options), .retain = SIZE_MAX };
    assert_int_equal(fw_hub_open("memory:", &options, &hub, &err), -EINVAL);
}

static void subscriptions_are_checked(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, NULL), *other;
    struct fw_error err;
    struct fw_sub_options o = { .size = sizeof(o) };
    assert_int_equal(fw_sub_open(hub, "", NULL, &other, &err), -EINVAL);
    assert_int_equal(fw_sub_open(hub, "a\tb", NULL, &other, &err), -EINVAL);
    assert_int_equal(fw_sub_add(sub, NULL, NULL, &err), -EINVAL);
    o.since = "not a position";
    assert_int_equal(fw_sub_add(sub, "a", &o, &err), -EINVAL);
    o.since = "now";
    o.last = 1;
    assert_int_equal(fw_sub_add(sub, "a", &o, &err), -EINVAL);
    o.since = NULL;
    o.last = 1001;
    assert_int_equal(fw_sub_add(sub, "a", &o, &err), -EINVAL);
    assert_int_equal(fw_sub_remove(sub, "a"), -ENOENT);
    assert_int_equal(fw_sub_add(sub, "a", NULL, &err), 0);
    assert_int_equal(fw_sub_add(sub, "a", NULL, &err), -EEXIST);
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_sub_close(NULL);
    fw_hub_close(NULL);
    fw_hub_close(hub);
}

/* An application built against an older header passes a shorter struct. */
static void shorter_options_are_understood(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub_options o = { .size = offsetof(struct fw_sub_options, last), .last = 77777 };
    struct fw_sub *sub;
    struct fw_error err;
    assert_int_equal(fw_sub_open(hub, "a", &o, &sub, &err), 0);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void waiting_ends_in_time(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_event ev;
    struct timespec before, after;
    next_step(sub, FW_READY, "a");
    clock_gettime(CLOCK_MONOTONIC, &before);
    assert_int_equal(fw_sub_next(sub, &ev, 30), 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    int64_t ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    assert_in_range(ms, 29, PATIENCE_MS);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void channels_are_told_apart(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_error err;
    next_step(sub, FW_READY, "a");
    assert_int_equal(fw_sub_add(sub, "b", NULL, &err), 0);
    next_step(sub, FW_READY, "b");
    publish(hub, "a", "1");
    publish(hub, "c", "2");
    publish(hub, "b", "3");
    publish(hub, "a", "4");
    next_message(sub, "a", "1");
    next_message(sub, "b", "3");
    assert_int_equal(fw_sub_remove(sub, "a"), 0);
    publish(hub, "a", "5");
    publish(hub, "b", "6");
    next_message(sub, "b", "6");
    nothing_next(sub);
    assert_int_equal(fw_sub_remove(sub, "b"), 0);
    publish(hub, "b", "7");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void many_channels_become_ready(void **state)
{
    enum { N = 5000 };
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, NULL);
    struct fw_error err;
    char name[32];
    for (int i = 0; i < N; i++) {
        (void)snprintf(name, sizeof(name), "c%d", i);
        assert_int_equal(fw_sub_add(sub, name, NULL, &err), 0);
    }
    for (int i = 0; i < N; i++) {
        (void)snprintf(name, sizeof(name), "c%d", i);
        next_step(sub, FW_READY, name);
    }
    publish(hub, "c4999", "x");
    publish(hub, "c0", "y");
    next_message(sub, "c4999", "x");
    next_message(sub, "c0", "y");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    return poll(&p, 1, timeout_ms) == 1;
}

/* Reads until there is nothing; the descriptor is readable before every step. */
static int drain(struct fw_sub *sub, int fd, int kind)
{
    struct fw_event ev;
    int r, n = 0;
    for (;;) {
        assert_true(readable(fd, 0));
        r = fw_sub_next(sub, &ev, 0);
        assert_true(r >= 0);
        if (r == 0)
            return n;
        n += r == kind;
    }
}

static void the_descriptor_is_readable_until_dry(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    int fd = fw_sub_fd(sub);
    assert_true(fd >= 0);
    assert_int_equal(fw_sub_fd(sub), fd);
    int ready = 0;
    while (!ready) {
        assert_true(readable(fd, PATIENCE_MS));
        ready += drain(sub, fd, FW_READY);
    }
    for (int round = 0; round < 20; round++) {
        assert_false(readable(fd, 0));
        for (int i = 0; i <= round; i++)
            publish(hub, "a", "x");
        assert_true(readable(fd, PATIENCE_MS));
        assert_int_equal(drain(sub, fd, FW_MESSAGE), round + 1);
    }
    publish(hub, "other", "x"); /* wakes, for nothing */
    assert_true(readable(fd, PATIENCE_MS));
    nothing_next(sub);
    assert_false(readable(fd, 0));
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_late_descriptor_shows_what_waits_already(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    publish(hub, "a", "x");
    int fd = fw_sub_fd(sub);
    assert_true(readable(fd, PATIENCE_MS));
    next_message(sub, "a", "x");
    nothing_next(sub);
    assert_false(readable(fd, 0));
    publish(hub, "a", "y");
    next_message(sub, "a", "y"); /* blocking calls go on working */
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_cancelled_subscription_stays_cancelled(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_event ev;
    int fd = fw_sub_fd(sub);
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_cancel(sub);
    assert_true(readable(fd, PATIENCE_MS));
    for (int i = 0; i < 3; i++)
        assert_int_equal(fw_sub_next(sub, &ev, -1), -ECANCELED);
    assert_true(strlen(fw_sub_error(sub)) > 5);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void events_can_be_kept(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_event *copy, *gap;
    next_step(sub, FW_READY, "a");
    publish(hub, "a", "first");
    assert_int_equal(fw_event_copy(next_step(sub, FW_MESSAGE, "a"), &copy), 0);
    publish(hub, "a", "second, longer than the first");
    next_message(sub, "a", "second, longer than the first");
    assert_string_equal(copy->data, "first");
    assert_string_equal(copy->channel, "a");
    assert_true(strlen(copy->id) > 3);
    assert_string_equal(copy->after, "");
    struct fw_event unknown = { .kind = FW_GAP,
                                .channel = "",
                                .data = "",
                                .id = "",
                                .before = "b",
                                .reason = "lapped",
                                .from = "" };
    assert_int_equal(fw_event_copy(&unknown, &gap), 0);
    assert_null(gap->after);
    assert_string_equal(gap->before, "b");
    fw_event_free(copy);
    fw_event_free(gap);
    fw_event_free(NULL);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_closed_hub_ends_its_subscriptions(void **state)
{
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_event ev;
    next_step(sub, FW_READY, "a");
    publish(hub, "a", "last");
    fw_hub_close(hub);
    next_message(sub, "a", "last"); /* what is in the log is still returned */
    next_down(sub, "restart");
    assert_int_equal(fw_sub_next(sub, &ev, -1), -EPIPE);
    fw_sub_close(sub);
}

static void the_version_is_told(void **state)
{
    assert_true(fw_version()[0] >= '0' && fw_version()[0] <= '9');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_published_is_read),
        cmocka_unit_test(what_is_published_before_ready_is_read),
        cmocka_unit_test(large_and_many_events_are_read),
        cmocka_unit_test(publishes_are_checked),
        cmocka_unit_test(urls_are_checked),
        cmocka_unit_test(subscriptions_are_checked),
        cmocka_unit_test(shorter_options_are_understood),
        cmocka_unit_test(waiting_ends_in_time),
        cmocka_unit_test(channels_are_told_apart),
        cmocka_unit_test(many_channels_become_ready),
        cmocka_unit_test(the_descriptor_is_readable_until_dry),
        cmocka_unit_test(a_late_descriptor_shows_what_waits_already),
        cmocka_unit_test(a_cancelled_subscription_stays_cancelled),
        cmocka_unit_test(events_can_be_kept),
        cmocka_unit_test(a_closed_hub_ends_its_subscriptions),
        cmocka_unit_test(the_version_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
