/* The arena: a worker's private ring of encoded frames, in log order. A frame is what one event is
 * in one wire format; every subscriber of that format sends the very same bytes. The oldest frames
 * are evicted when room is needed; who still wanted them reads the log instead. */
#ifndef TRANSPORTS_ARENA_H
#define TRANSPORTS_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_SIZE      (4u << 20)
#define ARENA_FRAMES    (1u << 16)   /* at most, a power of two */
#define ARENA_FRAME_MAX (256u << 10) /* larger frames live in a blob of their own */

/* Bytes shared by several connections that each still have to send a part of them. */
struct blob {
    uint32_t refs;
    uint32_t tails; /* connections that were cut off inside it */
    size_t len;
    uint8_t data[];
};

struct blob *blob_new(const void *data, size_t len); /* refs = 1; NULL: out of memory */
struct blob *blob_ref(struct blob *blob);
void blob_unref(struct blob *blob); /* NULL allowed */

struct feed;

enum frame_state { STATE_NONE, STATE_DOWN, STATE_UP };

struct frame {
    uint64_t off, next; /* the event's offsets in the log */
    uint64_t at;        /* of its bytes in the ring, monotone */
    struct feed *feed;  /* NULL: nobody wants it any more */
    struct blob *blob;  /* large frame, or shared copy for connections cut off inside it */
    int64_t time_ms;    /* of the event */
    uint32_t len;
    uint8_t state; /* enum frame_state: what it makes a client believe of the source */
    bool large;    /* bytes are in the blob alone */
};

struct arena {
    uint8_t *data;
    struct frame *frames; /* frames[seq % ARENA_FRAMES] */
    uint64_t head, tail;  /* byte positions, monotone; tail ≤ oldest frame's at */
    uint32_t first, last; /* seq of the oldest frame, one after the newest */
};

int arena_init(struct arena *arena); /* 0 or -ENOMEM; pages are touched only as they are used */
void arena_done(struct arena *arena);
/* Appends a frame; evicts the oldest while there is no room (feed_evicted() is told). Returns its
 * seq by *ret, 0 or -ENOMEM. */
int arena_add(struct arena *arena, const struct frame *frame, const void *data, uint32_t *ret_seq);

static inline struct frame *arena_frame(const struct arena *arena, uint32_t seq)
{
    return &arena->frames[seq % ARENA_FRAMES];
}

static inline const uint8_t *arena_bytes(const struct arena *arena, const struct frame *frame)
{
    return frame->large ? frame->blob->data : arena->data + frame->at % ARENA_SIZE;
}

#endif
