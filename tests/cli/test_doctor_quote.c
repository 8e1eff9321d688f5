/* Words for a shell. */
#include "doctor_quote.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void check(void (*quote)(struct buf *, const char *), const char *text, const char *expected)
{
    struct buf out = buf_make(256);
    quote(&out, text);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_string_equal((const char *)out.data, expected);
    buf_done(&out);
}

static void words(void **state)
{
    check(quote_shell, "app", "app");
    check(quote_shell, "postgres://u@h:5432/app", "postgres://u@h:5432/app");
    check(quote_shell, "", "''");
    check(quote_shell, "~root", "'~root'");
    check(quote_shell, "a b", "'a b'");
    check(quote_shell, "a;rm -r /", "'a;rm -r /'");
    check(quote_shell, "a?b&c", "'a?b&c'");
    check(quote_shell, "$HOME `id` \\", "'$HOME `id` \\'");
    check(quote_shell, "SET x = '4GB'", "\"SET x = '4GB'\"");
    check(quote_shell, "'$x'", "''\\''$x'\\'''");
    check(quote_shell, "'!'", "''\\''!'\\'''");
    check(quote_shell, "Straße 'ü'", "\"Straße 'ü'\"");
}

static void control_characters(void **state)
{
    check(quote_shell, "a\nb", "$'a\\012b'");
    check(quote_shell, "\x1b[2J'\\", "$'\\033[2J\\'\\\\'");
    check(quote_shell,
          "\x7f"
          "1",
          "$'\\1771'");
}

/* What psql would take for parameters is given as one. */
static void databases(void **state)
{
    check(quote_database, "app", "app");
    check(quote_database, "my app", "'my app'");
    check(quote_database, "host=evil", "\"dbname='host=evil'\"");
    check(quote_database, "postgres://evil/x", "\"dbname='postgres://evil/x'\"");
    check(quote_database, "a='\\", "'dbname='\\''a=\\'\\''\\\\'\\'''");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words),
        cmocka_unit_test(control_characters),
        cmocka_unit_test(databases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
