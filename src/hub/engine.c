/* The source side of a hub: its life, its loop's turns, its listener.
 *
 * A turn of the loop reads what is ready (readers' requests by requests.c, the backend by the
 * source, whose words stream.c takes), then ends: replies and held publishes go out, readers are
 * woken once for all that was appended, and pacing looks where they are. */
#include "engine.h"

#include "clock.h"
#include "core.h"
#include "error.h"
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define BEAT_MS           250
#define LINGER_DEFAULT_MS 60000
#define REPEAT_MS         60000
#define ACCEPT_TURN_MAX   64

/* ---- which source ---- */

/* A scheme may name a driver behind a plus: postgresql+asyncpg. */
static size_t scheme_len(const char *url)
{
    return strcspn(url, ":+");
}

static bool has_scheme(const struct fw_source_class *class, const char *scheme, size_t len)
{
    for (const char *at = class->schemes; *at; at += strspn(at, " ")) {
        size_t n = strcspn(at, " ");
        if (n == len && strncasecmp(at, scheme, len) == 0)
            return true;
        at += n;
    }
    return false;
}

static const struct fw_source_class *find_class(const struct fw_source_class *const *classes,
                                                const char *url)
{
    for (; strchr(url, ':') && *classes; classes++)
        if (has_scheme(*classes, url, scheme_len(url)))
            return *classes;
    return NULL;
}

/* Names what there is; of the URL only the scheme, as the rest may hold a password. */
static int unknown_scheme(const struct fw_source_class *const *classes, const char *url,
                          struct fw_error *err)
{
    char known[256] = "", scheme[64];
    size_t len = strchr(url, ':') ? scheme_len(url) : 0;
    for (size_t at = 0; *classes && at < sizeof(known); classes++)
        at += (size_t)snprintf(known + at, sizeof(known) - at, "%s%s", at ? " " : "",
                               (*classes)->schemes);
    if (len == 0)
        return error_set(err, -EINVAL,
                         "the source's URL has no scheme; this build knows: %s (for example "
                         "memory: or postgres://localhost/app)",
                         known);
    return error_set(err, -EINVAL,
                     "no source for URLs that begin with \"%s:\"; this build knows: %s",
                     text_escape(scheme, sizeof(scheme), url, len), known);
}

/* ---- log lines and time ---- */

int64_t engine_now_ms(const struct engine *engine)
{
    return clock_monotonic_ms();
}

void engine_log(struct engine *engine, enum fw_log_level level, const char *event,
                const char *format, ...)
{
    char text[512];
    va_list args;
    if (!engine->options.log_line)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    engine->options.log_line(engine->options.arg, level, event, text);
}

bool engine_repeat(struct engine *engine, struct repeat *repeat, uint64_t *ret)
{
    int64_t now = engine_now_ms(engine);
    if (repeat->told_ms && now - repeat->told_ms < REPEAT_MS) {
        repeat->count++;
        return false;
    }
    *ret = repeat->count;
    *repeat = (struct repeat){ .told_ms = now };
    return true;
}

/* ---- pacing and waking ---- */

unsigned engine_back_off(struct engine *engine, struct backoff *backoff)
{
    int64_t now_ms = engine_now_ms(engine);
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
        random = (uint32_t)now_ms * 2654435761u;
    return backoff_next(backoff, now_ms, random);
}

void engine_wake(struct engine *engine)
{
    if (engine->dirty) {
        log_wake_fence();
        for (struct list *l = engine->peers.next; l != &engine->peers; l = l->next)
            peer_wake(list_entry(l, struct peer, node), false);
    }
    engine->dirty = engine->talked = false;
    log_wake_futex(engine->log);
}

