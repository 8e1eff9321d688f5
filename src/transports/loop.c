/* The worker's poller over epoll(7). */
#include "loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

int loop_init(struct loop *loop)
{
    loop->fd = epoll_create1(EPOLL_CLOEXEC);
    return loop->fd < 0 ? -errno : 0;
}

void loop_done(struct loop *loop)
{
    if (loop->fd >= 0)
        close(loop->fd);
    loop->fd = -1;
}

static int add(struct loop *loop, int fd, void *data, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = data };
    return epoll_ctl(loop->fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int loop_add(struct loop *loop, int fd, void *data)
{
    return add(loop, fd, data, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

int loop_add_level(struct loop *loop, int fd, void *data)
{
    return add(loop, fd, data, EPOLLIN);
}

void loop_remove(struct loop *loop, int fd)
{
    (void)epoll_ctl(loop->fd, EPOLL_CTL_DEL, fd, NULL);
}

int loop_wait(struct loop *loop, struct loop_event events[LOOP_EVENTS_MAX], int timeout_ms)
{
    struct epoll_event evs[LOOP_EVENTS_MAX];
    int n = epoll_wait(loop->fd, evs, LOOP_EVENTS_MAX, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        uint32_t e = evs[i].events;
        bool broken = e & (EPOLLERR | EPOLLHUP | EPOLLRDHUP);
        events[i] = (struct loop_event){
            .data = evs[i].data.ptr,
            .readable = broken || (e & EPOLLIN),
            .writable = broken || (e & EPOLLOUT),
        };
    }
    return n;
}
