/* The thread that holds the database: opens it, re-reads, follows, publishes, prunes. */
#ifndef SOURCES_SQLITE_READER_H
#define SOURCES_SQLITE_READER_H

#include "sqlite_mailbox.h"
#include "sqlite_outbox.h"
#include "sqlite_watch.h"

struct sqlite_reader {
    struct sqlite_mailbox *box;
    struct sqlite_outbox outbox;
    struct sqlite_watch watch;
    uint64_t budget; /* bytes of log that re-read rows may take */
    int64_t last;    /* id of the newest row that was handed over */
    bool dirty;      /* something was committed that has not been looked at */
    bool told;       /* how the database is set up */
    bool told_prune;
    int64_t locked_ms;               /* since when it is locked, 0: it isn't */
    int64_t prune_ms;                /* when to look next for what is to be pruned */
    struct sqlite_publishes waiting; /* to be stored */
    struct sqlite_note *snapshot;    /* being read, or told when the events have been handed over */
    const char *snapshot_sql;        /* NULL: it has been read */
    int64_t snapshot_ms;             /* since when it is tried */
    struct sqlite_note *answers;     /* stored; told when their events have been handed over */
};

/* The thread's function; `arg` is the reader. Ends when the mailbox says stop. */
void *sqlite_reader_run(void *arg);

#endif
