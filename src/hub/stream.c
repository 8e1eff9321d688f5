/* The source's stream as the log tells it: down, gap, up, and the events between; reconnection. */
#include "clock.h"
#include "control.h"
#include "core.h"
#include "meta.h"
#include "pattern.h"
#include "position.h"

#include <errno.h>
#include <string.h>

#define SETTLE_MS 100
#define MENDED_MS 5000 /* how often we look whether somebody has acted */
#define STABLE_MS 1000 /* a connection that lived so long begins its back-off anew */

/* ---- what the log is told ---- */

static uint64_t append_control(struct engine *engine, const struct log_event *about, uint64_t after,
                               enum gap_reason reason)
{
    char payload[CONTROL_MAX];
    struct log_event event = *about;
    event.data = payload;
    event.len = control_encode(payload, after, reason);
    event.time_ms = clock_realtime_ms();
    engine->dirty = true;
    uint64_t off = log_append(engine->log, &event);
    if (event.kind == RECORD_GAP && event.channel_len == 0)
        engine->gap_at = off;
    return off;
}

uint64_t stream_append_control(struct engine *engine, enum record_kind kind, const char *channel,
                               size_t len, uint64_t after, enum gap_reason reason)
{
    struct log_event event = { .channel = channel, .channel_len = len, .kind = kind };
    return append_control(engine, &event, after, reason);
}

/* The word in the header comes before the record: a reader that was lapped, and so may have missed
 * the record, then finds in the word what the records before its new place have said. */
void stream_down(struct engine *engine, enum gap_reason reason)
{
    struct stream *stream = &engine->stream;
    stream->up = false;
    interest_answer(&engine->interest, false);
    log_set_up(engine->log, false);
    if (stream->told_down)
        return;
    stream->told_down = true;
    (void)stream_append_control(engine, RECORD_DOWN, "", 0, 0, reason);
}

static void say_up(struct engine *engine)
{
    struct stream *stream = &engine->stream;
    stream->up = true;
    stream->told_down = false;
    stream->recovered = false;
    engine->interest.settling = false;
    log_set_up(engine->log, true);
    if (stream->gap_due && !(engine->traits & FW_SOURCE_DURABLE))
        (void)stream_append_control(engine, RECORD_GAP, "", 0, stream->lost_at, stream->lost_why);
    stream->gap_due = false;
    (void)stream_append_control(engine, RECORD_UP, "", 0, 0, REASON_NONE);
    interest_answer(&engine->interest, true);
    snapshots_ask(&engine->snapshots);
    engine_log(engine, FW_LOG_INFO, "opened", "mode=%s guarantee=\"%s\"", stream->mode,
               stream->guarantee);
}

void stream_recover(struct engine *engine)
{
    struct stream *stream = &engine->stream;
    bool was_up = log_up(engine->log);
    log_recover(engine->log);
    stream->recovered = true;
    stream->gap_due = log_opened(engine->log); /* else nobody was promised anything */
    stream->lost_at = log_head(engine->log);
    stream->lost_why = REASON_RESTART;
    stream->told_down = !was_up;
    stream_down(engine, REASON_RESTART);
}

/* ---- opening and losing ---- */

/* libuv's time is that of the turn's beginning: the timer may be early by our clock. */
static void on_settled(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    engine->stream.settle_until_ms = 0;
    stream_settle(engine);
}

void stream_settle(struct engine *engine)
{
    struct stream *stream = &engine->stream;
    if (!stream->open || stream->up || stream->opening)
        return;
    if (engine_now_ms(engine) >= stream->settle_until_ms) {
        engine->interest.settling = false;
        if (engine->interest.n_settling == 0)
            say_up(engine);
    }
}

