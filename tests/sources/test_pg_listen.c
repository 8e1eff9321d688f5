/* The Postgres source against a private server: connecting, listening, notifications, liveness. */
#include "pg_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const struct fw_source_class source_postgres;

static void unsubscribe(struct pg_fixture *f, const char *channel)
{
    source_postgres.unsubscribe(f->source, channel, strlen(channel));
}

static void expect_event(struct pg_fixture *f, size_t i, const char *channel, const char *data)
{
    RUN_UNTIL(f->host, f->host->n_events > i);
    assert_string_equal(f->host->events[i].channel, channel);
    assert_string_equal(f->host->events[i].data, data);
}

/* Opens with a URL that must fail; returns the reason. */
static const char *expect_lost(struct pg_fixture *f, const char *rest)
{
    pg_fixture_source(f, rest);
    source_postgres.open(f->source);
    RUN_UNTIL(f->host, f->host->n_lost + f->host->n_opened > 0);
    assert_int_equal(f->host->n_lost, 1);
    assert_string_equal(f->host->lost_reason, "connection-lost");
    assert_null(strchr(f->host->lost_message, '\n'));
    return f->host->lost_message;
}

static const char *listening(struct pg_fixture *f)
{
    return pg_fixture_sql(f, "select count(*) from pg_stat_activity where application_name = "
                             "'fanwire'");
}

/* ---- notifications ---- */

static void opens_in_notify_mode(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    assert_string_equal(f->host->mode, "notify");
    assert_string_equal(f->host->guarantee, "live events; a gap after each lost connection");
    assert_string_equal(listening(f), "1");
    assert_int_equal(f->host->n_warnings, 0);
}

static void hears_foreign_names(void **state)
{
    static const char *const names[] = { "todos",
                                         "Todos Upper",
                                         "with \"quotes\" and 'more'",
                                         "back\\slash; DROP TABLE x",
                                         "grüße/日本語",
                                         "a" };
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *quoted = PQescapeIdentifier(f->admin, names[i], strlen(names[i]));
        pg_fixture_subscribe(f, names[i]);
        pg_fixture_sql(f, "NOTIFY %s, 'payload %zu'", quoted, i);
        PQfreemem(quoted);
        RUN_UNTIL(f->host, f->host->n_events == i + 1);
        assert_string_equal(f->host->events[i].channel, names[i]);
        assert_null(f->host->events[i].key);
    }
    pg_fixture_sql(f, "NOTIFY todos"); /* without payload */
    expect_event(f, sizeof names / sizeof *names, "todos", "");
}

static void hears_names_of_63_bytes_and_not_of_64(void **state)
{
    struct pg_fixture *f = *state;
    char name[65];
    memset(name, 'n', sizeof name);
    pg_fixture_open(f, "");
    name[64] = '\0';
    pg_fixture_subscribe(f, name); /* ready, but not by LISTEN: it would be cut to 63 */
    name[63] = '\0';
    pg_fixture_sql(f, "NOTIFY \"%s\", 'unheard'", name);
    pg_fixture_subscribe(f, name);
    pg_fixture_sql(f, "NOTIFY \"%s\", 'heard'", name);
    expect_event(f, 0, name, "heard");
}

static void hears_names_with_nul_inside_envelopes_only(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    source_postgres.subscribe(f->source, "a\0b", 3);
    RUN_UNTIL(f->host, f->host->n_ready == 1);
    assert_int_equal(f->host->n_refused, 0);
}

static void stops_hearing_after_unsubscribe(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "todos");
    unsubscribe(f, "todos");
    pg_fixture_subscribe(f, "other"); /* sent after it: both are done */
    pg_fixture_sql(f, "NOTIFY todos, 'unheard'; NOTIFY other, 'heard'");
    expect_event(f, 0, "other", "heard");
}

