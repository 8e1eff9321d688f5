/* The clocks agree with each other and with the century. */
#include "clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void monotonic_clocks_agree_and_never_go_back(void **state)
{
    int64_t last = 0;
    for (unsigned i = 0; i < 10000; i++) {
        int64_t before = clock_monotonic_us();
        int64_t ms = clock_monotonic_ms();
        int64_t after = clock_monotonic_us();
        assert_true(last <= before && before / 1000 <= ms && ms <= after / 1000);
        last = after;
    }
}

static void realtime_is_unix_time_in_ms(void **state)
{
    assert_true(clock_realtime_ms() > 1700000000000);  /* November 2023 */
    assert_true(clock_realtime_ms() < 32503680000000); /* the year 3000 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_clocks_agree_and_never_go_back),
        cmocka_unit_test(realtime_is_unix_time_in_ms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
