/* The iterator: what a subscription returns next, and how it waits. */
#include "clock.h"
#include "control.h"
#include "error.h"
#include "meta.h"
#include "sub.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SLICE          4096 /* foreign records between two looks at time-out and cancellation */
#define INBOX_EVERY    256  /* records between two looks at the inbox while an answer is awaited */
#define BODY_CAP_MIN   4096
#define LOOK_AGAIN     (-4096) /* no errno */
#define UNSENT_WAIT_MS 10      /* while requests don't fit: how long events may go unnoticed */

/* ---- events ---- */

static void write_position(const struct fw_sub *sub, char *out, uint64_t off)
{
    const struct log_record last = { .next = off, .pos = { sub->last_pos[0], sub->last_pos[1] } };
    (void)position_write(out, sub->log, off == sub->cursor ? &last : NULL, off);
}

int sub_read_body(struct fw_sub *sub, struct log_record *record)
{
    size_t need = log_body_size(record);
    if (need > sub->body_cap) {
        size_t cap = sub->body_cap ? sub->body_cap : BODY_CAP_MIN;
        while (cap < need)
            cap *= 2;
        uint64_t *body = realloc(sub->body, cap);
        if (!body)
            return error_set(&sub->error, -ENOMEM, "out of memory for an event of %u bytes",
                             record->len);
        sub->body = body;
        sub->body_cap = cap;
    }
    return log_body(sub->log, record, sub->body);
}

int sub_message(struct fw_sub *sub, const struct log_record *record, struct fw_event *ev)
{
    (void)position_write(sub->id, sub->log, record, 0);
    *ev = (struct fw_event){ .kind = FW_MESSAGE,
                             .channel = record->channel,
                             .data = record->data,
                             .len = record->len,
                             .id = sub->id,
                             .time_ms = (int64_t)record->time_ms,
                             .after = "",
                             .before = "",
                             .reason = "",
                             .from = meta_from(record) };
    return FW_MESSAGE;
}

int sub_step(struct fw_sub *sub, enum fw_kind kind, const char *channel, enum gap_reason reason,
             struct fw_event *ev)
{
    write_position(sub, sub->id, sub->cursor);
    *ev = (struct fw_event){ .kind = kind,
                             .channel = channel,
                             .data = "",
                             .id = sub->id,
                             .after = "",
                             .before = "",
                             .reason = reason_text(reason),
                             .from = "" };
    return kind;
}

int sub_gap(struct fw_sub *sub, const char *channel, uint64_t after, uint64_t before,
            enum gap_reason reason, struct fw_event *ev)
{
    (void)sub_step(sub, FW_GAP, channel, reason, ev);
    if (after)
        (void)position_write_place(sub->after, sub->log, after);
    ev->after = after ? sub->after : NULL;
    (void)position_write_place(sub->before, sub->log, before);
    ev->before = sub->before;
    return FW_GAP;
}

int sub_gap_record(struct fw_sub *sub, const struct log_record *record, const char *channel,
                   struct fw_event *ev)
{
    uint64_t after;
    enum gap_reason reason;
    (void)control_decode(record->data, record->len, &after, &reason);
    (void)sub_gap(sub, channel, after, record->next, reason, ev);
    ev->time_ms = (int64_t)record->time_ms;
    return FW_GAP;
}

bool sub_is_of(const struct log_record *record, const struct sub_channel *channel)
{
    return record->channel_len == channel->len &&
           memcmp(record->channel, channel->name, channel->len) == 0;
}

/* ---- the descriptor ---- */

static bool interrupted(const struct fw_sub *sub)
{
    return atomic_load_explicit(&sub->cancelled, memory_order_acquire) || hub_forked(sub->core);
}

/* The eventfd is readable unless the subscription is armed, so that the descriptor shows whatever
 * is left until fw_sub_next() has returned 0. Armed, the engine writes it with the next event, and
 * the inbox's replies show by themselves. */
