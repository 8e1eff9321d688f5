/* The command connection: publishes by pg_notify(), many in flight, each answered on its own.
 *
 * libpq's pipeline mode: every publish is a statement and a sync of its own, hence a transaction of
 * its own; one that fails harms no other, and order is kept. An event is acknowledged when its sync
 * has come back, for only then it is committed. The connection is opened by the first publish and
 * closed after a minute without one. */
#include "pg_publish.h"

#include "pg_envelope.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTIFY_MAX    7999 /* bytes of payload that pg_notify() takes */
#define FLIGHT_MAX    256
#define IDLE_CLOSE_MS 60000
#define ANSWER_MS     20000 /* without any answer this long, the server hangs */
#define RETRY_MS      250

/* A notification does not survive a crash of the server anyway (its readers are told a gap), so its
 * commit need not wait for the disk. Local to the statement: a pooler's other users never see it.
 */
static const char notify_sql[] = "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), "
                                 "pg_catalog.pg_notify('fanwire', $1)";

struct pg_request {
    struct pg_request *next;
    uint64_t id;
    bool refused;
    char *error; /* the server's, when refused; NULL: no memory for it */
    char text[]; /* the envelope, NUL-terminated */
};

/* ---- queues ---- */

static void push(struct pg_queue *queue, struct pg_request *request)
{
    request->next = NULL;
    if (queue->first)
        queue->last->next = request;
    else
        queue->first = request;
    queue->last = request;
}

static struct pg_request *pop(struct pg_queue *queue)
{
    struct pg_request *request = queue->first;
    if (request)
        queue->first = request->next;
    return request;
}

static void request_free(struct pg_request *request)
{
    free(request->error);
    free(request);
}

/* ---- answers ---- */

static void answer_all(struct pg_publisher *p, struct pg_queue *queue, const char *message)
{
    struct pg_queue taken = *queue; /* an answer may bring the next publish */
    *queue = (struct pg_queue){ 0 };
    for (struct pg_request *request; (request = pop(&taken));) {
        fw_host_published(p->host, request->id, "source-down", message, NULL);
        request_free(request);
    }
}

static void close_link(struct pg_publisher *p)
{
    pg_link_close(&p->link);
    p->state = PUBLISHER_CLOSED;
    fw_timer_stop(p->timer);
}

static void refuse_waiting(struct pg_publisher *p)
{
    char text[PG_MESSAGE_MAX + 64];
    snprintf(text, sizeof text, "not stored, cannot connect to publish: %s", p->error);
    answer_all(p, &p->waiting, text);
}

static void connect_failed(struct pg_publisher *p, const char *message)
{
    p->state = PUBLISHER_CLOSED;
    snprintf(p->error, sizeof p->error, "%s", message);
    p->retry_ms = fw_host_now_ms(p->host) + RETRY_MS;
    refuse_waiting(p);
}

static void open_link(struct pg_publisher *p)
{
    p->state = PUBLISHER_CONNECTING;
    int r = pg_link_open(&p->link);
    if (r < 0)
        connect_failed(p, strerror(-r));
}

/* What was sent may have been committed; what was not is tried on a new connection. */
static void lose(struct pg_publisher *p, const char *message)
{
    char text[PG_MESSAGE_MAX + 64];
    snprintf(text, sizeof text, "may have been stored, the connection was lost: %s", message);
    close_link(p);
    p->n_flight = 0;
    answer_all(p, &p->flight, text);
    if (p->state == PUBLISHER_CLOSED && p->waiting.first)
        open_link(p);
}

static void lose_by_link(struct pg_publisher *p)
{
    char message[PG_MESSAGE_MAX];
    lose(p, pg_link_message(&p->link, message));
}

/* ---- sending ---- */

static bool send_one(struct pg_publisher *p, const struct pg_request *request)
{
    const char *values[] = { request->text };
    return PQsendQueryParams(p->link.conn, notify_sql, 1, NULL, values, NULL, NULL, 0) &&
           PQpipelineSync(p->link.conn);
}

/* Sends what may be sent; returns false when the connection was lost (and everything answered). */
static bool pump(struct pg_publisher *p)
{
    bool sent = false;
    while (p->n_flight < FLIGHT_MAX && p->waiting.first) {
        struct pg_request *request = pop(&p->waiting);
        push(&p->flight, request);
        p->n_flight++;
        sent = true;
        if (!send_one(p, request)) {
            lose_by_link(p);
            return false;
        }
    }
    if (sent)
        p->heard_ms = fw_host_now_ms(p->host);
    int unsent = PQflush(p->link.conn);
    if (unsent < 0) {
        lose_by_link(p);
        return false;
    }
    pg_link_watch(&p->link, unsent ? FW_READABLE | FW_WRITABLE : FW_READABLE);
    return true;
}

/* ---- receiving ---- */

static void finish_first(struct pg_publisher *p)
{
    struct pg_request *request = pop(&p->flight);
    if (!request)
        return;
    p->n_flight--;
    const char *error = request->error ? request->error : "the server refused the event";
    fw_host_published(p->host, request->id, request->refused ? "source-refused" : NULL,
                      request->refused ? error : NULL, NULL);
    request_free(request);
}

