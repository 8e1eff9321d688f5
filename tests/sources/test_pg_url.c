/* Postgres URLs: what is ours, what is an ORM's, what is libpq's, and what is never shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *option(const struct pg_url *url, const char *keyword)
{
    for (const PQconninfoOption *o = url->options; o->keyword; o++)
        if (!strcmp(o->keyword, keyword))
            return o->val ? o->val : "";
    return "?";
}

static void parse(const char *text, struct pg_url *url)
{
    struct fw_error err = { 0 };
    if (pg_url_parse(text, url, &err) < 0)
        fail_msg("%s: %s", text, err.message);
}

static void expect_place(const struct pg_url *url, unsigned i, const char *host,
                         const char *address, const char *port)
{
    assert_in_range(i, 0, url->n_places - 1);
    assert_string_equal(url->places[i].host, host);
    assert_string_equal(url->places[i].address, address);
    assert_string_equal(url->places[i].port, port);
}

static void accepts_every_scheme(void **state)
{
    static const char *const schemes[] = { "postgres", "postgresql", "postgis",
                                           "postgresql+asyncpg", "postgres+psycopg" };
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        char text[100];
        struct pg_url url;
        strcpy(text, schemes[i]);
        strcat(text, "://u:p@db.example:5433/app");
        parse(text, &url);
        assert_string_equal(option(&url, "user"), "u");
        assert_string_equal(option(&url, "password"), "p");
        assert_string_equal(option(&url, "dbname"), "app");
        expect_place(&url, 0, "db.example", "", "5433");
        pg_url_done(&url);
    }
}

static void takes_its_own_parameters_out(void **state)
{
    struct pg_url url;
    parse("postgres://h/d", &url);
    assert_true(url.foreign);
    assert_int_equal(url.connect_timeout_ms, 10000);
    pg_url_done(&url);
    parse("postgres://h/d?foreign=off&mode=notify&sslmode=require&&connect_timeout=3", &url);
    assert_false(url.foreign);
    assert_string_equal(url.ignored, "");
    assert_string_equal(option(&url, "sslmode"), "require");
    assert_string_equal(url.mode, "notify");
    assert_int_equal(url.connect_timeout_ms, 3000);
    pg_url_done(&url);
    parse("postgres://h/d?mode=auto&foreign=on", &url);
    assert_true(url.foreign);
    assert_string_equal(url.mode, "");
    pg_url_done(&url);
    parse("postgres://h/d?mode=wal", &url); /* known, whether or not this build has it */
    assert_string_equal(url.mode, "wal");
    pg_url_done(&url);
    parse("postgres://h/d?mode=outbox", &url);
    assert_string_equal(url.mode, "outbox");
    assert_false(url.keep_given);
    pg_url_done(&url);
    parse("postgres://h/d?keep-for=90m", &url);
    assert_true(url.keep_given);
    assert_int_equal(url.keep_ms, 5400000);
    pg_url_done(&url);
    parse("postgres://h/d?keep-for=all", &url);
    assert_true(url.keep_ms == UINT64_MAX);
    pg_url_done(&url);
}

static void drops_parameters_of_orms(void **state)
{
    struct pg_url url;
    parse("postgresql://u:p@h:6543/d?pgbouncer=true&sslmode=require&schema=a%20b&pool_timeout=0"
          "&options=-c%20work_mem%3D1MB",
          &url);
    assert_string_equal(url.ignored, "pgbouncer, schema, pool_timeout");
    assert_string_equal(option(&url, "sslmode"), "require");
    assert_string_equal(option(&url, "options"), "-c work_mem=1MB");
    pg_url_done(&url);
}

static void drops_the_fragment(void **state)
{
    struct pg_url url;
    parse("postgres://u:p@h/d?sslmode=disable#frag?x", &url);
    assert_string_equal(option(&url, "sslmode"), "disable");
    pg_url_done(&url);
    parse("postgres://u:p@h/d#frag", &url);
    assert_string_equal(option(&url, "dbname"), "d");
    pg_url_done(&url);
    parse("postgres://u:a#b?c@h/d", &url); /* libpq takes these in a password */
    assert_string_equal(option(&url, "password"), "a#b?c");
    pg_url_done(&url);
}

