/* The events of a batch, packed one behind the other (host byte order, unaligned):
 *
 *   channel length u16 | key length u16 | data length u32 | channel NUL | key NUL | data NUL */
#ifndef HUB_BATCH_H
#define HUB_BATCH_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>

struct batch_event {
    const char *channel, *key, *data; /* NUL-terminated; key: "" = none */
    size_t channel_len, key_len, len;
};

/* Packs one event. 0, -EMSGSIZE (out->max, or a name beyond any limit) or -ENOMEM. */
int batch_append(struct buf *out, const struct batch_event *event);
/* The event at the front, which is taken off; borrowed. False: nothing whole is left. */
bool batch_next(const char **at, size_t *left, struct batch_event *ret);
/* Are these bytes exactly `n` events? */
bool batch_valid(const char *at, size_t len, size_t n);

#endif
