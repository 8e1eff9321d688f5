/* The SQLite source: what is inserted into the table fanwire_outbox of a database file, by whatever
 * process, is an event.
 *
 * SQLite's calls block (locks, the disk), so they all happen in one thread (sqlite_reader.c), which
 * hands notes to the loop, here, in order (sqlite_mailbox.c). Positions are the table's ids, which
 * rise in the order of commits; the log is filled from the table at the start, and gone on with
 * when only this process was restarted.
 *
 * A publish is answered after its event was appended, not just when it is committed: a reader that
 * comes with the id of what it has published finds it in the log. */
#include "error.h"
#include "sqlite_reader.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define REPEAT_MS 60000

struct fw_source {
    struct fw_host *host;
    struct sqlite_url url;
    struct sqlite_mailbox box;
    struct sqlite_reader reader; /* the thread's, once it runs */
    pthread_t thread;
    bool started;
    bool open;   /* publishes are taken */
    bool opened; /* … and pauses are minded */
    bool paused;
    uint64_t n_gaps;
    int64_t gap_told_ms; /* in the log: once a minute */
};

/* ---- notes ---- */

static void to_position(int64_t id, uint64_t pos[2])
{
    pos[0] = (uint64_t)id;
    pos[1] = id == 0; /* {0, 0} is none */
}

static void take_start(struct fw_source *s, const struct sqlite_note *note)
{
    uint64_t pos[2] = { 0 };
    bool known = fw_host_continue(s->host, note->identity, pos);
    mailbox_answer_start(&s->box, known, (int64_t)pos[0]);
}

static void tell_gap(struct fw_source *s, int64_t id, bool history)
{
    uint64_t pos[2];
    to_position(id, pos);
    fw_host_gap(s->host, "expired", pos, history);
    int64_t now = fw_host_now_ms(s->host);
    s->n_gaps++;
    if (s->gap_told_ms && now - s->gap_told_ms < REPEAT_MS)
        return;
    s->gap_told_ms = now;
    fw_host_log(
        s->host, FW_LOG_WARNING, "rows-missing",
        "rows of fanwire_outbox up to id %lld were removed before they were read: a gap (%llu "
        "in all)",
        (long long)id, (unsigned long long)s->n_gaps);
}

static void take_events(struct fw_source *s, const struct sqlite_note *note)
{
    for (unsigned i = 0; i < note->batch->n; i++) {
        struct fw_source_event event = sqlite_batch_event(note->batch, i, note->history);
        if (note->batch->events[i].gap)
            tell_gap(s, note->batch->events[i].id - 1, note->history);
        (void)fw_host_append(s->host, &event);
    }
    bool go_on = fw_host_flush(s->host);
    if (s->opened && !go_on)
        s->paused = true; /* what is re-read before that is not delivered to anybody */
}

static void answer(struct fw_source *s, struct sqlite_publish *p)
{
    const uint64_t pos[2] = { (uint64_t)p->id, 0 };
    if (p->code)
        fw_host_published(s->host, p->request, p->code, p->message, NULL);
    else
        fw_host_published(s->host, p->request, NULL, NULL, fw_host_id(s->host, pos));
    free(p);
}

static void refuse_all(struct fw_source *s, struct sqlite_publishes *queue)
{
    for (struct sqlite_publish *p; (p = sqlite_publishes_pop(queue));) {
        fw_host_published(s->host, p->request, "source-down", "not stored: the database was lost",
                          NULL);
        free(p);
    }
}

static void take_answers(struct fw_source *s, struct sqlite_note *note)
{
    for (struct sqlite_publish *p; (p = sqlite_publishes_pop(&note->answers));)
        answer(s, p);
}

static bool rows_contain(const void *arg, const uint64_t pos[2], uint64_t xid)
{
    const struct sqlite_note *note = arg;
    (void)xid;
    return pos[0] <= (uint64_t)note->id;
}

static void take_snapshot(struct fw_source *s, const struct sqlite_note *note)
{
    struct fw_snapshot snapshot = { .rows = (const char *)note->rows.data,
                                    .len = note->rows.len,
                                    .contains = rows_contain,
                                    .arg = note };
    to_position(note->id, snapshot.floor);
    if (note->code)
        fw_host_snapshot_refused(s->host, note->request, note->code, note->text);
    else
        fw_host_snapshot(s->host, note->request, &snapshot);
}

static void take_opened(struct fw_source *s, const struct sqlite_note *note)
{
    s->open = s->opened = true;
    fw_host_opened(s->host, "outbox",
                   "every committed event once, in commit order, across restarts", note->identity);
}

static void take_lost(struct fw_source *s, const struct sqlite_note *note)
{
    struct sqlite_publishes late = { 0 };
    s->open = s->opened = s->paused = false;
    mailbox_take_publishes(&s->box, &late);
    refuse_all(s, &late);
    fw_host_lost(s->host, "connection-lost", note->text);
}

