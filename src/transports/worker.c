/* A worker's life and its turn.
 *
 * A turn: wait for events (not at all while work is left); take note of edges; read what is
 * readable in slices; take in a slice of the log; flush it to live connections; give those behind
 * their guaranteed share; timers; free what was closed; sleep only by the log's protocol. Never
 * more than about 4 ms between two looks at the poller. */
#include "worker.h"

#include "clock.h"
#include "turn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_US           1000
#define FLUSH_US          2000
#define CATCH_UP_US       1000
#define SETTLE_US         500
#define TIMERS_US         500
#define DRAIN_GRACE_MS    5000
#define RECONNECT_POLL_MS 20

/* ---- set-up ---- */

/* Set on the listener, inherited by what it accepts: no system calls per connection. */
static void prepare_listener(const struct worker *w, int fd)
{
    int on = 1, send_buffer = (int)w->settings->send_buffer, lowat = 16 << 10, timeout = 60000;
    /* The kernel doubles what is asked for, for its own bookkeeping. */
    if (send_buffer)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

static int open_signals(struct worker *w)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    w->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return w->signal_fd < 0 ? -errno : loop_add_level(&w->loop, w->signal_fd, &w->signal_fd);
}

static uint32_t connection_limit(const struct worker *w)
{
    struct rlimit limit = { 1024, 1024 };
    getrlimit(RLIMIT_NOFILE, &limit);
    uint32_t fds = limit.rlim_cur > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)limit.rlim_cur;
    uint32_t fit = fds > 2 * WORKER_RESERVED_FDS ? fds - WORKER_RESERVED_FDS : fds / 2;
    uint32_t asked = w->settings->max_connections;
    return asked && asked < fit ? asked : fit;
}

static int open_listeners(struct worker *w)
{
    const struct worker_options *o = w->options;
    for (size_t i = 0; i < o->n_listeners; i++) {
        prepare_listener(w, o->listeners[i]);
        int r = loop_add_level(&w->loop, o->listeners[i], (void *)&o->listeners[i]);
        if (r < 0)
            return r;
    }
    int r = o->admin_fd < 0 ? 0 : loop_add_level(&w->loop, o->admin_fd, (void *)&o->admin_fd);
    return r < 0 ? r : loop_add_level(&w->loop, o->life_fd, (void *)&o->life_fd);
}

static int open_control(struct worker *w)
{
    w->control = (struct channel){ .hash = log_hash(w->log, "", 0), .name = (char *)"" };
    for (int f = FORMAT_WS_JSON; f < N_FORMATS; f++) {
        if (!channel_feed(&w->control, f, w->frontier))
            return -ENOMEM;
    }
    return 0;
}

static void update_clock(struct worker *w)
{
    w->now_us = clock_monotonic_us();
    w->now_ms = w->now_us / 1000;
    w->wall_ms = clock_realtime_ms();
}

static int worker_init(struct worker *w, const struct worker_options *options)
{
    *w = (struct worker){
        .options = options,
        .settings = options->settings,
        .log = options->log,
        .counters = options->counters,
        .event_fd = -1,
        .signal_fd = -1,
        .spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC),
        .encode = buf_make(64u << 20),
        .text = buf_make(32u << 20),
        .response = buf_make(64u << 20),
    };
    update_clock(w);
    struct list *lists[] = { &w->tell,        &w->asks,     &w->dirty,     &w->everyone.dirty,
                             &w->readable,    &w->behind,   &w->unblocked, &w->doomed,
                             &w->tails,       &w->resolved, &w->settling,  &w->ahead,
                             &w->ahead_pages, &w->paused,   &w->unsent };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        list_init(lists[i]);
    application_init(w);
    link_init(w);
    wheel_init(&w->wheel, w->now_ms);
    w->frontier = log_indexed(w->log);
    w->log_down = w->down = !log_up(w->log);
    w->inbuf = malloc(16u << 10);
    w->heads = malloc((w->settings->max_channels + 1) * sizeof(*w->heads));
    int r = w->inbuf && w->heads ? arena_init(&w->arena) : -ENOMEM;
    if (r == 0)
        r = open_control(w);
    if (r == 0)
        r = loop_init(&w->loop);
    if (r == 0)
        r = open_signals(w);
    if (r == 0)
        r = open_listeners(w);
    w->max_conns = connection_limit(w);
    return r;
}

