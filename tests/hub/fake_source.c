/* The scripted source. */
#include "fake_source.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PATIENCE_S 20
#define CALLS_MAX  1024

struct fw_source {
    struct fw_host *host;
    struct fw_waker *waker;
};

/* What both threads touch. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct fake_script script;
    struct fw_source *source;
    char calls[CALLS_MAX][300];
    size_t n_calls, n_expected;
    void (*fn)(struct fw_host *host, void *arg);
    void *arg;
    uint64_t requests[CALLS_MAX];
    size_t n_requests, n_answered;
    uint64_t question;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "fake source: %s %s\n", what, detail);
    abort();
}

static void wait_changed(const char *what, const char *detail)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    if (pthread_cond_timedwait(&fake.changed, &fake.lock, &until) == ETIMEDOUT)
        fail(what, detail);
}

static struct fake_script note(const char *call, const char *channel, size_t len)
{
    pthread_mutex_lock(&fake.lock);
    if (fake.n_calls == CALLS_MAX)
        fail("too many calls", call);
    (void)snprintf(fake.calls[fake.n_calls++], sizeof(fake.calls[0]), "%s%s%.*s", call,
                   len ? " " : "", (int)len, channel);
    struct fake_script script = fake.script;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
    return script;
}

/* ---- the hub's side ---- */

static void on_wake(void *arg)
{
    struct fw_source *source = arg;
    pthread_mutex_lock(&fake.lock);
    void (*fn)(struct fw_host *, void *) = fake.fn;
    void *fn_arg = fake.arg;
    pthread_mutex_unlock(&fake.lock);
    if (!fn)
        return;
    fn(source->host, fn_arg);
    pthread_mutex_lock(&fake.lock);
    fake.fn = NULL;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
}

static int fake_create(struct fw_host *host, const char *url, struct fw_source **ret,
                       struct fw_error *err)
{
    struct fw_source *source = calloc(1, sizeof(*source));
    source->host = host;
    if (fw_host_waker(host, on_wake, source, &source->waker) < 0)
        fail("no waker", url);
    pthread_mutex_lock(&fake.lock);
    fake.source = source;
    pthread_mutex_unlock(&fake.lock);
    *ret = source;
    return 0;
}

static void fake_open(struct fw_source *source)
{
    struct fake_script script = note("open", "", 0);
    if (script.open)
        fw_host_opened(source->host, "scripted", "what the test says", script.identity);
}

static void fake_subscribe(struct fw_source *source, const char *channel, size_t len)
{
    if (note("subscribe", channel, len).ready)
        fw_host_ready(source->host, channel, len);
}

static void fake_unsubscribe(struct fw_source *source, const char *channel, size_t len)
{
    (void)note("unsubscribe", channel, len);
}

static void fake_publish(struct fw_source *source, const struct fw_publish *publish)
{
    struct fw_source_event event = { .channel = publish->channel,
                                     .channel_len = publish->channel_len,
                                     .key = publish->key,
                                     .from = publish->from,
                                     .data = publish->data,
                                     .len = publish->len };
    if (note("publish", publish->channel, publish->channel_len).publish) {
        (void)fw_host_append(source->host, &event);
        fw_host_published(source->host, publish->request, NULL, NULL,
                          fw_host_last_id(source->host));
        return;
    }
    pthread_mutex_lock(&fake.lock);
    fake.requests[fake.n_requests++] = publish->request;
    pthread_mutex_unlock(&fake.lock);
}

static void fake_publish_batch(struct fw_source *source, const struct fw_publish *events, size_t n)
{
    char call[64];
    (void)snprintf(call, sizeof(call), "batch of %zu", n);
    (void)note(call, "", 0);
    pthread_mutex_lock(&fake.lock);
    for (size_t i = 0; i < n; i++)
        fake.requests[fake.n_requests++] = events[i].request;
    pthread_mutex_unlock(&fake.lock);
}

