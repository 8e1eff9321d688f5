/* One reader's inbox connection, seen from the source side. */
#include "peer.h"

#include "meta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE_SIZE      4096
#define PUBLISH_CHARGE 128 /* what a publish of no bytes counts */

/* ---- birth ---- */

/* The page is ours, sealed: the reader could otherwise cut it under our feet. */
static int make_page(struct log_slot **ret)
{
    int fd = memfd_create("fanwire-reader", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, PAGE_SIZE) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
        void *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) {
            *ret = page;
            return fd;
        }
    }
    int error = errno;
    close(fd);
    return -error;
}

static int greet(struct peer *peer)
{
    int page = make_page(&peer->slot);
    if (page < 0)
        return page;
    peer->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = peer->eventfd < 0 ? -errno : 0;
    if (r == 0) {
        struct inbox_message hello = { .type = INBOX_HELLO, .code = INBOX_VERSION };
        r = inbox_send(peer->fd, &hello, (int[]){ page, peer->eventfd }, 2);
        if (r == -EPIPE)
            r = 0; /* gone already, but what it has sent is still carried out */
    }
    close(page);
    return r;
}

static void free_peer(struct peer *peer)
{
    if (peer->slot)
        munmap(peer->slot, PAGE_SIZE);
    if (peer->eventfd >= 0)
        close(peer->eventfd);
    close(peer->fd);
    buf_done(&peer->replies);
    free(peer->partial);
    free(peer);
}

int peer_new(struct engine *engine, uv_loop_t *loop, int fd, struct peer **ret)
{
    struct peer *peer = malloc(sizeof(*peer));
    if (!peer) {
        close(fd);
        return -ENOMEM;
    }
    *peer = (struct peer){ .engine = engine, .fd = fd, .eventfd = -1 };
    peer->replies = buf_make(PEER_REPLIES_MAX);
    list_init(&peer->rows);
    list_init(&peer->held);
    list_init(&peer->asked);
    int r = greet(peer);
    if (r == 0)
        r = uv_poll_init(loop, &peer->poll, fd);
    if (r < 0) {
        free_peer(peer);
        return r;
    }
    peer->poll.data = peer;
    *ret = peer;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    free_peer(handle->data);
}

void peer_close(struct peer *peer)
{
    (void)uv_poll_stop(&peer->poll);
    (void)shutdown(peer->fd, SHUT_RDWR); /* also when a forked child still holds a copy */
    uv_close((uv_handle_t *)&peer->poll, on_closed);
}

void peer_break(struct peer *peer, const char *why)
{
    if (peer->broken)
        return;
    peer->broken = true;
    peer->why = why;
    engine_on_busy(peer->engine, peer);
}

/* ---- replies ---- */

static void keep_reply(struct peer *peer, const struct inbox_message *message)
{
    char packet[INBOX_REPLY_MAX];
    uint32_t len = (uint32_t)inbox_encode_head(packet, message);
    if (buf_append(&peer->replies, &len, sizeof(len)) < 0 ||
        buf_append(&peer->replies, packet, len) < 0)
        peer_break(peer, "it does not read its replies");
    engine_on_busy(peer->engine, peer);
}

void peer_is_deaf(struct peer *peer)
{
    peer->deaf = true;
    buf_done(&peer->replies);
}

void peer_send(struct peer *peer, const struct inbox_message *message)
{
    if (peer->broken || peer->deaf)
        return;
    int r = peer->replies.len ? -EAGAIN : inbox_send(peer->fd, message, NULL, 0);
    if (r == -EAGAIN)
        keep_reply(peer, message);
    else if (r < 0)
        peer_is_deaf(peer);
}

bool peer_flush(struct peer *peer)
{
    size_t at = 0;
    while (at < peer->replies.len) {
        uint32_t len;
        memcpy(&len, peer->replies.data + at, sizeof(len));
        ssize_t n =
            send(peer->fd, peer->replies.data + at + sizeof(len), len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ENOMEM) {
            peer_is_deaf(peer);
            return true;
        }
        if (n < 0)
            break;
        at += sizeof(len) + len;
    }
    buf_consume(&peer->replies, at);
    if (peer->replies.len == 0)
        buf_done(&peer->replies);
    return peer->replies.len == 0;
}

void peer_wake(struct peer *peer, bool always)
{
    if (log_wake_slot(peer->slot) || always)
        (void)eventfd_write(peer->eventfd, 1);
}

/* ---- publishes ---- */

static const char *put_text(char **at, const struct inbox_text *text)
{
    const char *start = *at;
    memcpy(*at, text->text, text->len + 1); /* with its NUL */
    *at += text->len + 1;
    return start;
}