static void worker_done(struct worker *w)
{
    while (w->n_conns) {
        conn_kill(w, w->conns[w->n_conns - 1], 1012);
        conns_reap(w);
    }
    publish_done(w);
    application_done(w);
    link_done(w);
    tell_source(w); /* frees what nobody wants any more */
    for (int f = 0; f < N_FORMATS; f++)
        feed_free(&w->arena, &w->control, f);
    arena_done(&w->arena);
    frame_cache_done(&w->cache);
    catch_up_done(w);
    map_done(&w->channels);
    buf_done(&w->encode);
    buf_done(&w->text);
    buf_done(&w->response);
    free(w->conns);
    free(w->body);
    free(w->heads);
    free(w->inbuf);
    loop_done(&w->loop);
    close(w->signal_fd);
    close(w->spare_fd);
}

/* ---- ending ---- */

static void stop_listening(struct worker *w)
{
    for (size_t i = 0; i < w->options->n_listeners; i++) {
        loop_remove(&w->loop, w->options->listeners[i]);
        close(w->options->listeners[i]); /* the supervisor closes its own: new clients are refused
                                            at once, or go to the next server */
    }
}

/* A terminal and systemd signal every process of the group, and pending signals merge: what is
 * meant is read from the supervisor's page. */
static void on_signal(struct worker *w)
{
    struct signalfd_siginfo info;
    while (read(w->signal_fd, &info, sizeof(info)) == sizeof(info))
        continue;
    uint64_t meant = counted(&w->options->all[0].draining);
    if (meant == 2 || (meant && w->settings->drain_ms == 0))
        w->quit = true;
    if (w->draining || meant == 0)
        return; /* not meant at all: somebody's stray signal to one worker */
    stop_listening(w);
    w->draining = true;
    history_answer_polls(w);
    w->drain_until_ms = w->now_ms + w->settings->drain_ms;
}

/* Closes connections evenly over what is left of the time; each is told to come back after a while
 * of its own, so that the next server does not get all of them at once. */
static void drain(struct worker *w)
{
    if (w->now_ms < w->next_drain_ms && w->n_conns)
        return;
    w->next_drain_ms = w->now_ms + 100;
    int64_t left = w->drain_until_ms - w->now_ms;
    uint32_t turns = left > 0 ? (uint32_t)(left / 100) + 1 : 1;
    uint32_t quota = w->n_conns / turns + 1;
    for (uint32_t i = 0; i < w->n_conns && quota; i++) {
        struct conn *c = w->conns[i];
        if (c->flags & CONN_DRAINING || c->state == CONN_DEAD || c->state == CONN_CLOSING)
            continue;
        quota--;
        c->flags |= CONN_DRAINING;
        if (c->state == CONN_STREAM)
            stream_closing(w, c, CODE_RESTART, 500 + conn_spread(c, 5000));
        else if (c->state == CONN_ECHO)
            conn_close_ws(w, c, 1012, "restart");
        else if (c->state == CONN_HTTP && !conn_has_unsent(c) && !(c->more && c->more->in.len))
            conn_end(w, c, 1012);
        else
            c->flags &= ~(uint32_t)CONN_KEEP;
    }
    if (w->n_conns == 0 || left < -DRAIN_GRACE_MS)
        w->quit = true;
}

/* ---- the turn ---- */

static void on_event(struct worker *w, const struct loop_event *event)
{
    const struct worker_options *o = w->options;
    const char *data = event->data;
    uint64_t ignored;
    if (data >= (const char *)o->listeners && data < (const char *)(o->listeners + o->n_listeners))
        intake_listen(w, *(const int *)(const void *)data, false);
    else if (data == (const char *)&o->admin_fd)
        intake_listen(w, o->admin_fd, true);
    else if (data == (const char *)&o->life_fd)
        w->quit = true;
    else if (data == (const char *)&w->signal_fd)
        on_signal(w);
    else if (data == (const char *)&w->event_fd)
        (void)!read(w->event_fd, &ignored, sizeof(ignored));
    else if (data == (const char *)&w->reader)
        link_process(w);
    else if (data == (const char *)&w->app)
        application_event(w);
    else
        intake_event(w, event->data, event->readable, event->writable);
}

