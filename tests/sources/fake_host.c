/* A hub for tests of sources: a small poll loop, a clock that can be moved, and a record. */
#include "fake_host.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define WATCHES_MAX 16

struct fw_watch {
    struct fw_watch *next;
    struct fw_host *host;
    int fd;
    unsigned events;
    fw_watch_fn fn;
    void *arg;
};

struct fw_timer {
    struct fw_timer *next;
    struct fw_host *host;
    int64_t due_ms; /* -1: not set */
    fw_timer_fn fn;
    void *arg;
};

struct fw_resolve {
    struct fw_resolve *next;
    struct fw_host *host;
    char *name;
    fw_resolve_fn fn;
    void *arg;
};

/* A test cannot go on without them: no error paths here. */
static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static char *copy(const void *data, size_t len)
{
    char *out = must(malloc(len + 1));
    if (len > 0)
        memcpy(out, data, len);
    out[len] = '\0';
    return out;
}

int64_t host_real_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct fw_host *host_new(void)
{
    struct fw_host *host = must(calloc(1, sizeof(struct fw_host)));
    host->event_max = 1 << 20;
    return host;
}

void host_forget_events(struct fw_host *host)
{
    for (size_t i = 0; i < host->n_events; i++) {
        free(host->events[i].channel);
        free(host->events[i].key);
        free(host->events[i].from);
        free(host->events[i].data);
    }
    host->n_events = 0;
}

void host_free(struct fw_host *host)
{
    if (host->watches || host->timers || host->resolves)
        abort(); /* the source has left something open */
    host_forget_events(host);
    free(host->events);
    free(host->answers);
    free(host);
}

/* ---- the record ---- */

void fw_host_opened(struct fw_host *host, const char *mode, const char *guarantee,
                    uint64_t identity)
{
    host->n_opened++;
    host->identity = identity;
    snprintf(host->mode, sizeof host->mode, "%s", mode);
    snprintf(host->guarantee, sizeof host->guarantee, "%s", guarantee);
}

void fw_host_traits(struct fw_host *host, unsigned traits)
{
    host->n_traits++;
    host->traits = traits;
}

void fw_host_ready(struct fw_host *host, const char *channel, size_t len)
{
    host->n_ready++;
    snprintf(host->last_ready, sizeof host->last_ready, "%.*s", (int)len, channel);
}

void fw_host_refused(struct fw_host *host, const char *channel, size_t len, const char *code,
                     const char *message)
{
    host->n_refused++;
    snprintf(host->refused_channel, sizeof host->refused_channel, "%.*s", (int)len, channel);
    snprintf(host->refused_code, sizeof host->refused_code, "%s", code);
    snprintf(host->refused_message, sizeof host->refused_message, "%s", message);
}

void fw_host_lost(struct fw_host *host, const char *reason, const char *message)
{
    host->n_lost++;
    snprintf(host->lost_reason, sizeof host->lost_reason, "%s", reason);
    snprintf(host->lost_message, sizeof host->lost_message, "%s", message);
}

void fw_host_misconfigured(struct fw_host *host, const char *message)
{
    host->n_misconfigured++;
    fw_host_lost(host, "connection-lost", message);
}

void fw_host_ended(struct fw_host *host)
{
}

int fw_host_append(struct fw_host *host, const struct fw_source_event *event)
{
    if (++host->unflushed > host->max_unflushed)
        host->max_unflushed = host->unflushed;
    if (host->on_event) {
        host->on_event(host->arg, event);
        return 0;
    }
    if (host->n_events == host->cap_events) {
        host->cap_events = host->cap_events ? host->cap_events * 2 : 64;
        host->events = must(realloc(host->events, host->cap_events * sizeof *host->events));
    }
    host->events[host->n_events++] = (struct fake_event){
        .channel = copy(event->channel, event->channel_len),
        .channel_len = event->channel_len,
        .key = event->key ? copy(event->key, strlen(event->key)) : NULL,
        .from = event->from ? copy(event->from, strlen(event->from)) : NULL,
        .data = copy(event->data, event->data ? event->len : 0),
        .len = event->len,
        .pos = { event->pos[0], event->pos[1] },
        .time_ms = event->time_ms,
        .history = event->history,
    };
    host->log_pos[0] = event->pos[0];
    host->log_pos[1] = event->pos[1];
    return 0;
}

