/* Subscriptions of connections: asking the source process, resuming, `ready`.
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

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void sub_refused(struct worker *w, struct sub *sub);
static void sub_free(struct worker *w, struct sub *sub);

/* ---- channels and the source process's knowledge of them ---- */

static bool channel_named(const void *value, const void *key, size_t len)
{
    const struct channel *channel = value;
    return channel->len == len && memcmp(channel->name, key, len) == 0;
}

struct channel *channel_acquire(struct worker *w, const char *name, size_t len)
{
    uint64_t hash = log_hash(w->log, name, len);
    struct channel *channel = map_get(&w->channels, hash, channel_named, name, len);
    if (channel) {
        channel->users++;
        return channel;
    }
    channel = malloc(sizeof(*channel) + len + 1);
    if (!channel)
        return NULL;
    *channel = (struct channel){ .hash = hash, .len = len, .users = 1 };
    channel->name = (char *)(channel + 1);
    memcpy(channel->name, name, len);
    channel->name[len] = 0;
    list_init(&channel->histories);
    if (map_put(&w->channels, hash, channel) < 0) {
        free(channel);
        return NULL;
    }
    count(&w->counters->channels, 1);
    list_push(&w->tell, &channel->tell);
    tell_source(w);
    return channel;
}

static void channel_free(struct worker *w, struct channel *channel)
{
    for (int f = 0; f < N_FORMATS; f++)
        feed_free(&w->arena, channel, f);
    sub_set_done(&channel->waiting);
    list_remove(&channel->tell);
    map_remove(&w->channels, channel->hash, channel);
    count(&w->counters->channels, (uint64_t)-1);
    free(channel);
}

void channel_release(struct worker *w, struct channel *channel)
{
    if (--channel->users == 0) {
        if (!list_linked(&channel->tell))
            list_push(&w->tell, &channel->tell);
        tell_source(w);
    }
}

/* Tells one interest or its end. -EAGAIN: later. */
static int tell_channel(struct worker *w, struct channel *channel)
{
    bool wanted = channel->users > 0;
    if (wanted == channel->told)
        return 0;
    int r;
    if (!wanted)
        r = reader_unsubscribe(w->reader, channel->name, channel->len);
    else if (channel->covered_from) /* of the source process before this one */
        r = reader_resubscribe(w->reader, channel->name, channel->len, channel->covered_from);
    else
        r = reader_subscribe(w->reader, channel->name, channel->len);
    if (r == 0)
        channel->told = wanted;
    return r;
}

void tell_source(struct worker *w)
{
    while (!list_empty(&w->tell)) {
        struct channel *channel = list_entry(w->tell.next, struct channel, tell);
        if (w->reader ? tell_channel(w, channel) < 0 : channel->users > 0)
            return; /* goes on when the inbox takes more, or when there is one */
        list_remove(&channel->tell);
        if (channel->users == 0)
            channel_free(w, channel);
    }
}

void channels_forget_source(struct worker *w)
{
    struct channel *channel;
    for (size_t at = 0; (channel = map_next(&w->channels, &at));) {
        channel->told = false;
        channel->state = CHANNEL_ASKING;
        if (!list_linked(&channel->tell))
            list_push(&w->tell, &channel->tell);
    }
}

/* Everybody who waits for the source's word on this channel gets on, in slices: after an outage
 * that may be every client there is. */
static void channel_resolved(struct worker *w, struct channel *channel)
{
    channel->next_waiting = channel->waiting.count;
    if (!list_linked(&channel->resolved)) {
        channel->users++; /* stays while its waiters get on */
        list_push(&w->resolved, &channel->resolved);
    }
}

/* From the end: who leaves is replaced by one that was looked at already. */
static bool resolve_channel(struct worker *w, struct channel *channel, int64_t deadline)
{
    while (channel->next_waiting > 0) {
        uint32_t i = --channel->next_waiting;
        if (i < channel->waiting.count)
            joins_advance(w, channel->waiting.items[i]->conn);
        if (i % 16 == 0 && clock_monotonic_us() > deadline)
            return false;
    }
    while (!list_empty(&channel->histories)) {
        struct list *node = channel->histories.next;
        http_answer_history(w, list_entry(node, struct history_request, node)->conn);
    }
    return true;
}

