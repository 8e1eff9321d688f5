/* Traits that a source knows only once it is connected, and that change with its next connection.
 */
#include "fake_source.h"
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SIZE   (1u << 20)
#define STORED (FW_SOURCE_DURABLE | FW_SOURCE_ORDERED)

static const uint64_t start[2] = { 0, 1 };

/* Connects and finds out that it is durable and hears everything. */
static void open_stored(struct fw_host *host, void *arg)
{
    uint64_t pos[2];
    fw_host_traits(host, STORED);
    if (!fw_host_continue(host, 7, pos))
        fw_host_begin(host, 7, start);
    fw_host_opened(host, "stored", "what the test says", 7);
}

/* Connects and finds out that it forgets, and must be told channels. */
static void open_on_demand(struct fw_host *host, void *arg)
{
    fw_host_traits(host, FW_SOURCE_ON_DEMAND);
    fw_host_opened(host, "demand", "what the test says", 0);
}

static void append_at(struct fw_host *host, void *arg)
{
    uint64_t at = *(const uint64_t *)arg;
    struct fw_source_event event = {
        .channel = "a", .channel_len = 1, .data = "x", .len = 1, .pos = { at, 0 }
    };
    assert_int_equal(fw_host_append(host, &event), 0);
    (void)fw_host_flush(host);
}

static struct fw_hub *open_silent(const char *url)
{
    fake_begin((struct fake_script){ .ready = true });
    struct fw_hub *hub = open_hub(url, SIZE, 0);
    fake_expect("open");
    return hub;
}

