/* The streaming connection against a private server: queries, the replication protocol, silence.
 * The stream here is the physical one, which needs neither a slot nor wal_level=logical. */
#include "pg_fixture.h"

#include "pg_mode.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A session, and what happened on it as text. */
struct stage {
    struct pg_fixture *f;
    struct pg_url url;
    struct pg_session session;
    char told[1024];
    char value[64];      /* first column of the last result */
    char lsn[64];        /* third column: IDENTIFY_SYSTEM's */
    unsigned n_messages; /* of the stream */
    bool asks_when_silent;
};

static void tell(struct stage *s, const char *what)
{
    size_t len = strlen(s->told);
    snprintf(s->told + len, sizeof s->told - len, "%s%s", len ? "," : "", what);
}

static void on_connected(void *arg)
{
    tell(arg, "connected");
}

static void on_result(void *arg, const PGresult *result)
{
    struct stage *s = arg;
    tell(s, "result");
    if (PQntuples(result) > 0)
        snprintf(s->value, sizeof s->value, "%s", PQgetvalue(result, 0, 0));
    if (PQntuples(result) > 0 && PQnfields(result) > 2)
        snprintf(s->lsn, sizeof s->lsn, "%s", PQgetvalue(result, 0, 2));
}

static void on_ended(void *arg)
{
    struct stage *s = arg;
    tell(s, s->session.failed ? "failed" : s->session.streaming ? "streaming" : "ended");
}

static void on_input(void *arg)
{
    struct stage *s = arg;
    char *data;
    while (s->session.streaming && pg_session_copy(&s->session, &data) > 0) {
        s->n_messages += data[0] == 'w';
        PQfreemem(data);
    }
}

static void on_silent(void *arg)
{
    struct stage *s = arg;
    tell(s, "silent");
    if (s->asks_when_silent)
        pg_session_query(&s->session, "SELECT 1", PG_ANSWER_MS);
}

static const struct pg_session_events events = { .connected = on_connected,
                                                 .result = on_result,
                                                 .ended = on_ended,
                                                 .input = on_input,
                                                 .silent = on_silent };

static void on_opened(void *arg)
{
    tell(arg, "opened");
}

static void on_lost(void *arg, const char *message, bool misconfigured)
{
    struct stage *s = arg;
    tell(s, misconfigured ? "misconfigured" : "lost");
    snprintf(s->value, sizeof s->value, "%s", message);
}

static const struct pg_session_owner owner = { .opened = on_opened, .lost = on_lost };

static int setup(void **state)
{
    struct stage *s = calloc(1, sizeof *s);
    char url[128];
    assert_non_null(s);
    assert_int_equal(pg_fixture_setup((void **)&s->f), 0);
    snprintf(url, sizeof url, "postgres://postgres@127.0.0.1:%s/postgres?replication=true",
             getenv("PGPORT")); /* that parameter is not the URL's to set */
    assert_int_equal(pg_url_parse(url, &s->url, NULL), 0);
    pg_session_init(&s->session, s->f->host, &s->url, &owner, s);
    pg_session_hand_over(&s->session, &events, s);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct stage *s = *state;
    pg_session_done(&s->session);
    pg_url_done(&s->url);
    pg_fixture_teardown((void **)&s->f);
    free(s);
    return 0;
}

/* Runs until exactly this has happened since the last call. */
static void expect(struct stage *s, const char *told)
{
    RUN_UNTIL(s->f->host, strlen(s->told) >= strlen(told));
    assert_string_equal(s->told, told);
    s->told[0] = '\0';
}

static void query(struct stage *s, const char *sql)
{
    pg_session_query(&s->session, sql, PG_ANSWER_MS);
}

static void open_stream(struct stage *s)
{
    char sql[128];
    pg_session_open(&s->session);
    expect(s, "connected");
    pg_session_reopen(&s->session, true);
    expect(s, "connected");
    query(s, "IDENTIFY_SYSTEM");
    expect(s, "result,ended");
    snprintf(sql, sizeof sql, "START_REPLICATION PHYSICAL %s", s->lsn);
    query(s, sql);
    expect(s, "streaming");
}

