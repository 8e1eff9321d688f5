/* A worker's link to the source process: the inbox, its death and rebirth, its beat. */
#include "turn.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RECONNECT_MS 20
#define HUNG_MS      3000
#define CHECK_MS     500

static void on_source(void *worker, const char *kind, const char *mode, bool durable,
                      const char *guarantee)
{
    struct worker *w = worker;
    (void)guarantee;
    (void)snprintf(w->kind, sizeof(w->kind), "%s", kind);
    (void)snprintf(w->mode, sizeof(w->mode), "%s", mode);
    w->durable = durable;
}

static const struct reader_handlers handlers = {
    .ready = on_ready,
    .refused = on_refused,
    .published = on_published,
    .rows = on_rows,
    .source = on_source,
};

void link_connect(struct worker *w)
{
    const struct worker_options *options = w->options;
    if (w->reader || w->now_ms < w->reconnect_ms)
        return;
    w->reconnect_ms = w->now_ms + RECONNECT_MS;
    if (reader_connect(&options->inbox, options->inbox_len, &w->reader) < 0)
        return;
    if (loop_add(&w->loop, reader_fd(w->reader), &w->reader) < 0) {
        reader_close(w->reader);
        w->reader = NULL;
        return;
    }
    tell_source(w);
}

static void link_lost(struct worker *w)
{
    loop_remove(&w->loop, reader_fd(w->reader));
    if (w->event_fd >= 0) /* by hand: the other side may still hold this eventfd */
        loop_remove(&w->loop, w->event_fd);
    reader_close(w->reader);
    w->reader = NULL;
    if (w->event_fd >= 0) /* it had greeted: no need to wait before asking its successor */
        w->reconnect_ms = w->now_ms;
    w->event_fd = -1;
    publishes_fail(w);
    channels_forget_source(w);
    link_connect(w);
}

void link_process(struct worker *w)
{
    if (!w->reader)
        return;
    if (reader_process(w->reader, &handlers, w) < 0) {
        link_lost(w);
        return;
    }
    if (w->event_fd < 0 && reader_eventfd(w->reader) >= 0) {
        w->event_fd = reader_eventfd(w->reader);
        (void)loop_add(&w->loop, w->event_fd, &w->event_fd);
    }
    tell_source(w);
    snapshots_tell(w);
    publish_resend(w);
}

/* A source process that hangs is told apart from one that is quiet. */
void link_check(struct worker *w)
{
    if (w->now_ms < w->next_check_ms)
        return;
    w->next_check_ms = w->now_ms + CHECK_MS;
    /* A send that failed for lack of kernel memory is followed by no writable edge. */
    tell_source(w);
    snapshots_tell(w);
    publish_resend(w);
    int64_t beat = log_beat(w->log);
    bool hung = beat && w->now_ms - beat > HUNG_MS;
    if (hung == w->hung)
        return;
    if (!hung && ingest_pending(w)) {
        /* The first beat of another source process; the `down` that it began with comes first, or
         * it would be told as a new one. */
        w->next_check_ms = w->now_ms;
        return;
    }
    w->hung = hung;
    w->down = w->log_down || w->hung;
    walker_start(&w->everyone, &w->dirty, w->n_conns); /* each visit tells it */
}
