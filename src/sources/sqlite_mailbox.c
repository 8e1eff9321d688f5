/* Between the hub's loop and the thread that holds the database. */
#include "sqlite_mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_init(struct sqlite_mailbox *box)
{
    *box = (struct sqlite_mailbox){ .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
    list_init(&box->notes);
    (void)pthread_mutex_init(&box->lock, NULL);
    (void)pthread_cond_init(&box->changed, NULL);
    return box->wake_fd < 0 ? -errno : 0;
}

void mailbox_done(struct sqlite_mailbox *box)
{
    while (mailbox_first(box))
        mailbox_drop_first(box);
    if (box->wake_fd >= 0)
        (void)close(box->wake_fd);
    (void)pthread_mutex_destroy(&box->lock);
    (void)pthread_cond_destroy(&box->changed);
}

/* ---- the thread's ---- */

struct sqlite_note *note_new(enum sqlite_note_kind kind)
{
    struct sqlite_note *note = calloc(1, sizeof(*note));
    if (note)
        note->kind = kind;
    return note;
}

void note_free(struct sqlite_note *note)
{
    if (!note)
        return;
    sqlite_batch_free(note->batch);
    buf_done(&note->rows);
    free(note);
}

static bool stopped(const struct sqlite_mailbox *box)
{
    return atomic_load_explicit(&box->stop, memory_order_relaxed); /* read under the lock, too */
}

static size_t weight(const struct sqlite_note *note)
{
    return note->batch ? sizeof(*note->batch) + note->batch->bytes.cap : 0;
}

bool mailbox_post(struct sqlite_mailbox *box, struct sqlite_note *note)
{
    size_t bytes = weight(note);
    pthread_mutex_lock(&box->lock);
    while (bytes > 0 && box->bytes > 0 && box->bytes + bytes > MAILBOX_BYTES && !stopped(box))
        pthread_cond_wait(&box->changed, &box->lock);
    bool taken = !stopped(box) || note->kind == NOTE_ANSWERS;
    if (taken) {
        list_push(&box->notes, &note->node);
        box->bytes += bytes;
    }
    pthread_mutex_unlock(&box->lock);
    if (!taken)
        note_free(note);
    else if (!stopped(box))
        fw_waker_wake(box->waker);
    return taken;
}

bool mailbox_await_open(struct sqlite_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    while (!box->open_wanted && !stopped(box))
        pthread_cond_wait(&box->changed, &box->lock);
    box->open_wanted = false;
    pthread_mutex_unlock(&box->lock);
    return !stopped(box);
}

bool mailbox_await_start(struct sqlite_mailbox *box, bool *ret_known, int64_t *ret_from)
{
    pthread_mutex_lock(&box->lock);
    while (!box->start_answered && !stopped(box))
        pthread_cond_wait(&box->changed, &box->lock);
    box->start_answered = false;
    *ret_known = box->start_known;
    *ret_from = box->start_from;
    pthread_mutex_unlock(&box->lock);
    return !stopped(box);
}

void mailbox_take_publishes(struct sqlite_mailbox *box, struct sqlite_publishes *ret)
{
    pthread_mutex_lock(&box->lock);
    sqlite_publishes_move(ret, &box->publishes);
    pthread_mutex_unlock(&box->lock);
}

const char *mailbox_take_snapshot(struct sqlite_mailbox *box, uint64_t *ret_request)
{
    pthread_mutex_lock(&box->lock);
    const char *sql = box->snapshot_sql;
    *ret_request = box->snapshot_request;
    box->snapshot_sql = NULL;
    pthread_mutex_unlock(&box->lock);
    return sql;
}

/* ---- the loop's ---- */

struct sqlite_note *mailbox_first(struct sqlite_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct list *first = box->notes.next;
    bool empty = list_empty(&box->notes);
    pthread_mutex_unlock(&box->lock);
    return empty ? NULL : list_entry(first, struct sqlite_note, node);
}

void mailbox_drop_first(struct sqlite_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct sqlite_note *note = list_entry(list_pop(&box->notes), struct sqlite_note, node);
    box->bytes -= weight(note);
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->lock);
    note_free(note);
}

void mailbox_want_open(struct sqlite_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->open_wanted = true;
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->lock);
}

void mailbox_answer_start(struct sqlite_mailbox *box, bool known, int64_t from)
{
    pthread_mutex_lock(&box->lock);
    box->start_answered = true;
    box->start_known = known;
    box->start_from = from;
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->lock);
}

void mailbox_push_publishes(struct sqlite_mailbox *box, struct sqlite_publishes *batch)
{
    pthread_mutex_lock(&box->lock);
    bool first = !box->publishes.first;
    sqlite_publishes_move(&box->publishes, batch);
    pthread_mutex_unlock(&box->lock);
    if (first)
        (void)eventfd_write(box->wake_fd, 1);
}

void mailbox_push_snapshot(struct sqlite_mailbox *box, uint64_t request, const char *sql)
{
    pthread_mutex_lock(&box->lock);
    box->snapshot_request = request;
    box->snapshot_sql = sql;
    pthread_mutex_unlock(&box->lock);
    (void)eventfd_write(box->wake_fd, 1);
}

void mailbox_stop(struct sqlite_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    atomic_store_explicit(&box->stop, true, memory_order_relaxed);
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->lock);
    (void)eventfd_write(box->wake_fd, 1);
}