static void keeps_percent_encoding(void **state)
{
    struct pg_url url;
    parse("postgres://us%40er:p%2F%3A%40%23%25@h/d%20b", &url);
    assert_string_equal(option(&url, "user"), "us@er");
    assert_string_equal(option(&url, "password"), "p/:@#%");
    assert_string_equal(option(&url, "dbname"), "d b");
    pg_url_done(&url);
}

static void finds_every_place(void **state)
{
    struct pg_url url;
    parse("postgres://a:1,b,[::1]:3,10.0.0.1/d", &url);
    assert_int_equal(url.n_places, 4);
    expect_place(&url, 0, "a", "", "1");
    expect_place(&url, 1, "b", "", "");
    expect_place(&url, 2, "::1", "", "3");
    expect_place(&url, 3, "10.0.0.1", "", "");
    assert_true(pg_place_needs_address(&url.places[0]));
    assert_true(pg_place_needs_address(&url.places[1]));
    assert_false(pg_place_needs_address(&url.places[2]));
    assert_false(pg_place_needs_address(&url.places[3]));
    pg_url_done(&url);
    parse("postgres:///d?host=/run/pg,db&hostaddr=,1.2.3.4&port=5433", &url);
    assert_int_equal(url.n_places, 2);
    expect_place(&url, 0, "/run/pg", "", "5433");
    expect_place(&url, 1, "db", "1.2.3.4", "5433");
    assert_false(pg_place_needs_address(&url.places[0]));
    assert_false(pg_place_needs_address(&url.places[1]));
    pg_url_done(&url);
    parse("postgres://%2Frun%2Fpg/d", &url);
    expect_place(&url, 0, "/run/pg", "", "5432");
    pg_url_done(&url);
}

static void asks_the_environment_where_the_url_is_silent(void **state)
{
    struct pg_url url;
    setenv("PGHOST", "from.environment", 1);
    setenv("PGPORT", "7777", 1);
    parse("postgres:///d", &url);
    expect_place(&url, 0, "from.environment", "", "7777");
    pg_url_done(&url);
    parse("postgres://h/d", &url);
    expect_place(&url, 0, "h", "", "7777");
    pg_url_done(&url);
    unsetenv("PGHOST");
    unsetenv("PGPORT");
    parse("postgres://", &url);
    expect_place(&url, 0, "", "", "5432");
    assert_false(pg_place_needs_address(&url.places[0]));
    pg_url_done(&url);
}

