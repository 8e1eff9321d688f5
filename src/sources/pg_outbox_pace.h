/* When to read the outbox: at a NOTIFY, and by polling where none can be relied on. Pure; time is a
 * parameter, in ms. */
#ifndef SOURCES_PG_OUTBOX_PACE_H
#define SOURCES_PG_OUTBOX_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* What a read has found. */
struct outbox_found {
    bool rows; /* some */
    bool more; /* there are others right behind */
    bool held; /* committed ones wait for an older transaction to end */
};

struct outbox_pace {
    bool listens;             /* NOTIFY should be heard */
    bool announced, expected; /* a NOTIFY came since the last read was sent; before it was */
    bool calm, held;          /* the last read left nothing; left rows that are held back */
    unsigned step;            /* of the back-off while held */
    int64_t rows_ms, due_ms;
    int64_t doubt_ms;      /* rows came unannounced then; 0: never, or a NOTIFY came after all */
    int64_t poll_until_ms; /* they did come unannounced: not to be relied on */
};

void outbox_pace_start(struct outbox_pace *pace, bool listens, int64_t now);
void outbox_pace_heard(struct outbox_pace *pace); /* a NOTIFY */
void outbox_pace_sent(struct outbox_pace *pace);  /* a read is under way */
/* A read has ended. True when from now on it is polled though NOTIFY should be heard. */
bool outbox_pace_took(struct outbox_pace *pace, const struct outbox_found *found, int64_t now);
int64_t outbox_pace_wait(const struct outbox_pace *pace, int64_t now); /* ms; ≤ 0: read now */

#endif
