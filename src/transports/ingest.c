/* Ingest: from the log into the arena. Each event that has local subscribers is copied out of the
 * ring once, validated, and encoded once per wire format in use; all others are skipped by hash. */
#include "clock.h"
#include "control.h"
#include "meta.h"
#include "turn.h"

#include <errno.h>
#include <stdlib.h>

#define SLICE_EVENTS  4096
#define SLICE_BYTES   (1u << 20)
#define SLICE_US      500
#define GAP_SPREAD_MS 3000 /* bare sockets close over this time when a gap strikes all of them */

bool ingest_pending(const struct worker *w)
{
    return w->frontier < log_indexed(w->log);
}

int read_body(struct worker *w, struct log_record *record)
{
    size_t size = log_body_size(record);
    if (size > w->body_cap) {
        uint8_t *body = realloc(w->body, size);
        if (!body)
            return -ENOMEM;
        w->body = body;
        w->body_cap = size;
    }
    return log_body(w->log, record, w->body);
}

/* ---- encoding ---- */

static int encode_gap(struct worker *w, struct buf *out, enum frame_format format,
                      const struct log_record *record)
{
    uint64_t whole_to = 0;
    enum gap_reason reason = REASON_NONE;
    (void)control_decode(record->data, record->len, &whole_to, &reason);
    char after[POSITION_TEXT_MAX], before[POSITION_TEXT_MAX];
    if (whole_to)
        position_write_place(after, w->log, whole_to);
    position_write_place(before, w->log, record->next);
    struct buf *json = &w->text;
    buf_clear(json);
    json_gap(json, record->channel, record->channel_len, whole_to ? after : NULL, before, reason);
    return frame_control(out, format, "gap", (const char *)json->data, json->len);
}

static int encode_state(struct worker *w, struct buf *out, enum frame_format format,
                        const struct log_record *record)
{
    uint64_t whole_to;
    enum gap_reason reason = REASON_NONE;
    (void)control_decode(record->data, record->len, &whole_to, &reason);
    struct buf *json = &w->text;
    buf_clear(json);
    if (record->kind == RECORD_UP)
        json_up(json);
    else
        json_down(json, reason);
    return frame_control(out, format, record->kind == RECORD_UP ? "up" : "down",
                         (const char *)json->data, json->len);
}

static struct frame_message message_of(struct worker *w, const struct log_record *record,
                                       char id[POSITION_TEXT_MAX])
{
    return (struct frame_message){
        .channel = record->channel,
        .channel_len = record->channel_len,
        .id = id,
        .id_len = position_write(id, w->log, record, record->next),
        .time_ms = (int64_t)record->time_ms,
        .data = record->data,
        .len = record->len,
        .from = meta_from(record),
    };
}

int encode_record(struct worker *w, struct buf *out, enum frame_format format,
                  const struct log_record *record)
{
    if (record->kind == RECORD_GAP)
        return encode_gap(w, out, format, record);
    if (record->kind != RECORD_MESSAGE)
        return encode_state(w, out, format, record);
    char id[POSITION_TEXT_MAX];
    struct frame_message message = message_of(w, record, id);
    return frame_message(out, format, &message);
}

int record_json(struct worker *w, struct buf *out, const struct log_record *record)
{
    char id[POSITION_TEXT_MAX];
    struct frame_message message = message_of(w, record, id);
    return json_message(out, &message, false, false);
}

/* ---- taking in ---- */

static void add_frame(struct worker *w, struct feed *feed, const struct log_record *record)
{
    if (w->encode.len == 0)
        return; /* this format does not show it */
    struct frame frame = {
        .off = record->off,
        .next = record->next,
        .feed = feed,
        .time_ms = (int64_t)record->time_ms,
        .len = (uint32_t)w->encode.len,
        .state = record->kind == RECORD_DOWN ? STATE_DOWN
                 : record->kind == RECORD_UP ? STATE_UP
                                             : STATE_NONE,
    };
    (void)feed_add(&w->arena, feed, &frame, w->encode.data); /* on failure read from the log */
}

static void spread_gap_close(struct worker *w, struct conn *c)
{
    if (c->format != FORMAT_WS_BARE || c->state != CONN_STREAM ||
        c->flags & (CONN_GAP_IGNORE | CONN_GAP_CLOSE))
        return;
    c->flags |= CONN_GAP_CLOSE;
    wheel_set(&w->wheel, &c->timer, w->now_ms, conn_spread(c, GAP_SPREAD_MS));
}

static void gap_of_channel(struct worker *w, struct channel *channel)
{
    struct feed *bare = channel->feeds[FORMAT_WS_BARE];
    for (uint32_t i = 0; bare && i < bare->subs.count; i++)
        spread_gap_close(w, bare->subs.items[i]->conn);
}

static void ingest_message(struct worker *w, struct channel *channel, struct log_record *record)
{
    char id[POSITION_TEXT_MAX];
    struct frame_message message = message_of(w, record, id);
    if (record->kind == RECORD_GAP)
        gap_of_channel(w, channel);
    for (int f = 0; f < N_FORMATS; f++) {
        struct feed *feed = channel->feeds[f];
        if (!feed || feed->subs.count == 0)
            continue;
        buf_clear(&w->encode);
        int r = record->kind == RECORD_MESSAGE ? frame_message(&w->encode, f, &message)
                                               : encode_record(w, &w->encode, f, record);
        if (r < 0) { /* out of memory: those connections read it from the log */
            feed->newest = feed->gone = record->next;
        } else {
            add_frame(w, feed, record);
        }
        walker_start(&feed->walker, &w->dirty, feed->subs.count);
    }
    if (!list_empty(&channel->polls))
        channel_wake_polls(w, channel);
}

