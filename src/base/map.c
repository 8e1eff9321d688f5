/* A hash table with linear probing and deletion by shifting back: no tombstones, so that a table
 * through which many short-lived entries pass stays as fast as a fresh one. */
#include "map.h"

#include <errno.h>
#include <stdlib.h>

#define MAP_CAP_MIN 16

/* Where an entry of this hash would like to be. The multiplication spreads hashes that differ in
 * their high bits only. */
static size_t home(const struct map *m, uint64_t hash)
{
    return (size_t)((hash * 0x9E3779B97F4A7C15u) >> 32) & (m->cap - 1);
}

static size_t after(const struct map *m, size_t at)
{
    return (at + 1) & (m->cap - 1);
}

void map_done(struct map *m)
{
    free(m->entries);
    *m = (struct map){ 0 };
}

void *map_get(const struct map *m, uint64_t hash, map_equal_fn equal, const void *key, size_t len)
{
    if (!m->count)
        return NULL;
    for (size_t i = home(m, hash); m->entries[i].value; i = after(m, i))
        if (m->entries[i].hash == hash && equal(m->entries[i].value, key, len))
            return m->entries[i].value;
    return NULL;
}

static void insert(struct map *m, uint64_t hash, void *value)
{
    size_t i = home(m, hash);
    while (m->entries[i].value)
        i = after(m, i);
    m->entries[i] = (struct map_entry){ .hash = hash, .value = value };
    m->count++;
}

static int resize(struct map *m, size_t cap)
{
    struct map bigger = { .entries = calloc(cap, sizeof(struct map_entry)), .cap = cap };
    if (!bigger.entries)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->entries[i].value)
            insert(&bigger, m->entries[i].hash, m->entries[i].value);
    free(m->entries);
    *m = bigger;
    return 0;
}

int map_put(struct map *m, uint64_t hash, void *value)
{
    if (m->count + 1 > m->cap / 4 * 3) {
        int r = resize(m, m->cap ? m->cap * 2 : MAP_CAP_MIN);
        if (r < 0)
            return r;
    }
    insert(m, hash, value);
    return 0;
}

/* Entries after a hole move into it unless that would put them before their home. */
static void close_hole(struct map *m, size_t hole)
{
    for (size_t i = after(m, hole); m->entries[i].value; i = after(m, i)) {
        size_t distance = (i - home(m, m->entries[i].hash)) & (m->cap - 1);
        if (distance >= ((i - hole) & (m->cap - 1))) {
            m->entries[hole] = m->entries[i];
            hole = i;
        }
    }
    m->entries[hole] = (struct map_entry){ 0 };
}

bool map_remove(struct map *m, uint64_t hash, const void *value)
{
    if (!m->count)
        return false;
    size_t i = home(m, hash);
    while (m->entries[i].value && m->entries[i].value != value)
        i = after(m, i);
    if (!m->entries[i].value)
        return false;
    close_hole(m, i);
    m->count--;
    if (m->cap > MAP_CAP_MIN && m->count < m->cap / 8)
        (void)resize(m, m->cap / 2); /* without memory it just stays large */
    return true;
}

void *map_next(const struct map *m, size_t *at)
{
    while (*at < m->cap) {
        void *value = m->entries[(*at)++].value;
        if (value)
            return value;
    }
    return NULL;
}
