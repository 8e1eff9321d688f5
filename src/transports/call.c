/* Calls: requests that the application process answers.
 *
 * A call is *held* (a stream, until its channel is confirmed and the source is there), *queued*
 * (its bytes wait for the link) and *sent*. One that was not sent whole survives the application
 * process; one that was sent is answered with 503, as nobody knows what was done of it.
 *
 * A stream remembers its place: the end of the log at the moment it is sent. All that the source
 * took in before is in the database when the handler reads it; what comes after is subscribed to
 * from there. The channel is held from before the place until the subscription has it, so that the
 * source goes on listening. */
#include "call.h"

#include "pattern.h"
#include "text.h"

#include <errno.h>
#include <fanwire.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALLS_MAX        4096        /* unanswered, of one worker */
#define QUEUED_BYTES_MAX (16u << 20) /* and not sent yet */
#define AWAY_MS          2000        /* calls wait for an application that is restarted this long */

static uint64_t hash_of(uint64_t id)
{
    return id * 0x9e3779b97f4a7c15u;
}

static bool same_id(const void *value, const void *key, size_t len)
{
    (void)len;
    return ((const struct call *)value)->id == *(const uint64_t *)key;
}

struct call *call_find(struct worker *w, uint64_t id)
{
    return map_get(&w->app.calls, hash_of(id), same_id, &id, sizeof(id));
}

bool call_is_stream(const struct conn *c)
{
    return c->more && c->more->call && call_stream(c->more->call);
}

/* ---- the end of a call ---- */

static void forget_bytes(struct worker *w, struct call *call)
{
    if (call->bytes)
        w->app.queued_bytes -= call->size;
    free(call->bytes);
    call->bytes = NULL;
}

static void call_free(struct worker *w, struct call *call)
{
    list_remove(&call->node);
    map_remove(&w->app.calls, hash_of(call->id), call);
    w->app.n_calls--;
    count(&w->counters->calls_waiting, (uint64_t)-1);
    forget_bytes(w, call);
    if (call->channel)
        channel_release(w, call->channel);
    free(call);
}

/* What is half sent must be sent whole, or the next message would begin amid of it. */
static bool half_sent(const struct call *call)
{
    return call->phase == CALL_QUEUED && call->sent > 0;
}

void call_detach(struct worker *w, struct call *call)
{
    call->conn->more->call = NULL;
    call->conn = NULL;
    if (!half_sent(call))
        call_free(w, call);
}

void call_forget(struct worker *w, struct conn *c)
{
    if (c->more && c->more->call)
        call_detach(w, c->more->call);
}

void call_fail(struct worker *w, struct call *call, enum error_code code, const char *detail)
{
    struct conn *c = call->conn;
    struct call ended = *call; /* what is said may end the connection */
    count(&w->counters->calls[code], 1);
    if (!c) {
        call_free(w, call);
        return;
    }
    call_detach(w, call);
    if (c->state == CONN_WAIT)
        call_refuse(w, c, &ended, code, detail);
}

void call_late(struct worker *w, struct conn *c)
{
    struct call *call = c->more->call;
    switch (call->phase) {
    case CALL_HELD:
        call_fail(w, call, CODE_SOURCE_DOWN,
                  "the source has not confirmed the channel within 30 s");
        return;
    case CALL_QUEUED:
        call_fail(
            w, call, CODE_OVERLOADED,
            "the application is busy: it did not take the request within 30 s; nothing was done");
        return;
    case CALL_SENT:
        call_fail(w, call, CODE_OVERLOADED,
                  "the application has not answered within 30 s; the request may have been done");
    }
}

void calls_fail_sent(struct worker *w)
{
    struct list failed, *node;
    struct call *call;
    list_init(&failed);
    for (size_t at = 0; (call = map_next(&w->app.calls, &at));) {
        call->sent = 0; /* what was half sent was not begun, and is sent again */
        if (call->phase == CALL_SENT || !call->conn) {
            list_remove(&call->node);
            list_push(&failed, &call->node);
        }
    }
    while ((node = list_pop(&failed)))
        call_fail(w, list_entry(node, struct call, node), CODE_RESTART,
                  "the application ended before it answered; the request may have been done");
}

