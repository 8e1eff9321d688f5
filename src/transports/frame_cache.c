/* The frames of catch-up, encoded once for all who read the same part of the log. */
#include "frame_cache.h"

#include <stdlib.h>
#include <string.h>

static struct cached_frame *slot_of(struct frame_cache *cache, uint64_t off,
                                    enum frame_format format)
{
    uint64_t mixed = (off / 8 * N_FORMATS + format) * 0x9e3779b97f4a7c15u;
    return &cache->slots[mixed >> (64 - 13)];
}
_Static_assert(FRAME_CACHE_SLOTS == 1u << 13, "slot_of() takes 13 bits");

static void slot_clear(struct frame_cache *cache, struct cached_frame *slot)
{
    if (slot->blob)
        cache->large -= slot->blob->len;
    blob_unref(slot->blob);
    *slot = (struct cached_frame){ 0 };
}

static void start_over(struct frame_cache *cache)
{
    cache->round++;
    cache->used = 0;
    if (cache->large == 0)
        return;
    for (size_t i = 0; i < FRAME_CACHE_SLOTS; i++)
        slot_clear(cache, &cache->slots[i]);
}

static bool ensure(struct frame_cache *cache)
{
    if (!cache->data)
        cache->data = malloc(FRAME_CACHE_SIZE);
    if (!cache->slots)
        cache->slots = calloc(FRAME_CACHE_SLOTS, sizeof(*cache->slots));
    if (cache->round == 0)
        cache->round = 1;
    return cache->data && cache->slots;
}

struct cached_frame *frame_cache_get(struct frame_cache *cache, uint64_t off,
                                     enum frame_format format)
{
    if (!cache->slots)
        return NULL;
    struct cached_frame *slot = slot_of(cache, off, format);
    bool hit = slot->round == cache->round && slot->off == off && slot->format == format;
    return hit ? slot : NULL;
}

struct cached_frame *frame_cache_put(struct frame_cache *cache, const struct cached_frame *key,
                                     const void *data, size_t len)
{
    if (!ensure(cache))
        return NULL;
    bool large = len > FRAME_CACHE_SIZE / 4;
    if (large ? cache->large + len > FRAME_CACHE_LARGE : cache->used + len > FRAME_CACHE_SIZE)
        start_over(cache);
    struct blob *blob = large ? blob_new(data, len) : NULL;
    if (large && !blob)
        return NULL;
    struct cached_frame *slot = slot_of(cache, key->off, key->format);
    slot_clear(cache, slot);
    *slot = (struct cached_frame){
        .off = key->off,
        .next = key->next,
        .time_ms = key->time_ms,
        .at = (uint32_t)cache->used,
        .len = (uint32_t)len,
        .round = cache->round,
        .format = key->format,
        .blob = blob,
    };
    if (large) {
        cache->large += len;
    } else {
        memcpy(cache->data + cache->used, data, len);
        cache->used += len;
    }
    return slot;
}

const uint8_t *frame_cache_bytes(const struct frame_cache *cache, const struct cached_frame *f)
{
    return f->len > FRAME_CACHE_SIZE / 4 ? f->blob->data : cache->data + f->at;
}

void frame_cache_done(struct frame_cache *cache)
{
    if (cache->slots)
        start_over(cache);
    free(cache->data);
    free(cache->slots);
    *cache = (struct frame_cache){ 0 };
}
