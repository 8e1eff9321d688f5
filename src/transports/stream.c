/* What all streams (WebSocket and SSE) have in common: greeting, control messages, heartbeats,
 * timers, endings. */
#include "turn.h"

#include <stdio.h>
#include <string.h>

#define KEEP_ALIVE_MS 75000 /* an HTTP connection between two requests */
#define BODY_MS       60000
#define WAIT_MS       60000 /* for an answer of the source process */
#define CALL_MS       30000 /* for one of the application */
#define CLOSE_MS      5000  /* for the peer's end after ours */

void client_name(const struct worker *w, const struct conn *c, char out[24])
{
    (void)snprintf(out, 24, "%x%xw%llx", (unsigned)(log_epoch(w->log) & 0xfff), w->options->index,
                   (unsigned long long)c->id);
}

void send_control(struct worker *w, struct conn *c, const char *name, const struct buf *json)
{
    if (c->format == FORMAT_WS_BARE || json->failed)
        return;
    struct buf *out = &w->response;
    buf_clear(out);
    if (frame_control(out, c->format, name, (const char *)json->data, json->len) == 0)
        conn_send(w, c, out->data, out->len);
}

const char *worker_place(struct worker *w, uint64_t off)
{
    /* A place that could not be found, for the log was just being recovered, is looked for again.
     */
    if (w->place.off != off || !off || w->place.id[0] == 'l')
        (void)position_write_place(w->place.id, w->log, off);
    w->place.off = off;
    return w->place.id;
}

static void tell(struct worker *w, struct conn *c, const struct channel *channel, const char *after,
                 uint64_t before, enum gap_reason reason)
{
    count(&w->counters->gaps[reason], 1);
    w->told_gaps++;
    if (c->format == FORMAT_WS_BARE) {
        if (!(c->flags & CONN_GAP_IGNORE))
            conn_close_ws(w, c, 4102, reason_text(reason));
        return;
    }
    struct buf *json = &w->text;
    buf_clear(json);
    json_gap(json, channel ? channel->name : NULL, channel ? channel->len : 0, after,
             worker_place(w, before), reason);
    send_control(w, c, "gap", json);
}

void tell_gap(struct worker *w, struct conn *c, const struct channel *channel, uint64_t after,
              uint64_t before, enum gap_reason reason)
{
    char place[POSITION_TEXT_MAX];
    if (after)
        (void)position_write_place(place, w->log, after);
    tell(w, c, channel, after ? place : NULL, before, reason);
}

void tell_missed(struct worker *w, struct conn *c, const struct channel *channel,
                 const struct since *since, const struct resume *resume)
{
    char asked[POSITION_TEXT_MAX];
    bool ours = since->kind == SINCE_POSITION && since->position.kind == POSITION_LOCAL &&
                since->position.space == log_epoch(w->log);
    if (ours)
        tell_gap(w, c, channel, since->position.a, resume->before, resume->reason);
    else if (since->kind == SINCE_POSITION && position_text(asked, &since->position) > 0)
        tell(w, c, channel, asked, resume->before, resume->reason);
    else
        tell_gap(w, c, channel, resume->after, resume->before, resume->reason);
}

/* Brings what the connection believes of the source up to date. */
void tell_down_up(struct worker *w, struct conn *c)
{
    bool told = c->flags & CONN_TOLD_DOWN;
    if (told == w->down || c->state != CONN_STREAM)
        return;
    c->flags ^= CONN_TOLD_DOWN;
    struct buf *json = &w->text;
    buf_clear(json);
    if (w->down)
        json_down(json, w->hung ? REASON_HUNG : w->down_reason);
    else
        json_up(json);
    send_control(w, c, w->down ? "down" : "up", json);
}

void stream_begin(struct worker *w, struct conn *c, enum transport transport,
                  enum frame_format format, unsigned heartbeat_s)
{
    count(&w->counters->connections[c->transport], (uint64_t)-1);
    c->transport = (uint8_t)transport;
    count(&w->counters->connections[transport], 1);
    count(&w->counters->opened[transport], 1);
    c->format = (uint8_t)format;
    c->state = CONN_STREAM;
    c->cursor = w->frontier;
    c->heartbeat_s = (uint8_t)(heartbeat_s ? heartbeat_s : w->settings->heartbeat_s);
    if (format == FORMAT_WS_JSON) {
        char client[24];
        client_name(w, c, client);
        struct buf *json = &w->text;
        buf_clear(json);
        json_welcome(json, client, c->heartbeat_s, CLIENT_FRAME_MAX, "fanwire/" FANWIRE_VERSION,
                     w->mode, w->durable);
        send_control(w, c, "welcome", json);
    }
    tell_down_up(w, c);
    if (c->state == CONN_STREAM)
        conn_arm(w, c);
}

