/* What the application answers, and how a client gets it: a response, a stream's beginning, or its
 * refusal. Nothing of it is believed: a process that has gone mad must not speak HTTP of its own.
 */
#include "call.h"
#include "text.h"

#include <errno.h>
#include <string.h>

#define OPENING_MAX (4u * CALL_REPLY_MAX) /* base64 and the like make messages larger */

static const char nonsense[] = "the application answered something that can't be sent";

/* ---- refusing ---- */

/* Opens a stream only to end it: browsers see close codes and events, not statuses. */
static bool open_to_refuse(struct worker *w, struct conn *c, const struct call *call)
{
    struct buf *out = &w->response;
    buf_clear(out);
    if (call->websocket)
        http_ws_head(out, call->accept, false, "");
    else
        http_sse_head(w, c, out, "");
    c->flags &= ~(uint32_t)CONN_KEEP;
    conn_send(w, c, out->data, out->len);
    if (c->state == CONN_DEAD)
        return false;
    stream_begin(w, c, call->websocket ? TRANSPORT_WS : TRANSPORT_SSE,
                 call->websocket ? FORMAT_WS_BARE : FORMAT_SSE_BARE, 0);
    return c->state == CONN_STREAM;
}

void call_refuse(struct worker *w, struct conn *c, const struct call *ended, enum error_code code,
                 const char *detail)
{
    if (!call_stream(ended) || (!ended->websocket && code_status(code) < 500)) {
        http_refuse(w, c, code, detail);
        return;
    }
    count(&w->counters->rejected[code], 1);
    if (!open_to_refuse(w, c, ended))
        return;
    if (ended->websocket)
        conn_refuse(w, c, code, detail);
    else
        stream_closing(w, c, code, http_retry_ms(c));
}

static unsigned close_code_of(unsigned status)
{
    switch (status) {
    case 401:
        return 4001;
    case 403:
        return 4003;
    case 429:
        return 4129;
    default:
        return status >= 400 && status < 500 ? 4000 : 1011;
    }
}

static void close_with(struct worker *w, struct conn *c, unsigned code, struct slice text)
{
    char reason[124];
    size_t len = text.len < sizeof(reason) - 1 ? text.len : sizeof(reason) - 1;
    memcpy(reason, text.data, len);
    while (len && !utf8_valid(reason, len)) /* may have been cut inside a character */
        len--;
    reason[len] = 0;
    conn_close_ws(w, c, code, reason);
}

/* ---- responses ---- */

struct answer {
    unsigned status;
    struct slice items[ANSWER_ITEMS];
};

static bool answer_read(struct call_message *message, struct answer *ret)
{
    ret->status = message->status;
    if (message->n_items != ANSWER_ITEMS || ret->status < 200 || ret->status > 599)
        return false;
    for (int i = 0; i < ANSWER_ITEMS; i++)
        (void)call_message_next(message, &ret->items[i]);
    return call_fields_allowed(ret->items[ANSWER_FIELDS]) &&
           call_type_allowed(ret->items[ANSWER_TYPE]);
}

static void respond(struct worker *w, struct conn *c, const struct answer *answer)
{
    struct buf fields = buf_make(FIELDS_MAX + CALL_FIELDS_MAX + 1);
    const struct slice *items = answer->items;
    bool bare = answer->status == 204 || answer->status == 304;
    buf_append_str(&fields, c->more->fields);
    buf_append(&fields, items[ANSWER_FIELDS].data, items[ANSWER_FIELDS].len);
    buf_append_char(&fields, '\0');
    if (fields.failed)
        http_problem(w, c, CODE_OVERLOADED, "out of memory");
    else
        http_respond(w, c, answer->status,
                     items[ANSWER_TYPE].len && !bare ? items[ANSWER_TYPE].data : NULL,
                     (const char *)fields.data, items[ANSWER_BODY].data,
                     bare ? 0 : items[ANSWER_BODY].len);
    buf_done(&fields);
    http_answered(w, c);
}

