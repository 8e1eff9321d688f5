/* Listening addresses: what is understood, what is refused, what is loopback. */
#include "address.h"

#include <fanwire.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct address good(const char *text)
{
    struct address a;
    struct fw_error err = { 0 };
    if (address_parse(text, &a, &err) != 0)
        fail_msg("%s: %s", text, err.message);
    return a;
}

static void understands_the_four_forms(void **state)
{
    struct address a = good("127.0.0.1:4600");
    assert_string_equal(a.host, "127.0.0.1");
    assert_int_equal(a.port, 4600);
    a = good(":80");
    assert_string_equal(a.host, "");
    assert_int_equal(a.port, 80);
    a = good("[::1]:0");
    assert_string_equal(a.host, "::1");
    assert_int_equal(a.port, 0);
    a = good("unix:/run/fanwire.sock");
    assert_string_equal(a.path, "/run/fanwire.sock");
    a = good("db.example.com:65535");
    assert_string_equal(a.host, "db.example.com");
    assert_int_equal(a.port, 65535);
}

static void refuses_what_is_none(void **state)
{
    char long_path[200] = "unix:/";
    memset(long_path + 6, 'x', 120);
    char long_host[400];
    memset(long_host, 'h', sizeof(long_host));
    memcpy(long_host + sizeof(long_host) - 4, ":80", 4);
    const char *const texts[] = { "",      "localhost", "4600",   ":",       ":65536",  ":-1",
                                  ":80x",  ":+80",      "::1:80", "[::1]",   "[::1:80", "[x]:80",
                                  "unix:", "[]:80",     ": 80",   long_path, long_host };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct address a;
        struct fw_error err = { 0 };
        if (address_parse(texts[i], &a, &err) != -EINVAL)
            fail_msg("%s was taken", texts[i]);
        assert_int_equal(err.code, -EINVAL);
        assert_non_null(strstr(err.message, "HOST:PORT"));
    }
}

static void knows_loopback(void **state)
{
    const char *const yes[] = { "127.0.0.1:1", "127.9.9.9:1", "[::1]:1",
                                "localhost:1", "LocalHost:1", "unix:/x" };
    const char *const no[] = {
        ":1", "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.evil.com:1", "128.0.0.1:1"
    };
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        struct address a = good(yes[i]);
        assert_true(address_loopback(&a));
    }
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        struct address a = good(no[i]);
        assert_false(address_loopback(&a));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(understands_the_four_forms),
        cmocka_unit_test(refuses_what_is_none),
        cmocka_unit_test(knows_loopback),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
