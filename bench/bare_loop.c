/* The send loop: see bare_loop.h. */
#include "bare_loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX   2048
#define EVENT_MAX  UINT16_MAX
#define FRAMES_MAX (256u << 10) /* bytes of one send */
#define EVENTS_MAX 256

/* A client whose request is not complete yet. */
struct pending {
    size_t len;
    char head[HEAD_MAX];
};

struct bare {
    int epoll, listener;
    struct pending **pending; /* by descriptor; NULL: none, or upgraded already */
    int *fds;                 /* upgraded clients */
    size_t n_fds;
    size_t *slot; /* by descriptor: its place in fds */
    size_t frames_len;
    uint8_t frames[FRAMES_MAX];
};

void bare_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("bare: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void watch(const struct bare *b, int fd, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.fd = fd };
    if (epoll_ctl(b->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
        bare_fail("epoll_ctl: %s", strerror(errno));
}

/* ---- clients ---- */

static void drop(struct bare *b, int fd)
{
    if (b->pending[fd]) {
        free(b->pending[fd]);
        b->pending[fd] = NULL;
    } else {
        int last = b->fds[--b->n_fds];
        b->fds[b->slot[fd]] = last;
        b->slot[last] = b->slot[fd];
    }
    close(fd);
}

static void accept_all(struct bare *b)
{
    int on = 1, fd;
    while ((fd = accept4(b->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (!(b->pending[fd] = calloc(1, sizeof(struct pending))))
            bare_fail("out of memory");
        watch(b, fd, EPOLLIN | EPOLLRDHUP);
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        bare_fail("accept: %s", strerror(errno));
}

/* RFC 6455, 4.2.2: base64 of the SHA-1 of the key and a constant. */
static void accept_key(const char *key, size_t len, char out[32])
{
    char text[256];
    uint8_t digest[SHA_DIGEST_LENGTH];
    int n = snprintf(text, sizeof(text), "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", (int)len, key);
    SHA1((const uint8_t *)text, (size_t)n, digest);
    EVP_EncodeBlock((uint8_t *)out, digest, sizeof(digest));
}

static void upgrade(struct bare *b, int fd, const char *head)
{
    static const char field[] = "\r\nSec-WebSocket-Key:";
    const char *key = strcasestr(head, field);
    key = key ? key + strlen(field) + strspn(key + strlen(field), " ") : NULL;
    size_t len = key ? strcspn(key, " \r") : 0;
    if (len == 0 || len > 64) {
        drop(b, fd);
        return;
    }
    char accepted[32], response[256];
    accept_key(key, len, accepted);
    int n = snprintf(response, sizeof(response),
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     accepted);
    if (send(fd, response, (size_t)n, MSG_NOSIGNAL) != n) {
        drop(b, fd);
        return;
    }
    free(b->pending[fd]);
    b->pending[fd] = NULL;
    b->slot[fd] = b->n_fds;
    b->fds[b->n_fds++] = fd;
}

static void read_client(struct bare *b, int fd)
{
    struct pending *p = b->pending[fd];
    char ignored[1024];
    ssize_t n = p ? recv(fd, p->head + p->len, HEAD_MAX - 1 - p->len, 0)
                  : recv(fd, ignored, sizeof(ignored), 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            drop(b, fd);
        return;
    }
    if (!p)
        return; /* whatever a client says is of no interest here */
    p->len += (size_t)n;
    if (strstr(p->head, "\r\n\r\n"))
        upgrade(b, fd, p->head);
    else if (p->len == HEAD_MAX - 1)
        drop(b, fd);
}

/* ---- events ---- */

/* An unmasked, unfragmented text frame: RFC 6455, 5.2. */
static size_t put_frame(uint8_t *to, const char *data, size_t len)
{
    size_t head = len < 126 ? 2 : 4;
    to[0] = 0x81;
    to[1] = len < 126 ? (uint8_t)len : 126;
    if (head == 4) {
        to[2] = (uint8_t)(len >> 8);
        to[3] = (uint8_t)len;
    }
    memcpy(to + head, data, len);
    return head + len;
}

void bare_put(struct bare *b, const char *data, size_t len)
{
    if (len > EVENT_MAX)
        bare_fail("an event of more than %d bytes", EVENT_MAX);
    if (b->frames_len + len + 4 > sizeof(b->frames))
        bare_flush(b);
    b->frames_len += put_frame(b->frames + b->frames_len, data, len);
}

void bare_flush(struct bare *b)
{
    size_t len = b->frames_len;
    b->frames_len = 0;
    if (len == 0)
        return;
    for (size_t i = 0; i < b->n_fds; i++) {
        if (send(b->fds[i], b->frames, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len)
            bare_fail("a client did not take it all; the load is above what this server is for");
    }
}

/* ---- start ---- */

static size_t raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        bare_fail("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

static void open_listener(struct bare *b)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    b->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (b->listener < 0 || bind(b->listener, (struct sockaddr *)&address, len) < 0 ||
        listen(b->listener, SOMAXCONN) < 0 ||
        getsockname(b->listener, (struct sockaddr *)&address, &len) < 0)
        bare_fail("cannot listen: %s", strerror(errno));
    (void)printf("port %u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
}

struct bare *bare_new(void)
{
    struct bare *b = calloc(1, sizeof(*b));
    size_t max_fds = raise_descriptor_limit();
    if (b) {
        b->pending = calloc(max_fds, sizeof(struct pending *));
        b->fds = calloc(max_fds, sizeof(int));
        b->slot = calloc(max_fds, sizeof(size_t));
    }
    if (!b || !b->pending || !b->fds || !b->slot)
        bare_fail("out of memory");
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (b->epoll < 0)
        bare_fail("epoll_create1: %s", strerror(errno));
    open_listener(b);
    watch(b, b->listener, EPOLLIN);
    return b;
}

void bare_run(struct bare *b, int fd, void (*read)(void *arg), void *arg)
{
    watch(b, fd, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(b->epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            int ready = events[i].data.fd;
            if (ready == b->listener)
                accept_all(b);
            else if (ready == fd)
                read(arg);
            else
                read_client(b, ready);
        }
    }
}
