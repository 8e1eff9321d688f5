/* Rows that stand before a channel's events: the source side asks the source, at most one query at
 * a time, and sends each answer to everybody who has asked for it. */
#ifndef HUB_SNAPSHOTS_H
#define HUB_SNAPSHOTS_H

#include "list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct engine_snapshot;
struct peer;
struct snapshot_query;

struct snapshots {
    struct engine *engine;
    struct snapshot_query *queries; /* one for each channel of the configuration */
    size_t n;
    size_t next;   /* whose turn it is */
    uint64_t last; /* the newest request to the source */
    bool running;  /* … has not been answered */
    struct snapshot_query *asked;
};

int snapshots_init(struct snapshots *s, struct engine *engine, const struct engine_snapshot *list,
                   size_t n);             /* 0 or -ENOMEM */
void snapshots_done(struct snapshots *s); /* after all readers have left */
void snapshots_ask(struct snapshots *s);  /* the source is up: begins with what waits */
void snapshots_lost(struct snapshots *s); /* the source has forgotten what it was asked */
void snapshots_leave(struct snapshots *s, struct peer *peer);
/* Sends as much as fits of what is on its way to this reader. */
void snapshots_send(struct engine *engine, struct peer *peer);

#endif
