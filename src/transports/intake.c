/* Intake: accepting connections, reading what is readable, taking note of what is writable. All in
 * slices: a turn never spends more than about a millisecond here. */
#include "clock.h"
#include "turn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_MAX 64
#define READS_MAX  256
#define READ_SIZE  (16u << 10)
#define UNREAD_MAX (64u << 10) /* unsent bytes from which nothing more is read */
#define OVER_LIMIT 64          /* connections above the limit that still get a polite answer */

static const char overloaded[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n"
                                 "Content-Length: 0\r\nConnection: close\r\n\r\n";

/* Out of descriptors: the spare one is given up to take a connection out of the queue and say so;
 * else the listener would stay readable for ever. */
static void refuse_for_lack_of_fds(struct worker *w, int listener)
{
    close(w->spare_fd);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        (void)send(fd, overloaded, sizeof(overloaded) - 1, MSG_NOSIGNAL);
        close(fd);
    }
    w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    count(&w->counters->rejected[CODE_OVERLOADED], 1);
}

static void admit(struct worker *w, int fd, bool admin, bool reserved)
{
    struct conn *c = NULL;
    if (reserved && w->n_conns < w->max_conns + OVER_LIMIT)
        c = conn_new(w, fd, admin);
    if (!c) {
        (void)send(fd, overloaded, sizeof(overloaded) - 1, MSG_NOSIGNAL);
        close(fd);
        count(&w->counters->rejected[CODE_OVERLOADED], 1);
        return;
    }
    if (!admin && w->n_conns > w->max_conns)
        c->flags |= CONN_REFUSE;
    if (loop_add(&w->loop, fd, c) < 0) {
        conn_kill(w, c, 1011);
        return;
    }
    wheel_set(&w->wheel, &c->timer, w->now_ms, w->settings->head_timeout_ms);
}

void intake_listen(struct worker *w, int listener, bool admin)
{
    bool reserved = link_reserve(w); /* has the first claim to what became free */
    for (int i = 0; i < ACCEPT_MAX; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(w, fd, admin, reserved);
        } else if (errno == EMFILE || errno == ENFILE) {
            refuse_for_lack_of_fds(w, listener);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return; /* EAGAIN; ENOBUFS and the like: the next turn tries again */
        }
    }
}

void conn_pause(struct worker *w, struct conn *c)
{
    list_remove(&c->readable);
    list_push(&w->paused, &c->readable);
}

void intake_resume(struct worker *w)
{
    struct list *node;
    while (!publish_full(w) && (node = list_pop(&w->paused)))
        list_push(&w->readable, node);
}

/* Bytes go to the session, or wait in `in` while a response is being sent. */
static void take_in(struct worker *w, struct conn *c, size_t len)
{
    switch (c->state) {
    case CONN_STREAM:
    case CONN_ECHO:
        ws_readable(w, c, w->inbuf, len);
        return;
    case CONN_CLOSING:
        if (c->transport == TRANSPORT_WS)
            ws_readable(w, c, w->inbuf, len);
        return; /* the rest of a conversation that is over */
    case CONN_HTTP:
    case CONN_WAIT:
        break;
    default:
        return;
    }
    struct conn_more *more = conn_more(c);
    bool first = more && more->in.len == 0 && c->state == CONN_HTTP;
    if (!more || buf_append(&more->in, w->inbuf, len) < 0) {
        conn_kill(w, c, 1009);
        return;
    }
    if (first)
        conn_arm(w, c); /* the head's time begins with its first byte */
    http_readable(w, c);
}

/* Should it be read at all? Not while it does not take its answers, nor while requests pile up
 * behind one that waits. */
static bool choked(const struct conn *c)
{
    if (!c->more)
        return false;
    bool waits = c->state == CONN_WAIT || (c->state == CONN_HTTP && conn_has_unsent(c));
    return c->more->out.len > UNREAD_MAX || (waits && c->more->in.len > UNREAD_MAX);
}

/* What is in `in` already, when a pause is over. */
static void take_kept(struct worker *w, struct conn *c)
{
    if (!c->more || c->more->in.len == 0)
        return;
    if (c->state == CONN_HTTP)
        http_readable(w, c);
    else if (c->state == CONN_STREAM || c->state == CONN_ECHO)
        ws_readable(w, c, NULL, 0);
}

static void on_eof(struct worker *w, struct conn *c)
{
    /* Requests may still be on their way to an answer (a client that half-closes); everything else
     * is over when the peer's side is. */
    bool unanswered = (c->state == CONN_WAIT && !call_is_stream(c)) ||
                      (c->state == CONN_HTTP && conn_has_unsent(c));
    c->flags |= CONN_EOF;
    if (!unanswered)
        conn_kill(w, c, c->transport == TRANSPORT_WS ? 1006 : 1000);
    else if (c->more && c->more->history && c->more->history->poll)
        http_answer_history(w, c); /* most likely nobody waits for the next event any more */
}

/* One read. True when there may be more: always after data, because an end of file that came with
 * it gives no edge of its own. */
static bool read_once(struct worker *w, struct conn *c)
{
    take_kept(w, c);
    if (c->state == CONN_DEAD || choked(c) || list_linked(&c->readable))
        return false; /* paused again, or goes on when writable */
    ssize_t n = recv(c->fd, w->inbuf, READ_SIZE, MSG_DONTWAIT);
    if (n > 0) {
        c->last_in_ms = w->now_ms;
        c->flags &= ~(uint32_t)CONN_PINGED;
        take_in(w, c, (size_t)n);
        return c->state != CONN_DEAD;
    }
    if (n == 0)
        on_eof(w, c);
    else if (errno == EINTR)
        return true;
    else if (errno != EAGAIN)
        conn_kill(w, c, c->transport == TRANSPORT_WS ? 1006 : 0);
    return false;
}

void intake_read(struct worker *w, int64_t budget_us)
{
    int64_t deadline = clock_monotonic_us() + budget_us;
    for (int i = 0; i < READS_MAX && !list_empty(&w->readable); i++) {
        struct conn *c = list_entry(list_pop(&w->readable), struct conn, readable);
        if (read_once(w, c) && !list_linked(&c->readable))
            list_push(&w->readable, &c->readable);
        if (i % 16 == 15 && clock_monotonic_us() > deadline)
            return;
    }
}

static void on_writable(struct worker *w, struct conn *c)
{
    if (!(c->flags & CONN_BLOCKED))
        return;
    c->flags &= ~(uint32_t)CONN_BLOCKED;
    bool was_choked = choked(c);
    if (conn_flush(w, c) <= 0)
        return;
    if (c->state == CONN_STREAM) {
        conn_arm(w, c);
        list_remove(&c->work); /* it may have blocked again before its turn came */
        list_push(c->flags & CONN_BEHIND ? &w->behind : &w->unblocked, &c->work);
    }
    bool waits = c->more && c->more->in.len;
    if ((was_choked || waits) && c->state != CONN_DEAD && !list_linked(&c->readable))
        list_push(&w->readable, &c->readable);
}

void intake_event(struct worker *w, struct conn *c, bool readable, bool writable)
{
    if (c->state == CONN_DEAD)
        return;
    if (writable)
        on_writable(w, c);
    if (readable && c->state != CONN_DEAD && !list_linked(&c->readable))
        list_push(&w->readable, &c->readable);
}