static void who_came_before_hears_of_a_source_that_hears_all(void **state)
{
    struct rig rig;
    struct probe probe;
    fake_begin((struct fake_script){ 0 });
    rig_start(&rig, "demand:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_subscribe(&probe, "a");
    fake_expect("open");
    fake_expect_nothing();
    fake_run(open_stored, NULL);
    probe_expect(&probe, "source demand stored durable");
    probe_expect(&probe, "ready a");
    fake_expect_nothing(); /* subscribe() was not called */
    probe_unsubscribe(&probe, "a");
    probe_leave(&probe);
    fake_expect_nothing();
    rig_stop(&rig);
}

static void who_came_before_is_asked_for_of_a_source_on_demand(void **state)
{
    struct rig rig;
    struct probe probe;
    fake_begin((struct fake_script){ 0 });
    rig_start(&rig, "stored:", SIZE, 0);
    probe_join(&probe, &rig);
    probe_subscribe(&probe, "a");
    fake_expect("open");
    fake_run(open_on_demand, NULL);
    probe_expect(&probe, "source stored demand");
    fake_expect("subscribe a");
    probe_look(&probe);
    assert_int_equal(probe.n_answers, 0);
    fake_ready("a");
    probe_expect(&probe, "ready a");
    probe_leave(&probe);
    rig_stop(&rig);
}

/* Only the first stream of a log begins without a gap. */
static void a_loss_of_a_source_that_became_durable_is_no_gap(void **state)
{
    struct fw_hub *hub = open_silent("demand:");
    struct fw_sub *sub = open_sub(hub, "a");
    fake_run(open_stored, NULL);
    assert_string_equal(next_step(sub, FW_READY, "a")->id, "p7.0.1");
    fake_run(append_at, &(uint64_t){ 1 });
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p7.1.0");
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    fake_expect("open");
    fake_run(open_stored, NULL);
    next_step(sub, FW_UP, NULL);
    fake_run(append_at, &(uint64_t){ 2 });
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p7.2.0");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void another_stream_that_is_durable_begins_with_a_gap(void **state)
{
    struct fw_hub *hub = open_silent("demand:");
    struct fw_sub *sub = open_sub(hub, "a");
    fake_run(open_on_demand, NULL);
    fake_expect("subscribe a");
    next_step(sub, FW_READY, "a");
    fake_append("a", "1");
    next_message(sub, "a", "1");
    char local[FW_POSITION_MAX + 1];
    assert_int_equal(fw_sub_position(sub, local, sizeof(local)), 0);
    assert_int_equal(local[0], 'l');
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    fake_expect("open");
    fake_run(open_stored, NULL);
    next_gap(sub, NULL, "new-epoch");
    next_step(sub, FW_UP, NULL);
    fake_run(append_at, &(uint64_t){ 1 });
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p7.1.0");
    nothing_next(sub);
    struct fw_sub *resumed = open_sub_since(hub, "a", local, 0);
    next_gap(resumed, NULL, "new-epoch");
    next_message(resumed, "a", "x");
    next_step(resumed, FW_READY, "a");
    fake_expect_nothing(); /* subscribe() is not called any more */
    fw_sub_close(resumed);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void another_stream_that_forgets_begins_with_a_gap(void **state)
{
    struct fw_hub *hub = open_silent("demand:");
    struct fw_sub *sub = open_sub(hub, "a");
    fake_run(open_stored, NULL);
    next_step(sub, FW_READY, "a");
    fake_run(append_at, &(uint64_t){ 1 });
    next_step(sub, FW_MESSAGE, "a");
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    fake_expect("open");
    fake_run(open_on_demand, NULL);
    fake_expect("subscribe a");
    next_gap(sub, NULL, "connection-lost");
    next_step(sub, FW_UP, NULL);
    fake_append("a", "2");
    next_message(sub, "a", "2");
    struct fw_sub *resumed = open_sub_since(hub, "a", "p7.1.0", 0);
    next_gap(resumed, "a", "foreign-position"); /* all that is held follows */
    next_message(resumed, "a", "x");
    next_message(resumed, "a", "2");
    next_step(resumed, FW_READY, "a");
    fw_sub_close(resumed);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* The next source process finds other SQL installed than the one before. */
static bool find_gap(const struct log *log)
{
    struct log_record record;
    for (uint64_t off = log_tail(log); off < log_indexed(log); off = record.next) {
        assert_int_equal(log_peek(log, off, &record), 1);
        if (record.kind == RECORD_GAP)
            return true;
    }
    return false;
}

static void another_stream_after_a_restart_begins_with_a_gap(void **state)
{
    struct rig rig;
    fake_begin((struct fake_script){ .ready = true });
    rig_start(&rig, "demand:", SIZE, 0);
    fake_expect("open");
    fake_run(open_on_demand, NULL);
    fake_append("a", "1");
    assert_false(find_gap(rig.log));
    rig_restart(&rig);
    fake_expect("open");
    fake_run(open_stored, NULL);
    assert_true(find_gap(rig.log));
    rig_stop(&rig);
}

static void the_same_stream_after_a_restart_goes_on(void **state)
{
    struct rig rig;
    fake_begin((struct fake_script){ .ready = true });
    rig_start(&rig, "demand:", SIZE, 0);
    fake_expect("open");
    fake_run(open_stored, NULL);
    fake_run(append_at, &(uint64_t){ 1 });
    rig_restart(&rig);
    fake_expect("open");
    fake_run(open_stored, NULL);
    assert_false(find_gap(rig.log));
    rig_stop(&rig);
}

static void change_while_open(struct fw_host *host, void *arg)
{
    fw_host_traits(host, STORED);
}

static void an_open_source_is_what_it_is(void **state)
{
    struct fw_hub *hub = open_silent("demand:");
    struct fw_sub *sub = open_sub(hub, "a");
    fake_run(open_on_demand, NULL);
    fake_expect("subscribe a");
    next_step(sub, FW_READY, "a");
    fake_run(change_while_open, NULL);
    struct fw_sub *other = open_sub(hub, "b");
    fake_expect("subscribe b");
    next_step(other, FW_READY, "b");
    fw_sub_close(other);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* ---- what only somebody can mend ---- */

static void misconfigure(struct fw_host *host, void *arg)
{
    fw_host_misconfigured(host, (const char *)arg);
}

static void a_misconfigured_source_is_told_at_once_and_down(void **state)
{
    struct rig rig;
    fake_begin((struct fake_script){ .ready = true });
    rig_start(&rig, "demand:", SIZE, 0);
    fake_expect("open");
    fake_lost("connection-lost"); /* tells a line, which must not hold back the next */
    assert_true(rig_has_line(&rig, "lost: the test says so"));
    fake_expect("open");
    fake_run(misconfigure, (char[]){ "run this" });
    assert_true(rig_has_line(&rig, "misconfigured: run this\n"));
    assert_false(log_up(rig.log));
    fake_expect_nothing();
    fake_run(open_on_demand, NULL); /* mended */
    assert_true(log_up(rig.log));
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_came_before_hears_of_a_source_that_hears_all),
        cmocka_unit_test(who_came_before_is_asked_for_of_a_source_on_demand),
        cmocka_unit_test(a_loss_of_a_source_that_became_durable_is_no_gap),
        cmocka_unit_test(another_stream_that_is_durable_begins_with_a_gap),
        cmocka_unit_test(another_stream_that_forgets_begins_with_a_gap),
        cmocka_unit_test(another_stream_after_a_restart_begins_with_a_gap),
        cmocka_unit_test(the_same_stream_after_a_restart_goes_on),
        cmocka_unit_test(an_open_source_is_what_it_is),
        cmocka_unit_test(a_misconfigured_source_is_told_at_once_and_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
