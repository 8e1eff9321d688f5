/* fanwire tail from a source itself, by the library. */
#include "tail.h"

#include "clock.h"
#include "frame.h"
#include "web.h"

#include <fanwire.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_MS 10000 /* for the source to be there at first */
#define LOOK_MS     1000  /* how often standard output is looked at */

struct reading {
    struct tail *tail;
    struct fw_hub *hub;
    struct fw_sub *sub;
    struct buf envelope;
    bool was_ready, ended;
    size_t n_ready; /* channels */
    char down[32];  /* the reason, while the source is away */
};

static int open_all(struct reading *r, struct fw_error *err)
{
    const struct tail *tail = r->tail;
    struct fw_hub_options hub_options = { .size = sizeof(hub_options) };
    /* Lines may have come before the subscription does; in a hub of its own all are new. */
    bool all = !tail->since && !tail->last && strncmp(tail->where, "stdin:", 6) == 0;
    struct fw_sub_options options = { .size = sizeof(options),
                                      .since = all ? "oldest" : tail->since,
                                      .last = tail->last };
    int n = fw_hub_open(tail->where, &hub_options, &r->hub, err);
    if (n == 0)
        n = fw_sub_open(r->hub, tail->channels.items[0], &options, &r->sub, err);
    for (size_t i = 1; i < tail->channels.count && n == 0; i++)
        n = fw_sub_add(r->sub, tail->channels.items[i], &options, err);
    return n;
}

/* With --json the same envelopes as a server's. */
static int write_envelope(struct buf *out, const struct fw_event *ev)
{
    size_t channel_len = strlen(ev->channel);
    switch (ev->kind) {
    case FW_MESSAGE: {
        struct frame_message message = { .channel = ev->channel,
                                         .channel_len = channel_len,
                                         .id = ev->id,
                                         .id_len = strlen(ev->id),
                                         .time_ms = ev->time_ms,
                                         .data = ev->data,
                                         .len = ev->len,
                                         .from = ev->from };
        return json_message(out, &message, true, true);
    }
    case FW_READY:
        return json_ready(out, ev->channel, channel_len, ev->id, NULL);
    case FW_GAP:
        return json_gap(out, ev->channel, channel_len, ev->after, ev->before,
                        reason_from_text(ev->reason, (uint32_t)strlen(ev->reason)));
    case FW_DOWN:
        return json_down(out, reason_from_text(ev->reason, (uint32_t)strlen(ev->reason)));
    case FW_UP:
        return json_up(out);
    }
    return -ENOENT;
}

static void print_envelope(struct reading *r, const struct fw_event *ev)
{
    buf_clear(&r->envelope);
    if (write_envelope(&r->envelope, ev) == 0)
        tail_envelope(r->tail, (const char *)r->envelope.data, r->envelope.len);
}

static void on_down(struct reading *r, const char *reason)
{
    (void)snprintf(r->down, sizeof(r->down), "%s", reason);
    if (strcmp(reason, "ended") == 0)
        r->ended = true;
    else if (r->was_ready)
        tail_note(r->tail, "down: the source is away (%s)", reason);
}

static void on_event(struct reading *r, const struct fw_event *ev)
{
    struct tail *tail = r->tail;
    if (tail->json)
        print_envelope(r, ev);
    switch (ev->kind) {
    case FW_MESSAGE:
        if (tail->json)
            tail_counted(tail);
        else
            tail_message(tail, ev->channel, strlen(ev->channel), ev->data, ev->len);
        break;
    case FW_READY:
        r->was_ready = true;
        r->n_ready++;
        break;
    case FW_GAP:
        tail_gap(tail, ev->channel, ev->after, ev->reason);
        break;
    case FW_DOWN:
        on_down(r, ev->reason);
        break;
    case FW_UP:
        if (r->down[0] && r->was_ready)
            tail_note(tail, "up: the source is back");
        r->down[0] = '\0';
        break;
    }
    /* Standard input has ended: so does its tail, when it has all that came before. */
    if (r->ended && r->n_ready >= tail->channels.count)
        tail->done = true;
}

static void read_all(struct reading *r)
{
    struct tail *tail = r->tail;
    int64_t until = clock_monotonic_ms() + PATIENCE_MS;
    struct fw_event ev;
    while (!tail->done) {
        int kind = fw_sub_next(r->sub, &ev, 0);
        if (kind == 0) { /* nothing more for now: show what there is, then wait */
            tail_flush(tail);
            kind = tail->done ? 0 : fw_sub_next(r->sub, &ev, LOOK_MS);
        }
        if (kind > 0)
            on_event(r, &ev);
        else if (kind < 0)
            tail_fail(tail, 1, "%s", fw_sub_error(r->sub));
        else if (!r->was_ready && clock_monotonic_ms() > until)
            tail_fail(tail, 3, "the source did not answer in %d s%s%s; \"fanwire serve\" tells why",
                      PATIENCE_MS / 1000, r->down[0] ? ": " : "", r->down);
        else
            (void)tail_is_wanted(tail);
    }
    tail_flush(tail);
}

int tail_source(struct tail *tail)
{
    struct reading r = { .tail = tail, .envelope = buf_make(64u << 20) };
    struct fw_error err = { 0 };
    int n = open_all(&r, &err);
    if (n < 0)
        tail_fail(tail, n == -EINVAL ? 2 : 1, "%s%s", err.message, r.hub ? "" : "; " WEB_HINT);
    else
        read_all(&r);
    fw_sub_close(r.sub);
    fw_hub_close(r.hub);
    buf_done(&r.envelope);
    return tail->code;
}
