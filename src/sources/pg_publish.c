/* The command connection: publishes, many in flight, each answered on its own.
 *
 * libpq's pipeline mode: every publish is a statement and a sync of its own, hence a transaction of
 * its own; one that fails harms no other, and order is kept. A batch is many statements and one
 * sync, hence one transaction. An event is acknowledged when its sync has come back, for only then
 * it is committed. The connection is opened by the first publish and closed after a minute without
 * one. */
#include "pg_publish.h"

#include "pg_envelope.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLIGHT_MAX    256
#define IDLE_CLOSE_MS 60000
#define ANSWER_MS     20000 /* without any answer this long, the server hangs */
#define RETRY_MS      250
#define SCRATCH_KEEP  65536

struct pg_request {
    struct pg_request *next;
    const struct pg_publish_form *form; /* by which it was sent */
    uint64_t id;
    uint64_t pos[2];
    bool more;   /* the next one is of the same batch */
    bool placed; /* pos is known */
    bool refused;
    char *error; /* the server's, when refused; NULL: no memory for it */
    size_t len;
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

/* All of one batch, or the one publish, off the front; `to` must be empty. */
static void pop_batch(struct pg_queue *queue, struct pg_queue *to)
{
    for (struct pg_request *request, *more = NULL; (!more || more->more) && (request = pop(queue));
         more = request)
        push(to, request);
}

static void request_free(struct pg_request *request)
{
    free(request->error);
    free(request);
}

/* ---- answers ---- */

static void refuse_all(struct pg_publisher *p, struct pg_queue *queue, const char *code,
                       const char *message)
{
    struct pg_queue taken = *queue; /* an answer may bring the next publish */
    *queue = (struct pg_queue){ 0 };
    for (struct pg_request *request; (request = pop(&taken));) {
        fw_host_published(p->host, request->id, code, message, NULL);
        request_free(request);
    }
}

static void answer_all(struct pg_publisher *p, struct pg_queue *queue, const char *message)
{
    refuse_all(p, queue, "source-down", message);
}

static void close_link(struct pg_publisher *p)
{
    pg_link_close(&p->link);
    p->state = PUBLISHER_CLOSED;
    fw_timer_stop(p->timer);
}

static void refuse_waiting(struct pg_publisher *p)
{
    char text[sizeof p->error + 64];
    snprintf(text, sizeof text, "not stored, cannot %s: %s",
             p->blocked ? "publish" : "connect to publish", p->error);
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
    p->current = NULL;
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
    return PQsendQueryParams(p->link.conn, request->form->sql, 1, NULL, values, NULL, NULL, 0) &&
           (request->more || PQpipelineSync(p->link.conn));
}

/* All of it is in flight before any of it is sent: a connection that is lost half-way must not have
 * the rest sent as a batch of its own. */
static bool send_batch(struct pg_publisher *p, struct pg_queue *batch)
{
    struct pg_request *first = batch->first;
    for (struct pg_request *request; (request = pop(batch));) {
        request->form = p->form;
        push(&p->flight, request);
        p->n_flight++;
    }
    for (struct pg_request *request = first; request; request = request->next)
        if (!send_one(p, request))
            return false;
    return true;
}

/* One that waited for the form may turn out to be too large for it. */
static bool fits(const struct pg_publisher *p, const struct pg_queue *batch)
{
    for (const struct pg_request *request = batch->first; request; request = request->next)
        if (p->form->max != 0 && request->len > p->form->max)
            return false;
    return true;
}

/* Sends what may be sent; returns false when the connection was lost (and everything answered). */
static bool pump(struct pg_publisher *p)
{
    bool sent = false;
    while (p->form && p->n_flight < FLIGHT_MAX && p->waiting.first) {
        struct pg_queue batch = { 0 };
        pop_batch(&p->waiting, &batch);
        if (!fits(p, &batch)) {
            refuse_all(p, &batch, "too-large", p->form->too_large);
            continue;
        }
        sent = true;
        if (!send_batch(p, &batch)) {
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

static void answer_one(struct pg_publisher *p, struct pg_request *request, const char *error)
{
    const char *id = request->placed ? fw_host_id(p->host, request->pos) : NULL;
    if (error)
        fw_host_published(p->host, request->id, "source-refused", error, NULL);
    else
        fw_host_published(p->host, request->id, NULL, NULL, id);
}

static const struct pg_request *refused_one(const struct pg_queue *batch)
{
    for (const struct pg_request *request = batch->first; request; request = request->next)
        if (request->refused)
            return request;
    return NULL;
}

/* A sync has come back: what was sent before it is committed, or refused as a whole. */
static void finish_first(struct pg_publisher *p)
{
    struct pg_queue batch = { 0 };
    pop_batch(&p->flight, &batch);
    const struct pg_request *refused = refused_one(&batch);
    char *error = refused && refused->error ? strdup(refused->error) : NULL;
    for (struct pg_request *request; (request = pop(&batch)); request_free(request)) {
        p->n_flight--;
        answer_one(p, request, !refused ? NULL : error ? error : "the server refused the event");
    }
    p->current = NULL;
    free(error);
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
    if (status == PGRES_PIPELINE_SYNC) {
        finish_first(p);
        return;
    }
    struct pg_request *request = p->current ? p->current->next : p->flight.first;
    p->current = request;
    if (!request || status == PGRES_PIPELINE_ABORTED)
        return; /* the one before it in its batch has told why */
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        note_refusal(request, result);
    else if (request->form->position)
        request->placed = request->form->position(result, request->pos);
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
    else if (p->waiting.first) /* for the form; the next look is soon enough */
        fw_timer_start(p->timer, ANSWER_MS);
    else
        close_link(p);
}

void pg_publisher_init(struct pg_publisher *p, struct fw_host *host, const struct pg_url *url)
{
    *p = (struct pg_publisher){ .host = host };
    pg_link_init(&p->link, host, url, &link_events, p);
}

void pg_publisher_use(struct pg_publisher *p, const struct pg_publish_form *form)
{
    p->form = form;
    p->blocked = false;
    p->retry_ms = 0; /* the server is there: no reason to wait any longer */
    if (p->state == PUBLISHER_OPEN)
        (void)pump(p);
}

void pg_publisher_block(struct pg_publisher *p, const char *why)
{
    p->form = NULL;
    p->blocked = true;
    snprintf(p->error, sizeof p->error, "%s", why);
    refuse_waiting(p);
}

/* Base64, should the payload need it, and the envelope's head. */
static size_t envelope_max(const struct pg_publisher *p)
{
    size_t event_max = fw_host_event_max(p->host);
    if (p->form && p->form->max)
        return p->form->max;
    return event_max < SIZE_MAX / 4 ? event_max + event_max / 2 + 4096 : SIZE_MAX / 2;
}

/* Why an event cannot be sent at all; NULL: *ret_request holds it. */
static const char *prepare(struct pg_publisher *p, const struct fw_publish *publish, unsigned nth,
                           struct pg_request **ret_request, const char **ret_message)
{
    buf_clear(&p->scratch);
    p->scratch.max = envelope_max(p) + 1;
    int r = pg_envelope_write_nth(&p->scratch, publish, nth);
    if (r == -EMSGSIZE) {
        *ret_message = p->form && p->form->max ? p->form->too_large : "the event is too large";
        return "too-large";
    }
    struct pg_request *request = r < 0 ? NULL : malloc(sizeof *request + p->scratch.len);
    if (!request || (!p->timer && fw_host_timer(p->host, on_timer, p, &p->timer) < 0)) {
        free(request);
        *ret_message = "out of memory";
        return "overloaded";
    }
    *request = (struct pg_request){ .id = publish->request, .len = p->scratch.len - 1 };
    memcpy(request->text, p->scratch.data, p->scratch.len);
    if (p->scratch.cap > SCRATCH_KEEP)
        buf_done(&p->scratch);
    *ret_request = request;
    return NULL;
}

static void drop(struct pg_queue *batch)
{
    for (struct pg_request *request; (request = pop(batch));)
        request_free(request);
}

/* Sends what waits, if need be on a connection that is made now. */
static void send_waiting(struct pg_publisher *p)
{
    bool closed = p->state == PUBLISHER_CLOSED;
    if (p->blocked || (closed && fw_host_now_ms(p->host) < p->retry_ms))
        refuse_waiting(p);
    else if (p->state == PUBLISHER_OPEN)
        (void)pump(p);
    else if (closed)
        open_link(p);
}

void pg_publisher_send(struct pg_publisher *p, const struct fw_publish *events, size_t n)
{
    struct pg_queue batch = { 0 };
    const char *code = NULL, *message = NULL;
    for (size_t i = 0; i < n && !code; i++) {
        struct pg_request *request = NULL;
        code = prepare(p, &events[i], n > 1 ? (unsigned)i + 1 : 0, &request, &message);
        if (code)
            break;
        request->more = i + 1 < n;
        push(&batch, request);
    }
    if (code) {
        drop(&batch);
        for (size_t i = 0; i < n; i++)
            fw_host_published(p->host, events[i].request, code, message, NULL);
        return;
    }
    for (struct pg_request *request; (request = pop(&batch));)
        push(&p->waiting, request);
    send_waiting(p);
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
