/* When to read the outbox.
 *
 * While NOTIFY is heard, it says when; a look every 5 s besides catches what it did not say, and
 * notices a connection that is silently gone. Where it cannot be heard (a pooler, a standby) or is
 * not sent (fanwire.notify = off), the table is polled: after an eighth of the time that has passed
 * since the last row, at least 5 ms and at most 250 ms. So a busy outbox is late by 5 ms, one that
 * has been quiet for q by q/8, and an idle one costs four small queries a second.
 *
 * That rows come unannounced is noticed: a look found some, the one before had left nothing, and no
 * NOTIFY followed within a second (it may just have been overtaken by the look). Then it is polled
 * for a minute from the last such row on.
 *
 * Rows above the horizon are announced once and become readable at another transaction's end, which
 * nobody announces: after 2 ms, doubled up to 100 ms. */
#include "pg_outbox_pace.h"

#define SAFETY_MS   5000
#define POLL_MIN_MS 5
#define POLL_MAX_MS 250
#define POLL_SHARE  8
#define HELD_MIN_MS 2
#define HELD_MAX_MS 100
#define DOUBT_MS    1000
#define DISTRUST_MS 60000

void outbox_pace_start(struct outbox_pace *p, bool listens, int64_t now)
{
    *p = (struct outbox_pace){ .listens = listens, .rows_ms = now, .due_ms = now };
}

void outbox_pace_heard(struct outbox_pace *p)
{
    p->announced = true;
    p->doubt_ms = 0;
}

void outbox_pace_sent(struct outbox_pace *p)
{
    p->expected = p->announced;
    p->announced = false;
}

static int64_t poll_ms(const struct outbox_pace *p, int64_t now)
{
    int64_t wait = (now - p->rows_ms) / POLL_SHARE;
    return wait < POLL_MIN_MS ? POLL_MIN_MS : wait > POLL_MAX_MS ? POLL_MAX_MS : wait;
}

static int64_t held_ms(struct outbox_pace *p)
{
    int64_t wait = (int64_t)HELD_MIN_MS << p->step;
    if (wait >= HELD_MAX_MS)
        return HELD_MAX_MS;
    p->step++;
    return wait;
}

static int64_t next_ms(struct outbox_pace *p, bool more, int64_t now)
{
    if (more)
        return 0;
    if (p->held)
        return held_ms(p);
    if (!p->listens || now < p->poll_until_ms)
        return poll_ms(p, now);
    return p->doubt_ms ? DOUBT_MS : SAFETY_MS;
}

/* True when the distrust begins. */
static bool judge(struct outbox_pace *p, int64_t now)
{
    if (!p->doubt_ms || now - p->doubt_ms < DOUBT_MS)
        return false;
    bool begins = now >= p->poll_until_ms;
    p->poll_until_ms = now + DISTRUST_MS;
    p->doubt_ms = 0;
    return begins;
}

bool outbox_pace_took(struct outbox_pace *p, const struct outbox_found *found, int64_t now)
{
    bool unannounced = p->listens && p->calm && !p->expected && !p->announced;
    if (found->rows) {
        p->rows_ms = now;
        p->step = 0;
    }
    if (found->rows && unannounced && !p->doubt_ms)
        p->doubt_ms = now;
    p->held = found->held;
    p->calm = !found->more && !found->held;
    if (p->calm)
        p->step = 0;
    bool begins = judge(p, now);
    p->due_ms = now + next_ms(p, found->more, now);
    return begins;
}

/* What a NOTIFY announces while rows are held is held, too. */
int64_t outbox_pace_wait(const struct outbox_pace *p, int64_t now)
{
    return p->announced && !p->held ? 0 : p->due_ms - now;
}
