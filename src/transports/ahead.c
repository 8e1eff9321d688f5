/* Resumes from a position that this server has not come to (since_is_ahead()): they wait until the
 * log has come there. */
#include "clock.h"
#include "turn.h"

bool is_ahead(struct worker *w, const struct since *since)
{
    return since_is_ahead(w->log, since, &w->newest);
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
