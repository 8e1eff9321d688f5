/* The rig of the hub's tests. */
#include "rig.h"

#include "fake_source.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- an engine ---- */

static void on_line(void *arg, enum fw_log_level level, const char *event, const char *text)
{
    struct rig *rig = arg;
    pthread_mutex_lock(&rig->lock);
    size_t len = strlen(rig->lines);
    (void)snprintf(rig->lines + len, sizeof(rig->lines) - len, "%s: %s\n", event, text);
    pthread_mutex_unlock(&rig->lock);
}

bool rig_has_line(struct rig *rig, const char *part)
{
    pthread_mutex_lock(&rig->lock);
    bool has = strstr(rig->lines, part) != NULL;
    pthread_mutex_unlock(&rig->lock);
    return has;
}

static void *run(void *arg)
{
    (void)engine_run(arg);
    return NULL;
}

static void start_engine(struct rig *rig)
{
    struct fw_error err = { 0 };
    static const struct engine_snapshot snapshots[] = { { "a", "SELECT a" }, { "b", "SELECT b" } };
    struct engine_options options = { .url = rig->url,
                                      .sources = fake_sources,
                                      .log = rig->log,
                                      .linger_ms = rig->linger_ms,
                                      .snapshots = snapshots,
                                      .n_snapshots = rig->snapshots ? 2 : 0,
                                      .counters = &rig->counters,
                                      .listen_fd = -1,
                                      .log_line = on_line,
                                      .arg = rig };
    if (engine_new(&options, &rig->engine, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(pthread_create(&rig->thread, NULL, run, rig->engine), 0);
}

static void stop_engine(struct rig *rig)
{
    engine_stop(rig->engine);
    pthread_join(rig->thread, NULL);
    engine_free(rig->engine);
}

static void start(struct rig *rig, const char *url, uint64_t log_size, uint32_t linger_ms,
                  bool snapshots)
{
    memset(rig, 0, sizeof(*rig));
    rig->url = url;
    rig->linger_ms = linger_ms;
    rig->snapshots = snapshots;
    pthread_mutex_init(&rig->lock, NULL);
    assert_int_equal(log_create(log_size, &rig->log), 0);
    start_engine(rig);
}

void rig_start(struct rig *rig, const char *url, uint64_t log_size, uint32_t linger_ms)
{
    start(rig, url, log_size, linger_ms, false);
}

void rig_start_with_snapshots(struct rig *rig, const char *url, uint64_t log_size)
{
    start(rig, url, log_size, 0, true);
}

void rig_restart(struct rig *rig)
{
    stop_engine(rig);
    start_engine(rig);
}

void rig_stop(struct rig *rig)
{
    char why[256];
    stop_engine(rig);
    if (log_check(rig->log, why, sizeof(why)) < 0)
        fail_msg("the log: %s", why);
    log_close(rig->log);
    pthread_mutex_destroy(&rig->lock);
}

/* ---- a reader of an inbox ---- */

static char *add_answer(struct probe *probe)
{
    assert_true(probe->n_answers < sizeof(probe->answers) / sizeof(probe->answers[0]));
    return probe->answers[probe->n_answers++];
}

static void on_ready(void *arg, const struct reader_channel *channel, uint64_t covered_from,
                     uint64_t ready_at)
{
    struct probe *probe = arg;
    (void)snprintf(add_answer(probe), 256, "ready %.*s", (int)channel->len, channel->name);
    probe->covered_from = covered_from;
    probe->ready_at = ready_at;
    probe->question = channel->question;
}

static void on_refused(void *arg, const struct reader_channel *channel, enum error_code code,
                       const char *message)
{
    struct probe *probe = arg;
    (void)snprintf(add_answer(probe), 256, "refused %.*s %s", (int)channel->len, channel->name,
                   code_text(code));
    probe->question = channel->question;
}

static void on_published(void *arg, const struct reader_published *answer)
{
    struct probe *probe = arg;
    (void)snprintf(add_answer(probe), 256, "published %llu %s %zu%s",
                   (unsigned long long)answer->request, code_text(answer->code), answer->index,
                   answer->in_parts ? " in parts" : "");
    (void)snprintf(probe->id, sizeof(probe->id), "%s", answer->id);
}

static void on_source(void *arg, const char *kind, const char *mode, bool durable,
                      const char *guarantee)
{
    (void)snprintf(add_answer(arg), 256, "source %s %s%s", kind, mode, durable ? " durable" : "");
}

static void on_rows(void *arg, const struct reader_rows *part)
{
    struct probe *probe = arg;
    probe->rows = realloc(probe->rows, probe->n_rows + part->len + 1);
    assert_non_null(probe->rows);
    if (part->len)
        memcpy(probe->rows + probe->n_rows, part->data, part->len);
    probe->n_rows += part->len;
    probe->rows_len = part->rows_len;
    probe->until = part->until;
    if (!part->more)
        (void)snprintf(add_answer(probe), 256, "rows %llu %s", (unsigned long long)part->request,
                       code_text(part->code));
}

static const struct reader_handlers probe_handlers = { .ready = on_ready,
                                                       .refused = on_refused,
                                                       .published = on_published,
                                                       .rows = on_rows,
                                                       .source = on_source };

int rig_raw(struct rig *rig)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends),
                     0);
    assert_int_equal(engine_adopt(rig->engine, ends[0]), 0);
    return ends[1];
}