bool fw_host_flush(struct fw_host *host)
{
    host->n_flushes++;
    host->unflushed = 0;
    return host->flushes_until_full == 0 || --host->flushes_until_full > 0;
}

void fw_host_published(struct fw_host *host, uint64_t request, const char *code,
                       const char *message, const char *id)
{
    if (host->on_answer) {
        host->on_answer(host->arg, request, code);
        return;
    }
    if (host->n_answers == host->cap_answers) {
        host->cap_answers = host->cap_answers ? host->cap_answers * 2 : 64;
        host->answers = must(realloc(host->answers, host->cap_answers * sizeof *host->answers));
    }
    struct fake_answer *answer = &host->answers[host->n_answers++];
    *answer = (struct fake_answer){ .request = request, .code = code, .n_events = host->n_events };
    snprintf(answer->id, sizeof answer->id, "%s", id ? id : "");
    snprintf(answer->message, sizeof answer->message, "%s", message ? message : "");
}

size_t fw_host_event_max(struct fw_host *host)
{
    return host->event_max;
}

bool fw_host_continue(struct fw_host *host, uint64_t identity, uint64_t ret_pos[2])
{
    if (host->log_identity != identity)
        return false;
    memcpy(ret_pos, host->log_pos, sizeof host->log_pos);
    return true;
}

void fw_host_begin(struct fw_host *host, uint64_t identity, const uint64_t floor[2])
{
    host->n_begun++;
    host->log_identity = identity;
    memcpy(host->floor, floor, sizeof host->floor);
    memcpy(host->log_pos, floor, sizeof host->log_pos);
}

void fw_host_gap(struct fw_host *host, const char *reason, const uint64_t pos[2], bool history)
{
    struct fake_gap *gap = &host->gaps[host->n_gaps++ % 16];
    *gap = (struct fake_gap){ .pos = { pos[0], pos[1] },
                              .history = history,
                              .before = host->n_events };
    snprintf(gap->reason, sizeof gap->reason, "%s", reason);
    memcpy(host->log_pos, pos, sizeof host->log_pos);
}

void fw_host_gauge(struct fw_host *host, enum fw_gauge gauge, uint64_t value)
{
    host->gauges[gauge] = value;
}

void fw_host_mark(struct fw_host *host, const uint64_t pos[2])
{
    host->n_marks++;
    memcpy(host->log_pos, pos, sizeof host->log_pos);
}

void fw_host_snapshot(struct fw_host *host, uint64_t request, const struct fw_snapshot *snapshot)
{
    host->snapshot.n++;
    host->snapshot.request = request;
    host->snapshot.code[0] = '\0';
    host->snapshot.exact = snapshot->contains != NULL;
    host->snapshot.len = snapshot->len;
    memcpy(host->snapshot.floor, snapshot->floor, sizeof host->snapshot.floor);
    size_t shown =
        snapshot->len < sizeof host->snapshot.rows ? snapshot->len : sizeof host->snapshot.rows - 1;
    for (size_t i = 0; i < shown; i++)
        host->snapshot.rows[i] = snapshot->rows[i] ? snapshot->rows[i] : '\n';
    host->snapshot.rows[shown] = '\0';
    for (uint64_t i = 0; snapshot->contains && i < 64; i++)
        host->snapshot.contained[i] = snapshot->contains(snapshot->arg, (uint64_t[2]){ i, 0 }, i);
}

void fw_host_snapshot_refused(struct fw_host *host, uint64_t request, const char *code,
                              const char *message)
{
    host->snapshot.n++;
    host->snapshot.request = request;
    snprintf(host->snapshot.code, sizeof host->snapshot.code, "%s", code);
    snprintf(host->snapshot.message, sizeof host->snapshot.message, "%s", message);
}

const char *fw_host_id(struct fw_host *host, const uint64_t pos[2])
{
    static char id[48];
    snprintf(id, sizeof id, "p%llu.%llu", (unsigned long long)pos[0], (unsigned long long)pos[1]);
    return id;
}

const char *fw_host_last_id(struct fw_host *host)
{
    return "";
}

