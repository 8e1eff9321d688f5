/* The SQL of `fanwire sql postgres` in a private server, heard by the source. SQL_DIR has the
 * file that removes it. */
#include "pg_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *uninstall_sql(void)
{
    static char sql[32768];
    FILE *file = fopen(SQL_DIR "/sql_postgres_uninstall.sql", "r");
    assert_non_null(file);
    size_t n = fread(sql, 1, sizeof sql - 1, file);
    fclose(file);
    assert_in_range(n, 1, sizeof sql - 2);
    sql[n] = '\0';
    return sql;
}

static void run(struct pg_fixture *f, const char *sql)
{
    PGresult *result = PQexec(f->admin, sql);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        fail_msg("%s", PQerrorMessage(f->admin));
    PQclear(result);
}

static int setup(void **state)
{
    int r = pg_fixture_setup(state);
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "SET client_min_messages = warning");
    run(f, fw_sql("postgres", NULL));
    return r;
}

static int teardown(void **state)
{
    run(*state, uninstall_sql());
    return pg_fixture_teardown(state);
}

static void expect(struct pg_fixture *f, size_t i, const char *channel, const char *data)
{
    RUN_UNTIL(f->host, f->host->n_events > i);
    assert_string_equal(f->host->events[i].channel, channel);
    assert_string_equal(f->host->events[i].data, data);
}

static void publishes_text_json_and_jsonb(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "SELECT fanwire_publish('todos', 'plain')");
    pg_fixture_sql(f, "SELECT fanwire_publish('todos', '{\"a\" : 1}'::json)");
    pg_fixture_sql(f, "SELECT fanwire_publish('todos', '{\"a\":1}'::jsonb)");
    pg_fixture_sql(f, "SELECT fanwire_publish('todos', row_to_json(t)) FROM (SELECT 7 AS id) t");
    pg_fixture_sql(f, "SELECT fanwire_publish('todos', '')");
    expect(f, 0, "todos", "plain");
    expect(f, 1, "todos", "{\"a\" : 1}");
    expect(f, 2, "todos", "{\"a\": 1}");
    expect(f, 3, "todos", "{\"id\":7}");
    expect(f, 4, "todos", "");
    assert_int_equal(f->host->n_refused_events, 0);
}

static void carries_channel_key_and_client(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "SELECT fanwire_publish('a \"b\"\\/ü', E'x\\ny', key => E'k\\n', client => "
                      "'me')");
    expect(f, 0, "a \"b\"\\/ü", "x\ny");
    assert_string_equal(f->host->events[0].key, "k\n");
    assert_string_equal(f->host->events[0].from, "me");
    pg_fixture_sql(f, "SELECT fanwire_publish('c', 'x'::text, client => 'me')");
    expect(f, 1, "c", "x");
    assert_null(f->host->events[1].key);
}

static void takes_long_channel_names(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "SELECT fanwire_publish(repeat('ü', 127) || 'n', 'x')");
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_int_equal(f->host->events[0].channel_len, 255);
}

static void is_the_same_channel_as_plain_notify(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "Todos");
    pg_fixture_sql(f, "BEGIN; SELECT fanwire_publish('Todos', '1'); NOTIFY \"Todos\", '2'; "
                      "SELECT fanwire_publish('Todos', '3'); COMMIT");
    expect(f, 0, "Todos", "1");
    expect(f, 1, "Todos", "2");
    expect(f, 2, "Todos", "3");
}

static void refuses_bad_input_clearly(void **state)
{
    static const char *const cases[][2] = {
        { "SELECT fanwire_publish('', 'x')", "1 to 255 bytes, this one 0 bytes" },
        { "SELECT fanwire_publish(NULL, 'x')", "1 to 255 bytes, this one is null" },
        { "SELECT fanwire_publish(repeat('ü', 128), 'x')", "1 to 255 bytes, this one 256 bytes" },
        { "SELECT fanwire_publish(E'a\\nb', 'x')", "no control characters: \"a\\nb\"" },
        { "SELECT fanwire_publish(E'a\\x7f', 'x')", "no control characters" },
        { "SELECT fanwire_publish(E'\\x01', 'x')", "no control characters" },
        { "SELECT fanwire_publish('$fanwire/x', 'x')", "reserved" },
        { "SELECT fanwire_publish('c', NULL::text)", "payload is null" },
        { "SELECT fanwire_publish('c', NULL::jsonb)", "payload is null" },
        { "SELECT fanwire_publish('c', repeat('x', 8000))", "at most 7999 bytes, this one 8017" },
        { "SELECT fanwire_publish('c', repeat('x', 8000))", "HINT:  Publish a reference" },
    };
    struct pg_fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *message = pg_fixture_sql_fails(f, cases[i][0]);
        if (!strstr(message, cases[i][1]))
            fail_msg("%s: %s", cases[i][0], message);
    }
}

