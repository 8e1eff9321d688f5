/* The public error struct is filled, cut, and optional. */
#include "error.h"

#include <errno.h>
#include <fanwire.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void writes_code_and_text(void **state)
{
    struct fw_error err = { 0 };
    assert_int_equal(error_set(&err, -EINVAL, "channel \"%s\": %d bytes", "x", 300), -EINVAL);
    assert_int_equal(err.code, -EINVAL);
    assert_string_equal(err.message, "channel \"x\": 300 bytes");
}

static void nobody_need_listen(void **state)
{
    assert_int_equal(error_set(NULL, -ENOMEM, "%s", "unheard"), -ENOMEM);
}

static void long_text_is_cut_and_terminated(void **state)
{
    struct fw_error err;
    memset(&err, 'x', sizeof(err));
    assert_int_equal(error_set(&err, -EIO, "%0600d", 1), -EIO);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_code_and_text),
        cmocka_unit_test(nobody_need_listen),
        cmocka_unit_test(long_text_is_cut_and_terminated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
