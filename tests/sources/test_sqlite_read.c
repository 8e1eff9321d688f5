/* Reading the outbox: what others commit, in order, once; what was there at the start. */
#include "sqlite_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void makes_the_file_and_the_table(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    assert_non_null(strstr(f->host->log, "[created]"));
    assert_non_null(strstr(f->host->log, "[installed]"));
    assert_string_equal(f->host->mode, "outbox");
    assert_int_equal(f->host->n_begun, 1);
    assert_true(f->host->floor[0] == 0 && f->host->floor[1] == 1);
    assert_true(f->host->identity != 0);
    assert_string_equal(sqlite_fixture_sql(f, "PRAGMA journal_mode"), "wal");
    assert_string_equal(sqlite_fixture_sql(f, "SELECT count(*) FROM fanwire_outbox"), "0");
    sqlite_fixture_install(f); /* may be run again */
}

static void reads_what_is_committed(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_insert(f, "todos", "{\"op\":\"insert\"}");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "{\"op\":\"insert\"}", NULL });
    const struct fake_event *event = &f->host->events[0];
    assert_string_equal(event->channel, "todos");
    assert_true(event->pos[0] == 1 && event->pos[1] == 0);
    assert_true(!event->history && !event->key && !event->from);
    assert_true(llabs((long long)event->time_ms - (long long)time(NULL) * 1000) < 20000);
    sqlite_fixture_sql(f, "BEGIN; INSERT INTO fanwire_outbox (channel, payload) VALUES "
                          "('todos', 'never'); ROLLBACK");
    sqlite_fixture_sql(f, "BEGIN; INSERT INTO fanwire_outbox (channel, payload, key, client) "
                          "VALUES ('a', 'one', 'k', 'me'), ('b', 'two', '', NULL); COMMIT");
    sqlite_fixture_expect(f, 1, (const char *const[]){ "one", "two", NULL });
    assert_string_equal(f->host->events[1].key, "k");
    assert_string_equal(f->host->events[1].from, "me");
    assert_null(f->host->events[2].key);
    assert_true(f->host->events[2].pos[0] == 3); /* the one rolled back took no id */
    assert_int_equal(f->host->n_gaps, 0);
}

static void reads_any_payload(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f,
                       "INSERT INTO fanwire_outbox (channel, payload) VALUES "
                       "('c', ''), ('c', x'00ff0a'), ('c', 42), ('c', 1.5), ('c', x''), "
                       "('%s', 'gr' || char(252, 223) || 'e'), ('c', '\r\n')",
                       "žluť a");
    RUN_UNTIL(f->host, f->host->n_events == 7);
    static const struct {
        const char *data;
        size_t len;
    } expected[] = { { "", 0 }, { "\0\xff\n", 3 }, { "42", 2 },  { "1.5", 3 },
                     { "", 0 }, { "grüße", 7 },    { "\r\n", 2 } };
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(f->host->events[i].len, expected[i].len);
        assert_memory_equal(f->host->events[i].data, expected[i].data, expected[i].len);
    }
    assert_string_equal(f->host->events[5].channel, "žluť a");
}

static void the_table_refuses_bad_rows(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    static const char *const bad[] = {
        "'', 'x'",
        "NULL, 'x'",
        "'a', NULL",
        "'a' || char(10), 'x'",
        "'a' || char(127), 'x'",
        "x'6162', 'x'",
        "'$fanwire/x', 'x'",
        "printf('%.256c', 'x'), 'x'",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char sql[200];
        snprintf(sql, sizeof sql, "INSERT INTO fanwire_outbox (channel, payload) VALUES (%s)",
                 bad[i]);
        (void)sqlite_fixture_sql(f, "SELECT 1");
        if (sqlite3_exec(f->db, sql, NULL, NULL, NULL) != SQLITE_CONSTRAINT)
            fail_msg("accepted: %s", bad[i]);
    }
    sqlite_fixture_sql(f, "INSERT INTO fanwire_outbox (channel, payload) VALUES "
                          "(printf('%%.255c', 'x'), 'longest')");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "longest", NULL });
}

