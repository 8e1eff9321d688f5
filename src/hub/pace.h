/* Pacing: may the source go on reading its backend, or is a reader about to be lapped?
 *
 * A reader holds the source while it is more than a quarter of the log behind and its cursor moved
 * within the last 250 ms: it is busy, not gone. One that reads less than 1/16 of the log (at most
 * 4 MiB) per second of such waiting is slow, not busy: it is let go until it has caught up, so that
 * one slow thread costs its own events (a gap), never everybody's time.
 *
 * A patient source is durable, so what it does not read now is kept for it, and its readers are
 * workers of a server, slow for having many clients to send to: with 1,000 clients a worker takes
 * less than a megabyte of the log a second, on a busy machine much less. It waits for one that
 * moves every 5 s and reads 64 KiB in 5 s of waiting. */
#ifndef HUB_PACE_H
#define HUB_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_ALIVE_MS   250
#define PACE_PATIENT_MS 5000
#define PACE_HELD_MS    1000
#define PACE_RECHECK_MS 5

struct pace { /* of one reader; zeroed at its birth */
    uint64_t cursor;
    int64_t moved_ms;
    uint64_t mark;   /* where the accounting of held time began */
    int64_t held_ms; /* how long the source waited for this reader since */
    bool slow;
};

/* Notes where the reader is. True while the source must wait for it. `waited_ms`: how long the
 * source has been waiting since the last call. A cursor of 0 (never read) holds nothing. */
bool pace_holds(struct pace *pace, uint64_t cursor, uint64_t head, uint64_t log_size,
                int64_t now_ms, int64_t waited_ms, bool patient);

#endif
