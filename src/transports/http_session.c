/* HTTP/1.1: reading requests. Keep-alive and pipelining; a request is not parsed before the
 * response to the one before it is sent. */
#include "http_session.h"
#include "http.h"

#include <errno.h>
#include <fanwire.h>
#include <string.h>

#define BODY_MAX     CALL_BODY_MAX
#define REQUESTS_MAX 16          /* of one connection per turn */
#define BODIES_MAX   (64u << 20) /* of all connections together, not complete yet */

/* ---- bodies ---- */

static bool takes_body(const struct http_request *request, const struct target *target)
{
    if (target->kind == TARGET_PUBLISH)
        return request->method == HTTP_POST;
    return target->kind == TARGET_ROUTE && request->method != HTTP_GET &&
           request->method != HTTP_HEAD;
}

/* A body is not waited for when the request would be refused anyway. True: it may come. */
static bool body_welcome(struct worker *w, struct conn *c, const struct http_request *request,
                         const struct target *target)
{
    struct publish_fields fields;
    char channel[3 * FW_CHANNEL_MAX];
    size_t channel_len;
    http_allow_origin(w, c, request);
    c->flags &= ~(uint32_t)CONN_KEEP; /* what follows a refused body can't be told from it */
    if (!http_origin_ok(w, c, request))
        return false;
    if (target->kind == TARGET_ROUTE ||
        http_publish_checks(w, c, request, target->rest, &fields, channel, &channel_len))
        return true;
    http_answered(w, c);
    return false;
}

/* Counts what has come of a body, not what is announced: who sends nothing keeps nobody out. */
static bool body_fits(struct worker *w, struct conn *c, size_t available)
{
    release_body(w, c);
    if (w->body_bytes + available > BODIES_MAX) {
        http_refuse(w, c, CODE_OVERLOADED, "too many bodies are on their way; try again");
        return false;
    }
    reserve_body(w, c, available);
    return true;
}

/* A program's routes may take bodies by any method, the server itself by POST alone. */
static bool needs_length(const struct worker *w, const struct http_request *request)
{
    static const char *const methods[] = { "PUT", "PATCH" };
    for (size_t i = 0; w->settings->routes && i < 2; i++) {
        if (request->method_text.len == strlen(methods[i]) &&
            memcmp(request->method_text.data, methods[i], request->method_text.len) == 0)
            return true;
    }
    return request->method == HTTP_POST;
}

static struct target target_of(const struct worker *w, const struct conn *c,
                               const struct http_request *request)
{
    return c->flags & CONN_ADMIN ? (struct target){ .kind = TARGET_NOTHING }
                                 : http_target(w, request);
}

static bool body_begins(struct worker *w, struct conn *c, const struct http_request *request,
                        const struct target *target)
{
    if (!body_welcome(w, c, request, target))
        return false;
    c->flags |= CONN_BODY;
    conn_arm(w, c);
    if (request->expect_continue)
        conn_send(w, c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return c->state == CONN_HTTP;
}

/* Is the body complete? Answers what can't be; *ret_len: of the body. One that nobody wants is not
 * waited for: the answer is the same however much of it has come, and the connection ends where
 * what follows can't be told from it. */
static bool body_ready(struct worker *w, struct conn *c, struct http_request *request,
                       size_t available, size_t *ret_len)
{
    *ret_len = request->has_length ? request->content_length : 0;
    if (request->chunked || (needs_length(w, request) && !request->has_length)) {
        http_bad_head(w, c, 411, "send a Content-Length");
        return false;
    }
    if (request->content_length > BODY_MAX) {
        http_bad_head(w, c, 413, "a body is at most 1 MiB");
        return false;
    }
    if (available >= *ret_len) {
        release_body(w, c);
        return true;
    }
    struct target target = target_of(w, c, request);
    if (!takes_body(request, &target)) {
        *ret_len = available;
        request->keep_alive = false;
        return true;
    }
    if (c->flags & CONN_BODY || body_begins(w, c, request, &target))
        (void)body_fits(w, c, available);
    return false;
}

/* ---- reading ---- */

static bool is_publish(const struct worker *w, const struct conn *c,
                       const struct http_request *request)
{
    return request->method == HTTP_POST && target_of(w, c, request).kind == TARGET_PUBLISH;
}

/* Takes one request from the front of the bytes; returns its length, 0 when it must wait. */
static size_t take_request(struct worker *w, struct conn *c, const char *data, size_t len)
{
    struct http_request request;
    const char *error = NULL;
    size_t body;
    int64_t head = http_parse(data, len, &request, &error);
    if (!conn_more(c)) { /* the answer before may have given it back */
        conn_kill(w, c, 1011);
        return 0;
    }
    if (head < 0)
        http_bad_head(w, c, (unsigned)-head, error);
    if (head <= 0 || !body_ready(w, c, &request, len - (size_t)head, &body))
        return 0;
    if (publish_full(w) && is_publish(w, c, &request)) {
        conn_pause(w, c);
        return 0;
    }
    http_dispatch(w, c, &request, data + head, body);
    return (size_t)head + body;
}

/* What was not taken goes back to `in`; without a copy when that is all of it. 0 or -ENOMEM. */
static int keep_rest(struct conn *c, struct buf *bytes, size_t at)
{
    struct conn_more *more = conn_more(c);
    if (!more)
        return -ENOMEM;
    if (at > 0)
        return buf_append(&more->in, bytes->data + at, bytes->len - at);
    buf_done(&more->in);
    more->in = *bytes;
    *bytes = (struct buf){ 0 };
    return 0;
}

void http_readable(struct worker *w, struct conn *c)
{
    /* Requests point into the bytes, and answering may give `more` back: they are taken out. */
    struct buf bytes = c->more->in;
    c->more->in = buf_make(bytes.max);
    size_t at = 0, used = 1;
    for (int n = 0; n < REQUESTS_MAX && used && at < bytes.len; n++) {
        if (c->state != CONN_HTTP || conn_has_unsent(c))
            break;
        used = take_request(w, c, (char *)bytes.data + at, bytes.len - at);
        at += used;
    }
    bool left = at < bytes.len && c->state != CONN_DEAD && c->state != CONN_CLOSING;
    if (left && keep_rest(c, &bytes, at) < 0)
        conn_kill(w, c, 1011);
    buf_done(&bytes);
    if (left && used && c->state == CONN_HTTP && !list_linked(&c->readable))
        list_push(&w->readable, &c->readable); /* the rest in the next turn */
    if (c->more && c->more->in.len && (c->state == CONN_STREAM || c->state == CONN_ECHO))
        ws_readable(w, c, NULL, 0); /* sent right behind the upgrade */
}
