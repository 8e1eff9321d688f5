/* Positions as clients see them: opaque text, [A-Za-z0-9._~-]{1,200}.
 *   local    l<epoch, hex>.<offset right after the event, hex>
 *   durable  p<identity, hex>.<pos[0], hex>.<pos[1], hex> */
#ifndef HUB_POSITION_H
#define HUB_POSITION_H

#include "codes.h"
#include "log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POSITION_TEXT_MAX 64 /* what we write is shorter than what we accept; with NUL */

struct position {
    enum { POSITION_LOCAL, POSITION_DURABLE, POSITION_FOREIGN } kind;
    uint64_t space; /* epoch or identity */
    uint64_t a, b;
};

/* Valid text of another make (another version, another program) is POSITION_FOREIGN: a gap, not an
 * error. Returns 0, or -EINVAL when it is no position text at all. */
int position_parse(const char *text, size_t len, struct position *ret);
/* The position of a record, or (record NULL) of the offset `off` in this log. For durable logs an
 * offset without a record of its own, and a record without a position (gap, down, up), are written
 * local: it is as good while the log lives.
 * Returns the length; out holds POSITION_TEXT_MAX. Takes some 5 ns: an iterator writes one per
 * event. */
size_t position_write(char *out, const struct log *log, const struct log_record *record,
                      uint64_t off);

/* The text that position_parse() has read; "" for POSITION_FOREIGN. Returns its length. */
size_t position_text(char out[POSITION_TEXT_MAX], const struct position *position);

/* "Complete up to `off`" in words that outlive the log, where it is durable: the position of the
 * newest record before. Sweeps a little: not for every event. */
size_t position_write_place(char *out, const struct log *log, uint64_t off);

enum since_kind { SINCE_NOW, SINCE_OLDEST, SINCE_POSITION };
struct since {
    enum since_kind kind;
    struct position position;
};
/* From this offset of this log on. */
static inline struct since since_offset(const struct log *log, uint64_t off)
{
    return (struct since){ SINCE_POSITION, { POSITION_LOCAL, log_epoch(log), off, 0 } };
}
/* "now", "oldest" or a position. 0 or -EINVAL. */
int since_parse(const char *text, size_t len, struct since *ret);

/* The newest position in a log, as looked up last; zeroed at birth. */
struct newest_position {
    uint64_t off, pos[2]; /* as of log_indexed() = off */
    bool known;
};
/* Is it a position of the log's stream that the log has not come to? Where several hubs read one
 * database, a client may come from one that was quicker: its position is true, and what makes it so
 * is on its way here. To answer at once would be a gap that is none, and everything held once more.
 * So it waits, but not for ever: a position may also be of a stream that was lost. While the source
 * is down the time does not run. */
bool since_is_ahead(const struct log *log, const struct since *since,
                    struct newest_position *newest);
#define AHEAD_MS 10000 /* how long it waits */

/* Where a reader of one channel that comes with `since` goes on, and whether it must be told a gap.
 * `covered_from`: from where in the log the source has heard this channel without a break.
 * `cut`: log_indexed() read before, ≥ which nothing is promised here. */
struct resume {
    uint64_t
        from; /* go on here: a record boundary ≥ tail; cut if nothing is left, beyond it if newer */
    enum gap_reason reason; /* REASON_NONE: complete */
    uint64_t after;         /* offset of the last complete place, 0 = unknown (null) */
    uint64_t before;        /* whole again from here */
};
struct resume resume_channel(const struct log *log, const struct log_channel *channel,
                             const struct since *since, uint64_t covered_from, uint64_t cut);

#endif
