/* How far a slot may be confirmed: by bytes, by time, in silence, and with more than it remembers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_trail.h"

static void nothing_is_confirmed_before_its_time(void **state)
{
    struct pg_trail trail;
    pg_trail_init(&trail, 1000, 10000);
    pg_trail_reset(&trail, 100);
    pg_trail_pass(&trail, 150, 0);
    pg_trail_pass(&trail, 200, 5000);
    assert_int_equal(pg_trail_confirm(&trail, 9999), 0);
    assert_int_equal(pg_trail_confirm(&trail, 10000), 150);
    assert_int_equal(pg_trail_confirm(&trail, 14999), 0);
    assert_int_equal(pg_trail_confirm(&trail, 15000), 200);
    assert_int_equal(pg_trail_confirm(&trail, 99999), 0);
}

static void no_more_bytes_are_kept_than_wanted(void **state)
{
    struct pg_trail trail;
    pg_trail_init(&trail, 1000, 10000);
    pg_trail_reset(&trail, 100);
    for (uint64_t lsn = 200; lsn <= 3000; lsn += 100)
        pg_trail_pass(&trail, lsn, 1);
    assert_int_equal(pg_trail_confirm(&trail, 2), 1900);
}

/* What is passed in small steps right after a place is remembered, once silence follows. */
static void silence_confirms_everything(void **state)
{
    struct pg_trail trail;
    pg_trail_init(&trail, 1 << 20, 100000);
    pg_trail_reset(&trail, 0);
    pg_trail_pass(&trail, 100, 0);
    pg_trail_pass(&trail, 101, 1);
    pg_trail_pass(&trail, 102, 2);
    (void)pg_trail_confirm(&trail, 5000);
    (void)pg_trail_confirm(&trail, 100000);
    assert_int_equal(pg_trail_confirm(&trail, 105000), 102);
}

static void a_long_retention_is_remembered_whole(void **state)
{
    struct pg_trail trail;
    pg_trail_init(&trail, UINT64_C(1) << 30, 600000);
    pg_trail_reset(&trail, 0);
    uint64_t lsn = 0, confirmed = 0;
    for (int64_t now = 0; now < 2000000; now += 7) {
        lsn += 50;
        pg_trail_pass(&trail, lsn, now);
        uint64_t c = pg_trail_confirm(&trail, now);
        if (c > 0) {
            assert_true(c > confirmed);
            confirmed = c;
            uint64_t kept = (lsn - c) / 50 * 7; /* ms */
            assert_in_range(kept, 590000, 610000);
        }
    }
    assert_true(confirmed > 0);
    assert_in_range(trail.n, 1, PG_TRAIL_MAX - 1);
}

static void without_retention_all_is_confirmed(void **state)
{
    struct pg_trail trail = { 0 };
    pg_trail_reset(&trail, 100);
    pg_trail_pass(&trail, 150, 0);
    assert_int_equal(pg_trail_confirm(&trail, 0), 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_confirmed_before_its_time),
        cmocka_unit_test(no_more_bytes_are_kept_than_wanted),
        cmocka_unit_test(silence_confirms_everything),
        cmocka_unit_test(a_long_retention_is_remembered_whole),
        cmocka_unit_test(without_retention_all_is_confirmed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
