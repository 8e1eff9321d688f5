/* The store in a Postgres database, whose fanwire_watch() tells the changes (schema.postgres.sql).
 *
 * When a connection is lost before the answer, only a read is tried again, on a new connection:
 * nobody knows whether a write was done. That a connection has died while it was idle is noticed
 * before anything is sent. What Postgres rolled back for others' sake is tried again, too. */
#include "backend.h"
#include "pool.h"
#include "schema_postgres.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_MS                                                                                  \
    12000 /* a silent network; Postgres itself gives up after 10 s, see connect_to() */
#define TRIES        3
#define LOST         (-ECONNRESET)
#define ROLLED_BACK  (-EDEADLK)
#define N_PARAMETERS 5

struct postgres {
    char *url;
    struct pool pool;
    PGconn *connections[POOL_SIZE]; /* the pool holds pointers to these; NULL: not open */
};

#define LIST_QUERY                                                                                 \
    "SELECT id, title, completed, created FROM todos ORDER BY created, id COLLATE \"C\""

#define SIZE(title) "octet_length(to_json(" title ")::text)"
#define MEANT       "($5 IS NULL OR id IN (SELECT json_array_elements_text($5)))"

/* In CHANGE, a comparison with what is not said is NULL: only what differs is written. Those that
 * change many rows lock them in one order: else two of them would each wait for the other. */
static const char *const texts[N_STATEMENTS] = {
    [LIST] = LIST_QUERY,
    [GET] = "SELECT id, title, completed, created FROM todos WHERE id = $1",
    [ADD] =
        "INSERT INTO todos (id, title, completed, created) SELECT $1, $2, coalesce($3, false), "
        "coalesce($4, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) "
        "WHERE (SELECT count(*) < " LIST_ITEMS_MAX
        " AND coalesce(sum(" SIZE("title") "), 0) "
                                           "+ " SIZE("$2") " <= " LIST_TITLES_MAX " FROM todos) "
                                                           "ON CONFLICT (id) DO NOTHING RETURNING "
                                                           "id, title, completed, created",
    [CHANGE] =
        "UPDATE todos SET title = coalesce($2, title), completed = coalesce($3, completed) "
        "WHERE id = $1 AND (title <> $2 OR completed <> $3) "
        "AND ($2 IS NULL OR " SIZE("$2") " <= " SIZE(
            "title") " OR (SELECT "
                     "coalesce(sum(" SIZE(
                         "other.title") "), 0) FROM todos other WHERE other.id <> $1) "
                                        "+ " SIZE("$2") " <= " LIST_TITLES_MAX ") "
                                                        "RETURNING id, title, completed, created",
    [REMOVE] = "DELETE FROM todos WHERE id = $1",
    [CHANGE_ALL] =
        "UPDATE todos SET completed = $3 WHERE id IN "
        "(SELECT id FROM todos WHERE completed <> $3 AND " MEANT " ORDER BY id FOR UPDATE)",
    [REMOVE_COMPLETED] =
        "DELETE FROM todos WHERE id IN "
        "(SELECT id FROM todos WHERE completed AND " MEANT " ORDER BY id FOR UPDATE)",
};

static const char has_fanwire[] =
    "SELECT to_regclass('fanwire.watched') IS NOT NULL "
    "AND EXISTS (SELECT FROM pg_proc WHERE proname = 'fanwire_watch')";
static const char has_watches[] =
    "SELECT count(*) >= 2 FROM fanwire.watched WHERE tbl = to_regclass('todos')";

/* ---- errors ---- */

static bool begins(const char *state, const char *prefix)
{
    return strncmp(state, prefix, strlen(prefix)) == 0;
}

/* What a statement's failure means, by its SQLSTATE: class 08 connection, 22 and 23 values, 40
 * serialization and deadlocks, 53 resources, 57P going down, 57014 and 55P03 waited too long. */
static int code_of(const char *state)
{
    if (begins(state, "22") || begins(state, "23"))
        return -EINVAL;
    if (begins(state, "57P") || begins(state, "08"))
        return LOST;
    if (begins(state, "40"))
        return ROLLED_BACK;
    if (begins(state, "53") || begins(state, "57014") || begins(state, "55P03"))
        return -EAGAIN;
    return -EIO;
}

static int fail(PGconn *connection, const PGresult *result, struct fw_error *err)
{
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *text = result ? PQresultErrorMessage(result) : PQerrorMessage(connection);
    int code = state ? code_of(state) : PQstatus(connection) == CONNECTION_BAD ? LOST : -EIO;
    return store_fail(err, code, "Postgres: %.*s", (int)strcspn(text, "\n"), text);
}

