/* Connections: memory, output, endings. */
#include "conn.h"

#include "text.h"
#include "turn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TAIL_BYTES_MAX (64u << 20)

/* ---- memory ---- */

struct conn *conn_new(struct worker *w, int fd, bool admin)
{
    if (w->n_conns == w->cap_conns) {
        uint32_t cap = w->cap_conns ? w->cap_conns * 2 : 64;
        struct conn **conns = realloc(w->conns, cap * sizeof(*conns));
        if (!conns)
            return NULL;
        w->conns = conns;
        w->cap_conns = cap;
    }
    struct conn *c = malloc(sizeof(*c));
    if (!c)
        return NULL;
    *c = (struct conn){
        .fd = fd,
        .slot = w->n_conns,
        .flags = admin ? CONN_ADMIN : 0,
        .state = CONN_HTTP,
        .transport = TRANSPORT_HTTP,
        .id = ++w->next_conn_id,
        .last_in_ms = w->now_ms,
        .last_out_ms = w->now_ms,
    };
    w->conns[w->n_conns++] = c;
    walker_grown(&w->everyone);
    count(&w->counters->connections[TRANSPORT_HTTP], 1);
    count(&w->counters->opened[TRANSPORT_HTTP], 1);
    return c;
}

/* Bytes of a request's body that are promised to it. */
void reserve_body(struct worker *w, struct conn *c, size_t size)
{
    c->more->body_reserved = size;
    w->body_bytes += size;
}

void release_body(struct worker *w, struct conn *c)
{
    if (!c->more)
        return;
    w->body_bytes -= c->more->body_reserved;
    c->more->body_reserved = 0;
}

/* A blob counts once, however many connections were cut off inside it. */
static void tail_bytes_add(struct worker *w, const struct blob *blob, int direction)
{
    uint64_t change = (uint64_t)((int64_t)blob->len * direction);
    w->tail_bytes += change;
    count(&w->counters->tail_bytes, change);
}

static void drop_tail(struct worker *w, struct conn *c)
{
    struct blob *blob = c->more ? c->more->tail : NULL;
    if (!blob)
        return;
    if (--blob->tails == 0)
        tail_bytes_add(w, blob, -1);
    blob_unref(blob);
    c->more->tail = NULL;
    list_remove(&c->more->tails);
}

static void leave_everything(struct worker *w, struct conn *c)
{
    set_behind(w, c, false);
    unsubscribe_all(w, c);
    joins_free(w, c);
    publishes_forget(w, c);
    history_cancel(w, c);
    call_forget(w, c);
}

void conn_kill(struct worker *w, struct conn *c, unsigned code)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state != CONN_CLOSING) /* else counted by what began the closing */
        count(&w->counters->closed[c->transport][close_code_index(code)], 1);
    set_behind(w, c, false);
    drop_tail(w, c); /* now: others may be waiting for its share */
    release_body(w, c);
    c->state = CONN_DEAD;
    wheel_clear(&c->timer);
    list_remove(&c->readable);
    list_remove(&c->work);
    list_push(&w->doomed, &c->work);
}

static void conn_free(struct worker *w, struct conn *c)
{
    leave_everything(w, c);
    struct conn *last = w->conns[--w->n_conns];
    w->conns[c->slot] = last;
    last->slot = c->slot;
    walker_disturbed(&w->everyone, w->n_conns);
    count(&w->counters->connections[c->transport], (uint64_t)-1);

    close(c->fd); /* leaves the poller by itself: nobody else holds this descriptor */
    if (c->more) {
        buf_done(&c->more->in);
        buf_done(&c->more->out);
        ws_decoder_done(&c->more->ws);
        free(c->more);
    }
    if (c->subs != &c->only)
        free(c->subs);
    free(c);
}

void conns_reap(struct worker *w)
{
    struct list *node;
    while ((node = list_pop(&w->doomed)))
        conn_free(w, list_entry(node, struct conn, work));
}

