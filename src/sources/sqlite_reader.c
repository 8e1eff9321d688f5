/* The thread that holds the database.
 *
 * A session: open; ask the loop how far the log is; either go on from there, or re-read what the
 * table holds (as history); then follow: look, hand over what is new, store publishes, prune, wait.
 * It ends with the file's replacement, an error, or a lock that lasts; the hub opens the next one.
 *
 * Functions return ≥ 0; -EAGAIN when the database is locked; else the session is over, as the
 * outbox's `error` tells.
 *
 * Between looks nothing is held: no transaction stays open, so that checkpoints and other writers
 * are not kept waiting. A row is never pruned before it was handed over. */
#include "sqlite_reader.h"

#include "clock.h"
#include "sqlite_snapshot.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCKED_MS     5000 /* locked for so long: say `down`, refuse publishes */
#define AGAIN_US      5000 /* after a lock was met */
#define PRUNE_MS      1000
#define PUBLISH_MAX   256
#define PUBLISH_BYTES (1u << 20)

static bool stopped(const struct sqlite_reader *r)
{
    return atomic_load_explicit(&r->box->stop, memory_order_relaxed);
}

/* ---- telling the loop ---- */

/* Without memory for a note there is only one way on: a new session, later. */
static int no_memory(struct sqlite_reader *r)
{
    (void)snprintf(r->outbox.error, sizeof(r->outbox.error), "out of memory");
    return -EIO;
}

static int post(struct sqlite_reader *r, struct sqlite_note *note)
{
    return mailbox_post(r->box, note) ? 0 : -ECANCELED;
}

__attribute__((format(printf, 4, 5))) static void
say(struct sqlite_reader *r, enum fw_log_level level, const char *event, const char *format, ...)
{
    struct sqlite_note *note = note_new(NOTE_LOG);
    va_list args;
    if (!note)
        return;
    note->level = level;
    note->event = event;
    va_start(args, format);
    (void)vsnprintf(note->text, sizeof(note->text), format, args);
    va_end(args);
    (void)mailbox_post(r->box, note);
}

static int end_session(struct sqlite_reader *r, const char *why)
{
    (void)snprintf(r->outbox.error, sizeof(r->outbox.error), "%.200s: %s", r->outbox.url->path,
                   why);
    return -ECANCELED;
}

static int post_gap(struct sqlite_reader *r, int64_t id, bool history)
{
    struct sqlite_note *note = note_new(NOTE_GAP);
    if (!note)
        return no_memory(r);
    note->id = id;
    note->history = history;
    return post(r, note);
}

/* ---- reading ---- */

/* Hands over all rows after `last`. Returns 1 when there were any, 0 when none, or an error. */
static int hand_over(struct sqlite_reader *r, bool history)
{
    int found = 0;
    for (int more = 1; more == 1;) {
        struct sqlite_note *note = note_new(NOTE_EVENTS);
        if (!note || !(note->batch = sqlite_batch_new(r->outbox.event_max))) {
            note_free(note);
            return no_memory(r);
        }
        note->history = history;
        more = sqlite_outbox_read(&r->outbox, r->last, note->batch);
        if (more < 0 || note->batch->n == 0) {
            note_free(note);
            return more < 0 ? more : found;
        }
        r->last = note->batch->events[note->batch->n - 1].id;
        found = 1;
        if (post(r, note) < 0)
            return -ECANCELED;
    }
    return found;
}

/* Ids were given after the last row that is there: rows came and went before they were read. */
static int check_end(struct sqlite_reader *r, bool history)
{
    if (r->last >= r->outbox.newest)
        return 0;
    r->last = r->outbox.newest;
    return post_gap(r, r->last, history);
}

/* Looks for what others, or we, have committed. Returns 1 when there was something. */
static int look(struct sqlite_reader *r)
{
    int changed = sqlite_outbox_changed(&r->outbox);
    if (changed < 0)
        return changed;
    r->dirty |= changed;
    if (!r->dirty)
        return 0;
    int other = sqlite_outbox_state(&r->outbox);
    if (other < 0)
        return other;
    if (other || r->outbox.newest < r->last)
        return end_session(r, "another or an older database has been put in its place");
    int found = hand_over(r, false);
    if (found < 0)
        return found;
    r->dirty = false;
    int e = check_end(r, false);
    return e < 0 ? e : found;
}

