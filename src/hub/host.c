/* What the hub's loop offers a source: descriptors, timers, name resolution, a wake-up from other
 * threads, log lines. Each object is freed by way of the loop, so that freeing one inside its own
 * callback is allowed. */
#include "core.h"

#include "clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESSES_MAX 16

static void free_handle(uv_handle_t *handle)
{
    free(handle->data);
}

/* ---- descriptors ---- */

struct fw_watch {
    uv_poll_t poll;
    fw_watch_fn fn;
    void *arg;
    unsigned events;
};

static void on_watch(uv_poll_t *poll, int status, int events)
{
    struct fw_watch *watch = poll->data;
    unsigned seen = 0;
    if (events & UV_READABLE)
        seen |= FW_READABLE;
    if (events & UV_WRITABLE)
        seen |= FW_WRITABLE;
    if (status < 0) {
        /* An error shows by reading or writing; libuv has stopped watching, which the source may
         * only notice by asking again. */
        seen = watch->events;
        watch->events = 0;
    }
    watch->fn(watch->arg, seen);
}

int fw_host_watch(struct fw_host *host, int fd, unsigned events, fw_watch_fn fn, void *arg,
                  struct fw_watch **ret)
{
    struct fw_watch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return -ENOMEM;
    int r = uv_poll_init(&engine_of(host)->loop, &watch->poll, fd);
    if (r < 0) {
        free(watch);
        return r;
    }
    watch->poll.data = watch;
    watch->fn = fn;
    watch->arg = arg;
    r = fw_watch_set(watch, events);
    if (r < 0) {
        fw_watch_free(watch);
        return r;
    }
    *ret = watch;
    return 0;
}

int fw_watch_set(struct fw_watch *watch, unsigned events)
{
    int wanted =
        (events & FW_READABLE ? UV_READABLE : 0) | (events & FW_WRITABLE ? UV_WRITABLE : 0);
    if (events == watch->events)
        return 0;
    watch->events = events;
    return wanted ? uv_poll_start(&watch->poll, wanted, on_watch) : uv_poll_stop(&watch->poll);
}

void fw_watch_free(struct fw_watch *watch)
{
    if (!watch)
        return;
    (void)uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, free_handle);
}

/* ---- timers ---- */

struct fw_timer {
    uv_timer_t timer;
    fw_timer_fn fn;
    void *arg;
};

int fw_host_timer(struct fw_host *host, fw_timer_fn fn, void *arg, struct fw_timer **ret)
{
    struct fw_timer *timer = calloc(1, sizeof(*timer));
    if (!timer)
        return -ENOMEM;
    int r = uv_timer_init(&engine_of(host)->loop, &timer->timer);
    if (r < 0) {
        free(timer);
        return r;
    }
    timer->timer.data = timer;
    timer->fn = fn;
    timer->arg = arg;
    *ret = timer;
    return 0;
}

static void on_timer(uv_timer_t *handle)
{
    struct fw_timer *timer = handle->data;
    timer->fn(timer->arg);
}

void fw_timer_start(struct fw_timer *timer, unsigned timeout_ms)
{
    uv_update_time(timer->timer.loop); /* the turn may have been long */
    (void)uv_timer_start(&timer->timer, on_timer, timeout_ms, 0);
}

void fw_timer_stop(struct fw_timer *timer)
{
    (void)uv_timer_stop(&timer->timer);
}

void fw_timer_free(struct fw_timer *timer)
{
    if (timer)
        uv_close((uv_handle_t *)&timer->timer, free_handle);
}

int64_t fw_host_now_ms(struct fw_host *host)
{
    return clock_monotonic_ms();
}

/* ---- name resolution ---- */

struct fw_resolve {
    uv_getaddrinfo_t request;
    fw_resolve_fn fn;
    void *arg;
};

static void tell_addresses(struct fw_resolve *resolve, const struct addrinfo *found)
{
    char texts[ADDRESSES_MAX][INET6_ADDRSTRLEN];
    const char *addresses[ADDRESSES_MAX];
    unsigned n = 0;
    for (; found && n < ADDRESSES_MAX; found = found->ai_next) {
        if (getnameinfo(found->ai_addr, found->ai_addrlen, texts[n], sizeof(texts[n]), NULL, 0,
                        NI_NUMERICHOST) != 0)
            continue; /* a scoped address that doesn't fit, at worst */
        addresses[n] = texts[n];
        n++;
    }
    resolve->fn(resolve->arg, addresses, n, n ? NULL : "the name has no address");
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct fw_resolve *resolve = request->data;
    if (resolve->fn && status < 0)
        resolve->fn(resolve->arg, NULL, 0, uv_strerror(status));
    else if (resolve->fn)
        tell_addresses(resolve, found);
    uv_freeaddrinfo(found);
    free(resolve);
}

int fw_host_resolve(struct fw_host *host, const char *name, fw_resolve_fn fn, void *arg,
                    struct fw_resolve **ret)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct fw_resolve *resolve = calloc(1, sizeof(*resolve));
    if (!resolve)
        return -ENOMEM;
    resolve->request.data = resolve;
    resolve->fn = fn;
    resolve->arg = arg;
    int r =
        uv_getaddrinfo(&engine_of(host)->loop, &resolve->request, on_resolved, name, NULL, &hints);
    if (r < 0) {
        free(resolve);
        return r;
    }
    *ret = resolve;
    return 0;
}

void fw_resolve_cancel(struct fw_resolve *resolve)
{
    if (!resolve)
        return;
    resolve->fn = NULL;
    (void)uv_cancel((uv_req_t *)&resolve->request); /* too late: the answer is thrown away */
}

/* ---- wake-up from other threads ---- */

struct fw_waker {
    uv_async_t async;
    fw_timer_fn fn;
    void *arg;
};

static void on_wake(uv_async_t *async)
{
    struct fw_waker *waker = async->data;
    waker->fn(waker->arg);
}

int fw_host_waker(struct fw_host *host, fw_timer_fn fn, void *arg, struct fw_waker **ret)
{
    struct fw_waker *waker = calloc(1, sizeof(*waker));
    if (!waker)
        return -ENOMEM;
    int r = uv_async_init(&engine_of(host)->loop, &waker->async, on_wake);
    if (r < 0) {
        free(waker);
        return r;
    }
    waker->async.data = waker;
    waker->fn = fn;
    waker->arg = arg;
    *ret = waker;
    return 0;
}

void fw_waker_wake(struct fw_waker *waker)
{
    (void)uv_async_send(&waker->async);
}

void fw_waker_free(struct fw_waker *waker)
{
    if (waker)
        uv_close((uv_handle_t *)&waker->async, free_handle);
}

/* ---- log lines ---- */

void fw_host_log(struct fw_host *host, enum fw_log_level level, const char *event,
                 const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    engine_log(engine_of(host), level, event, "%s", text);
}
