/* Channels, feeds and their subscribers. */
#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int sub_set_add(struct sub_set *set, struct sub *sub)
{
    if (set->count == set->cap) {
        uint32_t cap = set->cap ? set->cap * 2 : 1;
        struct sub **items = realloc(set->items, cap * sizeof(*items));
        if (!items)
            return -ENOMEM;
        set->items = items;
        set->cap = cap;
    }
    sub->slot = set->count;
    set->items[set->count++] = sub;
    return 0;
}

void sub_set_remove(struct sub_set *set, struct sub *sub)
{
    struct sub *last = set->items[--set->count];
    set->items[sub->slot] = last;
    last->slot = sub->slot;
    if (set->count == 0) {
        sub_set_done(set);
    } else if (set->count < set->cap / 4) {
        struct sub **items = realloc(set->items, set->cap / 2 * sizeof(*items));
        if (items) {
            set->items = items;
            set->cap /= 2;
        }
    }
}

void sub_set_done(struct sub_set *set)
{
    free(set->items);
    *set = (struct sub_set){ 0 };
}

struct feed *channel_feed(struct channel *channel, enum frame_format format, uint64_t frontier)
{
    struct feed *feed = channel->feeds[format];
    if (feed)
        return feed;
    feed = calloc(1, sizeof(*feed));
    if (!feed)
        return NULL;
    feed->channel = channel;
    feed->format = format;
    feed->gone = feed->newest = frontier;
    list_init(&feed->walker.dirty);
    return channel->feeds[format] = feed;
}

void feed_free(struct arena *arena, struct channel *channel, enum frame_format format)
{
    struct feed *feed = channel->feeds[format];
    if (!feed)
        return;
    channel->feeds[format] = NULL;
    for (uint32_t i = 0; i < feed->count; i++)
        arena_frame(arena, feed_seq(feed, i))->feed = NULL;
    list_remove(&feed->walker.dirty);
    sub_set_done(&feed->subs);
    free(feed->seqs);
    free(feed);
}

static int feed_grow(struct feed *feed)
{
    uint32_t cap = feed->cap ? feed->cap * 2 : 4;
    uint32_t *seqs = malloc(cap * sizeof(*seqs));
    if (!seqs)
        return -ENOMEM;
    for (uint32_t i = 0; i < feed->count; i++)
        seqs[i] = feed_seq(feed, i);
    free(feed->seqs);
    feed->seqs = seqs;
    feed->cap = cap;
    feed->first = 0;
    return 0;
}

int feed_add(struct arena *arena, struct feed *feed, const struct frame *frame, const void *data)
{
    uint32_t seq = 0;
    feed->newest = frame->next;
    int r = arena_add(arena, frame, data, &seq); /* may evict frames of this very feed */
    if (r >= 0 && feed->count == feed->cap) {
        r = feed_grow(feed);
        if (r < 0)
            arena_frame(arena, seq)->feed = NULL;
    }
    if (r < 0) {
        feed->gone = frame->next;
        return r;
    }
    feed->seqs[(feed->first + feed->count++) & (feed->cap - 1)] = seq;
    return 0;
}

void feed_evicted(struct feed *feed, const struct frame *frame)
{
    feed->first = (feed->first + 1) & (feed->cap - 1);
    feed->count--;
    if (frame->next > feed->gone)
        feed->gone = frame->next;
    if (feed->count == 0 && feed->cap > 64) { /* quiet again: a burst's ring is not kept */
        free(feed->seqs);
        feed->seqs = NULL;
        feed->cap = feed->first = 0;
    }
}

uint32_t feed_find(const struct arena *arena, const struct feed *feed, uint64_t off)
{
    uint32_t low = 0, high = feed->count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (arena_frame(arena, feed_seq(feed, mid))->off < off)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

void walker_start(struct walker *walker, struct list *dirty, uint32_t n)
{
    walker->left = n;
    if (n && !list_linked(&walker->dirty))
        list_push(dirty, &walker->dirty);
}

int64_t walker_next(struct walker *walker, uint32_t n)
{
    if (walker->left == 0 || n == 0) {
        walker->left = 0;
        list_remove(&walker->dirty);
        return -1;
    }
    if (walker->at >= n)
        walker->at = 0;
    walker->left--;
    return walker->at++;
}

void walker_grown(struct walker *walker)
{
    if (list_linked(&walker->dirty))
        walker->left++;
}

void walker_disturbed(struct walker *walker, uint32_t n)
{
    if (list_linked(&walker->dirty))
        walker->left = n;
}