static void fake_snapshot(struct fw_source *source, uint64_t request, const char *sql)
{
    pthread_mutex_lock(&fake.lock);
    fake.question = request;
    pthread_mutex_unlock(&fake.lock);
    (void)note("snapshot", sql, strlen(sql));
}

static void fake_pause(struct fw_source *source, bool paused)
{
    (void)note(paused ? "pause" : "go on", "", 0);
}

static void fake_destroy(struct fw_source *source)
{
    pthread_mutex_lock(&fake.lock);
    for (; fake.n_answered < fake.n_requests; fake.n_answered++)
        fw_host_published(source->host, fake.requests[fake.n_answered], "source-down", "gone",
                          NULL);
    fake.source = NULL;
    pthread_mutex_unlock(&fake.lock);
    fw_waker_free(source->waker);
    free(source);
}

#define FAKE_CLASS(scheme, declared)                                                               \
    {                                                                                              \
        .kind = scheme, .schemes = scheme, .traits = declared, .create = fake_create,              \
        .open = fake_open, .subscribe = fake_subscribe, .unsubscribe = fake_unsubscribe,           \
        .publish = fake_publish, .pause = fake_pause, .snapshot = fake_snapshot,                   \
        .destroy = fake_destroy                                                                    \
    }

static const struct fw_source_class plain = FAKE_CLASS("plain", 0);
static const struct fw_source_class demand = FAKE_CLASS("demand", FW_SOURCE_ON_DEMAND);
static const struct fw_source_class durable =
    FAKE_CLASS("durable", FW_SOURCE_ON_DEMAND | FW_SOURCE_DURABLE | FW_SOURCE_ORDERED);

static const struct fw_source_class stored =
    FAKE_CLASS("stored", FW_SOURCE_DURABLE | FW_SOURCE_ORDERED);

static const struct fw_source_class whole = { .kind = "whole",
                                              .schemes = "whole",
                                              .create = fake_create,
                                              .open = fake_open,
                                              .publish = fake_publish,
                                              .publish_batch = fake_publish_batch,
                                              .pause = fake_pause,
                                              .destroy = fake_destroy };

const struct fw_source_class *const fake_sources[] = { &plain,  &demand, &durable,
                                                       &stored, &whole,  NULL };

/* ---- the test's side ---- */

uint64_t fake_question(void)
{
    pthread_mutex_lock(&fake.lock);
    uint64_t question = fake.question;
    pthread_mutex_unlock(&fake.lock);
    return question;
}

void fake_begin(struct fake_script script)
{
    pthread_mutex_lock(&fake.lock);
    fake.script = script;
    fake.n_calls = fake.n_expected = fake.n_requests = fake.n_answered = 0;
    fake.question = 0;
    pthread_mutex_unlock(&fake.lock);
}

static void check_next(const char *call)
{
    const char *got = fake.calls[fake.n_expected++];
    if (strcmp(got, call) != 0) {
        fprintf(stderr, "expected \"%s\", ", call);
        fail("was called:", got);
    }
}

void fake_expect(const char *call)
{
    pthread_mutex_lock(&fake.lock);
    while (fake.n_expected == fake.n_calls)
        wait_changed("was not called:", call);
    check_next(call);
    pthread_mutex_unlock(&fake.lock);
}

bool fake_was_called(const char *call)
{
    pthread_mutex_lock(&fake.lock);
    bool any = fake.n_expected < fake.n_calls;
    if (any)
        check_next(call);
    pthread_mutex_unlock(&fake.lock);
    return any;
}

void fake_run(void (*fn)(struct fw_host *host, void *arg), void *arg)
{
    pthread_mutex_lock(&fake.lock);
    fake.fn = fn;
    fake.arg = arg;
    if (!fake.source)
        fail("is not there", "");
    fw_waker_wake(fake.source->waker);
    while (fake.fn)
        wait_changed("is not reached", "");
    pthread_mutex_unlock(&fake.lock);
}

static void do_nothing(struct fw_host *host, void *arg)
{
}

