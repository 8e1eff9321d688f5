/* A worker's link to the application process: connecting, its death and rebirth, bytes. The
 * address is the supervisor's and outlives the process: a connection may be made, and wait, while
 * nobody is there. Only the greeting says that somebody is. */
#include "turn.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECONNECT_MS 20
#define READ_SIZE    (64u << 10)
#define READS_MAX    32 /* per turn */

void application_init(struct worker *w)
{
    w->app.fd = -1;
    w->app.in = buf_make(CALL_REPLY_MAX + READ_SIZE);
    w->app.away_ms = w->now_ms;
    list_init(&w->app.held);
    list_init(&w->app.queued);
}

/* Sends and reads nothing of a process that is gone; what was not sent whole waits for the next. */
static void lost(struct worker *w)
{
    loop_remove(&w->loop, w->app.fd);
    close(w->app.fd);
    w->app.fd = -1;
    w->app.more = false;
    if (w->app.greeted)
        w->app.away_ms = w->now_ms;
    w->app.greeted = false;
    w->app.reconnect_ms = w->now_ms + RECONNECT_MS;
    buf_done(&w->app.in);
    calls_fail_sent(w);
}

void application_connect(struct worker *w)
{
    const struct worker_options *o = w->options;
    if (w->app.more)
        application_event(w);
    if (o->application_len == 0 || w->app.fd >= 0 || w->now_ms < w->app.reconnect_ms)
        return;
    w->app.reconnect_ms = w->now_ms + RECONNECT_MS;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&o->application, o->application_len) < 0 ||
        loop_add(&w->loop, fd, &w->app) < 0) {
        close(fd);
        return;
    }
    w->app.fd = fd;
}

void application_flush(struct worker *w)
{
    const uint8_t *data;
    size_t len;
    while (w->app.greeted && calls_unsent(w, &data, &len)) {
        ssize_t n = send(w->app.fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0)
            return; /* later; its end is found by reading */
        calls_sent(w, (size_t)n);
    }
}

static void take(struct worker *w, struct call_message *message)
{
    if (message->type == CALL_HELLO) {
        w->app.greeted = true;
        application_flush(w);
    } else {
        calls_answer(w, message);
    }
}

/* Every whole message in `in`. False: these are none. */
static bool take_all(struct worker *w)
{
    struct buf *in = &w->app.in;
    size_t at = 0;
    bool sane = true;
    while (sane) {
        struct call_message message;
        int64_t size = call_message_size(in->data + at, in->len - at, CALL_REPLY_MAX);
        if (size == 0 || (size > 0 && (size_t)size > in->len - at))
            break;
        sane = size > 0 && call_message_decode(in->data + at, (size_t)size, &message) == 0 &&
               message.type != CALL_REQUEST && (message.type == CALL_HELLO || w->app.greeted);
        if (sane) {
            take(w, &message);
            at += (size_t)size;
        }
    }
    buf_consume(in, at);
    if (in->len == 0)
        buf_done(in); /* a large answer's room is not kept */
    return sane;
}

void application_event(struct worker *w)
{
    w->app.more = false;
    if (w->app.fd < 0)
        return;
    application_flush(w);
    for (int i = 0; i < READS_MAX; i++) {
        struct buf *in = &w->app.in;
        ssize_t n = -1;
        errno = ENOMEM;
        if (buf_reserve(in, READ_SIZE) == 0)
            n = recv(w->app.fd, in->data + in->len, READ_SIZE, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        in->len += n > 0 ? (size_t)n : 0;
        if (n <= 0 || !take_all(w)) {
            lost(w);
            return;
        }
    }
    w->app.more = true;
}

void application_done(struct worker *w)
{
    calls_done(w);
    if (w->app.fd >= 0)
        close(w->app.fd);
    w->app.fd = -1;
    buf_done(&w->app.in);
}
