/* What travels between the thread that holds the database and the hub's loop: events, publishes. */
#ifndef SOURCES_SQLITE_BATCH_H
#define SOURCES_SQLITE_BATCH_H

#include "buf.h"

#include <fanwire/source.h>
#include <stdbool.h>
#include <stdint.h>

#define SQLITE_BATCH_EVENTS 256
#define SQLITE_BATCH_BYTES  (1u << 20) /* and always at least one event */

/* One row; texts are in the batch's bytes. */
struct sqlite_event {
    int64_t id, time_ms;
    size_t channel_at, channel_len, data_at, len;
    size_t key_at, from_at; /* SIZE_MAX: none */
    bool too_large;         /* its bytes were left out */
    bool gap;               /* rows before it are missing */
};

struct sqlite_batch {
    unsigned n;
    struct buf bytes;
    struct sqlite_event events[SQLITE_BATCH_EVENTS];
};

/* A publish on its way into the table, and its answer on the way back. */
struct sqlite_publish {
    struct sqlite_publish *next;
    uint64_t request;
    bool more;        /* the next one is of the same batch: all of it is stored, or nothing */
    int64_t since_ms; /* when it came */
    int64_t id;       /* of its row, once stored */
    const char *code; /* static; NULL: stored */
    char message[160];
    size_t channel_len, len;
    const char *channel, *key, *from, *data; /* in bytes[]; key and from may be NULL */
    char bytes[];
};

struct sqlite_publishes { /* first in, first out */
    struct sqlite_publish *first, **last;
};

/* An empty batch, NULL when out of memory. */
struct sqlite_batch *sqlite_batch_new(size_t event_max);
void sqlite_batch_free(struct sqlite_batch *batch);
/* The event as the hub takes it; borrowed from the batch. */
struct fw_source_event sqlite_batch_event(const struct sqlite_batch *batch, unsigned i,
                                          bool history);

struct sqlite_publish *sqlite_publish_new(const struct fw_publish *publish, int64_t now_ms);
void sqlite_publishes_push(struct sqlite_publishes *queue, struct sqlite_publish *publish);
struct sqlite_publish *sqlite_publishes_pop(struct sqlite_publishes *queue); /* NULL: empty */
void sqlite_publishes_move(struct sqlite_publishes *to, struct sqlite_publishes *from);

#endif
