/* URLs of SQLite files. */
#include "sqlite_url.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct sqlite_url parsed(const char *text)
{
    struct sqlite_url url;
    struct fw_error err = { 0 };
    if (sqlite_url_parse(text, &url, &err) != 0)
        fail_msg("%s: %s", text, err.message);
    return url;
}

static void takes_paths(void **state)
{
    static const char *const cases[][2] = {
        { "sqlite:app.db", "app.db" },
        { "sqlite:./data/app.db", "./data/app.db" },
        { "sqlite:/srv/app.db", "/srv/app.db" },
        { "sqlite:///srv/app.db", "/srv/app.db" },
        { "sqlite:////srv/app.db", "//srv/app.db" },
        { "sqlite3:app.db?keep=1", "app.db" },
        { "sqlite:a%3Fb%20%25c.db", "a?b %c.db" },
        { "sqlite:file:x", "file:x" },
        { "sqlite:gr\xc3\xbc\xc3\x9f\x65.db", "gr\xc3\xbc\xc3\x9f\x65.db" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sqlite_url url = parsed(cases[i][0]);
        assert_string_equal(url.path, cases[i][1]);
        sqlite_url_done(&url);
    }
}

static void takes_parameters(void **state)
{
    struct sqlite_url url = parsed("sqlite:a");
    assert_int_equal(url.keep, 100000);
    assert_int_equal(url.keep_ms, 24 * 3600 * 1000);
    assert_true(url.create && !url.readonly);
    sqlite_url_done(&url);
    url = parsed("sqlite:a?keep=5&keep-for=10m&create=off&readonly=on");
    assert_int_equal(url.keep, 5);
    assert_int_equal(url.keep_ms, 600000);
    assert_true(!url.create && url.readonly);
    sqlite_url_done(&url);
    url = parsed("sqlite:a?keep=all&keep-for=all&");
    assert_true(url.keep == UINT64_MAX && url.keep_ms == UINT64_MAX);
    sqlite_url_done(&url);
}

static void refuses(void **state)
{
    char longest[5000] = "sqlite:";
    memset(longest + 7, 'x', sizeof longest - 8);
    longest[sizeof longest - 1] = '\0';
    const char *const cases[][2] = {
        { "sqlite:", "which file" },
        { "sqlite:?keep=1", "which file" },
        { "sqlite::memory:", "memory:" },
        { "sqlite:dir/", "not a file's name" },
        { "sqlite://host/app.db", "host" },
        { "sqlite://app.db", "sqlite:app.db" },
        { "sqlite:a%0", "percent" },
        { "sqlite:a%00b", "percent" },
        { "sqlite:a?kep=1", "unknown parameter \"kep\"" },
        { "sqlite:a?mode=ro", "unknown parameter" },
        { "sqlite:a?keep=-1", "number of events" },
        { "sqlite:a?keep=", "number of events" },
        { "sqlite:a?keep=99999999999999999999", "number of events" },
        { "sqlite:a?keep-for=10", "duration" },
        { "sqlite:a?create=yes", "on or off" },
        { "sqlite:a?readonly", "on or off" },
        { longest, "not a file's name" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sqlite_url url;
        struct fw_error err = { 0 };
        assert_int_equal(sqlite_url_parse(cases[i][0], &url, &err), -EINVAL);
        if (!strstr(err.message, cases[i][1]))
            fail_msg("%s: %s", cases[i][0], err.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_paths),
        cmocka_unit_test(takes_parameters),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
