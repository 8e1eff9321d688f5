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
#define CHANNELS   16   /* of one that has very many, that are looked at */
#define BUSY_BYTES (1u << 20) /* sent in a second */
#define HASTY_MS   500        /* the least that a crowd is waited for */
#define FORGIVE_MS 60000      /* without a slow one: the next is waited for as the first was */

/* Is something on its way to one that is live? Its cursor may be old for lack of events. */
static bool awaits_frames(const struct conn *c)
{
    for (uint32_t i = 0; i < c->n_subs && i < CHANNELS; i++) {
        const struct sub *sub = c->subs[i];
        if (sub->feed && sub->feed->newest > c->cursor && sub->feed->newest > sub->from)
            return true;
    }
    return false;
}

/* One that has taken nothing for half of the time that the source waits, was lapped already or
 * given up is past help: it must not hold up the others, nor use up the source's patience with
 * them. */
static bool far_behind(const struct worker *w, const struct conn *c)
{
    if (c->cursor + log_size(w->log) / 8 >= w->frontier || c->cursor < log_tail(w->log) ||
        c->cursor < w->crowd.given_up)
        return false;
    bool stands = c->flags & CONN_BLOCKED && w->now_ms - c->last_out_ms > PACE_PATIENT_MS / 2;
    return !stands && (c->flags & CONN_BEHIND || awaits_frames(c));
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

static void begin_counting(struct worker *w)
{
    struct crowd *crowd = &w->crowd;
    crowd->since_ms = w->now_ms;
    crowd->bytes = delivered_bytes(w);
    if (!crowd->patience_ms || w->now_ms - crowd->gave_up_ms > FORGIVE_MS)
        crowd->patience_ms = PACE_PATIENT_MS;
}

/* Is it behind because there is so much to send? When little is sent the clients are what is slow,
 * and everybody's time is not theirs: all who are far behind now are given up, until they are
 * lapped. Some are slow for good, and fall behind again each time the log comes round; so the next
 * ones get half of the time only. */
static bool keeps_us_busy(struct worker *w)
{
    struct crowd *crowd = &w->crowd;
    if (!crowd->since_ms)
        begin_counting(w);
    int64_t counted_ms = w->now_ms - crowd->since_ms;
    if (counted_ms < crowd->patience_ms)
        return true;
    bool busy = delivered_bytes(w) - crowd->bytes >= (uint64_t)counted_ms * BUSY_BYTES / 1000;
    if (!busy) {
        crowd->given_up = w->frontier - log_size(w->log) / 8;
        crowd->gave_up_ms = w->now_ms;
        crowd->patience_ms = crowd->patience_ms / 2 < HASTY_MS ? HASTY_MS : crowd->patience_ms / 2;
    }
    begin_counting(w);
    return busy;
}

/* Where nobody was far behind, nobody is before the log has moved on. */
static bool must_look(const struct worker *w)
{
    const struct crowd *crowd = &w->crowd;
    return crowd->since_ms || w->frontier - crowd->none >= log_size(w->log) / 16;
}

uint64_t crowd_progress(struct worker *w)
{
    struct crowd *crowd = &w->crowd;
    if (!w->durable || !must_look(w))
        return crowd->at = w->frontier;
    if (w->now_ms < crowd->look_ms)
        return crowd->at;
    crowd->look_ms = w->now_ms + LOOK_MS;
    crowd->at = crowd_cursor(w);
    if (crowd->at == w->frontier) {
        crowd->none = w->frontier;
        crowd->since_ms = 0;
    } else if (!keeps_us_busy(w)) {
        crowd->at = w->frontier;
    }
    return crowd->at;
}

int crowd_wait_ms(const struct worker *w)
{
    int64_t wait = w->crowd.look_ms - w->now_ms;
    if (w->crowd.at == w->frontier)
        return -1;
    return wait > 0 ? (int)wait : 0;
}
