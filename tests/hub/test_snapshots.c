/* Rows that stand before a channel's events: who shares a query, what comes after the rows, losses
 * meanwhile, and large answers to slow readers. */
#include "clock.h"
#include "fake_source.h"
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE (1u << 20)

static void append(const char *channel, uint64_t at, uint64_t xid)
{
    fake_store(channel, "x", at, xid);
}

static const char rows[] = "{\"n\":1}\0{\"n\":2}";

static void answer(uint64_t floor)
{
    fake_answer(&(struct fake_rows){ fake_question(), rows, sizeof(rows), floor, false });
}

static void ask(struct probe *probe, const char *channel, uint64_t number)
{
    free(probe->rows);
    probe->rows = NULL;
    probe->n_rows = 0;
    assert_int_equal(reader_snapshot(probe->reader, number, channel, strlen(channel)), 0);
}

static void start_stored(struct rig *rig, struct probe *probe)
{
    fake_begin((struct fake_script){ .identity = 7 });
    rig_start_with_snapshots(rig, "stored:", SIZE);
    probe_join(probe, rig);
    fake_expect("open");
    fake_open_stored();
    probe_expect(probe, "source stored stored durable");
}

static void end(struct rig *rig, struct probe *probe)
{
    free(probe->rows);
    probe->rows = NULL;
    probe_leave(probe);
    rig_stop(rig);
}

/* The events that come after the rows are these, by their position. */
static void expect_missing(struct rig *rig, const struct probe *probe, const uint64_t *positions,
                           size_t expected)
{
    size_t n = 0;
    assert_int_equal((probe->n_rows - probe->rows_len) / sizeof(uint64_t), expected);
    assert_int_equal(probe->rows_len, sizeof(rows));
    assert_memory_equal(probe->rows, rows, sizeof(rows));
    for (size_t at = probe->rows_len; n < expected; at += sizeof(uint64_t), n++) {
        struct log_record record = { 0 };
        uint64_t off = 0;
        memcpy(&off, probe->rows + at, sizeof(off));
        assert_true(off < probe->until);
        assert_int_equal(log_peek(rig->log, off, &record), 1);
        assert_int_equal(record.pos[0], positions[n]);
        assert_int_equal(record.hash, log_hash(rig->log, "a", 1));
    }
}

static void what_the_rows_lack_comes_after_them(void **state)
{
    struct rig rig = { 0 };
    struct probe probe = { 0 };
    start_stored(&rig, &probe);
    append("a", 1, 50);
    append("a", 2, 120); /* committed and read before others see it */
    append("a", 3, 60);
    ask(&probe, "a", 5);
    fake_expect("snapshot SELECT a");
    append("a", 4, 70);
    append("b", 5, 130);
    append("a", 6, 140);
    uint64_t until = log_indexed(rig.log);
    answer(0);
    probe_expect(&probe, "rows 5 ok");
    assert_int_equal(probe.until, until);
    expect_missing(&rig, &probe, (const uint64_t[]){ 2, 6 }, 2);
    end(&rig, &probe);
}

static void nobody_looks_below_the_floor(void **state)
{
    struct rig rig = { 0 };
    struct probe probe = { 0 };
    start_stored(&rig, &probe);
    append("a", 1, 120);
    append("a", 2, 121);
    ask(&probe, "a", 1);
    fake_expect("snapshot SELECT a");
    answer(1);
    probe_expect(&probe, "rows 1 ok");
    expect_missing(&rig, &probe, (const uint64_t[]){ 2 }, 1);
    end(&rig, &probe);
}

/* Farther than the channel's links are followed. */
static void many_events_are_found_by_sweeping(void **state)
{
    enum { N = LOG_HOPS_MAX + 100 };
    struct rig rig = { 0 };
    struct probe probe = { 0 };
    uint64_t expected[N / 2 + 2] = { 0 };
    start_stored(&rig, &probe);
    for (uint64_t i = 1; i <= N; i++) {
        append("a", i, i % 2 ? 50 : 150);
        if (i % 2 == 0)
            expected[i / 2 - 1] = i;
    }
    ask(&probe, "a", 1);
    fake_expect("snapshot SELECT a");
    answer(0);
    probe_expect(&probe, "rows 1 ok");
    expect_missing(&rig, &probe, expected, N / 2);
    end(&rig, &probe);
}

