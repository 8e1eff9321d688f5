/* Catch-up: from the log to the sockets of connections that are behind, because they resume, were
 * blocked, or read more slowly than the arena moves on. They are served in cursor order, so that
 * neighbours share encoded frames, ≤ 64 KiB each, then go to the back of the list. What a
 * connection still needs is found by its channels' links in the log; where those would lead too
 * far, by sweeping. At the frontier it is live again. */
#include "clock.h"
#include "turn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH         32   /* connections sorted at a time */
#define OFFSETS_MAX   4096 /* merged per connection; more is swept */
#define SWEEP_RECORDS 4096 /* per connection and service */

/* Frames put together for one write: consecutive in `bytes`. */
struct parcel {
    uint32_t n;
    size_t len; /* of all frames */
    struct {
        uint64_t off, next;
        uint32_t len;
        int64_t time_ms;
    } frames[512];
};

struct catchup {
    uint64_t offsets[OFFSETS_MAX];
    struct parcel parcel;
    struct buf bytes;
};

enum served { SERVED_SOME, SERVED_ALL, SERVED_STOP /* blocked, dead or closing */ };

/* ---- one frame ---- */

/* May this record be shown to somebody who is catching up? down and up are told by state at the
 * end, or a client would relive every outage. */
static bool shown(const struct log_record *record)
{
    return record->kind == RECORD_MESSAGE || record->kind == RECORD_GAP;
}

/* Encodes the record unless the cache has it. Returns 1; 0: not shown in this format; -ESTALE. */
static int frame_at(struct worker *w, enum frame_format format, uint64_t off,
                    struct cached_frame **ret)
{
    *ret = frame_cache_get(&w->cache, off, format);
    if (*ret)
        return 1;
    struct log_record record;
    if (log_peek(w->log, off, &record) == 0)
        return -ESTALE;
    if (!shown(&record))
        return 0;
    int r = read_body(w, &record);
    if (r <= 0)
        return r == 0 ? -ESTALE : r;
    buf_clear(&w->encode);
    if (encode_record(w, &w->encode, format, &record) < 0)
        return -ENOMEM;
    struct cached_frame key = {
        .off = off,
        .next = record.next,
        .time_ms = (int64_t)record.time_ms,
        .format = (uint8_t)format,
    };
    *ret = frame_cache_put(&w->cache, &key, w->encode.data, w->encode.len);
    return *ret ? 1 : -ENOMEM;
}

/* A gap record met by a bare socket: it has no room to say it in. True when that ends it. */
static bool bare_gap(struct worker *w, struct conn *c, const struct cached_frame *frame)
{
    if (frame->len || c->format != FORMAT_WS_BARE || c->flags & CONN_GAP_IGNORE)
        return false;
    conn_close_ws(w, c, 4102, "gap");
    return true;
}

/* ---- parcels ---- */

static void parcel_clear(struct catchup *cu)
{
    cu->parcel.n = 0;
    cu->parcel.len = 0;
    buf_clear(&cu->bytes);
}

/* 1: taken; 0: full, send first; < 0. */
static int parcel_add(struct catchup *cu, const struct frame_cache *cache,
                      const struct cached_frame *frame)
{
    struct parcel *p = &cu->parcel;
    bool full = p->n == sizeof(p->frames) / sizeof(p->frames[0]) ||
                (p->n && p->len + frame->len > VISIT_BYTES);
    if (full)
        return 0;
    int r = buf_append(&cu->bytes, frame_cache_bytes(cache, frame), frame->len);
    if (r < 0)
        return r;
    p->frames[p->n].off = frame->off;
    p->frames[p->n].next = frame->next;
    p->frames[p->n].len = frame->len;
    p->frames[p->n].time_ms = frame->time_ms;
    p->n++;
    p->len += frame->len;
    return 1;
}

