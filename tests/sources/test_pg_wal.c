/* Mode wal on a fake hub: history, going on, pausing amid a transaction, what is confirmed. */
#include "pg_fixture.h"

#include "pg_row.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct fw_source_class source_postgres;

#define DURABLE "?mode=wal&node=a"

static void run(struct pg_fixture *f, const char *sql)
{
    PGresult *result = PQexec(f->admin, sql);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s", PQerrorMessage(f->admin));
    PQclear(result);
}

static int setup(void **state)
{
    int r = pg_fixture_setup(state);
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "SET client_min_messages = warning");
    run(f, fw_sql("postgres", "wal"));
    return r;
}

static void leave(struct pg_fixture *f)
{
    if (f->source)
        source_postgres.destroy(f->source);
    f->source = NULL;
}

/* The server takes a moment to see that its client has gone. */
static int teardown(void **state)
{
    struct pg_fixture *f = *state;
    leave(f);
    run(f, "DO $$ BEGIN FOR i IN 1..500 LOOP "
           "EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots WHERE active); "
           "PERFORM pg_sleep(0.01); END LOOP; END $$;"
           "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    return pg_fixture_teardown(state);
}

static void publish(struct pg_fixture *f, int first, int last)
{
    pg_fixture_sql(f, "SELECT fanwire_publish('x', 'e' || i) FROM generate_series(%d, %d) i", first,
                   last);
}

static void expect(struct pg_fixture *f, size_t first, size_t last)
{
    char text[16];
    RUN_UNTIL(f->host, f->host->n_events >= last + 1 - first);
    assert_int_equal(f->host->n_events, last + 1 - first);
    for (size_t i = first; i <= last; i++) {
        snprintf(text, sizeof text, "e%zu", i);
        assert_string_equal(f->host->events[i - first].data, text);
    }
}

static void refuses_keys_and_clients_that_cannot_travel(void **state)
{
    struct pg_fixture *f = *state;
    assert_non_null(
        strstr(pg_fixture_sql_fails(f, "SELECT fanwire_publish('c', 'x', key => repeat('k', 256))"),
               "a key has 1 to 255 bytes, this one 256"));
    assert_non_null(strstr(pg_fixture_sql_fails(f, "SELECT fanwire_publish('c', 'x', key => '')"),
                           "a key has 1 to 255 bytes, this one 0"));
    assert_non_null(
        strstr(pg_fixture_sql_fails(f,
                                    "SELECT fanwire_publish('c', 'x', client => repeat('x', 65))"),
               "at most 64 bytes, this one 65"));
    pg_fixture_sql(f, "SELECT fanwire_publish('c', 'x', key => repeat('k', 255), client => '')");
}

static void positions_rise(struct pg_fixture *f)
{
    for (size_t i = 1; i < f->host->n_events; i++) {
        const uint64_t *a = f->host->events[i - 1].pos, *b = f->host->events[i].pos;
        assert_true(a[0] < b[0] || (a[0] == b[0] && a[1] < b[1]));
    }
}

static void a_node_has_a_durable_slot(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, DURABLE);
    assert_string_equal(f->host->mode, "wal");
    assert_int_equal(f->host->traits, FW_SOURCE_DURABLE | FW_SOURCE_ORDERED);
    assert_string_equal(pg_fixture_sql(f, "SELECT slot_name || temporary::text FROM "
                                          "pg_replication_slots"),
                        "fanwire_afalse");
    assert_int_equal(f->host->n_begun, 1);
    publish(f, 0, 2);
    publish(f, 3, 3);
    expect(f, 0, 3);
    positions_rise(f);
    assert_int_equal(f->host->events[0].pos[0], f->host->events[2].pos[0]);
    assert_false(f->host->events[0].history);
    assert_true(f->host->events[0].time_ms > 0);
}

static void without_a_node_it_is_temporary(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    assert_string_equal(f->host->mode, "wal");
    assert_int_equal(f->host->traits, FW_SOURCE_ORDERED);
    assert_non_null(strstr(f->host->guarantee, "--node"));
    assert_string_equal(pg_fixture_sql(f, "SELECT temporary FROM pg_replication_slots"), "t");
}

/* An empty log is filled with what is kept; what is committed later is news. */
static void the_past_is_history(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, DURABLE);
    publish(f, 0, 99);
    expect(f, 0, 99);
    leave(f);
    publish(f, 100, 149);
    uint64_t identity = f->host->log_identity;
    f->host->log_identity = 0;
    host_forget_events(f->host);
    pg_fixture_open(f, DURABLE);
    assert_int_equal(f->host->log_identity, identity);
    expect(f, 0, 149); /* before it opened */
    positions_rise(f);
    for (size_t i = 0; i < 150; i++)
        assert_true(f->host->events[i].history);
    publish(f, 150, 150);
    expect(f, 0, 150);
    assert_false(f->host->events[150].history);
}