void fw_host_log(struct fw_host *host, enum fw_log_level level, const char *event,
                 const char *format, ...)
{
    size_t len = strlen(host->log);
    va_list args;
    host->n_warnings += level == FW_LOG_WARNING;
    va_start(args, format);
    int n = snprintf(host->log + len, sizeof host->log - len, "[%s] ", event);
    if (n > 0 && (size_t)n < sizeof host->log - len)
        (void)vsnprintf(host->log + len + n, sizeof host->log - len - (size_t)n, format, args);
    va_end(args);
}

void fw_host_refuse_event(struct fw_host *host, const char *why)
{
    host->n_refused_events++;
    snprintf(host->refused_event, sizeof host->refused_event, "%s", why);
}

/* ---- watches ---- */

int fw_host_watch(struct fw_host *host, int fd, unsigned events, fw_watch_fn fn, void *arg,
                  struct fw_watch **ret)
{
    struct fw_watch *watch = must(malloc(sizeof *watch));
    *watch = (struct fw_watch){
        .next = host->watches, .host = host, .fd = fd, .events = events, .fn = fn, .arg = arg
    };
    host->watches = watch;
    *ret = watch;
    return 0;
}

int fw_watch_set(struct fw_watch *watch, unsigned events)
{
    watch->events = events;
    return 0;
}

void fw_watch_free(struct fw_watch *watch)
{
    if (!watch)
        return;
    struct fw_watch **at = &watch->host->watches;
    while (*at != watch)
        at = &(*at)->next;
    *at = watch->next;
    free(watch);
}

unsigned host_watched(const struct fw_host *host)
{
    unsigned events = 0;
    for (const struct fw_watch *w = host->watches; w; w = w->next)
        events |= w->events;
    return events;
}

bool host_await_input(const struct fw_host *host)
{
    struct pollfd fd = { .fd = host->watches->fd, .events = POLLIN };
    return poll(&fd, 1, 20000) == 1;
}

/* ---- wake-up from other threads ---- */

struct fw_waker {
    struct fw_watch *watch;
    int fd;
    fw_timer_fn fn;
    void *arg;
};

static void on_wake(void *arg, unsigned events)
{
    struct fw_waker *waker = arg;
    eventfd_t word;
    if (eventfd_read(waker->fd, &word) == 0)
        waker->fn(waker->arg);
}

int fw_host_waker(struct fw_host *host, fw_timer_fn fn, void *arg, struct fw_waker **ret)
{
    struct fw_waker *waker = must(malloc(sizeof *waker));
    *waker =
        (struct fw_waker){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = fn, .arg = arg };
    if (waker->fd < 0)
        abort();
    *ret = waker;
    return fw_host_watch(host, waker->fd, FW_READABLE, on_wake, waker, &waker->watch);
}

void fw_waker_wake(struct fw_waker *waker)
{
    (void)eventfd_write(waker->fd, 1);
}

void fw_waker_free(struct fw_waker *waker)
{
    if (!waker)
        return;
    fw_watch_free(waker->watch);
    close(waker->fd);
    free(waker);
}

/* ---- timers ---- */

int64_t fw_host_now_ms(struct fw_host *host)
{
    return host_real_ms() + host->skew_ms;
}

int fw_host_timer(struct fw_host *host, fw_timer_fn fn, void *arg, struct fw_timer **ret)
{
    struct fw_timer *timer = must(malloc(sizeof *timer));
    *timer =
        (struct fw_timer){ .next = host->timers, .host = host, .due_ms = -1, .fn = fn, .arg = arg };
    host->timers = timer;
    *ret = timer;
    return 0;
}

void fw_timer_start(struct fw_timer *timer, unsigned timeout_ms)
{
    timer->due_ms = fw_host_now_ms(timer->host) + timeout_ms;
}

void fw_timer_stop(struct fw_timer *timer)
{
    timer->due_ms = -1;
}

void fw_timer_free(struct fw_timer *timer)
{
    struct fw_timer **at = &timer->host->timers;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    free(timer);
}

void host_advance(struct fw_host *host, int64_t ms)
{
    host->skew_ms += ms;
}

