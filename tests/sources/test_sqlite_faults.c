/* What can happen to a database file: absent, foreign, corrupt, locked, replaced, restored,
 * vacuumed. */
#include "sqlite_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void expect_lost(struct sqlite_fixture *f, unsigned n, const char *why)
{
    RUN_UNTIL(f->host, f->host->n_lost == n);
    if (!strstr(f->host->lost_message, why))
        fail_msg("lost: %s", f->host->lost_message);
}

static void open_fails(struct sqlite_fixture *f, const char *parameters, const char *why)
{
    if (!f->source)
        sqlite_fixture_source(f, parameters);
    unsigned n = f->host->n_lost;
    source_sqlite.open(f->source);
    expect_lost(f, n + 1, why);
}

static void write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* ---- absent and foreign ---- */

static void waits_for_the_file(void **state)
{
    struct sqlite_fixture *f = *state;
    open_fails(f, "?create=off", "not there");
    open_fails(f, "?create=off", "not there");
    assert_int_equal(access(f->path, F_OK), -1);
    sqlite_fixture_sql(f, "CREATE TABLE other (x)");
    open_fails(f, "?create=off", "fanwire sql sqlite | sqlite3 FILE");
    sqlite_fixture_install(f);
    sqlite_fixture_reopen(f);
    sqlite_fixture_insert(f, "c", "1");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", NULL });
}

static void tells_of_a_missing_directory(void **state)
{
    struct sqlite_fixture *f = *state;
    struct fw_error err;
    assert_int_equal(source_sqlite.create(f->host, "sqlite:/nowhere/at/all.db", &f->source, &err),
                     0);
    open_fails(f, "", "/nowhere/at/all.db");
    assert_non_null(strstr(f->host->lost_message, "No such file or directory"));
}

static void tells_of_what_is_no_database(void **state)
{
    struct sqlite_fixture *f = *state;
    char garbage[8192];
    memset(garbage, 'x', sizeof garbage);
    write_file(f->path, garbage, sizeof garbage);
    open_fails(f, "", "no SQLite database");
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(mkdir(f->path, 0700), 0);
    open_fails(f, "", "not a file");
    assert_int_equal(rmdir(f->path), 0);
    sqlite_fixture_reopen(f);
}

static void tells_of_a_newer_version(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    sqlite_fixture_sql(f, "UPDATE fanwire_meta SET value = 2 WHERE name = 'version'");
    open_fails(f, "", "newer version");
}

static void tells_of_a_corrupt_one(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    sqlite_fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i "
                          "< 3000) INSERT INTO fanwire_outbox (channel, payload) SELECT 'c', i "
                          "FROM n");
    sqlite_fixture_close(f);
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    int fd = open(f->path, O_WRONLY | O_CLOEXEC);
    char garbage[4096];
    memset(garbage, 0xee, sizeof garbage);
    for (off_t at = 4 * 4096; at < st.st_size; at += 4096)
        assert_int_equal(pwrite(fd, garbage, sizeof garbage, at), sizeof garbage);
    close(fd);
    open_fails(f, "", "corrupt");
    assert_non_null(strstr(f->host->lost_message, "integrity_check"));
}

/* ---- locks and journals ---- */

static void works_with_a_rollback_journal(void **state)
{
    static const char *const modes[] = { "DELETE", "TRUNCATE", "PERSIST" };
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    sqlite_fixture_open(f, "");
    assert_non_null(strstr(f->host->log, "[journal]"));
    for (size_t i = 0; i < 30; i++) {
        char text[8];
        snprintf(text, sizeof text, "%zu", i);
        sqlite_fixture_sql(f, "PRAGMA journal_mode = %s", modes[i / 10]);
        sqlite_fixture_insert(f, "c", text);
        sqlite_fixture_expect(f, i, (const char *const[]){ text, NULL });
    }
    sqlite_fixture_sql(f, "PRAGMA journal_mode = WAL");
    sqlite_fixture_insert(f, "c", "wal");
    sqlite_fixture_expect(f, 30, (const char *const[]){ "wal", NULL });
    assert_int_equal(f->host->n_lost, 0);
}

