/* What the tests of the SQLite source share. */
#include "sqlite_fixture.h"

#include "sqlite_outbox_sql.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int sqlite_fixture_setup(void **state)
{
    struct sqlite_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    strcpy(f->directory, "/tmp/fanwire-sqlite-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->path, sizeof f->path, "%s/app.db", f->directory);
    f->host = host_new();
    *state = f;
    return 0;
}

void sqlite_fixture_destroy(struct sqlite_fixture *f)
{
    if (f->source)
        source_sqlite.destroy(f->source);
    f->source = NULL;
}

static void remove_directory(const char *path)
{
    char file[512];
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        unlink(file);
    }
    if (directory)
        closedir(directory);
    rmdir(path);
}

int sqlite_fixture_teardown(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_destroy(f);
    host_free(f->host);
    sqlite_fixture_close(f);
    remove_directory(f->directory);
    free(f);
    return 0;
}

void sqlite_fixture_source(struct sqlite_fixture *f, const char *parameters)
{
    struct fw_error err = { 0 };
    snprintf(f->url, sizeof f->url, "sqlite:%s%s", f->path, parameters);
    if (source_sqlite.create(f->host, f->url, &f->source, &err) < 0)
        fail_msg("%s", err.message);
}

void sqlite_fixture_reopen(struct sqlite_fixture *f)
{
    unsigned n = f->host->n_opened;
    source_sqlite.open(f->source);
    RUN_UNTIL(f->host, f->host->n_opened == n + 1);
}

void sqlite_fixture_open(struct sqlite_fixture *f, const char *parameters)
{
    sqlite_fixture_source(f, parameters);
    sqlite_fixture_reopen(f);
}

void sqlite_fixture_close(struct sqlite_fixture *f)
{
    assert_int_equal(sqlite3_close(f->db), SQLITE_OK);
    f->db = NULL;
}

static void connect_own(struct sqlite_fixture *f)
{
    if (f->db)
        return;
    assert_int_equal(sqlite3_open(f->path, &f->db), SQLITE_OK);
    (void)sqlite3_busy_timeout(f->db, 10000);
}

const char *sqlite_fixture_sql(struct sqlite_fixture *f, const char *format, ...)
{
    static char value[512];
    va_list args;
    connect_own(f);
    va_start(args, format);
    char *sql = sqlite3_vmprintf(format, args);
    va_end(args);
    value[0] = '\0';
    const char *at = sql;
    while (*at) {
        sqlite3_stmt *stmt;
        if (sqlite3_prepare_v2(f->db, at, -1, &stmt, &at) != SQLITE_OK)
            fail_msg("%s: %s", sql, sqlite3_errmsg(f->db));
        int step;
        while ((step = sqlite3_step(stmt)) == SQLITE_ROW)
            snprintf(value, sizeof value, "%s", (const char *)sqlite3_column_text(stmt, 0));
        if (step != SQLITE_DONE)
            fail_msg("%s: %s", sql, sqlite3_errmsg(f->db));
        sqlite3_finalize(stmt);
    }
    sqlite3_free(sql);
    return value;
}

void sqlite_fixture_install(struct sqlite_fixture *f)
{
    connect_own(f);
    assert_int_equal(sqlite3_exec(f->db, sqlite_outbox_sql, NULL, NULL, NULL), SQLITE_OK);
}

void sqlite_fixture_insert(struct sqlite_fixture *f, const char *channel, const char *payload)
{
    sqlite_fixture_sql(f, "INSERT INTO fanwire_outbox (channel, payload) VALUES ('%s', '%s')",
                       channel, payload);
}

void sqlite_fixture_expect(struct sqlite_fixture *f, size_t first, const char *const *payloads)
{
    size_t n = 0;
    while (payloads[n])
        n++;
    RUN_UNTIL(f->host, f->host->n_events >= first + n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(f->host->events[first + i].data, payloads[i]);
    assert_int_equal(f->host->n_events, first + n);
}

void sqlite_fixture_file(struct sqlite_fixture *f, const char *name, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", f->directory, name);
}
