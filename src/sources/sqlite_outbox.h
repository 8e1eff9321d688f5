/* The outbox table of one SQLite file: opening and installing, reading, publishing, pruning. Every
 * call may block for a moment (a lock, the disk), so all of it lives in one thread. */
#ifndef SOURCES_SQLITE_OUTBOX_H
#define SOURCES_SQLITE_OUTBOX_H

#include "sqlite_batch.h"
#include "sqlite_url.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    OUTBOX_FILE_MADE = 1, /* what opening had to make */
    OUTBOX_TABLE_MADE = 2,
};

struct sqlite_outbox {
    const struct sqlite_url *url; /* borrowed, as stop */
    const _Atomic bool *stop;     /* waits end when it is set */
    size_t event_max;
    sqlite3 *db;
    sqlite3_stmt *version, *state, *read, *insert, *begin, *commit, *rollback, *boundary, *prune;
    bool readonly, wal;
    bool was_there; /* the file existed once: it is not made again */
    unsigned made;  /* by the last opening */
    uint64_t identity;
    int64_t newest;      /* id of the newest row there ever was, as of the last state */
    int64_t changed;     /* PRAGMA data_version at the last look */
    int64_t deadline_ms; /* statements are interrupted then; 0: never */
    uint64_t salt;       /* names the stream where the file can't */
    char id[64];         /* of fanwire_meta */
    char error[512];     /* of the last failure, for people */
};

/* Opens the file, makes what is missing, reads the state. All return ≥ 0, or
 *   -EAGAIN   locked by others just now: nothing has happened, try again
 *   -EIO      as `error` tells: close it
 * and -EROFS where a write needs more than can be had. */
int sqlite_outbox_open(struct sqlite_outbox *outbox);
void sqlite_outbox_close(struct sqlite_outbox *outbox);

/* 1 when another connection has committed something since the last call, else 0. */
int sqlite_outbox_changed(struct sqlite_outbox *outbox);
/* Reads identity and newest again. 1 when the identity is another one than before. */
int sqlite_outbox_state(struct sqlite_outbox *outbox);
/* True when the file at the path is not the one that is open any more. */
bool sqlite_outbox_moved(struct sqlite_outbox *outbox);
/* The ids have gone backwards: gives the stream another identity. */
int sqlite_outbox_new_identity(struct sqlite_outbox *outbox);

/* The id right before the oldest row from which on all rows together take at most `budget` bytes of
 * log. */
int sqlite_outbox_floor(struct sqlite_outbox *outbox, uint64_t budget, int64_t *ret);
/* Fills the batch with the rows after `after`. Returns 1 when there may be more, 0 at the end. */
int sqlite_outbox_read(struct sqlite_outbox *outbox, int64_t after, struct sqlite_batch *batch);
/* Stores them in one transaction; each that was stored has its id then, each that the table refuses
 * its code and message, and with it all of its batch. Otherwise none is stored. */
int sqlite_outbox_publish(struct sqlite_outbox *outbox, struct sqlite_publish *first);
/* Removes some of the oldest rows that are too many or too old, none after `upto`. Returns 1 when
 * there are more of them. */
int sqlite_outbox_prune(struct sqlite_outbox *outbox, int64_t upto, int64_t now_ms);

#endif