/* Any order of wishes must end in what was wished last. */
static void survives_quick_changes_of_mind(void **state)
{
    struct pg_fixture *f = *state;
    unsigned ready;
    pg_fixture_open(f, "");
    for (int i = 0; i < 50; i++) {
        source_postgres.subscribe(f->source, "todos", 5);
        if (i % 3 == 0)
            host_turn(f->host, 0); /* so that the change meets a query in flight */
        unsubscribe(f, "todos");
        if (i % 5 == 0)
            host_turn(f->host, 0);
    }
    ready = f->host->n_ready;
    source_postgres.subscribe(f->source, "todos", 5);
    RUN_UNTIL(f->host, f->host->n_ready > ready);
    pg_fixture_sql(f, "NOTIFY todos, 'yes'");
    expect_event(f, 0, "todos", "yes");
    source_postgres.subscribe(f->source, "todos", 5);
    unsubscribe(f, "todos");
    pg_fixture_subscribe(f, "end");
    pg_fixture_sql(f, "NOTIFY todos, 'no'; NOTIFY \"end\", 'yes'");
    expect_event(f, 1, "end", "yes");
}

static void refuses_only_the_bad_name_of_a_batch(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    source_postgres.subscribe(f->source, "before", 6);
    source_postgres.subscribe(f->source, "bad\xff", 4); /* the server refuses invalid UTF-8 */
    source_postgres.subscribe(f->source, "after", 5);
    RUN_UNTIL(f->host, f->host->n_ready == 2 && f->host->n_refused == 1);
    assert_string_equal(f->host->refused_channel, "bad\xff");
    assert_string_equal(f->host->refused_code, "source-refused");
    pg_fixture_sql(f, "NOTIFY before, '1'; NOTIFY after, '2'");
    expect_event(f, 0, "before", "1");
    expect_event(f, 1, "after", "2");
}

static void hears_all_by_itself_with_foreign_off(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "?foreign=off");
    assert_int_equal(f->host->traits, 0);
    pg_fixture_sql(f, "SELECT pg_notify('fanwire', E'\\x1e{\"channel\":\"todos\"}\\nheard')");
    expect_event(f, 0, "todos", "heard");
}

static void refuses_events_without_envelope(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "fanwire"); /* the name is always listened to */
    pg_fixture_sql(f, "NOTIFY fanwire, 'plain'; NOTIFY fanwire");
    pg_fixture_sql(f, "SELECT pg_notify('fanwire', E'\\x1e{\"channel\":7}\\nx')");
    pg_fixture_sql(f, "SELECT pg_notify('fanwire', E'\\x1e{\"channel\":\"fanwire\"}\\nx')");
    expect_event(f, 0, "fanwire", "x");
    assert_int_equal(f->host->n_refused_events, 3);
    unsubscribe(f, "fanwire");
    pg_fixture_subscribe(f, "todos");
    pg_fixture_sql(f, "SELECT pg_notify('fanwire', E'\\x1e{\"channel\":\"todos\"}\\ny')");
    expect_event(f, 1, "todos", "y");
}

static void opens_envelopes(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_sql(f, "SELECT pg_notify('fanwire', E'\\x1e{\"channel\":\"a/b\",\"key\":\"k\","
                      "\"from\":\"me\",\"enc\":\"base64\"}\\nAP8=')");
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_string_equal(f->host->events[0].channel, "a/b");
    assert_string_equal(f->host->events[0].key, "k");
    assert_string_equal(f->host->events[0].from, "me");
    assert_int_equal(f->host->events[0].len, 2);
    assert_memory_equal(f->host->events[0].data, "\0\xff", 2);
}

static void listens_to_10000_channels(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    int64_t start = host_real_ms();
    for (int i = 0; i < 10000; i++) {
        char name[32];
        int len = snprintf(name, sizeof name, "channel:%d", i);
        source_postgres.subscribe(f->source, name, (size_t)len);
    }
    RUN_UNTIL(f->host, f->host->n_ready == 10000);
    print_message("10,000 channels ready after %d ms\n", (int)(host_real_ms() - start));
    pg_fixture_sql(f, "NOTIFY \"channel:0\"; NOTIFY \"channel:9999\"");
    expect_event(f, 1, "channel:9999", "");
}

/* ---- a long transaction, pausing ---- */

#define MANY 100000