void resolve(struct worker *w, int64_t budget_us)
{
    int64_t deadline = clock_monotonic_us() + budget_us;
    while (!list_empty(&w->resolved)) {
        struct channel *channel = list_entry(w->resolved.next, struct channel, resolved);
        if (!resolve_channel(w, channel, deadline))
            return;
        list_remove(&channel->resolved);
        channel_release(w, channel);
    }
}

void on_ready(void *worker, const char *name, size_t len, uint64_t covered_from, uint64_t ready_at)
{
    struct worker *w = worker;
    uint64_t hash = log_hash(w->log, name, len);
    struct channel *channel = map_get(&w->channels, hash, channel_named, name, len);
    if (!channel || !channel->told)
        return; /* withdrawn meanwhile */
    channel->state = CHANNEL_READY;
    channel->covered_from = covered_from;
    channel->ready_at = ready_at;
    channel_resolved(w, channel);
}

void on_refused(void *worker, const char *name, size_t len, enum error_code code,
                const char *message)
{
    struct worker *w = worker;
    uint64_t hash = log_hash(w->log, name, len);
    struct channel *channel = map_get(&w->channels, hash, channel_named, name, len);
    if (!channel || !channel->told)
        return;
    channel->state = CHANNEL_REFUSED;
    channel->refused_code = code;
    (void)message; /* already in the source process's log; not for strangers */
    channel->users++;
    for (int f = 0; f < N_FORMATS; f++) { /* who had it from the source process before this one */
        while (channel->feeds[f]) {
            struct sub *sub = channel->feeds[f]->subs.items[0];
            if (sub->conn->state == CONN_STREAM)
                sub_refused(w, sub);
            if (channel->feeds[f] && channel->feeds[f]->subs.items[0] == sub)
                sub_free(w, sub); /* of a connection that is dead already */
        }
    }
    channel_release(w, channel);
    channel_resolved(w, channel);
}

/* ---- a connection's subscriptions ---- */

static struct sub *find_sub(const struct conn *c, const char *name, size_t len)
{
    for (uint32_t i = 0; i < c->n_subs; i++) {
        if (channel_named(c->subs[i]->channel, name, len))
            return c->subs[i];
    }
    return NULL;
}

static int subs_append(struct conn *c, struct sub *sub)
{
    if (c->n_subs == 0) {
        c->subs = &c->only;
        c->cap_subs = 1;
    } else if (c->n_subs == c->cap_subs) {
        uint32_t cap = c->cap_subs * 2;
        struct sub **subs = malloc(cap * sizeof(*subs));
        if (!subs)
            return -ENOMEM;
        memcpy(subs, c->subs, c->n_subs * sizeof(*subs));
        if (c->subs != &c->only)
            free(c->subs);
        c->subs = subs;
        c->cap_subs = cap;
    }
    c->subs[c->n_subs++] = sub;
    return 0;
}

static void subs_remove(struct conn *c, struct sub *sub)
{
    for (uint32_t i = 0; i < c->n_subs; i++) {
        if (c->subs[i] == sub) {
            c->subs[i] = c->subs[--c->n_subs];
            break;
        }
    }
    if (c->n_subs == 0 && c->subs != &c->only) {
        free(c->subs);
        c->subs = &c->only;
    }
}

static void sub_leave(struct worker *w, struct sub *sub)
{
    struct channel *channel = sub->channel;
    if (!sub->in_feed) {
        sub_set_remove(&channel->waiting, sub);
        return;
    }
    struct feed *feed = channel->feeds[sub->conn->format];
    sub_set_remove(&feed->subs, sub);
    if (w->gathered.feed == feed)
        w->gathered.feed = NULL;
    if (feed->subs.count == 0)
        feed_free(&w->arena, channel, feed->format);
    else
        walker_disturbed(&feed->walker, feed->subs.count);
}

static void sub_free(struct worker *w, struct sub *sub)
{
    sub_leave(w, sub);
    subs_remove(sub->conn, sub);
    count(&w->counters->subscriptions, (uint64_t)-1);
    channel_release(w, sub->channel);
    free(sub);
}

/* From waiting into the feed: from now on its frames are made. */
static int sub_enter(struct worker *w, struct sub *sub)
{
    struct feed *feed = channel_feed(sub->channel, sub->conn->format, w->frontier);
    if (!feed)
        return -ENOMEM;
    sub_set_remove(&sub->channel->waiting, sub);
    int r = sub_set_add(&feed->subs, sub);
    if (r < 0) {
        (void)sub_set_add(&sub->channel->waiting, sub); /* fits: it was in there */
        if (feed->subs.count == 0)
            feed_free(&w->arena, sub->channel, feed->format);
        return r;
    }
    walker_grown(&feed->walker);
    sub->in_feed = true;
    return 0;
}

