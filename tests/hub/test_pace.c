/* A busy reader holds the source, one that is gone or slow does not. */
#include "pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SIZE  (64u << 20)
#define START ((uint64_t)SIZE)

static void a_reader_near_the_head_holds_nothing(void **state)
{
    struct pace p = { 0 };
    assert_false(pace_holds(&p, START, START, SIZE, 1000, 0, false));
    assert_false(pace_holds(&p, START + 8, START + 8 + SIZE / 4, SIZE, 1001, 0, false));
}

static void a_busy_reader_behind_a_quarter_holds(void **state)
{
    struct pace p = { 0 };
    assert_true(pace_holds(&p, START, START + SIZE / 4 + 8, SIZE, 1000, 0, false));
    /* … until it has come nearer */
    assert_true(pace_holds(&p, START + 4, START + SIZE / 4 + 8, SIZE, 1005, 5, false));
    assert_false(pace_holds(&p, START + 8, START + SIZE / 4 + 8, SIZE, 1010, 5, false));
}

static void one_that_stands_still_lets_go_after_250_ms(void **state)
{
    struct pace p = { 0 };
    uint64_t head = START + SIZE / 2;
    assert_true(pace_holds(&p, START, head, SIZE, 1000, 0, false));
    assert_true(pace_holds(&p, START, head, SIZE, 1250, 250, false));
    assert_false(pace_holds(&p, START, head, SIZE, 1251, 1, false));
    assert_false(pace_holds(&p, START, head, SIZE, 9999, 0, false));
    /* moving again, it counts again */
    assert_true(pace_holds(&p, START + 64, head, SIZE, 10000, 0, false));
}

/* Moves a little every 5 ms: it would hold everybody for ever. */
static void one_that_crawls_is_let_go_until_it_has_caught_up(void **state)
{
    struct pace p = { 0 };
    uint64_t cursor = START, head = START + SIZE / 2;
    int held = 0;
    for (int64_t now = 1000; now < 5000; now += 5)
        held += pace_holds(&p, cursor += 64, head, SIZE, now, 5, false);
    assert_in_range(held, 190, 201);                                           /* a second */
    assert_false(pace_holds(&p, head - SIZE / 4, head, SIZE, 5000, 0, false)); /* within reach */
    head += SIZE / 8;
    assert_false(
        pace_holds(&p, head - SIZE / 4 - 8, head, SIZE, 5005, 0, false)); /* still let go */
    assert_false(pace_holds(&p, head, head, SIZE, 5010, 0, false));       /* caught up */
    assert_true(pace_holds(&p, head, head + SIZE / 3, SIZE, 5015, 0, false));
}

static void one_that_reads_fast_may_hold_for_long(void **state)
{
    struct pace p = { 0 };
    uint64_t cursor = START;
    for (int64_t now = 1000; now < 11000; now += 5) {
        cursor += 64 * 1024; /* 12 MiB/s */
        assert_true(pace_holds(&p, cursor, cursor + SIZE / 3, SIZE, now, 5, false));
    }
}

static void a_lapped_or_lying_cursor_holds_nothing(void **state)
{
    struct pace p = { 0 };
    assert_false(pace_holds(&p, 0, START + SIZE, SIZE, 1000, 0, false));
    assert_false(pace_holds(&p, START, START + 2 * SIZE, SIZE, 1000, 0, false));
    assert_false(pace_holds(&p, UINT64_MAX, START, SIZE, 1000, 0, false));
    assert_false(pace_holds(&p, 1, START + 2 * SIZE, SIZE, 1000, 0, false));
}

/* Idle for long, then a burst: it has to have the time to begin. */
static void one_that_had_nothing_to_read_holds(void **state)
{
    struct pace p = { 0 };
    assert_false(pace_holds(&p, START, START, SIZE, 1000, 0, false));
    assert_false(pace_holds(&p, START, START + SIZE / 8, SIZE, 9000, 0, false));
    assert_true(pace_holds(&p, START, START + SIZE / 2, SIZE, 9100, 0, false));
    assert_false(pace_holds(&p, START, START + SIZE / 2, SIZE, 9300, 0, false));
}

static void a_patient_source_waits_for_whoever_moves(void **state)
{
    struct pace p = { 0 };
    uint64_t cursor = START, head = START + SIZE / 2;
    for (int64_t now = 1000; now < 61000; now += 1000) {
        assert_true(pace_holds(&p, cursor += 16384, head, SIZE, now, 1000, true));
        head += 16384;
    }
    assert_true(pace_holds(&p, cursor, head, SIZE, 62000, 1000, true));
    for (int64_t now = 63000; now < 69000; now += 1000)
        (void)pace_holds(&p, cursor += 64, head, SIZE, now, 1000, true);
    assert_false(pace_holds(&p, cursor += 64, head, SIZE, 69000, 1000, true)); /* it crawls */
    p = (struct pace){ 0 };
    assert_true(pace_holds(&p, cursor, head, SIZE, 70000, 0, true));
    assert_false(pace_holds(&p, cursor, head, SIZE, 75001, 1, true)); /* it stands still */
}

/* The average of a crowd falls when its first ones are done. That is no progress of the others. */
static void a_step_back_does_not_win_more_patience(void **state)
{
    struct pace p = { 0 };
    uint64_t head = START + SIZE / 2;
    int64_t now = 1000;
    for (int i = 0; i <= 6; i++, now += 1000)
        (void)pace_holds(&p, START + 60000 - (uint64_t)i, head, SIZE, now, 1000, true);
    assert_false(pace_holds(&p, START + 60000, head, SIZE, now, 1000, true));
    p = (struct pace){ 0 }; /* while from the lower place on it goes on as before */
    for (int i = 0; i < 60; i++, now += 1000) {
        uint64_t cursor = START + (uint64_t)i * 30000 - (i % 10 == 9 ? 100000 : 0);
        assert_true(pace_holds(&p, cursor, head, SIZE, now, 1000, true));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_near_the_head_holds_nothing),
        cmocka_unit_test(a_busy_reader_behind_a_quarter_holds),
        cmocka_unit_test(one_that_stands_still_lets_go_after_250_ms),
        cmocka_unit_test(one_that_crawls_is_let_go_until_it_has_caught_up),
        cmocka_unit_test(one_that_reads_fast_may_hold_for_long),
        cmocka_unit_test(one_that_had_nothing_to_read_holds),
        cmocka_unit_test(a_patient_source_waits_for_whoever_moves),
        cmocka_unit_test(a_step_back_does_not_win_more_patience),
        cmocka_unit_test(a_lapped_or_lying_cursor_holds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