static void take(struct fw_source *s, struct sqlite_note *note)
{
    uint64_t pos[2];
    to_position(note->id, pos);
    switch (note->kind) {
    case NOTE_LOG:
        fw_host_log(s->host, note->level, note->event, "%s", note->text);
        break;
    case NOTE_START:
        take_start(s, note);
        break;
    case NOTE_BEGIN:
        fw_host_begin(s->host, note->identity, pos);
        break;
    case NOTE_EVENTS:
        take_events(s, note);
        break;
    case NOTE_GAP:
        tell_gap(s, note->id, note->history);
        break;
    case NOTE_OPENED:
        take_opened(s, note);
        break;
    case NOTE_ANSWERS:
        take_answers(s, note);
        break;
    case NOTE_SNAPSHOT:
        take_snapshot(s, note);
        break;
    case NOTE_LOST:
        take_lost(s, note);
        break;
    }
}

/* Takes one batch of events at most: the loop has readers to serve in between. */
static void on_notes(void *arg)
{
    struct fw_source *s = arg;
    for (struct sqlite_note *note; !s->paused && (note = mailbox_first(&s->box));) {
        bool events = note->kind == NOTE_EVENTS;
        take(s, note);
        mailbox_drop_first(&s->box);
        if (events) {
            fw_waker_wake(s->box.waker);
            return;
        }
    }
}

/* ---- the class ---- */

static int sqlite_create(struct fw_host *host, const char *url, struct fw_source **ret,
                         struct fw_error *err)
{
    struct fw_source *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, -ENOMEM, "out of memory for the source");
    int r = sqlite_url_parse(url, &s->url, err);
    if (r < 0) {
        free(s);
        return r;
    }
    s->host = host;
    *ret = s;
    return 0;
}

/* The application's signals are not for this thread. */
static int start_thread(struct fw_source *s)
{
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&s->thread, NULL, sqlite_reader_run, &s->reader);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static int start(struct fw_source *s)
{
    size_t max = fw_host_event_max(s->host);
    int r = mailbox_init(&s->box);
    if (r == 0)
        r = fw_host_waker(s->host, on_notes, s, &s->box.waker);
    s->reader = (struct sqlite_reader){
        .box = &s->box,
        .outbox = { .url = &s->url, .stop = &s->box.stop, .event_max = max },
        .budget = (uint64_t)max * 12, /* an event is 1/16 of the log at most: three quarters */
        .watch = { .fd = -1 },
    };
    if (r == 0)
        r = start_thread(s);
    s->started = r == 0;
    if (r == 0)
        return 0;
    fw_waker_free(s->box.waker);
    mailbox_done(&s->box);
    return r;
}

static void sqlite_open(struct fw_source *s)
{
    int r = s->started ? 0 : start(s);
    if (r < 0)
        fw_host_lost(s->host, "connection-lost", strerror(-r));
    else
        mailbox_want_open(&s->box);
}

static bool copy_all(struct fw_source *s, const struct fw_publish *events, size_t n,
                     struct sqlite_publishes *ret)
{
    int64_t now = fw_host_now_ms(s->host);
    for (size_t i = 0; i < n; i++) {
        struct sqlite_publish *copy = sqlite_publish_new(&events[i], now);
        if (!copy)
            break;
        copy->more = i + 1 < n;
        sqlite_publishes_push(ret, copy);
        if (!copy->more)
            return true;
    }
    for (struct sqlite_publish *p; (p = sqlite_publishes_pop(ret));)
        free(p);
    return false;
}

static void sqlite_publish_batch(struct fw_source *s, const struct fw_publish *events, size_t n)
{
    struct sqlite_publishes batch = { 0 };
    bool copied = s->open && copy_all(s, events, n, &batch);
    if (copied) {
        mailbox_push_publishes(&s->box, &batch);
        return;
    }
    for (size_t i = 0; i < n; i++)
        fw_host_published(s->host, events[i].request, s->open ? "overloaded" : "source-down",
                          s->open ? "out of memory" : "the database is not open", NULL);
}

static void sqlite_publish(struct fw_source *s, const struct fw_publish *publish)
{
    sqlite_publish_batch(s, publish, 1);
}

static void sqlite_snapshot(struct fw_source *s, uint64_t request, const char *sql)
{
    mailbox_push_snapshot(&s->box, request, sql);
}

static void sqlite_pause(struct fw_source *s, bool paused)
{
    s->paused = paused;
    if (!paused && s->started)
        fw_waker_wake(s->box.waker);
}

/* What the thread has left behind is answered as it happened. */
static void stop(struct fw_source *s)
{
    mailbox_stop(&s->box);
    (void)pthread_join(s->thread, NULL);
    for (struct sqlite_note *note; (note = mailbox_first(&s->box));) {
        take_answers(s, note);
        mailbox_drop_first(&s->box);
    }
    refuse_all(s, &s->box.publishes);
    fw_waker_free(s->box.waker);
    mailbox_done(&s->box);
}

static void sqlite_destroy(struct fw_source *s)
{
    if (!s)
        return;
    if (s->started)
        stop(s);
    sqlite_url_done(&s->url);
    free(s);
}

extern const struct fw_source_class source_sqlite;
const struct fw_source_class source_sqlite = {
    .kind = "sqlite",
    .schemes = "sqlite sqlite3",
    .traits = FW_SOURCE_DURABLE | FW_SOURCE_ORDERED,
    .create = sqlite_create,
    .open = sqlite_open,
    .publish = sqlite_publish,
    .publish_batch = sqlite_publish_batch,
    .pause = sqlite_pause,
    .snapshot = sqlite_snapshot,
    .destroy = sqlite_destroy,
};