static void an_event_too_large_is_its_length(void **state)
{
    struct sqlite_fixture *f = *state;
    f->host->event_max = 1000;
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "INSERT INTO fanwire_outbox (channel, payload) VALUES "
                          "('c', zeroblob(100000)), ('c', 'small')");
    RUN_UNTIL(f->host, f->host->n_events == 2);
    assert_int_equal(f->host->events[0].len, 100000);
    assert_string_equal(f->host->events[0].data, "");
    assert_string_equal(f->host->events[1].data, "small");
}

/* ---- the start ---- */

static void fill(struct sqlite_fixture *f, int n)
{
    sqlite_fixture_sql(f,
                       "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                       "%d) INSERT INTO fanwire_outbox (channel, payload) SELECT 'c', i FROM n",
                       n);
}

static void reads_the_table_again_as_history(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    fill(f, 1000);
    sqlite_fixture_open(f, "");
    assert_int_equal(f->host->n_events, 1000);
    for (size_t i = 0; i < 1000; i++)
        assert_true(f->host->events[i].history && f->host->events[i].pos[0] == i + 1);
    assert_true(f->host->max_unflushed <= 256);
    assert_true(f->host->floor[0] == 0 && f->host->floor[1] == 1);
    fill(f, 1);
    RUN_UNTIL(f->host, f->host->n_events == 1001);
    assert_false(f->host->events[1000].history);
    assert_int_equal(f->host->n_gaps, 0);
}

static void reads_no_more_again_than_the_log_holds(void **state)
{
    struct sqlite_fixture *f = *state;
    f->host->event_max = 4096; /* a log of 64 KiB */
    sqlite_fixture_install(f);
    fill(f, 2000);
    sqlite_fixture_open(f, "");
    assert_true(f->host->n_events > 300 && f->host->n_events < 600);
    assert_string_equal(f->host->events[f->host->n_events - 1].data, "2000");
    assert_true(f->host->floor[0] == 2000 - f->host->n_events && f->host->floor[1] == 0);
    assert_int_equal(f->host->n_gaps, 0);
}

static void the_floor_of_an_emptied_table_is_its_last_id(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    fill(f, 20);
    sqlite_fixture_sql(f, "DELETE FROM fanwire_outbox");
    sqlite_fixture_open(f, "");
    assert_true(f->host->floor[0] == 20 && f->host->floor[1] == 0);
    fill(f, 1);
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_true(f->host->events[0].pos[0] == 21);
    assert_int_equal(f->host->n_gaps, 0);
}

static void goes_on_from_the_log(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    fill(f, 10);
    RUN_UNTIL(f->host, f->host->n_events == 10);
    uint64_t identity = f->host->identity;
    sqlite_fixture_destroy(f); /* the process is replaced, the log stays */
    fill(f, 10);
    sqlite_fixture_open(f, "");
    RUN_UNTIL(f->host, f->host->n_events == 20);
    assert_true(f->host->identity == identity);
    assert_int_equal(f->host->n_begun, 1);
    for (size_t i = 0; i < 20; i++)
        assert_true(!f->host->events[i].history && f->host->events[i].pos[0] == i + 1);
    assert_int_equal(f->host->n_gaps, 0);
}

/* ---- holes ---- */

static void rows_removed_unread_are_a_gap(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    fill(f, 1);
    RUN_UNTIL(f->host, f->host->n_events == 1);
    sqlite_fixture_sql(f, "BEGIN; INSERT INTO fanwire_outbox (channel, payload) VALUES "
                          "('c', 'gone'), ('c', 'stays'); DELETE FROM fanwire_outbox WHERE "
                          "payload = 'gone'; COMMIT");
    sqlite_fixture_expect(f, 1, (const char *const[]){ "stays", NULL });
    assert_int_equal(f->host->n_gaps, 1);
    assert_string_equal(f->host->gaps[0].reason, "expired");
    assert_true(f->host->gaps[0].pos[0] == 2 && f->host->gaps[0].before == 1);
    sqlite_fixture_sql(f, "BEGIN; INSERT INTO fanwire_outbox (channel, payload) VALUES "
                          "('c', 'gone'); DELETE FROM fanwire_outbox WHERE payload = 'gone'; "
                          "COMMIT");
    RUN_UNTIL(f->host, f->host->n_gaps == 2);
    assert_true(f->host->gaps[1].pos[0] == 4);
    sqlite_fixture_insert(f, "c", "next");
    sqlite_fixture_expect(f, 2, (const char *const[]){ "next", NULL });
    assert_int_equal(f->host->n_gaps, 2);
}