/* ---- starting ---- */

static void describe(struct sqlite_reader *r)
{
    const struct sqlite_outbox *o = &r->outbox;
    const char *path = o->url->path;
    if (o->made & OUTBOX_FILE_MADE)
        say(r, FW_LOG_INFO, "created", "made the database %s: it was not there", path);
    if (o->made & OUTBOX_TABLE_MADE)
        say(r, FW_LOG_INFO, "installed", "made the tables fanwire_outbox and fanwire_meta in %s",
            path);
    if (r->told)
        return;
    r->told = true;
    if (o->readonly)
        say(r, FW_LOG_WARNING, "read-only",
            "%s can only be read: publishing is refused, and old events are not removed", path);
    if (!o->wal && !o->readonly)
        say(r, FW_LOG_WARNING, "journal",
            "%s has a rollback journal: its readers and writers keep each other waiting; better: "
            "PRAGMA journal_mode = WAL",
            path);
    if (r->watch.fd < 0)
        say(r, FW_LOG_WARNING, "no-inotify",
            "changes of %s can't be watched here (fs.inotify.max_user_watches?); it is polled",
            path);
}

static int ask_start(struct sqlite_reader *r, bool *ret_known, int64_t *ret_from)
{
    struct sqlite_note *note = note_new(NOTE_START);
    if (!note)
        return no_memory(r);
    note->identity = r->outbox.identity;
    int e = post(r, note);
    return e == 0 && mailbox_await_start(r->box, ret_known, ret_from) ? 0 : -ECANCELED;
}

/* Fills the log with what the table holds, or the newest part of it. */
static int refill(struct sqlite_reader *r)
{
    int e = sqlite_outbox_floor(&r->outbox, r->budget, &r->last);
    if (e < 0)
        return e;
    struct sqlite_note *note = note_new(NOTE_BEGIN);
    if (!note)
        return no_memory(r);
    note->identity = r->outbox.identity;
    note->id = r->last;
    e = post(r, note);
    if (e == 0)
        e = hand_over(r, true);
    return e < 0 ? e : check_end(r, true);
}

static int go_on_or_refill(struct sqlite_reader *r)
{
    bool known;
    int64_t from;
    int e = ask_start(r, &known, &from);
    if (e == 0 && known && from > r->outbox.newest) {
        say(r, FW_LOG_WARNING, "restored",
            "%s is older than what was read from it (an older copy was restored?): its events "
            "begin "
            "anew, and every client is told a gap",
            r->outbox.url->path);
        e = sqlite_outbox_new_identity(&r->outbox);
        if (e >= 0)
            e = ask_start(r, &known, &from);
    }
    if (e < 0)
        return e;
    if (!known)
        return refill(r);
    r->last = from;
    return 0;
}

static int start(struct sqlite_reader *r)
{
    int e = sqlite_outbox_open(&r->outbox);
    if (e < 0)
        return e;
    sqlite_watch_open(&r->watch, r->outbox.url->path);
    r->watch.step = 1;
    describe(r);
    r->dirty = true;
    r->locked_ms = r->prune_ms = 0;
    e = go_on_or_refill(r);
    if (e < 0)
        return e;
    struct sqlite_note *note = note_new(NOTE_OPENED);
    if (!note)
        return no_memory(r);
    note->identity = r->outbox.identity;
    return post(r, note);
}

/* ---- publishing ---- */

static void answer_with(struct sqlite_publishes *queue, struct sqlite_publish *first,
                        const char *code, const char *message)
{
    for (struct sqlite_publish *p = first, *next; p; p = next) {
        next = p->next;
        p->code = code;
        (void)snprintf(p->message, sizeof(p->message), "not stored: %.140s", message);
        sqlite_publishes_push(queue, p);
    }
}

static struct sqlite_note *answers(struct sqlite_reader *r)
{
    if (!r->answers)
        r->answers = note_new(NOTE_ANSWERS);
    return r->answers;
}

static void post_answers(struct sqlite_reader *r)
{
    struct sqlite_note *note = r->answers;
    r->answers = NULL;
    if (note)
        (void)mailbox_post(r->box, note);
}