static void answered(struct worker *w, struct conn *c, const struct call *ended,
                     const struct answer *answer)
{
    bool again = call_stream(ended) && !ended->websocket && answer->status >= 500;
    if (!ended->websocket && !again) {
        respond(w, c, answer);
    } else if (open_to_refuse(w, c, ended)) {
        if (again)
            stream_closing(w, c, answer->status == 503 ? CODE_OVERLOADED : CODE_INTERNAL,
                           http_retry_ms(c));
        else
            close_with(w, c, close_code_of(answer->status), answer->items[ANSWER_REASON]);
    }
}

/* ---- streams ---- */

/* The head, then each message in the wire format of the bare stream. -EPROTO, -ENOMEM. */
static int encode_opening(struct worker *w, struct conn *c, const struct call *call,
                          struct call_message *message, struct buf *out)
{
    struct slice item = { 0 }, fields = { 0 };
    for (struct call_message all = *message; call_message_next(&all, &item);)
        fields = item; /* they come last */
    if (!fields.data || !call_fields_allowed(fields))
        return -EPROTO;
    if (call->websocket)
        http_ws_head(out, call->accept, false, fields.data);
    else
        http_sse_head(w, c, out, fields.data);
    while (message->n_items > 1 && call_message_next(message, &item))
        (void)frame_opening(out, call->websocket ? FORMAT_WS_BARE : FORMAT_SSE_BARE, item.data,
                            item.len);
    return out->failed ? -ENOMEM : 0;
}

/* From the place on; the channel is still held by the call. */
static void follow(struct worker *w, struct conn *c, const struct call *call)
{
    struct start start = { .since = since_offset(w->log, call->place) };
    const struct channel *channel = call->channel;
    if (w->draining)
        stream_closing(w, c, CODE_RESTART, 500 + conn_spread(c, 5000));
    else if (subscribe(w, c, channel->name, channel->len, &start, "") < 0)
        conn_refuse(w, c, CODE_OVERLOADED, "out of memory");
    else
        joins_advance(w, c);
}

static void open_stream(struct worker *w, struct call *call, const struct buf *opening)
{
    struct conn *c = call->conn;
    bool websocket = call->websocket;
    c->flags &= ~(uint32_t)CONN_KEEP;
    conn_send_large(w, c, opening->data, opening->len);
    if (c->state == CONN_DEAD)
        return; /* the call goes with it */
    stream_begin(w, c, websocket ? TRANSPORT_WS : TRANSPORT_SSE,
                 websocket ? FORMAT_WS_BARE : FORMAT_SSE_BARE, 0);
    if (c->state == CONN_STREAM)
        follow(w, c, call);
    if (c->more && c->more->call) /* else the connection has ended, and the call with it */
        call_detach(w, c->more->call);
    if (c->more && c->more->in.len && c->state == CONN_STREAM && !list_linked(&c->readable))
        list_push(&w->readable, &c->readable); /* sent right behind the upgrade */
}

static void accepted(struct worker *w, struct call *call, struct call_message *message)
{
    struct buf opening = buf_make(OPENING_MAX);
    int r = call_stream(call) ? encode_opening(w, call->conn, call, message, &opening) : -EPROTO;
    if (r == 0) {
        count(&w->counters->calls[CODE_OK], 1);
        open_stream(w, call, &opening);
    } else {
        call_fail(w, call, r == -ENOMEM ? CODE_OVERLOADED : CODE_INTERNAL,
                  r == -ENOMEM ? "the first messages take more memory than there is" : nonsense);
    }
    buf_done(&opening);
}

/* ---- the whole ---- */

void calls_answer(struct worker *w, struct call_message *message)
{
    struct call *call = call_find(w, message->id);
    if (!call || !call->conn || call->phase != CALL_SENT)
        return; /* its client is gone, or its time was up */
    struct conn *c = call->conn;
    if (c->state != CONN_WAIT)
        return;
    struct answer answer;
    if (message->type == CALL_ACCEPT) {
        accepted(w, call, message);
    } else if (answer_read(message, &answer)) {
        struct call ended = *call;
        count(&w->counters->calls[CODE_OK], 1);
        call_detach(w, call);
        answered(w, c, &ended, &answer);
    } else {
        call_fail(w, call, CODE_INTERNAL, nonsense);
    }
}
