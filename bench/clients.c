/* The load of the benchmark: many WebSockets that drain and check what they get, and the feeder of
 * the server's standard input, in one process: the next events are written when every client has
 * the ones before, so that both servers under test are driven alike and below saturation.
 *
 * Usage: clients PORT PATH COUNT PID FD, with PID = the process whose CPU time counts and FD = the
 * pipe to the server's standard input. It connects, prints "connected N", then obeys lines of
 * standard input:
 *
 *     run ROUNDS BURST      ROUNDS times: write BURST events of 64 bytes at once, wait for all
 *                           prints "DELIVERIES CPU_NS WALL_NS": CPU is that of PID meanwhile
 *
 * Each client compares each byte with what it has to be: a lost, torn, doubled or reordered event
 * ends the benchmark. */
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD     64
#define FRAME       (2 + PAYLOAD)
#define BURST_MAX   1024
#define EVENTS_FD   3
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

struct load {
    int epoll;
    uint16_t port;
    const char *path;
    int events_fd;
    clockid_t cpu; /* of the server */
    struct client *clients;
    size_t count, connecting, open;
    uint64_t sequence; /* of the next event */
    uint64_t base;     /* bytes of text frames before this round */
    size_t complete;   /* clients that have all of this round */
    size_t n_lines, n_expected;
    char lines[BURST_MAX * (PAYLOAD + 1)];
    uint8_t expected[BURST_MAX * FRAME];
    uint8_t buf[BURST_MAX * FRAME];
};

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("clients: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) < 0)
        fail("cannot read the server's CPU time: %s", strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- connecting ---- */

/* A reset instead of an orderly end: ten thousand sockets in TIME_WAIT would be in the way of the
 * next round. */
static void connect_one(struct load *l, size_t index)
{
    struct client *c = &l->clients[index];
    struct linger reset = { .l_onoff = 1 };
    struct sockaddr_in from = { .sin_family = AF_INET };
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(index / PER_ADDRESS));
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(l->port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("socket %zu: %s", index, strerror(errno));
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS))
        fail("connection %zu: %s", index, strerror(errno));
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static void ask(struct load *l, struct client *c)
{
    char request[512];
    int n = snprintf(request, sizeof(request),
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                     l->path, l->port);
    if (send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        fail("cannot send a request: %s", strerror(errno));
    c->state = CLIENT_ASKED;
}

static void read_answer(struct load *l, struct client *c)
{
    ssize_t n = recv(c->fd, c->part + c->n_part, sizeof(c->part) - 1 - c->n_part, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        fail("the server ended a connection during the handshake");
    c->n_part += (uint32_t)n;
    c->part[c->n_part] = '\0';
    const char *text = (const char *)c->part, *end = strstr(text, "\r\n\r\n");
    bool refused = strncmp(text, "HTTP/1.1 101 ", c->n_part < 13 ? c->n_part : 13) != 0;
    if (refused || (!end && c->n_part == sizeof(c->part) - 1))
        fail("no WebSocket: %.60s", text);
    if (!end)
        return;
    if (end[4])
        fail("the server talks before there is an event");
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.ptr = c };
    (void)epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &ev);
    c->state = CLIENT_OPEN;
    c->n_part = 0;
    l->open++;
    l->connecting--;
}

static void connect_event(struct load *l, struct client *c, uint32_t events)
{
    if (events & EPOLLERR)
        fail("cannot connect to port %u", l->port);
    if (c->state == CLIENT_CONNECTING && events & EPOLLOUT)
        ask(l, c);
    else if (c->state == CLIENT_ASKED && events & EPOLLIN)
        read_answer(l, c);
}

static int wait_for_events(const struct load *l, struct epoll_event *events)
{
    int n = epoll_wait(l->epoll, events, EVENTS_MAX, PATIENCE_MS);
    if (n < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    return n;
}

static void connect_all(struct load *l)
{
    size_t next = 0;
    while (l->open < l->count) {
        while (next < l->count && l->connecting < CONNECTING) {
            connect_one(l, next++);
            l->connecting++;
        }
        struct epoll_event events[EVENTS_MAX];
        int n = wait_for_events(l, events);
        if (n == 0)
            fail("only %zu of %zu connections were accepted", l->open, l->count);
        for (int i = 0; i < n; i++)
            connect_event(l, events[i].data.ptr, events[i].events);
    }
}

/* ---- receiving ---- */

static bool at_boundary(const struct load *l, const struct client *c)
{
    return (c->got - l->base) % FRAME == 0;
}

/* Answers a ping with a pong of the same payload; the mask of zeros is legal and masks nothing. */
static void control_frame(const struct client *c, size_t len)
{
    uint8_t pong[6 + 125] = { 0x8a, (uint8_t)(0x80 | len) };
    memcpy(pong + 6, c->part + 2, len);
    if (c->part[0] != 0x89 || len > 125)
        fail("the server sent a control frame 0x%02x", c->part[0]);
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
            fail("the server sent a control frame that is too long");
        if (c->n_part >= 2 && c->n_part == size) {
            control_frame(c, size - 2);
            c->n_part = 0;
            break;
        }
    }
    return taken;
}

static size_t take_text(struct load *l, struct client *c, const uint8_t *bytes, size_t len)
{
    size_t at = (size_t)(c->got - l->base), left = l->n_expected - at;
    /* A control frame may stand after any event; then only the bytes before it are text. */
    size_t n = len < left ? len : left;
    if (n == 0)
        fail("the server sent more than there is");
    if (memcmp(bytes, l->expected + at, n) != 0) {
        n = FRAME - at % FRAME < n ? FRAME - at % FRAME : n;
        if (memcmp(bytes, l->expected + at, n) != 0)
            fail("a client got something else than the event due, at byte %zu of a round", at);
    }
    c->got += n;
    if (n == left)
        l->complete++;
    return n;
}

static void take(struct load *l, struct client *c, size_t len)
{
    for (size_t at = 0; at < len;) {
        bool control = c->n_part > 0 || (at_boundary(l, c) && l->buf[at] & CONTROL_BIT);
        at += control ? take_control(c, l->buf + at, len - at)
                      : take_text(l, c, l->buf + at, len - at);
    }
}

static void receive(struct load *l, struct client *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, l->buf, sizeof(l->buf), 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            fail("the server ended a connection");
        take(l, c, (size_t)n);
        if ((size_t)n < sizeof(l->buf))
            return; /* there is no more: the next comes with an edge of its own */
    }
}