struct counting {
    unsigned next, wrong;
};

static void count_event(void *arg, const struct fw_source_event *event)
{
    struct counting *counting = arg;
    unsigned n = (unsigned)strtoul(event->data, NULL, 10);
    counting->wrong += n != counting->next;
    counting->next = n + 1;
}

static void keeps_the_order_of_a_long_transaction(void **state)
{
    struct pg_fixture *f = *state;
    struct counting counting = { 0 };
    f->host->on_event = count_event;
    f->host->arg = &counting;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "many");
    pg_fixture_sql(f, "SELECT count(pg_notify('many', i::text)) FROM generate_series(0, %d) i",
                   MANY - 1);
    int64_t start = host_real_ms();
    RUN_UNTIL(f->host, counting.next == MANY);
    int64_t took = host_real_ms() - start;
    print_message("%d notifications drained in %d ms\n", MANY, (int)took);
    assert_int_equal(counting.wrong, 0);
    assert_in_range(f->host->max_unflushed, 1, 256);
}

static void pausing_stops_reading(void **state)
{
    struct pg_fixture *f = *state;
    struct counting counting = { 0 };
    f->host->on_event = count_event;
    f->host->arg = &counting;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "many");
    source_postgres.pause(f->source, true);
    pg_fixture_sql(f, "SELECT count(pg_notify('many', i::text)) FROM generate_series(0, 9999) i");
    for (int i = 0; i < 4; i++) { /* an hour of silence is nobody's fault while paused */
        host_run_ms(f->host, 20);
        assert_int_equal(host_watched(f->host), 0);
        host_advance(f->host, 900 * 1000);
    }
    assert_int_equal(counting.next, 0);
    assert_int_equal(f->host->n_lost, 0);
    f->host->flushes_until_full = 2; /* the hub says stop in the middle of a batch */
    source_postgres.pause(f->source, false);
    host_run_ms(f->host, 100);
    assert_in_range(counting.next, 257, 512);
    unsigned before = counting.next;
    host_run_ms(f->host, 50);
    assert_int_equal(counting.next, before);
    source_postgres.pause(f->source, false);
    RUN_UNTIL(f->host, counting.next == 10000);
    assert_int_equal(counting.wrong, 0);
}

static void a_loss_while_paused_is_told_after_the_events(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "todos");
    source_postgres.pause(f->source, true);
    pg_fixture_sql(f, "NOTIFY todos, 'last words'");
    assert_true(host_await_input(f->host)); /* it has left the server */
    pg_fixture_sql(f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE "
                      "application_name = 'fanwire'");
    host_run_ms(f->host, 20);
    assert_int_equal(f->host->n_lost, 0);
    source_postgres.pause(f->source, false);
    RUN_UNTIL(f->host, f->host->n_lost == 1);
    expect_event(f, 0, "todos", "last words");
}

/* ---- losing the connection ---- */

static void is_lost_when_terminated_and_opens_again(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "todos");
    pg_fixture_sql(f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE "
                      "application_name = 'fanwire'");
    RUN_UNTIL(f->host, f->host->n_lost == 1);
    assert_string_equal(f->host->lost_reason, "connection-lost");
    assert_string_equal(f->host->lost_message,
                        "FATAL: terminating connection due to administrator command");
    source_postgres.subscribe(f->source, "todos", 5); /* too late: nothing may happen */
    host_run_ms(f->host, 10);
    f->host->n_lost = 0;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "todos");
    pg_fixture_sql(f, "NOTIFY todos, 'again'");
    expect_event(f, 0, "todos", "again");
    assert_string_equal(listening(f), "1");
}

static void is_lost_when_the_server_stops(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_server(f, "stop");
    RUN_UNTIL(f->host, f->host->n_lost == 1);
    source_postgres.open(f->source);
    RUN_UNTIL(f->host, f->host->n_lost == 2);
    assert_non_null(strstr(f->host->lost_message, "Connection refused"));
    pg_fixture_server(f, "start");
    f->host->n_lost = 0;
    pg_fixture_open(f, "");
}