static void who_asks_meanwhile_shares_the_answer(void **state)
{
    struct rig rig = { 0 };
    struct probe one, two;
    start_stored(&rig, &one);
    probe_join(&two, &rig);
    probe_expect(&two, "source stored stored durable");
    probe_subscribe(&one, "a");
    probe_expect(&one, "ready a");
    ask(&one, "a", 1);
    fake_expect("snapshot SELECT a");
    probe_subscribe(&two, "a");
    probe_expect(&two, "ready a");
    ask(&two, "a", 1);
    ask(&two, "b", 2); /* has to wait: one at a time */
    probe_subscribe(&two, "c");
    probe_expect(&two, "ready c"); /* its questions were taken */
    fake_expect_nothing();
    answer(0);
    probe_expect(&one, "rows 1 ok");
    probe_expect(&two, "rows 1 ok");
    fake_expect("snapshot SELECT b");
    ask(&one, "a", 2); /* comes too late for the first */
    answer(0);
    probe_expect(&two, "rows 2 ok");
    fake_expect("snapshot SELECT a");
    answer(0);
    probe_expect(&one, "rows 2 ok");
    fake_expect_nothing();
    assert_int_equal(counted(&rig.counters.source_snapshots), 3);
    free(two.rows);
    two.rows = NULL;
    probe_leave(&two);
    end(&rig, &one);
}

static void a_lost_stream_is_asked_again(void **state)
{
    struct rig rig = { 0 };
    struct probe probe = { 0 };
    start_stored(&rig, &probe);
    ask(&probe, "a", 1);
    fake_expect("snapshot SELECT a");
    uint64_t first = fake_question();
    fake_lost("connection-lost");
    fake_expect("open");
    fake_answer(&(struct fake_rows){ first, rows, sizeof(rows), 0, false });
    probe_look(&probe);
    assert_int_equal(probe.n_answers, probe.n_expected);
    fake_open_stored();
    fake_expect("snapshot SELECT a");
    fake_answer(&(struct fake_rows){ first, rows, sizeof(rows), 0, false }); /* too late */
    answer(0);
    probe_expect(&probe, "source stored stored durable");
    probe_expect(&probe, "rows 1 ok");
    end(&rig, &probe);
}

static void do_gap(struct fw_host *host, void *arg)
{
    fw_host_gap(host, "expired", (const uint64_t[2]){ 9, 0 }, false);
}

/* What was lost may be what the rows should have been joined to. */
static void a_gap_meanwhile_is_asked_again(void **state)
{
    struct rig rig = { 0 };
    struct probe probe = { 0 };
    start_stored(&rig, &probe);
    ask(&probe, "a", 1);
    fake_expect("snapshot SELECT a");
    fake_run(do_gap, NULL);
    answer(0);
    fake_expect("snapshot SELECT a");
    answer(0);
    probe_expect(&probe, "rows 1 ok");
    end(&rig, &probe);
}

/* Overwrites all that the log holds. */
static void lap(uint64_t *at)
{
    enum { LEN = 16384 };
    char text[LEN + 1];
    memset(text, 'x', LEN);
    text[LEN] = '\0';
    for (uint64_t n = 0; n <= SIZE / LEN; n++)
        fake_store("else", text, ++*at, 50);
}

/* The database is not asked without end where the log is too small for the query. */
static void a_log_that_is_overwritten_meanwhile_is_a_refusal_in_the_end(void **state)
{
    struct rig rig = { 0 };
    struct probe probe = { 0 };
    uint64_t at = 0;
    start_stored(&rig, &probe);
    ask(&probe, "a", 1);
    int64_t spoilt_ms = 0;
    for (int i = 0; i < 3; i++) {
        fake_expect("snapshot SELECT a");
        assert_true(clock_monotonic_ms() - spoilt_ms >= 20);
        lap(&at);
        spoilt_ms = clock_monotonic_ms();
        answer(0);
    }
    probe_expect(&probe, "rows 1 overloaded");
    assert_true(rig_has_line(&rig, "snapshot-failed: the rows of channel a: the log is overwritten "
                                   "while the query runs; make the log larger (--retain)"));
    ask(&probe, "a", 2);
    fake_expect("snapshot SELECT a");
    assert_true(clock_monotonic_ms() - spoilt_ms >= 90);
    answer(0);
    probe_expect(&probe, "rows 2 ok");
    fake_expect_nothing();
    end(&rig, &probe);
}

static void refusals_are_told_and_logged(void **state)
{
    struct rig rig = { 0 };
    struct probe probe = { 0 };
    start_stored(&rig, &probe);
    ask(&probe, "c", 1);
    probe_expect(&probe, "rows 1 not-supported");
    ask(&probe, "a", 2);
    fake_expect("snapshot SELECT a");
    fake_refuse("source-refused", "no such column");
    probe_expect(&probe, "rows 2 source-refused");
    assert_true(rig_has_line(&rig, "snapshot-failed: the rows of channel a: no such column"));
    end(&rig, &probe);
}

