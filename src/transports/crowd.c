/* How far a worker's clients are, for pacing.
 *
 * A slow client costs a cursor and in the end a gap of its own, never anybody's time. But when the
 * machine is what is slow, as when a bulk transaction is sent to thousands, all are behind, and
 * what laps one laps all. So a worker tells the source not how far it has read itself, but where
 * its crowd stands, if there is one: at least an eighth of its connections far behind, and it busy
 * sending to them. */
#include "pace.h"
#include "turn.h"

#define LOOK_MS    5    /* it costs a look at many connections */
#define SAMPLE     4096 /* of very many; the same each time, or it would look as if they moved */
#define BUSY_BYTES (5u << 20) /* sent in PACE_PATIENT_MS */

/* One that has taken nothing for half of the time that the source waits, or was lapped already, is
 * past help: it must not hold up the others, nor use up the source's patience with them. */
static bool far_behind(const struct worker *w, const struct conn *c)
{
    bool stands = c->flags & CONN_BLOCKED && w->now_ms - c->last_out_ms > PACE_PATIENT_MS / 2;
    return c->flags & CONN_BEHIND && !stands && c->cursor + log_size(w->log) / 8 < w->frontier &&
           c->cursor >= log_tail(w->log);
}

/* The average place of those who are far behind; the frontier when they are few. */
static uint64_t crowd_cursor(const struct worker *w)
{
    uint32_t stride = w->n_conns / SAMPLE + 1, looked = 0, n = 0;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < w->n_conns; i += stride) {
        const struct conn *c = w->conns[i];
        looked++;
        if (!far_behind(w, c))
            continue;
        sum += w->frontier - c->cursor;
        n++;
    }
    return n > 0 && n * 8 >= looked ? w->frontier - sum / n : w->frontier;
}

static uint64_t delivered_bytes(const struct worker *w)
{
    uint64_t sum = 0;
    for (int t = 0; t < N_TRANSPORTS; t++)
        sum += counted(&w->counters->delivered_bytes[t]);
    return sum;
}

/* Is it behind because there is so much to send? When little is sent the clients are what is slow,
 * and everybody's time is not theirs. Once found slow, a crowd holds nobody until it is no more. */
static bool keeps_us_busy(struct worker *w)
{
    struct crowd *crowd = &w->crowd;
    uint64_t bytes = delivered_bytes(w);
    if (crowd->since_ms && w->now_ms - crowd->since_ms < PACE_PATIENT_MS)
        return !crowd->slow;
    crowd->slow |= crowd->since_ms && bytes - crowd->bytes < BUSY_BYTES;
    crowd->since_ms = w->now_ms;
    crowd->bytes = bytes;
    return !crowd->slow;
}

uint64_t crowd_progress(struct worker *w)
{
    struct crowd *crowd = &w->crowd;
    bool behind = w->durable && counted(&w->counters->behind) > 0;
    if (behind && w->now_ms < crowd->look_ms)
        return crowd->at;
    crowd->look_ms = w->now_ms + LOOK_MS;
    crowd->at = behind ? crowd_cursor(w) : w->frontier;
    if (crowd->at == w->frontier) {
        crowd->since_ms = 0;
        crowd->slow = false;
    } else if (!keeps_us_busy(w)) {
        crowd->at = w->frontier;
    }
    return crowd->at;
}