static void a_hole_in_what_is_read_again_is_a_gap_of_resumes(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    fill(f, 10);
    sqlite_fixture_sql(f, "DELETE FROM fanwire_outbox WHERE id IN (1, 2, 5, 10)");
    sqlite_fixture_open(f, "");
    assert_int_equal(f->host->n_events, 6);
    assert_true(f->host->floor[0] == 2);
    assert_int_equal(f->host->n_gaps, 2);
    assert_true(f->host->gaps[0].history && f->host->gaps[0].pos[0] == 5);
    assert_true(f->host->gaps[1].history && f->host->gaps[1].pos[0] == 10);
}

/* ---- pace ---- */

static void minds_pauses(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    f->host->flushes_until_full = 2;
    fill(f, 5000);
    RUN_UNTIL(f->host, f->host->n_events == 512);
    host_run_ms(f->host, 100);
    assert_int_equal(f->host->n_events, 512);
    f->host->flushes_until_full = 0;
    source_sqlite.pause(f->source, false);
    RUN_UNTIL(f->host, f->host->n_events == 5000);
    assert_int_equal(f->host->n_gaps, 0);
}

static void follows_a_busy_writer(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    for (int i = 1; i <= 500; i++) {
        fill(f, 1);
        if (i % 50 == 0)
            sqlite_fixture_sql(f, "PRAGMA wal_checkpoint(TRUNCATE)");
        host_turn(f->host, 0);
    }
    RUN_UNTIL(f->host, f->host->n_events == 500);
    for (size_t i = 0; i < 500; i++)
        assert_true(f->host->events[i].pos[0] == i + 1);
}

/* ---- pruning ---- */

static const char *rows(struct sqlite_fixture *f)
{
    return sqlite_fixture_sql(f, "SELECT count(*) || ' from ' || coalesce(min(id), 0) FROM "
                                 "fanwire_outbox");
}

static void prunes_by_count(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "?keep=100");
    fill(f, 1700);
    RUN_UNTIL(f->host, f->host->n_events == 1700);
    RUN_UNTIL(f->host, !strcmp(rows(f), "100 from 1601"));
    fill(f, 1);
    RUN_UNTIL(f->host, f->host->n_events == 1701);
    assert_int_equal(f->host->n_gaps, 0);
}

static void prunes_by_age(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    fill(f, 700);
    sqlite_fixture_sql(f, "UPDATE fanwire_outbox SET created = created - 7200000 WHERE id <= 600");
    sqlite_fixture_open(f, "?keep-for=1h");
    assert_int_equal(f->host->n_events, 700); /* what is there is of use at the start */
    RUN_UNTIL(f->host, !strcmp(rows(f), "100 from 601"));
}

static void prunes_nothing_when_told(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    fill(f, 700);
    sqlite_fixture_sql(f, "UPDATE fanwire_outbox SET created = 1");
    sqlite_fixture_open(f, "?keep=all&keep-for=all");
    host_run_ms(f->host, 100);
    assert_string_equal(rows(f), "700 from 1");
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, sqlite_fixture_setup, sqlite_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(makes_the_file_and_the_table),
        TEST(reads_what_is_committed),
        TEST(reads_any_payload),
        TEST(the_table_refuses_bad_rows),
        TEST(an_event_too_large_is_its_length),
        TEST(reads_the_table_again_as_history),
        TEST(reads_no_more_again_than_the_log_holds),
        TEST(the_floor_of_an_emptied_table_is_its_last_id),
        TEST(goes_on_from_the_log),
        TEST(rows_removed_unread_are_a_gap),
        TEST(a_hole_in_what_is_read_again_is_a_gap_of_resumes),
        TEST(minds_pauses),
        TEST(follows_a_busy_writer),
        TEST(prunes_by_count),
        TEST(prunes_by_age),
        TEST(prunes_nothing_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
