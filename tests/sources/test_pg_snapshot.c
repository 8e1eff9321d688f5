/* Rows and the moment they show, in a private server: which transactions are in them, what is
 * refused, and that a connection which breaks is no end. */
#include "pg_fixture.h"
#include "pg_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct fw_source_class source_postgres;

static void read_good(const char *text, struct pg_visible *ret)
{
    assert_int_equal(pg_visible_read(text, ret), 0);
}

static void a_snapshot_says_whom_it_sees(void **state)
{
    struct pg_visible v;
    read_good("10:20:10,12,19", &v);
    assert_int_equal(v.n, 3);
    assert_true(pg_visible_has(&v, 9));
    assert_false(pg_visible_has(&v, 10));
    assert_true(pg_visible_has(&v, 11));
    assert_false(pg_visible_has(&v, 12));
    assert_true(pg_visible_has(&v, 18));
    assert_false(pg_visible_has(&v, 19));
    assert_false(pg_visible_has(&v, 20));
    assert_false(pg_visible_has(&v, UINT64_MAX));
    pg_visible_done(&v);
    read_good("7:7:", &v);
    assert_int_equal(v.n, 0);
    assert_true(pg_visible_has(&v, 6));
    assert_false(pg_visible_has(&v, 7));
    pg_visible_done(&v);
    read_good("4294967297:4294967299:4294967298", &v); /* beyond 32 bits */
    assert_false(pg_visible_has(&v, 4294967298));
    assert_true(pg_visible_has(&v, 4294967297));
    pg_visible_done(&v);
    static const char *const bad[] = { "",    "1",     "1:",     "x:2:",  "1:x:",
                                       "1:2", "1:2:,", "1:2:1,", "1:2:a", "1:2:1;2" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(pg_visible_read(bad[i], &v), -EINVAL);
}

static void ask(struct pg_fixture *f, uint64_t request, const char *sql)
{
    unsigned n = f->host->snapshot.n;
    source_postgres.snapshot(f->source, request, sql);
    RUN_UNTIL(f->host, f->host->snapshot.n > n);
    assert_int_equal(f->host->snapshot.request, request);
}

static void notify_has_rows_and_does_not_say_which(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    ask(f, 3, "SELECT 1.0 AS a, 'x''\"' AS b UNION ALL SELECT NULL, E'\\n' -- the end");
    assert_string_equal(f->host->snapshot.code, "");
    assert_false(f->host->snapshot.exact);
    assert_string_equal(f->host->snapshot.rows, "{\"a\":1.0,\"b\":\"x'\\\"\"}\n"
                                                "{\"a\":null,\"b\":\"\\n\"}\n");
    ask(f, 4, "SELECT 1 WHERE false");
    assert_int_equal(f->host->snapshot.len, 0);
    assert_string_equal(pg_fixture_sql(f, "SELECT state FROM pg_stat_activity WHERE "
                                          "application_name = 'fanwire' AND query LIKE 'COMMIT%%'"),
                        "idle"); /* no transaction stays open */
}

static void expect_refusal(struct pg_fixture *f, const char *sql, const char *code,
                           const char *message)
{
    ask(f, 9, sql);
    assert_string_equal(f->host->snapshot.code, code);
    if (!strstr(f->host->snapshot.message, message))
        fail_msg("\"%s\" is not in: %s", message, f->host->snapshot.message);
}

static void what_is_no_query_is_refused(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "CREATE TABLE t (n int)");
    expect_refusal(f, "SELECT nothing", "source-refused", "column \"nothing\" does not exist");
    expect_refusal(f, "SELECT 1; SELECT 2", "source-refused", "syntax error");
    expect_refusal(f, "SELECT nextval('s')", "source-refused", "does not exist");
    pg_fixture_sql(f, "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS "
                      "'INSERT INTO t VALUES (1) RETURNING n'");
    expect_refusal(f, "SELECT writes()", "source-refused", "read-only transaction");
    expect_refusal(f, "SELECT repeat('x', 1000) FROM generate_series(1, 17000)", "too-large",
                   "16 MiB");
    expect_refusal(f, "SELECT FROM generate_series(1, 300000)", "too-large", "16 MiB");
    ask(f, 10, "SELECT 1 AS a"); /* on a connection that was opened again */
    assert_string_equal(f->host->snapshot.rows, "{\"a\":1}\n");
    pg_fixture_sql(f, "DROP FUNCTION writes(); DROP TABLE t");
}

static void a_connection_that_broke_is_opened_again(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    ask(f, 1, "SELECT 1 AS a");
    pg_fixture_sql(f, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
                      "application_name = 'fanwire' AND query LIKE 'COMMIT%%'");
    ask(f, 2, "SELECT 2 AS a");
    assert_string_equal(f->host->snapshot.rows, "{\"a\":2}\n");
    source_postgres.snapshot(f->source, 3, "SELECT pg_sleep(20)");
    RUN_UNTIL(f->host,
              strcmp(pg_fixture_sql(f, "SELECT count(pg_terminate_backend(pid)) FROM "
                                       "pg_stat_activity WHERE application_name = 'fanwire' AND "
                                       "state = 'active' AND query LIKE '%%pg_sleep%%'"),
                     "0") != 0);
    RUN_UNTIL(f->host, f->host->snapshot.n == 3);
    assert_true(!strcmp(f->host->snapshot.code, "source-down") ||
                !strcmp(f->host->snapshot.code, "source-refused"));
    assert_int_equal(f->host->n_lost, 0); /* the stream goes on */
}

/* Asked and gone: nothing is left open (host_free() looks). */
static void a_source_may_go_amid_a_query(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    source_postgres.snapshot(f->source, 1, "SELECT pg_sleep(20)");
    host_run_ms(f->host, 100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, pg_fixture_setup, pg_fixture_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_says_whom_it_sees),
        TEST(notify_has_rows_and_does_not_say_which),
        TEST(what_is_no_query_is_refused),
        TEST(a_connection_that_broke_is_opened_again),
        TEST(a_source_may_go_amid_a_query),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