static void wake_poll(struct worker *w, struct conn *c)
{
    if (c->more && c->more->history)
        channel_wake_polls(w, c->more->history->channel);
}

/* down, up and gap of the whole source: for everyone. */
static void ingest_control(struct worker *w, struct log_record *record)
{
    bool down = record->kind == RECORD_DOWN, up = record->kind == RECORD_UP;
    uint64_t whole_to;
    enum gap_reason reason = REASON_NONE;
    (void)control_decode(record->data, record->len, &whole_to, &reason);
    bool was_down = w->down;
    if (down || up) {
        w->log_down = down;
        w->down = w->log_down || w->hung;
        w->down_reason = down ? reason : w->down_reason;
    }
    if (record->kind != RECORD_GAP && w->down == was_down)
        return; /* told already */
    uint32_t told = 0;
    for (uint32_t i = 0; i < w->n_conns; i++) {
        bool begun = has_begun(w->conns[i]);
        told += begun && w->conns[i]->state == CONN_STREAM;
        if (record->kind == RECORD_GAP) {
            if (begun)
                spread_gap_close(w, w->conns[i]);
            wake_poll(w, w->conns[i]);
        }
    }
    if (record->kind == RECORD_GAP)
        count(&w->counters->gaps[reason], told);
    for (int f = FORMAT_WS_JSON; f < N_FORMATS; f++) {
        buf_clear(&w->encode);
        if (encode_record(w, &w->encode, f, record) == 0)
            add_frame(w, w->control.feeds[f], record);
    }
    walker_start(&w->everyone, &w->dirty, w->n_conns);
}

/* The writer has overtaken this worker: nothing in the arena joins what comes next. Everyone is
 * visited, found behind, and told its gap, or that it has missed nothing, by catch-up. */
static void ingest_lapped(struct worker *w)
{
    w->frontier = log_indexed(w->log);
    struct channel *channel;
    for (size_t at = 0; (channel = map_next(&w->channels, &at));) {
        for (int f = 0; f < N_FORMATS; f++) {
            if (channel->feeds[f])
                channel->feeds[f]->gone = channel->feeds[f]->newest = w->frontier;
        }
        channel_wake_polls(w, channel);
    }
    for (int f = FORMAT_WS_JSON; f < N_FORMATS; f++)
        w->control.feeds[f]->gone = w->control.feeds[f]->newest = w->frontier;
    w->log_down = !log_up(w->log);
    w->down = w->log_down || w->hung;
    walker_start(&w->everyone, &w->dirty, w->n_conns);
}

static bool any_channel(const void *value, const void *key, size_t len)
{
    (void)value, (void)key, (void)len;
    return true;
}

static bool same_channel(const void *value, const void *key, size_t len)
{
    (void)len;
    const struct channel *channel = value;
    const struct log_record *record = key;
    return channel->len == record->channel_len &&
           __builtin_memcmp(channel->name, record->channel, channel->len) == 0;
}

/* There was no memory to read it: who may want it reads it from the log. */
static void ingest_unread(struct worker *w, const struct log_record *record)
{
    struct channel *channel = map_get(&w->channels, record->hash, any_channel, NULL, 0);
    channel = record->channel_len ? channel : &w->control;
    for (int f = 0; channel && f < N_FORMATS; f++) {
        struct feed *feed = channel->feeds[f];
        if (!feed)
            continue;
        feed->newest = feed->gone = record->next;
        walker_start(&feed->walker, &w->dirty, feed->subs.count);
    }
    if (channel && channel != &w->control)
        channel_wake_polls(w, channel);
}

/* Takes in the record at the frontier. False when the worker was lapped. */
static bool ingest_one(struct worker *w, size_t *bytes)
{
    struct log_record record;
    if (log_peek(w->log, w->frontier, &record) == 0)
        return false;
    bool control = record.channel_len == 0 && record.kind != RECORD_PAD;
    bool wanted = record.kind != RECORD_PAD && !record.history &&
                  (control || map_get(&w->channels, record.hash, any_channel, NULL, 0));
    if (wanted) {
        int r = read_body(w, &record);
        if (r == 0)
            return false;
        if (r < 0)
            ingest_unread(w, &record);
        struct channel *channel =
            r < 0 || control
                ? NULL
                : map_get(&w->channels, record.hash, same_channel, &record, record.channel_len);
        if (r > 0 && control)
            ingest_control(w, &record);
        else if (channel)
            ingest_message(w, channel, &record);
        *bytes += record.len;
        count(&w->counters->events_ingested, 1);
    }
    w->frontier = record.next;
    return true;
}

void ingest(struct worker *w)
{
    uint64_t end = log_indexed(w->log);
    int64_t deadline = w->now_us + SLICE_US;
    size_t bytes = 0;
    for (unsigned n = 0; w->frontier < end && n < SLICE_EVENTS && bytes < SLICE_BYTES; n++) {
        if (!ingest_one(w, &bytes)) {
            ingest_lapped(w);
            return;
        }
        if (n % 64 == 63 && clock_monotonic_us() > deadline)
            return;
    }
}
