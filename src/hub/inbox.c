/* Encodes, decodes, sends and receives the packets of the control inbox. */
#include "inbox.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FLAG_MORE = 1 };

struct head {
    uint8_t type, flags;
    uint16_t code;
    uint16_t text_len[INBOX_TEXTS], pad;
    uint32_t data_len;
    uint64_t a, b, c;
};
_Static_assert(sizeof(struct head) == 40, "the layout in inbox.h");
_Static_assert(sizeof(struct head) + INBOX_TEXTS * (INBOX_TEXT_MAX + 1) <= INBOX_REPLY_MAX,
               "head and texts fit a reply");

static size_t text_size(const struct inbox_text *text)
{
    return text->len < INBOX_TEXT_MAX ? text->len : INBOX_TEXT_MAX;
}

size_t inbox_head_size(const struct inbox_message *message)
{
    size_t size = sizeof(struct head);
    for (size_t i = 0; i < INBOX_TEXTS; i++)
        size += text_size(&message->texts[i]) + 1;
    return size;
}

size_t inbox_encode_head(void *buf, const struct inbox_message *message)
{
    struct head head = { .type = (uint8_t)message->type,
                         .flags = message->more ? FLAG_MORE : 0,
                         .code = message->code,
                         .data_len = (uint32_t)message->len,
                         .a = message->a,
                         .b = message->b,
                         .c = message->c };
    char *at = (char *)buf + sizeof(head);
    for (size_t i = 0; i < INBOX_TEXTS; i++) {
        size_t len = text_size(&message->texts[i]);
        head.text_len[i] = (uint16_t)len;
        if (len > 0)
            memcpy(at, message->texts[i].text, len);
        at[len] = '\0';
        at += len + 1;
    }
    memcpy(buf, &head, sizeof(head));
    return (size_t)(at - (char *)buf);
}

int inbox_decode(const void *packet, size_t size, struct inbox_message *ret)
{
    struct head head;
    if (size < sizeof(head) + INBOX_TEXTS || size > INBOX_FRAGMENT_MAX)
        return -EPROTO;
    memcpy(&head, packet, sizeof(head));
    if (head.type < INBOX_HELLO || head.type >= INBOX_N_TYPES)
        return -EPROTO;
    *ret = (struct inbox_message){ .type = head.type,
                                   .more = head.flags & FLAG_MORE,
                                   .code = head.code,
                                   .a = head.a,
                                   .b = head.b,
                                   .c = head.c };
    const char *at = (const char *)packet + sizeof(head);
    size_t left = size - sizeof(head);
    for (size_t i = 0; i < INBOX_TEXTS; i++) {
        size_t len = head.text_len[i];
        if (len > INBOX_TEXT_MAX || left < len + 1 || at[len] != '\0')
            return -EPROTO;
        ret->texts[i] = inbox_text(at, len);
        at += len + 1;
        left -= len + 1;
    }
    if (left != head.data_len)
        return -EPROTO;
    ret->data = at;
    ret->len = left;
    return 0;
}

static int send_error(int error)
{
    switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
    case EINTR:
        return -EAGAIN;
    default:
        return -EPIPE;
    }
}

int inbox_send(int fd, const struct inbox_message *message, const int *fds, size_t n_fds)
{
    char head[INBOX_REPLY_MAX];
    struct iovec iov[2] = { { .iov_base = head, .iov_len = inbox_encode_head(head, message) },
                            { .iov_base = (void *)message->data, .iov_len = message->len } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = message->len ? 2 : 1 };
    union {
        char space[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };
    if (n_fds > 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? send_error(errno) : 0;
}

/* Hands over the descriptors that came, or closes them where nobody asked for any. */
static void take_descriptors(struct msghdr *msg, int fds[2])
{
    size_t taken = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (fds && taken < 2)
                fds[taken++] = fd;
            else
                close(fd);
        }
    }
}

int64_t inbox_receive(int fd, void *buf, size_t size, int fds[2])
{
    struct iovec iov = { .iov_base = buf, .iov_len = size };
    union {
        char space[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.space,
                          .msg_controllen = sizeof(control.space) };
    if (fds)
        fds[0] = fds[1] = -1;
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    /* The other end left without reading everything: told once, before what it had sent. */
    if (n < 0 && errno == ECONNRESET)
        n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPIPE;
    take_descriptors(&msg, fds);
    return msg.msg_flags & MSG_TRUNC ? -EPROTO : (int64_t)n;
}
