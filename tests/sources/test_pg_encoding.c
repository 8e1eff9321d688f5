/* Databases in another encoding than UTF-8, and in none: what has no form in UTF-8 is refused where
 * it is written, and where it stands all the same, nothing else is lost for it. */
#include "pg_fixture.h"

#include <fanwire.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct fw_source_class source_postgres;

/* A fixture with a database of its own. */
struct stage {
    struct pg_fixture *f;
    PGconn *conn;
};

static int setup(void **state)
{
    struct stage *s = calloc(1, sizeof *s);
    assert_non_null(s);
    *state = s;
    return pg_fixture_setup((void **)&s->f);
}

static void run(struct stage *s, const char *sql)
{
    PGresult *result = PQexec(s->conn, sql);
    if (PQresultStatus(result) == PGRES_FATAL_ERROR)
        fail_msg("%s: %s", sql, PQerrorMessage(s->conn));
    PQclear(result);
}

static void fails(struct stage *s, const char *sql, const char *sqlstate)
{
    PGresult *result = PQexec(s->conn, sql);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (!state || strcmp(state, sqlstate) != 0)
        fail_msg("%s: %s %s", sql, state ? state : "", PQerrorMessage(s->conn));
    PQclear(result);
}

static void open_database(struct stage *s, const char *encoding, const char *mode)
{
    char conninfo[64];
    pg_fixture_sql(s->f,
                   "CREATE DATABASE other ENCODING '%s' TEMPLATE template0 LC_COLLATE 'C' "
                   "LC_CTYPE 'C'",
                   encoding);
    snprintf(conninfo, sizeof conninfo, "dbname=other client_encoding=%s", encoding);
    s->conn = PQconnectdb(conninfo);
    assert_int_equal(PQstatus(s->conn), CONNECTION_OK);
    run(s, "SET client_min_messages = error");
    run(s, fw_sql("postgres", mode));
    run(s, "CREATE TABLE t (id int PRIMARY KEY, c text); SELECT fanwire_watch('t', 't')");
}

static void open_source(struct stage *s, const char *rest)
{
    char url[128];
    snprintf(url, sizeof url, "postgres://postgres@127.0.0.1:%%PORT%%/other%s", rest);
    pg_fixture_open(s->f, url);
}