struct conn_more *conn_more(struct conn *c)
{
    if (c->more)
        return c->more;
    struct conn_more *more = malloc(sizeof(*more));
    if (!more)
        return NULL;
    *more = (struct conn_more){
        .conn = c,
        .in = buf_make(HTTP_HEAD_MAX + (1u << 20) + (64u << 10)), /* a request, and a read more */
        .out = buf_make(RESPONSE_MAX),
    };
    ws_decoder_init(&more->ws, CLIENT_FRAME_MAX);
    list_init(&more->tails);
    list_init(&more->joins);
    return c->more = more;
}

void conn_trim(struct conn *c)
{
    struct conn_more *more = c->more;
    if (!more || more->in.len || more->out.len || more->tail || more->n_publishes ||
        more->history || more->call || !list_empty(&more->joins) || !ws_decoder_idle(&more->ws))
        return;
    buf_done(&more->in);
    buf_done(&more->out);
    ws_decoder_done(&more->ws);
    free(more);
    c->more = NULL;
}

/* ---- output ---- */

bool conn_has_unsent(const struct conn *c)
{
    return c->more && (c->more->tail || c->more->out.len);
}

/* One send; the error is turned into blocked (0) or the connection's death (< 0). */
static int64_t send_some(struct worker *w, struct conn *c, struct iovec *iov, int n)
{
    ssize_t sent;
    if (n == 1) {
        sent = send(c->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)n };
        sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (sent > 0) {
        c->last_out_ms = w->now_ms;
        return sent;
    }
    if (sent == 0 || errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM)
        return 0;
    conn_kill(w, c, 0);
    return -EPIPE;
}

static void set_blocked(struct worker *w, struct conn *c)
{
    if (c->flags & CONN_BLOCKED)
        return;
    c->flags |= CONN_BLOCKED;
    if (c->flags & CONN_BEHIND)
        list_remove(&c->work); /* back in the list when writable */
    conn_arm(w, c);
}

int64_t conn_write(struct worker *w, struct conn *c, struct iovec *iov, int n)
{
    size_t want = 0;
    for (int i = 0; i < n; i++)
        want += iov[i].iov_len;
    int64_t sent = send_some(w, c, iov, n);
    if (sent >= 0 && (size_t)sent < want)
        set_blocked(w, c);
    return sent;
}

/* Sends [*sent, len) of data. 1: all; 0: blocked; < 0: dead. */
static int send_rest(struct worker *w, struct conn *c, const uint8_t *data, size_t len,
                     size_t *sent)
{
    while (*sent < len) {
        struct iovec iov = { (void *)(data + *sent), len - *sent };
        int64_t n = conn_write(w, c, &iov, 1);
        if (n < 0)
            return (int)n;
        *sent += (size_t)n;
        if (c->flags & CONN_BLOCKED)
            return *sent == len;
    }
    return 1;
}

int conn_flush(struct worker *w, struct conn *c)
{
    struct conn_more *more = c->more;
    if (more && more->tail) {
        int r = send_rest(w, c, more->tail->data, more->tail->len, &more->tail_sent);
        if (r <= 0)
            return r;
        drop_tail(w, c);
    }
    if (more && more->out.len) {
        size_t sent = 0;
        int r = send_rest(w, c, more->out.data, more->out.len, &sent);
        if (r < 0)
            return r;
        buf_consume(&more->out, sent);
        if (r == 0)
            return 0;
    }
    if (c->flags & CONN_ENDING) {
        c->flags &= ~(uint32_t)CONN_ENDING;
        shutdown(c->fd, SHUT_WR);
        c->state = CONN_CLOSING;
        conn_arm(w, c);
    }
    return 1;
}

void conn_send(struct worker *w, struct conn *c, const void *data, size_t len)
{
    if (c->state == CONN_DEAD || len == 0)
        return;
    size_t sent = 0;
    if (!conn_has_unsent(c) && !(c->flags & CONN_BLOCKED)) {
        if (send_rest(w, c, data, len, &sent) != 0)
            return;
    }
    struct conn_more *more = conn_more(c);
    bool stream = c->state == CONN_STREAM;
    if (stream && more && more->out.len + (len - sent) > CONN_CONTROL_MAX + TAIL_COPY_MAX) {
        conn_kill(w, c, 4108);
        return;
    }
    if (!more || buf_append(&more->out, (const uint8_t *)data + sent, len - sent) < 0)
        conn_kill(w, c, 1011);
}

