/* HTTP/1.1: reading requests, routing, answering. Keep-alive and pipelining; a request is not
 * parsed before the response to the one before it is sent. */
#include "client_js.h"
#include "http.h"
#include "page_html.h"
#include "text.h"
#include "turn.h"

#include <errno.h>
#include <fanwire.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define BODY_MAX (1u << 20)

#define REQUESTS_MAX 16          /* of one connection per turn */
#define BODIES_MAX   (64u << 20) /* of all connections together */

/* ---- answering ---- */

/* RFC 9110 6.6.1: a server with a clock says what it shows. Made anew once a second. */
static const char *http_date(struct worker *w)
{
    time_t now = w->wall_ms / 1000;
    struct tm tm;
    if (now != w->date_of && gmtime_r(&now, &tm)) {
        w->date_of = now;
        (void)strftime(w->date, sizeof(w->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    }
    return w->date;
}

void http_respond(struct worker *w, struct conn *c, unsigned status, const char *type,
                  const char *fields, const void *body, size_t len)
{
    bool keep = c->flags & CONN_KEEP && !w->draining;
    c->flags = keep ? c->flags : c->flags & ~(uint32_t)CONN_KEEP;
    struct buf *out = &w->response;
    buf_clear(out);
    buf_printf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\n", status, http_status_text(status),
               http_date(w));
    if (type)
        buf_printf(out, "Content-Type: %s\r\n", type);
    if (status != 204 && status != 304)
        buf_printf(out, "Content-Length: %zu\r\n", len);
    buf_printf(out, "%sX-Content-Type-Options: nosniff\r\n%s%s\r\n", fields,
               strstr(fields, "Cache-Control:") ? "" : "Cache-Control: no-store\r\n",
               keep ? "" : "Connection: close\r\n");
    if (!(c->flags & CONN_HEAD) && len)
        buf_append(out, body, len);
    if (out->failed) {
        conn_kill(w, c, 1011);
        return;
    }
    conn_send(w, c, out->data, out->len);
}

void http_problem(struct worker *w, struct conn *c, enum error_code code, const char *detail)
{
    count(&w->counters->rejected[code], 1);
    struct buf *body = &w->text;
    buf_clear(body);
    problem_body(body, code, code_status(code), detail);
    char fields[FIELDS_MAX + 64];
    const char *kept = c->more ? c->more->fields : "";
    bool later = code == CODE_OVERLOADED || code == CODE_SOURCE_DOWN || code == CODE_RESTART;
    (void)snprintf(fields, sizeof(fields), "%s%s", kept, later ? "Retry-After: 2\r\n" : "");
    http_respond(w, c, code_status(code), "application/problem+json", fields, body->data,
                 body->len);
}

void http_answered(struct worker *w, struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    c->state = CONN_HTTP;
    c->flags &= ~(uint32_t)(CONN_HEAD | CONN_BODY);
    if (c->more)
        c->more->fields[0] = 0;
    if (!(c->flags & CONN_KEEP)) {
        conn_end(w, c, 1000);
        return;
    }
    c->flags &= ~(uint32_t)CONN_KEEP;
    conn_arm(w, c);
    /* The next request may be here already. Not parsed from here: answers would nest as deep as
     * requests are pipelined. With nothing more to come, reading finds the end. */
    bool more = (c->more && c->more->in.len) || c->flags & CONN_EOF;
    if (more && !list_linked(&c->readable))
        list_push(&w->readable, &c->readable);
    conn_trim(c);
}

/* A head that can't be understood: no way to tell where the next would begin. */
static void bad_head(struct worker *w, struct conn *c, unsigned status, const char *detail)
{
    bool large = status == 413 || status == 414 || status == 431;
    enum error_code code = large           ? CODE_TOO_LARGE
                           : status == 501 ? CODE_NOT_SUPPORTED
                                           : CODE_BAD_REQUEST;
    count(&w->counters->rejected[code], 1);
    struct buf *body = &w->text;
    buf_clear(body);
    problem_body(body, code, status, detail ? detail : http_status_text(status));
    c->flags &= ~(uint32_t)(CONN_KEEP | CONN_HEAD);
    http_respond(w, c, status, "application/problem+json", "", body->data, body->len);
    http_answered(w, c);
}

/* ---- CORS ---- */

static void allow_origin(const struct worker *w, struct conn *c, const struct http_request *r)
{
    char *fields = c->more->fields;
    fields[0] = 0;
    if (!r->origin.data || !origin_allowed(w, r) || r->origin.len > 256)
        return;
    (void)snprintf(fields, FIELDS_MAX,
                   "Access-Control-Allow-Origin: %.*s\r\nVary: Origin\r\n"
                   "Access-Control-Expose-Headers: Retry-After\r\n",
                   (int)r->origin.len, r->origin.data);
}

static void preflight(struct worker *w, struct conn *c)
{
    char fields[FIELDS_MAX + 256];
    (void)snprintf(fields, sizeof(fields),
                   "%sAllow: GET, HEAD, POST, OPTIONS\r\n"
                   "Access-Control-Allow-Methods: GET, POST\r\n"
                   "Access-Control-Allow-Headers: Authorization, Content-Type, Last-Event-ID, "
                   "Idempotency-Key, Fanwire-Client\r\n"
                   "Access-Control-Max-Age: 7200\r\n",
                   c->more->fields);
    http_respond(w, c, 204, NULL, fields, NULL, 0);
    http_answered(w, c);
}

/* ---- streams ---- */

static void subscribe_all(struct worker *w, struct conn *c, const struct params *params)
{
    for (size_t i = 0; i < params->n_channels && c->state == CONN_STREAM; i++) {
        int r = subscribe(w, c, params->channels[i].name, params->channels[i].len, &params->since,
                          params->last, "");
        if (r < 0)
            conn_refuse(w, c, CODE_OVERLOADED, "out of memory");
    }
    if (c->state != CONN_STREAM)
        return;
    if (params->n_channels == 0)
        c->flags |= CONN_GREETED; /* its channels all join later */
    else
        joins_advance(w, c);
}

static enum error_code check_channels(struct worker *w, const struct params *params, char *detail,
                                      size_t size)
{
    for (size_t i = 0; i < params->n_channels; i++) {
        enum error_code code = check_channel(w, params->channels[i].name, params->channels[i].len,
                                             false, detail, size);
        if (code)
            return code;
    }
    return CODE_OK;
}

/* The reason not to take another stream now, CODE_OK: none. */
static enum error_code no_room(const struct worker *w, const struct conn *c)
{
    if (w->draining)
        return CODE_RESTART;
    return c->flags & CONN_REFUSE ? CODE_OVERLOADED : CODE_OK;
}

static unsigned retry_ms_of(const struct conn *c)
{
    return 1000 + conn_spread(c, 4000);
}

static void sse_head(struct worker *w, struct conn *c)
{
    struct buf *out = &w->response;
    buf_clear(out);
    buf_printf(out,
               "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/event-stream\r\n"
               "Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
               "Connection: close\r\n%s\r\n%s",
               http_date(w), c->more->fields, c->flags & CONN_HEAD ? "" : "retry: 2000\n\n");
    conn_send(w, c, out->data, out->len);
}

static void sse_request(struct worker *w, struct conn *c, const struct http_request *request,
                        struct slice rest)
{
    char detail[512];
    struct params params;
    enum error_code code = params_parse(&params, PARAMS_SSE, request, rest,
                                        w->settings->max_channels, detail, sizeof(detail));
    if (code == CODE_OK)
        code = check_channels(w, &params, detail, sizeof(detail));
    if (code) {
        http_problem(w, c, code, detail);
        http_answered(w, c);
        params_done(&params);
        return;
    }
    c->flags &= ~(uint32_t)CONN_KEEP;
    sse_head(w, c);
    enum error_code later = no_room(w, c);
    if (c->state == CONN_DEAD || c->flags & CONN_HEAD) {
        if (c->state != CONN_DEAD)
            conn_end(w, c, 1000);
    } else {
        stream_begin(w, c, TRANSPORT_SSE, params.path_form ? FORMAT_SSE_BARE : FORMAT_SSE_JSON,
                     params.heartbeat_s);
        if (later) {
            /* EventSource gives up for good on any status but 200 */
            count(&w->counters->rejected[later], 1);
            stream_closing(w, c, later, retry_ms_of(c));
        } else if (c->state == CONN_STREAM) {
            subscribe_all(w, c, &params);
        }
    }
    params_done(&params);
}

/* 101; false when the handshake is malformed (answered). */
static bool ws_upgrade(struct worker *w, struct conn *c, const struct http_request *request,
                       bool *ret_json)
{
    char accept[WS_ACCEPT_LEN + 1];
    if (request->method != HTTP_GET || !request->upgrade_websocket || request->minor < 1) {
        http_respond(w, c, 426, "text/plain", "Upgrade: websocket\r\nConnection: Upgrade\r\n",
                     "This address speaks WebSocket.\n", 31);
        return false;
    }
    if (request->ws_version.len != 2 || memcmp(request->ws_version.data, "13", 2) != 0) {
        http_respond(w, c, 426, "text/plain", "Sec-WebSocket-Version: 13\r\n",
                     "WebSocket version 13 is needed.\n", 32);
        return false;
    }
    if (!ws_accept(accept, request->ws_key.data, request->ws_key.len)) {
        http_problem(w, c, CODE_BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64");
        return false;
    }
    *ret_json = http_list_has(request->ws_protocol, "fanwire.v1");
    struct buf *out = &w->response;
    buf_clear(out);
    buf_printf(out,
               "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Accept: %s\r\n%s\r\n",
               accept, *ret_json ? "Sec-WebSocket-Protocol: fanwire.v1\r\n" : "");
    conn_send(w, c, out->data, out->len);
    return c->state != CONN_DEAD;
}

static void ws_request(struct worker *w, struct conn *c, const struct http_request *request,
                       struct slice rest)
{
    enum error_code later = no_room(w, c);
    bool json;
    if (later) {
        http_problem(w, c, later,
                     later == CODE_RESTART ? "restarting; try again"
                                           : "too many connections; try again");
        http_answered(w, c);
        return;
    }
    if (!ws_upgrade(w, c, request, &json)) {
        http_answered(w, c);
        return;
    }
    /* From here on what is wrong is said by close codes: browsers do not show an HTTP status. */
    char detail[512];
    struct params params;
    enum error_code code = params_parse(&params, PARAMS_WS, request, rest,
                                        w->settings->max_channels, detail, sizeof(detail));
    if (code == CODE_OK)
        code = check_channels(w, &params, detail, sizeof(detail));
    json |= rest.len == 0;
    stream_begin(w, c, TRANSPORT_WS, json ? FORMAT_WS_JSON : FORMAT_WS_BARE, params.heartbeat_s);
    c->flags |= params.gap_ignore ? CONN_GAP_IGNORE : 0;
    if (code) {
        count(&w->counters->rejected[code], 1);
        conn_refuse(w, c, code, detail);
    } else if (c->state == CONN_STREAM) {
        subscribe_all(w, c, &params);
    }
    params_done(&params);
}

static void echo_request(struct worker *w, struct conn *c, const struct http_request *request)
{
    bool json;
    if (!ws_upgrade(w, c, request, &json)) {
        http_answered(w, c);
        return;
    }
    stream_begin(w, c, TRANSPORT_WS, FORMAT_WS_BARE, 0);
    c->state = CONN_ECHO;
}

/* ---- publishing and history ---- */

static bool needs_no_params(struct worker *w, struct conn *c, const struct http_request *request)
{
    char detail[512];
    struct params params;
    enum error_code code =
        params_parse(&params, PARAMS_NONE, request, (struct slice){ 0 }, 1, detail, sizeof(detail));
    params_done(&params);
    if (code)
        http_problem(w, c, code, detail);
    return code == CODE_OK;
}

/* Answers what keeps this request from being published; true: nothing does. */
static bool publish_checks(struct worker *w, struct conn *c, const struct http_request *request,
                           struct slice rest, char *channel, size_t *channel_len)
{
    char detail[512];
    if (rest.len < 2) {
        http_problem(w, c, CODE_NOT_SUPPORTED,
                     "batches are not in this version; POST /publish/CHANNEL publishes one event");
        return false;
    }
    if (!needs_no_params(w, c, request))
        return false;
    if (request->idempotency_key.data) {
        http_problem(w, c, CODE_NOT_SUPPORTED, "Idempotency-Key is not in this version");
        return false;
    }
    int64_t len = rest.len - 1 > 3 * FW_CHANNEL_MAX
                      ? -1
                      : percent_decode(channel, rest.data + 1, rest.len - 1, false);
    enum error_code code =
        len < 0 ? CODE_BAD_CHANNEL
                : check_channel(w, channel, (size_t)len, true, detail, sizeof(detail));
    if (code) {
        http_problem(w, c, code, len < 0 ? "malformed or over-long channel name" : detail);
        return false;
    }
    *channel_len = (size_t)len;
    return true;
}

static void publish_request(struct worker *w, struct conn *c, const struct http_request *request,
                            struct slice rest, const char *body, size_t len)
{
    char channel[3 * FW_CHANNEL_MAX];
    size_t channel_len;
    if (!publish_checks(w, c, request, rest, channel, &channel_len)) {
        http_answered(w, c);
        return;
    }
    c->state = CONN_WAIT;
    conn_arm(w, c);
    if (publish(w, c, channel, channel_len, body, len, "") < 0) {
        http_problem(w, c, CODE_OVERLOADED, "out of memory");
        http_answered(w, c);
    }
}

void http_published(struct worker *w, struct conn *c, enum error_code code, const char *message,
                    const char *id)
{
    if (code) {
        http_problem(w, c, code, message && *message ? message : code_title(code));
    } else {
        struct buf *body = &w->text;
        buf_clear(body);
        buf_printf(body, id && *id ? "{\"id\":\"%s\"}\n" : "{\"id\":null}\n", id);
        http_respond(w, c, 200, "application/json", c->more ? c->more->fields : "", body->data,
                     body->len);
    }
    http_answered(w, c);
}

static void history_request(struct worker *w, struct conn *c, const struct http_request *request,
                            struct slice rest)
{
    char detail[512];
    struct params params;
    enum error_code code =
        params_parse(&params, PARAMS_HISTORY, request, rest, 1, detail, sizeof(detail));
    if (code == CODE_OK)
        code = check_channels(w, &params, detail, sizeof(detail));
    if (code == CODE_OK) {
        history_begin(w, c, &params);
    } else {
        http_problem(w, c, code, detail);
        http_answered(w, c);
    }
    params_done(&params);
}

/* ---- routing ---- */

/* True when the path is `route` or below it; *ret_rest is "" or begins with the slash. */
static bool route_is(struct slice path, const char *route, struct slice *ret_rest)
{
    size_t len = strlen(route);
    if (path.len < len || memcmp(path.data, route, len) != 0 ||
        (path.len > len && path.data[len] != '/'))
        return false;
    *ret_rest = (struct slice){ path.data + len, path.len - len };
    return true;
}

static bool strip_base(const struct worker *w, struct slice *path)
{
    const char *base = w->settings->base_path;
    struct slice rest;
    if (strcmp(base, "/") == 0)
        return true;
    if (!route_is(*path, base, &rest))
        return false;
    *path = rest.len ? rest : (struct slice){ "/", 1 };
    return true;
}

static void simple(struct worker *w, struct conn *c, const char *type, const char *body, size_t len)
{
    http_respond(w, c, 200, type, c->more->fields, body, len);
    http_answered(w, c);
}

/* RFC 9110 13.1.2, weak comparison: any of the tags listed, or all. */
static bool etag_matches(struct slice list, const char *etag)
{
    return list.data && ((list.len == 1 && list.data[0] == '*') ||
                         memmem(list.data, list.len, etag, strlen(etag)) != NULL);
}

/* The JavaScript client; public, so that a page of any origin may import it. */
static void client_request(struct worker *w, struct conn *c, const struct http_request *request)
{
    static const char fields[] = "ETag: " client_js_etag "\r\nAccess-Control-Allow-Origin: *\r\n"
                                 "Cache-Control: no-cache\r\n";
    if (etag_matches(request->if_none_match, client_js_etag))
        http_respond(w, c, 304, NULL, fields, NULL, 0);
    else
        http_respond(w, c, 200, "text/javascript; charset=utf-8", fields, client_js,
                     sizeof(client_js) - 1);
    http_answered(w, c);
}

static void refuse(struct worker *w, struct conn *c, enum error_code code, const char *detail)
{
    http_problem(w, c, code, detail);
    http_answered(w, c);
}

static bool method_is(struct worker *w, struct conn *c, const struct http_request *request,
                      bool post)
{
    bool get = request->method == HTTP_GET || request->method == HTTP_HEAD;
    if (post ? request->method == HTTP_POST : get)
        return true;
    (void)snprintf(c->more->fields + strlen(c->more->fields), FIELDS_MAX - strlen(c->more->fields),
                   "Allow: %s\r\n", post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS");
    refuse(w, c, CODE_METHOD_NOT_ALLOWED, post ? "use POST" : "use GET");
    return false;
}

static void route_public(struct worker *w, struct conn *c, const struct http_request *request,
                         struct slice path, const char *body, size_t len)
{
    struct slice rest;
    bool ws = route_is(path, "/ws", &rest), sse = !ws && route_is(path, "/sse", &rest);
    bool history = !ws && !sse && route_is(path, "/history", &rest);
    bool publishes = !ws && !sse && !history && route_is(path, "/publish", &rest);
    bool echo = w->settings->echo && path.len == 5 && memcmp(path.data, "/echo", 5) == 0;
    if ((ws || sse || history || publishes || echo) && !origin_allowed(w, request)) {
        char shown[256], detail[400];
        text_escape(shown, sizeof(shown), request->origin.data, request->origin.len);
        (void)snprintf(detail, sizeof(detail), "start the server with --origin %s", shown);
        refuse(w, c, CODE_ORIGIN_FORBIDDEN, detail);
    } else if (ws || echo) {
        if (echo)
            echo_request(w, c, request);
        else
            ws_request(w, c, request, rest);
    } else if (sse) {
        if (method_is(w, c, request, false))
            sse_request(w, c, request, rest);
    } else if (history) {
        if (method_is(w, c, request, false))
            history_request(w, c, request, rest);
    } else if (publishes) {
        if (method_is(w, c, request, true))
            publish_request(w, c, request, rest, body, len);
    } else if (path.len == 8 && memcmp(path.data, "/healthz", 8) == 0) {
        if (method_is(w, c, request, false))
            simple(w, c, "text/plain", "ok\n", 3);
    } else if (path.len == 11 && memcmp(path.data, "/fanwire.js", 11) == 0) {
        if (method_is(w, c, request, false))
            client_request(w, c, request);
    } else if (w->settings->dev && path.len == 1) {
        if (method_is(w, c, request, false))
            simple(w, c, "text/html; charset=utf-8", page_html, strlen(page_html));
    } else {
        refuse(w, c, CODE_NOT_FOUND,
               "there are /ws, /sse, /history, /publish, /fanwire.js and /healthz");
    }
}

static void dispatch(struct worker *w, struct conn *c, const struct http_request *request,
                     const char *body, size_t len)
{
    struct slice path = request->path;
    c->flags = request->keep_alive ? c->flags | CONN_KEEP : c->flags & ~(uint32_t)CONN_KEEP;
    if (request->method == HTTP_HEAD)
        c->flags |= CONN_HEAD;
    if (c->flags & CONN_ADMIN) {
        if (!admin_request(w, c, request))
            refuse(w, c, CODE_NOT_FOUND, "there are /metrics, /healthz and /readyz");
        return;
    }
    allow_origin(w, c, request);
    if (request->method == HTTP_OPTIONS)
        preflight(w, c);
    else if (!strip_base(w, &path))
        refuse(w, c, CODE_NOT_FOUND, "outside of --base-path");
    else
        route_public(w, c, request, path, body, len);
}

/* A body is not waited for when the request would be refused anyway, nor when all bodies together
 * would take too much memory. True: it may come. */
static bool body_welcome(struct worker *w, struct conn *c, const struct http_request *request)
{
    char channel[3 * FW_CHANNEL_MAX];
    size_t channel_len;
    struct slice path = request->path, rest;
    bool publishes = !(c->flags & CONN_ADMIN) && request->method == HTTP_POST &&
                     strip_base(w, &path) && route_is(path, "/publish", &rest);
    allow_origin(w, c, request);
    c->flags &= ~(uint32_t)CONN_KEEP; /* what follows a refused body can't be told from it */
    bool welcome = false;
    if (!publishes)
        http_problem(w, c, CODE_TOO_LARGE, "no body is taken here");
    else if (!origin_allowed(w, request))
        http_problem(w, c, CODE_ORIGIN_FORBIDDEN, "start the server with --origin");
    else if (w->body_bytes + request->content_length > BODIES_MAX)
        http_problem(w, c, CODE_OVERLOADED, "too much is being published; try again");
    else
        welcome = publish_checks(w, c, request, rest, channel, &channel_len);
    if (!welcome)
        http_answered(w, c);
    return welcome;
}

/* Is the body complete? Answers what can't be; *ret_len: of the body. */
static bool body_ready(struct worker *w, struct conn *c, const struct http_request *request,
                       size_t available, size_t *ret_len)
{
    *ret_len = request->has_length ? request->content_length : 0;
    if (request->chunked || (request->method == HTTP_POST && !request->has_length)) {
        bad_head(w, c, 411, "send a Content-Length");
        return false;
    }
    if (request->content_length > BODY_MAX) {
        bad_head(w, c, 413, "a body is at most 1 MiB");
        return false;
    }
    if (available >= *ret_len) {
        release_body(w, c);
        return true;
    }
    if (!(c->flags & CONN_BODY) && body_welcome(w, c, request)) {
        c->flags |= CONN_BODY;
        reserve_body(w, c, *ret_len);
        conn_arm(w, c);
        if (request->expect_continue)
            conn_send(w, c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    return false;
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
        bad_head(w, c, (unsigned)-head, error);
    if (head <= 0 || !body_ready(w, c, &request, len - (size_t)head, &body))
        return 0;
    if (request.method == HTTP_POST && publish_full(w)) {
        conn_pause(w, c);
        return 0;
    }
    dispatch(w, c, &request, data + head, body);
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