static void fail_queued(struct worker *w)
{
    struct list *node;
    while ((node = list_pop(&w->app.queued)))
        call_fail(w, list_entry(node, struct call, node), CODE_RESTART,
                  "the application is restarting; nothing was done");
}

/* ---- the message ---- */

/* The path's parameters, decoded into `memory` (as large as the path). -EINVAL: not text. */
static int decode_params(const struct route_match *match, char *memory, struct slice *ret)
{
    for (uint32_t i = 0; i < match->route->n_params; i++) {
        struct slice sent = match->params[i];
        int64_t n = percent_decode(memory, sent.data, sent.len, false);
        if (n < 0 || memchr(memory, '\0', (size_t)n) || !utf8_valid(memory, (size_t)n))
            return -EINVAL;
        ret[i] = (struct slice){ memory, (size_t)n };
        memory += n;
    }
    return 0;
}

/* The application decodes it again; what can't be decoded is refused here. */
static bool query_valid(const struct http_request *request)
{
    char memory[HTTP_LINE_MAX];
    struct http_query query = { request->query, memory };
    struct slice name, value;
    int r;
    while ((r = http_query_next(&query, &name, &value)) > 0) {
        if (!utf8_valid(name.data, name.len) || !utf8_valid(value.data, value.len) ||
            (value.len && memchr(value.data, '\0', value.len)))
            return false;
    }
    return r == 0;
}

static int encode(struct worker *w, struct call *call, const struct http_request *request,
                  const struct route_match *match, const struct slice *params, struct slice body)
{
    struct buf out = buf_make(CALL_REQUEST_MAX);
    struct call_message head = { .type = CALL_REQUEST, .route = match->index, .id = call->id };
    const struct slice items[] = { request->method_text, request->path, request->query,
                                   request->fields, body };
    call_message_begin(&out, &head);
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++)
        call_message_add(&out, items[i].data, items[i].len);
    for (uint32_t i = 0; i < match->route->n_params; i++)
        call_message_add(&out, params[i].data, params[i].len);
    call_message_end(&out);
    if (out.failed) {
        buf_done(&out);
        return -ENOMEM;
    }
    call->bytes = out.data;
    call->size = out.len;
    w->app.queued_bytes += out.len;
    return 0;
}

/* ---- beginning ---- */

static void enqueue(struct worker *w, struct call *call)
{
    call->phase = CALL_QUEUED;
    list_remove(&call->node);
    list_push(&w->app.queued, &call->node);
    application_flush(w);
}

static struct call *call_new(struct worker *w, struct conn *c, const struct route *route)
{
    struct call *call = malloc(sizeof(*call));
    if (!call)
        return NULL;
    *call = (struct call){ .id = ++w->app.next_id, .conn = c, .route = route };
    if (map_put(&w->app.calls, hash_of(call->id), call) < 0) {
        free(call);
        return NULL;
    }
    w->app.n_calls++;
    count(&w->counters->calls_waiting, 1);
    return call;
}

/* The channel of a stream; CODE_OK, or what is wrong with it. */
static enum error_code hold_channel(struct worker *w, struct call *call, const struct slice *params,
                                    const char **ret_detail)
{
    char name[FW_CHANNEL_MAX];
    int64_t len = route_channel(call->route, params, name, sizeof(name));
    *ret_detail = "the path makes no channel's name: 1 to 255 bytes of UTF-8 without control "
                  "characters, not below $fanwire/";
    if (len <= 0 || !channel_valid(name, (size_t)len) || channel_reserved(name, (size_t)len))
        return CODE_BAD_CHANNEL;
    *ret_detail = "out of memory";
    call->channel = channel_acquire(w, name, (size_t)len);
    return call->channel ? CODE_OK : CODE_OVERLOADED;
}

