/* Jittered exponential back-off. */
#include "backoff.h"

#define FIRST_MS      50
#define LIMIT_MS      1000
#define LONG_MS       5000
#define LONG_AFTER_MS 60000

unsigned backoff_next(struct backoff *backoff, int64_t now_ms, uint32_t random)
{
    if (backoff->attempts == 0)
        backoff->failing_ms = now_ms;
    unsigned doublings = backoff->attempts < 10 ? backoff->attempts : 10;
    unsigned wait = FIRST_MS << doublings;
    if (wait > LIMIT_MS)
        wait = now_ms - backoff->failing_ms >= LONG_AFTER_MS ? LONG_MS : LIMIT_MS;
    backoff->attempts++;
    return wait / 2 + (unsigned)((uint64_t)random * (wait / 2 + 1) >> 32);
}

void backoff_reset(struct backoff *backoff)
{
    *backoff = (struct backoff){ 0 };
}
