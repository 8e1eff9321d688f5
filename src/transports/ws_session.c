/* A WebSocket's inbound side: frames, control frames, and what a stream may say. */
#include "text.h"
#include "turn.h"

#include <string.h>

static void answer_close(struct worker *w, struct conn *c, const struct ws_event *event)
{
    if (!(c->flags & CONN_CLOSE_SENT))
        conn_close_ws(w, c, event->close_code == 1005 ? 1000 : event->close_code, NULL);
    if (c->state != CONN_DEAD) { /* both sides have closed: TCP may end */
        c->state = CONN_CLOSING;
        conn_end(w, c, 1000);
    }
}

static void send_frame(struct worker *w, struct conn *c, enum ws_opcode opcode, const void *data,
                       size_t len)
{
    uint8_t head[WS_HEAD_MAX];
    struct buf *out = &w->response;
    buf_clear(out);
    buf_append(out, head, ws_encode_head(head, opcode, len));
    buf_append(out, data, len);
    if (!out->failed)
        conn_send(w, c, out->data, out->len);
}

static void on_event(struct worker *w, struct conn *c, const struct ws_event *event)
{
    switch (event->opcode) {
    case WS_CLOSE:
        answer_close(w, c, event);
        return;
    case WS_PING:
        if (c->state != CONN_CLOSING)
            send_frame(w, c, WS_PONG, event->data, event->len);
        return;
    case WS_PONG:
        return;
    default:
        break;
    }
    if (c->state == CONN_CLOSING)
        return;
    if (c->state == CONN_ECHO)
        send_frame(w, c, event->opcode, event->data, event->len);
    else if (c->format == FORMAT_WS_JSON && event->opcode == WS_TEXT)
        protocol_message(w, c, event->data, event->len);
    else
        conn_refuse(w, c, CODE_BAD_REQUEST,
                    c->format == FORMAT_WS_JSON
                        ? "fanwire.v1 messages are text frames"
                        : "a bare socket only listens; offer the subprotocol fanwire.v1 to speak");
}

static void fail(struct worker *w, struct conn *c, unsigned code)
{
    if (c->flags & CONN_CLOSE_SENT) {
        conn_kill(w, c, code);
        return;
    }
    conn_close_ws(w, c, code, NULL);
    if (c->state != CONN_DEAD)
        conn_end(w, c, code); /* RFC 6455 7.1.7: no more is read */
}

static bool reads(const struct conn *c)
{
    return (c->state == CONN_STREAM || c->state == CONN_ECHO || c->state == CONN_CLOSING) &&
           !(c->flags & CONN_ENDING);
}

/* Decodes all whole frames; returns the bytes taken. */
static size_t decode_all(struct worker *w, struct conn *c, uint8_t *data, size_t len)
{
    size_t taken = 0;
    struct ws_decoder local, *decoder = c->more ? &c->more->ws : &local;
    if (decoder == &local)
        ws_decoder_init(&local, CLIENT_FRAME_MAX);
    while (taken < len && reads(c)) {
        if (publish_full(w) && c->format == FORMAT_WS_JSON && c->state == CONN_STREAM) {
            conn_pause(w, c);
            break;
        }
        if (c->state == CONN_ECHO && c->more && c->more->out.len > (4u << 20)) {
            break; /* an echo that is not read is not answered further */
        }
        size_t used = 0;
        struct ws_event event;
        int r = ws_decode(decoder, data + taken, len - taken, &used, &event);
        taken += used;
        if (r < 0) {
            fail(w, c, (unsigned)-r);
            break;
        }
        if (r > 0)
            on_event(w, c, &event);
        else if (used == 0)
            break;
        if (decoder == &local && (c->more || !ws_decoder_idle(&local))) {
            struct conn_more *more = conn_more(c); /* it has something to remember from now on */
            if (!more) {
                conn_kill(w, c, 1011);
                break;
            }
            ws_decoder_done(&more->ws);
            more->ws = local;
            decoder = &more->ws;
        }
    }
    if (decoder == &local)
        ws_decoder_done(&local);
    return taken;
}

void ws_readable(struct worker *w, struct conn *c, uint8_t *data, size_t len)
{
    if (c->transport != TRANSPORT_WS)
        return; /* SSE: the client has nothing to say */
    struct conn_more *more = c->more;
    if (more && more->in.len) { /* an unfinished frame is here already */
        if (buf_append(&more->in, data, len) < 0) {
            fail(w, c, 1009);
            return;
        }
        struct buf in = more->in; /* out of the way: handlers may trim or free `more` */
        more->in = buf_make(in.max);
        size_t taken = decode_all(w, c, in.data, in.len);
        if (c->state != CONN_DEAD && taken < in.len && (more = conn_more(c)))
            (void)buf_append(&more->in, in.data + taken, in.len - taken);
        buf_done(&in);
    } else {
        size_t taken = decode_all(w, c, data, len);
        if (c->state != CONN_DEAD && taken < len) {
            more = conn_more(c);
            if (!more || buf_append(&more->in, data + taken, len - taken) < 0)
                conn_kill(w, c, 1011);
        }
    }
    if (c->state == CONN_STREAM)
        conn_trim(c);
}