static bool readers_hold(struct engine *engine)
{
    int64_t now = engine_now_ms(engine), waited = engine->paused ? now - engine->paced_ms : 0;
    uint64_t head = log_head(engine->log), size = log_size(engine->log);
    bool hold = false, patient = engine->options.patient && engine->traits & FW_SOURCE_DURABLE;
    engine->paced_ms = now;
    if (engine->paused)
        count(&engine->counters->source_paused_ms, (uint64_t)waited);
    for (struct list *l = engine->peers.next; l != &engine->peers; l = l->next) {
        struct peer *peer = list_entry(l, struct peer, node);
        uint64_t cursor = atomic_load_explicit(&peer->slot->cursor, memory_order_relaxed);
        hold |= pace_holds(&peer->pace, cursor, head, size, now, waited, patient);
    }
    return hold;
}

static void on_recheck(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    if (readers_hold(engine))
        return;
    (void)uv_timer_stop(timer);
    engine->paused = false;
    engine_unhold(engine);
    if (engine->stream.open && engine->class->pause)
        engine->class->pause(engine->source, false);
}

void engine_pace(struct engine *engine, bool tell)
{
    if (!readers_hold(engine) || engine->paused)
        return;
    engine->paused = true;
    uv_update_time(&engine->loop);
    (void)uv_timer_start(&engine->pace, on_recheck, PACE_RECHECK_MS, PACE_RECHECK_MS);
    if (tell && engine->stream.open && engine->class->pause)
        engine->class->pause(engine->source, true);
}

/* ---- the loop's turns ---- */

static void on_again(uv_idle_t *idle)
{
    (void)uv_idle_stop(idle); /* this turn is the one it was for */
}

static void end_turn(struct engine *engine)
{
    bool appended = engine->dirty, more = engine_tend(engine);
    engine->coverage_marked = false;
    appended |= engine->dirty;
    if (engine->dirty || engine->talked)
        engine_wake(engine);
    if (appended)
        engine_pace(engine, true);
    if (more)
        (void)uv_idle_start(&engine->again, on_again);
}

static void on_prepare(uv_prepare_t *prepare)
{
    end_turn(prepare->data);
}

static void on_check(uv_check_t *check)
{
    end_turn(check->data);
}

static void on_accept(uv_poll_t *poll, int status, int events);

static void listen_again(struct engine *engine)
{
    if (engine->listening && !uv_is_active((uv_handle_t *)&engine->listener))
        (void)uv_poll_start(&engine->listener, UV_READABLE, on_accept);
}

static void on_beat(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    int64_t now = engine_now_ms(engine);
    log_set_beat(engine->log, now);
    interest_expire(&engine->interest, now);
    keys_expire(&engine->keys);
    atomic_store_explicit(&engine->counters->source_lingering, engine->interest.n_lingering,
                          memory_order_relaxed);
    if (!engine->paused)
        (void)readers_hold(engine); /* notes who moves, for the next look */
    listen_again(engine);
}

/* ---- new readers ---- */

static bool same_user(const struct ucred *peer)
{
    return peer->uid == geteuid() || peer->uid == 0;
}

static bool may_enter(struct engine *engine, int fd)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    uint64_t repeats;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return false;
    if (engine->options.peer_allowed ? engine->options.peer_allowed(engine->options.arg, cred.pid)
                                     : same_user(&cred))
        return true;
    if (engine_repeat(engine, &engine->strangers, &repeats))
        engine_log(engine, FW_LOG_WARNING, "reader-refused",
                   "process %d of user %u is not one of ours (%llu more since the last line)",
                   (int)cred.pid, (unsigned)cred.uid, (unsigned long long)repeats);
    return false;
}

static void on_accept(uv_poll_t *poll, int status, int events)
{
    struct engine *engine = poll->data;
    for (int i = 0; i < ACCEPT_TURN_MAX; i++) {
        int fd = accept4(engine->options.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            /* Without descriptors the listener stays readable: look again with the next beat. */
            if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
                (void)uv_poll_stop(poll);
            return;
        }
        if (!may_enter(engine, fd))
            close(fd);
        else
            (void)engine_admit(engine, fd);
    }
}

int engine_adopt(struct engine *engine, int fd)
{
    struct adopted *adopted = malloc(sizeof(*adopted));
    if (!adopted)
        return -ENOMEM;
    *adopted = (struct adopted){ .fd = fd };
    pthread_mutex_lock(&engine->adopt_lock);
    list_push(&engine->adopted, &adopted->node);
    pthread_mutex_unlock(&engine->adopt_lock);
    (void)uv_async_send(&engine->control);
    return 0;
}

