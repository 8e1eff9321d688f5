/* Links to workers. What they send is read by the loop's thread alone, as long as the crew has
 * room; answers come from any thread, by the outbox. A link is freed when neither the loop nor a
 * request needs it any more. */
#include "worker_link.h"

#include "call_message.h"
#include "request.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define READ_SIZE (64u << 10)
#define BACKLOG   1024

struct worker_link {
    struct links *links;
    uv_pipe_t pipe;
    struct list node; /* in links->open */
    struct buf in;
    unsigned refs; /* by the mutex; one is the loop's */
    bool closed;   /* by the mutex, written by the loop's thread alone */
};

struct reply {
    struct list node; /* in the outbox */
    struct worker_link *link;
    uint8_t *bytes;
    size_t len;
    uv_write_t write;
};

/* ---- any thread ---- */

struct worker_link *worker_link_ref(struct worker_link *link)
{
    (void)pthread_mutex_lock(&link->links->mutex);
    link->refs++;
    (void)pthread_mutex_unlock(&link->links->mutex);
    return link;
}

void worker_link_unref(struct worker_link *link)
{
    struct links *links = link->links;
    (void)pthread_mutex_lock(&links->mutex);
    bool last = --link->refs == 0;
    (void)pthread_mutex_unlock(&links->mutex);
    if (last) {
        buf_done(&link->in);
        free(link);
    }
}

static void reply_free(struct reply *reply)
{
    worker_link_unref(reply->link);
    free(reply->bytes);
    free(reply);
}

int worker_link_send(struct worker_link *link, uint8_t *bytes, size_t len)
{
    struct links *links = link->links;
    struct reply *reply = malloc(sizeof(*reply));
    if (!reply) {
        free(bytes);
        return -ENOMEM;
    }
    *reply = (struct reply){ .link = link, .bytes = bytes, .len = len };
    (void)pthread_mutex_lock(&links->mutex);
    bool closed = link->closed;
    if (!closed) {
        link->refs++;
        list_push(&links->outbox, &reply->node);
    }
    (void)pthread_mutex_unlock(&links->mutex);
    if (closed) {
        free(bytes);
        free(reply);
        return -EPIPE;
    }
    (void)uv_async_send(&links->wake);
    return 0;
}

/* ---- the loop's thread: answers ---- */

static void on_closed(uv_handle_t *handle)
{
    worker_link_unref(handle->data);
}

static void link_close(struct worker_link *link)
{
    struct links *links = link->links;
    (void)pthread_mutex_lock(&links->mutex);
    bool closed = link->closed;
    link->closed = true;
    (void)pthread_mutex_unlock(&links->mutex);
    if (closed)
        return;
    list_remove(&link->node);
    uv_close((uv_handle_t *)&link->pipe, on_closed);
}

static void on_written(uv_write_t *write, int status)
{
    struct reply *reply = write->data;
    struct links *links = reply->link->links;
    links->n_writes--;
    if (status < 0)
        link_close(reply->link);
    reply_free(reply);
    links->written(links->arg);
}

/* Called without the mutex; a closed link's reply is dropped: the worker has told its clients. */
static void write_reply(struct links *links, struct reply *reply)
{
    uv_buf_t buf = uv_buf_init((char *)reply->bytes, (unsigned)reply->len);
    reply->write.data = reply;
    if (reply->link->closed ||
        uv_write(&reply->write, (uv_stream_t *)&reply->link->pipe, &buf, 1, on_written) < 0) {
        link_close(reply->link);
        reply_free(reply);
        return;
    }
    links->n_writes++;
}

static void write_replies(struct links *links)
{
    struct list taken, *node;
    list_init(&taken);
    (void)pthread_mutex_lock(&links->mutex);
    while ((node = list_pop(&links->outbox)))
        list_push(&taken, node);
    (void)pthread_mutex_unlock(&links->mutex);
    while ((node = list_pop(&taken)))
        write_reply(links, list_entry(node, struct reply, node));
}

/* ---- the loop's thread: requests ---- */