static void runs_one_query_after_the_other(void **state)
{
    struct stage *s = *state;
    pg_session_open(&s->session);
    expect(s, "connected");
    query(s, "SELECT 1; SELECT 2");
    expect(s, "result,result,ended");
    assert_string_equal(s->value, "2");
    query(s, "SELECT 1/0");
    expect(s, "failed");
    assert_string_equal(s->session.sqlstate, "22012");
    assert_string_equal(s->session.error, "division by zero");
    assert_false(s->session.transient);
    query(s, "SELECT 3");
    expect(s, "result,ended");
    assert_string_equal(s->session.sqlstate, "");
}

static void speaks_the_replication_protocol(void **state)
{
    struct stage *s = *state;
    open_stream(s);
    assert_string_equal(s->value, pg_fixture_sql(s->f, "SELECT system_identifier FROM "
                                                       "pg_control_system()"));
    assert_string_equal(pg_fixture_sql(s->f, "SELECT count(*) FROM pg_stat_activity WHERE "
                                             "application_name = 'fanwire'"),
                        "1"); /* the ordinary connection has gone */
    pg_fixture_sql(s->f, "SELECT pg_logical_emit_message(false, 'x', 'y'); SELECT pg_switch_wal()");
    RUN_UNTIL(s->f->host, s->n_messages > 0);
    assert_string_equal(s->told, "");
}

static void sends_into_the_stream(void **state)
{
    struct stage *s = *state;
    char status[34] = { 'r' };
    open_stream(s);
    status[33] = 1; /* … and asks for an answer, which the server gives as a keep-alive */
    int64_t before = s->session.heard_ms;
    host_advance(s->f->host, 5);
    pg_session_put(&s->session, status, sizeof status);
    RUN_UNTIL(s->f->host, s->session.heard_ms > before);
    assert_true(s->session.streaming);
}

