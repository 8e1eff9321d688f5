/* The reader's end of the control inbox. */
#include "reader.h"

#include "buf.h"
#include "inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_SIZE_MIN 4096

struct reader {
    int fd, eventfd;
    pid_t pid;             /* who may end the connection: a forked copy only drops its descriptor */
    struct log_slot *slot; /* NULL until greeted */
    bool blocked, gone;
    struct buf rest; /* what is left of a publish whose first fragment was sent */
    size_t rest_at;
};

static int say_hello(struct reader *reader)
{
    struct inbox_message hello = { .type = INBOX_HELLO, .code = INBOX_VERSION };
    return inbox_send(reader->fd, &hello, NULL, 0);
}

int reader_adopt(int fd, struct reader **ret)
{
    struct reader *reader = malloc(sizeof(*reader));
    if (!reader) {
        close(fd);
        return -ENOMEM;
    }
    *reader = (struct reader){ .fd = fd, .eventfd = -1, .pid = getpid() };
    reader->rest = buf_make(INBOX_BATCH_MAX);
    /* A listener that turned us away already shows as end of file in reader_process(). */
    reader->gone = say_hello(reader) == -EPIPE;
    *ret = reader;
    return 0;
}

int reader_connect(const struct sockaddr_un *address, socklen_t len, struct reader **ret)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, len) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return reader_adopt(fd, ret);
}

void reader_close(struct reader *reader)
{
    if (!reader)
        return;
    if (reader->pid == getpid())
        (void)shutdown(reader->fd, SHUT_RDWR); /* also when a forked child still holds a copy */
    close(reader->fd);
    if (reader->eventfd >= 0)
        close(reader->eventfd);
    if (reader->slot)
        munmap(reader->slot, PAGE_SIZE_MIN);
    buf_done(&reader->rest);
    free(reader);
}

int reader_fd(const struct reader *reader)
{
    return reader->fd;
}

bool reader_blocked(const struct reader *reader)
{
    return reader->blocked;
}

struct log_slot *reader_slot(const struct reader *reader)
{
    return reader->slot;
}

int reader_eventfd(const struct reader *reader)
{
    return reader->eventfd;
}

/* ---- requests ---- */

static int request(struct reader *reader, const struct inbox_message *message)
{
    int r = reader->gone ? -EPIPE : inbox_send(reader->fd, message, NULL, 0);
    if (r == -EAGAIN)
        reader->blocked = true;
    return r;
}

int reader_subscribe(struct reader *reader, const struct reader_channel *channel)
{
    return reader_resubscribe(reader, channel, 0);
}

int reader_resubscribe(struct reader *reader, const struct reader_channel *channel,
                       uint64_t covered_from)
{
    struct inbox_message message = { .type = INBOX_SUBSCRIBE,
                                     .a = covered_from,
                                     .c = channel->question,
                                     .texts = { inbox_text(channel->name, channel->len) } };
    return request(reader, &message);
}

int reader_unsubscribe(struct reader *reader, const char *channel, size_t len)
{
    struct inbox_message message = { .type = INBOX_UNSUBSCRIBE,
                                     .texts = { inbox_text(channel, len) } };
    return request(reader, &message);
}

int reader_snapshot(struct reader *reader, uint64_t request_id, const char *channel, size_t len)
{
    struct inbox_message message = { .type = INBOX_SNAPSHOT,
                                     .a = request_id,
                                     .texts = { inbox_text(channel, len) } };
    return request(reader, &message);
}

int reader_poke(struct reader *reader)
{
    struct inbox_message message = { .type = INBOX_POKE };
    return inbox_send(reader->fd, &message, NULL, 0); /* any thread: touches nothing of ours */
}

void reader_hang_up(struct reader *reader)
{
    (void)shutdown(reader->fd, SHUT_RDWR);
}

/* Sends as much of the kept publish as fits. */
static int send_rest(struct reader *reader)
{
    while (reader->rest_at < reader->rest.len) {
        struct inbox_message message = { .type = INBOX_DATA };
        size_t room = INBOX_FRAGMENT_MAX - inbox_head_size(&message);
        size_t left = reader->rest.len - reader->rest_at;
        message.more = left > room;
        message.len = message.more ? room : left;
        message.data = reader->rest.data + reader->rest_at;
        int r = request(reader, &message);
        if (r < 0)
            return r;
        reader->rest_at += message.len;
    }
    buf_done(&reader->rest);
    reader->rest_at = 0;
    return 0;
}

/* Sends a message with data of any length by fragments: as much as fits now, the rest is kept. */
static int send_data(struct reader *reader, struct inbox_message *message, const void *data,
                     size_t len)
{
    if (reader->rest.len > 0) {
        reader->blocked = true;
        return reader->gone ? -EPIPE : -EAGAIN;
    }
    size_t room = INBOX_FRAGMENT_MAX - inbox_head_size(message);
    message->data = data;
    message->more = len > room;
    message->len = message->more ? room : len;
    /* The copy comes first: once a fragment is out, the rest must follow. */
    if (message->more && buf_append(&reader->rest, (const char *)data + room, len - room) < 0) {
        buf_done(&reader->rest);
        return -ENOMEM;
    }
    int r = request(reader, message);
    if (r < 0) {
        buf_done(&reader->rest);
        return r;
    }
    r = send_rest(reader);
    return r == -EAGAIN ? 0 : r;
}

