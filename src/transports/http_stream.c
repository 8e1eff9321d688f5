/* Streams as they begin: the SSE head, the WebSocket handshake, the channels of the URL. */
#include "http_session.h"

#include <stdio.h>
#include <string.h>

static void subscribe_all(struct worker *w, struct conn *c, const struct params *params)
{
    const struct start start = { params->since, params->last, params->rows };
    for (size_t i = 0; i < params->n_channels && c->state == CONN_STREAM; i++) {
        int r = subscribe(w, c, params->channels[i].name, params->channels[i].len, &start, "");
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

enum error_code http_check_channels(struct worker *w, const struct params *params, char *detail,
                                    size_t size)
{
    for (size_t i = 0; i < params->n_channels; i++) {
        const struct channel_name *name = &params->channels[i];
        enum error_code code = check_channel(w, name->name, name->len, false, detail, size);
        if (code == CODE_OK && params->rows)
            code = check_rows(w, name->name, name->len, detail, size);
        if (code)
            return code;
    }
    return CODE_OK;
}

enum error_code http_no_room(const struct worker *w, const struct conn *c)
{
    if (w->draining)
        return CODE_RESTART;
    return c->flags & CONN_REFUSE ? CODE_OVERLOADED : CODE_OK;
}

unsigned http_retry_ms(const struct conn *c)
{
    return 1000 + conn_spread(c, 4000);
}

void http_sse_head(struct worker *w, const struct conn *c, struct buf *out, const char *fields)
{
    buf_printf(out,
               "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/event-stream\r\n%s"
               "X-Accel-Buffering: no\r\nConnection: close\r\n%s%s\r\n%s",
               http_date(w),
               http_has_field(fields, "Cache-Control")
                   ? ""
                   : "Cache-Control: no-cache, no-transform\r\n",
               c->more->fields, fields, c->flags & CONN_HEAD ? "" : "retry: 2000\n\n");
}

static void sse_head(struct worker *w, struct conn *c)
{
    struct buf *out = &w->response;
    buf_clear(out);
    http_sse_head(w, c, out, "");
    conn_send(w, c, out->data, out->len);
}

void http_sse_request(struct worker *w, struct conn *c, const struct http_request *request,
                      struct slice rest)
{
    char detail[512];
    struct params params;
    enum error_code code = params_parse(&params, PARAMS_SSE, request, rest,
                                        w->settings->max_channels, detail, sizeof(detail));
    if (code == CODE_OK)
        code = http_check_channels(w, &params, detail, sizeof(detail));
    if (code) {
        http_refuse(w, c, code, detail);
        params_done(&params);
        return;
    }
    c->flags &= ~(uint32_t)CONN_KEEP;
    sse_head(w, c);
    enum error_code later = http_no_room(w, c);
    if (c->state == CONN_DEAD || c->flags & CONN_HEAD) {
        if (c->state != CONN_DEAD)
            conn_end(w, c, 1000);
    } else {
        stream_begin(w, c, TRANSPORT_SSE, params.path_form ? FORMAT_SSE_BARE : FORMAT_SSE_JSON,
                     params.heartbeat_s);
        if (later) {
            /* EventSource gives up for good on any status but 200 */
            count(&w->counters->rejected[later], 1);
            stream_closing(w, c, later, http_retry_ms(c));
        } else if (c->state == CONN_STREAM) {
            subscribe_all(w, c, &params);
        }
    }
    params_done(&params);
}

bool http_ws_check(struct worker *w, struct conn *c, const struct http_request *request,
                   char accept[WS_ACCEPT_LEN + 1])
{
    if (request->method != HTTP_GET || !request->upgrade_websocket || request->minor < 1) {
        http_respond(w, c, 426, "text/plain", "Upgrade: websocket\r\nConnection: Upgrade\r\n",
                     "This address speaks WebSocket.\n", 31);
    } else if (request->ws_version.len != 2 || memcmp(request->ws_version.data, "13", 2) != 0) {
        http_respond(w, c, 426, "text/plain", "Sec-WebSocket-Version: 13\r\n",
                     "WebSocket version 13 is needed.\n", 32);
    } else if (!ws_accept(accept, request->ws_key.data, request->ws_key.len)) {
        http_problem(w, c, CODE_BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64");
    } else {
        return true;
    }
    http_answered(w, c);
    return false;
}

void http_ws_head(struct buf *out, const char *accept, bool json, const char *fields)
{
    buf_printf(out,
               "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Accept: %s\r\n%s%s\r\n",
               accept, json ? "Sec-WebSocket-Protocol: fanwire.v1\r\n" : "", fields);
}

/* 101; false when it could not be (answered, or dead). */
static bool ws_upgrade(struct worker *w, struct conn *c, const struct http_request *request,
                       bool *ret_json)
{
    char accept[WS_ACCEPT_LEN + 1];
    if (!http_ws_check(w, c, request, accept))
        return false;
    *ret_json = http_list_has(request->ws_protocol, "fanwire.v1");
    struct buf *out = &w->response;
    buf_clear(out);
    http_ws_head(out, accept, *ret_json, "");
    conn_send(w, c, out->data, out->len);
    return c->state != CONN_DEAD;
}

void http_ws_request(struct worker *w, struct conn *c, const struct http_request *request,
                     struct slice rest)
{
    enum error_code later = http_no_room(w, c);
    bool json;
    if (later) {
        http_refuse(w, c, later,
                    later == CODE_RESTART ? "restarting; try again"
                                          : "too many connections; try again");
        return;
    }
    if (!ws_upgrade(w, c, request, &json))
        return;
    /* From here on what is wrong is said by close codes: browsers do not show an HTTP status. */
    char detail[512];
    struct params params;
    enum error_code code = params_parse(&params, PARAMS_WS, request, rest,
                                        w->settings->max_channels, detail, sizeof(detail));
    if (code == CODE_OK)
        code = http_check_channels(w, &params, detail, sizeof(detail));
    json |= rest.len == 0;
    if (code == CODE_OK && params.rows && !json) {
        code = CODE_BAD_REQUEST;
        (void)snprintf(detail, sizeof(detail), PARAMS_BARE_ROWS);
    }
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

void http_echo_request(struct worker *w, struct conn *c, const struct http_request *request)
{
    bool json;
    if (!ws_upgrade(w, c, request, &json))
        return;
    stream_begin(w, c, TRANSPORT_WS, FORMAT_WS_BARE, 0);
    c->state = CONN_ECHO;
}