static void is_lost_when_the_server_crashes(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    pg_fixture_subscribe(f, "todos");
    pg_fixture_server(f, "crash");
    RUN_UNTIL(f->host, f->host->n_lost == 1);
    pg_fixture_server(f, "start");
}

/* A batch of LISTEN is in flight when the connection goes. */
static void is_lost_in_the_middle_of_a_query(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    for (int i = 0; i < 3000; i++) {
        char name[32];
        int len = snprintf(name, sizeof name, "channel:%d", i);
        source_postgres.subscribe(f->source, name, (size_t)len);
    }
    host_turn(f->host, 0);
    pg_fixture_sql(f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE "
                      "application_name = 'fanwire'");
    RUN_UNTIL(f->host, f->host->n_lost == 1);
    assert_int_not_equal(f->host->n_ready, 3000);
    assert_int_equal(f->host->n_refused, 0);
}

static void asks_a_silent_server(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    host_run_ms(f->host, 10);
    host_advance(f->host, 15100);
    host_run_ms(f->host, 50);
    assert_string_equal(pg_fixture_sql(f, "select query from pg_stat_activity where "
                                          "application_name = 'fanwire'"),
                        "SELECT 1");
    for (int i = 0; i < 5; i++) { /* it answers each time */
        host_advance(f->host, 15100);
        host_run_ms(f->host, 50);
    }
    assert_int_equal(f->host->n_lost, 0);
}

static void gives_up_a_server_that_does_not_answer(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    int pid = atoi(pg_fixture_sql(f, "select pid from pg_stat_activity where application_name = "
                                     "'fanwire'"));
    char command[64];
    snprintf(command, sizeof command, "kill -STOP %d", pid);
    assert_int_equal(system(command), 0);
    host_run_ms(f->host, 10);
    host_advance(f->host, 15100);
    host_run_ms(f->host, 20);
    unsigned lost_early = f->host->n_lost;
    host_advance(f->host, 10100);
    host_run_ms(f->host, 20);
    snprintf(command, sizeof command, "kill -CONT %d", pid);
    assert_int_equal(system(command), 0);
    assert_int_equal(lost_early, 0);
    assert_int_equal(f->host->n_lost, 1);
    assert_string_equal(f->host->lost_message, "the server did not answer within 10 s");
}

/* ---- not getting a connection ---- */

static void waits_for_an_absent_server(void **state)
{
    struct pg_fixture *f = *state;
    /* port 1 is nobody's */
    const char *why = expect_lost(f, "postgres://u:hush-hush@127.0.0.1:1/db");
    assert_non_null(strstr(why, "Connection refused"));
    assert_null(strstr(why, "hush-hush"));
}

static void says_wrong_password(void **state)
{
    struct pg_fixture *f = *state;
    const char *why = expect_lost(f, "postgres://secret:wr0ng@127.0.0.1:%PORT%/postgres");
    assert_non_null(strstr(why, ": FATAL: password authentication failed for user \"secret\""));
    assert_null(strstr(why, "wr0ng"));
    assert_null(strstr(why, "LOCATION"));
}

static void takes_a_percent_encoded_password(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "postgresql+asyncpg://secret:s3cr3t%2Fpass%40word@127.0.0.1:%PORT%/postgres"
                       "?schema=public&pgbouncer=true&connection_limit=5#x");
    assert_int_equal(f->host->n_warnings, 1);
    assert_non_null(strstr(f->host->log, "schema, pgbouncer, connection_limit"));
}

static void says_no_such_database(void **state)
{
    struct pg_fixture *f = *state;
    const char *why = expect_lost(f, "postgres://postgres@127.0.0.1:%PORT%/nowhere");
    assert_non_null(strstr(why, "database \"nowhere\" does not exist"));
}

static void says_what_does_not_resolve(void **state)
{
    struct pg_fixture *f = *state;
    const char *why = expect_lost(f, "postgres://u@db.invalid:5432/x");
    assert_string_equal(why, "cannot resolve the server's name \"db.invalid\": Name or service "
                             "not known");
    assert_int_equal(f->host->n_lookups, 1);
}