static void disarm(struct fw_sub *sub)
{
    sub->armed = false;
    if (log_wake_slot(sub->slot)) /* the engine has not written it */
        (void)eventfd_write(reader_eventfd(sub->reader), 1);
}

static int make_timer(struct fw_sub *sub)
{
    struct epoll_event e = { .events = EPOLLIN };
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd >= 0 && epoll_ctl(sub->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* The descriptor also shows that a channel no longer waits for its position. Without a timer it
 * shows with the next event. */
static void watch_time(struct fw_sub *sub)
{
    int64_t deadline_ms = replay_deadline_ms(sub);
    struct itimerspec at = { 0 }; /* also takes back that it has expired */
    if (deadline_ms >= 0)
        at.it_value = (struct timespec){ .tv_sec = deadline_ms / 1000,
                                         .tv_nsec = deadline_ms % 1000 * 1000000L };
    if (sub->timer_fd < 0 && deadline_ms >= 0)
        sub->timer_fd = make_timer(sub);
    if (sub->timer_fd >= 0)
        (void)timerfd_settime(sub->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* True when something has come meanwhile. */
static bool arm(struct fw_sub *sub)
{
    eventfd_t kicks;
    if (!sub->epoll_eventfd)
        return false;
    watch_time(sub);
    (void)eventfd_read(reader_eventfd(sub->reader), &kicks);
    sub->armed = sub->attention = true;
    if (!interrupted(sub) && log_sleep((struct log *)sub->log, sub->slot, sub->cursor))
        return false;
    disarm(sub);
    (void)eventfd_write(reader_eventfd(sub->reader), 1);
    return true;
}

static int due_step(struct fw_sub *sub, struct fw_event *ev)
{
    if (sub->armed)
        disarm(sub);
    return sub_due(sub, ev);
}

/* ---- the log ---- */

static bool any_name(const void *value, const void *key, size_t len)
{
    return true;
}

/* Before the name is read, the hash alone tells nearly all records that are not ours. */
static inline bool wants(const struct fw_sub *sub, const struct log_record *record)
{
    if (sub->only)
        return record->hash == sub->only->hash;
    return map_get(&sub->by_hash, record->hash, any_name, NULL, 0) != NULL;
}

static struct sub_channel *channel_of(const struct fw_sub *sub, const struct log_record *record)
{
    if (sub->only)
        return sub_is_of(record, sub->only) ? sub->only : NULL;
    return map_get(&sub->by_hash, record->hash, sub_same_name, record->channel,
                   record->channel_len);
}

static inline void pass(struct fw_sub *sub, const struct log_record *record)
{
    sub->cursor = record->next;
    if (record->pos[0] | record->pos[1]) {
        sub->last_pos[0] = record->pos[0];
        sub->last_pos[1] = record->pos[1];
    }
}

/* Where positions are durable, the place is named after the newest event before it. */
void sub_seek_end(struct fw_sub *sub)
{
    uint64_t end = log_indexed(sub->log);
    struct log_record record;
    sub->last_pos[0] = sub->last_pos[1] = 0;
    sub->cursor = sub->limit = end;
    if (log_identity(sub->log) == 0)
        return;
    for (uint64_t off = log_mark_before(sub->log, end); off < end; off = record.next) {
        if (!log_peek(sub->log, off, &record))
            break;
        pass(sub, &record);
    }
    sub->cursor = end;
}

static int lapped(struct fw_sub *sub, struct fw_event *ev)
{
    sub_seek_end(sub);
    sub->check_state = sub->attention = true;
    /* What a channel still to be answered missed is told by this gap, not by one of its own. */
    for (struct list *l = sub->channels.next; l != &sub->channels; l = l->next) {
        struct sub_channel *c = list_entry(l, struct sub_channel, node);
        if (c->asked || list_linked(&c->queue))
            c->asked_at = sub->cursor;
    }
    return sub_gap(sub, "", 0, sub->cursor, REASON_LAPPED, ev);
}

static int control_step(struct fw_sub *sub, const struct log_record *record, struct fw_event *ev)
{
    uint64_t after;
    enum gap_reason reason;
    int r = 0;
    if (record->kind == RECORD_GAP)
        return sub_gap_record(sub, record, "", ev);
    (void)control_decode(record->data, record->len, &after, &reason);
    if (record->kind == RECORD_DOWN && !sub->down)
        r = sub_step(sub, FW_DOWN, "", reason, ev);
    else if (record->kind == RECORD_UP && sub->down)
        r = sub_step(sub, FW_UP, "", REASON_NONE, ev);
    if (r > 0) {
        sub->down = r == FW_DOWN;
        if (!sub->down)
            replay_up(sub);
        ev->time_ms = (int64_t)record->time_ms;
    }
    return r;
}

/* Takes the record at the cursor. Its kind as an event, 0 when it is not for us, or -errno. */
static int take(struct fw_sub *sub, struct log_record *record, struct fw_event *ev)
{
    int r = sub_read_body(sub, record);
    if (r <= 0)
        return r < 0 ? r : lapped(sub, ev);
    pass(sub, record);
    if (record->history)
        return 0;
    if (record->channel_len == 0)
        return control_step(sub, record, ev);
    const struct sub_channel *channel = channel_of(sub, record);
    if (!channel || record->off < channel->live_from)
        return 0;
    if (record->kind == RECORD_GAP)
        return sub_gap_record(sub, record, channel->name, ev);
    return record->kind == RECORD_MESSAGE ? sub_message(sub, record, ev) : 0;
}

/* Reads on to the next record that is for us. Its kind; 0 at the end of the log; LOOK_AGAIN when a
 * slice brought nothing or a channel is ready. */
static int read_on(struct fw_sub *sub, struct fw_event *ev)
{
    struct log_record record;
    for (int n = 0; n < SLICE; n++) {
        if (sub->cursor >= sub->limit) {
            sub->limit = log_indexed(sub->log);
            if (sub->cursor >= sub->limit)
                return 0;
        }
        if (sub->attention && sub_ready_due(sub))
            return LOOK_AGAIN;
        if (!log_peek(sub->log, sub->cursor, &record))
            return lapped(sub, ev);
        if (record.kind == RECORD_PAD || (record.channel_len > 0 && !wants(sub, &record))) {
            pass(sub, &record);
            continue;
        }
        int r = take(sub, &record, ev);
        if (r != 0)
            return r;
    }
    return LOOK_AGAIN;
}

/* ---- waiting ---- */

static int interruption(struct fw_sub *sub)
{
    if (hub_forked(sub->core))
        return error_set(&sub->error, -ECHILD, HUB_FORKED_TEXT);
    return error_set(&sub->error, -ECANCELED, "the subscription was cancelled");
}

static void wait_for_change(struct fw_sub *sub, uint32_t word, int64_t left_ms)
{
    int timeout_ms = left_ms < 0 ? -1 : left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
    if (!sub_has_unsent(sub)) {
        (void)log_wait(sub->log, word, timeout_ms);
        return;
    }
    if (timeout_ms < 0 || timeout_ms > UNSENT_WAIT_MS)
        timeout_ms = UNSENT_WAIT_MS;
    struct pollfd p = { .fd = reader_fd(sub->reader), .events = POLLIN | POLLOUT };
    (void)poll(&p, 1, timeout_ms);
}

/* The time that is left, or until a channel no longer waits for its position. */
static int64_t sooner(int64_t left_ms, int64_t until_ms)
{
    if (until_ms < 0)
        return left_ms;
    int64_t wait_ms = until_ms - clock_monotonic_ms();
    wait_ms = wait_ms < 0 ? 0 : wait_ms;
    return left_ms < 0 || wait_ms < left_ms ? wait_ms : left_ms;
}

/* Nothing to return: waits. 1 to look again, 0 when the time is over, or -errno. `dry`: the cursor
 * is at the end of the log. */
static int await(struct fw_sub *sub, int64_t deadline_ms, bool dry)
{
    uint32_t word = log_wake_word(sub->log); /* before the looks that it guards */
    sub_process_inbox(sub);
    if (interrupted(sub) || !list_empty(&sub->answered) || !list_empty(&sub->refused))
        return 1;
    if (replay_look_ahead(sub))
        return 1;
    int64_t left_ms = deadline_ms < 0 ? -1 : deadline_ms - clock_monotonic_ms();
    if (deadline_ms >= 0 && left_ms <= 0) {
        return dry && arm(sub) ? 1 : 0;
    }
    left_ms = sooner(left_ms, replay_deadline_ms(sub));
    if (!dry || log_indexed(sub->log) != sub->cursor)
        return 1;
    if (sub->gone)
        return error_set(&sub->error, -EPIPE, "the hub was closed");
    wait_for_change(sub, word, left_ms);
    return 1;
}

/* Something that does not come by the log at the cursor. */
static bool is_expecting(const struct fw_sub *sub)
{
    return sub->n_asked > 0 || (sub->rows.channel && !sub->rows.whole) ||
           !list_empty(&sub->rowless) || !list_empty(&sub->ahead);
}

/* Nothing in here calls the kernel while there is something to return, but for an inbox that an
 * answer is expected from. */
int fw_sub_next(struct fw_sub *sub, struct fw_event *ev, int timeout_ms)
{
    int64_t deadline_ms = timeout_ms;
    bool timed = timeout_ms <= 0; /* the deadline is known: for ever, or at once */
    for (;;) {
        if (interrupted(sub))
            return interruption(sub);
        int r = sub->attention ? due_step(sub, ev) : 0;
        if (r == 0)
            r = read_on(sub, ev);
        if (sub->attention && (r == 0 || r == LOOK_AGAIN)) {
            int ready = sub_ready_step(sub, ev); /* the cursor has moved */
            r = ready ? ready : r;
        }
        atomic_store_explicit(&sub->slot->cursor, sub->cursor, memory_order_relaxed);
        if (is_expecting(sub) && ++sub->ticks >= INBOX_EVERY) {
            sub->ticks = 0;
            sub_process_inbox(sub);
            (void)replay_look_ahead(sub);
        }
        if (r != 0 && r != LOOK_AGAIN)
            return r;
        if (!timed) {
            deadline_ms = clock_monotonic_ms() + timeout_ms;
            timed = true;
        }
        r = await(sub, deadline_ms, r == 0);
        if (r <= 0)
            return r;
    }
}

/* A resume must not begin after anything that was not returned yet, nor before the place that a
 * channel came with. */
int fw_sub_position(const struct fw_sub *sub, char *buf, size_t size)
{
    char text[POSITION_TEXT_MAX];
    uint64_t off = sub->replay.channel ? sub->replay.at : sub->cursor;
    for (struct list *l = sub->channels.next; l != &sub->channels; l = l->next) {
        const struct sub_channel *c = list_entry(l, struct sub_channel, node);
        bool ready = sub->replay.channel != c && sub->cursor >= c->ready_at;
        if (c->rows && !c->refused && (c->live_from == UINT64_MAX || !ready))
            return -EAGAIN;
        if (c->since.kind == SINCE_POSITION && !c->refused && c->live_from > sub->cursor)
            return -EAGAIN;
        if (c->live_from != UINT64_MAX || c->refused)
            continue;
        if (c->since.kind != SINCE_NOW || c->last)
            return -EAGAIN;
        if (c->asked_at < off)
            off = c->asked_at;
    }
    if (sub->replay.channel && off == 0)
        return -EAGAIN;
    write_position(sub, text, off);
    if (strlen(text) >= size)
        return -EINVAL;
    memcpy(buf, text, strlen(text) + 1);
    return 0;
}
