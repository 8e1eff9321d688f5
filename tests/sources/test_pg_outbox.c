/* Mode outbox in a private server: what is history and what is live, how much of it, what is told
 * when rows are missing, and publishing. */
#include "pg_fixture.h"

#include <fanwire.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct fw_source_class source_postgres;

static void run(struct pg_fixture *f, const char *sql)
{
    PGresult *result = PQexec(f->admin, sql);
    if (PQresultStatus(result) == PGRES_FATAL_ERROR)
        fail_msg("%s", PQerrorMessage(f->admin));
    PQclear(result);
}

static int setup(void **state)
{
    int r = pg_fixture_setup(state);
    struct pg_fixture *f = *state;
    run(f, "SET client_min_messages = warning");
    run(f, fw_sql("postgres", "outbox"));
    return r;
}

static int teardown(void **state)
{
    struct pg_fixture *f = *state;
    run(f, "LOCK TABLE fanwire.outbox_state, fanwire.outbox; " /* the source may be reading */
           "DROP SCHEMA fanwire CASCADE; DROP FUNCTION public.fanwire_status()");
    return pg_fixture_teardown(state);
}

/* What the loss of the process does: a new source on the log as it was. */
static void replace_source(struct pg_fixture *f)
{
    source_postgres.destroy(f->source);
    f->source = NULL;
    f->host->n_lost = f->host->n_opened = 0;
    pg_fixture_open(f, "");
}