void fake_expect_nothing(void)
{
    fake_run(do_nothing, NULL);
    pthread_mutex_lock(&fake.lock);
    if (fake.n_expected < fake.n_calls)
        fail("was called:", fake.calls[fake.n_expected]);
    pthread_mutex_unlock(&fake.lock);
}

static void do_opened(struct fw_host *host, void *arg)
{
    fw_host_opened(host, "scripted", "what the test says", fake.script.identity);
}

void fake_opened(void)
{
    fake_run(do_opened, NULL);
}

static void do_lost(struct fw_host *host, void *arg)
{
    fw_host_lost(host, arg, "the test says so");
}

void fake_lost(const char *reason)
{
    fake_run(do_lost, (void *)reason);
}

static void do_ended(struct fw_host *host, void *arg)
{
    fw_host_ended(host);
}

void fake_ended(void)
{
    fake_run(do_ended, NULL);
}

static void do_ready(struct fw_host *host, void *arg)
{
    fw_host_ready(host, arg, strlen(arg));
}

void fake_ready(const char *channel)
{
    fake_run(do_ready, (void *)channel);
}

static void do_refused(struct fw_host *host, void *arg)
{
    fw_host_refused(host, arg, strlen(arg), "source-refused", "the test says so");
}

void fake_refused(const char *channel)
{
    fake_run(do_refused, (void *)channel);
}

static void do_append(struct fw_host *host, void *arg)
{
    const char *const *both = arg;
    struct fw_source_event event = {
        .channel = both[0], .channel_len = strlen(both[0]), .data = both[1], .len = strlen(both[1])
    };
    (void)fw_host_append(host, &event);
    (void)fw_host_flush(host);
}

void fake_append(const char *channel, const char *text)
{
    fake_run(do_append, (const char *[]){ channel, text });
}

static void do_open_stored(struct fw_host *host, void *arg)
{
    static const uint64_t start[2] = { 0, 1 };
    uint64_t pos[2];
    if (!fw_host_continue(host, 7, pos))
        fw_host_begin(host, 7, start);
    fw_host_opened(host, "stored", "what the test says", 7);
}

void fake_open_stored(void)
{
    fake_run(do_open_stored, NULL);
}

static void do_store(struct fw_host *host, void *arg)
{
    if (fw_host_append(host, arg) < 0)
        fail("an event", "was refused");
    (void)fw_host_flush(host);
}

void fake_store(const char *channel, const char *text, uint64_t at, uint64_t xid)
{
    struct fw_source_event event = { .channel = channel,
                                     .channel_len = strlen(channel),
                                     .data = text,
                                     .len = strlen(text),
                                     .pos = { at, 0 },
                                     .xid = xid };
    fake_run(do_store, &event);
}

static bool below_100(const void *arg, const uint64_t pos[2], uint64_t xid)
{
    return xid < 100;
}

static void do_answer(struct fw_host *host, void *arg)
{
    const struct fake_rows *rows = arg;
    struct fw_snapshot snapshot = { .rows = rows->rows,
                                    .len = rows->len,
                                    .contains = rows->inexact ? NULL : below_100,
                                    .floor = { rows->floor, 0 } };
    fw_host_snapshot(host, rows->question, &snapshot);
}

void fake_answer(const struct fake_rows *rows)
{
    fake_run(do_answer, (void *)rows);
}

static void do_refuse(struct fw_host *host, void *arg)
{
    const char *const *both = arg;
    fw_host_snapshot_refused(host, fake_question(), both[0], both[1]);
}

void fake_refuse(const char *code, const char *message)
{
    fake_run(do_refuse, (const char *[]){ code, message });
}

static void do_published(struct fw_host *host, void *arg)
{
    const char *const *both = arg;
    for (size_t open = fake.n_requests; fake.n_answered < open; fake.n_answered++)
        fw_host_published(host, fake.requests[fake.n_answered], both[0], "the test says so",
                          both[1]);
}

void fake_published(const char *code, const char *id)
{
    fake_run(do_published, (const char *[]){ code, id });
}