static void refuses_what_is_wrong(void **state)
{
    static const char *const cases[][2] = {
        { "", "not a Postgres URL" },
        { "postgres", "not a Postgres URL" },
        { "postgres:h/d", "not a Postgres URL" },
        { "mysql://h/d", "not a Postgres URL" },
        { "postgresqlx://h/d", "not a Postgres URL" },
        { "+x://h/d", "not a Postgres URL" },
        { "postgres://h/d?mode=Notify", "unknown mode \"Notify\"" },
        { "postgres://h/d?mode=", "unknown mode \"\"" },
        { "postgres://h/d?mode", "unknown mode \"\"" },
        { "postgres://h/d?foreign=1", "unknown foreign=\"1\"" },
        { "postgres://h/d?keep-for=", "keep-for= in the Postgres URL: write a duration" },
        { "postgres://h/d?keep-for=10", "keep-for=10 in" },
        { "postgres://h/d?keep-for=3651d", "keep-for=3651d in" },
        { "postgres://h/d?keep-for=1h%20", "keep-for=1h%20 in" },
        { "postgres://h/d?service=x", "service=" },
        { "postgres://h/d?sinec=1", "invalid URI query parameter: \"sinec\"" },
        { "postgres://h/d?sslmode", "missing key/value separator" },
        { "postgres://h/d%zz", "two hexadecimal digits" },
        { "postgres://h/d%0", "two hexadecimal digits" },
        { "postgres://h/d%00", "%00" },
        { "postgres://h:port/d", "the port in the Postgres URL is not a number" },
        { "postgres://h:0/d", "the port in the Postgres URL is not a number" },
        { "postgres://h:65536/d", "the port in the Postgres URL is not a number" },
        { "postgres://a,b:1:2/d", "port" },
        { "postgres://a,b/d?port=1,2,3", "2 hosts but 3 ports" },
        { "postgres://a,b/d?hostaddr=1.2.3.4", "2 hosts but 1 host addresses" },
        { "postgres://u:p@[::1/d", "host address in URI: \"*\" (" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fw_error err = { 0 };
        struct pg_url url;
        assert_int_equal(pg_url_parse(cases[i][0], &url, &err), -EINVAL);
        assert_int_equal(err.code, -EINVAL);
        if (!strstr(err.message, cases[i][1]))
            fail_msg("%s: %s", cases[i][0], err.message);
        assert_int_equal(pg_url_parse(cases[i][0], &url, NULL), -EINVAL);
    }
}

/* Whatever is wrong with a URL, its password is not in the message. */
static void never_shows_a_password(void **state)
{
    static const char *const cases[] = {
        "postgres://u:S3CRET@[::1/d",
        "postgres://u:S3CRET@[::1]x/d",
        "postgres://u:S3CRET@[]/d",
        "postgres://u:S3CRET%zz@h/d",
        "postgres://u:S3CRET%@h/d",
        "postgres://u:S3CRET%00@h/d",
        "postgres://u:S3CRET@h:x/d",
        "postgres://u:a/S3CRET@h/d",
        "postgres://u:S3CRET/b@h/d",
        "postgres://u:a@S3CRET@h/d",
        "postgres://u:a@S3CRET/d",
        "postgres://u:S3CRET@h/d?unknown=1",
        "postgres://u:S3CRET@h/d?mode=S",
        "postgres://h/d?password=S3CRET=x",
        "postgres://h/d?password=S3CRET%",
        "postgres://h/d?sslpassword=S3CRET=1",
        "postgres://h/d?unknown=1&password=S3CRET",
        "mysql://u:S3CRET@h/d",
        "postgres:u:S3CRET@h/d",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fw_error err = { 0 };
        struct pg_url url;
        if (pg_url_parse(cases[i], &url, &err) == 0) {
            assert_int_equal(i, 10); /* "a" is the password, S3CRET the host: nothing is wrong */
            pg_url_done(&url);
        } else if (strstr(err.message, "S3CRET")) {
            fail_msg("%s: %s", cases[i], err.message);
        }
    }
}

static void bounds_its_input(void **state)
{
    static char text[20000];
    struct fw_error err = { 0 };
    struct pg_url url;
    strcpy(text, "postgres://h/");
    memset(text + strlen(text), 'd', 9000);
    assert_int_equal(pg_url_parse(text, &url, &err), -EINVAL);
    strcpy(text, "postgres://h");
    for (int i = 0; i < 40; i++)
        strcat(text, ",h");
    strcat(text, "/d");
    assert_int_equal(pg_url_parse(text, &url, &err), -EINVAL);
    assert_non_null(strstr(err.message, "41 hosts"));
    strcpy(text, "postgres://h/d?");
    for (int i = 0; i < 100; i++)
        strcat(text, "pool_timeout=1&");
    parse(text, &url);
    assert_in_range(strlen(url.ignored), 1, sizeof url.ignored - 1);
    pg_url_done(&url);
}

static void makes_one_line(void **state)
{
    char out[16];
    assert_string_equal(pg_one_line(out, sizeof out, "a\n\tb  c \n"), "a; b c");
    assert_string_equal(pg_one_line(out, sizeof out, " \n a"), "a");
    assert_string_equal(pg_one_line(out, 6, "abcdef"), "abc");
    assert_string_equal(pg_one_line(out, 6, "ab\nf"), "ab; ");
    assert_string_equal(pg_one_line(out, 4, "a\nb"), "a");
    assert_string_equal(pg_one_line(out, sizeof out, "\n"), "");
}

/* Whatever the environment of the tests says about servers. */
static int forget_environment(void **state)
{
    static const char *const names[] = { "PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_every_scheme),
        cmocka_unit_test(takes_its_own_parameters_out),
        cmocka_unit_test(drops_parameters_of_orms),
        cmocka_unit_test(drops_the_fragment),
        cmocka_unit_test(keeps_percent_encoding),
        cmocka_unit_test(finds_every_place),
        cmocka_unit_test(asks_the_environment_where_the_url_is_silent),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(never_shows_a_password),
        cmocka_unit_test(bounds_its_input),
        cmocka_unit_test(makes_one_line),
    };
    return cmocka_run_group_tests(tests, forget_environment, NULL);
}