static void a_stream_that_is_ended_is_lost(void **state)
{
    struct stage *s = *state;
    open_stream(s);
    pg_fixture_sql(s->f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication");
    RUN_UNTIL(s->f->host, strstr(s->told, "lost"));
    assert_int_equal(s->session.state, PG_CLOSED);
    assert_false(s->session.streaming);
    assert_non_null(strstr(s->value, "terminating"));
}

static void queries_of_the_stream_that_fail_are_told(void **state)
{
    struct stage *s = *state;
    pg_session_open(&s->session);
    expect(s, "connected");
    pg_session_reopen(&s->session, true);
    expect(s, "connected");
    query(s, "START_REPLICATION SLOT no_such_slot LOGICAL 0/0");
    expect(s, "failed");
    assert_string_equal(s->session.sqlstate, "55000"); /* wal_level */
    query(s, "IDENTIFY_SYSTEM");
    expect(s, "result,ended");
}

static void a_silent_session_is_asked(void **state)
{
    struct stage *s = *state;
    s->asks_when_silent = true;
    pg_session_open(&s->session);
    expect(s, "connected");
    host_advance(s->f->host, 15000);
    expect(s, "silent,result,ended");
}

static void a_silent_session_that_nobody_asks_is_lost(void **state)
{
    struct stage *s = *state;
    pg_session_open(&s->session);
    expect(s, "connected");
    host_advance(s->f->host, 15000);
    expect(s, "silent");
    host_advance(s->f->host, 10000);
    expect(s, "lost");
    assert_string_equal(s->value, "the server did not answer within 10 s");
}

/* Advances the clock to the stream's end, which comes not a moment before; the server is stopped.
 */
static void stream_is_lost_after(struct stage *s, int64_t ms)
{
    host_run_ms(s->f->host, 50); /* what was on its way */
    s->told[0] = '\0';
    host_advance(s->f->host, 15000);
    expect(s, "silent");
    host_advance(s->f->host, ms - 1000);
    host_run_ms(s->f->host, 50);
    assert_string_equal(s->told, "");
    host_advance(s->f->host, 1000);
    expect(s, "lost");
}

static pid_t stop_streamer(struct stage *s)
{
    pid_t pid = (pid_t)strtol(pg_fixture_sql(s->f, "SELECT pid FROM pg_stat_replication "
                                                   "ORDER BY backend_start DESC LIMIT 1"),
                              NULL, 10);
    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    return pid;
}

/* What a server decodes without a word takes as long as it takes, and begins anew with each
 * connection. */
static void a_silent_stream_is_given_more_each_time(void **state)
{
    struct stage *s = *state;
    pid_t stopped[3];
    open_stream(s);
    stopped[0] = stop_streamer(s);
    stream_is_lost_after(s, 60000);
    assert_string_equal(s->value, "the server did not answer within 60 s");
    open_stream(s);
    stopped[1] = stop_streamer(s);
    stream_is_lost_after(s, 120000);
    open_stream(s);
    pg_session_went_on(&s->session);
    stopped[2] = stop_streamer(s);
    stream_is_lost_after(s, 60000);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(kill(stopped[i], SIGCONT), 0);
}

static void a_query_may_be_given_more_time(void **state)
{
    struct stage *s = *state;
    pg_session_open(&s->session);
    expect(s, "connected");
    pg_fixture_sql(s->f, "SELECT pg_advisory_lock(1)");
    pg_session_query(&s->session, "SELECT pg_advisory_lock(1)", 60000);
    host_advance(s->f->host, 59000);
    host_run_ms(s->f->host, 20);
    assert_string_equal(s->told, "");
    pg_fixture_sql(s->f, "SELECT pg_advisory_unlock(1)");
    expect(s, "result,ended");
}

static void what_is_appended_before_opening_is_not_paced(void **state)
{
    struct stage *s = *state;
    pg_session_open(&s->session);
    expect(s, "connected");
    s->f->host->flushes_until_full = 1;
    for (int i = 0; i < 1000; i++)
        assert_true(pg_session_appended(&s->session, 1));
    pg_session_opened(&s->session, "test", "none", 7);
    expect(s, "opened");
    assert_int_equal(s->f->host->n_opened, 1);
    assert_int_equal(s->f->host->identity, 7);
    s->f->host->flushes_until_full = 1;
    unsigned n = 0;
    while (n < 1000 && pg_session_appended(&s->session, 1))
        n++;
    assert_int_equal(n, 255);
    assert_true(s->session.paused);
}

/* A few large events are as much of the log as many small ones. */
static void large_events_are_flushed_early(void **state)
{
    struct stage *s = *state;
    size_t quarter = fw_host_event_max(s->f->host) / 4;
    pg_session_open(&s->session);
    expect(s, "connected");
    pg_session_opened(&s->session, "test", "none", 7);
    expect(s, "opened");
    s->f->host->flushes_until_full = 1;
    unsigned n = 0;
    while (n < 1000 && pg_session_appended(&s->session, quarter))
        n++;
    assert_int_equal(n, 3);
}

static void identities_differ_by_each_part(void **state)
{
    static const struct pg_server servers[] = {
        { .system = 1, .timeline = 2, .database = 3 },
        { .system = 2, .timeline = 2, .database = 3 },
        { .system = 1, .timeline = 3, .database = 3 },
        { .system = 1, .timeline = 2, .database = 4 },
    };
    uint64_t first = pg_identity(&servers[0], "wal", "slot");
    assert_true(first != 0);
    assert_true(first == pg_identity(&servers[0], "wal", "slot"));
    assert_true(first != pg_identity(&servers[0], "outbox", "slot"));
    assert_true(first != pg_identity(&servers[0], "wal", "other"));
    for (size_t i = 1; i < sizeof servers / sizeof *servers; i++)
        assert_true(first != pg_identity(&servers[i], "wal", "slot"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(runs_one_query_after_the_other),
        TEST(speaks_the_replication_protocol),
        TEST(sends_into_the_stream),
        TEST(a_stream_that_is_ended_is_lost),
        TEST(queries_of_the_stream_that_fail_are_told),
        TEST(a_silent_session_is_asked),
        TEST(a_silent_session_that_nobody_asks_is_lost),
        TEST(a_silent_stream_is_given_more_each_time),
        TEST(a_query_may_be_given_more_time),
        TEST(what_is_appended_before_opening_is_not_paced),
        TEST(large_events_are_flushed_early),
        TEST(identities_differ_by_each_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
