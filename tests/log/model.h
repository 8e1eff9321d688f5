/* A plain model of the log: the list of all records ever appended. Slow and obvious. */
#ifndef TESTS_LOG_MODEL_H
#define TESTS_LOG_MODEL_H

#include "log.h"

struct model_record {
    uint64_t off, next, pos[2];
    int64_t time_ms;
    unsigned channel;
    enum record_kind kind;
};

struct model {
    struct model_record *records;
    size_t n, cap;
};

void model_done(struct model *m);
/* Notes a record that log_append() returned `off` for. */
void model_append(struct model *m, const struct log *log, uint64_t off, unsigned channel,
                  const struct log_event *event);
/* The channel's offsets in [since, cut), oldest first; out[] holds all of them. */
size_t model_between(const struct model *m, unsigned channel, uint64_t since, uint64_t cut,
                     uint64_t *out);
/* The channel's newest `max` messages and gaps in [tail, cut), oldest first. */
size_t model_last(const struct model *m, unsigned channel, uint64_t tail, uint64_t cut, size_t max,
                  uint64_t *out);
/* The first place ≥ since where a record or a PAD begins, or the log ends. */
uint64_t model_boundary(const struct model *m, uint64_t since);
/* What log_seek_position() must say for records in [from, …). */
int model_seek_position(const struct model *m, uint64_t from, const uint64_t pos[2], uint64_t *ret);
/* What log_position_before() must say of the records in [from, off). */
int model_position_before(const struct model *m, uint64_t from, uint64_t off, uint64_t ret[2]);

#endif