static struct sub *sub_new(struct worker *w, struct conn *c, const char *name, size_t len)
{
    struct sub *sub = malloc(sizeof(*sub));
    struct channel *channel = sub ? channel_acquire(w, name, len) : NULL;
    if (!channel)
        goto fail;
    *sub = (struct sub){ .conn = c, .channel = channel };
    if (sub_set_add(&channel->waiting, sub) < 0)
        goto fail_channel;
    if (subs_append(c, sub) < 0) {
        sub_set_remove(&channel->waiting, sub);
        goto fail_channel;
    }
    count(&w->counters->subscriptions, 1);
    return sub;

fail_channel:
    channel_release(w, channel);
fail:
    free(sub);
    return NULL;
}

int subscribe(struct worker *w, struct conn *c, const char *name, size_t len,
              const struct since *since, uint32_t last, const char *ref)
{
    if (find_sub(c, name, len))
        return -EEXIST;
    if (c->n_subs >= w->settings->max_channels)
        return -EMFILE;
    struct conn_more *more = conn_more(c);
    struct join *join = malloc(sizeof(*join) + strlen(ref) + 1);
    struct sub *sub = more && join ? sub_new(w, c, name, len) : NULL;
    if (!sub) {
        free(join);
        return -ENOMEM;
    }
    *join = (struct join){ .sub = sub, .conn = c, .since = *since, .last = last };
    memcpy(join->ref, ref, strlen(ref) + 1);
    list_push(&more->joins, &join->node);
    return 0;
}

static struct join *find_join(const struct conn *c, const struct sub *sub)
{
    if (!c->more)
        return NULL;
    for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next) {
        struct join *join = list_entry(n, struct join, node);
        if (join->sub == sub)
            return join;
    }
    return NULL;
}

int unsubscribe(struct worker *w, struct conn *c, const char *name, size_t len)
{
    struct sub *sub = find_sub(c, name, len);
    if (!sub)
        return -ENOENT;
    struct join *join = find_join(c, sub);
    if (join)
        join_free(w, join);
    sub_free(w, sub);
    return 0;
}

void unsubscribe_all(struct worker *w, struct conn *c)
{
    joins_free(w, c);
    while (c->n_subs)
        sub_free(w, c->subs[c->n_subs - 1]);
}

/* ---- joins ---- */

void join_free(struct worker *w, struct join *join)
{
    (void)w;
    list_remove(&join->node);
    list_remove(&join->settling);
    free(join->offsets);
    free(join);
}

void joins_free(struct worker *w, struct conn *c)
{
    while (c->more && !list_empty(&c->more->joins))
        join_free(w, list_entry(c->more->joins.next, struct join, node));
}

static void join_settle(struct worker *w, struct join *join)
{
    join->phase = JOIN_SETTLING;
    free(join->offsets);
    join->offsets = NULL;
    list_push(&w->settling, &join->settling);
}

void join_replayed(struct worker *w, struct join *join)
{
    join_settle(w, join);
}

/* The source refuses the channel: in path form that is the end of the connection. */
static void sub_refused(struct worker *w, struct sub *sub)
{
    struct conn *c = sub->conn;
    struct join *join = find_join(c, sub);
    const char *ref = join && join->ref[0] ? join->ref : NULL;
    const char *message = "the source refuses this channel";
    enum error_code code = sub->channel->refused_code;
    if (c->format == FORMAT_WS_BARE || c->format == FORMAT_SSE_BARE) {
        conn_refuse(w, c, code, message);
        return;
    }
    struct buf *json = &w->text;
    buf_clear(json);
    json_unsubscribed(json, sub->channel->name, sub->channel->len, code, message, ref);
    if (join)
        join_free(w, join);
    sub_free(w, sub);
    send_control(w, c, "unsubscribed", json);
}

static struct log_channel log_channel_of(const struct channel *channel)
{
    return (struct log_channel){ channel->hash, channel->name, channel->len };
}

/* What an outage lost is written in the control channel: a resume that reaches back over such a
 * record is not complete, whatever its own channels say. `from`: the first control record at or
 * after the position, or cut. */