/* Up to so many of the waiting, in a queue of their own; a batch is not cut. */
static struct sqlite_publishes next_batch(struct sqlite_reader *r)
{
    struct sqlite_publishes batch = { 0 };
    size_t bytes = 0;
    bool more = false;
    for (int n = 0; (more || (n < PUBLISH_MAX && bytes < PUBLISH_BYTES)) && r->waiting.first; n++) {
        struct sqlite_publish *p = sqlite_publishes_pop(&r->waiting);
        bytes += p->len;
        more = p->more;
        sqlite_publishes_push(&batch, p);
    }
    return batch;
}

static void put_back(struct sqlite_reader *r, struct sqlite_publishes batch)
{
    sqlite_publishes_move(&batch, &r->waiting);
    r->waiting = batch;
    if (!batch.first)
        r->waiting.last = &r->waiting.first;
}

/* Locked by others: those that have waited long enough are told so, the others wait on. */
static void refuse_old(struct sqlite_reader *r, struct sqlite_publishes *batch)
{
    int64_t now = clock_monotonic_ms();
    struct sqlite_publishes still = { 0 };
    for (struct sqlite_publish *p; (p = sqlite_publishes_pop(batch));) {
        p->next = NULL;
        if (now - p->since_ms < LOCKED_MS)
            sqlite_publishes_push(&still, p);
        else
            answer_with(&r->answers->answers, p, "overloaded",
                        "the database has been locked by another process for 5 s");
    }
    put_back(r, still);
}

/* Stores a batch of publishes. Returns true when something was stored. */
static bool publish(struct sqlite_reader *r)
{
    mailbox_take_publishes(r->box, &r->waiting);
    if (!r->waiting.first || !answers(r))
        return false;
    struct sqlite_publishes batch = next_batch(r);
    int e = sqlite_outbox_publish(&r->outbox, batch.first);
    if (e == 0)
        sqlite_publishes_move(&r->answers->answers, &batch);
    else if (e == -EAGAIN)
        refuse_old(r, &batch);
    else
        answer_with(&r->answers->answers, batch.first,
                    e == -EROFS ? "source-refused" : "source-down", r->outbox.error);
    return e == 0;
}

/* ---- snapshots ---- */

static bool take_question(struct sqlite_reader *r)
{
    uint64_t request;
    const char *sql = mailbox_take_snapshot(r->box, &request);
    if (sql && !(r->snapshot = note_new(NOTE_SNAPSHOT)))
        mailbox_push_snapshot(r->box, request, sql); /* later */
    if (!r->snapshot)
        return false;
    r->snapshot->request = request;
    r->snapshot->rows = buf_make(FW_SNAPSHOT_MAX);
    r->snapshot_sql = sql;
    r->snapshot_ms = clock_monotonic_ms();
    return true;
}

static const char *snapshot_code(int e)
{
    return e == -EMSGSIZE ? "too-large" : e == -EINVAL ? "source-refused" : "overloaded";
}

/* Reads the rows, if they are asked for. */
static void read_snapshot(struct sqlite_reader *r)
{
    if (!r->snapshot && !take_question(r))
        return;
    struct sqlite_note *note = r->snapshot;
    if (!r->snapshot_sql)
        return;
    int e = sqlite_snapshot_read(&r->outbox, r->snapshot_sql, &note->rows, &note->id);
    bool late = clock_monotonic_ms() - r->snapshot_ms >= LOCKED_MS;
    if (e < 0)
        buf_clear(&note->rows);
    if (e == -EAGAIN && !late)
        return;
    r->snapshot_sql = NULL;
    r->dirty = true; /* what the rows contain goes before them */
    if (e == 0)
        return;
    note->id = 0;
    note->code = snapshot_code(e);
    (void)snprintf(note->text, sizeof(note->text), "%s",
                   e == -EAGAIN ? "the database has been locked by another process for 5 s"
                                : r->outbox.error);
}

static void post_snapshot(struct sqlite_reader *r)
{
    struct sqlite_note *note = r->snapshot;
    if (!note || r->snapshot_sql || r->last < note->id)
        return;
    r->snapshot = NULL;
    (void)mailbox_post(r->box, note);
}

/* The hub asks the next session again. */
static void drop_snapshot(struct sqlite_reader *r)
{
    uint64_t request;
    (void)mailbox_take_snapshot(r->box, &request);
    note_free(r->snapshot);
    r->snapshot = NULL;
    r->snapshot_sql = NULL;
}

