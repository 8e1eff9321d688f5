/* A worker's ring of encoded frames. */
#include "arena.h"

#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct blob *blob_new(const void *data, size_t len)
{
    struct blob *blob = malloc(sizeof(*blob) + len);
    if (!blob)
        return NULL;
    *blob = (struct blob){ .refs = 1, .len = len };
    if (len)
        memcpy(blob->data, data, len);
    return blob;
}

struct blob *blob_ref(struct blob *blob)
{
    blob->refs++;
    return blob;
}

void blob_unref(struct blob *blob)
{
    if (blob && --blob->refs == 0)
        free(blob);
}

static void *map_lazily(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int arena_init(struct arena *arena)
{
    *arena = (struct arena){
        .data = map_lazily(ARENA_SIZE),
        .frames = map_lazily(ARENA_FRAMES * sizeof(struct frame)),
    };
    if (arena->data && arena->frames)
        return 0;
    arena_done(arena);
    return -ENOMEM;
}

static void evict(struct arena *arena)
{
    struct frame *frame = arena_frame(arena, arena->first++);
    if (frame->feed)
        feed_evicted(frame->feed, frame);
    blob_unref(frame->blob);
    *frame = (struct frame){ 0 };
    arena->tail = arena->first == arena->last ? arena->head : arena_frame(arena, arena->first)->at;
}

void arena_done(struct arena *arena)
{
    while (arena->frames && arena->first != arena->last)
        evict(arena);
    if (arena->data)
        munmap(arena->data, ARENA_SIZE);
    if (arena->frames)
        munmap(arena->frames, ARENA_FRAMES * sizeof(struct frame));
    *arena = (struct arena){ 0 };
}

/* Makes room for `len` contiguous bytes; returns their place. */
static uint64_t make_room(struct arena *arena, size_t len)
{
    size_t left = ARENA_SIZE - arena->head % ARENA_SIZE;
    uint64_t at = len <= left ? arena->head : arena->head + left;
    while (arena->first != arena->last && at + len - arena->tail > ARENA_SIZE)
        evict(arena);
    return at;
}

int arena_add(struct arena *arena, const struct frame *frame, const void *data, uint32_t *ret_seq)
{
    bool large = frame->len > ARENA_FRAME_MAX;
    struct blob *blob = large ? blob_new(data, frame->len) : NULL;
    if (large && !blob)
        return -ENOMEM;
    if (arena->last - arena->first == ARENA_FRAMES)
        evict(arena);
    /* A large frame holds no bytes of the ring, but counts as if it did: else a few thousand of
     * them would stay in memory until the small ones push them out. */
    uint64_t at = make_room(arena, large ? ARENA_FRAME_MAX : frame->len);
    if (!large)
        memcpy(arena->data + at % ARENA_SIZE, data, frame->len);
    if (arena->first == arena->last)
        arena->tail = at;
    arena->head = at + (large ? ARENA_FRAME_MAX : frame->len);
    *ret_seq = arena->last++;
    struct frame *slot = arena_frame(arena, *ret_seq);
    *slot = *frame;
    slot->at = at;
    slot->blob = blob;
    slot->large = large;
    return 0;
}