/* Keeps the rest of the frame that the kernel cut off; large ones are shared by the cache. */
static void keep_cut_frame(struct worker *w, struct conn *c, uint64_t off, const uint8_t *bytes,
                           size_t len, size_t sent)
{
    struct cached_frame *cached = frame_cache_get(&w->cache, off, c->format);
    bool had = cached && cached->blob;
    conn_keep_tail(w, c, bytes, len, sent, cached ? &cached->blob : NULL);
    if (cached && cached->blob && !had)
        w->cache.large += cached->blob->len;
}

/* Sends the parcel. Returns how many of its frames need not be sent again: whole, or cut off and
 * kept; < 0 when the connection died. */
static int64_t parcel_send(struct worker *w, struct conn *c, struct catchup *cu)
{
    struct parcel *p = &cu->parcel;
    if (p->n == 0)
        return 0;
    struct iovec iov = { cu->bytes.data, p->len };
    int64_t sent = p->len ? conn_write(w, c, &iov, 1) : 0;
    if (sent < 0)
        return sent;
    size_t at = 0;
    uint32_t n = 0;
    while (n < p->n && at + p->frames[n].len <= (size_t)sent)
        at += p->frames[n++].len;
    if (n < p->n && at < (size_t)sent) {
        keep_cut_frame(w, c, p->frames[n].off, cu->bytes.data + at, p->frames[n].len,
                       (size_t)sent - at);
        n++;
    }
    if (n)
        observe_delivery(w, c, n, (size_t)sent, p->frames[0].time_ms);
    return c->state == CONN_STREAM ? (int64_t)n : -EPIPE;
}

/* ---- sending a list of records ---- */

/* Sends the records at offsets[*at…n): as many as one parcel holds. Moves *at and (cursor not NULL)
 * the cursor over what is done. Records that were overwritten meanwhile: -ESTALE. */
static int send_offsets(struct worker *w, struct conn *c, const uint64_t *offsets, uint32_t n,
                        uint32_t *at, uint64_t *cursor, enum served *ret)
{
    struct catchup *cu = w->catchup;
    parcel_clear(cu);
    uint32_t first = *at, taken[512 + 1], n_taken = 0, i = first;
    int r = 1;
    for (; i < n; i++) {
        struct cached_frame *frame;
        r = frame_at(w, c->format, offsets[i], &frame);
        if (r < 0)
            break;
        if (r == 0)
            continue;
        if (bare_gap(w, c, frame)) {
            *ret = SERVED_STOP;
            return 0;
        }
        r = parcel_add(cu, &w->cache, frame);
        if (r <= 0)
            break;
        taken[n_taken++] = i;
    }
    int64_t done = parcel_send(w, c, cu);
    if (done < 0) {
        *ret = SERVED_STOP;
        return 0;
    }
    bool all = (uint32_t)done == n_taken;
    // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): done < n_taken unless all
    *at = all ? i : taken[done];
    if (cursor && done)
        *cursor = cu->parcel.frames[done - 1].next;
    *ret = c->flags & CONN_BLOCKED ? SERVED_STOP : *at == n ? SERVED_ALL : SERVED_SOME;
    return all && r < 0 ? r : 0;
}

/* ---- replays of joins ---- */

static struct join *replay_of(const struct conn *c)
{
    if (!c->more)
        return NULL;
    for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next) {
        struct join *join = list_entry(n, struct join, node);
        if (join->phase == JOIN_REPLAY)
            return join;
    }
    return NULL;
}

static void replay_last(struct worker *w, struct conn *c, struct join *join)
{
    enum served served = SERVED_STOP;
    int r = send_offsets(w, c, join->offsets, join->n_offsets, &join->next_offset, NULL, &served);
    if (c->state != CONN_STREAM)
        return;
    if (r == -ESTALE)
        join->next_offset++; /* "the newest N held": this one is not held any more */
    else if (r < 0)
        conn_kill(w, c, 1011);
    if (c->state == CONN_STREAM && join->next_offset == join->n_offsets)
        join_replayed(w, join);
}

/* The rows that stand before a channel's events, and those events that came while they were read.
 */
