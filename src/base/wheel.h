/* A hashed timer wheel: many timers, cheap to set again. Time comes in as a parameter (ms).
 * 512 slots of 128 ms; a timer further away than one round stays for the next. */
#ifndef BASE_WHEEL_H
#define BASE_WHEEL_H

#include "list.h"

#include <stdint.h>

#define WHEEL_SLOTS   512
#define WHEEL_TICK_MS 128

struct wheel_timer {
    struct list node;  /* zeroed = not set */
    uint32_t due_tick; /* tick in which it expires */
};

struct wheel {
    struct list slots[WHEEL_SLOTS];
    struct list expired; /* due, not yet returned by wheel_expire() */
    uint32_t tick;       /* the last one processed */
};

void wheel_init(struct wheel *w, int64_t now_ms);
/* Sets or resets. Fires at the first wheel_expire() at or after now + timeout, rounded up to a
 * tick: never early, at most WHEEL_TICK_MS late. */
void wheel_set(struct wheel *w, struct wheel_timer *t, int64_t now_ms, uint32_t timeout_ms);
void wheel_clear(struct wheel_timer *t);
/* Returns one expired timer (already cleared), or NULL when none is left up to `now_ms`. A timer
 * set from its own expiry with a time-out of 0 fires in the next tick: the loop always ends. */
struct wheel_timer *wheel_expire(struct wheel *w, int64_t now_ms);
/* ms until the next tick that may hold a timer; -1 if the wheel is empty (then costs a scan). */
int wheel_next_ms(const struct wheel *w, int64_t now_ms);

#endif
