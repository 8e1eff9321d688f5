/* The store in a SQLite file.
 *
 * In WAL mode readers wait for nobody. Writers take turns by a lock of our own, since SQLite's is
 * waited for by sleeping; it stays for those of other programs. Triggers tell the changes
 * (schema.sqlite.sql). */
#include "backend.h"
#include "pool.h"
#include "schema_sqlite.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUSY_MS    2000 /* another program has it locked */
#define QUEUE_MS   2000 /* others of ours are before us */
#define MISSING_MS 500  /* the file is not there */
#define LOOK_MS    10

struct connection {
    sqlite3 *db; /* NULL: not open */
    sqlite3_stmt *statements[N_STATEMENTS];
};

struct sqlite {
    char *uri;
    struct pool pool;
    struct connection connections[POOL_SIZE];
    pthread_mutex_t writer;
};

#define LIST_QUERY "SELECT id, title, completed, created FROM todos ORDER BY created, id"

#define SIZE(title) "length(CAST(json_quote(" title ") AS BLOB))"
#define MEANT       "(?5 IS NULL OR id IN (SELECT value FROM json_each(?5)))"

/* In CHANGE, a comparison with what is not said is NULL: only what differs is written. */
static const char *const texts[N_STATEMENTS] = {
    [LIST] = LIST_QUERY,
    [GET] = "SELECT id, title, completed, created FROM todos WHERE id = ?1",
    [ADD] =
        "INSERT INTO todos (id, title, completed, created) SELECT ?1, ?2, coalesce(?3, 0), "
        "coalesce(?4, CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)) "
        "WHERE (SELECT count(*) < " LIST_ITEMS_MAX
        " AND coalesce(sum(" SIZE("title") "), 0) "
                                           "+ " SIZE("?2") " <= " LIST_TITLES_MAX " FROM todos) "
                                                           "ON CONFLICT (id) DO NOTHING RETURNING "
                                                           "id, title, completed, created",
    [CHANGE] =
        "UPDATE todos SET title = coalesce(?2, title), completed = coalesce(?3, completed) "
        "WHERE id = ?1 AND (title <> ?2 OR completed <> ?3) "
        "AND (?2 IS NULL OR " SIZE("?2") " <= " SIZE(
            "title") " OR (SELECT "
                     "coalesce(sum(" SIZE(
                         "other.title") "), 0) FROM todos other WHERE other.id <> ?1) "
                                        "+ " SIZE("?2") " <= " LIST_TITLES_MAX ") "
                                                        "RETURNING id, title, completed, created",
    [REMOVE] = "DELETE FROM todos WHERE id = ?1",
    [CHANGE_ALL] = "UPDATE todos SET completed = ?3 WHERE completed <> ?3 AND " MEANT,
    [REMOVE_COMPLETED] = "DELETE FROM todos WHERE completed AND " MEANT,
};

static void close_connection(struct connection *c)
{
    for (int i = 0; i < N_STATEMENTS; i++)
        (void)sqlite3_finalize(c->statements[i]);
    (void)sqlite3_close(c->db);
    *c = (struct connection){ .db = NULL };
}

/* What SQLite's last result means. */
static int fail(const struct connection *c, struct fw_error *err, const char *what)
{
    const char *text = c->db ? sqlite3_errmsg(c->db) : "out of memory";
    switch (c->db ? sqlite3_errcode(c->db) : SQLITE_NOMEM) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return store_fail(err, -EAGAIN, "%s: another program has it locked", what);
    case SQLITE_CANTOPEN:
        return store_fail(err, -EAGAIN, "%s: %s; may its directory be written?", what, text);
    case SQLITE_CONSTRAINT:
        return store_fail(err, -EINVAL, "%s: %s", what, text);
    default:
        return store_fail(err, -EIO, "%s: %s", what, text);
    }
}

/* ---- connections ---- */