/* A source that can't tell is joined by time: by what came since the question. */
static void without_a_source_that_tells_everything_since_the_question_comes(void **state)
{
    struct rig rig = { 0 };
    struct probe early, late;
    fake_begin((struct fake_script){ .open = true });
    rig_start_with_snapshots(&rig, "demand:", SIZE);
    probe_join(&early, &rig);
    probe_join(&late, &rig);
    fake_expect("open");
    probe_expect(&early, "source demand scripted");
    probe_expect(&late, "source demand scripted");
    ask(&early, "a", 1);
    fake_expect("snapshot SELECT a");
    uint64_t asked_at = log_indexed(rig.log);
    probe_subscribe(&late, "a");
    fake_expect("subscribe a");
    fake_ready("a");
    probe_expect(&late, "ready a");
    ask(&late, "a", 1); /* heard since after the question: the next one is its */
    probe_subscribe(&late, "b");
    fake_expect("subscribe b");
    fake_append("a", "x");
    fake_answer(&(struct fake_rows){ fake_question(), rows, sizeof(rows), 0, true });
    probe_expect(&early, "rows 1 ok");
    assert_int_equal(early.until, asked_at);
    assert_int_equal(early.n_rows, early.rows_len);
    fake_expect("snapshot SELECT a");
    fake_answer(&(struct fake_rows){ fake_question(), rows, sizeof(rows), 0, true });
    probe_expect(&late, "rows 1 ok");
    assert_int_equal(late.until, log_indexed(rig.log));
    free(late.rows);
    late.rows = NULL;
    probe_leave(&late);
    end(&rig, &early);
}

/* A reader that does not read keeps nobody from theirs, and gets its own in the end. */
static void large_answers_come_whole(void **state)
{
    struct rig rig = { 0 };
    struct probe slow, quick;
    size_t len = 8u << 20;
    char *large = malloc(len);
    assert_non_null(large);
    for (size_t i = 0; i < len; i++)
        large[i] = i % 1000 == 999 ? '\0' : (char)('0' + i % 7);
    start_stored(&rig, &quick);
    probe_join(&slow, &rig);
    probe_expect(&slow, "source stored stored durable");
    ask(&slow, "a", 1);
    fake_expect("snapshot SELECT a");
    probe_subscribe(&quick, "a");
    probe_expect(&quick, "ready a");
    ask(&quick, "a", 1);
    probe_subscribe(&quick, "c");
    probe_expect(&quick, "ready c");
    append("a", 1, 120);
    fake_answer(&(struct fake_rows){ fake_question(), large, len, 0, false });
    probe_expect(&quick, "rows 1 ok");
    assert_int_equal(quick.n_rows, len + sizeof(uint64_t));
    assert_memory_equal(quick.rows, large, len);
    ask(&quick, "b", 2);
    fake_expect("snapshot SELECT b");
    answer(0);
    probe_expect(&quick, "rows 2 ok");
    probe_expect(&slow, "rows 1 ok");
    assert_memory_equal(slow.rows, large, len);
    free(slow.rows);
    slow.rows = NULL;
    probe_leave(&slow);
    free(large);
    end(&rig, &quick);
}

static void a_reader_may_leave_amid_its_answer(void **state)
{
    struct rig rig = { 0 };
    struct probe probe, other;
    size_t len = 4u << 20;
    char *large = calloc(1, len);
    assert_non_null(large);
    start_stored(&rig, &probe);
    probe_join(&other, &rig);
    probe_expect(&other, "source stored stored durable");
    ask(&other, "a", 1);
    fake_expect("snapshot SELECT a");
    fake_answer(&(struct fake_rows){ fake_question(), large, len, 0, false });
    ask(&other, "b", 2);
    fake_expect("snapshot SELECT b");
    probe_leave(&other);
    answer(0); /* for nobody */
    ask(&probe, "a", 1);
    fake_expect("snapshot SELECT a");
    answer(0);
    probe_expect(&probe, "rows 1 ok");
    free(large);
    free(other.rows);
    end(&rig, &probe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_rows_lack_comes_after_them),
        cmocka_unit_test(nobody_looks_below_the_floor),
        cmocka_unit_test(many_events_are_found_by_sweeping),
        cmocka_unit_test(who_asks_meanwhile_shares_the_answer),
        cmocka_unit_test(a_lost_stream_is_asked_again),
        cmocka_unit_test(a_gap_meanwhile_is_asked_again),
        cmocka_unit_test(a_log_that_is_overwritten_meanwhile_is_a_refusal_in_the_end),
        cmocka_unit_test(refusals_are_told_and_logged),
        cmocka_unit_test(without_a_source_that_tells_everything_since_the_question_comes),
        cmocka_unit_test(large_answers_come_whole),
        cmocka_unit_test(a_reader_may_leave_amid_its_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