/* Only the process was restarted, with half of a transaction in the log. */
static void the_log_is_gone_on_with(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, DURABLE);
    publish(f, 0, 99);
    expect(f, 0, 99);
    leave(f);
    memcpy(f->host->log_pos, f->host->events[49].pos, sizeof f->host->log_pos);
    host_forget_events(f->host);
    pg_fixture_open(f, DURABLE);
    publish(f, 100, 101);
    RUN_UNTIL(f->host, f->host->n_events >= 52);
    assert_int_equal(f->host->n_events, 52);
    assert_string_equal(f->host->events[0].data, "e50");
    assert_string_equal(f->host->events[51].data, "e101");
    assert_false(f->host->events[0].history);
    assert_int_equal(f->host->n_begun, 1);
    assert_int_equal(f->host->n_gaps, 0);
}

/* What it has published is in the WAL, where nobody reads any more: the gap of the new mode's
 * opening covers it. And the other way round, where the slot is there already. */
static void a_switch_waits_for_who_published_before(void **state)
{
    static const char *const modes[] = { "outbox", "wal" };
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "?node=a");
    for (size_t i = 0; i < 2; i++) {
        PGconn *conn = PQconnectdb("application_name=writer");
        PQclear(PQexec(conn, "BEGIN"));
        PQclear(PQexec(conn, "SELECT fanwire_publish('x', 'in the former mode')"));
        unsigned n = f->host->n_opened;
        f->host->n_lost = 0;
        f->host->log[0] = '\0';
        run(f, fw_sql("postgres", modes[i]));
        RUN_UNTIL(f->host, f->host->n_lost == 1);
        source_postgres.open(f->source);
        for (int j = 0; j < 100 && !strstr(f->host->log, "it waits for"); j++) {
            host_run_ms(f->host, 50);
            host_advance(f->host, 100);
        }
        assert_non_null(strstr(f->host->log, "(writer)"));
        assert_int_equal(f->host->n_opened, n);
        PGresult *result = PQexec(conn, "COMMIT");
        assert_int_equal(PQresultStatus(result), PGRES_COMMAND_OK);
        PQclear(result);
        PQfinish(conn);
        RUN_UNTIL(f->host, f->host->n_opened > n || f->host->n_lost > 1);
        if (f->host->n_lost > 1) /* the publication is another one: the slot is made anew */
            source_postgres.open(f->source);
        RUN_UNTIL(f->host, f->host->n_opened == n + 1);
        assert_string_equal(f->host->mode, modes[i]);
    }
    assert_int_equal(f->host->n_begun, 3); /* each time another stream: everybody is told */
}

static void a_pause_amid_a_transaction(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, DURABLE);
    f->host->flushes_until_full = 2;
    publish(f, 0, 4999);
    RUN_UNTIL(f->host, f->host->flushes_until_full == 0);
    size_t n = f->host->n_events;
    assert_in_range(n, 1, 4998);
    f->host->flushes_until_full = 1; /* full */
    host_run_ms(f->host, 100);
    assert_int_equal(f->host->n_events, n);
    assert_in_range(f->host->max_unflushed, 1, 256);
    /* It goes on telling the server that it lives. */
    char before[64];
    snprintf(before, sizeof before, "%s",
             pg_fixture_sql(f, "SELECT reply_time FROM pg_stat_replication"));
    host_advance(f->host, 6000);
    host_run_ms(f->host, 200);
    assert_string_not_equal(pg_fixture_sql(f, "SELECT reply_time FROM pg_stat_replication"),
                            before);
    assert_int_equal(f->host->n_events, n);
    f->host->flushes_until_full = 0;
    source_postgres.pause(f->source, false);
    expect(f, 0, 4999);
    positions_rise(f);
}

static bool confirmed(struct pg_fixture *f, const char *lsn)
{
    return pg_fixture_sql(f, "SELECT confirmed_flush_lsn >= '%s' FROM pg_replication_slots",
                          lsn)[0] == 't';
}

