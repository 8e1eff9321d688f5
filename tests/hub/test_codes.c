/* The vocabulary is one to one, and what is counted by close code is told apart. */
#include "codes.h"
#include "counters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void every_code_reads_back(void **state)
{
    for (unsigned code = 0; code < N_CODES; code++) {
        assert_int_equal(code_from_text(code_text(code)), code);
        assert_true(code_title(code)[0] != '\0');
        assert_true(code_status(code) >= 200 && code_status(code) < 600);
    }
    assert_int_equal(code_from_text(NULL), CODE_OK);
    assert_int_equal(code_from_text("no-such-code"), CODE_INTERNAL);
    assert_int_equal(code_from_text(""), CODE_INTERNAL);
}

static void codes_say_what_the_contract_says(void **state)
{
    assert_string_equal(code_text(CODE_OK), "ok");
    assert_string_equal(code_text(CODE_CHANNEL_FORBIDDEN), "channel-forbidden");
    assert_int_equal(code_status(CODE_CHANNEL_FORBIDDEN), 403);
    assert_int_equal(code_close(CODE_CHANNEL_FORBIDDEN), 4003);
    assert_int_equal(code_close(CODE_UNAUTHORIZED), 4001);
    assert_int_equal(code_close(CODE_RATE_LIMITED), 4129);
    assert_int_equal(code_close(CODE_RESTART), 1012);
}

static void a_code_out_of_range_is_internal(void **state)
{
    assert_string_equal(code_text((enum error_code)1000), "internal");
    assert_int_equal(code_status((enum error_code) - 1), 500);
}

static void every_reason_reads_back(void **state)
{
    assert_string_equal(reason_text(REASON_NONE), "");
    for (unsigned reason = 1; reason < N_REASONS; reason++) {
        const char *text = reason_text(reason);
        assert_int_equal(reason_from_text(text, (uint32_t)strlen(text)), reason);
    }
    assert_int_equal(reason_from_text("lapped!", 6), REASON_LAPPED); /* not NUL-terminated */
    assert_int_equal(reason_from_text("lapped", 5), REASON_CONNECTION_LOST);
    assert_int_equal(reason_from_text("", 0), REASON_CONNECTION_LOST);
    assert_string_equal(reason_text((enum gap_reason)1000), "");
}

static void close_codes_have_places(void **state)
{
    for (unsigned index = 0; index < N_CLOSE_CODES - 1; index++) {
        assert_int_not_equal(close_code_at(index), 0);
        assert_int_equal(close_code_index(close_code_at(index)), index);
    }
    assert_int_equal(close_code_at(N_CLOSE_CODES - 1), 0);
    assert_int_equal(close_code_at(1000), 0);
    assert_int_equal(close_code_index(1006), N_CLOSE_CODES - 1);
    assert_int_equal(close_code_index(0), N_CLOSE_CODES - 1);
    assert_true(close_code_index(4108) < N_CLOSE_CODES - 1);
}

static void counts(void **state)
{
    struct counters c = { 0 };
    count(&c.gaps[REASON_LAPPED], 2);
    count(&c.gaps[REASON_LAPPED], 1);
    count(&c.behind, 1);
    count(&c.behind, (uint64_t)-1); /* a gauge falls */
    assert_int_equal(counted(&c.gaps[REASON_LAPPED]), 3);
    assert_int_equal(counted(&c.behind), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_reads_back),
        cmocka_unit_test(codes_say_what_the_contract_says),
        cmocka_unit_test(a_code_out_of_range_is_internal),
        cmocka_unit_test(every_reason_reads_back),
        cmocka_unit_test(close_codes_have_places),
        cmocka_unit_test(counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