static void a_lock_of_all_is_down_when_it_lasts(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "BEGIN EXCLUSIVE");
    host_run_ms(f->host, 300);
    assert_int_equal(f->host->n_lost, 0);
    expect_lost(f, 1, "locked");
    open_fails(f, "", "locked");
    sqlite_fixture_sql(f,
                       "INSERT INTO fanwire_outbox (channel, payload) VALUES ('c', '1'); COMMIT");
    sqlite_fixture_reopen(f);
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", NULL });
    assert_int_equal(f->host->n_begun, 1);
    assert_int_equal(f->host->n_gaps, 0);
}

static void vacuum_changes_nothing(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_insert(f, "c", "1");
    sqlite_fixture_insert(f, "c", "2");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", "2", NULL });
    sqlite_fixture_sql(f, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
    sqlite_fixture_insert(f, "c", "3");
    sqlite_fixture_expect(f, 2, (const char *const[]){ "3", NULL });
    assert_int_equal(f->host->n_lost, 0);
    assert_int_equal(f->host->n_gaps, 0);
}

static void other_tables_change_nothing(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    sqlite_fixture_insert(f, "c", "1");
    sqlite_fixture_sql(f, "ALTER TABLE t ADD COLUMN y; DROP TABLE t");
    sqlite_fixture_insert(f, "c", "2");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", "2", NULL });
}

/* ---- another database ---- */

static void a_removed_file_is_waited_for(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_insert(f, "c", "1");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", NULL });
    uint64_t identity = f->host->identity;
    sqlite_fixture_close(f);
    assert_int_equal(unlink(f->path), 0);
    expect_lost(f, 1, "removed or replaced");
    open_fails(f, "",
               "not there"); /* made once only: whoever removed it may be about to put another */
    sqlite_fixture_install(f);
    sqlite_fixture_reopen(f);
    assert_true(f->host->identity != identity);
    assert_int_equal(f->host->n_begun, 2);
    sqlite_fixture_insert(f, "c", "another 1");
    sqlite_fixture_expect(f, 1, (const char *const[]){ "another 1", NULL });
}

static void a_replaced_file_is_another_stream(void **state)
{
    struct sqlite_fixture *f = *state;
    char copy[160], wal[160];
    sqlite_fixture_file(f, "copy.db", copy, sizeof copy);
    sqlite_fixture_file(f, "app.db-wal", wal, sizeof wal);
    sqlite_fixture_open(f, "");
    sqlite_fixture_insert(f, "c", "1");
    sqlite_fixture_sql(f, "VACUUM INTO '%s'", copy); /* the same random id */
    sqlite_fixture_insert(f, "c", "2");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", "2", NULL });
    uint64_t identity = f->host->identity;
    sqlite_fixture_close(f);
    assert_int_equal(unlink(wal), 0); /* or SQLite itself would mix the two */
    assert_int_equal(rename(copy, f->path), 0);
    expect_lost(f, 1, "removed or replaced");
    sqlite_fixture_reopen(f);
    assert_true(f->host->identity != identity);
    assert_int_equal(f->host->n_begun, 2);
    assert_int_equal(f->host->n_events, 3);
    assert_true(f->host->events[2].history && f->host->events[2].pos[0] == 1);
    sqlite_fixture_insert(f, "c", "another 2");
    sqlite_fixture_expect(f, 3, (const char *const[]){ "another 2", NULL });
}

/* Copies the other file's pages into ours, as the shell's .restore does. */
static void restore(struct sqlite_fixture *f, const char *from)
{
    sqlite3 *source;
    sqlite_fixture_sql(f, "SELECT 1");
    assert_int_equal(sqlite3_open(from, &source), SQLITE_OK);
    sqlite3_backup *backup = sqlite3_backup_init(f->db, "main", source, "main");
    assert_non_null(backup);
    assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
    sqlite3_close(source);
}

static void an_older_copy_restored_in_place_begins_anew(void **state)
{
    struct sqlite_fixture *f = *state;
    char copy[160];
    sqlite_fixture_file(f, "copy.db", copy, sizeof copy);
    sqlite_fixture_open(f, "");
    sqlite_fixture_insert(f, "c", "1");
    sqlite_fixture_sql(f, "VACUUM INTO '%s'", copy);
    sqlite_fixture_insert(f, "c", "2");
    sqlite_fixture_insert(f, "c", "3");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", "2", "3", NULL });
    uint64_t identity = f->host->identity;
    restore(f, copy);
    expect_lost(f, 1, "older database");
    sqlite_fixture_reopen(f);
    assert_non_null(strstr(f->host->log, "[restored]"));
    assert_true(f->host->identity != identity);
    assert_int_equal(f->host->n_begun, 2);
    sqlite_fixture_insert(f, "c", "another 2");
    RUN_UNTIL(f->host, f->host->n_events == 5);
    assert_true(f->host->events[3].history);
    assert_string_equal(f->host->events[4].data, "another 2");
    assert_true(!f->host->events[4].history && f->host->events[4].pos[0] == 2);
}

static void a_dropped_table_is_made_again(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_insert(f, "c", "1");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "1", NULL });
    sqlite_fixture_sql(f, "DROP TABLE fanwire_outbox");
    expect_lost(f, 1, "");
    sqlite_fixture_reopen(f);
    assert_int_equal(f->host->n_begun, 2);
    sqlite_fixture_insert(f, "c", "anew");
    sqlite_fixture_expect(f, 1, (const char *const[]){ "anew", NULL });
}