static int next_adopted(struct engine *engine)
{
    pthread_mutex_lock(&engine->adopt_lock);
    struct list *node = list_pop(&engine->adopted);
    pthread_mutex_unlock(&engine->adopt_lock);
    if (!node)
        return -1;
    struct adopted *adopted = list_entry(node, struct adopted, node);
    int fd = adopted->fd;
    free(adopted);
    return fd;
}

static void on_control(uv_async_t *async)
{
    struct engine *engine = async->data;
    if (atomic_load_explicit(&engine->stop, memory_order_acquire))
        uv_stop(&engine->loop); /* pairs with the store in engine_stop() */
    for (int fd; (fd = next_adopted(engine)) >= 0;)
        (void)engine_admit(engine, fd);
}

/* ---- birth ---- */

static int make_loop(struct engine *engine)
{
    int r = uv_loop_init(&engine->loop);
    if (r < 0)
        return r;
    engine->loop_made = true;
    if ((r = uv_timer_init(&engine->loop, &engine->beat)) < 0 ||
        (r = uv_timer_init(&engine->loop, &engine->retry)) < 0 ||
        (r = uv_timer_init(&engine->loop, &engine->settle)) < 0 ||
        (r = uv_timer_init(&engine->loop, &engine->pace)) < 0 ||
        (r = uv_timer_init(&engine->loop, &engine->ask)) < 0 ||
        (r = uv_prepare_init(&engine->loop, &engine->prepare)) < 0 ||
        (r = uv_check_init(&engine->loop, &engine->check)) < 0 ||
        (r = uv_idle_init(&engine->loop, &engine->again)) < 0 ||
        (r = uv_async_init(&engine->loop, &engine->control, on_control)) < 0)
        return r;
    engine->beat.data = engine->retry.data = engine->settle.data = engine->pace.data = engine;
    engine->ask.data = engine;
    engine->prepare.data = engine->check.data = engine->control.data = engine;
    return 0;
}

static int make_engine(const struct engine_options *options, const struct fw_source_class *class,
                       struct engine **ret)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return -ENOMEM;
    engine->options = *options;
    engine->class = class;
    engine->traits = class->traits;
    engine->host.engine = engine;
    engine->log = options->log;
    engine->counters = options->counters;
    list_init(&engine->peers);
    list_init(&engine->busy);
    list_init(&engine->orphans);
    list_init(&engine->adopted);
    keys_init(&engine->keys, options->log);
    (void)pthread_mutex_init(&engine->adopt_lock, NULL);
    interest_init(&engine->interest, options->log, engine->traits & FW_SOURCE_ON_DEMAND,
                  options->linger_ms ? options->linger_ms : LINGER_DEFAULT_MS,
                  &engine_interest_hooks, engine);
    int s = snapshots_init(&engine->snapshots, engine, options->snapshots, options->n_snapshots);
    if (!engine->counters)
        engine->counters = engine->own_counters = calloc(1, sizeof(*engine->own_counters));
    int r = engine->counters && s == 0 ? make_loop(engine) : -ENOMEM;
    if (r < 0) {
        engine_free(engine);
        return r;
    }
    *ret = engine;
    return 0;
}

static int watch_listener(struct engine *engine)
{
    int fd = engine->options.listen_fd;
    if (fd < 0)
        return 0;
    int r = uv_poll_init(&engine->loop, &engine->listener, fd);
    if (r < 0)
        return r;
    engine->listener.data = engine;
    engine->listening = true;
    listen_again(engine);
    return 0;
}