/* In modes that are not at hand here, too: test_pg_wal.c. */
static void refuses_keys_and_clients_that_cannot_travel(void **state)
{
    static const char *const cases[][2] = {
        { "SELECT fanwire_publish('c', 'x', key => repeat('ü', 128))", "a key has 1 to 255 bytes, "
                                                                       "this one 256" },
        { "SELECT fanwire_publish('c', 'x', key => '')", "a key has 1 to 255 bytes, this one 0" },
        { "SELECT fanwire_publish('c', 'x', client => repeat('x', 65))", "at most 64 bytes, this "
                                                                         "one 65" },
        { "SELECT fanwire_publish('c', NULL::text, key => 'k')", "payload is null" },
    };
    static const char *const modes[] = { "notify", "outbox" };
    struct pg_fixture *f = *state;
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        run(f, fw_sql("postgres", modes[i % 2]));
        const char *message = pg_fixture_sql_fails(f, cases[i / 2][0]);
        if (!strstr(message, cases[i / 2][1]))
            fail_msg("%s: %s", cases[i / 2][0], message);
        pg_fixture_sql(f, "SELECT fanwire_publish('c', 'x', key => repeat('k', 255), client => "
                          "repeat('c', 64)); SELECT fanwire_publish('c', 'x', client => '')");
    }
}

static void takes_events_up_to_the_limit(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "SELECT fanwire_publish('c', repeat('x', 7982))");
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_int_equal(f->host->events[0].len, 7982);
    pg_fixture_sql_fails(f, "SELECT fanwire_publish('c', repeat('x', 7983))");
}

static void serves_ordinary_roles_and_odd_search_paths(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "CREATE ROLE ordinary; CREATE SCHEMA evil; CREATE FUNCTION "
                      "evil.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$ SELECT $$; "
                      "GRANT USAGE ON SCHEMA evil TO ordinary");
    pg_fixture_sql(f, "SET ROLE ordinary; SET search_path = evil");
    pg_fixture_sql(f, "SET standard_conforming_strings = off");
    pg_fixture_sql(f, "SELECT public.fanwire_publish('c', 'x')");
    assert_string_equal(pg_fixture_sql(f, "SELECT mode FROM public.fanwire_status()"), "notify");
    expect(f, 0, "c", "x");
    pg_fixture_sql(f, "RESET ROLE; RESET search_path; RESET standard_conforming_strings; "
                      "DROP SCHEMA evil CASCADE; DROP ROLE ordinary");
}

static void tells_its_status_and_may_run_again(void **state)
{
    struct pg_fixture *f = *state;
    run(f, fw_sql("postgres", NULL));
    assert_string_equal(pg_fixture_sql(f, "SELECT s::text FROM fanwire_status() s"),
                        "(1,notify,,postgres)");
}

static void never_overwrites_a_newer_version(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "UPDATE fanwire.installation SET version = 2");
    assert_non_null(strstr(pg_fixture_sql_fails(f, fw_sql("postgres", NULL)), "version 2"));
    assert_non_null(strstr(pg_fixture_sql_fails(f, fw_sql("postgres", "wal")), "version 2"));
}

static void takes_the_place_of_another_mode(void **state)
{
    struct pg_fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        run(f, fw_sql("postgres", "wal"));
        assert_string_equal(pg_fixture_sql(f, "SELECT mode FROM fanwire_status()"), "wal");
        /* Here nobody could read it. */
        assert_non_null(strstr(pg_fixture_sql_fails(f, "SELECT fanwire_publish('c', 'x')"),
                               "wal_level is \"replica\""));
        run(f, fw_sql("postgres", "notify"));
        assert_string_equal(pg_fixture_sql(f, "SELECT mode FROM fanwire_status()"), "notify");
    }
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "SELECT fanwire_publish('c', 'x')");
    expect(f, 0, "c", "x");
}

static void leaves_nothing_behind(void **state)
{
    struct pg_fixture *f = *state;
    static const char left[] =
        "SELECT (SELECT count(*) FROM pg_proc WHERE proname LIKE 'fanwire%%') + "
        "(SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'fanwire%%')";
    assert_string_equal(pg_fixture_sql(f, left), "7");
    run(f, uninstall_sql());
    assert_string_equal(pg_fixture_sql(f, left), "0");
    run(f, uninstall_sql());
}

static void merges_equal_events_of_a_transaction(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "BEGIN; SELECT fanwire_publish('c', 'x'); SELECT fanwire_publish('c', 'x'); "
                      "SELECT fanwire_publish('c', 'x', 'key'); COMMIT");
    pg_fixture_sql(f, "BEGIN; SELECT fanwire_publish('c', 'never'); ROLLBACK");
    pg_fixture_sql(f, "SELECT fanwire_publish('c', 'end')");
    expect(f, 2, "c", "end");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(publishes_text_json_and_jsonb),
        TEST(carries_channel_key_and_client),
        TEST(takes_long_channel_names),
        TEST(is_the_same_channel_as_plain_notify),
        TEST(refuses_bad_input_clearly),
        TEST(refuses_keys_and_clients_that_cannot_travel),
        TEST(takes_events_up_to_the_limit),
        TEST(serves_ordinary_roles_and_odd_search_paths),
        TEST(tells_its_status_and_may_run_again),
        TEST(never_overwrites_a_newer_version),
        TEST(takes_the_place_of_another_mode),
        TEST(leaves_nothing_behind),
        TEST(merges_equal_events_of_a_transaction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