static int execute(struct connection *c, const char *sql, struct fw_error *err)
{
    return sqlite3_exec(c->db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? 0
               : fail(c, err, "cannot prepare the database");
}

/* Looks first: what is there needs no lock. schema.sqlite.sql is one transaction, so its last
 * trigger stands for all of it. */
static bool is_installed(struct connection *c)
{
    sqlite3_stmt *stmt = NULL;
    bool installed = sqlite3_prepare_v2(c->db,
                                        "SELECT count(*) = 2 FROM sqlite_master "
                                        "WHERE name IN ('fanwire_outbox', 'todos_delete')",
                                        -1, &stmt, NULL) == SQLITE_OK &&
                     sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_int(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return installed;
}

/* The source of the server makes the file, and may not have come to it yet. */
static int open_file(const struct sqlite *sqlite, struct connection *c)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, r;
    for (int ms = 0; (r = sqlite3_open_v2(sqlite->uri, &c->db, flags, NULL)) == SQLITE_CANTOPEN &&
                     ms < MISSING_MS;
         ms += LOOK_MS) {
        close_connection(c);
        (void)sqlite3_sleep(LOOK_MS);
    }
    return r;
}

static int open_connection(const struct sqlite *sqlite, struct connection *c, struct fw_error *err)
{
    if (open_file(sqlite, c) != SQLITE_OK)
        return fail(c, err, "cannot open the database");
    (void)sqlite3_busy_timeout(c->db, BUSY_MS);
    if (is_installed(c))
        return 0;
    int r = execute(c, "PRAGMA journal_mode = WAL", err);
    if (r == 0)
        r = execute(c, fw_sql("sqlite", NULL), err);
    return r < 0 ? r : execute(c, schema_sqlite, err);
}

/* Another file may have been put in the place of the one that is open. */
static int make_ready(const struct sqlite *sqlite, struct connection *c, struct fw_error *err)
{
    int moved = 0;
    if (c->db && sqlite3_file_control(c->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
        moved)
        close_connection(c);
    int r = c->db ? 0 : open_connection(sqlite, c, err);
    if (r < 0)
        close_connection(c);
    return r;
}

/* ---- statements ---- */

static void bind(sqlite3_stmt *stmt, const struct draft *draft)
{
    (void)sqlite3_bind_text(stmt, 1, draft->id, -1, SQLITE_STATIC);
    if (draft->title) /* where a statement has fewer parameters, the rest is refused */
        (void)sqlite3_bind_text(stmt, 2, draft->title, -1, SQLITE_STATIC);
    if (draft->completed >= 0)
        (void)sqlite3_bind_int(stmt, 3, draft->completed);
    if (draft->created >= 0)
        (void)sqlite3_bind_int64(stmt, 4, draft->created);
    if (draft->ids)
        (void)sqlite3_bind_text(stmt, 5, draft->ids, -1, SQLITE_STATIC);
}

static int tell(sqlite3_stmt *stmt, item_fn *each, void *arg)
{
    const struct item item = { .id = (const char *)sqlite3_column_text(stmt, 0),
                               .title = (const char *)sqlite3_column_text(stmt, 1),
                               .completed = sqlite3_column_int(stmt, 2) != 0,
                               .created = sqlite3_column_int64(stmt, 3) };
    return item.id && item.title ? each(&item, arg) : -ENOMEM;
}

static int step_all(struct connection *c, sqlite3_stmt *stmt, item_fn *each, void *arg,
                    struct fw_error *err)
{
    int n = 0;
    for (int step; (step = sqlite3_step(stmt)) != SQLITE_DONE; n++) {
        if (step != SQLITE_ROW)
            return fail(c, err, "the statement failed");
        int r = tell(stmt, each, arg);
        if (r < 0)
            return store_fail(err, r, "an item cannot be told: %s", strerror(-r));
    }
    return n;
}

static int run_on(struct connection *c, enum statement statement, const struct draft *draft,
                  item_fn *each, void *arg, struct fw_error *err)
{
    sqlite3_stmt **stmt = &c->statements[statement];
    if (!*stmt && sqlite3_prepare_v3(c->db, texts[statement], -1, SQLITE_PREPARE_PERSISTENT, stmt,
                                     NULL) != SQLITE_OK)
        return fail(c, err, "cannot prepare a statement");
    bind(*stmt, draft);
    int n = step_all(c, *stmt, each, arg, err);
    (void)sqlite3_reset(*stmt);
    (void)sqlite3_clear_bindings(*stmt);
    return n;
}

static int lock_writers(struct sqlite *sqlite, struct fw_error *err)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += QUEUE_MS / 1000;
    return pthread_mutex_timedlock(&sqlite->writer, &until) == 0
               ? 0
               : store_fail(err, -EAGAIN, "too many are waiting to write");
}

static int run_write(struct sqlite *sqlite, struct connection *c, enum statement statement,
                     const struct draft *draft, item_fn *each, void *arg, struct fw_error *err)
{
    int r = lock_writers(sqlite, err);
    if (r < 0)
        return r;
    r = run_on(c, statement, draft, each, arg, err);
    (void)pthread_mutex_unlock(&sqlite->writer);
    return r;
}

static int sqlite_run(void *db, enum statement statement, const struct draft *draft, item_fn *each,
                      void *arg, struct fw_error *err)
{
    struct sqlite *sqlite = db;
    struct connection *c = pool_take(&sqlite->pool);
    int r = make_ready(sqlite, c, err);
    if (r == 0)
        r = statement == LIST || statement == GET
                ? run_on(c, statement, draft, each, arg, err)
                : run_write(sqlite, c, statement, draft, each, arg, err);
    if (r == -EIO) /* the tables may be gone: the next one makes them */
        close_connection(c);
    pool_give(&sqlite->pool, c);
    return r;
}

/* ---- the whole ---- */

static int sqlite_open(const char *url, void **ret_db, struct fw_error *err)
{
    struct sqlite *sqlite = calloc(1, sizeof(*sqlite));
    if (!sqlite || asprintf(&sqlite->uri, "file:%s", url + strlen("sqlite:")) < 0) {
        free(sqlite);
        return store_fail(err, -ENOMEM, "out of memory for the store");
    }
    (void)pthread_mutex_init(&sqlite->writer, NULL);
    pool_init(&sqlite->pool);
    for (int i = 0; i < POOL_SIZE; i++)
        pool_give(&sqlite->pool, &sqlite->connections[i]);
    *ret_db = sqlite;
    return 0;
}

static void sqlite_close(void *db)
{
    struct sqlite *sqlite = db;
    for (int i = 0; i < POOL_SIZE; i++)
        close_connection(&sqlite->connections[i]);
    pool_done(&sqlite->pool);
    (void)pthread_mutex_destroy(&sqlite->writer);
    free(sqlite->uri);
    free(sqlite);
}

const struct backend backend_sqlite = { .open = sqlite_open,
                                        .run = sqlite_run,
                                        .close = sqlite_close,
                                        .kind = "sqlite",
                                        .list = LIST_QUERY,
                                        .schema = schema_sqlite };