struct resume resume_control(struct worker *w, const struct since *since, uint64_t cut)
{
    struct log_channel name = log_channel_of(&w->control);
    struct resume r = resume_channel(w->log, &name, since, 0, cut);
    if (since->kind != SINCE_POSITION || r.reason != REASON_NONE)
        return r;
    uint64_t offsets[LOG_HOPS_MAX];
    int n = log_walk(w->log, &name, r.from, cut, offsets, LOG_HOPS_MAX);
    r.before = cut;
    if (n < 0)
        r.reason = REASON_EXPIRED;
    for (int i = n - 1; i >= 0 && !r.reason; i--) { /* the newest: whole again from there */
        struct log_record record;
        uint64_t after;
        bool held = log_peek(w->log, offsets[i], &record) == 1;
        if (held && record.kind != RECORD_GAP)
            continue;
        r.reason = REASON_EXPIRED;
        if (held && read_body(w, &record) == 1) {
            r.before = record.next;
            (void)control_decode(record.data, record.len, &after, &r.reason);
        }
    }
    r.after = since->position.kind == POSITION_LOCAL ? since->position.a : 0;
    return r;
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
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

/* Where this join's channel goes on; tells the gap if there is one. */
static uint64_t join_resume(struct worker *w, struct join *join, uint64_t cut)
{
    struct channel *channel = join->sub->channel;
    struct log_channel name = log_channel_of(channel);
    struct resume r = resume_channel(w->log, &name, &join->since, channel->covered_from, cut);
    if (join->since.kind == SINCE_NOW)
        return w->frontier;
    if (join->since.kind == SINCE_POSITION)
        count(r.reason ? &w->counters->resumes_gap : &w->counters->resumes_complete, 1);
    if (r.reason)
        tell_gap(w, join->conn, channel, r.after, r.before, r.reason);
    /* Events before the position are not for it, also where another channel needs them. */
    bool exact = !r.reason && join->since.position.kind == POSITION_LOCAL;
    join->sub->from = exact && join->since.kind == SINCE_POSITION ? join->since.position.a : r.from;
    return r.from;
}

/* The gaps of outages after the position, for a connection that opens with it: they are met on the
 * way, so the way must begin before them. Returns from where. */
static uint64_t control_resume(struct worker *w, struct join *join, uint64_t cut)
{
    struct log_channel name = log_channel_of(&w->control);
    struct resume r = resume_channel(w->log, &name, &join->since, 0, cut);
    if (join->since.kind != SINCE_POSITION)
        return UINT64_MAX;
    if (r.reason == REASON_EXPIRED)
        tell_gap(w, join->conn, join->sub->channel, r.after, r.before, r.reason);
    return r.from;
}

/* One channel that the connection opened with. Returns from where it needs the log. */
static uint64_t join_open(struct worker *w, struct join *join, uint64_t cut)
{
    uint64_t from = join->last ? w->frontier : join_resume(w, join, cut), control = UINT64_MAX;
    if (join->last || join->since.kind == SINCE_NOW)
        join->sub->from = w->frontier;
    else if (join->conn->state == CONN_STREAM)
        control = control_resume(w, join, cut);
    if (join->conn->state == CONN_STREAM && sub_enter(w, join->sub) < 0)
        conn_kill(w, join->conn, 1011);
    return from < control ? from : control;
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
        join->ready_at = join->sub->channel->ready_at;
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
        tell_gap(w, c, join->sub->channel, r.after, r.before, r.reason);
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
    join->ready_at = join->sub->channel->ready_at;
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

void joins_advance(struct worker *w, struct conn *c)
{
    if (c->state != CONN_STREAM || !conn_more(c))
        return;
    if (!(c->flags & CONN_GREETED)) {
        if (all_answered(c))
            joins_open(w, c);
        return;
    }
    for (bool again = true; again && c->state == CONN_STREAM;) {
        again = false;
        for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next) {
            struct join *join = list_entry(n, struct join, node);
            if (join->phase == JOIN_WAITING && join->sub->channel->state != CHANNEL_ASKING) {
                join_late(w, join); /* may free the join or kill the connection */
                again = true;
                break;
            }
        }
    }
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
    char id[POSITION_TEXT_MAX];
    position_write(id, w->log, NULL, c->cursor);
    struct buf *json = &w->text;
    buf_clear(json);
    json_ready(json, join->sub->channel->name, join->sub->channel->len, id,
               join->ref[0] ? join->ref : NULL);
    join_free(w, join);
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