void fw_host_opened(struct fw_host *host, const char *mode, const char *guarantee,
                    uint64_t identity)
{
    struct engine *engine = engine_of(host);
    struct stream *stream = &engine->stream;
    if (stream->ended || stream->open)
        return;
    if (stream->mode)
        count(&engine->counters->source_reconnects, 1);
    stream->open = true;
    log_set_opened(engine->log);
    stream->mode = mode;
    stream->guarantee = guarantee;
    stream->opened_ms = stream->settle_until_ms = engine_now_ms(engine);
    if (identity != log_identity(engine->log))
        log_set_identity(engine->log, identity);
    engine_tell_source(engine, NULL);
    if (stream->recovered && stream->gap_due && engine->interest.on_demand) {
        engine->interest.settling = true;
        stream->settle_until_ms += SETTLE_MS;
        uv_update_time(&engine->loop);
        (void)uv_timer_start(&engine->settle, on_settled, SETTLE_MS, 0);
    }
    stream->opening = true;
    interest_opened(&engine->interest);
    stream->opening = false;
    stream_settle(engine);
}

static void on_retry(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    engine->class->open(engine->source);
}

static void retry_later(struct engine *engine)
{
    struct stream *stream = &engine->stream;
    uv_update_time(&engine->loop);
    (void)uv_timer_start(&engine->retry, on_retry, engine_back_off(engine, &stream->backoff), 0);
}

static void lose(struct engine *engine, const char *reason)
{
    struct stream *stream = &engine->stream;
    int64_t now = engine_now_ms(engine);
    if (stream->open && now - stream->opened_ms >= STABLE_MS)
        backoff_reset(&stream->backoff);
    if (stream->open && !stream->gap_due) {
        stream->gap_due = true;
        stream->lost_at = log_head(engine->log);
        stream->lost_why = REASON_CONNECTION_LOST;
    }
    if (stream->up) /* a new outage is told at once */
        engine->lost = engine->misconfigured = (struct repeat){ 0 };
    stream->open = false;
    snapshots_lost(&engine->snapshots);
    interest_lost(&engine->interest);
    stream_down(engine, reason_from_text(reason, (uint32_t)strlen(reason)));
}

void fw_host_lost(struct fw_host *host, const char *reason, const char *message)
{
    struct engine *engine = engine_of(host);
    uint64_t repeats;
    if (engine->stream.ended)
        return;
    lose(engine, reason);
    retry_later(engine);
    if (engine_repeat(engine, &engine->lost, &repeats))
        engine_log(engine, FW_LOG_WARNING, "lost", "%s (attempt %u, trying again)", message,
                   engine->stream.backoff.attempts);
}

void fw_host_misconfigured(struct fw_host *host, const char *message)
{
    struct engine *engine = engine_of(host);
    uint64_t repeats;
    if (engine->stream.ended)
        return;
    lose(engine, "connection-lost");
    backoff_reset(&engine->stream.backoff); /* the backend itself is there */
    uv_update_time(&engine->loop);
    (void)uv_timer_start(&engine->retry, on_retry, MENDED_MS, 0);
    if (engine_repeat(engine, &engine->misconfigured, &repeats))
        engine_log(engine, FW_LOG_ERROR, "misconfigured", "%s", message);
}

void fw_host_ended(struct fw_host *host)
{
    struct engine *engine = engine_of(host);
    struct stream *stream = &engine->stream;
    if (stream->ended)
        return;
    stream->ended = true;
    stream->open = false;
    stream_down(engine, REASON_ENDED);
    /* Nothing more will come: what is held is complete, and those who ask are told so. */
    interest_answer(&engine->interest, true);
    engine_log(engine, FW_LOG_INFO, "ended", "the stream has ended; what is held stays readable");
}

/* A record of a channel that no client can name. */
static void append_mark(struct engine *engine, const uint64_t pos[2])
{
    static const char mark[] = "\1";
    struct log_event event = { .channel = mark,
                               .channel_len = 1,
                               .pos = { pos[0], pos[1] },
                               .time_ms = clock_realtime_ms(),
                               .kind = RECORD_LIVE };
    engine->dirty = true;
    (void)log_append(engine->log, &event);
}