static struct publish *new_publish(struct peer *peer, const struct inbox_message *m)
{
    size_t size = m->b + INBOX_TEXTS + 1;
    for (size_t i = 0; i < INBOX_TEXTS; i++)
        size += m->texts[i].len;
    struct publish *p = malloc(sizeof(*p) + size);
    if (!p)
        return NULL;
    bool batch = m->type == INBOX_BATCH;
    *p = (struct publish){ .peer = peer,
                           .request = m->a,
                           .charge = size + PUBLISH_CHARGE,
                           .batch = batch,
                           .n_events = batch ? (uint32_t)m->c : 1,
                           .len = m->b,
                           .left = m->b };
    char *at = p->bytes;
    p->single = (struct batch_event){ .channel = put_text(&at, &m->texts[0]),
                                      .key = put_text(&at, &m->texts[1]),
                                      .channel_len = m->texts[0].len,
                                      .key_len = m->texts[1].len,
                                      .len = m->b };
    p->from = put_text(&at, &m->texts[2]);
    p->at = p->data = at;
    p->single.data = at;
    at[m->b] = '\0';
    return p;
}

/* Adds a fragment; hands the publish on when it is whole. */
static void take_data(struct peer *peer, const struct inbox_message *m)
{
    struct publish *p = peer->partial;
    if (m->len > p->len - peer->partial_len || (!m->more && m->len < p->len - peer->partial_len)) {
        peer_break(peer, "the fragments of a publish don't add up");
        return;
    }
    if (m->len > 0)
        memcpy(p->data + peer->partial_len, m->data, m->len);
    peer->partial_len += m->len;
    if (m->more)
        return;
    if (p->batch && !batch_valid(p->at, p->left, p->n_events)) {
        peer_break(peer, "a batch that is not made of events");
        return;
    }
    peer->partial = NULL;
    peer->n_charged += p->charge;
    engine_on_publish(peer->engine, peer, p);
}

static bool too_large(const struct inbox_message *m)
{
    if (m->type == INBOX_PUBLISH)
        return m->b > INBOX_PUBLISH_MAX;
    return m->b > INBOX_BATCH_MAX || m->c == 0 || m->c > INBOX_EVENTS_MAX;
}

static void take_publish(struct peer *peer, const struct inbox_message *m)
{
    if (peer->partial || too_large(m)) {
        peer_break(peer, peer->partial ? "a publish inside another" : "too large a publish");
        return;
    }
    peer->partial = new_publish(peer, m);
    peer->partial_len = 0;
    if (peer->partial)
        take_data(peer, m);
    else
        peer_break(peer, "no memory for its publish");
}

/* ---- requests ---- */

static void handle(struct peer *peer, const struct inbox_message *m)
{
    if (!peer->greeted && (m->type != INBOX_HELLO || m->code != INBOX_VERSION)) {
        peer_break(peer, "it speaks another version of the inbox protocol");
        return;
    }
    switch (m->type) {
    case INBOX_HELLO:
        if (peer->greeted)
            peer_break(peer, "a second hello");
        peer->greeted = true;
        return;
    case INBOX_SUBSCRIBE:
        engine_on_subscribe(peer->engine, peer, m);
        return;
    case INBOX_UNSUBSCRIBE:
        engine_on_unsubscribe(peer->engine, peer, m);
        return;
    case INBOX_PUBLISH:
    case INBOX_BATCH:
        take_publish(peer, m);
        return;
    case INBOX_DATA:
        if (peer->partial)
            take_data(peer, m);
        else
            peer_break(peer, "data of no publish");
        return;
    case INBOX_SNAPSHOT:
        engine_on_snapshot(peer->engine, peer, m);
        return;
    case INBOX_POKE:
        engine_on_poke(peer->engine, peer);
        return;
    default:
        peer_break(peer, "a message only the source side may send");
    }
}

static bool may_read(const struct peer *peer)
{
    return !peer->broken && peer->replies.len == 0 && list_empty(&peer->interest.due) &&
           peer->n_charged < PEER_HELD_MAX;
}

static void read_requests(struct peer *peer)
{
    char packet[INBOX_FRAGMENT_MAX];
    for (int i = 0; i < PEER_TURN_MAX && may_read(peer); i++) {
        struct inbox_message message;
        int64_t n = inbox_receive(peer->fd, packet, sizeof(packet), NULL);
        if (n == -EAGAIN)
            return;
        if (n == 0 || n == -EPIPE)
            peer_break(peer, NULL);
        else if (n < 0 || inbox_decode(packet, (size_t)n, &message) < 0)
            peer_break(peer, "a packet that is no message");
        else
            handle(peer, &message);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct peer *peer = poll->data;
    if (peer->broken)
        return;
    engine_on_busy(peer->engine, peer);
    if (status < 0)
        peer->events = 0; /* libuv has stopped watching */
    /* A reader that is gone still has what it sent before; reading finds its end, too. */
    if (status < 0 && !may_read(peer))
        peer_break(peer, NULL);
    else if (status < 0 || (events & UV_READABLE))
        read_requests(peer);
}

void peer_watch(struct peer *peer)
{
    int events = 0;
    if (may_read(peer))
        events |= UV_READABLE;
    if (peer->replies.len > 0 || !list_empty(&peer->interest.due) || !list_empty(&peer->rows))
        events |= UV_WRITABLE;
    if (events == peer->events)
        return;
    int r = events ? uv_poll_start(&peer->poll, events, on_poll) : uv_poll_stop(&peer->poll);
    if (r < 0)
        peer_break(peer, "it cannot be watched");
    peer->events = events;
}
