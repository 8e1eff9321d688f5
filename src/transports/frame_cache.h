/* Frames encoded during catch-up: connections that read the same part of the log share them. A
 * scratch that starts over when full; entries are found by (offset, format). */
#ifndef TRANSPORTS_FRAME_CACHE_H
#define TRANSPORTS_FRAME_CACHE_H

#include "arena.h"
#include "frame.h"

#include <stdint.h>

#define FRAME_CACHE_SIZE  (1u << 20)
#define FRAME_CACHE_SLOTS (1u << 13)
#define FRAME_CACHE_LARGE (16u << 20) /* bytes in blobs at most */

struct cached_frame {
    uint64_t off, next;
    int64_t time_ms;
    uint32_t at, len;
    uint32_t round; /* valid while it is the cache's */
    uint8_t format;
    struct blob *blob; /* a frame over 1/4 of the scratch, or the copy that cut-off readers share */
};

struct frame_cache {
    uint8_t *data; /* made at the first use */
    struct cached_frame *slots;
    size_t used, large;
    uint32_t round;
};

/* NULL: not there. Borrowed until the next put. */
struct cached_frame *frame_cache_get(struct frame_cache *cache, uint64_t off,
                                     enum frame_format format);
/* Keeps a copy of the frame; of `key`, off, next, time_ms and format are taken. NULL: out of
 * memory. Borrowed until the next put. */
struct cached_frame *frame_cache_put(struct frame_cache *cache, const struct cached_frame *key,
                                     const void *data, size_t len);
const uint8_t *frame_cache_bytes(const struct frame_cache *cache, const struct cached_frame *f);
void frame_cache_done(struct frame_cache *cache);

#endif
