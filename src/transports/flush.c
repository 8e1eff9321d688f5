/* Flush: from the arena to the sockets of live connections. Walkers take turns, so that a channel
 * of ten waits for 64 sends, not for 100,000. Events that arrive during a long walk are picked up
 * by the same visits: saturation turns into batching by itself. */
#include "clock.h"
#include "turn.h"

#include <string.h>

#define TURN_VISITS 64 /* of one walker before the next has its turn */
#define CLOCK_EVERY 16 /* visits between two looks at the clock */

void set_behind(struct worker *w, struct conn *c, bool behind)
{
    if (behind == !!(c->flags & CONN_BEHIND))
        return;
    count(&w->counters->behind, behind ? 1 : (uint64_t)-1);
    if (behind) {
        c->flags |= CONN_BEHIND;
        list_remove(&c->work);
        if (!(c->flags & CONN_BLOCKED))
            list_push(&w->behind, &c->work);
    } else {
        c->flags &= ~(uint32_t)(CONN_BEHIND | CONN_SWEEPING);
        list_remove(&c->work);
    }
}

/* ---- what is new for a connection ---- */

/* Where the sub's next frame may be. */
static uint64_t sub_cursor(const struct conn *c, const struct sub *sub)
{
    return c->cursor > sub->from ? c->cursor : sub->from;
}

static bool arena_holds_all(const struct worker *w, const struct conn *c)
{
    const struct feed *control = control_feed(w, c);
    if (control && c->cursor < control->gone)
        return false;
    for (uint32_t i = 0; i < c->n_subs; i++) {
        const struct feed *feed = c->subs[i]->feed;
        if (feed && sub_cursor(c, c->subs[i]) < feed->gone)
            return false;
    }
    return true;
}

static void merge_add(struct worker *w, struct merge *m, const struct feed *feed, uint64_t cursor)
{
    if (!feed || feed->newest <= cursor)
        return;
    uint32_t index = feed_find(&w->arena, feed, cursor);
    if (index < feed->count)
        m->heads[m->n++] = (struct merge_head){ feed, index };
}

/* The connection's frames at or after its cursor, over all of its feeds, in log order. */
static struct merge merge_begin(struct worker *w, const struct conn *c)
{
    struct merge m = { .heads = w->heads };
    merge_add(w, &m, control_feed(w, c), c->cursor);
    for (uint32_t i = 0; i < c->n_subs; i++)
        merge_add(w, &m, c->subs[i]->feed, sub_cursor(c, c->subs[i]));
    return m;
}

static struct frame *merge_next(struct worker *w, struct merge *m)
{
    struct frame *next = NULL;
    uint32_t best = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        const struct merge_head *head = &m->heads[i];
        struct frame *frame = arena_frame(&w->arena, feed_seq(head->feed, head->index));
        if (!next || frame->off < next->off) {
            next = frame;
            best = i;
        }
    }
    if (next && ++m->heads[best].index == m->heads[best].feed->count)
        m->heads[best] = m->heads[--m->n];
    return next;
}

static bool gathered_fits(const struct gathered *g, const struct frame *frame, bool adjacent)
{
    return g->n_frames == 0 ||
           (g->bytes + frame->len <= VISIT_BYTES && (adjacent || g->n_iov < VISIT_IOVS));
}

/* Neighbours in the arena become one iovec: a burst of one feed is one plain send. */
static void gather(struct worker *w, const struct conn *c, struct gathered *g)
{
    *g = (struct gathered){ .upto = w->frontier, .to = w->frontier };
    struct merge m = merge_begin(w, c);
    if (c->n_subs == 1 && m.n == 1 && m.heads[0].feed == c->subs[0]->feed) {
        g->feed = m.heads[0].feed;
        g->from = sub_cursor(c, c->subs[0]);
    }
    for (struct frame *frame; (frame = merge_next(w, &m));) {
        uint8_t *bytes = (uint8_t *)arena_bytes(&w->arena, frame);
        struct iovec *last = g->n_iov ? &g->iov[g->n_iov - 1] : NULL;
        bool adjacent = last && (uint8_t *)last->iov_base + last->iov_len == bytes;
        if (!gathered_fits(g, frame, adjacent)) {
            g->to = frame->off;
            return;
        }
        if (adjacent)
            last->iov_len += frame->len;
        else
            g->iov[g->n_iov++] = (struct iovec){ bytes, frame->len };
        g->bytes += frame->len;
        g->state = frame->state ? frame->state : g->state;
        if (g->n_frames++ == 0)
            g->oldest_ms = frame->time_ms;
    }
}

static struct gathered *gathered_for(struct worker *w, const struct conn *c)
{
    struct gathered *g = &w->gathered;
    const struct feed *control = control_feed(w, c);
    bool same = g->feed && c->n_subs == 1 && g->feed == c->subs[0]->feed &&
                g->from == sub_cursor(c, c->subs[0]) && g->upto == w->frontier &&
                (!control || control->newest <= c->cursor);
    if (!same)
        gather(w, c, g);
    return g;
}

/* ---- sending it ---- */

