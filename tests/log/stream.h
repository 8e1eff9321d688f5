/* An endless stream of events, each a function of a seed and its number: whoever reads a record can
 * say whether every byte of it is right, and which record must come next. */
#ifndef TESTS_LOG_STREAM_H
#define TESTS_LOG_STREAM_H

#include "log.h"

#define STREAM_NAME_MAX 16
#define STREAM_LEN_MAX  8192

struct stream {
    uint64_t seed;
    unsigned n_channels;
    size_t event_max; /* of the log; some events are exactly that large */
};

struct stream_event {
    struct log_event event; /* points into the rest */
    char channel[STREAM_NAME_MAX];
    char meta[64];
    uint64_t data[STREAM_LEN_MAX / 8 + 1];
};

/* The number of an event is in its xid, plus 1. */
unsigned stream_channel(const struct stream *stream, uint64_t number);
size_t stream_name(unsigned channel, char name[STREAM_NAME_MAX]);
void stream_make(const struct stream *stream, uint64_t number, struct stream_event *ret);
/* Is the record, read with its body, exactly the event that its xid tells? NULL, or what is wrong.
 */
const char *stream_check(const struct stream *stream, const struct log *log,
                         const struct log_record *record);

#endif