static void replay_snapshot(struct worker *w, struct conn *c, struct join *join)
{
    struct snapshot_parcel p;
    const struct channel *channel = join->sub->channel;
    uint32_t n = 0, at = 0;
    if (snapshot_frames(w, join->snapshot, channel, c->format, join->next_offset, &p) < 0) {
        conn_kill(w, c, 1011);
        return;
    }
    struct iovec iov = { (void *)p.bytes, p.len };
    int64_t sent = p.n ? conn_write(w, c, &iov, 1) : 0;
    while (n < p.n && sent >= p.ends[n] - p.base)
        at = p.ends[n++] - p.base;
    if (n < p.n && sent > at) {
        conn_keep_tail(w, c, p.bytes + at, p.ends[n] - p.base - at, (size_t)sent - at, NULL);
        n++;
    }
    if (n)
        count(&w->counters->delivered_bytes[c->transport], (uint64_t)sent);
    join->next_offset += n;
    if (p.n || c->state != CONN_STREAM)
        return;
    if (snapshot_lapped(join->snapshot))
        tell_gap(w, c, channel, 0, snapshot_until(join->snapshot), REASON_LAPPED);
    snapshot_unref(w, join->snapshot);
    join->snapshot = NULL;
    if (c->state == CONN_STREAM && join->from >= join->until)
        join_replayed(w, join);
}

/* Records of one channel in [*from, until), by sweeping; *from moves. Returns their number. */
static int sweep_channel(struct worker *w, const struct channel *channel, uint64_t *from,
                         uint64_t until, uint64_t *out, uint32_t max)
{
    int n = 0;
    for (uint32_t i = 0; i < SWEEP_RECORDS && *from < until && n < (int)max; i++) {
        struct log_record record;
        if (log_peek(w->log, *from, &record) == 0)
            return -ESTALE;
        if (record.kind != RECORD_PAD && record.hash == channel->hash)
            out[n++] = *from;
        *from = record.next;
    }
    return n;
}

static void replay_since(struct worker *w, struct conn *c, struct join *join)
{
    struct catchup *cu = w->catchup;
    const struct channel *channel = join->sub->channel;
    struct log_channel name = { channel->hash, channel->name, channel->len };
    uint64_t swept = join->until;
    int n = log_walk(w->log, &name, join->from, join->until, cu->offsets, OFFSETS_MAX);
    if (n == -E2BIG) {
        n = log_seek(w->log, join->from, &swept);
        if (n == 0)
            n = sweep_channel(w, channel, &swept, join->until, cu->offsets, 512);
    }
    uint32_t at = 0;
    enum served served = SERVED_ALL;
    int r = n < 0 ? n : send_offsets(w, c, cu->offsets, (uint32_t)n, &at, &join->from, &served);
    if (c->state != CONN_STREAM || (r == 0 && served != SERVED_ALL))
        return;
    if (r < 0 && r != -ESTALE) {
        conn_kill(w, c, 1011);
        return;
    }
    if (r == -ESTALE) {
        tell_gap(w, c, channel, join->from, join->until, REASON_LAPPED);
        swept = join->until;
    }
    join->from = swept;
    if (c->state == CONN_STREAM && join->from >= join->until)
        join_replayed(w, join);
}

/* ---- the connection's own stream, from its cursor to the frontier ---- */

int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Where the stream's records of this channel begin; NULL: those of all channels. */
static uint64_t wanted_from(const struct conn *c, const struct sub *sub)
{
    return sub && sub->from > c->cursor ? sub->from : c->cursor;
}

/* One channel's records in [cursor, frontier). A lapped one is told its gap and goes on at the
 * frontier. Returns the number, or -E2BIG. */
