/* Up to where all ids are small: after a start, with ids in any order, and with more marks than
 * there is room for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_horizon.h"

static void what_was_before_the_start_is_older_than_the_next_id(void **state)
{
    struct pg_horizon h;
    pg_horizon_reset(&h, 1000, 50);
    assert_int_equal(pg_horizon_find(&h, 50), 1000);
    assert_int_equal(pg_horizon_find(&h, 60), 1000);
    assert_int_equal(pg_horizon_find(&h, 49), 0);
}

static void ids_come_in_any_order(void **state)
{
    struct pg_horizon h;
    pg_horizon_reset(&h, 1000, 50);
    pg_horizon_note(&h, 1100, 60);
    pg_horizon_note(&h, 1200, 52);
    pg_horizon_note(&h, 1300, 70);
    assert_int_equal(pg_horizon_find(&h, 52), 1100); /* 60 stands at 1100 */
    assert_int_equal(pg_horizon_find(&h, 60), 1100);
    assert_int_equal(pg_horizon_find(&h, 61), 1300);
    assert_int_equal(pg_horizon_find(&h, 70), 1300);
    assert_int_equal(pg_horizon_find(&h, 71), 1300); /* what comes next is not known */
}

/* Never beyond the first transaction with such an id, and not far before it near the end. */
static void marks_are_thinned_out_safely(void **state)
{
    enum { N = 100000 };
    static uint64_t ids[N];
    struct pg_horizon h;
    uint64_t random = 1;
    pg_horizon_reset(&h, 0, 1);
    for (uint64_t i = 0; i < N; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        ids[i] = 1 + i + (random >> 33) % 100;
        pg_horizon_note(&h, i + 1, ids[i]);
    }
    for (uint64_t xid = 1; xid < N + 100; xid += 37) {
        uint64_t first = 0;
        while (first < N && ids[first] < xid)
            first++;
        assert_true(pg_horizon_find(&h, xid) <= first + 1);
        if (xid > N - 10 && xid <= N)
            assert_true(pg_horizon_find(&h, xid) + 200 > first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_before_the_start_is_older_than_the_next_id),
        cmocka_unit_test(ids_come_in_any_order),
        cmocka_unit_test(marks_are_thinned_out_safely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