/* ---- connections ---- */

static void disconnect(PGconn **connection)
{
    PQfinish(*connection);
    *connection = NULL;
}

static int execute(PGconn *connection, const char *sql, struct fw_error *err)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    int r =
        status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? 0 : fail(connection, result, err);
    PQclear(result);
    return r;
}

/* Returns 1, 0 or -errno. */
static int check(PGconn *connection, const char *sql, struct fw_error *err)
{
    PGresult *result = PQexec(connection, sql);
    int r = PQresultStatus(result) == PGRES_TUPLES_OK ? PQgetvalue(result, 0, 0)[0] == 't'
                                                      : fail(connection, result, err);
    PQclear(result);
    return r;
}

static int check_installed(PGconn *connection, struct fw_error *err)
{
    int r = check(connection, has_fanwire, err);
    return r > 0 ? check(connection, has_watches, err) : r;
}

/* Where fanwire is installed it stays in its mode. */
static int install_all(PGconn *connection, struct fw_error *err)
{
    int r = check(connection, has_fanwire, err);
    if (r == 0)
        r = execute(connection, fw_sql("postgres", NULL), err);
    return r < 0 ? r : execute(connection, schema_postgres, err);
}

/* One at a time, of all programs that do this. After a failure the connection is closed, and with
 * it the transaction. */
static int install(PGconn *connection, struct fw_error *err)
{
    int r =
        execute(connection, "BEGIN; SELECT pg_advisory_xact_lock(hashtext('fanwire todo'))", err);
    if (r == 0)
        r = check_installed(connection, err);
    if (r == 0)
        r = install_all(connection, err);
    if (r >= 0)
        r = execute(connection, "COMMIT", err);
    if (r != -EIO)
        return r;
    struct fw_error why = *err;
    return store_fail(
        err, r,
        "cannot install the tables (%.200s); as a role that may, run: "
        "todo --store postgres:// --sql | psql -1 -v ON_ERROR_STOP=1 \"$DATABASE_URL\"",
        why.message);
}

/* What the URL says comes last and so prevails. */
static int connect_to(const struct postgres *postgres, PGconn **connection, struct fw_error *err)
{
    static const char *const names[] = { "application_name",
                                         "client_encoding",
                                         "connect_timeout",
                                         "keepalives_idle",
                                         "keepalives_interval",
                                         "keepalives_count",
                                         "tcp_user_timeout",
                                         "dbname",
                                         NULL };
    const char *const values[] = {
        "todo", "UTF8", "3", "10", "5", "2", "9000", postgres->url, NULL
    };
    *connection = PQconnectdbParams(names, values, 1);
    if (PQstatus(*connection) != CONNECTION_OK)
        return fail(*connection, NULL, err);
    int r = execute(*connection,
                    "SET client_min_messages = warning; SET statement_timeout = '10s'; "
                    "SET lock_timeout = '5s'",
                    err);
    if (r == 0)
        r = check_installed(*connection, err);
    return r != 0 ? (r < 0 ? r : 0) : install(*connection, err);
}

/* True when the server has said nothing since: neither a farewell nor the end. */
static bool is_alive(PGconn *connection)
{
    struct pollfd readable = { .fd = PQsocket(connection), .events = POLLIN };
    while (PQstatus(connection) == CONNECTION_OK && poll(&readable, 1, 0) > 0) {
        if (!PQconsumeInput(connection))
            return false;
    }
    return PQstatus(connection) == CONNECTION_OK;
}

static int make_ready(const struct postgres *postgres, PGconn **connection, struct fw_error *err)
{
    if (*connection && is_alive(*connection))
        return 0;
    disconnect(connection);
    int r = connect_to(postgres, connection, err);
    if (r < 0)
        disconnect(connection);
    return r == LOST || r == ROLLED_BACK ? -EAGAIN : r; /* nothing was sent */
}

/* ---- statements ---- */

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for the answer, but not for ever, as PQexec() would. NULL: it did not come. */
static PGresult *await(PGconn *connection)
{
    int64_t until = now_ms() + ANSWER_MS;
    struct pollfd readable = { .fd = PQsocket(connection), .events = POLLIN };
    while (PQisBusy(connection)) {
        int64_t left = until - now_ms();
        int n = left > 0 ? poll(&readable, 1, (int)left) : 0;
        if (n == 0 || (n < 0 && errno != EINTR) || (n > 0 && !PQconsumeInput(connection)))
            return NULL;
    }
    return PQgetResult(connection);
}

