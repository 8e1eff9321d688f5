/* Many WebSockets: see crowd.h. */
#include "crowd.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX  512
#define CONNECTING  256  /* at a time: fewer than any listen queue holds */
#define PER_ADDRESS 5000 /* clients of one source address 127.0.0.x */
#define PATIENCE_MS 20000
#define CONTROL_BIT 0x08 /* of a frame's opcode */
#define PING_MAX    (2 + 125)

enum state { CLIENT_CONNECTING, CLIENT_ASKED, CLIENT_OPEN };

struct client {
    int fd;
    enum state state;
    uint64_t got;    /* bytes of text frames */
    uint32_t n_part; /* bytes of an answer, or of a control frame between two events */
    uint8_t part[256];
};

void crowd_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fprintf(stderr, "%s: ", program_invocation_short_name);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    exit(1);
}

uint64_t crowd_now_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) < 0)
        crowd_fail("cannot read a clock: %s", strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- connecting ---- */

/* A reset instead of an orderly end: ten thousand sockets in TIME_WAIT would be in the way of the
 * next round. */
static void connect_one(struct crowd *w, size_t index)
{
    struct client *c = &w->clients[index];
    struct linger reset = { .l_onoff = 1 };
    struct sockaddr_in from = { .sin_family = AF_INET };
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(index / PER_ADDRESS));
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(w->port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        crowd_fail("socket %zu: %s", index, strerror(errno));
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS))
        crowd_fail("connection %zu: %s", index, strerror(errno));
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
    if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        crowd_fail("epoll_ctl: %s", strerror(errno));
}

static void ask(struct crowd *w, struct client *c)
{
    char request[512];
    int n = snprintf(request, sizeof(request),
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                     w->path, w->port);
    if (send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        crowd_fail("cannot send a request: %s", strerror(errno));
    c->state = CLIENT_ASKED;
}

static void read_answer(struct crowd *w, struct client *c)
{
    ssize_t n = recv(c->fd, c->part + c->n_part, sizeof(c->part) - 1 - c->n_part, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        crowd_fail("the server ended a connection during the handshake");
    c->n_part += (uint32_t)n;
    c->part[c->n_part] = '\0';
    const char *text = (const char *)c->part, *end = strstr(text, "\r\n\r\n");
    bool refused = strncmp(text, "HTTP/1.1 101 ", c->n_part < 13 ? c->n_part : 13) != 0;
    if (refused || (!end && c->n_part == sizeof(c->part) - 1))
        crowd_fail("no WebSocket: %.60s", text);
    if (!end)
        return;
    if (end[4])
        crowd_fail("the server talks before there is an event");
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.ptr = c };
    (void)epoll_ctl(w->epoll, EPOLL_CTL_MOD, c->fd, &ev);
    c->state = CLIENT_OPEN;
    c->n_part = 0;
    w->open++;
    w->connecting--;
}

static void connect_event(struct crowd *w, struct client *c, uint32_t events)
{
    if (events & EPOLLERR)
        crowd_fail("cannot connect to port %u", w->port);
    if (c->state == CLIENT_CONNECTING && events & EPOLLOUT)
        ask(w, c);
    else if (c->state == CLIENT_ASKED && events & EPOLLIN)
        read_answer(w, c);
}

static int wait_for_events(const struct crowd *w, struct epoll_event *events, int timeout_ms)
{
    int n = epoll_wait(w->epoll, events, EVENTS_MAX, timeout_ms);
    if (n < 0 && errno != EINTR)
        crowd_fail("epoll_wait: %s", strerror(errno));
    return n;
}

void crowd_connect(struct crowd *w)
{
    size_t next = 0;
    while (w->open < w->count) {
        while (next < w->count && w->connecting < CONNECTING) {
            connect_one(w, next++);
            w->connecting++;
        }
        struct epoll_event events[EVENTS_MAX];
        int n = wait_for_events(w, events, PATIENCE_MS);
        if (n == 0)
            crowd_fail("only %zu of %zu connections were accepted", w->open, w->count);
        for (int i = 0; i < n; i++)
            connect_event(w, events[i].data.ptr, events[i].events);
    }
}

/* ---- receiving ---- */

static bool at_boundary(const struct crowd *w, const struct client *c)
{
    return (c->got - w->base) % CROWD_FRAME == 0;
}

/* Answers a ping with a pong of the same payload; the mask of zeros is legal and masks nothing. */
static void control_frame(const struct client *c, size_t len)
{
    uint8_t pong[6 + 125] = { 0x8a, (uint8_t)(0x80 | len) };
    memcpy(pong + 6, c->part + 2, len);
    if (c->part[0] != 0x89 || len > 125)
        crowd_fail("the server sent a control frame 0x%02x", c->part[0]);
    (void)send(c->fd, pong, 6 + len, MSG_NOSIGNAL);
}

/* Takes bytes of a control frame. Returns how many. */
static size_t take_control(struct client *c, const uint8_t *bytes, size_t len)
{
    size_t taken = 0;
    while (taken < len) {
        c->part[c->n_part++] = bytes[taken++];
        size_t size = c->n_part < 2 ? 2 : 2u + (c->part[1] & 0x7fu);
        if (size > PING_MAX)
            crowd_fail("the server sent a control frame that is too long");
        if (c->n_part >= 2 && c->n_part == size) {
            control_frame(c, size - 2);
            c->n_part = 0;
            break;
        }
    }
    return taken;
}

static size_t take_text(struct crowd *w, struct client *c, const uint8_t *bytes, size_t len)
{
    size_t at = (size_t)(c->got - w->base), left = w->due_len - at;
    /* A control frame may stand after any event; then only the bytes before it are text. */
    size_t n = len < left ? len : left;
    if (n == 0)
        crowd_fail("the server sent more than there is");
    if (memcmp(bytes, w->due + at, n) != 0) {
        n = CROWD_FRAME - at % CROWD_FRAME < n ? CROWD_FRAME - at % CROWD_FRAME : n;
        if (memcmp(bytes, w->due + at, n) != 0)
            crowd_fail("a client got something else than the event due, at byte %zu of a round",
                       at);
    }
    c->got += n;
    if (n == left) {
        w->complete++;
        if (w->completed)
            w->completed(w->arg);
    }
    return n;
}

static void take(struct crowd *w, struct client *c, size_t len)
{
    for (size_t at = 0; at < len;) {
        bool control = c->n_part > 0 || (at_boundary(w, c) && w->buf[at] & CONTROL_BIT);
        at += control ? take_control(c, w->buf + at, len - at)
                      : take_text(w, c, w->buf + at, len - at);
    }
}

static void receive(struct crowd *w, struct client *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, w->buf, sizeof(w->buf), 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            crowd_fail("the server ended a connection");
        take(w, c, (size_t)n);
        if ((size_t)n < sizeof(w->buf))
            return; /* there is no more: the next comes with an edge of its own */
    }
}