void observe_delivery(struct worker *w, const struct conn *c, uint32_t frames, size_t bytes,
                      int64_t oldest_ms)
{
    struct counters *counters = w->counters;
    count(&counters->deliveries[c->transport], frames);
    count(&counters->delivered_bytes[c->transport], bytes);
    int64_t us = (w->wall_ms - oldest_ms) * 1000;
    us = us < 0 ? 0 : us;
    unsigned bucket = 0;
    while (bucket < N_LATENCY_BUCKETS - 1 && us > (50ll << bucket))
        bucket++;
    count(&counters->latency[bucket], frames);
    count(&counters->latency_sum_us, (uint64_t)us * frames);
}

/* down and up that were sent as frames need not be told again. */
static void note_state(struct conn *c, uint8_t state)
{
    if (state == STATE_DOWN)
        c->flags |= CONN_TOLD_DOWN;
    else if (state == STATE_UP)
        c->flags &= ~(uint32_t)CONN_TOLD_DOWN;
}

/* The kernel took a part: the cursor moves over what is whole, the rest of a frame is kept. */
static void cut_off(struct worker *w, struct conn *c, size_t sent)
{
    struct merge m = merge_begin(w, c);
    uint32_t whole = 0;
    int64_t oldest = w->wall_ms;
    size_t left = sent;
    for (struct frame *frame; left && (frame = merge_next(w, &m));) {
        c->cursor = frame->next;
        note_state(c, frame->state);
        oldest = whole++ == 0 ? frame->time_ms : oldest;
        if (left < frame->len) {
            conn_keep_tail(w, c, arena_bytes(&w->arena, frame), frame->len, left, &frame->blob);
            break;
        }
        left -= frame->len;
    }
    observe_delivery(w, c, whole, sent, oldest);
}

/* One write of what is new. True when more is left for a next visit. */
static bool visit_once(struct worker *w, struct conn *c)
{
    if (c->state != CONN_STREAM || c->flags & CONN_BEHIND)
        return false;
    if (!(c->flags & CONN_GREETED)) { /* waits for its channels, but not for this */
        tell_down_up(w, c);
        return false;
    }
    if (!arena_holds_all(w, c)) { /* a blocked one too: it is what "behind" means in the metrics */
        set_behind(w, c, true);
        return false;
    }
    if (c->flags & CONN_BLOCKED)
        return false;
    struct gathered *g = gathered_for(w, c);
    if (g->n_frames == 0) {
        c->cursor = c->cursor < w->frontier ? w->frontier : c->cursor;
        tell_down_up(w, c);
        return false;
    }
    int64_t sent = conn_write(w, c, g->iov, g->n_iov);
    if (sent <= 0)
        return false;
    if ((size_t)sent < g->bytes) {
        cut_off(w, c, (size_t)sent);
        return false;
    }
    c->cursor = g->to;
    observe_delivery(w, c, g->n_frames, g->bytes, g->oldest_ms);
    note_state(c, g->state);
    if (g->to < w->frontier)
        return true;
    tell_down_up(w, c);
    return false;
}

void visit(struct worker *w, struct conn *c)
{
    for (unsigned i = 0; i < ARENA_SIZE / VISIT_BYTES; i++) {
        if (!visit_once(w, c))
            return;
    }
    set_behind(w, c, true);
}

/* Up to TURN_VISITS of one walker. */
static void walk(struct worker *w, struct walker *walker, int64_t deadline)
{
    struct feed *feed = walker == &w->everyone
                            ? NULL
                            : (struct feed *)((char *)walker - offsetof(struct feed, walker));
    for (unsigned i = 1; i <= TURN_VISITS; i++) {
        uint32_t n = feed ? feed->subs.count : w->n_conns;
        int64_t at = walker_next(walker, n);
        if (at < 0)
            return;
        struct conn *c = feed ? feed->subs.items[at]->conn : w->conns[at];
        if (visit_once(w, c))
            walker->left = n; /* comes round again */
        if (i % CLOCK_EVERY == 0 && clock_monotonic_us() > deadline)
            return;
    }
}

/* Connections whose sockets have become writable, and that the arena can still serve. */
static void visit_unblocked(struct worker *w, int64_t deadline)
{
    struct list *node;
    for (unsigned i = 1; (node = list_pop(&w->unblocked)); i++) {
        struct conn *c = list_entry(node, struct conn, work);
        if (visit_once(w, c))
            list_push(&w->unblocked, &c->work);
        if (c->state == CONN_STREAM)
            conn_trim(c);
        if (i % CLOCK_EVERY == 0 && clock_monotonic_us() > deadline)
            return;
    }
}

void flush(struct worker *w, int64_t budget_us)
{
    int64_t deadline = w->now_us + budget_us;
    visit_unblocked(w, deadline);
    while (!list_empty(&w->dirty)) {
        struct list *node = list_pop(&w->dirty);
        list_push(&w->dirty, node);
        walk(w, list_entry(node, struct walker, dirty), deadline);
        if (clock_monotonic_us() > deadline)
            return;
    }
}
