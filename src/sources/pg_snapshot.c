/* Rows for those who join a channel.
 *
 * Everything is asked in one read-only transaction with one snapshot (repeatable read): which
 * transactions it sees, how far the stream is to come, and the rows. What is to come is the mode's
 * to say: in the write-ahead log its end, for a transaction is seen only after its commit record
 * was written; in the outbox its newest row, for the snapshot sees all rows of what it sees. When
 * the stream has come there, every event whose transaction is in the rows has been appended, and
 * contains() tells them from the others. Subtransactions have the id of their transaction in both.
 *
 * The rows come one by one, so that too many are noticed before they are here. */
#include "pg_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUERY_MS      30000 /* statement_timeout */
#define ANSWER_MS     40000 /* without an answer so long, the server hangs */
#define STREAM_MS     60000 /* the stream may take so long to come to the rows' place */
#define IDLE_CLOSE_MS 60000
#define LOOK_MS       5
#define ROW_CHARGE    64 /* a row of no bytes counts so much against FW_SNAPSHOT_MAX */
#define SQL_MAX       65536

/* ---- what a snapshot sees ---- */

int pg_visible_read(const char *text, struct pg_visible *ret)
{
    char *at;
    *ret = (struct pg_visible){ .xmin = strtoull(text, &at, 10) };
    if (at == text || *at != ':')
        return -EINVAL;
    ret->xmax = strtoull(at + 1, &at, 10);
    if (*at != ':')
        return -EINVAL;
    size_t commas = 1;
    for (const char *c = at + 1; *c; c++)
        commas += *c == ',';
    ret->xip = malloc(commas * sizeof(*ret->xip));
    if (!ret->xip)
        return -ENOMEM;
    while (at[1]) {
        char *start = at + 1;
        uint64_t xid = strtoull(start, &at, 10);
        if (at == start || (*at && *at != ',') || (*at && !at[1])) {
            pg_visible_done(ret);
            return -EINVAL;
        }
        ret->xip[ret->n++] = xid;
        if (!*at)
            break;
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

bool pg_visible_has(const struct pg_visible *v, uint64_t xid)
{
    if (xid < v->xmin)
        return true;
    return xid < v->xmax && !bsearch(&xid, v->xip, v->n, sizeof(xid), compare);
}

void pg_visible_done(struct pg_visible *v)
{
    free(v->xip);
    *v = (struct pg_visible){ 0 };
}

static bool contains(const void *arg, const uint64_t pos[2], uint64_t xid)
{
    (void)pos;
    return pg_visible_has(arg, xid);
}

/* ---- ends ---- */

static void close_link(struct pg_snapshot *s)
{
    pg_link_close(&s->link);
    s->state = SNAPSHOT_CLOSED;
    if (s->timer)
        fw_timer_stop(s->timer);
}

static void forget(struct pg_snapshot *s)
{
    s->step = STEP_IDLE;
    s->n_rows = 0;
    s->place[0] = s->place[1] = 0;
    buf_done(&s->rows);
    pg_visible_done(&s->visible);
    s->since_ms = fw_host_now_ms(s->host);
}

/* The connection may be inside the transaction, or full of rows: it goes. */
static void refuse(struct pg_snapshot *s, const char *code, const char *message)
{
    char text[PG_MESSAGE_MAX];
    snprintf(text, sizeof text, "%s", message); /* it may be libpq's */
    close_link(s);
    forget(s);
    fw_host_snapshot_refused(s->host, s->request, code, text);
}

static void connect(struct pg_snapshot *s)
{
    int r = pg_link_open(&s->link);
    s->reused = false;
    s->state = r == 0 ? SNAPSHOT_CONNECTING : SNAPSHOT_CLOSED;
    if (r < 0)
        refuse(s, "overloaded", strerror(-r));
}

/* One that had ended before it was asked is opened again. */
static void lose(struct pg_snapshot *s)
{
    char message[PG_MESSAGE_MAX];
    if (!s->reused) {
        refuse(s, "source-down", pg_link_message(&s->link, message));
        return;
    }
    close_link(s);
    forget(s);
    connect(s);
}

static void answer(struct pg_snapshot *s)
{
    struct fw_snapshot snapshot = { .rows = (const char *)s->rows.data, .len = s->rows.len };
    if (s->join->sql) {
        snapshot.contains = contains;
        snapshot.arg = &s->visible;
        s->join->floor(s->reader, s->visible.xmin, snapshot.floor);
    }
    struct buf rows = s->rows; /* the answer may bring the next question */
    struct pg_visible visible = s->visible;
    s->rows = buf_make(FW_SNAPSHOT_MAX);
    s->visible = (struct pg_visible){ 0 };
    if (s->join->sql)
        snapshot.arg = &visible;
    forget(s);
    fw_timer_start(s->timer, IDLE_CLOSE_MS);
    fw_host_snapshot(s->host, s->request, &snapshot);
    buf_done(&rows);
    pg_visible_done(&visible);
}

/* ---- questions ---- */

static bool begin(struct pg_snapshot *s)
{
    char sql[1024];
    snprintf(sql, sizeof sql,
             "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = %d; "
             "SELECT pg_catalog.pg_current_snapshot()::text AS fanwire_snapshot; %s",
             QUERY_MS, s->join->sql ? s->join->sql : "");
    return PQsendQuery(s->link.conn, sql);
}

/* By the extended protocol: one statement, whatever stands in the configuration. */
static bool ask_rows(struct pg_snapshot *s)
{
    struct buf sql = buf_make(SQL_MAX);
    int r = buf_printf(&sql, "SELECT pg_catalog.row_to_json(r)::text FROM (\n%s\n) r%c", s->sql, 0);
    bool sent = r == 0 && PQsendQueryParams(s->link.conn, (const char *)sql.data, 0, NULL, NULL,
                                            NULL, NULL, 0);
    buf_done(&sql);
    return sent && PQsetSingleRowMode(s->link.conn);
}

static bool end(struct pg_snapshot *s)
{
    char sql[512];
    snprintf(sql, sizeof sql, "COMMIT; %s", s->join->after ? s->join->after : "");
    return PQsendQuery(s->link.conn, sql);
}

/* Sends what is not sent yet; false: the connection broke, and that was told. */
static bool flush(struct pg_snapshot *s)
{
    int unsent = PQflush(s->link.conn);
    if (unsent < 0)
        lose(s);
    else
        pg_link_watch(&s->link, unsent ? FW_READABLE | FW_WRITABLE : FW_READABLE);
    return unsent >= 0;
}

static void go_to(struct pg_snapshot *s, int step)
{
    s->step = step;
    s->since_ms = fw_host_now_ms(s->host);
    bool sent = step == STEP_BEGIN ? begin(s) : step == STEP_ROWS ? ask_rows(s) : end(s);
    fw_timer_start(s->timer, ANSWER_MS);
    if (!sent)
        lose(s);
    else
        (void)flush(s);
}

/* ---- the stream ---- */

static void look(struct pg_snapshot *s)
{
    if (!s->join->sql || s->join->reached(s->reader, s->place)) {
        answer(s);
    } else if (fw_host_now_ms(s->host) - s->since_ms >= STREAM_MS) {
        refuse(s, "overloaded",
               "the stream has not come to what the rows contain within 60 s (is an old "
               "transaction open that has written?)");
    } else {
        fw_timer_start(s->timer, LOOK_MS);
    }
}

static void on_timer(void *arg)
{
    struct pg_snapshot *s = arg;
    if (s->step == STEP_WAIT)
        look(s);
    else if (s->step == STEP_IDLE)
        close_link(s);
    else
        refuse(s, "source-down", "no answer within 40 s");
}

/* ---- answers ---- */

static void take_row(struct pg_snapshot *s, const PGresult *result)
{
    for (int i = 0; i < PQntuples(result); i++) {
        size_t len = (size_t)PQgetlength(result, i, 0);
        s->n_rows++;
        (void)buf_append(&s->rows, PQgetvalue(result, i, 0), len + 1); /* with its NUL */
    }
}

/* 0, or a refusal's code. */
static const char *take_moment(struct pg_snapshot *s, const PGresult *result)
{
    int column = PQfnumber(result, "fanwire_snapshot");
    if (column < 0) {
        if (s->join->sql && PQnfields(result) > 0 && !s->join->place(result, s->place))
            s->place[0] = s->place[1] = 0;
        return NULL;
    }
    int r = pg_visible_read(PQgetvalue(result, 0, column), &s->visible);
    return r == 0 ? NULL : r == -ENOMEM ? "overloaded" : "internal";
}

static void take_failure(struct pg_snapshot *s, const PGresult *result)
{
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity && !strcmp(severity, "FATAL")) { /* the connection's last word */
        lose(s);
        return;
    }
    if (s->step == STEP_END) /* the rows are here; what is done after them may fail */
        return;
    refuse(s, "source-refused", text ? text : PQresultErrorMessage(result));
}

static void take_result(struct pg_snapshot *s, const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    const char *code = NULL;
    if (status != PGRES_TUPLES_OK && status != PGRES_SINGLE_TUPLE && status != PGRES_COMMAND_OK)
        take_failure(s, result);
    else if (s->step == STEP_BEGIN)
        code = take_moment(s, result);
    else if (s->step == STEP_ROWS)
        take_row(s, result);
    if (code)
        refuse(s, code, "the server's snapshot cannot be read");
    else if (s->rows.failed == -ENOMEM)
        refuse(s, "overloaded", "out of memory");
    else if (s->rows.len + s->n_rows * ROW_CHARGE > FW_SNAPSHOT_MAX || s->rows.failed)
        refuse(s, "too-large", "the rows take more than 16 MiB; select fewer");
}

static void end_step(struct pg_snapshot *s)
{
    s->reused = false; /* it lives */
    if (s->step == STEP_BEGIN) {
        go_to(s, STEP_ROWS);
    } else if (s->step == STEP_ROWS) {
        go_to(s, STEP_END);
    } else {
        s->step = STEP_WAIT;
        s->since_ms = fw_host_now_ms(s->host);
        look(s);
    }
}

static bool in_query(const struct pg_snapshot *s)
{
    return s->state == SNAPSHOT_OPEN && s->step != STEP_IDLE && s->step != STEP_WAIT;
}

static void take_results(struct pg_snapshot *s)
{
    while (in_query(s) && !PQisBusy(s->link.conn)) {
        PGresult *result = PQgetResult(s->link.conn);
        if (!result) {
            end_step(s);
            continue;
        }
        take_result(s, result);
        PQclear(result);
    }
}

static void on_io(void *arg, unsigned events)
{
    struct pg_snapshot *s = arg;
    bool alive = !(events & FW_READABLE) || PQconsumeInput(s->link.conn);
    take_results(s);
    if (s->state != SNAPSHOT_OPEN)
        return;
    if (alive && PQstatus(s->link.conn) == CONNECTION_OK)
        (void)flush(s);
    else if (s->step == STEP_IDLE || s->step == STEP_WAIT)
        pg_link_close(&s->link); /* nothing is to come; the next question opens another */
    else
        lose(s);
    if (s->state == SNAPSHOT_OPEN && !s->link.conn)
        s->state = SNAPSHOT_CLOSED;
}

/* ---- life ---- */

static void on_connected(void *arg)
{
    struct pg_snapshot *s = arg;
    s->state = SNAPSHOT_OPEN;
    go_to(s, STEP_BEGIN);
}

static void on_failed(void *arg, const char *message)
{
    struct pg_snapshot *s = arg;
    char text[PG_MESSAGE_MAX];
    s->state = SNAPSHOT_CLOSED;
    snprintf(text, sizeof text, "cannot connect: %.350s", message);
    refuse(s, "source-down", text);
}

static const struct pg_link_events link_events = { on_connected, on_failed, on_io };

void pg_snapshot_init(struct pg_snapshot *s, struct fw_host *host, const struct pg_url *url)
{
    *s = (struct pg_snapshot){ .host = host, .rows = buf_make(FW_SNAPSHOT_MAX) };
    pg_link_init(&s->link, host, url, &link_events, s);
}

void pg_snapshot_ask(struct pg_snapshot *s, const struct pg_join *join,
                     const struct pg_reader *reader, uint64_t request, const char *sql)
{
    s->join = join;
    s->reader = reader;
    s->request = request;
    s->sql = sql;
    int r = s->timer ? 0 : fw_host_timer(s->host, on_timer, s, &s->timer);
    if (r < 0) {
        refuse(s, "overloaded", strerror(-r));
    } else if (s->state == SNAPSHOT_OPEN) {
        s->reused = true;
        go_to(s, STEP_BEGIN);
    } else {
        connect(s);
    }
}

void pg_snapshot_cancel(struct pg_snapshot *s)
{
    if (s->step == STEP_IDLE && s->state != SNAPSHOT_CONNECTING)
        return;
    close_link(s);
    forget(s);
}

void pg_snapshot_done(struct pg_snapshot *s)
{
    close_link(s);
    forget(s);
    pg_link_done(&s->link);
    if (s->timer)
        fw_timer_free(s->timer);
}