static int teardown(void **state)
{
    struct stage *s = *state;
    struct pg_fixture *f = s->f;
    if (f->source)
        source_postgres.destroy(f->source);
    f->source = NULL;
    PQfinish(s->conn);
    pg_fixture_sql(f, "DO $$ BEGIN FOR i IN 1..500 LOOP "
                      "EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots WHERE active); "
                      "PERFORM pg_sleep(0.01); END LOOP; END $$;"
                      "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    pg_fixture_sql(f, "DROP DATABASE other WITH (FORCE)");
    free(s);
    return pg_fixture_teardown((void **)&f);
}

static void expect_last(struct stage *s, const char *part)
{
    struct fw_host *host = s->f->host;
    RUN_UNTIL(host, host->n_events > 0 && strstr(host->events[host->n_events - 1].data, part));
}

static const struct fake_event *event_with(const struct stage *s, const char *part)
{
    for (size_t i = 0; i < s->f->host->n_events; i++)
        if (strstr(s->f->host->events[i].data, part))
            return &s->f->host->events[i];
    fail_msg("no event with %s", part);
    return NULL;
}

/* 0x81 is no character of WIN1252, and no UTF-8 where the database does not know an encoding. */
static void is_refused_at_the_writer(void **state)
{
    static const char *const modes[] = { "notify", "outbox", "wal" };
    struct stage *s = *state;
    open_database(s, "WIN1252", "notify");
    for (size_t i = 0; i < 3; i++) {
        run(s, fw_sql("postgres", modes[i]));
        fails(s, "SELECT fanwire_publish('t', E'\x81')", "22P05");
        fails(s, "SELECT fanwire_publish(E'\x81', 'x')", "22P05");
        fails(s, "SELECT fanwire_publish('t', 'x', key => E'\x81')", "22P05");
        fails(s, "SELECT fanwire_publish('t', 'x', client => E'\x81')", "22P05");
        run(s, "SELECT fanwire_publish('t', E'\xfc', key => E'\xfc', client => E'\xfc')");
    }
}

/* The writer's statement does not fail for it. */
static void a_row_by_triggers_is_told_in_part(struct stage *s, const char *encoding,
                                              const char *mode)
{
    open_database(s, encoding, mode);
    open_source(s, "");
    run(s, "INSERT INTO t VALUES (1, E'a'), (2, E'\x81'), (3, 'z')");
    expect_last(s, "\"z\"");
    assert_int_equal(s->f->host->n_events, 3);
    assert_non_null(strstr(s->f->host->events[1].data, "\"partial\": true"));
    assert_non_null(strstr(s->f->host->events[1].data, "\"key\": {\"id\": 2}"));
    assert_int_equal(s->f->host->n_lost, 0);
}

static void notify_tells_a_row_in_part(void **state)
{
    a_row_by_triggers_is_told_in_part(*state, "WIN1252", "notify");
}

static void outbox_tells_a_row_in_part(void **state)
{
    a_row_by_triggers_is_told_in_part(*state, "WIN1252", "outbox");
}

static void outbox_tells_a_row_of_no_encoding_in_part(void **state)
{
    a_row_by_triggers_is_told_in_part(*state, "SQL_ASCII", "outbox");
}

/* Written by hand, or before it was refused. */
static void a_row_of_the_outbox_is_passed_by(void **state)
{
    struct stage *s = *state;
    open_database(s, "WIN1252", "outbox");
    open_source(s, "");
    run(s, "INSERT INTO fanwire.outbox (channel, payload) VALUES ('t', 'one'), ('t', E'\x81'), "
           "('t', E'\xfc'), (E'\x81', 'x'); SELECT pg_notify('fanwire', '')");
    RUN_UNTIL(s->f->host, s->f->host->n_refused_events == 2);
    assert_int_equal(s->f->host->n_events, 2);
    assert_string_equal(s->f->host->events[0].data, "one");
    assert_string_equal(s->f->host->events[1].data, "ü");
    run(s, "SELECT fanwire_publish('t', 'last')");
    expect_last(s, "last");
    assert_int_equal(s->f->host->n_lost, 0);
}

/* What stands there at the start, too. */
static void a_row_of_the_history_is_passed_by(void **state)
{
    struct stage *s = *state;
    open_database(s, "WIN1252", "outbox");
    run(s, "INSERT INTO fanwire.outbox (channel, payload) VALUES ('t', E'\x81'), ('t', 'two')");
    open_source(s, "");
    assert_int_equal(s->f->host->n_events, 1);
    assert_int_equal(s->f->host->n_refused_events, 1);
}

static void sql_ascii_goes_through_the_wal(void **state)
{
    struct stage *s = *state;
    open_database(s, "SQL_ASCII", "wal");
    open_source(s, "?node=a");
    run(s, "INSERT INTO t VALUES (1, 'a'), (2, E'\x81'), (3, 'ü')");
    expect_last(s, "\"ü\"");
    assert_int_equal(s->f->host->n_events, 3);
    assert_non_null(strstr(s->f->host->events[1].data, "\"c\":\"\xef\xbf\xbd\"")); /* U+FFFD */
    fails(s, "SELECT fanwire_publish('t', E'\x81')", "22021");
    assert_int_equal(s->f->host->n_lost, 0);
}

/* The server cannot send it: what is left of the transaction is a gap, and the stream goes on. */
static void a_transaction_of_the_wal_is_passed_by(void **state)
{
    struct stage *s = *state;
    struct fw_host *host = s->f->host;
    open_database(s, "WIN1252", "wal");
    open_source(s, "?node=a");
    run(s, "BEGIN; INSERT INTO t VALUES (1, 'first'); INSERT INTO t VALUES (2, E'\x81'); "
           "INSERT INTO t VALUES (3, 'third'); COMMIT");
    run(s, "INSERT INTO t VALUES (4, E'\xfc')");
    RUN_UNTIL(host, host->n_lost == 1);
    source_postgres.open(s->f->source);
    expect_last(s, "\"ü\"");
    const struct fake_event *first = event_with(s, "first"), *last = event_with(s, "\"ü\"");
    assert_int_equal(host->n_events, 2);
    assert_int_equal(host->n_gaps, 1);
    assert_int_equal(host->gaps[0].before, 1);
    assert_int_equal(host->n_refused_events, 1);
    assert_true(host->gaps[0].pos[0] > first->pos[0] && host->gaps[0].pos[0] <= last->pos[0]);
    assert_int_equal(host->n_lost, 1);

    /* The slot still begins before it; that it was told is known by the log's position. */
    source_postgres.destroy(s->f->source);
    s->f->source = NULL;
    host->n_opened = host->n_lost = 0;
    char url[128];
    snprintf(url, sizeof url, "postgres://postgres@127.0.0.1:%%PORT%%/other?node=a");
    pg_fixture_source(s->f, url);
    source_postgres.open(s->f->source);
    RUN_UNTIL(host, host->n_lost == 1);
    source_postgres.open(s->f->source);
    run(s, "INSERT INTO t VALUES (5, 'five')");
    expect_last(s, "five");
    assert_int_equal(host->n_events, 3);
    assert_int_equal(host->n_gaps, 1);
}

/* Anybody may write such a message, outside of a transaction too. */
static void a_message_of_the_wal_is_passed_by(void **state)
{
    struct stage *s = *state;
    struct fw_host *host = s->f->host;
    open_database(s, "WIN1252", "wal");
    open_source(s, "?node=a");
    run(s, "SELECT fanwire_publish('t', 'one')");
    expect_last(s, "one");
    run(s, "SELECT pg_logical_emit_message(false, E'\x81', 'x')");
    run(s, "SELECT pg_switch_wal()");
    RUN_UNTIL(host, host->n_lost == 1);
    source_postgres.open(s->f->source);
    RUN_UNTIL(host, host->n_opened == 2);
    run(s, "SELECT fanwire_publish('t', 'two')");
    expect_last(s, "two");
    assert_int_equal(host->n_gaps, 1);
}

/* What the server fails to send takes other notifications along: that is a gap. */
static void a_notification_that_cannot_be_sent_is_a_loss(void **state)
{
    struct stage *s = *state;
    struct fw_host *host = s->f->host;
    open_database(s, "WIN1252", "notify");
    open_source(s, "");
    pg_fixture_subscribe(s->f, "x");
    run(s, "NOTIFY x, E'\x81'");
    RUN_UNTIL(host, host->n_lost == 1);
    assert_non_null(strstr(host->lost_message, "UTF8"));
}

static void a_notification_of_no_encoding_is_bytes(void **state)
{
    struct stage *s = *state;
    open_database(s, "SQL_ASCII", "notify");
    open_source(s, "");
    pg_fixture_subscribe(s->f, "x");
    run(s, "NOTIFY x, E'\x81'");
    expect_last(s, "\x81");
    assert_int_equal(s->f->host->n_lost, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(is_refused_at_the_writer),
        TEST(notify_tells_a_row_in_part),
        TEST(outbox_tells_a_row_in_part),
        TEST(outbox_tells_a_row_of_no_encoding_in_part),
        TEST(a_row_of_the_outbox_is_passed_by),
        TEST(a_row_of_the_history_is_passed_by),
        TEST(sql_ascii_goes_through_the_wal),
        TEST(a_transaction_of_the_wal_is_passed_by),
        TEST(a_message_of_the_wal_is_passed_by),
        TEST(a_notification_that_cannot_be_sent_is_a_loss),
        TEST(a_notification_of_no_encoding_is_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