int engine_new(const struct engine_options *options, struct engine **ret, struct fw_error *err)
{
    const struct fw_source_class *const *classes = options->sources ? options->sources : fw_sources;
    const struct fw_source_class *class = find_class(classes, options->url);
    struct engine *engine;
    if (!class)
        return unknown_scheme(classes, options->url, err);
    if (options->n_snapshots && !class->snapshot)
        return error_set(err, -EINVAL,
                         "snapshots are for databases, postgres:// and sqlite:; source %s has no "
                         "rows to ask for",
                         class->kind);
    int r = log_lock_writer(options->log);
    if (r < 0)
        return error_set(err, r, "another process writes this log already");
    r = make_engine(options, class, &engine);
    if (r < 0)
        return error_set(err, r, "the source's event loop could not be made: %s", strerror(-r));
    r = class->create(&engine->host, options->url, &engine->source, err);
    if (r == 0 && (r = watch_listener(engine)) < 0)
        (void)error_set(err, r, "the readers' socket cannot be watched: %s", strerror(-r));
    if (r < 0) {
        engine_free(engine);
        return r;
    }
    engine->options.url = NULL; /* borrowed for this call; the source has its own copy */
    if (log_used(engine->log)) {
        stream_recover(engine);
        engine_wake(engine);
        keys_recover(&engine->keys);
    }
    /* After the `down`: who takes the beat for the end of a hang must find it in the log. */
    log_set_beat(engine->log, engine_now_ms(engine));
    *ret = engine;
    return 0;
}

const char *engine_url_kind(const char *url)
{
    const struct fw_source_class *class = find_class(fw_sources, url);
    return class ? class->kind : NULL;
}

bool engine_url_has_snapshots(const char *url)
{
    const struct fw_source_class *class = find_class(fw_sources, url);
    return class && class->snapshot;
}

int engine_check_url(const char *url, struct fw_error *err)
{
    const struct fw_source_class *class = find_class(fw_sources, url);
    struct engine *engine;
    if (!class)
        return unknown_scheme(fw_sources, url, err);
    int r = make_engine(&(struct engine_options){ .listen_fd = -1 }, class, &engine);
    if (r < 0)
        return error_set(err, r, "out of memory or descriptors: %s", strerror(-r));
    r = class->create(&engine->host, url, &engine->source, err);
    engine_free(engine);
    return r;
}

const char *engine_kind(const struct engine *engine)
{
    return engine->class->kind;
}

/* ---- life and death ---- */

int engine_run(struct engine *engine)
{
    int r;
    if ((r = uv_timer_start(&engine->beat, on_beat, 0, BEAT_MS)) < 0 ||
        (r = uv_prepare_start(&engine->prepare, on_prepare)) < 0 ||
        (r = uv_check_start(&engine->check, on_check)) < 0)
        return r;
    (void)uv_async_send(&engine->control); /* adopted or stopped before */
    engine->class->open(engine->source);
    while (!atomic_load_explicit(&engine->stop, memory_order_acquire))
        (void)uv_run(&engine->loop, UV_RUN_DEFAULT);
    if (engine->stream.up)
        stream_down(engine, REASON_RESTART);
    engine_wake(engine);
    return 0;
}

void engine_stop(struct engine *engine)
{
    atomic_store_explicit(&engine->stop, true, memory_order_release); /* pairs with on_control() */
    (void)uv_async_send(&engine->control);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void free_loop(struct engine *engine)
{
    if (!engine->loop_made)
        return;
    uv_walk(&engine->loop, close_handle, NULL);
    while (uv_loop_close(&engine->loop) == UV_EBUSY)
        (void)uv_run(&engine->loop, UV_RUN_ONCE);
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    engine->ending = true;
    if (engine->source)
        engine->class->destroy(engine->source);
    while (!list_empty(&engine->peers))
        engine_dismiss(engine, list_entry(engine->peers.next, struct peer, node));
    for (int fd; (fd = next_adopted(engine)) >= 0;)
        close(fd);
    engine_drop_publishes(engine);
    snapshots_done(&engine->snapshots);
    interest_done(&engine->interest);
    keys_done(&engine->keys);
    free_loop(engine);
    if (engine->log)
        log_wake_futex(engine->log); /* readers that wait find the end of their inbox */
    (void)pthread_mutex_destroy(&engine->adopt_lock);
    free(engine->own_counters);
    free(engine);
}