static bool submit(PGconn *connection, enum statement statement, const struct draft *draft)
{
    static const Oid types[N_PARAMETERS] = { 25, 25, 16, 20, 114 }; /* text, text, boolean,
                                                                          bigint, json */
    char created[24];
    const char *values[N_PARAMETERS] = { draft->id, draft->title };
    if (draft->completed >= 0)
        values[2] = draft->completed ? "t" : "f";
    (void)snprintf(created, sizeof(created), "%lld", (long long)draft->created);
    if (draft->created >= 0)
        values[3] = created;
    values[4] = draft->ids;
    return PQsendQueryParams(connection, texts[statement], N_PARAMETERS, types, values, NULL, NULL,
                             0);
}

static int tell_all(const PGresult *result, item_fn *each, void *arg, struct fw_error *err)
{
    int n = PQntuples(result);
    for (int i = 0; i < n; i++) {
        const struct item item = { .id = PQgetvalue(result, i, 0),
                                   .title = PQgetvalue(result, i, 1),
                                   .completed = PQgetvalue(result, i, 2)[0] == 't',
                                   .created = strtoll(PQgetvalue(result, i, 3), NULL, 10) };
        int r = each(&item, arg);
        if (r < 0)
            return store_fail(err, r, "an item cannot be told: %s", strerror(-r));
    }
    return n;
}

/* After a result comes NULL, and the connection is free again. */
static int run_on(PGconn *connection, enum statement statement, const struct draft *draft,
                  item_fn *each, void *arg, struct fw_error *err)
{
    PGresult *result = submit(connection, statement, draft) ? await(connection) : NULL;
    if (!result)
        return store_fail(err, LOST, "Postgres does not answer");
    ExecStatusType status = PQresultStatus(result);
    int r = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK
                ? tell_all(result, each, arg, err)
                : fail(connection, result, err);
    PQclear(result);
    PGresult *end = r == LOST ? NULL : await(connection);
    PQclear(end);
    return r;
}

static int attempt(const struct postgres *postgres, PGconn **connection, enum statement statement,
                   const struct draft *draft, item_fn *each, void *arg, struct fw_error *err)
{
    int r = make_ready(postgres, connection, err);
    if (r == 0)
        r = run_on(*connection, statement, draft, each, arg, err);
    if (r == LOST || r == -EIO) /* the tables may be gone: the next one makes them */
        disconnect(connection);
    return r;
}

/* True where nothing was changed, and another try is likely to do better. */
static bool may_try_again(int r, enum statement statement)
{
    return r == ROLLED_BACK || (r == LOST && (statement == LIST || statement == GET));
}

static int postgres_run(void *db, enum statement statement, const struct draft *draft,
                        item_fn *each, void *arg, struct fw_error *err)
{
    struct postgres *postgres = db;
    PGconn **connection = pool_take(&postgres->pool);
    int r = attempt(postgres, connection, statement, draft, each, arg, err);
    for (int i = 1; i < TRIES && may_try_again(r, statement); i++)
        r = attempt(postgres, connection, statement, draft, each, arg, err);
    pool_give(&postgres->pool, connection);
    if (may_try_again(r, statement))
        r = err->code = -EAGAIN;
    return r == LOST ? err->code = -ETIMEDOUT : r;
}

/* ---- the whole ---- */

static int check_url(const char *url, struct fw_error *err)
{
    char *why = NULL;
    PQconninfoOption *options = PQconninfoParse(url, &why);
    int r = options ? 0
                    : store_fail(err, -EINVAL, "--store: %.*s", why ? (int)strcspn(why, "\n") : 13,
                                 why ? why : "out of memory");
    PQconninfoFree(options);
    PQfreemem(why);
    return r;
}

static int postgres_open(const char *url, void **ret_db, struct fw_error *err)
{
    int r = check_url(url, err);
    if (r < 0)
        return r;
    struct postgres *postgres = calloc(1, sizeof(*postgres));
    if (!postgres || !(postgres->url = strdup(url))) {
        free(postgres);
        return store_fail(err, -ENOMEM, "out of memory for the store");
    }
    pool_init(&postgres->pool);
    for (int i = 0; i < POOL_SIZE; i++)
        pool_give(&postgres->pool, &postgres->connections[i]);
    *ret_db = postgres;
    return 0;
}

static void postgres_close(void *db)
{
    struct postgres *postgres = db;
    for (int i = 0; i < POOL_SIZE; i++)
        disconnect(&postgres->connections[i]);
    pool_done(&postgres->pool);
    free(postgres->url);
    free(postgres);
}

const struct backend backend_postgres = { .open = postgres_open,
                                          .run = postgres_run,
                                          .close = postgres_close,
                                          .kind = "postgres",
                                          .list = LIST_QUERY,
                                          .schema = schema_postgres };