static void limits_the_time_to_connect(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "postgres://u@hang/x");
    source_postgres.open(f->source);
    host_run_ms(f->host, 10);
    host_advance(f->host, 10100);
    RUN_UNTIL(f->host, f->host->n_lost == 1);
    assert_string_equal(f->host->lost_message,
                        "resolving the server's name succeeded not within 10 s");
}

static void tries_every_address_of_every_host(void **state)
{
    /* 127.0.0.2 has nobody on the server's port */
    static const struct fake_name names[] = { { "db", { "127.0.0.2", "127.0.0.1" } }, { NULL } };
    struct pg_fixture *f = *state;
    f->host->names = names;
    pg_fixture_open(f, "postgres://postgres@gone.invalid,db:%PORT%/postgres");
    assert_int_equal(f->host->n_lookups, 2);
}

static void opens_through_the_unix_socket(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "postgres:///postgres?user=postgres"); /* PGHOST names the directory */
    assert_int_equal(f->host->n_lookups, 0);
    source_postgres.destroy(f->source);
    f->source = NULL;
    char url[300];
    snprintf(url, sizeof url, "postgres:///postgres?user=postgres&host=%s&port=%s",
             getenv("PGHOST"), getenv("PGPORT"));
    pg_fixture_open(f, url);
    assert_int_equal(f->host->n_lookups, 0);
}

static void can_be_destroyed_at_any_time(void **state)
{
    struct pg_fixture *f = *state;
    for (int turns = 0; turns < 12; turns++) {
        pg_fixture_source(f, "postgres://postgres@db:%PORT%/postgres");
        f->host->names = (const struct fake_name[]){ { "db", { "127.0.0.1" } }, { NULL } };
        source_postgres.open(f->source);
        for (int i = 0; i < turns; i++)
            host_turn(f->host, 5);
        source_postgres.destroy(f->source);
        f->source = NULL;
        assert_null(f->host->watches);
        assert_null(f->host->timers);
        assert_null(f->host->resolves);
    }
}

/* ---- what else the server says ---- */

static void warns_of_sql_ascii(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 "
                      "LC_COLLATE 'C' LC_CTYPE 'C'");
    pg_fixture_open(f, "postgres://postgres@127.0.0.1:%PORT%/ascii");
    assert_int_equal(f->host->n_warnings, 1);
    assert_non_null(strstr(f->host->log, "SQL_ASCII"));
    source_postgres.destroy(f->source);
    f->source = NULL;
    pg_fixture_sql(f, "DROP DATABASE ascii WITH (FORCE)");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pg_fixture_setup, pg_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(opens_in_notify_mode),
        TEST(hears_foreign_names),
        TEST(hears_names_of_63_bytes_and_not_of_64),
        TEST(hears_names_with_nul_inside_envelopes_only),
        TEST(stops_hearing_after_unsubscribe),
        TEST(survives_quick_changes_of_mind),
        TEST(refuses_only_the_bad_name_of_a_batch),
        TEST(hears_all_by_itself_with_foreign_off),
        TEST(refuses_events_without_envelope),
        TEST(opens_envelopes),
        TEST(listens_to_10000_channels),
        TEST(keeps_the_order_of_a_long_transaction),
        TEST(pausing_stops_reading),
        TEST(a_loss_while_paused_is_told_after_the_events),
        TEST(is_lost_when_terminated_and_opens_again),
        TEST(is_lost_when_the_server_stops),
        TEST(is_lost_when_the_server_crashes),
        TEST(is_lost_in_the_middle_of_a_query),
        TEST(asks_a_silent_server),
        TEST(gives_up_a_server_that_does_not_answer),
        TEST(waits_for_an_absent_server),
        TEST(says_wrong_password),
        TEST(takes_a_percent_encoded_password),
        TEST(says_no_such_database),
        TEST(says_what_does_not_resolve),
        TEST(limits_the_time_to_connect),
        TEST(tries_every_address_of_every_host),
        TEST(opens_through_the_unix_socket),
        TEST(can_be_destroyed_at_any_time),
        TEST(warns_of_sql_ascii),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