static struct fw_timer *next_timer(struct fw_host *host)
{
    struct fw_timer *first = NULL;
    for (struct fw_timer *t = host->timers; t; t = t->next)
        if (t->due_ms >= 0 && (!first || t->due_ms < first->due_ms))
            first = t;
    return first;
}

static void run_timers(struct fw_host *host)
{
    int64_t now = fw_host_now_ms(host);
    for (struct fw_timer *t; (t = next_timer(host)) && t->due_ms <= now;) {
        t->due_ms = -1;
        t->fn(t->arg);
    }
}

/* ---- names ---- */

int fw_host_resolve(struct fw_host *host, const char *name, fw_resolve_fn fn, void *arg,
                    struct fw_resolve **ret)
{
    struct fw_resolve *resolve = must(malloc(sizeof *resolve));
    *resolve = (struct fw_resolve){
        .next = host->resolves, .host = host, .name = copy(name, strlen(name)), .fn = fn, .arg = arg
    };
    host->resolves = resolve;
    host->n_lookups++;
    *ret = resolve;
    return 0;
}

void fw_resolve_cancel(struct fw_resolve *resolve)
{
    struct fw_resolve **at = &resolve->host->resolves;
    while (*at != resolve)
        at = &(*at)->next;
    *at = resolve->next;
    free(resolve->name);
    free(resolve);
}

static const struct fake_name *find_name(const struct fw_host *host, const char *name)
{
    for (const struct fake_name *n = host->names; n && n->name; n++)
        if (!strcmp(n->name, name))
            return n;
    return NULL;
}

/* A name that is listed as "hang" is never answered. */
static void run_resolves(struct fw_host *host)
{
    struct fw_resolve *resolve = host->resolves;
    if (!resolve || !strcmp(resolve->name, "hang"))
        return;
    const struct fake_name *name = find_name(host, resolve->name);
    unsigned n = 0;
    while (name && n < 4 && name->addresses[n])
        n++;
    fw_resolve_fn fn = resolve->fn;
    void *arg = resolve->arg;
    fw_resolve_cancel(resolve);
    fn(arg, n ? name->addresses : NULL, n, n ? NULL : "Name or service not known");
}

/* ---- the loop ---- */

static unsigned from_poll(short revents)
{
    unsigned broken = revents & (POLLERR | POLLHUP) ? FW_READABLE | FW_WRITABLE : 0;
    return broken | (revents & POLLIN ? FW_READABLE : 0) | (revents & POLLOUT ? FW_WRITABLE : 0);
}

static struct fw_watch *find_watch(const struct fw_host *host, const struct fw_watch *watch)
{
    struct fw_watch *w = host->watches;
    while (w && w != watch)
        w = w->next;
    return w;
}

static int wait_ms(struct fw_host *host, int timeout_ms)
{
    const struct fw_timer *timer = next_timer(host);
    int64_t left = timer ? timer->due_ms - fw_host_now_ms(host) : timeout_ms;
    if (host->resolves && strcmp(host->resolves->name, "hang") != 0)
        return 0;
    return left < 0 ? 0 : left < timeout_ms ? (int)left : timeout_ms;
}

void host_turn(struct fw_host *host, int timeout_ms)
{
    struct fw_watch *watches[WATCHES_MAX];
    struct pollfd fds[WATCHES_MAX];
    unsigned n = 0;
    for (struct fw_watch *w = host->watches; w && n < WATCHES_MAX; w = w->next)
        if (w->events) {
            watches[n] = w;
            fds[n++] = (struct pollfd){
                .fd = w->fd,
                .events = (short)((w->events & FW_READABLE ? POLLIN : 0) |
                                  (w->events & FW_WRITABLE ? POLLOUT : 0)),
            };
        }
    if (poll(fds, n, wait_ms(host, timeout_ms)) < 0 && errno != EINTR)
        abort();
    for (unsigned i = 0; i < n; i++) {
        unsigned events = from_poll(fds[i].revents);
        if (find_watch(host, watches[i]) && (events &= watches[i]->events))
            watches[i]->fn(watches[i]->arg, events);
    }
    run_resolves(host);
    run_timers(host);
}

void host_run_ms(struct fw_host *host, int ms)
{
    int64_t end = host_real_ms() + ms;
    for (int64_t left; (left = end - host_real_ms()) > 0;)
        host_turn(host, (int)left);
}