/* ---- ending ---- */

static void ends_in_every_state(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_source(f, "");
    sqlite_fixture_destroy(f); /* not opened */
    sqlite_fixture_source(f, "");
    source_sqlite.open(f->source);
    sqlite_fixture_destroy(f); /* opening */
    sqlite_fixture_install(f);
    sqlite_fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i "
                          "< 30000) INSERT INTO fanwire_outbox (channel, payload) SELECT 'c', "
                          "printf('%%1000d', i) FROM n");
    f->host->log_identity = 0;
    sqlite_fixture_source(f, "");
    source_sqlite.open(f->source);
    RUN_UNTIL(f->host, f->host->n_events > 500);
    sqlite_fixture_destroy(f); /* filling the log */
    f->host->log_identity = 0;
    sqlite_fixture_open(f, "?create=off");
    f->host->flushes_until_full = 1;
    sqlite_fixture_sql(f, "INSERT INTO fanwire_outbox (channel, payload) SELECT channel, payload "
                          "FROM fanwire_outbox");
    host_run_ms(f->host, 50);
    sqlite_fixture_destroy(f); /* paused, with a full mailbox */
    assert_int_equal(unlink(f->path), 0);
    sqlite_fixture_source(f, "?create=off");
    open_fails(f, "", "not there");
    sqlite_fixture_destroy(f); /* lost */
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, sqlite_fixture_setup, sqlite_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(waits_for_the_file),
        TEST(tells_of_a_missing_directory),
        TEST(tells_of_what_is_no_database),
        TEST(tells_of_a_newer_version),
        TEST(tells_of_a_corrupt_one),
        TEST(works_with_a_rollback_journal),
        TEST(a_lock_of_all_is_down_when_it_lasts),
        TEST(vacuum_changes_nothing),
        TEST(other_tables_change_nothing),
        TEST(a_removed_file_is_waited_for),
        TEST(a_replaced_file_is_another_stream),
        TEST(an_older_copy_restored_in_place_begins_anew),
        TEST(a_dropped_table_is_made_again),
        TEST(ends_in_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