static void note_refusal(struct pg_request *request, const PGresult *result)
{
    char line[PG_MESSAGE_MAX];
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    free(request->error);
    request->refused = true;
    request->error = strdup(pg_one_line(line, sizeof line, text ? text : "unknown error"));
}

static void take_result(struct pg_publisher *p, const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_PIPELINE_SYNC)
        finish_first(p);
    else if (status != PGRES_TUPLES_OK)
        note_refusal(p->flight.first, result);
}

static void take_results(struct pg_publisher *p)
{
    unsigned nulls = 0; /* one ends each statement; more mean that nothing follows */
    while (p->state == PUBLISHER_OPEN && p->flight.first && nulls < 3 &&
           PQstatus(p->link.conn) == CONNECTION_OK && !PQisBusy(p->link.conn)) {
        PGresult *result = PQgetResult(p->link.conn);
        nulls = result ? 0 : nulls + 1;
        if (result)
            take_result(p, result);
        PQclear(result);
    }
}

static void on_io(void *arg, unsigned events)
{
    struct pg_publisher *p = arg;
    bool alive = !(events & FW_READABLE) || PQconsumeInput(p->link.conn);
    p->heard_ms = fw_host_now_ms(p->host);
    take_results(p);
    if (p->state != PUBLISHER_OPEN)
        return;
    if (!alive || PQstatus(p->link.conn) != CONNECTION_OK)
        lose_by_link(p);
    else
        (void)pump(p);
}

/* ---- life ---- */

static void on_connected(void *arg)
{
    struct pg_publisher *p = arg;
    p->state = PUBLISHER_OPEN;
    p->heard_ms = fw_host_now_ms(p->host);
    if (!PQenterPipelineMode(p->link.conn)) {
        close_link(p);
        connect_failed(p, "libpq refuses pipeline mode");
        return;
    }
    fw_timer_start(p->timer, ANSWER_MS);
    (void)pump(p);
}

static void on_failed(void *arg, const char *message)
{
    connect_failed(arg, message);
}

static const struct pg_link_events link_events = { on_connected, on_failed, on_io };

static void on_timer(void *arg)
{
    struct pg_publisher *p = arg;
    unsigned limit = p->n_flight > 0 ? ANSWER_MS : IDLE_CLOSE_MS;
    int64_t quiet = fw_host_now_ms(p->host) - p->heard_ms;
    if (quiet < limit) /* looks again at least every ANSWER_MS, whatever was sent meanwhile */
        fw_timer_start(p->timer, limit - quiet < ANSWER_MS ? (unsigned)(limit - quiet) : ANSWER_MS);
    else if (p->n_flight > 0)
        lose(p, "no answer within 20 s");
    else
        close_link(p);
}

void pg_publisher_init(struct pg_publisher *p, struct fw_host *host, const struct pg_url *url)
{
    *p = (struct pg_publisher){ .host = host, .scratch = buf_make(NOTIFY_MAX + 1) };
    pg_link_init(&p->link, host, url, &link_events, p);
}

/* Why an event cannot be sent at all; NULL: *ret_request holds it. */
static const char *prepare(struct pg_publisher *p, const struct fw_publish *publish,
                           struct pg_request **ret_request, const char **ret_message)
{
    buf_clear(&p->scratch);
    int r = pg_envelope_write(&p->scratch, publish);
    if (r == -EMSGSIZE) {
        *ret_message = "the event with its envelope is larger than the 7999 bytes that Postgres "
                       "takes in notify mode; use mode=outbox or mode=wal where available, or "
                       "publish a reference and let readers fetch";
        return "too-large";
    }
    struct pg_request *request = r < 0 ? NULL : malloc(sizeof *request + p->scratch.len);
    if (!request || (!p->timer && fw_host_timer(p->host, on_timer, p, &p->timer) < 0)) {
        free(request);
        *ret_message = "out of memory";
        return "overloaded";
    }
    *request = (struct pg_request){ .id = publish->request };
    memcpy(request->text, p->scratch.data, p->scratch.len);
    *ret_request = request;
    return NULL;
}

void pg_publisher_send(struct pg_publisher *p, const struct fw_publish *publish)
{
    struct pg_request *request = NULL;
    const char *message = NULL;
    const char *code = prepare(p, publish, &request, &message);
    if (code) {
        fw_host_published(p->host, publish->request, code, message, NULL);
        return;
    }
    push(&p->waiting, request);
    if (p->state == PUBLISHER_OPEN)
        (void)pump(p);
    else if (p->state == PUBLISHER_CLOSED && fw_host_now_ms(p->host) < p->retry_ms)
        refuse_waiting(p);
    else if (p->state == PUBLISHER_CLOSED)
        open_link(p);
}

void pg_publisher_done(struct pg_publisher *p)
{
    pg_link_close(&p->link);
    p->state = PUBLISHER_CONNECTING; /* answers must not open a new one */
    answer_all(p, &p->flight, "may have been stored, fanwire stops");
    answer_all(p, &p->waiting, "not stored, fanwire stops");
    pg_link_done(&p->link);
    if (p->timer)
        fw_timer_free(p->timer);
    buf_done(&p->scratch);
}
