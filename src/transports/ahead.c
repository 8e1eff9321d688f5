/* Resumes from a position that this server has not come to. Where several servers read one
 * database, a client may come from one that was quicker: its position is true, and what makes it so
 * is on its way here. To answer at once would be a gap that is none, and everything held once more.
 * So it waits until the log has come there, but not for ever: a position may also be of a stream
 * that was lost. While the source is down the time does not run. */
#include "clock.h"
#include "turn.h"

#define AHEAD_MS 10000

/* The newest position in the log, looked up once for all who ask before the next event. */
static const uint64_t *newest_position(struct worker *w)
{
    uint64_t indexed = log_indexed(w->log);
    if (w->newest.off != indexed) {
        w->newest.known = log_position_before(w->log, indexed, w->newest.pos) == 0;
        w->newest.off = indexed;
    }
    return w->newest.known ? w->newest.pos : NULL;
}

bool is_ahead(struct worker *w, const struct since *since)
{
    const struct position *p = &since->position;
    uint64_t identity = log_identity(w->log);
    if (since->kind != SINCE_POSITION || p->kind != POSITION_DURABLE || identity == 0 ||
        p->space != identity)
        return false;
    const uint64_t *newest = newest_position(w);
    return newest && (p->a > newest[0] || (p->a == newest[0] && p->b > newest[1]));
}

/* Is there time left to wait for it? *until_ms: 0 before the first question. */
static bool may_wait(const struct worker *w, int64_t *until_ms)
{
    if (*until_ms == 0 || w->down)
        *until_ms = w->now_ms + AHEAD_MS;
    return w->now_ms < *until_ms;
}

bool join_waits(struct worker *w, struct join *join)
{
    if (join->sub->channel->state == CHANNEL_REFUSED || !is_ahead(w, &join->since) ||
        !may_wait(w, &join->until_ms))
        return false;
    if (!list_linked(&join->settling))
        list_push(&w->ahead, &join->settling);
    return true;
}

bool page_waits(struct worker *w, struct history_request *history)
{
    if (!is_ahead(w, &history->since))
        return false;
    if (!history->ahead && history->until_ms < w->now_ms + AHEAD_MS)
        history->until_ms = w->now_ms + AHEAD_MS;
    history->ahead = true;
    if (w->now_ms >= history->until_ms)
        return false;
    list_push(&w->ahead_pages, &history->node);
    conn_arm(w, history->conn);
    return true;
}

static void pages_check(struct worker *w)
{
    struct list all, *node;
    list_init(&all);
    list_move_all(&all, &w->ahead_pages);
    while ((node = list_pop(&all)))
        history_advance(w, list_entry(node, struct history_request, node)->conn);
}

void ahead_check(struct worker *w, int64_t budget_us)
{
    uint64_t indexed = log_indexed(w->log);
    if ((list_empty(&w->ahead) && list_empty(&w->ahead_pages)) ||
        (w->ahead_looked == indexed && w->now_ms < w->ahead_next_ms))
        return;
    pages_check(w);
    int64_t deadline = clock_monotonic_us() + budget_us;
    struct list all, *node; /* who is still ahead goes back into the list */
    list_init(&all);
    list_move_all(&all, &w->ahead);
    for (unsigned i = 1; (node = list_pop(&all)); i++) {
        joins_advance(w, list_entry(node, struct join, settling)->conn);
        if (i % 16 == 0 && clock_monotonic_us() > deadline)
            break;
    }
    w->ahead_more = !list_empty(&all);
    list_move_all(&w->ahead, &all);
    w->ahead_looked = w->ahead_more ? 0 : indexed;
    w->ahead_next_ms = w->now_ms + 500;
}
