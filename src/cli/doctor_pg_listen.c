/* Whether LISTEN really works: only a NOTIFY of another connection proves it.
 *
 * A pooler that gives each transaction another connection to the server answers LISTEN with
 * success, and even passes on what the same client notifies; what others notify never comes. */
#include "doctor_pg.h"

#include "clock.h"
#include "doctor_quote.h"
#include "web.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define ARRIVAL_MS 3000

/* ---- the pooler ---- */

/* PgBouncer's console is a database of its own; who may not use it is told so by a text that
 * Postgres, which would say that there is no such database, never gives. */
struct console {
    bool is_pgbouncer;
    char version[64], pool_mode[32];
};

/* The pool_mode of this database, else the one of all. */
static void read_pool_mode(PGconn *conn, const char *database, struct console *ret)
{
    struct exam_failure failure;
    PGresult *config = exam_query(conn, "SHOW CONFIG", &failure);
    for (int row = 0; config && row < PQntuples(config); row++)
        if (!strcmp(exam_field(config, row, "key"), "pool_mode"))
            (void)snprintf(ret->pool_mode, sizeof(ret->pool_mode), "%s",
                           exam_field(config, row, "value"));
    PQclear(config);
    PGresult *databases = exam_query(conn, "SHOW DATABASES", &failure);
    for (int row = 0; databases && row < PQntuples(databases); row++)
        if (!strcmp(exam_field(databases, row, "name"), database) &&
            exam_field(databases, row, "pool_mode")[0])
            (void)snprintf(ret->pool_mode, sizeof(ret->pool_mode), "%s",
                           exam_field(databases, row, "pool_mode"));
    PQclear(databases);
}

static void ask_console(const struct exam *exam, struct console *ret)
{
    struct exam_failure failure = { 0 };
    PGconn *conn = exam_open_again(exam->url, exam->conn, "dbname", "pgbouncer", &failure);
    if (!conn) {
        ret->is_pgbouncer = strstr(failure.text, "not allowed") != NULL;
        return;
    }
    PGresult *version = exam_query(conn, "SHOW VERSION", &failure);
    if (version && PQntuples(version) > 0 && !strncmp(PQgetvalue(version, 0, 0), "PgBouncer", 9)) {
        ret->is_pgbouncer = true;
        (void)snprintf(ret->version, sizeof(ret->version), "%s", PQgetvalue(version, 0, 0));
        read_pool_mode(conn, PQdb(exam->conn), ret);
    }
    PQclear(version);
    PQfinish(conn);
}

/* The server as the pooler reaches it, which need not be from here. */
static void suggest_server(const struct exam *exam, struct finding *f)
{
    struct buf url = buf_make(1024), command = buf_make(2048);
    if (!exam->server_host[0]) {
        finding_detail(f, "The server is on the pooler's own machine, port %s.", exam->server_port);
        return;
    }
    finding_detail(f, "Seen from the pooler, the server is %s port %s.", exam->server_host,
                   exam->server_port);
    bool is_v6 = strchr(exam->server_host, ':') != NULL;
    (void)buf_append_str(&url, "postgres://");
    (void)web_escape(&url, PQuser(exam->conn));
    (void)buf_printf(&url, "@%s%s%s:%s/", is_v6 ? "[" : "", exam->server_host, is_v6 ? "]" : "",
                     exam->server_port);
    (void)web_escape(&url, PQdb(exam->conn));
    (void)buf_append_str(&command, "fanwire doctor ");
    if (buf_append(&url, "", 1) == 0)
        quote_shell(&command, (const char *)url.data);
    if (buf_append(&command, "", 1) == 0)
        finding_command(f, "%s", (const char *)command.data);
    buf_done(&url);
    buf_done(&command);
}

static void report_pooler(struct exam *exam, bool broken)
{
    struct console console = { 0 };
    ask_console(exam, &console);
    const char *what = console.version[0]     ? console.version
                       : console.is_pgbouncer ? "PgBouncer"
                                              : "a connection pooler";
    const char *mode = console.pool_mode[0] ? console.pool_mode
                       : broken             ? "transaction"
                                            : "session";
    bool fatal = exam->mode == MODE_WAL || (broken && exam->mode == MODE_NOTIFY);
    struct finding *f = report_add(exam->report, fatal ? LEVEL_PROBLEM : LEVEL_NOTE, "pooler",
                                   "this is %s in %s mode, not the server itself", what, mode);
    if (broken)
        finding_detail(f, "What LISTEN should bring goes to another client of the pooler, or to "
                          "nobody. Give fanwire the address of the server itself; your application "
                          "may publish through the pooler.");
    else
        finding_detail(f, "It passes LISTEN on. A connection of its own to the server has one part "
                          "less that can fail, and mode wal needs it.");
    if (exam->provider)
        finding_detail(f, "%s", exam_provider_hint(exam));
    else
        suggest_server(exam, f);
    finding_text(f, "pooler", what);
    finding_text(f, "pool_mode", mode);
}