/* Not before the retention is over; then also in silence, and the log is told before the server. */
static void what_is_old_is_confirmed(void **state)
{
    struct pg_fixture *f = *state;
    char lsn[32];
    pg_fixture_open(f, DURABLE "&retain-for=60s");
    publish(f, 0, 0);
    expect(f, 0, 0);
    snprintf(lsn, sizeof lsn, "%s", pg_fixture_sql(f, "SELECT pg_current_wal_lsn()"));
    for (int s = 0; s < 50; s += 5) {
        host_advance(f->host, 5000);
        host_run_ms(f->host, 50);
    }
    assert_false(confirmed(f, lsn));
    assert_true(f->host->gauges[FW_GAUGE_RETAINED_BYTES] > 0);
    for (int i = 0; i < 100 && !confirmed(f, lsn); i++) {
        host_advance(f->host, 5000);
        host_run_ms(f->host, 50);
    }
    assert_true(confirmed(f, lsn));
    assert_true(f->host->n_marks > 0);
    assert_true(f->host->log_pos[0] > f->host->events[0].pos[0]);
    leave(f);
    pg_fixture_open(f, DURABLE); /* the log knows: nothing was lost */
    assert_int_equal(f->host->n_gaps, 0);
}

static void a_slot_ahead_of_the_log_is_a_gap(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, DURABLE);
    publish(f, 0, 0);
    expect(f, 0, 0);
    leave(f);
    publish(f, 1, 1);
    run(f, "DO $$ BEGIN FOR i IN 1..500 LOOP "
           "EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots WHERE active); "
           "PERFORM pg_sleep(0.01); END LOOP; END $$");
    run(f, "SELECT pg_replication_slot_advance('fanwire_a', pg_current_wal_lsn())");
    host_forget_events(f->host);
    pg_fixture_open(f, DURABLE);
    assert_int_equal(f->host->n_gaps, 1);
    assert_string_equal(f->host->gaps[0].reason, "slot-lost");
    assert_false(f->host->gaps[0].history);
    assert_non_null(strstr(f->host->log, "[slot-lost]"));
    publish(f, 2, 2);
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_string_equal(f->host->events[0].data, "e2");
}

/* Its positions come a second time: they are of another identity. */
static void an_older_copy_of_the_database_begins_anew(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, DURABLE);
    publish(f, 0, 0);
    expect(f, 0, 0);
    leave(f);
    uint64_t identity = f->host->log_identity;
    f->host->log_pos[0] += UINT64_C(1) << 32;
    host_forget_events(f->host);
    pg_fixture_open(f, DURABLE);
    assert_non_null(strstr(f->host->log, "[restored]"));
    assert_true(f->host->log_identity != identity);
    expect(f, 0, 0);
    publish(f, 1, 1);
    expect(f, 0, 1);
}

static void rows_carry_the_whole_transaction_id(void **state)
{
    struct pg_fixture *f = *state;
    char tx[64];
    pg_fixture_open(f, DURABLE);
    pg_fixture_sql(f, "CREATE TABLE todos (id int PRIMARY KEY)");
    pg_fixture_sql(f, "SELECT fanwire_watch('todos', 'todos')");
    snprintf(tx, sizeof tx, "\"tx\":\"%s\"}",
             pg_fixture_sql(f, "INSERT INTO todos VALUES (1) RETURNING pg_current_xact_id()"));
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_non_null(strstr(f->host->events[0].data, tx));
    pg_fixture_sql(f, "SELECT fanwire_unwatch('todos')");
    pg_fixture_sql(f, "DROP TABLE todos");
}

static void publishes_reach_the_log(void **state)
{
    struct pg_fixture *f = *state;
    static char data[100000];
    memset(data, 'e', sizeof data);
    struct fw_publish event = {
        .request = 1, .channel = "x", .channel_len = 1, .key = "k", .data = data, .len = sizeof data
    };
    pg_fixture_open(f, DURABLE);
    source_postgres.publish(f->source, &event);
    RUN_UNTIL(f->host, f->host->n_answers == 1 && f->host->n_events == 1);
    assert_null(f->host->answers[0].code);
    assert_int_equal(f->host->events[0].len, sizeof data);
    assert_string_equal(f->host->events[0].key, "k");
}

static void destroyed_in_every_state(void **state)
{
    struct pg_fixture *f = *state;
    for (int turns = 0; turns < 60; turns += 3) {
        pg_fixture_source(f, DURABLE);
        source_postgres.open(f->source);
        for (int i = 0; i < turns; i++)
            host_turn(f->host, 20);
        leave(f);
    }
    f->host->n_lost = 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(refuses_keys_and_clients_that_cannot_travel),
        TEST(a_node_has_a_durable_slot),
        TEST(without_a_node_it_is_temporary),
        TEST(the_past_is_history),
        TEST(the_log_is_gone_on_with),
        TEST(a_switch_waits_for_who_published_before),
        TEST(a_pause_amid_a_transaction),
        TEST(what_is_old_is_confirmed),
        TEST(a_slot_ahead_of_the_log_is_a_gap),
        TEST(an_older_copy_of_the_database_begins_anew),
        TEST(rows_carry_the_whole_transaction_id),
        TEST(publishes_reach_the_log),
        TEST(destroyed_in_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
