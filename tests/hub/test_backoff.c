/* Back-off doubles to a second, grows to five after a minute, and is spread. */
#include "backoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void doubles_up_to_a_second(void **state)
{
    struct backoff b = { 0 };
    static const unsigned most[] = { 50, 100, 200, 400, 800, 1000, 1000, 1000 };
    for (unsigned i = 0; i < sizeof(most) / sizeof(*most); i++)
        assert_int_equal(backoff_next(&b, 1000, UINT32_MAX), most[i]);
}

static void waits_five_seconds_after_a_minute(void **state)
{
    struct backoff b = { 0 };
    for (int i = 0; i < 8; i++)
        (void)backoff_next(&b, 1000, 0);
    assert_int_equal(backoff_next(&b, 60999, UINT32_MAX), 1000);
    assert_int_equal(backoff_next(&b, 61000, UINT32_MAX), 5000);
    for (int i = 0; i < 100; i++)
        assert_int_equal(backoff_next(&b, 200000, UINT32_MAX), 5000);
}

static void spreads_over_half_of_the_wait(void **state)
{
    struct backoff b = { 0 };
    assert_int_equal(backoff_next(&b, 0, 0), 25);
    backoff_reset(&b);
    assert_int_equal(backoff_next(&b, 0, UINT32_MAX / 2), 37);
    backoff_reset(&b);
    assert_int_equal(backoff_next(&b, 0, UINT32_MAX), 50);
}

static void begins_anew_after_a_reset(void **state)
{
    struct backoff b = { 0 };
    for (int i = 0; i < 20; i++)
        (void)backoff_next(&b, i * 10000, 0);
    backoff_reset(&b);
    assert_int_equal(backoff_next(&b, 300000, UINT32_MAX), 50);
    assert_int_equal(b.attempts, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doubles_up_to_a_second),
        cmocka_unit_test(waits_five_seconds_after_a_minute),
        cmocka_unit_test(spreads_over_half_of_the_wait),
        cmocka_unit_test(begins_anew_after_a_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
