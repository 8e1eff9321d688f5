/* The growing buffer: bounds, all-or-nothing appends, formatting to the brim. */
#include "buf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void assert_holds(const struct buf *b, const char *text)
{
    assert_int_equal(b->len, strlen(text));
    assert_memory_equal(b->data, text, b->len);
}

static void grows_and_keeps_content(void **state)
{
    struct buf b = buf_make(1 << 20);
    assert_null(b.data);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(buf_append_char(&b, (char)('a' + i % 26)), 0);
    assert_int_equal(b.len, 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], 'a' + i % 26);
    buf_done(&b);
    assert_null(b.data);
    assert_int_equal(b.max, 1 << 20);
    assert_int_equal(buf_append_str(&b, "again"), 0);
    assert_holds(&b, "again");
    buf_done(&b);
}

static void fills_to_the_maximum_and_no_further(void **state)
{
    struct buf b = buf_make(5);
    assert_int_equal(buf_append_str(&b, "hello"), 0);
    assert_int_equal(b.failed, 0);
    assert_int_equal(buf_append_char(&b, '!'), -EMSGSIZE);
    assert_holds(&b, "hello");
    assert_true(b.failed);
    buf_done(&b);
}

static void a_failed_append_changes_nothing_and_sticks(void **state)
{
    struct buf b = buf_make(6);
    assert_int_equal(buf_append_str(&b, "abc"), 0);
    assert_int_equal(buf_append_str(&b, "defg"), -EMSGSIZE);
    assert_holds(&b, "abc");
    assert_int_equal(buf_append_str(&b, "d"), -EMSGSIZE); /* would fit, but a hole would hide */
    assert_int_equal(buf_printf(&b, "d"), -EMSGSIZE);
    assert_int_equal(buf_append(&b, "", 0), -EMSGSIZE);
    assert_holds(&b, "abc");
    buf_clear(&b);
    assert_int_equal(b.failed, 0);
    assert_int_equal(buf_append_str(&b, "defg"), 0);
    assert_holds(&b, "defg");
    buf_done(&b);
}

static void absurd_lengths_do_not_overflow(void **state)
{
    struct buf b = buf_make(SIZE_MAX);
    assert_int_equal(buf_append_str(&b, "x"), 0);
    assert_int_equal(buf_reserve(&b, SIZE_MAX), -EMSGSIZE);
    buf_clear(&b);
    assert_int_equal(buf_append_str(&b, "x"), 0);
    assert_int_equal(buf_reserve(&b, SIZE_MAX - 1), -ENOMEM);
    buf_done(&b);
    b = buf_make(0);
    assert_int_equal(buf_append(&b, NULL, 0), 0);
    assert_int_equal(buf_append_char(&b, 'x'), -EMSGSIZE);
    buf_done(&b);
}

static void formats(void **state)
{
    struct buf b = buf_make(4096);
    assert_int_equal(buf_printf(&b, "%s", ""), 0);
    assert_int_equal(b.len, 0);
    assert_int_equal(buf_printf(&b, "%d-%s", 42, "x"), 0);
    assert_int_equal(buf_printf(&b, "|%0200d", 7), 0);
    assert_int_equal(b.len, 4 + 201);
    assert_memory_equal(b.data, "42-x|000", 8);
    assert_int_equal(b.data[b.len - 1], '7');
    buf_done(&b);
}

static void formats_to_the_brim(void **state)
{
    for (size_t max = 0; max < 12; max++) {
        struct buf b = buf_make(max);
        int r = buf_printf(&b, "%s", "12345678");
        assert_int_equal(r, max < 8 ? -EMSGSIZE : 0);
        assert_int_equal(b.len, max < 8 ? 0 : 8);
        buf_done(&b);
    }
    struct buf b = buf_make(200);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(buf_printf(&b, "%010u", i), 0);
    assert_int_equal(b.len, 200);
    assert_int_equal(buf_printf(&b, "%d", 1), -EMSGSIZE);
    assert_int_equal(b.len, 200);
    buf_done(&b);
}

static void consumes_from_the_front(void **state)
{
    struct buf b = buf_make(64);
    buf_consume(&b, 0);
    assert_int_equal(buf_append_str(&b, "hello world"), 0);
    buf_consume(&b, 6);
    assert_holds(&b, "world");
    buf_consume(&b, 5);
    assert_int_equal(b.len, 0);
    assert_int_equal(buf_append_str(&b, "x"), 0);
    assert_holds(&b, "x");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_keeps_content),
        cmocka_unit_test(fills_to_the_maximum_and_no_further),
        cmocka_unit_test(a_failed_append_changes_nothing_and_sticks),
        cmocka_unit_test(absurd_lengths_do_not_overflow),
        cmocka_unit_test(formats),
        cmocka_unit_test(formats_to_the_brim),
        cmocka_unit_test(consumes_from_the_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