static bool work_left(const struct worker *w)
{
    return ingest_pending(w) || !list_empty(&w->dirty) || !list_empty(&w->behind) ||
           !list_empty(&w->readable) || !list_empty(&w->unblocked) || !list_empty(&w->doomed) ||
           !list_empty(&w->resolved) || w->settle_more || w->ahead_more || w->app.more;
}

static int sleep_ms(const struct worker *w)
{
    int next = wheel_next_ms(&w->wheel, w->now_ms);
    bool away = !w->reader || (w->options->application_len && w->app.fd < 0);
    int most = away ? RECONNECT_POLL_MS : w->draining ? 100 : 500;
    int crowd = crowd_wait_ms(w);
    if (crowd >= 0 && crowd < most)
        most = crowd;
    return next >= 0 && next < most ? next : most;
}

/* Waits for events; by the log's protocol, so that no append goes unnoticed. Without a slot (the
 * source process has not greeted) nobody would wake us: short naps. */
static int wait_for_events(struct worker *w, struct loop_event *events)
{
    struct log_slot *slot = w->reader ? reader_slot(w->reader) : NULL;
    if (work_left(w))
        return loop_wait(&w->loop, events, 0);
    if (!slot)
        return loop_wait(&w->loop, events, RECONNECT_POLL_MS);
    int timeout = log_sleep(w->log, slot, w->frontier) ? sleep_ms(w) : 0;
    int n = loop_wait(&w->loop, events, timeout);
    log_awake(slot);
    return n;
}

static void timers(struct worker *w, int64_t budget_us)
{
    int64_t deadline = clock_monotonic_us() + budget_us;
    struct wheel_timer *timer;
    for (unsigned i = 1; (timer = wheel_expire(&w->wheel, w->now_ms)); i++) {
        conn_timer(w, list_entry(timer, struct conn, timer));
        if (i % 16 == 0 && clock_monotonic_us() > deadline)
            return; /* the wheel keeps what is due */
    }
}

static void publish_progress(struct worker *w)
{
    struct log_slot *slot = w->reader ? reader_slot(w->reader) : NULL;
    if (slot) {
        atomic_store_explicit(&slot->cursor, crowd_progress(w), memory_order_relaxed);
        atomic_store_explicit(&slot->beat, w->now_ms, memory_order_relaxed);
    }
    atomic_store_explicit(&w->counters->beat_ms, (uint64_t)w->now_ms, memory_order_relaxed);
    count(&w->counters->turns, 1);
}

static void turn(struct worker *w)
{
    struct loop_event events[LOOP_EVENTS_MAX];
    int n = wait_for_events(w, events);
    update_clock(w);
    for (int i = 0; i < n; i++)
        on_event(w, &events[i]);
    link_connect(w);
    link_check(w);
    application_connect(w);
    intake_resume(w);
    intake_read(w, READ_US);
    ingest(w);
    w->now_us = clock_monotonic_us();
    flush(w, FLUSH_US);
    w->now_us = clock_monotonic_us();
    catch_up(w, CATCH_UP_US);
    resolve(w, SETTLE_US);
    ahead_check(w, SETTLE_US);
    calls_check(w);
    settle(w, SETTLE_US);
    timers(w, TIMERS_US);
    if (w->draining)
        drain(w);
    conns_reap(w);
    publish_progress(w);
}

int worker_run(const struct worker_options *options)
{
    struct worker *w = malloc(sizeof(*w));
    if (!w)
        return 1;
    int r = worker_init(w, options);
    if (r == 0) {
        link_connect(w);
        while (!w->quit)
            turn(w);
    }
    worker_done(w);
    free(w);
    return r < 0 ? 1 : 0;
}