/* ---- the proof ---- */

static void make_name(char *out, size_t size)
{
    uint64_t random = 0;
    (void)!getrandom(&random, sizeof(random), 0);
    (void)snprintf(out, size, "fanwire_doctor_%016jx", (uintmax_t)random);
}

static bool run(PGconn *conn, const char *command, const char *name, struct exam_failure *failure)
{
    char sql[128];
    (void)snprintf(sql, sizeof(sql), "%s \"%s\"", command, name);
    PGresult *result = exam_query(conn, sql, failure);
    PQclear(result);
    return result != NULL;
}

static bool take(PGconn *conn, const char *name)
{
    bool found = false;
    for (PGnotify *notify; (notify = PQnotifies(conn)); PQfreemem(notify))
        found |= !strcmp(notify->relname, name);
    return found;
}

/* Microseconds until the notification came, -1 when it did not. */
static int64_t wait_for_notification(PGconn *conn, const char *name, int64_t started_us)
{
    for (;;) {
        if (take(conn, name))
            return clock_monotonic_us() - started_us;
        int64_t left = started_us / 1000 + ARRIVAL_MS - clock_monotonic_ms();
        struct pollfd fd = { .fd = PQsocket(conn), .events = POLLIN };
        if (left <= 0)
            return -1;
        (void)poll(&fd, 1, (int)left);
        if (!PQconsumeInput(conn))
            return -1;
    }
}

static void report_arrival(struct exam *exam, int64_t us)
{
    struct finding *f;
    exam->listen_arrives = us >= 0;
    if (us >= 0) {
        f = report_add(exam->report, LEVEL_OK, "listen",
                       "LISTEN hears what another connection notifies (%.1f ms)",
                       (double)us / 1000);
        finding_number(f, "us", us);
        return;
    }
    f = report_add(exam->report,
                   exam->mode == MODE_OUTBOX ? LEVEL_NOTE : exam_level(exam, MODE_NOTIFY), "listen",
                   "LISTEN hears nothing of another connection's NOTIFY within %d s",
                   ARRIVAL_MS / 1000);
    if (exam->mode == MODE_OUTBOX)
        finding_detail(f, "Mode outbox loses nothing by it: it polls its table, which makes events "
                          "come some milliseconds later.");
    else
        finding_detail(f, "In mode notify no event would ever arrive.");
}

static int64_t try_listen(struct exam *exam, PGconn *other, struct exam_failure *failure)
{
    char name[64];
    make_name(name, sizeof(name));
    if (!run(exam->conn, "LISTEN", name, failure))
        return -2;
    int64_t started_us = clock_monotonic_us();
    int64_t us = run(other, "NOTIFY", name, failure)
                     ? wait_for_notification(exam->conn, name, started_us)
                     : -2;
    struct exam_failure ignored;
    (void)run(exam->conn, "UNLISTEN", name, &ignored);
    return us;
}

static void prove(struct exam *exam)
{
    struct exam_failure failure = { 0 };
    PGconn *other = exam_open_again(exam->url, exam->conn, NULL, NULL, &failure);
    if (!other) {
        struct finding *f =
            report_add(exam->report, LEVEL_WARNING, "listen",
                       "cannot open a second connection, to prove that LISTEN works");
        finding_quote(f, failure.text);
        finding_detail(f, "Fanwire needs a second one when somebody publishes through it.");
        exam->listen_arrives = true; /* nothing speaks against it */
        return;
    }
    int64_t us = try_listen(exam, other, &failure);
    PQfinish(other);
    if (us != -2) {
        report_arrival(exam, us);
        return;
    }
    struct finding *f = report_add(exam->report, exam_level(exam, MODE_NOTIFY), "listen",
                                   "LISTEN and NOTIFY do not work here");
    finding_quote(f, failure.text);
}

void exam_listen(struct exam *exam)
{
    if (exam->standby || exam->report->unreachable) /* a standby refuses LISTEN, that was said */
        return;
    prove(exam);
    if (exam->pooled || !exam->listen_arrives)
        report_pooler(exam, !exam->listen_arrives);
}
