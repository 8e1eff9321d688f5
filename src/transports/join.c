/* Joining: from the source's word to `ready`.
 *
 * A subscription waits until the source has confirmed the channel; only then is it known from where
 * in the log the channel is whole (covered_from), so only then is a resume evaluated. The channels
 * that a connection opens with are evaluated together: one cursor starts at the oldest place that
 * any of them needs, so what is replayed is in one order over all of them, and a client that is cut
 * off in the middle can resume from the last id it saw. A channel that joins an open connection is
 * replayed up to the connection's cursor C first, alone, and merges there: the connection's cursor
 * does not move meanwhile. `ready` follows when the cursor has passed the place where the source
 * confirmed. */
#include "clock.h"
#include "control.h"
#include "turn.h"

#include <stdlib.h>

void join_free(struct worker *w, struct join *join)
{
    list_remove(&join->node);
    snapshot_unref(w, join->snapshot);
    list_remove(&join->settling);
    free(join->offsets);
    free(join);
}

void joins_free(struct worker *w, struct conn *c)
{
    struct list *node;
    while (c->more && (node = list_pop(&c->more->joins)))
        join_free(w, list_entry(node, struct join, node));
}

static void join_settle(struct worker *w, struct join *join)
{
    join->phase = JOIN_SETTLING;
    list_remove(&join->settling);
    snapshot_unref(w, join->snapshot);
    join->snapshot = NULL;
    free(join->offsets);
    join->offsets = NULL;
    list_push(&w->settling, &join->settling);
}

void join_replayed(struct worker *w, struct join *join)
{
    join_settle(w, join);
}

static struct log_channel log_channel_of(const struct channel *channel)
{
    return (struct log_channel){ channel->hash, channel->name, channel->len };
}

/* What an outage lost is written in the control channel: a resume that reaches back over such a
 * record is not complete, whatever its own channels say; nor is all that is held, where one stands
 * amid of it. `from`: the first control record at or after the position, or cut. */
struct resume resume_control(struct worker *w, const struct since *since, uint64_t cut)
{
    struct log_channel name = log_channel_of(&w->control);
    struct resume r = resume_channel(w->log, &name, since, 0, cut);
    bool claims = since->kind == SINCE_POSITION; /* else what is held no more is not asked for */
    if (since->kind == SINCE_NOW || r.reason != REASON_NONE)
        return r;
    uint64_t offsets[LOG_HOPS_MAX];
    int n = log_walk(w->log, &name, r.from, cut, offsets, LOG_HOPS_MAX);
    r.before = cut;
    if (n < 0 && claims)
        r.reason = REASON_EXPIRED;
    for (int i = n - 1; i >= 0 && !r.reason; i--) { /* the newest: whole again from there */
        struct log_record record;
        bool held = log_peek(w->log, offsets[i], &record) == 1;
        if (held && record.kind != RECORD_GAP)
            continue;
        r.reason = claims ? REASON_EXPIRED : REASON_NONE;
        if (held && read_body(w, &record) == 1) {
            r.before = record.next;
            (void)control_decode(record.data, record.len, &r.after, &r.reason);
        }
    }
    return r;
}

/* The newest N before `cut` of one channel, or (join NULL) of each channel that the connection
 * opened with, in one order, become the replay of the first of these joins. */
static void joins_last(struct worker *w, struct conn *c, struct join *only, uint64_t cut)
{
    struct join *first = NULL;
    uint64_t *offsets = NULL;
    size_t total = 0;
    for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next) {
        struct join *join = list_entry(n, struct join, node);
        if (join->last == 0 || (only && join != only))
            continue;
        uint64_t *grown = realloc(offsets, (total + join->last) * sizeof(*offsets));
        if (!grown)
            break;
        offsets = grown;
        struct log_channel name = log_channel_of(join->sub->channel);
        int got = log_last(w->log, &name, cut, join->last, offsets + total);
        total += got > 0 ? (size_t)got : 0;
        first = first ? first : join;
    }
    if (!first || total == 0) {
        free(offsets);
        return;
    }
    qsort(offsets, total, sizeof(*offsets), compare_offsets);
    first->offsets = offsets;
    first->n_offsets = (uint32_t)total;
    first->phase = JOIN_REPLAY;
}

/* Where this join's channel goes on; tells the gap if there is one, which may be the end of a bare
 * connection: then the join is gone. */
