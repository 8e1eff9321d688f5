/* A worker's link to the source process: the inbox, its death and rebirth, its beat.
 *
 * To attach takes LINK_FDS descriptors, and clients may have all the others. So as many are always
 * held: by the link itself, and the rest as duplicates that are given up for just the call that
 * needs them. */
#include "turn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
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

/* ---- its descriptors ---- */

static void release(struct worker *w)
{
    for (size_t i = 0; i < LINK_FDS; i++) {
        if (w->link_fds[i] >= 0)
            close(w->link_fds[i]);
        w->link_fds[i] = -1;
    }
}

bool link_reserve(struct worker *w)
{
    size_t used = (w->reader != NULL) + (w->event_fd >= 0);
    for (size_t i = used; i < LINK_FDS; i++) {
        if (w->link_fds[i] < 0)
            w->link_fds[i] = fcntl(w->loop.fd, F_DUPFD_CLOEXEC, 0);
        if (w->link_fds[i] < 0)
            return false;
    }
    return true;
}

/* Said once per outage: it is tried again many times a second. */
static void note_failure(struct worker *w, int error)
{
    struct rlimit limit = { 0, 0 };
    char text[192];
    if ((error != -EMFILE && error != -ENFILE) || w->lacks_fds)
        return;
    w->lacks_fds = true;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    (void)snprintf(text, sizeof(text),
                   "no descriptors are free to reach the source process (%u clients, the limit of "
                   "open files is %llu): tried again as clients leave; raise the limit",
                   w->n_conns, (unsigned long long)limit.rlim_cur);
    if (w->options->warn)
        w->options->warn(w->options->arg, "out-of-descriptors", text);
}

/* ---- its life ---- */

void link_init(struct worker *w)
{
    for (size_t i = 0; i < LINK_FDS; i++)
        w->link_fds[i] = -1;
    w->detached_ms = w->now_ms;
}

void link_done(struct worker *w)
{
    reader_close(w->reader);
    w->reader = NULL;
    release(w);
}

static int open_reader(struct worker *w)
{
    const struct worker_options *options = w->options;
    release(w);
    int r = reader_connect(&options->inbox, options->inbox_len, &w->reader);
    (void)link_reserve(w);
    return r;
}

void link_connect(struct worker *w)
{
    if (w->reader || w->now_ms < w->reconnect_ms)
        return;
    w->reconnect_ms = w->now_ms + RECONNECT_MS;
    int r = open_reader(w);
    if (r < 0) {
        note_failure(w, r);
        return;
    }
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
        w->reconnect_ms = w->detached_ms = w->now_ms;
    w->event_fd = -1;
    (void)link_reserve(w);
    publishes_fail(w);
    channels_forget_source(w);
    link_connect(w);
}

/* Its greeting may come, and two descriptors with it. */
static int await_greeting(struct worker *w)
{
    release(w);
    int r = reader_process(w->reader, &handlers, w);
    if (r == 0 && reader_eventfd(w->reader) >= 0) {
        w->event_fd = reader_eventfd(w->reader);
        w->lacks_fds = false;
        (void)loop_add(&w->loop, w->event_fd, &w->event_fd);
    }
    (void)link_reserve(w);
    return r;
}

void link_process(struct worker *w)
{
    if (!w->reader)
        return;
    int r = w->event_fd < 0 ? await_greeting(w) : reader_process(w->reader, &handlers, w);
    if (r < 0) {
        note_failure(w, r);
        link_lost(w);
        return;
    }
    tell_source(w);
    snapshots_tell(w);
    publish_resend(w);
}

/* Its beat has stopped; or it may beat, but nothing can be asked of it from here. */
static bool is_hung(const struct worker *w)
{
    int64_t beat = log_beat(w->log);
    bool detached = w->event_fd < 0 && w->now_ms - w->detached_ms > HUNG_MS;
    return detached || (beat && w->now_ms - beat > HUNG_MS);
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
    bool hung = is_hung(w);
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
