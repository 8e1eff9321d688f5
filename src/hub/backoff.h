/* When to try again: 50 ms doubling to 1 s, 5 s after a minute of failing; jittered, so that many
 * hosts do not come back to one backend in step. */
#ifndef HUB_BACKOFF_H
#define HUB_BACKOFF_H

#include <stdint.h>

struct backoff {
    unsigned attempts;  /* failures in a row */
    int64_t failing_ms; /* when the first of them happened */
};

/* Notes a failure at `now_ms`; returns the ms to wait. `random`: any number, all bits random. */
unsigned backoff_next(struct backoff *backoff, int64_t now_ms, uint32_t random);
void backoff_reset(struct backoff *backoff);

#endif