static void begins_with_the_history(void **state)
{
    struct pg_fixture *f = *state;
    struct fw_host *host = f->host;
    run(f, "BEGIN; SELECT fanwire_publish('a', 'one', 'k', 'me'); "
           "SELECT fanwire_publish('b', 'two'); COMMIT; SELECT fanwire_publish('a', 'three')");
    pg_fixture_open(f, "");
    assert_string_equal(host->mode, "outbox");
    assert_int_equal(host->traits, FW_SOURCE_DURABLE | FW_SOURCE_ORDERED);
    assert_int_equal(host->n_begun, 1);
    assert_int_equal(host->floor[0], 0);
    assert_int_equal(host->floor[1], 1);
    assert_int_equal(host->n_events, 3);
    run(f, "SELECT fanwire_publish('a', 'four')");
    RUN_UNTIL(host, host->n_events == 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(host->events[i].history, i < 3);
    assert_string_equal(host->events[0].key, "k");
    assert_string_equal(host->events[0].from, "me");
    assert_null(host->events[1].key);
    assert_int_equal(host->events[0].pos[0], host->events[1].pos[0]); /* one transaction */
    assert_int_equal(host->events[0].pos[1] + 1, host->events[1].pos[1]);
    assert_true(host->events[2].pos[0] > host->events[1].pos[0]);
    uint64_t created = strtoull(
        pg_fixture_sql(f, "SELECT (extract(epoch FROM created) * 1000)::bigint FROM fanwire.outbox "
                          "ORDER BY id LIMIT 1"),
        NULL, 10);
    assert_int_equal(host->events[0].time_ms, created);
}

#define PUBLISH "SELECT fanwire_publish('a', 'in the former mode')"

static PGconn *begin(const char *sql)
{
    PGconn *conn = PQconnectdb("application_name=writer");
    PQclear(PQexec(conn, "BEGIN"));
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s", PQerrorMessage(conn));
    PQclear(result);
    return conn;
}

static void commit(PGconn *conn)
{
    PGresult *result = PQexec(conn, "COMMIT");
    assert_int_equal(PQresultStatus(result), PGRES_COMMAND_OK);
    PQclear(result);
    PQfinish(conn);
}

/* Not opened while the transaction is open, though it sees the new mode; afterwards anew. */
static void expect_to_wait(struct pg_fixture *f, PGconn *conn, const char *mode)
{
    struct fw_host *host = f->host;
    unsigned n = host->n_opened;
    source_postgres.open(f->source);
    host->log[0] = '\0';
    for (int i = 0; i < 100 && !strstr(host->log, "it waits for"); i++) {
        host_run_ms(host, 50);
        host_advance(host, 100);
    }
    assert_int_equal(host->n_opened, n);
    assert_non_null(strstr(host->log, "(writer)"));
    commit(conn);
    RUN_UNTIL(host, host->n_opened == n + 1);
    assert_string_equal(host->mode, mode);
}

/* What it has published arrives in the former mode only: the gap of the opening covers it. */
static void a_switch_waits_for_who_published_before(void **state)
{
    static const char *const modes[] = { "notify", "outbox" };
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    for (unsigned i = 0; i < 2; i++) {
        PGconn *conn = begin(PUBLISH);
        f->host->n_lost = 0;
        run(f, fw_sql("postgres", modes[i]));
        RUN_UNTIL(f->host, f->host->n_lost == 1);
        expect_to_wait(f, conn, modes[i]);
    }
    assert_int_equal(f->host->n_begun, 2);
}

/* Also when nobody read at that moment, and not when the same mode was installed again, or an
 * earlier form was. */
static void a_switch_waits_at_a_start_too(void **state)
{
    struct pg_fixture *f = *state;
    run(f, fw_sql("postgres", "notify"));
    PGconn *conn = begin(PUBLISH);
    run(f, fw_sql("postgres", "outbox"));
    run(f, fw_sql("postgres", "outbox"));
    pg_fixture_source(f, "");
    expect_to_wait(f, conn, "outbox");

    conn = begin("SELECT pg_current_xact_id()");
    run(f, fw_sql("postgres", "outbox"));
    replace_source(f);
    run(f, "ALTER TABLE fanwire.installation DROP COLUMN since");
    replace_source(f);
    run(f, fw_sql("postgres", "outbox"));
    replace_source(f);
    run(f, "UPDATE fanwire.installation SET since = 1000000000"); /* of a dump */
    replace_source(f);
    commit(conn);
}

static void goes_on_after_the_newest_position_of_the_log(void **state)
{
    struct pg_fixture *f = *state;
    struct fw_host *host = f->host;
    pg_fixture_open(f, "");
    run(f, "SELECT fanwire_publish('a', '1')");
    RUN_UNTIL(host, host->n_events == 1);
    source_postgres.destroy(f->source);
    f->source = NULL;
    run(f, "SELECT fanwire_publish('a', '2')");
    host->n_opened = 0;
    pg_fixture_open(f, "");
    RUN_UNTIL(host, host->n_events == 2);
    assert_false(host->events[1].history); /* connected clients have not had it */
    assert_string_equal(host->events[1].data, "2");
    assert_int_equal(host->n_begun, 1);
    assert_int_equal(host->n_gaps, 0);
}

/* Three quarters of a log of 16 events of the greatest size. */
static void the_newest_part_that_fits_is_the_history(void **state)
{
    struct pg_fixture *f = *state;
    struct fw_host *host = f->host;
    host->event_max = 10000;
    run(f, "SELECT fanwire_publish('a', repeat('x', 5000) || i) FROM generate_series(1, 100) i");
    pg_fixture_open(f, "");
    assert_in_range(host->n_events, 20, 24);
    assert_string_equal(host->events[host->n_events - 1].data + 5000, "100");
    char expected[32];
    snprintf(expected, sizeof expected, "%zu", 101 - host->n_events);
    assert_string_equal(host->events[0].data + 5000, expected);
    assert_int_equal(host->floor[1] + 1, host->events[0].pos[1]);
}

static void what_was_pruned_unread_is_a_gap(void **state)
{
    struct pg_fixture *f = *state;
    struct fw_host *host = f->host;
    pg_fixture_open(f, "");
    run(f, "SELECT fanwire_publish('a', '1')");
    RUN_UNTIL(host, host->n_events == 1);
    /* With what it has read pruned nothing is missing. */
    assert_string_equal(pg_fixture_sql(f, "SELECT fanwire_prune('0 s')"), "1");
    replace_source(f);
    assert_int_equal(host->n_gaps, 0);
    source_postgres.destroy(f->source);
    f->source = NULL;
    run(f, "SELECT fanwire_publish('a', '2'); SELECT fanwire_publish('a', '3')");
    uint64_t last = strtoull(pg_fixture_sql(f, "SELECT max(id) FROM fanwire.outbox"), NULL, 10);
    assert_string_equal(pg_fixture_sql(f, "SELECT fanwire_prune('0 s')"), "2");
    run(f, "SELECT fanwire_publish('a', '4')");
    host->n_opened = 0;
    pg_fixture_open(f, "");
    RUN_UNTIL(host, host->n_events == 2);
    assert_int_equal(host->n_gaps, 1);
    assert_string_equal(host->gaps[0].reason, "expired");
    assert_int_equal(host->gaps[0].before, 1);
    assert_int_equal(host->gaps[0].pos[1], last);
    assert_false(host->gaps[0].history);
    assert_string_equal(host->events[1].data, "4");
    assert_int_equal(host->n_begun, 1);
}

static void only_a_beginning_below_the_horizon_is_pruned(void **state)
{
    struct pg_fixture *f = *state;
    run(f, "SELECT fanwire_publish('a', '1'); SELECT fanwire_publish('a', '2'); "
           "SELECT fanwire_publish('a', '3'); UPDATE fanwire.outbox SET created = now() - "
           "interval '1 h' WHERE payload IN ('1', '3')");
    assert_string_equal(pg_fixture_sql(f, "SELECT fanwire_prune('1 min')"), "1"); /* 2 is young */
    PGconn *other = PQconnectdb("application_name=test");
    PQclear(PQexec(other, "BEGIN; SELECT pg_current_xact_id()"));
    run(f, "SELECT fanwire_publish('a', '4')");
    assert_string_equal(pg_fixture_sql(f, "SELECT fanwire_prune('0 s')"), "2");
    PQfinish(other);
    assert_string_equal(pg_fixture_sql(f, "SELECT payload FROM fanwire.outbox"), "4");
    assert_string_equal(pg_fixture_sql(f, "SELECT floor_id FROM fanwire.outbox_state"), "3");
}

static void too_large_an_event_stays_where_it_is(void **state)
{
    struct pg_fixture *f = *state;
    struct fw_host *host = f->host;
    host->event_max = 10000;
    pg_fixture_open(f, "");
    run(f,
        "SELECT fanwire_publish('a', repeat('x', 1000000)); SELECT fanwire_publish('a', 'next')");
    RUN_UNTIL(host, host->n_events == 2);
    assert_int_equal(host->events[0].len, 1000000);
    assert_string_equal(host->events[0].data, ""); /* it was not even sent */
    assert_string_equal(host->events[1].data, "next");
}

static void publishes_and_tells_the_position(void **state)
{
    static const char bytes[] = "a\0\xff";
    struct pg_fixture *f = *state;
    struct fw_host *host = f->host;
    pg_fixture_open(f, "");
    struct fw_publish event = { .request = 7,
                                .channel = "a \"b\"\n",
                                .channel_len = 5,
                                .key = "k",
                                .from = "me",
                                .data = bytes,
                                .len = 3 };
    source_postgres.publish(f->source, &event);
    RUN_UNTIL(host, host->n_answers == 1 && host->n_events == 1);
    assert_null(host->answers[0].code);
    char id[48];
    snprintf(id, sizeof id, "p%llu.%llu", (unsigned long long)host->events[0].pos[0],
             (unsigned long long)host->events[0].pos[1]);
    assert_string_equal(host->answers[0].id, id);
    assert_int_equal(host->events[0].len, 3);
    assert_memory_equal(host->events[0].data, bytes, 3);
    assert_string_equal(host->events[0].key, "k");
    assert_string_equal(host->events[0].from, "me");
    event.channel = "c\n"; /* what Postgres refuses is told, and harms no other */
    event.channel_len = 2;
    source_postgres.publish(f->source, &event);
    event.channel = "c";
    event.channel_len = 1;
    source_postgres.publish(f->source, &event);
    RUN_UNTIL(host, host->n_answers == 3);
    assert_string_equal(host->answers[1].code, "source-refused");
    assert_non_null(strstr(host->answers[1].message, "control characters"));
    assert_null(host->answers[2].code);
}

/* A batch may be larger than what readers want at once; it is taken, and nothing after it. */
static void nothing_is_read_while_paused(void **state)
{
    struct pg_fixture *f = *state;
    struct fw_host *host = f->host;
    pg_fixture_open(f, "");
    host->flushes_until_full = 1;
    run(f, "SELECT fanwire_publish('a', i::text) FROM generate_series(1, 3000) i");
    RUN_UNTIL(host, host->n_events > 0);
    host->flushes_until_full = 0;
    size_t taken = host->n_events;
    assert_in_range(taken, 1, 512);
    host_advance(host, 10000);
    host_run_ms(host, 100);
    assert_int_equal(host->n_events, taken);
    source_postgres.pause(f->source, false);
    RUN_UNTIL(host, host->n_events == 3000);
    assert_in_range(host->max_unflushed, 1, 256);
    for (size_t i = 0; i < 3000; i++)
        assert_int_equal(strtol(host->events[i].data, NULL, 10), i + 1);
}

static void what_cannot_be_read_names_the_command(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    run(f, "DROP TABLE fanwire.outbox_state; NOTIFY fanwire");
    RUN_UNTIL(f->host, f->host->n_lost > 0);
    assert_int_equal(f->host->n_misconfigured, 1);
    assert_non_null(strstr(f->host->lost_message, "fanwire sql postgres --mode outbox | psql"));
    source_postgres.open(f->source);
    RUN_UNTIL(f->host, f->host->n_misconfigured == 2);
    run(f, fw_sql("postgres", "outbox"));
    f->host->n_lost = 0;
    pg_fixture_open(f, "");
    assert_int_equal(f->host->n_begun, 2); /* it is another one */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(begins_with_the_history),
        TEST(a_switch_waits_for_who_published_before),
        TEST(a_switch_waits_at_a_start_too),
        TEST(goes_on_after_the_newest_position_of_the_log),
        TEST(the_newest_part_that_fits_is_the_history),
        TEST(what_was_pruned_unread_is_a_gap),
        TEST(only_a_beginning_below_the_horizon_is_pruned),
        TEST(too_large_an_event_stays_where_it_is),
        TEST(publishes_and_tells_the_position),
        TEST(nothing_is_read_while_paused),
        TEST(what_cannot_be_read_names_the_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