/* Coverage that begins must lie behind every position ever handed out: where nothing else was
 * appended since, a client that was away while nobody listened would come back with the very place
 * where coverage begins, and be told that it has missed nothing. So a record of a channel that no
 * client can name moves the head, once for all channels that are confirmed in one turn. */
static void mark_coverage(struct engine *engine)
{
    if (engine->coverage_marked)
        return;
    engine->coverage_marked = true;
    append_mark(engine, (const uint64_t[2]){ 0 });
}

void fw_host_ready(struct fw_host *host, const char *channel, size_t len)
{
    mark_coverage(engine_of(host));
    interest_ready(&engine_of(host)->interest, channel, len);
}

void fw_host_refused(struct fw_host *host, const char *channel, size_t len, const char *code,
                     const char *message)
{
    interest_refused(&engine_of(host)->interest, channel, len, code_from_text(code), message);
}

void fw_host_traits(struct fw_host *host, unsigned traits)
{
    struct engine *engine = engine_of(host);
    if (engine->stream.open)
        return;
    engine->traits = traits;
    interest_set_on_demand(&engine->interest, traits & FW_SOURCE_ON_DEMAND);
}

/* ---- the history of a durable source ---- */

bool fw_host_continue(struct fw_host *host, uint64_t identity, uint64_t ret_pos[2])
{
    const struct log *log = engine_of(host)->log;
    return log_identity(log) == identity && log_position_before(log, log_head(log), ret_pos) == 0;
}

/* Has the log been another stream's? One without identity is known by having been open, here or in
 * a process before us. */
static bool held_another(const struct engine *engine, uint64_t identity)
{
    uint64_t before = log_identity(engine->log);
    bool used = before != 0 || log_opened(engine->log);
    return used && before != identity;
}

/* The record at the beginning carries the floor, so that a position right there is found, also when
 * no event follows. */
void fw_host_begin(struct fw_host *host, uint64_t identity, const uint64_t floor[2])
{
    struct engine *engine = engine_of(host);
    uint64_t after = log_head(engine->log);
    bool other = held_another(engine, identity);
    struct log_event event = { .channel = "",
                               .pos = { floor[0], floor[1] },
                               .kind = other ? RECORD_GAP : RECORD_LIVE,
                               .history = !other };
    log_set_identity(engine->log, identity);
    keys_clear(&engine->keys); /* what is read anew is not a repeat of what it replaces */
    (void)append_control(engine, &event, after, other ? REASON_NEW_EPOCH : REASON_NONE);
}

void fw_host_gap(struct fw_host *host, const char *reason, const uint64_t pos[2], bool history)
{
    struct engine *engine = engine_of(host);
    struct log_event event = {
        .channel = "", .pos = { pos[0], pos[1] }, .kind = RECORD_GAP, .history = history
    };
    (void)append_control(engine, &event, log_head(engine->log),
                         reason_from_text(reason, (uint32_t)strlen(reason)));
}

void fw_host_mark(struct fw_host *host, const uint64_t pos[2])
{
    append_mark(engine_of(host), pos);
}

/* ---- events ---- */

void fw_host_refuse_event(struct fw_host *host, const char *why)
{
    struct engine *engine = engine_of(host);
    uint64_t repeats;
    count(&engine->counters->source_refused_events, 1);
    if (engine_repeat(engine, &engine->refused, &repeats))
        engine_log(engine, FW_LOG_WARNING, "event-refused", "%s (%llu more since the last line)",
                   why, (unsigned long long)repeats);
}

void fw_host_gauge(struct fw_host *host, enum fw_gauge gauge, uint64_t value)
{
    struct counters *counters = engine_of(host)->counters;
    atomic_store_explicit(gauge == FW_GAUGE_LAG_MS ? &counters->source_lag_ms
                                                   : &counters->source_retained_bytes,
                          value, memory_order_relaxed);
}

size_t fw_host_event_max(struct fw_host *host)
{
    const struct log *log = engine_of(host)->log;
    return log ? log_event_max(log) : SIZE_MAX;
}