void probe_adopt(struct probe *probe, struct reader *reader)
{
    memset(probe, 0, sizeof(*probe));
    probe->reader = reader;
}

void probe_join(struct probe *probe, struct rig *rig)
{
    struct reader *reader;
    assert_int_equal(reader_adopt(rig_raw(rig), &reader), 0);
    probe_adopt(probe, reader);
}

void probe_leave(struct probe *probe)
{
    reader_close(probe->reader);
    probe->reader = NULL;
}

static void probe_wait(struct probe *probe)
{
    struct pollfd p = { .fd = reader_fd(probe->reader),
                        .events = POLLIN | (reader_blocked(probe->reader) ? POLLOUT : 0) };
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    probe_look(probe);
}

void probe_look(struct probe *probe)
{
    if (reader_process(probe->reader, &probe_handlers, probe) < 0)
        probe->gone = true;
}

void probe_subscribe(struct probe *probe, const char *channel)
{
    probe_ask(probe, channel, 0);
}

void probe_ask(struct probe *probe, const char *channel, uint64_t question)
{
    const struct reader_channel name = { channel, strlen(channel), question };
    int r;
    while ((r = reader_subscribe(probe->reader, &name)) == -EAGAIN)
        probe_wait(probe);
    assert_int_equal(r, 0);
}

void probe_ask_again(struct probe *probe, const char *channel, uint64_t covered_from)
{
    const struct reader_channel name = { channel, strlen(channel), 0 };
    assert_int_equal(reader_resubscribe(probe->reader, &name, covered_from), 0);
}

void probe_unsubscribe(struct probe *probe, const char *channel)
{
    assert_int_equal(reader_unsubscribe(probe->reader, channel, strlen(channel)), 0);
}

void probe_expect(struct probe *probe, const char *answer)
{
    while (probe->n_expected == probe->n_answers && !probe->gone)
        probe_wait(probe);
    if (probe->n_expected == probe->n_answers)
        fail_msg("the connection ended before \"%s\"", answer);
    const char *got = probe->answers[probe->n_expected++];
    if (strncmp(got, answer, strlen(answer)) != 0)
        fail_msg("expected \"%s\", got \"%s\"", answer, got);
    if (probe->n_expected == probe->n_answers)
        probe->n_expected = probe->n_answers = 0;
}

void probe_expect_gone(struct probe *probe)
{
    while (!probe->gone)
        probe_wait(probe);
}

/* ---- a subscription's steps ---- */

struct fw_hub *open_hub(const char *url, size_t retain, unsigned linger_ms)
{
    struct fw_hub *hub;
    struct fw_error err;
    struct fw_hub_options options = { .size = sizeof(options),
                                      .retain = retain,
                                      .linger_ms = linger_ms };
    bool scripted = strncmp(url, "memory", 6) != 0 && strncmp(url, "stdin", 5) != 0;
    if (hub_open_with(url, &options, scripted ? fake_sources : NULL, &hub, &err) < 0)
        fail_msg("%s", err.message);
    return hub;
}

struct fw_sub *open_sub_since(struct fw_hub *hub, const char *channel, const char *since,
                              unsigned last)
{
    struct fw_sub_options options = { .size = sizeof(options), .since = since, .last = last };
    struct fw_sub *sub;
    struct fw_error err;
    if (fw_sub_open(hub, channel, &options, &sub, &err) < 0)
        fail_msg("%s", err.message);
    return sub;
}

struct fw_sub *open_sub(struct fw_hub *hub, const char *channel)
{
    return open_sub_since(hub, channel, NULL, 0);
}

struct fw_event *next_step(struct fw_sub *sub, int kind, const char *channel)
{
    static struct fw_event ev;
    int r = fw_sub_next(sub, &ev, PATIENCE_MS);
    if (r < 0)
        fail_msg("expected step %d, got %d: %s", kind, r, fw_sub_error(sub));
    if (r != kind || (channel && r > 0 && strcmp(ev.channel, channel) != 0))
        fail_msg("expected step %d of \"%s\", got %d of \"%s\" (%s%.*s)", kind,
                 channel ? channel : "any", r, r ? ev.channel : "", r ? ev.reason : "",
                 r ? (int)ev.len : 0, r ? (const char *)ev.data : "");
    return &ev;
}

void next_message(struct fw_sub *sub, const char *channel, const char *text)
{
    struct fw_event *ev = next_step(sub, FW_MESSAGE, channel);
    assert_int_equal(ev->len, strlen(text));
    assert_string_equal(ev->data, text); /* also that a NUL follows */
}

void next_gap(struct fw_sub *sub, const char *channel, const char *reason)
{
    assert_string_equal(next_step(sub, FW_GAP, channel)->reason, reason);
}

void next_down(struct fw_sub *sub, const char *reason)
{
    assert_string_equal(next_step(sub, FW_DOWN, "")->reason, reason);
}

void nothing_next(struct fw_sub *sub)
{
    struct fw_event ev;
    int r = fw_sub_next(sub, &ev, 0);
    if (r != 0)
        fail_msg("expected nothing, got %d %s", r, r > 0 ? ev.channel : fw_sub_error(sub));
}

void publish(struct fw_hub *hub, const char *channel, const char *text)
{
    struct fw_error err;
    if (fw_hub_publish(hub, channel, text, strlen(text), PATIENCE_MS, NULL, &err) < 0)
        fail_msg("%s", err.message);
}
