/* The keys of the events that the log holds: an event whose (channel, key) already stands there is
 * a repeat of one publish, and not appended again.
 *
 * The log is the truth: an entry is only a hash and an offset, and a match is proved by the record
 * itself. So what the log forgets is forgotten here, and a new writer finds all of it again. Costs
 * nothing while no event has a key; about 80 bytes for each that has. */
#ifndef HUB_KEYS_H
#define HUB_KEYS_H

#include "list.h"
#include "log.h"
#include "map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keys {
    struct log *log;
    struct map by_hash;
    struct list all; /* oldest first */
    uint64_t *body;  /* of the record that is compared */
    size_t body_cap;
};

struct key_name {
    const char *channel, *key; /* key: not "", NUL-terminated */
    size_t channel_len;
};

void keys_init(struct keys *keys, struct log *log);
void keys_done(struct keys *keys);

/* The record that holds this key of this channel; *ret is its head. False: none does. */
bool keys_find(struct keys *keys, const struct key_name *name, struct log_record *ret);
/* Remembers the key of the record just appended at `off`. Out of memory a repeat would pass. */
void keys_add(struct keys *keys, const struct key_name *name, uint64_t off);
/* Forgets those whose records have left the log. */
void keys_expire(struct keys *keys);
/* Forgets all: what comes now is another stream, or the same one read anew. */
void keys_clear(struct keys *keys);
/* Reads a used log, as its new writer. */
void keys_recover(struct keys *keys);

#endif
