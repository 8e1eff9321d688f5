/* A reader that believes nothing: it follows a log that carries a stream (stream.h), checks every
 * record, its number, and now and then what a resume from an earlier place would get. */
#ifndef TESTS_LOG_FOLLOW_H
#define TESTS_LOG_FOLLOW_H

#include "stream.h"

#include <stdio.h>

#define FOLLOW_PLACES 32

struct follow_place {
    uint64_t off, number; /* the event that starts at or after off; off 0: unused */
    unsigned channel;
};

struct follow {
    const struct log *log;
    const struct stream *stream;
    bool exact; /* the index can't overflow: every gap must be a true one */
    uint64_t random;
    uint64_t off, number; /* the next record has at least this number; exactly, if known */
    bool known;
    struct follow_place places[FOLLOW_PLACES];
    uint64_t *buf, *found;
    uint64_t n_events, n_laps, n_resumes, n_gaps, n_sweeps; /* what was seen */
    char why[256];                                          /* set by the first failure */
};

/* No bucket has more channels of the stream than it has entries. */
bool follow_is_exact(const struct log *log, const struct stream *stream);
int follow_init(struct follow *f, const struct log *log, const struct stream *stream, uint64_t seed,
                bool exact);
void follow_done(struct follow *f);
/* Reads at most `max` records, up to log_indexed(). 0, or -1 with `why`. */
int follow_read(struct follow *f, unsigned max);
/* Resumes from one of the places it was at. 0, or -1 with `why`. */
int follow_resume(struct follow *f);
/* Both, in turns, until the writer says log_set_up(false) and everything is read. */
int follow_run(struct follow *f);

#endif
