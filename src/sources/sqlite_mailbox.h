/* Between the hub's loop and the thread that holds the database: notes one way, in order, publishes
 * and a few words the other way. */
#ifndef SOURCES_SQLITE_MAILBOX_H
#define SOURCES_SQLITE_MAILBOX_H

#include "list.h"
#include "sqlite_batch.h"

#include <fanwire/source.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define MAILBOX_BYTES (4u << 20) /* of events that wait for the loop; then the thread waits */

enum sqlite_note_kind {
    NOTE_LOG,      /* level, event, text */
    NOTE_START,    /* identity: how does the log go on with it? mailbox_answer_start() */
    NOTE_BEGIN,    /* identity, id: the floor */
    NOTE_EVENTS,   /* batch, history */
    NOTE_GAP,      /* id: whole again after it; history */
    NOTE_OPENED,   /* identity */
    NOTE_ANSWERS,  /* answers */
    NOTE_SNAPSHOT, /* request; rows, id: the newest event that they contain; or code, text */
    NOTE_LOST,     /* text */
};

struct sqlite_note {
    struct list node;
    enum sqlite_note_kind kind;
    bool history;
    enum fw_log_level level;
    const char *event; /* static */
    uint64_t identity;
    int64_t id;
    struct sqlite_batch *batch;
    struct sqlite_publishes answers;
    uint64_t request;
    const char *code; /* static; NULL: there are rows */
    struct buf rows;
    char text[512];
};

struct sqlite_mailbox {
    struct fw_waker *waker; /* wakes the loop */
    int wake_fd;            /* wakes the thread */
    _Atomic bool stop;      /* the thread ends */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    struct list notes;
    size_t bytes;
    struct sqlite_publishes publishes;
    uint64_t snapshot_request;
    const char *snapshot_sql; /* NULL: none is asked for */
    bool open_wanted;
    bool start_answered, start_known;
    int64_t start_from;
};

int mailbox_init(struct sqlite_mailbox *box); /* the waker is the caller's */
void mailbox_done(struct sqlite_mailbox *box);

/* ---- the thread's ---- */

struct sqlite_note *note_new(enum sqlite_note_kind kind); /* NULL: out of memory */
void note_free(struct sqlite_note *note);                 /* with its batch; not its answers */
/* Hands the note over; waits for room if it carries events. False when told to stop: the note is
 * freed, but for one with answers. */
bool mailbox_post(struct sqlite_mailbox *box, struct sqlite_note *note);
/* Waits until open() has been called; false: stop. */
bool mailbox_await_open(struct sqlite_mailbox *box);
/* Waits for the answer to NOTE_START; false: stop. */
bool mailbox_await_start(struct sqlite_mailbox *box, bool *ret_known, int64_t *ret_from);
/* The query that is asked for; NULL: none. */
const char *mailbox_take_snapshot(struct sqlite_mailbox *box, uint64_t *ret_request);
void mailbox_take_publishes(struct sqlite_mailbox *box, struct sqlite_publishes *ret);

/* ---- the loop's ---- */

struct sqlite_note *mailbox_first(struct sqlite_mailbox *box); /* stays in the box; NULL: empty */
void mailbox_drop_first(struct sqlite_mailbox *box);           /* … and is freed */
void mailbox_want_open(struct sqlite_mailbox *box);
void mailbox_answer_start(struct sqlite_mailbox *box, bool known, int64_t from);
/* One publish, or a whole batch: the thread never sees a part of it. */
void mailbox_push_publishes(struct sqlite_mailbox *box, struct sqlite_publishes *batch);
void mailbox_push_snapshot(struct sqlite_mailbox *box, uint64_t request, const char *sql);
void mailbox_stop(struct sqlite_mailbox *box);

#endif