/* The gap stands at the event's position: who resumes from there has been told. */
static int append_too_large(struct engine *engine, const struct fw_source_event *event)
{
    struct log_event gap = { .channel = event->channel,
                             .channel_len = event->channel_len,
                             .pos = { event->pos[0], event->pos[1] },
                             .xid = event->xid,
                             .kind = RECORD_GAP,
                             .history = event->history };
    fw_host_refuse_event(&engine->host, "an event larger than 1/16 of the log became a gap");
    (void)append_control(engine, &gap, log_head(engine->log), REASON_TOO_LARGE);
    return 0;
}

/* The publish that this event is a repeat of stands in the log: who published it again is told that
 * one's id. A durable position is passed all the same: who was given it finds it in the log. */
static bool is_repeat(struct engine *engine, const struct fw_source_event *event,
                      const struct key_name *name)
{
    struct log_record first;
    if (!name->key)
        return false;
    keys_expire(&engine->keys);
    if (!keys_find(&engine->keys, name, &first))
        return false;
    if (event->pos[0] || event->pos[1])
        append_mark(engine, event->pos);
    engine->last_pos[0] = first.pos[0];
    engine->last_pos[1] = first.pos[1];
    engine->last_next = first.next;
    count(&engine->counters->source_repeated_events, 1);
    return true;
}

/* A key that is too long to travel with its event is none. */
static struct key_name key_of(const struct fw_source_event *event)
{
    bool keyed = event->key && *event->key && meta_fits(event->key, NULL);
    return (struct key_name){ event->channel, keyed ? event->key : NULL, event->channel_len };
}

int fw_host_append(struct fw_host *host, const struct fw_source_event *event)
{
    struct engine *engine = engine_of(host);
    const struct key_name name = key_of(event);
    char meta[META_MAX];
    if (!channel_valid(event->channel, event->channel_len)) {
        fw_host_refuse_event(host, "an event without a valid channel name");
        return -EINVAL;
    }
    struct log_event e = { .channel = event->channel,
                           .channel_len = event->channel_len,
                           .meta = meta,
                           .meta_len = meta_encode(meta, event->key, event->from),
                           .data = event->data,
                           .len = event->len,
                           .time_ms = event->time_ms ? event->time_ms : clock_realtime_ms(),
                           .pos = { event->pos[0], event->pos[1] },
                           .xid = event->xid,
                           .kind = RECORD_MESSAGE,
                           .history = event->history };
    if (engine->in_publish)
        engine->publish_appends = true;
    if (is_repeat(engine, event, &name))
        return 0;
    size_t rest = log_event_max(engine->log) - e.channel_len - e.meta_len;
    uint64_t off = event->len > rest ? 0 : log_append(engine->log, &e);
    if (off == 0)
        return append_too_large(engine, event);
    if (name.key)
        keys_add(&engine->keys, &name, off);
    engine->dirty = true;
    engine->last_pos[0] = e.pos[0];
    engine->last_pos[1] = e.pos[1];
    engine->last_next = log_head(engine->log);
    count(&engine->counters->source_events, 1);
    count(&engine->counters->source_bytes, event->len);
    atomic_store_explicit(&engine->counters->source_last_event_ms, (uint64_t)e.time_ms,
                          memory_order_relaxed);
    return 0;
}

static const char *write_id(struct engine *engine, const uint64_t pos[2], uint64_t next)
{
    struct log_record record = { .next = next, .pos = { pos[0], pos[1] } };
    (void)position_write(engine->last_id, engine->log, &record, 0);
    return engine->last_id;
}

const char *fw_host_id(struct fw_host *host, const uint64_t pos[2])
{
    return write_id(engine_of(host), pos, log_head(engine_of(host)->log));
}

const char *fw_host_last_id(struct fw_host *host)
{
    struct engine *engine = engine_of(host);
    return write_id(engine, engine->last_pos, engine->last_next);
}

bool fw_host_flush(struct fw_host *host)
{
    struct engine *engine = engine_of(host);
    if (engine->dirty) {
        engine_wake(engine);
        engine_pace(engine, false);
    }
    return !engine->paused;
}