static uint64_t join_resume(struct worker *w, struct join *join, uint64_t cut)
{
    if (join->since.kind == SINCE_NOW)
        return w->frontier;
    struct channel *channel = join->sub->channel;
    struct log_channel name = log_channel_of(channel);
    struct resume r = resume_channel(w->log, &name, &join->since, channel->covered_from, cut);
    if (join->since.kind == SINCE_POSITION && !join->snapshot)
        count(r.reason ? &w->counters->resumes_gap : &w->counters->resumes_complete, 1);
    /* Events before the position are not for it, also where another channel needs them. */
    bool exact = !r.reason && join->since.position.kind == POSITION_LOCAL;
    join->sub->from = exact && join->since.kind == SINCE_POSITION ? join->since.position.a : r.from;
    if (r.reason) /* last: it may end the connection, and the join with it */
        tell_missed(w, join->conn, channel, &join->since, &r);
    return r.from;
}

/* The gaps of outages after the position, for a connection that opens with it: they are met on the
 * way, so the way must begin before them. Returns from where. */
static uint64_t control_resume(struct worker *w, struct join *join, uint64_t cut)
{
    if (join->since.kind != SINCE_POSITION)
        return UINT64_MAX;
    struct log_channel name = log_channel_of(&w->control);
    struct resume r = resume_channel(w->log, &name, &join->since, 0, cut);
    if (r.reason == REASON_EXPIRED)
        tell_missed(w, join->conn, join->sub->channel, &join->since, &r);
    return r.from;
}

/* One channel that the connection opened with. Returns from where it needs the log. */
static uint64_t join_open(struct worker *w, struct join *join, uint64_t cut)
{
    struct conn *c = join->conn;
    bool now = join->last || join->since.kind == SINCE_NOW;
    uint64_t from = join->last ? w->frontier : join_resume(w, join, cut), control = UINT64_MAX;
    if (c->state == CONN_STREAM && now)
        join->sub->from = w->frontier;
    else if (c->state == CONN_STREAM)
        control = control_resume(w, join, cut);
    if (c->state == CONN_STREAM && sub_enter(w, join->sub) < 0)
        conn_kill(w, c, 1011);
    return from < control ? from : control;
}

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* How far its cursor must be for `ready`: not before the place that it came with, and with rows,
 * beyond all that they contain. */
static uint64_t ready_at(const struct join *join)
{
    uint64_t at = max64(join->sub->channel->ready_at, join->sub->from);
    return join->snapshot ? max64(at, snapshot_until(join->snapshot)) : at;
}

/* The channels that the connection opened with, together. */
static void joins_open(struct worker *w, struct conn *c)
{
    uint64_t cut = log_indexed(w->log), start = UINT64_MAX;
    for (struct list *n = c->more->joins.next, *next; n != &c->more->joins; n = next) {
        struct join *join = list_entry(n, struct join, node);
        next = n->next;
        uint64_t from = UINT64_MAX;
        if (join->sub->channel->state == CHANNEL_REFUSED)
            sub_refused(w, join->sub);
        else
            from = join_open(w, join, cut);
        if (c->state != CONN_STREAM)
            return;
        start = from < start ? from : start;
    }
    c->cursor = start == UINT64_MAX ? w->frontier : start;
    c->flags |= CONN_GREETED;
    joins_last(w, c, NULL, w->frontier);
    bool replays = false;
    for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next) {
        struct join *join = list_entry(n, struct join, node);
        join->ready_at = ready_at(join);
        if (join->snapshot)
            join->phase = JOIN_REPLAY;
        replays |= join->phase == JOIN_REPLAY;
        if (join->phase == JOIN_WAITING)
            join_settle(w, join);
    }
    if (c->cursor < w->frontier || replays)
        set_behind(w, c, true);
}

/* What a joining channel missed of the whole source's gaps, told as its own. Only where its own
 * resume was complete: one gap is enough. */
static void late_control_gap(struct worker *w, struct join *join)
{
    struct conn *c = join->conn;
    struct resume r = resume_control(w, &join->since, c->cursor);
    if (r.reason && r.reason != REASON_FOREIGN_POSITION && r.reason != REASON_NEW_EPOCH)
        tell_missed(w, c, join->sub->channel, &join->since, &r);
}