/* All tails of a worker together have a bound; who has stood still for longest pays. */
static void bound_tails(struct worker *w)
{
    while (w->tail_bytes > TAIL_BYTES_MAX && !list_empty(&w->tails)) {
        struct conn_more *oldest = list_entry(w->tails.next, struct conn_more, tails);
        conn_kill(w, oldest->conn, 4108);
    }
}

void conn_keep_tail(struct worker *w, struct conn *c, const uint8_t *frame, size_t len, size_t sent,
                    struct blob **shared)
{
    struct conn_more *more = conn_more(c);
    if (!more) {
        conn_kill(w, c, 1011);
        return;
    }
    if (len - sent <= TAIL_COPY_MAX) {
        if (buf_append(&more->out, frame + sent, len - sent) < 0)
            conn_kill(w, c, 1011);
        else
            conn_arm(w, c);
        return;
    }
    struct blob *blob = shared && *shared ? blob_ref(*shared) : blob_new(frame, len);
    if (!blob) {
        conn_kill(w, c, 1011);
        return;
    }
    if (shared && !*shared)
        *shared = blob_ref(blob);
    if (blob->tails++ == 0)
        tail_bytes_add(w, blob, 1);
    more->tail = blob;
    more->tail_sent = sent;
    list_push(&w->tails, &more->tails);
    conn_arm(w, c); /* the time for the rest of a frame is shorter than for being behind */
    bound_tails(w);
}

void conn_send_large(struct worker *w, struct conn *c, const void *data, size_t len)
{
    if (len <= TAIL_COPY_MAX || conn_has_unsent(c) || c->flags & CONN_BLOCKED) {
        conn_send(w, c, data, len);
        return;
    }
    size_t sent = 0;
    if (c->state != CONN_DEAD && send_rest(w, c, data, len, &sent) == 0)
        conn_keep_tail(w, c, data, len, sent, NULL);
}

/* ---- endings ---- */

void conn_close_ws(struct worker *w, struct conn *c, unsigned code, const char *reason)
{
    if (c->state == CONN_DEAD || c->state == CONN_CLOSING)
        return;
    uint8_t frame[WS_HEAD_MAX + 125];
    size_t reason_len = reason ? strnlen(reason, 123) : 0;
    size_t head = ws_encode_head(frame, WS_CLOSE, 2 + reason_len);
    frame[head] = (uint8_t)(code >> 8);
    frame[head + 1] = (uint8_t)code;
    if (reason_len)
        memcpy(frame + head + 2, reason, reason_len);

    leave_everything(w, c);
    c->state = CONN_CLOSING;
    c->flags |= CONN_CLOSE_SENT;
    count(&w->counters->closed[c->transport][close_code_index(code)], 1);
    conn_send(w, c, frame, head + 2 + reason_len);
    if (c->state != CONN_DEAD)
        conn_arm(w, c);
}

void conn_end(struct worker *w, struct conn *c, unsigned code)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state != CONN_CLOSING) {
        leave_everything(w, c);
        count(&w->counters->closed[c->transport][close_code_index(code)], 1);
    }
    c->state = CONN_CLOSING;
    c->flags |= CONN_ENDING;
    if (conn_flush(w, c) >= 0 && c->state != CONN_DEAD)
        conn_arm(w, c);
}

void conn_refuse(struct worker *w, struct conn *c, enum error_code code, const char *message)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->transport == TRANSPORT_WS) {
        char reason[124];
        snprintf(reason, sizeof(reason), "%s: %s", code_text(code), message);
        size_t len = strlen(reason);
        while (len && !utf8_valid(reason, len)) /* may have been cut inside a character */
            reason[--len] = 0;
        conn_close_ws(w, c, code_close(code), reason);
        return;
    }
    struct buf *json = &w->text;
    buf_clear(json);
    json_error(json, code, message, NULL);
    send_control(w, c, "fault", json);
    conn_end(w, c, code_close(code));
}
