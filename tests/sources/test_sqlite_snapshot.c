/* Rows of a SQLite file and the newest event that they contain. */
#include "sqlite_fixture.h"

#include <stdio.h>
#include <string.h>

static void ask(struct sqlite_fixture *f, uint64_t request, const char *sql)
{
    unsigned n = f->host->snapshot.n;
    source_sqlite.snapshot(f->source, request, sql);
    RUN_UNTIL(f->host, f->host->snapshot.n > n);
    assert_int_equal(f->host->snapshot.request, request);
}

static void rows_are_objects(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "CREATE TABLE t (i, r, s, b, n); INSERT INTO t VALUES "
                          "(-9223372036854775808, 0.1, 'a\"\n' || char(233), x'00FF', NULL), "
                          "(1, 1e300, '', x'', 9e999)");
    ask(f, 5, "SELECT * FROM t ORDER BY i");
    assert_string_equal(f->host->snapshot.code, "");
    assert_string_equal(f->host->snapshot.rows,
                        "{\"i\":-9223372036854775808,\"r\":0.1,\"s\":\"a\\\"\\né\",\"b\":\"00FF\","
                        "\"n\":null}\n"
                        "{\"i\":1,\"r\":1e+300,\"s\":\"\",\"b\":\"\",\"n\":null}\n");
    ask(f, 6, "SELECT 1 WHERE 0");
    assert_int_equal(f->host->snapshot.len, 0);
}

static void they_contain_what_is_committed(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    ask(f, 1, "SELECT 1 AS a");
    assert_true(f->host->snapshot.exact);
    assert_int_equal(f->host->snapshot.floor[0], 0);
    assert_int_equal(f->host->snapshot.floor[1], 1);
    sqlite_fixture_sql(f, "CREATE TABLE t (n)");
    for (int i = 1; i <= 7; i++)
        sqlite_fixture_sql(f,
                           "BEGIN; INSERT INTO t VALUES (%d); INSERT INTO fanwire_outbox "
                           "(channel, payload) VALUES ('t', %d); COMMIT",
                           i, i);
    sqlite_fixture_sql(f, "BEGIN IMMEDIATE; INSERT INTO t VALUES (8); INSERT INTO fanwire_outbox "
                          "(channel, payload) VALUES ('t', 8)");
    ask(f, 2, "SELECT max(n) AS n FROM t"); /* an open transaction keeps nobody waiting */
    assert_string_equal(f->host->snapshot.rows, "{\"n\":7}\n");
    assert_int_equal(f->host->snapshot.floor[0], 7);
    assert_int_equal(f->host->n_events, 7); /* all that they contain came before them */
    assert_true(f->host->snapshot.contained[7] && !f->host->snapshot.contained[8]);
    sqlite_fixture_sql(f, "COMMIT");
}

static void expect_refusal(struct sqlite_fixture *f, const char *sql, const char *code,
                           const char *message)
{
    ask(f, 9, sql);
    assert_string_equal(f->host->snapshot.code, code);
    if (!strstr(f->host->snapshot.message, message))
        fail_msg("\"%s\" is not in: %s", message, f->host->snapshot.message);
}

static void what_is_no_query_is_refused(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    expect_refusal(f, "SELECT missing", "source-refused", "no such column: missing");
    expect_refusal(f, "SELECT 1; SELECT 2", "source-refused", "one query that only reads");
    expect_refusal(f, "DELETE FROM fanwire_outbox RETURNING *", "source-refused",
                   "one query that only reads");
    expect_refusal(f, "SELECT hex(zeroblob(9000000))", "too-large", "16 MiB");
    expect_refusal(f,
                   "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) "
                   "SELECT i FROM r",
                   "too-large", "16 MiB");
    expect_refusal(f,
                   "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) "
                   "SELECT sum(i) FROM r",
                   "source-refused", "5 s");
    ask(f, 10, "SELECT 1 AS a");
    assert_string_equal(f->host->snapshot.rows, "{\"a\":1}\n");
    assert_int_equal(f->host->n_lost, 0);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, sqlite_fixture_setup, sqlite_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rows_are_objects),
        TEST(they_contain_what_is_committed),
        TEST(what_is_no_query_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