/* ---- rounds ---- */

static void make_events(struct load *l, size_t burst)
{
    l->n_lines = burst * (PAYLOAD + 1);
    l->n_expected = burst * FRAME;
    for (size_t i = 0; i < burst; i++) {
        char line[PAYLOAD + 2];
        (void)snprintf(line, sizeof(line), "%020llu %043d\n", (unsigned long long)l->sequence++, 0);
        uint8_t *frame = l->expected + i * FRAME;
        frame[0] = 0x81;
        frame[1] = PAYLOAD;
        memcpy(frame + 2, line, PAYLOAD);
        memcpy(l->lines + i * (PAYLOAD + 1), line, PAYLOAD + 1);
    }
}

/* The clients do not sleep while events are due: the sender pays for waking them, and how often
 * they sleep is chance. It made up to 15 % of the cost of the same bytes, mostly to the favour of
 * the slower sender. */
static void run_round(struct load *l, size_t burst)
{
    make_events(l, burst);
    l->complete = 0;
    if (write(l->events_fd, l->lines, l->n_lines) != (ssize_t)l->n_lines)
        fail("cannot write events: %s", strerror(errno));
    uint64_t give_up = now_ns(CLOCK_MONOTONIC) + PATIENCE_MS * 1000000ull;
    while (l->complete < l->count) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(l->epoll, events, EVENTS_MAX, 0);
        if (n == 0 && now_ns(CLOCK_MONOTONIC) > give_up)
            fail("only %zu of %zu clients got their events", l->complete, l->count);
        for (int i = 0; i < n; i++)
            receive(l, events[i].data.ptr);
    }
    l->base += l->n_expected;
}

static void run(struct load *l, size_t rounds, size_t burst)
{
    uint64_t cpu = now_ns(l->cpu), wall = now_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < rounds; i++)
        run_round(l, burst);
    cpu = now_ns(l->cpu) - cpu;
    wall = now_ns(CLOCK_MONOTONIC) - wall;
    (void)printf("%zu %llu %llu\n", rounds * burst * l->count, (unsigned long long)cpu,
                 (unsigned long long)wall);
    (void)fflush(stdout);
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

static struct load *start(char **argv)
{
    struct load *l = calloc(1, sizeof(*l));
    size_t count = strtoul(argv[3], NULL, 10);
    if (l) {
        l->port = (uint16_t)strtoul(argv[1], NULL, 10);
        l->path = argv[2];
        l->count = count;
        l->events_fd = (int)strtol(argv[5], NULL, 10);
        l->clients = calloc(count, sizeof(struct client));
    }
    if (!l || !l->clients)
        fail("out of memory");
    if (clock_getcpuclockid((pid_t)strtol(argv[4], NULL, 10), &l->cpu) != 0)
        fail("there is no process %s", argv[4]);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    return l;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        fail("usage: clients PORT PATH COUNT PID FD");
    raise_descriptor_limit();
    struct load *l = start(argv);
    connect_all(l);
    (void)printf("connected %zu\n", l->open);
    (void)fflush(stdout);

    char command[128];
    while (fgets(command, sizeof(command), stdin)) {
        size_t rounds, burst;
        if (sscanf(command, "run %zu %zu", &rounds, &burst) != 2 || burst == 0 || burst > BURST_MAX)
            fail("not a command: %s", command);
        run(l, rounds, burst);
    }
    return 0;
}
