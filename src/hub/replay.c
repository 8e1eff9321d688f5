/* Replaying a channel that joins: what it asked for and missed, up to the subscription's cursor. */
#include "clock.h"
#include "control.h"
#include "sub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct log_channel log_channel_of(const struct sub_channel *channel)
{
    return (
        struct log_channel){ .hash = channel->hash, .name = channel->name, .len = channel->len };
}

static struct log_channel control_channel(const struct log *log)
{
    return (struct log_channel){ .hash = log_hash(log, "", 0), .name = "", .len = 0 };
}

/* "Now" was when the channel was asked for: what came since is in the log and not yet returned. Who
 * has rows goes on where they say. */
static struct since effective_since(const struct fw_sub *sub, const struct sub_channel *channel)
{
    if (channel->since.kind != SINCE_NOW)
        return channel->since;
    return since_offset(sub->log, channel->rows ? sub->rows.until : channel->asked_at);
}

static bool is_now(const struct sub_channel *channel)
{
    return channel->since.kind == SINCE_NOW && !channel->rows;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Where the replay begins, and whether a gap comes first. Gaps of all channels that lie between
 * belong to it, too: a resume always includes them. Those after asked_at are met by the cursor; but
 * what was met before the rows came is told once more after them, as they may lack what was lost.
 */
static void plan(struct fw_sub *sub, struct sub_channel *channel, uint64_t *ret_from)
{
    struct replay *replay = &sub->replay;
    struct log_channel of = log_channel_of(channel), control = control_channel(sub->log);
    struct since since = effective_since(sub, channel);
    bool now = is_now(channel);
    uint64_t met_from = channel->rows ? sub->cursor : channel->asked_at;
    uint64_t cut = log_indexed(sub->log);
    struct resume r = resume_channel(sub->log, &of, &since, now ? 0 : channel->covered_from, cut);
    replay->gaps_from = replay->gaps_until = met_from;
    if (!now && r.reason == REASON_NONE) {
        struct resume gaps = resume_channel(sub->log, &control, &since, 0, cut);
        replay->gaps_from = min64(gaps.from, met_from);
        r.reason = gaps.reason;
        r.after = gaps.after;
    }
    replay->reason = r.reason;
    replay->gap_after = r.after;
    replay->gap_before = r.before;
    *ret_from = r.from;
}

static size_t merge(uint64_t *out, const uint64_t *a, size_t na, const uint64_t *b, size_t nb)
{
    size_t n = 0, i = 0, j = 0;
    while (i < na || j < nb)
        out[n++] = j == nb || (i < na && a[i] < b[j]) ? a[i++] : b[j++];
    return n;
}

/* The links of the channel where they reach, a sweep where they don't. */
static int list_offsets(struct fw_sub *sub, struct sub_channel *channel, uint64_t from)
{
    struct replay *replay = &sub->replay;
    struct log_channel of = log_channel_of(channel), control = control_channel(sub->log);
    uint64_t events[LOG_HOPS_MAX], gaps[LOG_HOPS_MAX];
    int n = log_walk(sub->log, &of, from, replay->end, events, LOG_HOPS_MAX), n_gaps = 0;
    if (replay->gaps_from < replay->gaps_until)
        n_gaps =
            log_walk(sub->log, &control, replay->gaps_from, replay->gaps_until, gaps, LOG_HOPS_MAX);
    if (n < 0 || n_gaps < 0) {
        replay->sweep = true;
        replay->at = min64(from, replay->gaps_from < replay->gaps_until ? replay->gaps_from : from);
        return 0;
    }
    replay->offsets = malloc(((size_t)(n + n_gaps) + 1) * sizeof(uint64_t));
    if (!replay->offsets)
        return -ENOMEM;
    replay->n = merge(replay->offsets, events, (size_t)n, gaps, (size_t)n_gaps);
    return 0;
}

static int list_last(struct fw_sub *sub, struct sub_channel *channel)
{
    struct replay *replay = &sub->replay;
    struct log_channel of = log_channel_of(channel);
    replay->offsets = malloc(channel->last * sizeof(uint64_t));
    if (!replay->offsets)
        return -ENOMEM;
    replay->n = (size_t)log_last(sub->log, &of, replay->end, channel->last, replay->offsets);
    return 0;
}

int replay_start(struct fw_sub *sub, struct sub_channel *channel)
{
    uint64_t from = sub->cursor;
    sub->replay = (struct replay){ .channel = channel, .end = sub->cursor };
    channel->live_from = sub->cursor;
    if (channel->rows && channel->ready_at < sub->rows.until)
        channel->ready_at = sub->rows.until; /* ready is who has all that they contain behind */
    if (channel->last)
        return list_last(sub, channel);
    plan(sub, channel, &from);
    /* Another reader, of this log or of another hub's, may have read on further than we: what it
     * had is not repeated, nor is a place named that would repeat it. */
    if (from > sub->cursor)
        channel->live_from = from;
    if (channel->since.kind == SINCE_POSITION && channel->ready_at < from)
        channel->ready_at = from;
    return from < sub->cursor || sub->replay.gaps_from < sub->replay.gaps_until
               ? list_offsets(sub, channel, min64(from, sub->cursor))
               : 0;
}

void replay_stop(struct fw_sub *sub)
{
    free(sub->replay.offsets);
    sub->replay = (struct replay){ 0 };
}

/* ---- positions that the log has not come to ---- */

bool replay_waits(struct fw_sub *sub, struct sub_channel *channel, int64_t now_ms)
{
    if (channel->last || !since_is_ahead(sub->log, &channel->since, &sub->newest))
        return false;
    if (channel->until_ms == 0)
        channel->until_ms = now_ms + sub->core->ahead_ms;
    return sub->down || now_ms < channel->until_ms;
}

bool replay_look_ahead(struct fw_sub *sub)
{
    int64_t now_ms = list_empty(&sub->ahead) ? 0 : clock_monotonic_ms();
    bool any = false;
    for (struct list *l = sub->ahead.next, *next; l != &sub->ahead; l = next) {
        struct sub_channel *c = list_entry(l, struct sub_channel, queue);
        next = l->next;
        if (replay_waits(sub, c, now_ms))
            continue;
        sub_requeue(c, &sub->answered);
        sub->attention = any = true;
    }
    return any;
}

int64_t replay_deadline_ms(const struct fw_sub *sub)
{
    int64_t deadline_ms = -1;
    for (struct list *l = sub->ahead.next; l != &sub->ahead && !sub->down; l = l->next) {
        int64_t until_ms = list_entry(l, struct sub_channel, queue)->until_ms;
        if (deadline_ms < 0 || until_ms < deadline_ms)
            deadline_ms = until_ms;
    }
    return deadline_ms;
}

void replay_up(struct fw_sub *sub)
{
    for (struct list *l = sub->ahead.next; l != &sub->ahead; l = l->next)
        list_entry(l, struct sub_channel, queue)->until_ms =
            clock_monotonic_ms() + sub->core->ahead_ms;
}

/* ---- the replay ---- */

/* Overwritten while we were at it: what is left up to the cursor may have holes, so it is not
 * returned at all. */
static int lapped(struct fw_sub *sub, struct fw_event *ev)
{
    struct replay *replay = &sub->replay;
    replay->sweep = false;
    replay->next = replay->n;
    return sub_gap(sub, replay->channel->name, 0, replay->end, REASON_LAPPED, ev);
}

/* The offset to look at next; false at the end. */
static bool next_offset(struct replay *replay, uint64_t *ret)
{
    if (replay->sweep) {
        *ret = replay->at;
        return replay->at < replay->end;
    }
    if (replay->next == replay->n)
        return false;
    *ret = replay->offsets[replay->next++];
    return true;
}

/* That one comes again: there was no memory for it. */
static void step_back(struct replay *replay, uint64_t off)
{
    replay->at = off;
    if (!replay->sweep)
        replay->next--;
}

static bool belongs(const struct replay *replay, const struct log_record *record)
{
    if (record->channel_len > 0)
        return record->hash == replay->channel->hash;
    return record->kind == RECORD_GAP && record->off >= replay->gaps_from &&
           record->off < replay->gaps_until;
}

/* What was missed before the first event begins where the caller stood, in its own words. */
static int first_gap(struct fw_sub *sub, struct fw_event *ev)
{
    struct replay *replay = &sub->replay;
    const struct since *since = &replay->channel->since;
    enum gap_reason reason = replay->reason;
    replay->reason = REASON_NONE;
    (void)sub_gap(sub, replay->channel->name, replay->gap_after, replay->gap_before, reason, ev);
    if (since->kind == SINCE_POSITION && position_text(sub->after, &since->position) > 0)
        ev->after = sub->after;
    return FW_GAP;
}

int replay_next(struct fw_sub *sub, struct fw_event *ev)
{
    struct replay *replay = &sub->replay;
    struct log_record record;
    uint64_t off;
    int rows = replay->channel->rows ? rows_next(sub, ev) : 0;
    if (rows != 0)
        return rows;
    if (replay->reason != REASON_NONE)
        return first_gap(sub, ev);
    while (next_offset(replay, &off)) {
        if (!log_peek(sub->log, off, &record))
            return lapped(sub, ev);
        replay->at = record.next;
        if (record.kind == RECORD_PAD || !belongs(replay, &record))
            continue;
        if (record.history && is_now(replay->channel) && !replay->channel->last)
            continue; /* asked for before the source had re-read what is not new to anybody */
        int r = sub_read_body(sub, &record);
        if (r < 0) {
            step_back(replay, off);
            return r;
        }
        if (r == 0)
            return lapped(sub, ev);
        if (record.kind == RECORD_GAP)
            return sub_gap_record(sub, &record, replay->channel->name, ev);
        if (record.kind == RECORD_MESSAGE && sub_is_of(&record, replay->channel))
            return sub_message(sub, &record, ev);
    }
    return 0;
}
