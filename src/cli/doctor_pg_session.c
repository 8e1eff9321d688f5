/* Connections and statements of the doctor's, each with a time limit: a server that hangs is one of
 * the things to find out. */
#include "doctor_pg.h"

#include "clock.h"
#include "pg_parameters.h"
#include "pg_refusal.h"
#include "text.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS 10000

static void fail(struct exam_failure *failure, const char *state, const char *text)
{
    (void)snprintf(failure->state, sizeof(failure->state), "%s", state);
    pg_one_line(failure->text, sizeof(failure->text), text);
}

/* Waits for libpq's socket. Returns false at the deadline. */
static bool wait_for(const PGconn *conn, short events, int64_t deadline)
{
    struct pollfd fd = { .fd = PQsocket(conn), .events = events };
    for (;;) {
        int64_t left = deadline - clock_monotonic_ms();
        if (left <= 0)
            return false;
        int n = poll(&fd, 1, (int)left);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
    }
}

/* ---- connecting ---- */

/* Goes through libpq's handshake. */
static bool connect_within(PGconn *conn, unsigned limit_ms, struct exam_failure *failure)
{
    int64_t deadline = clock_monotonic_ms() + limit_ms;
    PostgresPollingStatusType status =
        PQstatus(conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    while (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING) {
        if (!wait_for(conn, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline)) {
            char text[64];
            (void)snprintf(text, sizeof(text), "timeout expired: no answer within %u s",
                           limit_ms / 1000);
            fail(failure, "", text);
            return false;
        }
        status = PQconnectPoll(conn);
    }
    if (status != PGRES_POLLING_OK)
        pg_refusal_read(PQerrorMessage(conn), failure->state, failure->text, sizeof(failure->text));
    return status == PGRES_POLLING_OK;
}

/* Warnings of the server's would go to standard error. */
static void ignore_notice(void *arg, const PGresult *notice)
{
}

static PGconn *open_with(const struct pg_url *url, struct pg_parameters *p, const char *name,
                         const char *value, struct exam_failure *failure)
{
    if (name)
        pg_parameters_set(p, name, value);
    PGconn *conn = PQconnectStartParams(p->names, p->values, 0);
    if (!conn) {
        fail(failure, "", "out of memory");
        return NULL;
    }
    (void)PQsetNoticeReceiver(conn, ignore_notice, NULL);
    (void)PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
    if (connect_within(conn, url->connect_timeout_ms, failure)) {
        (void)PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
        return conn;
    }
    PQfinish(conn);
    return NULL;
}

PGconn *exam_open(const struct pg_url *url, const struct pg_place *place, const char *name,
                  const char *value, struct exam_failure *failure)
{
    struct pg_parameters p = { .n = 0 };
    pg_parameters_set_url(&p, url, "fanwire doctor");
    pg_parameters_set(&p, "host", place->host);
    pg_parameters_set(&p, "hostaddr", place->address);
    pg_parameters_set(&p, "port", place->port);
    return open_with(url, &p, name, value, failure);
}

PGconn *exam_open_again(const struct pg_url *url, const PGconn *like, const char *name,
                        const char *value, struct exam_failure *failure)
{
    struct pg_parameters p = { .n = 0 };
    const char *host = PQhost(like), *address = PQhostaddr(like);
    pg_parameters_set_url(&p, url, "fanwire doctor");
    pg_parameters_set(&p, "host", host);
    /* libpq gives the address as the host where the URL has no name */
    pg_parameters_set(&p, "hostaddr", host[0] == '/' || host[0] == '@' ? "" : address);
    pg_parameters_set(&p, "port", PQport(like));
    return open_with(url, &p, name, value, failure);
}

/* ---- statements ---- */

static void take_error(const PGconn *conn, const PGresult *result, struct exam_failure *failure)
{
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *text = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    fail(failure, state ? state : "", text ? text : PQerrorMessage(conn));
}

/* The result of the statement that was sent; NULL at the deadline or when the connection broke. */
static PGresult *receive(PGconn *conn, int64_t deadline)
{
    PGresult *last = NULL;
    for (;;) {
        while (PQisBusy(conn)) {
            if (!wait_for(conn, POLLIN, deadline) || !PQconsumeInput(conn)) {
                PQclear(last);
                return NULL;
            }
        }
        PGresult *next = PQgetResult(conn);
        if (!next)
            return last;
        PQclear(last);
        last = next;
    }
}

PGresult *exam_query(PGconn *conn, const char *sql, struct exam_failure *failure)
{
    int64_t deadline = clock_monotonic_ms() + ANSWER_MS;
    PGresult *result = PQsendQuery(conn, sql) ? receive(conn, deadline) : NULL;
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return result;
    if (!result && PQstatus(conn) == CONNECTION_OK && PQtransactionStatus(conn) == PQTRANS_ACTIVE)
        fail(failure, "", "the server did not answer within 10 s");
    else
        take_error(conn, result, failure);
    PQclear(result);
    return NULL;
}

/* A connection that broke, or whose answer is still due, is of no use to anybody after. */
static void report_failure(struct exam *exam, const char *what, const struct exam_failure *failure)
{
    bool ended =
        PQstatus(exam->conn) != CONNECTION_OK || PQtransactionStatus(exam->conn) == PQTRANS_ACTIVE;
    struct finding *f =
        ended
            ? report_add(exam->report, LEVEL_PROBLEM, "connect", "the connection was lost")
            : report_add(exam->report, LEVEL_WARNING, "unknown", "cannot find out about %s", what);
    exam->report->unreachable |= ended;
    finding_quote(f, failure->text);
}

PGresult *exam_ask(struct exam *exam, const char *what, const char *sql)
{
    struct exam_failure failure;
    if (exam->report->unreachable)
        return NULL;
    PGresult *result = exam_query(exam->conn, sql, &failure);
    if (!result)
        report_failure(exam, what, &failure);
    return result;
}

const char *exam_field(const PGresult *result, int row, const char *name)
{
    int column = result ? PQfnumber(result, name) : -1;
    return column < 0 || row >= PQntuples(result) ? "" : PQgetvalue(result, row, column);
}

bool exam_field_true(const PGresult *result, int row, const char *name)
{
    return exam_field(result, row, name)[0] == 't';
}

int64_t exam_field_number(const PGresult *result, int row, const char *name)
{
    const char *text = exam_field(result, row, name);
    return *text ? strtoll(text, NULL, 10) : -1;
}