/* A channel that joins an open connection. */
static void join_late(struct worker *w, struct join *join)
{
    struct conn *c = join->conn;
    if (join->sub->channel->state == CHANNEL_REFUSED) {
        sub_refused(w, join->sub);
        return;
    }
    visit(w, c); /* brings the cursor as far as it goes */
    if (c->state != CONN_STREAM)
        return;
    uint64_t cut = log_indexed(w->log), gaps = w->told_gaps;
    uint64_t from = join->last ? w->frontier : join_resume(w, join, cut);
    if (join->last || join->since.kind == SINCE_NOW)
        join->sub->from = c->cursor < w->frontier ? w->frontier : c->cursor;
    else if (c->state == CONN_STREAM && w->told_gaps == gaps)
        late_control_gap(w, join);
    if (c->state != CONN_STREAM)
        return;
    if (sub_enter(w, join->sub) < 0) {
        conn_kill(w, c, 1011);
        return;
    }
    join->ready_at = ready_at(join);
    if (join->snapshot)
        join->phase = JOIN_REPLAY;
    if (join->last) {
        joins_last(w, c, join, join->sub->from);
    } else if (join->since.kind != SINCE_NOW && from < c->cursor) {
        join->from = from;
        join->until = c->cursor;
        join->phase = JOIN_REPLAY;
    }
    if (join->phase == JOIN_WAITING)
        join_settle(w, join);
    else
        set_behind(w, c, true);
}

static bool all_answered(const struct conn *c)
{
    for (uint32_t i = 0; i < c->n_subs; i++) {
        if (c->subs[i]->channel->state == CHANNEL_ASKING)
            return false;
    }
    return true;
}

static bool waits(struct worker *w, struct join *join)
{
    return snapshot_waits(w, join) || join_waits(w, join);
}

static bool any_waits(struct worker *w, const struct conn *c)
{
    bool any = false; /* all are asked: they wait at the same time */
    for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next)
        any |= waits(w, list_entry(n, struct join, node));
    return any;
}

void joins_advance(struct worker *w, struct conn *c)
{
    if (c->state != CONN_STREAM || !conn_more(c))
        return;
    if (!(c->flags & CONN_GREETED)) {
        if (all_answered(c) && !any_waits(w, c))
            joins_open(w, c);
        return;
    }
    for (bool again = true; again && c->state == CONN_STREAM;) {
        again = false;
        for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next) {
            struct join *join = list_entry(n, struct join, node);
            if (join->phase == JOIN_WAITING && join->sub->channel->state != CHANNEL_ASKING &&
                !waits(w, join)) {
                join_late(w, join); /* may free the join or kill the connection */
                again = true;
                break;
            }
        }
    }
}

/* EventSource goes on after the last id that it saw, and one that is cut off before its first event
 * has seen none: it would begin anew, and miss what came meanwhile. */
static void send_place(struct worker *w, struct conn *c, const char *id)
{
    buf_clear(&w->response);
    if (c->transport == TRANSPORT_SSE && frame_heartbeat(&w->response, c->format, id) == 0)
        conn_send(w, c, w->response.data, w->response.len);
}

/* Tells `ready` for one join if it is due. */
static void join_try_ready(struct worker *w, struct join *join)
{
    struct conn *c = join->conn;
    if (c->state != CONN_STREAM || c->flags & (CONN_BEHIND | CONN_BLOCKED))
        return;
    visit(w, c);
    if (c->state != CONN_STREAM || c->flags & (CONN_BEHIND | CONN_BLOCKED) ||
        c->cursor < join->ready_at)
        return;
    const char *id = worker_place(w, c->cursor);
    struct buf *json = &w->text;
    buf_clear(json);
    json_ready(json, join->sub->channel->name, join->sub->channel->len, id,
               join->ref[0] ? join->ref : NULL);
    join_free(w, join);
    send_place(w, c, id);
    send_control(w, c, "ready", json);
    if (c->state == CONN_STREAM)
        conn_trim(c);
}

void settle(struct worker *w, int64_t budget_us)
{
    if (list_empty(&w->settling))
        return;
    int64_t deadline = clock_monotonic_us() + budget_us;
    struct list later, *node; /* any of them may go while others are told */
    list_init(&later);
    w->settle_more = false;
    for (unsigned i = 1; (node = list_pop(&w->settling)); i++) {
        list_push(&later, node);
        join_try_ready(w, list_entry(node, struct join, settling));
        if (i % 16 == 0 && clock_monotonic_us() > deadline) {
            w->settle_more = !list_empty(&w->settling);
            break;
        }
    }
    while ((node = list_pop(&later)))
        list_push(&w->settling, node);
}