static int walk_channel(struct worker *w, struct conn *c, struct sub *sub, uint64_t *out,
                        size_t max)
{
    const struct channel *channel = sub ? sub->channel : &w->control;
    struct log_channel name = { channel->hash, channel->name, channel->len };
    if (sub ? !sub->feed : !has_begun(c))
        return 0;
    uint64_t from = wanted_from(c, sub);
    int n = from < w->frontier ? log_walk(w->log, &name, from, w->frontier, out, max) : 0;
    bool lost = n == -ESTALE || (n == -E2BIG && from < log_tail(w->log));
    if (!lost)
        return n;
    if (sub)
        sub->from = w->frontier; /* whole again from here, as the gap says */
    tell_gap(w, c, sub ? channel : NULL, 0, w->frontier, REASON_LAPPED);
    return sub ? 0 : -ESTALE;
}

/* What the walks of a connection's channels have found so far. */
struct collected {
    uint32_t n, channels; /* offsets in the scratch, and of how many channels */
    bool far;             /* a walk led too far: it is to be swept, the offsets are of no use */
    uint64_t first;       /* nothing that the connection gets stands before it */
};

/* Walks one more channel. 0, -ESTALE: all of it is lost, -EPIPE: closed by a gap. */
static int collect_channel(struct worker *w, struct conn *c, struct sub *sub, struct collected *all)
{
    uint64_t *out = w->catchup->offsets + all->n;
    int n = walk_channel(w, c, sub, out, OFFSETS_MAX - all->n);
    if (c->state != CONN_STREAM)
        return -EPIPE;
    if (n == 0 || n == -ESTALE)
        return n;
    uint64_t first = n > 0 ? out[0] : wanted_from(c, sub);
    if (first < all->first)
        all->first = first;
    all->far |= n < 0;
    all->n = all->far ? 0 : all->n + (uint32_t)n;
    all->channels++;
    return 0;
}

/* Offsets of everything the connection gets in [cursor, frontier), in order. Returns their number,
 * -E2BIG: sweep, -ESTALE: all of it is lost, -EPIPE: closed by a gap.
 *
 * All channels are walked, also when one of them leads too far: only so each that was lapped is
 * told, and it is known from where on the others are whole. There the sweep begins. The cursor may
 * have been overtaken long ago by channels that are told already. */
static int collect(struct worker *w, struct conn *c)
{
    struct collected all = { .first = w->frontier };
    int r = collect_channel(w, c, NULL, &all);
    for (uint32_t i = 0; r == 0 && i < c->n_subs; i++)
        r = collect_channel(w, c, c->subs[i], &all);
    if (r < 0)
        return r;
    if (all.far) {
        c->cursor = all.first;
        return -E2BIG;
    }
    if (all.channels > 1)
        qsort(w->catchup->offsets, all.n, sizeof(w->catchup->offsets[0]), compare_offsets);
    return (int)all.n;
}

static bool wants(const struct worker *w, const struct conn *c, const struct log_record *record)
{
    if (record->channel_len == 0)
        return record->hash == w->control.hash;
    for (uint32_t i = 0; i < c->n_subs; i++) {
        const struct sub *sub = c->subs[i];
        if (sub->feed && sub->channel->hash == record->hash)
            return record->off >= sub->from;
    }
    return false;
}

/* Offsets found by reading on from the cursor; *ret_to = how far was looked. */
static int sweep(struct worker *w, struct conn *c, uint64_t *out, uint64_t *ret_to)
{
    int n = 0;
    uint64_t at = c->cursor;
    if (!(c->flags & CONN_SWEEPING)) { /* the cursor may be a number that a client sent */
        if (log_seek(w->log, c->cursor, &at) < 0)
            return -ESTALE;
        c->flags |= CONN_SWEEPING;
    }
    for (uint32_t i = 0; i < SWEEP_RECORDS && at < w->frontier && n < 512; i++) {
        struct log_record record;
        if (log_peek(w->log, at, &record) == 0)
            return -ESTALE;
        if (record.kind != RECORD_PAD && wants(w, c, &record))
            out[n++] = at;
        at = record.next;
    }
    *ret_to = at;
    return n;
}

static void became_live(struct worker *w, struct conn *c)
{
    if (c->cursor < w->frontier)
        c->cursor = w->frontier;
    set_behind(w, c, false);
    tell_down_up(w, c);
}