/* ---- events ---- */

void crowd_expect(struct crowd *w, size_t burst)
{
    w->base += w->due_len;
    w->complete = 0;
    w->due_len = burst * CROWD_FRAME;
    for (size_t i = 0; i < burst; i++) {
        char *line = w->lines + i * (CROWD_PAYLOAD + 1);
        (void)snprintf(line, CROWD_PAYLOAD + 2, "%020llu %043d\n",
                       (unsigned long long)w->sequence++, 0);
        uint8_t *frame = w->due + i * CROWD_FRAME;
        frame[0] = 0x81;
        frame[1] = CROWD_PAYLOAD;
        memcpy(frame + 2, line, CROWD_PAYLOAD);
    }
}

void crowd_receive(struct crowd *w, bool sleep)
{
    uint64_t give_up = crowd_now_ns(CLOCK_MONOTONIC) + PATIENCE_MS * 1000000ull;
    while (w->complete < w->count) {
        struct epoll_event events[EVENTS_MAX];
        int n = wait_for_events(w, events, sleep ? PATIENCE_MS : 0);
        if (n <= 0 && crowd_now_ns(CLOCK_MONOTONIC) > give_up)
            crowd_fail("only %zu of %zu clients got their events", w->complete, w->count);
        for (int i = 0; i < n; i++)
            receive(w, events[i].data.ptr);
    }
}

/* ---- start ---- */

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

struct crowd *crowd_new(uint16_t port, const char *path, size_t count)
{
    struct crowd *w = calloc(1, sizeof(*w));
    raise_descriptor_limit();
    if (w) {
        w->port = port;
        w->path = path;
        w->count = count;
        w->clients = calloc(count, sizeof(struct client));
    }
    if (!w || !w->clients)
        crowd_fail("out of memory");
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0)
        crowd_fail("epoll_create1: %s", strerror(errno));
    return w;
}
