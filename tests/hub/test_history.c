/* The history of a durable source: what it appends before it is opened, and how the log goes on
 * with the same stream or begins with another. */
#include "fake_source.h"
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define RETAIN (1 << 20)

struct stretch {
    uint64_t identity, floor, first, last;
    bool history, began;
    uint64_t pos[2];
};

static void append_range(struct fw_host *host, const struct stretch *stretch)
{
    for (uint64_t id = stretch->first; id <= stretch->last; id++) {
        char text[16];
        struct fw_source_event event = { .channel = "a",
                                         .channel_len = 1,
                                         .data = text,
                                         .len = (size_t)snprintf(text, sizeof(text), "%d", (int)id),
                                         .pos = { id, 0 },
                                         .history = stretch->history };
        assert_int_equal(fw_host_append(host, &event), 0);
    }
    (void)fw_host_flush(host);
}

/* As a source does it that finds out how far the log is. */
static void open_stretch(struct fw_host *host, void *arg)
{
    struct stretch *stretch = arg;
    stretch->began = !fw_host_continue(host, stretch->identity, stretch->pos);
    if (stretch->began)
        fw_host_begin(host, stretch->identity,
                      (uint64_t[2]){ stretch->floor, stretch->floor == 0 });
    stretch->history = stretch->began;
    if (stretch->began)
        append_range(host, stretch);
    fw_host_opened(host, "scripted", "what the test says", stretch->identity);
    if (!stretch->began) {
        stretch->first = stretch->pos[0] + 1;
        append_range(host, stretch);
    }
}

static void append_live(struct fw_host *host, void *arg)
{
    append_range(host, arg);
}

static struct fw_hub *open_durable(void)
{
    fake_begin((struct fake_script){ .ready = true });
    return open_hub("stored:", RETAIN, 0);
}

static void what_is_read_again_is_not_news(void **state)
{
    struct fw_hub *hub = open_durable();
    struct fw_sub *waiting = open_sub(hub, "a"); /* since now, before the source is there */
    struct fw_sub *oldest = open_sub_since(hub, "a", "oldest", 0);
    fake_run(open_stretch, &(struct stretch){ .identity = 7, .floor = 4, .first = 5, .last = 7 });
    assert_string_equal(next_step(waiting, FW_READY, "a")->id, "p7.7.0");
    nothing_next(waiting);
    next_message(oldest, "a", "5");
    next_message(oldest, "a", "6");
    next_message(oldest, "a", "7");
    next_step(oldest, FW_READY, "a");
    fake_run(append_live, &(struct stretch){ .first = 8, .last = 8 });
    next_message(waiting, "a", "8");
    next_message(oldest, "a", "8");
    fw_sub_close(waiting);
    fw_sub_close(oldest);
    fw_hub_close(hub);
}