/* What can't be collected any more: everything up to the frontier. */
static void lost_everything(struct worker *w, struct conn *c)
{
    c->flags &= ~(uint32_t)CONN_SWEEPING;
    became_live(w, c);
}

static void serve_stream(struct worker *w, struct conn *c)
{
    struct catchup *cu = w->catchup;
    if (c->cursor >= w->frontier) {
        became_live(w, c);
        return;
    }
    uint64_t to = w->frontier;
    int n = c->flags & CONN_SWEEPING ? -E2BIG : collect(w, c);
    if (n == -EPIPE || c->state != CONN_STREAM || c->flags & CONN_BLOCKED)
        return; /* a gap was told meanwhile, and the socket may have taken only a part of it */
    if (n == -E2BIG) {
        n = sweep(w, c, cu->offsets, &to);
        if (n == -ESTALE) { /* the next service finds out by the links what that means */
            c->flags &= ~(uint32_t)CONN_SWEEPING;
            return;
        }
    }
    if (n < 0) {
        lost_everything(w, c);
        return;
    }
    uint32_t at = 0;
    enum served served = SERVED_ALL;
    int r = send_offsets(w, c, cu->offsets, (uint32_t)n, &at, &c->cursor, &served);
    if (c->state != CONN_STREAM)
        return;
    if (r < 0 && r != -ESTALE) {
        conn_kill(w, c, 1011);
        return;
    }
    if (at == (uint32_t)n && r == 0)
        c->cursor = to;
    if (c->cursor >= w->frontier && !(c->flags & CONN_BLOCKED))
        became_live(w, c);
}

static void serve(struct worker *w, struct conn *c)
{
    struct join *join = replay_of(c);
    if (!join)
        serve_stream(w, c);
    else if (join->snapshot)
        replay_snapshot(w, c, join);
    else if (join->offsets)
        replay_last(w, c, join);
    else
        replay_since(w, c, join);
    if (c->state == CONN_STREAM && !(c->flags & CONN_BLOCKED) && c->flags & CONN_BEHIND) {
        list_remove(&c->work); /* serving may have linked it elsewhere */
        list_push(&w->behind, &c->work);
    }
}

static int compare_cursors(const void *a, const void *b)
{
    const struct conn *x = *(struct conn *const *)a, *y = *(struct conn *const *)b;
    return x->cursor < y->cursor ? -1 : x->cursor > y->cursor;
}

/* A copy of some of the list, sorted; they stay in the list until served. */
static uint32_t take_batch(struct worker *w, struct conn *batch[BATCH])
{
    uint32_t n = 0;
    for (struct list *node = w->behind.next; node != &w->behind && n < BATCH; node = node->next)
        batch[n++] = list_entry(node, struct conn, work);
    qsort(batch, n, sizeof(batch[0]), compare_cursors);
    return n;
}

static bool ensure_scratch(struct worker *w)
{
    if (!w->catchup) {
        w->catchup = malloc(sizeof(*w->catchup));
        if (w->catchup)
            w->catchup->bytes = buf_make(64u << 20);
    }
    return w->catchup;
}

void catch_up(struct worker *w, int64_t budget_us)
{
    if (list_empty(&w->behind) || !ensure_scratch(w))
        return;
    int64_t deadline = w->now_us + budget_us;
    while (!list_empty(&w->behind)) {
        struct conn *batch[BATCH];
        uint32_t n = take_batch(w, batch);
        for (uint32_t i = 0; i < n; i++) {
            struct conn *c = batch[i];
            if (c->state != CONN_STREAM || !(c->flags & CONN_BEHIND) || c->flags & CONN_BLOCKED)
                continue; /* changed by what was done for another one */
            list_remove(&c->work);
            serve(w, c);
            if (clock_monotonic_us() > deadline)
                return;
        }
    }
}

void catch_up_done(struct worker *w)
{
    if (w->catchup)
        buf_done(&w->catchup->bytes);
    free(w->catchup);
    w->catchup = NULL;
}
