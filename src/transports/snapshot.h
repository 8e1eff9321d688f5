/* The rows that stand before a channel's events, for those who asked for them. */
#ifndef TRANSPORTS_SNAPSHOT_H
#define TRANSPORTS_SNAPSHOT_H

#include "frame.h"
#include "reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct channel;
struct join;
struct snapshot;
struct worker;

#define SNAPSHOTS_MAX (256u << 20) /* bytes of all snapshots of a worker: then nobody may join */

/* Does this join wait for its rows? They are asked for. */
bool snapshot_waits(struct worker *w, struct join *join);
void snapshots_tell(struct worker *w); /* questions that the inbox did not take yet */
void snapshot_forget(struct worker *w, struct channel *channel); /* the question, if there is one */
void on_rows(void *worker, const struct reader_rows *part);

void snapshot_unref(struct worker *w, struct snapshot *snapshot); /* NULL allowed */

/* Consecutive frames of a snapshot in one format: some 64 KiB, always at least one. */
struct snapshot_parcel {
    const uint8_t *bytes;
    const uint32_t *ends; /* of each frame, in the buffer that `base` bytes of stand before */
    uint32_t base, n;
    size_t len;
};
/* The frames from number `at` on; borrowed until the next call. n = 0: that was all. 0, -ENOMEM,
 * -EMSGSIZE. */
int snapshot_frames(struct worker *w, struct snapshot *snapshot, const struct channel *channel,
                    enum frame_format format, uint32_t at, struct snapshot_parcel *ret);
/* Where the stream goes on, and whether events before it could not be read any more. */
uint64_t snapshot_until(const struct snapshot *snapshot);
bool snapshot_lapped(const struct snapshot *snapshot);

#endif
