/* fanwire tail from a running server: SSE in its query form, resumed by Last-Event-ID. */
#include "tail.h"

#include "clock.h"
#include "envelope.h"
#include "sse_client.h"
#include "web.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EVENT_MAX (64u << 20)
#define RETRY_MS  2000

struct follow {
    struct tail *tail;
    struct sse_client sse;
    struct buf scratch; /* decoded members of an envelope, each with its NUL */
    size_t n_refused;
    bool answered; /* a server was there once: from now on its absence is waited out */
};

/* A string member as text in the scratch; "" if there is none. Valid until the scratch is cleared,
 * as long as nothing else is appended: offsets are resolved by the caller at once. */
static size_t member(struct follow *f, const char *json, size_t len, const char *name)
{
    size_t at = f->scratch.len;
    if (envelope_string(json, len, name, &f->scratch) < 0)
        f->scratch.len = at;
    (void)buf_append_char(&f->scratch, '\0');
    return at;
}

static const char *text(const struct follow *f, size_t at)
{
    return f->scratch.failed ? "" : (const char *)f->scratch.data + at;
}

static void on_message(struct follow *f, const char *json, size_t len)
{
    if (f->tail->json) {
        tail_envelope(f->tail, json, len);
        tail_counted(f->tail);
        return;
    }
    size_t channel = member(f, json, len, "channel");
    size_t payload = f->scratch.len;
    if (envelope_payload(json, len, &f->scratch) < 0)
        tail_note(f->tail, "an envelope without a payload was left out");
    else
        tail_message(f->tail, text(f, channel), strlen(text(f, channel)), f->scratch.data + payload,
                     f->scratch.len - payload);
}

static void on_control(struct follow *f, const char *type, const char *json, size_t len)
{
    struct tail *tail = f->tail;
    size_t channel = member(f, json, len, "channel");
    size_t reason = member(f, json, len, "reason");
    size_t after = member(f, json, len, "after");
    size_t message = member(f, json, len, "message");
    if (strcmp(type, "gap") == 0) {
        tail_gap(tail, text(f, channel), text(f, after), text(f, reason));
    } else if (strcmp(type, "down") == 0) {
        tail_note(tail, "down: the server has lost its source (%s)", text(f, reason));
    } else if (strcmp(type, "up") == 0) {
        tail_note(tail, "up: the source is back");
    } else if (strcmp(type, "unsubscribed") == 0) {
        tail_note(tail, "%s: %s", text(f, channel), text(f, message));
        if (++f->n_refused >= tail->channels.count)
            tail_fail(tail, 3, "no channel is left");
    } else if (strcmp(type, "error") == 0) {
        tail_note(tail, "the server says: %s", text(f, message));
    }
}

static bool on_event(void *arg, const char *event, const char *json, size_t len)
{
    struct follow *f = arg;
    if (!envelope_valid(json, len)) {
        tail_note(f->tail, "what the server sent is no envelope; is it fanwire?");
        return true;
    }
    buf_clear(&f->scratch);
    size_t at = member(f, json, len, "type");
    char type[32];
    (void)snprintf(type, sizeof(type), "%s", text(f, at));
    if (strcmp(type, "message") == 0) {
        on_message(f, json, len);
    } else if (strcmp(type, "welcome") != 0 && strcmp(type, "position") != 0) {
        if (f->tail->json)
            tail_envelope(f->tail, json, len);
        on_control(f, type, json, len);
    }
    return !f->tail->done;
}

static bool on_data(void *arg, const char *data, size_t len)
{
    struct follow *f = arg;
    f->answered = true;
    int r = sse_client_feed(&f->sse, data, len, on_event, f);
    if (r < 0)
        tail_fail(f->tail, 1, "the server sent an event that is too large: %s", strerror(-r));
    tail_flush(f->tail);
    return !f->tail->done;
}

static bool wanted(void *arg)
{
    struct follow *f = arg;
    return tail_is_wanted(f->tail);
}

/* /sse?channel=a&channel=b&since=… */
static int write_path(const struct tail *tail, struct buf *path)
{
    int r = buf_append_str(path, "/sse?heartbeat=25");
    for (size_t i = 0; i < tail->channels.count && r == 0; i++) {
        r = buf_append_str(path, "&channel=");
        if (r == 0)
            r = web_escape(path, tail->channels.items[i]);
    }
    if (r == 0 && tail->since)
        r = buf_printf(path, "&since=%s", tail->since);
    if (r == 0 && tail->last)
        r = buf_printf(path, "&last=%u", tail->last);
    return r == 0 ? buf_append_char(path, '\0') : r;
}

/* The answer was no stream, or the stream ended. Errors that stay are final, others are waited
 * out once a server was there. */
static void on_end(struct follow *f, int status, const struct buf *body, const struct fw_error *err)
{
    char problem[512];
    if (status < 0 && !f->answered)
        tail_fail(f->tail, status == -EINVAL ? 2 : 3, "%s", err->message);
    else if (status < 0)
        return;
    else if (status == 400 || status == 404)
        tail_fail(f->tail, 2, "%s", web_problem(problem, sizeof(problem), status, body));
    else if (status != 200)
        tail_fail(f->tail, 3, "%s", web_problem(problem, sizeof(problem), status, body));
}

static void wait_to_retry(struct follow *f)
{
    unsigned ms = f->sse.retry_ms ? f->sse.retry_ms : RETRY_MS;
    int64_t until = clock_monotonic_ms() + ms;
    for (int64_t now = clock_monotonic_ms(); now < until && tail_is_wanted(f->tail);
         now = clock_monotonic_ms()) {
        struct pollfd out = { .fd = STDOUT_FILENO };
        (void)poll(&out, 1, (int)(until - now));
    }
}

static void follow_once(struct follow *f, struct web *web, const char *path)
{
    struct fw_error err = { 0 };
    struct buf body = buf_make(1 << 20);
    struct web_stream stream = {
        .last_event_id = f->sse.last_id, .on_data = on_data, .wanted = wanted, .arg = f
    };
    sse_client_restart(&f->sse);
    f->n_refused = 0;
    int status = web_follow(web, path, &stream, &body, &err);
    if (!f->tail->done)
        on_end(f, status, &body, &err);
    buf_done(&body);
}

int tail_server(struct tail *tail)
{
    struct follow f = { .tail = tail, .scratch = buf_make(EVENT_MAX) };
    struct fw_error err = { 0 };
    struct buf path = buf_make(1 << 20);
    struct web *web = NULL;
    sse_client_init(&f.sse, EVENT_MAX);
    if (web_open(tail->where, &web, &err) < 0)
        tail_fail(tail, 2, "%s", err.message);
    else if (write_path(tail, &path) < 0)
        tail_fail(tail, 2, "too many channels");
    while (!tail->done) {
        follow_once(&f, web, (const char *)path.data);
        if (!tail->done)
            wait_to_retry(&f);
    }
    web_close(web);
    buf_done(&path);
    buf_done(&f.scratch);
    sse_client_done(&f.sse);
    return tail->code;
}
