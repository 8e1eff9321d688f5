/* How far the slot may be confirmed.
 *
 * Not every transaction's place is remembered: one for each so many bytes or milliseconds, so that
 * the ring holds the whole retention. Should it not, the oldest place is confirmed early. */
#include "pg_trail.h"

#define STEPS 400 /* places for each of the two measures, less than half of the ring */

void pg_trail_init(struct pg_trail *trail, uint64_t bytes, int64_t age_ms)
{
    *trail = (struct pg_trail){ .bytes = bytes, .age_ms = age_ms };
}

void pg_trail_reset(struct pg_trail *trail, uint64_t lsn)
{
    trail->passed = lsn;
    trail->first = trail->n = 0;
}

static unsigned at(const struct pg_trail *trail, unsigned i)
{
    return (trail->first + i) % PG_TRAIL_MAX;
}

void pg_trail_pass(struct pg_trail *trail, uint64_t lsn, int64_t now_ms)
{
    if (lsn <= trail->passed)
        return;
    trail->passed = lsn;
    if (trail->n > 0) {
        unsigned last = at(trail, trail->n - 1);
        if (lsn - trail->places[last].lsn < trail->bytes / STEPS &&
            now_ms - trail->places[last].at_ms < trail->age_ms / STEPS)
            return;
    }
    if (trail->n == PG_TRAIL_MAX) {
        trail->first = at(trail, 1);
        trail->n--;
    }
    unsigned next = at(trail, trail->n++);
    trail->places[next].lsn = lsn;
    trail->places[next].at_ms = now_ms;
}

/* The last place in a stretch of silence stands for all of it: what was passed since is newer, and
 * is remembered when it is looked at here. */
static void remember_passed(struct pg_trail *trail, int64_t now_ms)
{
    unsigned last = at(trail, trail->n - 1);
    if (trail->n == 0 || trail->n == PG_TRAIL_MAX || trail->places[last].lsn == trail->passed ||
        now_ms - trail->places[last].at_ms < trail->age_ms / STEPS)
        return;
    unsigned next = at(trail, trail->n++);
    trail->places[next].lsn = trail->passed;
    trail->places[next].at_ms = now_ms;
}

uint64_t pg_trail_confirm(struct pg_trail *trail, int64_t now_ms)
{
    uint64_t lsn = 0;
    remember_passed(trail, now_ms);
    while (trail->n > 0) {
        unsigned first = trail->first;
        if (now_ms - trail->places[first].at_ms < trail->age_ms &&
            trail->passed - trail->places[first].lsn <= trail->bytes)
            break;
        lsn = trail->places[first].lsn;
        trail->first = at(trail, 1);
        trail->n--;
    }
    return lsn;
}
