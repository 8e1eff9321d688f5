/* What a subscription returns that does not stand in the log at its cursor: the source's state, a
 * channel that was refused, replays, ready. */
#include "clock.h"
#include "control.h"
#include "error.h"
#include "sub.h"

#include <errno.h>

static enum gap_reason down_reason(const struct fw_sub *sub)
{
    const struct log_channel control = { .hash = log_hash(sub->log, "", 0), .name = "" };
    uint64_t offsets[LOG_HOPS_MAX], after;
    enum gap_reason reason = REASON_CONNECTION_LOST;
    char body[256] __attribute__((aligned(8)));
    int n = log_walk(sub->log, &control, log_tail(sub->log), sub->cursor, offsets, LOG_HOPS_MAX);
    while (n-- > 0) {
        struct log_record record;
        if (!log_peek(sub->log, offsets[n], &record) || log_body_size(&record) > sizeof(body) ||
            !log_body(sub->log, &record, body))
            break;
        if (record.kind == RECORD_DOWN) {
            (void)control_decode(record.data, record.len, &after, &reason);
            break;
        }
    }
    return reason;
}

/* The source's state by the header's word: for a subscription that begins, or was lapped, the
 * record that told it lies before the cursor. */
static int state_step(struct fw_sub *sub, struct fw_event *ev)
{
    bool down = log_used(sub->log) && !log_up(sub->log);
    sub->check_state = false;
    if (down == sub->down)
        return 0;
    sub->down = down;
    if (!down)
        replay_up(sub);
    return down ? sub_step(sub, FW_DOWN, "", down_reason(sub), ev)
                : sub_step(sub, FW_UP, "", REASON_NONE, ev);
}

static int refusal_errno(const struct sub_channel *channel)
{
    switch (channel->refused) {
    case CODE_CHANNEL_FORBIDDEN:
        return -EACCES;
    case CODE_BAD_CHANNEL:
        return -EINVAL;
    case CODE_TOO_LARGE:
        return channel->rows_refused ? -EMSGSIZE : -EIO;
    case CODE_SOURCE_DOWN:
    case CODE_OVERLOADED:
        return channel->rows_refused ? -EAGAIN : -EIO;
    default:
        return -EIO;
    }
}

static int refused_step(struct fw_sub *sub)
{
    struct sub_channel *c = list_entry(sub->refused.next, struct sub_channel, queue);
    int code = refusal_errno(c);
    (void)error_set(&sub->error, code, "%s \"%s\"%s (%s): %s",
                    c->rows_refused ? "the rows of channel" : "the source refuses channel", c->name,
                    c->rows_refused ? " cannot be had" : "", code_text(c->refused), c->message);
    sub_free_channel(sub, c);
    return code;
}

/* Of the next one that can begin; none where it has to wait. */
static int replay_begin(struct fw_sub *sub)
{
    struct sub_channel *c = list_entry(sub->answered.next, struct sub_channel, queue);
    if (replay_waits(sub, c, clock_monotonic_ms())) {
        sub_requeue(c, &sub->ahead);
        return 0;
    }
    int r = replay_start(sub, c);
    if (r < 0)
        replay_stop(sub);
    return r;
}

static int replay_step(struct fw_sub *sub, struct fw_event *ev)
{
    while (sub->replay.channel || !list_empty(&sub->answered)) {
        int r = sub->replay.channel ? 0 : replay_begin(sub);
        if (r == 0 && !sub->replay.channel)
            continue;
        if (r == 0)
            r = replay_next(sub, ev);
        if (r < 0)
            return error_set(&sub->error, r, "out of memory for a replay");
        if (r > 0)
            return r;
        struct sub_channel *c = sub->replay.channel;
        sub_requeue(c, &sub->confirming);
        replay_stop(sub);
        if (c->rows)
            rows_drop(sub);
    }
    return 0;
}

bool sub_ready_due(const struct fw_sub *sub)
{
    return !list_empty(&sub->confirming) &&
           sub->cursor >= list_entry(sub->confirming.next, struct sub_channel, queue)->ready_at;
}

int sub_ready_step(struct fw_sub *sub, struct fw_event *ev)
{
    if (!sub_ready_due(sub))
        return 0;
    struct sub_channel *c = list_entry(list_pop(&sub->confirming), struct sub_channel, queue);
    return sub_step(sub, FW_READY, c->name, REASON_NONE, ev);
}

int sub_due(struct fw_sub *sub, struct fw_event *ev)
{
    int r = 0;
    if (sub->check_state)
        r = state_step(sub, ev);
    if (r == 0 && !list_empty(&sub->refused))
        r = refused_step(sub);
    if (r == 0)
        r = replay_step(sub, ev);
    if (r == 0)
        r = sub_ready_step(sub, ev);
    sub->attention = r != 0 || !list_empty(&sub->confirming);
    return r;
}
