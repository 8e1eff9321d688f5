/* Channels with local subscribers. A feed is one channel in one wire format: its frames in the
 * arena, its subscribers, and the walker that visits them when there is something new.
 *
 * A subscription is first *waiting* (the source has not confirmed the channel yet), then in its
 * feed. `gone` is the end of the newest event of the feed that is not in the arena: it starts as
 * the worker's frontier (earlier events were skipped) and rises when a frame is evicted. A
 * connection is live when its cursor is ≥ gone for each of its feeds, else behind. */
#ifndef TRANSPORTS_CHANNEL_H
#define TRANSPORTS_CHANNEL_H

#include "arena.h"
#include "frame.h"
#include "list.h"
#include "map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct channel;
struct feed;

struct sub {
    struct conn *conn;
    struct channel *channel;
    uint32_t slot;     /* its place in feed->subs or channel->waiting */
    struct feed *feed; /* NULL: waiting */
    uint64_t from;     /* events before this offset are not for it: it came later, or was lapped */
};

/* An array of subscriptions; each knows its place, so that leaving costs the same for any number.
 */
struct sub_set {
    struct sub **items;
    uint32_t count, cap;
};

/* The unfinished round of visits to everyone in an array; circular, resumable. */
struct walker {
    struct list dirty; /* in the worker's list of unfinished walkers */
    uint32_t at, left;
};

struct feed {
    struct channel *channel;
    enum frame_format format;
    struct sub_set subs;
    struct walker walker;
    uint32_t *seqs; /* frames in the arena, oldest first: a ring of `cap` (a power of two) */
    uint32_t first, count, cap;
    uint64_t gone;   /* see above */
    uint64_t newest; /* end of the newest frame ever added; ≤ a cursor = nothing new for it */
};

enum channel_state { CHANNEL_ASKING, CHANNEL_READY, CHANNEL_REFUSED };

struct channel {
    uint64_t hash;
    char *name; /* NUL-terminated */
    size_t len;
    struct feed *feeds[N_FORMATS];
    struct sub_set waiting;
    uint32_t users; /* subscriptions and pending history requests; 0 = to be freed */
    enum channel_state state;
    bool told;            /* the source process knows that we want it */
    uint64_t question;    /* as asked last: another one's answer is not for it */
    bool confirmed;       /* it is ready, but the frontier has yet to come to ready_at */
    struct list tell;     /* an interest or its end that the inbox did not take yet */
    struct list resolved; /* in worker->resolved while its waiters get on, from index `next` - 1 */
    uint32_t next_waiting;
    struct list histories; /* history requests to be looked at when the channel is resolved */
    struct list polls;     /* history requests that wait for its next event */
    uint64_t covered_from, ready_at; /* covered_from 0: was never ready */
    enum error_code refused_code;
    struct list ask;           /* in worker->asks: a question for its rows is to be told */
    uint64_t snapshot_number;  /* of the question that is not answered yet, 0: none */
    struct snapshot *arriving; /* its answer, as far as it is here */
};

int sub_set_add(struct sub_set *set, struct sub *sub); /* 0 or -ENOMEM */
void sub_set_remove(struct sub_set *set, struct sub *sub);
void sub_set_done(struct sub_set *set);

/* The feed of the format, made when missing with gone = frontier. NULL: out of memory. */
struct feed *channel_feed(struct channel *channel, enum frame_format format, uint64_t frontier);
void feed_free(struct arena *arena, struct channel *channel, enum frame_format format);
/* Adds a frame to arena and feed. 0 or -ENOMEM: then the event counts as gone (to be read from the
 * log). */
int feed_add(struct arena *arena, struct feed *feed, const struct frame *frame, const void *data);
void feed_evicted(struct feed *feed, const struct frame *frame);
/* Index (0…count) of the feed's first frame at or after the offset. */
uint32_t feed_find(const struct arena *arena, const struct feed *feed, uint64_t off);

static inline uint32_t feed_seq(const struct feed *feed, uint32_t index)
{
    return feed->seqs[(feed->first + index) & (feed->cap - 1)];
}

/* Marks everyone in an array of n as to be visited. */
void walker_start(struct walker *walker, struct list *dirty, uint32_t n);
/* Next index to visit; -1 when the round is finished (then it has left the list). */
int64_t walker_next(struct walker *walker, uint32_t n);
/* An element was added at the end. */
void walker_grown(struct walker *walker);
/* An element was removed and the last one moved into its place: nobody may be skipped by that. */
void walker_disturbed(struct walker *walker, uint32_t n);

#endif
