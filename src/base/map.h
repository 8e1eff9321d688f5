/* A hash table of pointers to objects that begin their lookup with a 64-bit hash. Open addressing;
 * the caller hashes (keyed where names come from outside) and compares. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_entry {
    uint64_t hash;
    void *value; /* NULL: free */
};

struct map {
    struct map_entry *entries;
    size_t cap, count;
};

typedef bool (*map_equal_fn)(const void *value, const void *key, size_t key_len);

void map_done(struct map *m); /* frees the table, not the values */
void *map_get(const struct map *m, uint64_t hash, map_equal_fn equal, const void *key, size_t len);
int map_put(struct map *m, uint64_t hash, void *value); /* 0 or -ENOMEM; no duplicate check */
bool map_remove(struct map *m, uint64_t hash, const void *value); /* by identity */
/* Iterates: *at starts at 0; NULL at the end. The map must not change meanwhile. */
void *map_next(const struct map *m, size_t *at);

#endif