/* Hands whole requests to the crew until it is full. False: these are none. */
static bool take_requests(struct worker_link *link)
{
    struct links *links = link->links;
    struct buf *in = &link->in;
    size_t at = 0;
    int r = 0;
    while (r == 0 && !links->paused) {
        struct fw_request *request;
        int64_t size = call_message_size(in->data + at, in->len - at, CALL_REQUEST_MAX);
        if (size == 0 || (size > 0 && (size_t)size > in->len - at))
            break;
        r = size < 0 ? (int)size
                     : request_new(links->application, link, in->data + at, (size_t)size, &request);
        if (r < 0)
            break;
        crew_push(links->crew, request);
        links->paused = crew_full(links->crew);
        at += (size_t)size;
    }
    buf_consume(in, at);
    if (links->paused && at > 0) { /* it took the last room: the others come first next time */
        list_remove(&link->node);
        list_push(&links->open, &link->node);
    }
    return r == 0;
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct worker_link *link = handle->data;
    (void)suggested;
    *ret = uv_buf_init(NULL, 0); /* read as ENOBUFS */
    if (buf_reserve(&link->in, READ_SIZE) == 0)
        *ret = uv_buf_init((char *)link->in.data + link->in.len, READ_SIZE);
}

void links_pause(struct links *links)
{
    links->paused = true;
    for (struct list *n = links->open.next; n != &links->open; n = n->next)
        (void)uv_read_stop((uv_stream_t *)&list_entry(n, struct worker_link, node)->pipe);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct worker_link *link = stream->data;
    (void)buf;
    if (n == 0)
        return;
    link->in.len += n > 0 ? (size_t)n : 0;
    if (n < 0 || !take_requests(link))
        link_close(link);
    if (link->links->paused)
        links_pause(link->links);
}

void links_resume(struct links *links)
{
    if (!links->paused || crew_full(links->crew))
        return;
    links->paused = false;
    for (struct list *n = links->open.next, *next; n != &links->open; n = next) {
        struct worker_link *link = list_entry(n, struct worker_link, node);
        next = n->next;
        if (!take_requests(link))
            link_close(link);
        else if (!links->paused)
            (void)uv_read_start((uv_stream_t *)&link->pipe, on_room, on_read);
    }
    if (links->paused)
        links_pause(links);
}

/* ---- workers come ---- */

static bool is_worker(const struct links *links, uv_pipe_t *pipe)
{
    int fd;
    struct ucred peer = { 0 };
    socklen_t len = sizeof(peer);
    return uv_fileno((uv_handle_t *)pipe, &fd) == 0 &&
           getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           links->peer_allowed(links->arg, peer.pid);
}

static int greet(struct worker_link *link)
{
    struct buf hello = buf_make(CALL_HEAD_SIZE);
    struct call_message head = { .type = CALL_HELLO };
    call_message_begin(&hello, &head);
    call_message_end(&hello);
    return hello.failed ? -ENOMEM : worker_link_send(link, hello.data, hello.len);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct links *links = listener->data;
    struct worker_link *link = status < 0 ? NULL : calloc(1, sizeof(*link));
    if (!link)
        return;
    *link = (struct worker_link){ .links = links, .refs = 1 };
    link->in = buf_make(CALL_REQUEST_MAX + READ_SIZE);
    (void)uv_pipe_init(listener->loop, &link->pipe, 0);
    link->pipe.data = link;
    list_push(&links->open, &link->node);
    if (uv_accept(listener, (uv_stream_t *)&link->pipe) < 0 || !is_worker(links, &link->pipe) ||
        greet(link) < 0 ||
        (!links->paused && uv_read_start((uv_stream_t *)&link->pipe, on_room, on_read) < 0))
        link_close(link);
}

static void on_wake(uv_async_t *wake)
{
    struct links *links = wake->data;
    write_replies(links);
    links->written(links->arg);
}

int links_open(struct links *links, uv_loop_t *loop, int listen_fd)
{
    list_init(&links->open);
    list_init(&links->outbox);
    links->listener.data = links->wake.data = links;
    (void)pthread_mutex_init(&links->mutex, NULL);
    int r = uv_async_init(loop, &links->wake, on_wake);
    if (r == 0)
        r = uv_pipe_init(loop, &links->listener, 0);
    if (r == 0)
        r = uv_pipe_open(&links->listener, listen_fd);
    return r == 0 ? uv_listen((uv_stream_t *)&links->listener, BACKLOG, on_connection) : r;
}

bool links_flushed(struct links *links)
{
    (void)pthread_mutex_lock(&links->mutex);
    bool empty = list_empty(&links->outbox);
    (void)pthread_mutex_unlock(&links->mutex);
    return empty && links->n_writes == 0;
}