static struct inbox_text text_of(const char *text)
{
    return inbox_text(text, text ? strlen(text) : 0);
}

int reader_publish(struct reader *reader, uint64_t request_id, const char *channel,
                   size_t channel_len, const void *data, size_t len, const char *key,
                   const char *from)
{
    struct inbox_message message = { .type = INBOX_PUBLISH,
                                     .a = request_id,
                                     .b = len,
                                     .texts = { inbox_text(channel, channel_len), text_of(key),
                                                text_of(from) } };
    return len > INBOX_PUBLISH_MAX ? -EMSGSIZE : send_data(reader, &message, data, len);
}

int reader_publish_batch(struct reader *reader, uint64_t request_id, const void *events, size_t len,
                         size_t n, const char *from)
{
    struct inbox_message message = {
        .type = INBOX_BATCH, .a = request_id, .b = len, .c = n, .texts = { [2] = text_of(from) }
    };
    if (len > INBOX_BATCH_MAX || n > INBOX_EVENTS_MAX)
        return -EMSGSIZE;
    return send_data(reader, &message, events, len);
}

/* ---- replies ---- */

/* Maps the page the source side made for us. Foreign or cut pages are refused, not trusted. */
static struct log_slot *map_slot(int fd)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < PAGE_SIZE_MIN)
        return NULL;
    void *page = mmap(NULL, PAGE_SIZE_MIN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return page == MAP_FAILED ? NULL : page;
}

static int greeted(struct reader *reader, const struct inbox_message *message, int fds[2])
{
    if (message->code != INBOX_VERSION || reader->slot)
        return -EPROTO;
    if (fds[1] < 0) /* the kernel leaves out those that this process has no room for */
        return -EMFILE;
    reader->slot = map_slot(fds[0]);
    if (!reader->slot)
        return -EPROTO;
    reader->eventfd = fds[1];
    fds[1] = -1;
    return 0;
}

static struct reader_channel channel_of(const struct inbox_message *m)
{
    return (struct reader_channel){ m->texts[0].text, m->texts[0].len, m->c };
}

static void tell_published(const struct inbox_message *m, enum error_code code,
                           const struct reader_handlers *handlers, void *arg)
{
    const struct reader_published answer = { .request = m->a,
                                             .code = code,
                                             .message = m->texts[1].text,
                                             .id = m->texts[0].text,
                                             .index = m->b,
                                             .in_parts = m->c != 0 };
    if (handlers->published)
        handlers->published(arg, &answer);
}

static void tell_rows(const struct inbox_message *m, enum error_code code,
                      const struct reader_handlers *handlers, void *arg)
{
    const struct reader_rows part = { .name = m->texts[0].text,
                                      .name_len = m->texts[0].len,
                                      .request = m->a,
                                      .until = m->c,
                                      .code = code,
                                      .message = m->texts[1].text,
                                      .data = m->data,
                                      .len = m->len,
                                      .rows_len = m->b,
                                      .more = m->more };
    if (handlers->rows)
        handlers->rows(arg, &part);
}

static int handle(struct reader *reader, const struct inbox_message *m, int fds[2],
                  const struct reader_handlers *handlers, void *arg)
{
    enum error_code code = m->code < N_CODES ? (enum error_code)m->code : CODE_INTERNAL;
    const struct reader_channel channel = channel_of(m);
    switch (m->type) {
    case INBOX_HELLO:
        return greeted(reader, m, fds);
    case INBOX_SOURCE:
        if (handlers->source)
            handlers->source(arg, m->texts[0].text, m->texts[1].text, m->code != 0,
                             m->texts[2].text);
        return 0;
    case INBOX_READY:
        if (handlers->ready)
            handlers->ready(arg, &channel, m->a, m->b);
        return 0;
    case INBOX_REFUSED:
        if (handlers->refused)
            handlers->refused(arg, &channel, code, m->texts[1].text);
        return 0;
    case INBOX_PUBLISHED:
        tell_published(m, code, handlers, arg);
        return 0;
    case INBOX_ROWS:
        tell_rows(m, code, handlers, arg);
        return 0;
    default:
        return -EPROTO;
    }
}

static void drop_descriptors(int fds[2])
{
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

int reader_process(struct reader *reader, const struct reader_handlers *handlers, void *arg)
{
    char packet[INBOX_FRAGMENT_MAX];
    for (;;) {
        int fds[2];
        struct inbox_message message;
        int64_t n = inbox_receive(reader->fd, packet, sizeof(packet), fds);
        if (n == -EAGAIN)
            break;
        int r = n <= 0 ? -EPIPE : inbox_decode(packet, (size_t)n, &message);
        if (r == 0)
            r = handle(reader, &message, fds, handlers, arg);
        drop_descriptors(fds);
        if (r < 0) {
            reader->gone = true;
            return r == -EMFILE ? r : -EPIPE;
        }
    }
    if (reader->gone)
        return -EPIPE;
    reader->blocked = false;
    return reader->rest.len > 0 && send_rest(reader) == -EPIPE ? -EPIPE : 0;
}