/* Tells a stream to come back later, and ends it. */
void stream_closing(struct worker *w, struct conn *c, enum error_code code, unsigned retry_ms)
{
    char text[64];
    struct buf *json = &w->text;
    buf_clear(json);
    json_closing(json, code, retry_ms);
    c->flags |= CONN_DRAINING;
    if (c->transport == TRANSPORT_WS) {
        send_control(w, c, "closing", json);
        (void)snprintf(text, sizeof(text), "retry=%u", retry_ms);
        conn_close_ws(w, c, code_close(code), text);
        return;
    }
    int n = snprintf(text, sizeof(text), "retry: %u\n", retry_ms);
    conn_send(w, c, text, (size_t)n);
    send_control(w, c, "closing", json);
    conn_end(w, c, code_close(code));
}

/* ---- timers ---- */

static uint32_t stall_limit(const struct worker *w, const struct conn *c)
{
    return conn_has_unsent(c) ? w->settings->stall_ms : w->settings->behind_ms;
}

static uint32_t history_timeout(const struct worker *w, const struct history_request *history)
{
    return history->until_ms > w->now_ms ? (uint32_t)(history->until_ms - w->now_ms) : 0;
}

static uint32_t timeout_of(const struct worker *w, const struct conn *c)
{
    switch (c->state) {
    case CONN_HTTP:
        if (c->flags & CONN_BODY)
            return BODY_MS;
        return c->more && c->more->in.len ? w->settings->head_timeout_ms : KEEP_ALIVE_MS;
    case CONN_WAIT:
        if (c->more && c->more->call)
            return CALL_MS;
        return c->more && c->more->history ? history_timeout(w, c->more->history) : WAIT_MS;
    case CONN_CLOSING:
        return c->transport == TRANSPORT_HTTP && conn_has_unsent(c) ? w->settings->stall_ms
                                                                    : CLOSE_MS;
    default:
        if (c->flags & CONN_BLOCKED)
            return stall_limit(w, c);
        /* Up to an eighth early, so that those who came together are not told together. */
        return c->heartbeat_s * 1000u - conn_spread(c, c->heartbeat_s * 125u);
    }
}

void conn_arm(struct worker *w, struct conn *c)
{
    if (c->state != CONN_DEAD && !(c->flags & CONN_GAP_CLOSE))
        wheel_set(&w->wheel, &c->timer, w->now_ms, timeout_of(w, c));
}

static void heartbeat(struct worker *w, struct conn *c)
{
    visit(w, c);
    if (c->state != CONN_STREAM && c->state != CONN_ECHO)
        return;
    int64_t quiet =
        (int64_t)c->heartbeat_s * 875 - WHEEL_TICK_MS; /* as early as the timer may fire */
    bool ws = c->transport == TRANSPORT_WS;
    bool unread = list_linked(&c->readable); /* a pong may be among what was not read yet */
    bool silent = ws && !unread && w->now_ms - c->last_in_ms >= quiet;
    if (silent && c->flags & CONN_PINGED) {
        conn_close_ws(w, c, 4108, "no pong");
        return;
    }
    bool idle = w->now_ms - c->last_out_ms >= quiet;
    if (idle || silent) {
        const char *id = worker_place(w, c->cursor);
        struct buf *out = &w->response;
        buf_clear(out);
        /* Somebody behind is complete up to its cursor; before the source has answered nobody knows
         * how far anything is complete. */
        if (frame_heartbeat(out, c->format, c->flags & CONN_GREETED ? id : NULL) == 0)
            conn_send(w, c, out->data, out->len);
        c->flags |= ws ? CONN_PINGED : 0;
    }
}

static void stream_timer(struct worker *w, struct conn *c)
{
    if (c->flags & CONN_GAP_CLOSE) {
        c->flags &= ~(uint32_t)CONN_GAP_CLOSE;
        conn_close_ws(w, c, 4102, "gap");
        return;
    }
    if (c->flags & CONN_BLOCKED) {
        if (w->now_ms - c->last_out_ms >= stall_limit(w, c) - WHEEL_TICK_MS) {
            conn_kill(w, c, 4108);
            return;
        }
    } else {
        heartbeat(w, c);
    }
    conn_arm(w, c);
}

void conn_timer(struct worker *w, struct conn *c)
{
    switch (c->state) {
    case CONN_STREAM:
    case CONN_ECHO:
        stream_timer(w, c);
        return;
    case CONN_WAIT:
        if (c->more && c->more->history) {
            http_answer_history(w, c);
        } else if (c->more && c->more->call) {
            call_late(w, c);
        } else {
            publishes_forget(w, c); /* its answer is not for the request after it */
            http_published(w, c, CODE_SOURCE_DOWN,
                           "no answer in time; the event may have been stored", NULL);
        }
        return;
    default:
        conn_kill(w, c, c->state == CONN_HTTP ? 4108 : 1000);
    }
}