/* The reason not to take it, CODE_OK: none. */
static enum error_code prepare(struct worker *w, struct call *call,
                               const struct http_request *request, const struct route_match *match,
                               struct slice body, const char **ret_detail)
{
    char memory[HTTP_LINE_MAX];
    struct slice params[ROUTE_PARAMS_MAX];
    *ret_detail = "too many requests wait for the application; try again";
    if (w->app.n_calls > CALLS_MAX || w->app.queued_bytes >= QUEUED_BYTES_MAX)
        return CODE_OVERLOADED;
    enum error_code code = call_stream(call) ? http_no_room(w, call->conn) : CODE_OK;
    if (code) {
        *ret_detail = code == CODE_RESTART ? "restarting; try again" : "too many connections";
        return code;
    }
    *ret_detail = "an escape (%..) in the path or the query is malformed, or no UTF-8";
    if (!query_valid(request) || decode_params(match, memory, params) < 0)
        return CODE_BAD_REQUEST;
    *ret_detail = "out of memory";
    if (encode(w, call, request, match, params, body) < 0)
        return CODE_OVERLOADED;
    return call_stream(call) ? hold_channel(w, call, params, ret_detail) : CODE_OK;
}

void call_begin(struct worker *w, struct conn *c, const struct http_request *request,
                const struct route_match *match, const char *body, size_t len)
{
    char accept[WS_ACCEPT_LEN + 1] = "";
    bool stream = match->route->kind == ROUTE_STREAM;
    bool sse = request->method == HTTP_GET && !request->upgrade_websocket &&
               http_list_has(request->accept, "text/event-stream");
    if (stream && !sse && !http_ws_check(w, c, request, accept))
        return;
    struct call *call = call_new(w, c, match->route);
    if (!call) {
        http_refuse(w, c, CODE_OVERLOADED, "out of memory");
        return;
    }
    call->websocket = stream && !sse;
    memcpy(call->accept, accept, sizeof(accept));
    c->more->call = call;
    c->state = CONN_WAIT;
    conn_arm(w, c);
    const char *detail;
    enum error_code code = prepare(w, call, request, match, (struct slice){ body, len }, &detail);
    if (code)
        call_fail(w, call, code, detail);
    else if (stream)
        list_push(&w->app.held, &call->node); /* looked at in this very turn */
    else
        enqueue(w, call);
}

/* ---- held, queued, sent ---- */

/* Confirmed, and the source is there: what it takes in from now on is found behind this place. */
static void check_held(struct worker *w, struct call *call)
{
    switch (call->channel->state) {
    case CHANNEL_REFUSED:
        call_fail(w, call, call->channel->refused_code, "the source refuses this channel");
        return;
    case CHANNEL_READY:
        if (w->down)
            return;
        call->place = log_indexed(w->log);
        enqueue(w, call);
        return;
    case CHANNEL_ASKING:
        return;
    }
}

void calls_check(struct worker *w)
{
    for (struct list *node = w->app.held.next, *next; node != &w->app.held; node = next) {
        next = node->next;
        check_held(w, list_entry(node, struct call, node));
    }
    if (!w->app.greeted && w->now_ms - w->app.away_ms > AWAY_MS)
        fail_queued(w);
}

bool calls_unsent(struct worker *w, const uint8_t **ret_data, size_t *ret_len)
{
    if (list_empty(&w->app.queued))
        return false;
    struct call *call = list_entry(w->app.queued.next, struct call, node);
    *ret_data = call->bytes + call->sent;
    *ret_len = call->size - call->sent;
    return true;
}

void calls_sent(struct worker *w, size_t n)
{
    struct call *call = list_entry(w->app.queued.next, struct call, node);
    call->sent += n;
    if (call->sent < call->size)
        return;
    call->phase = CALL_SENT;
    list_remove(&call->node);
    forget_bytes(w, call);
    if (!call->conn)
        call_free(w, call);
}

void calls_done(struct worker *w)
{
    struct call *call;
    for (size_t at = 0; (call = map_next(&w->app.calls, &at)); at = 0)
        call_free(w, call);
    map_done(&w->app.calls);
}
