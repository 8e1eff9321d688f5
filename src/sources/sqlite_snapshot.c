/* A query's rows, and how far the outbox was when they were read.
 *
 * Both are read in one transaction. SQLite has one writer, and an event's id is given inside the
 * transaction that makes the change it tells of: so the rows contain exactly what the events up to
 * the newest id tell. */
#include "sqlite_snapshot.h"

#include "clock.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW_CHARGE 64 /* a row of no bytes counts so much against FW_SNAPSHOT_MAX */

static int fail(struct sqlite_outbox *o, int r, const char *why)
{
    (void)snprintf(o->error, sizeof(o->error), "%.400s", why);
    return r;
}

/* What SQLite's last result means. */
static int fail_by_result(struct sqlite_outbox *o)
{
    int code = sqlite3_extended_errcode(o->db) & 0xff;
    if (code == SQLITE_INTERRUPT && clock_monotonic_ms() >= o->deadline_ms)
        return fail(o, -EINVAL, "the query took more than 5 s");
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED || code == SQLITE_INTERRUPT)
        return -EAGAIN;
    return fail(o, -EINVAL, sqlite3_errmsg(o->db));
}

/* ---- JSON ---- */

/* The shortest text that means this number. */
static int append_real(struct buf *rows, double value)
{
    char text[32];
    if (!isfinite(value))
        return buf_append_str(rows, "null");
    (void)snprintf(text, sizeof(text), "%.15g", value);
    if (strtod(text, NULL) != value)
        (void)snprintf(text, sizeof(text), "%.17g", value);
    return buf_append_str(rows, text);
}

/* As hex(), like in the events of fanwire's triggers. */
static int append_blob(struct buf *rows, const uint8_t *data, size_t len)
{
    static const char digits[] = "0123456789ABCDEF";
    if (buf_append_char(rows, '"') < 0 || buf_reserve(rows, 2 * len) < 0)
        return rows->failed;
    for (size_t i = 0; i < len; i++) {
        rows->data[rows->len++] = (uint8_t)digits[data[i] >> 4];
        rows->data[rows->len++] = (uint8_t)digits[data[i] & 15];
    }
    return buf_append_char(rows, '"');
}

static int append_value(struct buf *rows, sqlite3_stmt *row, int column)
{
    switch (sqlite3_column_type(row, column)) {
    case SQLITE_INTEGER:
        return buf_printf(rows, "%" PRId64, (int64_t)sqlite3_column_int64(row, column));
    case SQLITE_FLOAT:
        return append_real(rows, sqlite3_column_double(row, column));
    case SQLITE_TEXT: {
        const char *text = (const char *)sqlite3_column_text(row, column);
        return json_append_string(rows, text, (size_t)sqlite3_column_bytes(row, column));
    }
    case SQLITE_BLOB: {
        const void *data = sqlite3_column_blob(row, column);
        return append_blob(rows, data, (size_t)sqlite3_column_bytes(row, column));
    }
    default:
        return buf_append_str(rows, "null");
    }
}

static int append_row(struct buf *rows, sqlite3_stmt *row)
{
    int n = sqlite3_column_count(row), r = 0;
    for (int i = 0; i < n && r == 0; i++) {
        const char *name = sqlite3_column_name(row, i);
        r = buf_append_char(rows, i == 0 ? '{' : ',');
        if (r == 0)
            r = json_append_string(rows, name ? name : "", name ? strlen(name) : 0);
        if (r == 0)
            r = buf_append_char(rows, ':');
        if (r == 0)
            r = append_value(rows, row, i);
    }
    return r < 0 ? r : buf_append(rows, "}", 2); /* with its NUL */
}

/* ---- the query ---- */

static int prepare(struct sqlite_outbox *o, const char *sql, sqlite3_stmt **ret)
{
    const char *rest;
    if (sqlite3_prepare_v2(o->db, sql, -1, ret, &rest) != SQLITE_OK)
        return fail_by_result(o);
    while (*rest == ' ' || *rest == '\n' || *rest == '\t' || *rest == '\r')
        rest++;
    if (!*ret || *rest || !sqlite3_stmt_readonly(*ret) || sqlite3_column_count(*ret) == 0)
        return fail(o, -EINVAL, "it is to be one query that only reads");
    return 0;
}

static int read_rows(struct sqlite_outbox *o, sqlite3_stmt *stmt, struct buf *rows)
{
    int step;
    for (size_t n = 1; (step = sqlite3_step(stmt)) == SQLITE_ROW; n++) {
        if (append_row(rows, stmt) < 0 || rows->len + n * ROW_CHARGE > FW_SNAPSHOT_MAX)
            return rows->failed == -ENOMEM
                       ? fail(o, -EIO, "out of memory")
                       : fail(o, -EMSGSIZE, "the rows take more than 16 MiB; select fewer");
    }
    return step == SQLITE_DONE ? 0 : fail_by_result(o);
}

static int read_upto(struct sqlite_outbox *o, int64_t *ret)
{
    static const char sql[] =
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fanwire_outbox'), 0), "
        "coalesce((SELECT max(id) FROM fanwire_outbox), 0))";
    sqlite3_stmt *stmt = NULL;
    int r = prepare(o, sql, &stmt);
    if (r == 0)
        r = sqlite3_step(stmt) == SQLITE_ROW ? 0 : fail_by_result(o);
    if (r == 0)
        *ret = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return r;
}

static int read_both(struct sqlite_outbox *o, const char *sql, struct buf *rows, int64_t *ret_upto)
{
    sqlite3_stmt *stmt = NULL;
    int r = read_upto(o, ret_upto);
    if (r == 0)
        r = prepare(o, sql, &stmt);
    if (r == 0)
        r = read_rows(o, stmt, rows);
    (void)sqlite3_finalize(stmt);
    return r;
}

int sqlite_snapshot_read(struct sqlite_outbox *o, const char *sql, struct buf *rows,
                         int64_t *ret_upto)
{
    o->deadline_ms = clock_monotonic_ms() + SQLITE_SNAPSHOT_MS;
    int r = sqlite3_exec(o->db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK ? 0 : fail_by_result(o);
    if (r == 0) {
        r = read_both(o, sql, rows, ret_upto);
        o->deadline_ms = 0;
        (void)sqlite3_exec(o->db, "COMMIT", NULL, NULL, NULL);
    }
    o->deadline_ms = 0;
    return r;
}