static void positions_reach_down_to_the_floor(void **state)
{
    struct fw_hub *hub = open_durable();
    fake_run(open_stretch, &(struct stretch){ .identity = 7, .floor = 4, .first = 5, .last = 6 });
    struct fw_sub *sub = open_sub_since(hub, "a", "p7.4.0", 0);
    next_message(sub, "a", "5");
    next_message(sub, "a", "6");
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", "p7.3.0", 0);
    next_gap(sub, "a", "expired");
    fw_sub_close(sub);
    hub_core(hub)->ahead_ms = 0; /* nothing more will come */
    sub = open_sub_since(hub, "a", "p7.7.0", 0);
    next_gap(sub, "a", "foreign-position");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* Nothing was ever published, or all of it is gone: a position is still one. */
static void an_empty_stream_has_a_position(void **state)
{
    for (uint64_t floor = 0; floor < 10; floor += 9) {
        struct fw_hub *hub = open_durable();
        struct fw_sub *sub = open_sub(hub, "a");
        struct stretch empty = { .identity = 7, .floor = floor, .first = 1, .last = 0 };
        fake_run(open_stretch, &empty);
        char id[64];
        (void)snprintf(id, sizeof(id), "%s", next_step(sub, FW_READY, "a")->id);
        assert_string_equal(id, floor ? "p7.9.0" : "p7.0.1");
        fw_sub_close(sub);
        sub = open_sub_since(hub, "a", id, 0);
        next_step(sub, FW_READY, "a");
        fw_sub_close(sub);
        fw_hub_close(hub);
    }
}

static void the_same_stream_is_gone_on_with(void **state)
{
    struct fw_hub *hub = open_durable();
    struct fw_sub *sub = open_sub(hub, "a");
    struct stretch stretch = { .identity = 7, .first = 1, .last = 2 };
    fake_run(open_stretch, &stretch);
    assert_true(stretch.began);
    next_step(sub, FW_READY, "a");
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    stretch.last = 4;
    fake_run(open_stretch, &stretch);
    assert_false(stretch.began);
    next_step(sub, FW_UP, "");
    next_message(sub, "a", "3");
    next_message(sub, "a", "4");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void another_stream_is_a_gap(void **state)
{
    struct fw_hub *hub = open_durable();
    struct fw_sub *sub = open_sub(hub, "a");
    fake_run(open_stretch, &(struct stretch){ .identity = 7, .first = 1, .last = 2 });
    next_step(sub, FW_READY, "a");
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    struct stretch other = { .identity = 8, .first = 1, .last = 1 };
    fake_run(open_stretch, &other);
    assert_true(other.began);
    next_gap(sub, "", "new-epoch");
    next_step(sub, FW_UP, "");
    fake_run(append_live, &(struct stretch){ .first = 2, .last = 2 });
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p8.2.0");
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", "p8.1.0", 0); /* of the new one, from before it was opened */
    next_message(sub, "a", "2");
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", "p7.1.0", 0);
    next_gap(sub, "a", "foreign-position");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void lose_events(struct fw_host *host, void *arg)
{
    fw_host_gap(host, "expired", (uint64_t[2]){ 5, 0 }, *(const bool *)arg);
    (void)fw_host_flush(host);
}

static void what_cannot_be_read_is_a_gap(void **state)
{
    bool history = false;
    struct fw_hub *hub = open_durable();
    struct fw_sub *sub = open_sub(hub, "a");
    fake_run(open_stretch, &(struct stretch){ .identity = 7, .first = 1, .last = 2 });
    next_step(sub, FW_READY, "a");
    fake_run(lose_events, &history);
    next_gap(sub, "", "expired");
    fake_run(append_live, &(struct stretch){ .first = 6, .last = 6 });
    next_message(sub, "a", "6");
    fw_sub_close(sub);
    sub = open_sub_since(hub, "a", "p7.5.0", 0); /* has been told */
    next_message(sub, "a", "6");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void open_with_hole(struct fw_host *host, void *arg)
{
    bool history = true;
    fw_host_begin(host, 7, (uint64_t[2]){ 0, 1 });
    append_range(host, &(struct stretch){ .first = 1, .last = 2, .history = true });
    lose_events(host, &history);
    append_range(host, &(struct stretch){ .first = 6, .last = 6, .history = true });
    fw_host_opened(host, "scripted", "what the test says", 7);
}

static void a_hole_in_the_history_concerns_resumes(void **state)
{
    struct fw_hub *hub = open_durable();
    struct fw_sub *now = open_sub(hub, "a");
    fake_run(open_with_hole, NULL);
    next_step(now, FW_READY, "a");
    nothing_next(now);
    fw_sub_close(now);
    struct fw_sub *sub = open_sub_since(hub, "a", "p7.1.0", 0);
    next_message(sub, "a", "2");
    next_gap(sub, "a", "expired");
    next_message(sub, "a", "6");
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read_again_is_not_news),
        cmocka_unit_test(positions_reach_down_to_the_floor),
        cmocka_unit_test(an_empty_stream_has_a_position),
        cmocka_unit_test(the_same_stream_is_gone_on_with),
        cmocka_unit_test(another_stream_is_a_gap),
        cmocka_unit_test(what_cannot_be_read_is_a_gap),
        cmocka_unit_test(a_hole_in_the_history_concerns_resumes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