/* ---- pruning ---- */

static void prune(struct sqlite_reader *r)
{
    int64_t now = clock_monotonic_ms();
    if (now < r->prune_ms)
        return;
    int e = sqlite_outbox_prune(&r->outbox, r->last, clock_realtime_ms());
    r->prune_ms = e == 1 ? now : now + PRUNE_MS;
    if (e < 0 && e != -EAGAIN && !r->told_prune) {
        r->told_prune = true;
        say(r, FW_LOG_WARNING, "prune-failed", "old events are not removed: %.300s",
            r->outbox.error);
    }
}

/* ---- following ---- */

static void wait_us(struct sqlite_reader *r, int64_t us)
{
    struct pollfd fds[] = { { .fd = r->box->wake_fd, .events = POLLIN },
                            { .fd = r->watch.fd, .events = POLLIN } };
    const struct timespec time = { us / 1000000, us % 1000000 * 1000 };
    uint64_t word;
    if (ppoll(fds, 2, &time, NULL) > 0 && fds[0].revents)
        (void)!read(r->box->wake_fd, &word, sizeof(word));
}

static int64_t patience_us(const struct sqlite_reader *r)
{
    int64_t us = sqlite_watch_wait_us(&r->watch, clock_monotonic_us());
    bool again =
        r->waiting.first || r->snapshot || r->locked_ms || r->prune_ms <= clock_monotonic_ms();
    return again && us > AGAIN_US ? AGAIN_US : us;
}

/* A lock that lasts is an outage: clients are told that they hear nothing new. */
static int locked(struct sqlite_reader *r)
{
    int64_t now = clock_monotonic_ms();
    r->locked_ms = r->locked_ms ? r->locked_ms : now;
    return now - r->locked_ms < LOCKED_MS
               ? 0
               : end_session(r, "another process has had it locked for 5 s");
}

static int follow_once(struct sqlite_reader *r)
{
    bool idle = r->watch.step == 0 || sqlite_watch_wait_us(&r->watch, 0) > AGAIN_US;
    unsigned seen = sqlite_watch_take(&r->watch);
    if ((seen & WATCH_DIRECTORY || idle) && sqlite_outbox_moved(&r->outbox))
        return end_session(r, "the file has been removed or replaced");
    r->dirty |= publish(r);
    read_snapshot(r);
    int found = look(r);
    if (found == -EAGAIN)
        return locked(r);
    if (found < 0)
        return found;
    r->locked_ms = 0;
    post_answers(r);
    post_snapshot(r);
    if (sqlite_watch_looked(&r->watch, found > 0, clock_monotonic_us()))
        say(r, FW_LOG_WARNING, "polling",
            "this file system does not tell of changes of %s: it is polled every few milliseconds",
            r->outbox.url->path);
    prune(r);
    return 0;
}

static int follow(struct sqlite_reader *r)
{
    int e = 0;
    while (e == 0 && !stopped(r)) {
        e = follow_once(r);
        if (e == 0)
            wait_us(r, patience_us(r));
    }
    return e;
}

/* ---- sessions ---- */

/* Everything that waits is answered before the loss is told. */
static void end(struct sqlite_reader *r)
{
    drop_snapshot(r);
    sqlite_outbox_close(&r->outbox);
    sqlite_watch_close(&r->watch);
    mailbox_take_publishes(r->box, &r->waiting);
    if (r->waiting.first && answers(r)) {
        answer_with(&r->answers->answers, r->waiting.first, "source-down", r->outbox.error);
        r->waiting.first = NULL;
    }
    post_answers(r);
    struct sqlite_note *note = note_new(NOTE_LOST);
    while (!note && !stopped(r)) { /* the loop must hear of it */
        wait_us(r, AGAIN_US);
        note = note_new(NOTE_LOST);
    }
    if (!note)
        return;
    (void)snprintf(note->text, sizeof(note->text), "%s", r->outbox.error);
    (void)mailbox_post(r->box, note);
}

void *sqlite_reader_run(void *arg)
{
    struct sqlite_reader *r = arg;
    while (mailbox_await_open(r->box)) {
        r->watch.fd = -1;
        if (start(r) == 0)
            (void)follow(r);
        end(r);
    }
    return NULL;
}
