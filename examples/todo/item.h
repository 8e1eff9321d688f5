/* An item as JSON. */
#ifndef TODO_ITEM_H
#define TODO_ITEM_H

#include "store.h"

#include <jansson.h>

/* {"id":"…","title":"…","completed":false,"created":1795334400123}; NULL: out of memory. Owned. */
json_t *item_json(const struct item *item);
/* The item in the form of a change, as if it had been added just now; else as item_json(). */
json_t *item_event(const struct item *item);

/* For item_fn: *arg is a json_t array that grows, or a json_t * that is set. */
int item_append(const struct item *item, void *arg);
int item_keep(const struct item *item, void *arg);

#endif
