/* A logical replication stream as events: its transactions, its history, and what the server is
 * told.
 *
 * What is confirmed to the server trails by the retention (pg_trail.c), so that a server that
 * starts anew reads its history from the WAL. It is never more than the log's newest position: a
 * mark is put into the log first when nothing else was. So a slot that stands behind the log's end
 * has lost something: it was dropped, invalidated or used by another, and everybody is told a gap.
 *
 * The flush trap: a server that shuts down waits until what it has sent is flushed, which is never,
 * with a trailing flush position. A status without one (0/0) makes it look at the write position
 * instead; so each confirmation is followed by such a status. */
#include "pg_stream.h"

#include "clock.h"
#include "pg_envelope.h"
#include "pg_output.h"
#include "pg_trail.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define STATUS_MS  5000
#define ARRIVE_MS  100 /* how often the server is asked how far it is, until it is where it was */
#define WAL_HEADER 25
#define EPOCH_MS   946684800000 /* of Postgres, since 1970 */
#define LOG_EVENTS 16           /* the log holds so many of the largest events */

/* ---- status ---- */

static void put_64(char *out, uint64_t value)
{
    uint64_t wire = htobe64(value);
    memcpy(out, &wire, sizeof wire);
}

/* `flush` 0: no statement. The time is for pg_stat_replication.reply_time. */
static void put_status(struct pg_stream *s, uint64_t flush, bool reply)
{
    char message[34] = { 'r' };
    if (!s->session->streaming)
        return;
    put_64(message + 1, s->received);
    put_64(message + 9, flush);
    put_64(message + 17, flush);
    put_64(message + 25, (uint64_t)(clock_realtime_ms() - EPOCH_MS) * 1000);
    message[33] = reply;
    pg_session_put(s->session, message, sizeof message);
}

bool pg_before(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] < b[0] || (a[0] == b[0] && a[1] < b[1]);
}

void pg_stream_mark(struct pg_stream *s, uint64_t lsn)
{
    const uint64_t pos[2] = { lsn, 0 };
    if (!pg_before(s->last, pos))
        return;
    fw_host_mark(s->host, pos);
    memcpy(s->last, pos, sizeof pos);
}

/* The log has to know how far we are before the server does. */
static void confirm(struct pg_stream *s)
{
    uint64_t lsn = pg_trail_confirm(&s->trail, fw_host_now_ms(s->host));
    if (!s->in_transaction)
        pg_stream_mark(s, s->received);
    if (lsn > s->confirmed) {
        pg_stream_mark(s, lsn);
        s->confirmed = lsn;
        put_status(s, lsn, false);
    }
}

static void on_timer(void *arg)
{
    struct pg_stream *s = arg;
    if (!s->session->streaming)
        return;
    if (s->opened)
        confirm(s);
    put_status(s, 0, !s->arrived);
    if (s->session->streaming) /* it may have been lost */
        fw_timer_start(s->timer, s->arrived ? STATUS_MS : ARRIVE_MS);
}

/* ---- events ---- */

static void append(struct pg_stream *s, struct fw_source_event *event, uint32_t sub)
{
    event->pos[0] = s->commit;
    event->pos[1] = s->change << PG_ROW_SUB_BITS | sub;
    if (!pg_before(s->last, event->pos))
        return;
    event->xid = s->xid;
    event->time_ms = s->time_ms;
    event->history = !s->opened;
    memcpy(s->last, event->pos, sizeof s->last);
    (void)fw_host_append(s->host, event);
    (void)pg_session_appended(s->session, event->len);
}

static void on_row(void *arg, const struct pg_row_event *row)
{
    struct fw_source_event event = {
        .channel = row->channel, .channel_len = row->channel_len, .data = row->data, .len = row->len
    };
    append(arg, &event, row->sub);
}

static void on_refused_row(void *arg, const char *why)
{
    struct pg_stream *s = arg;
    const uint64_t pos[2] = { s->commit, s->change << PG_ROW_SUB_BITS };
    if (pg_before(s->last, pos))
        fw_host_refuse_event(s->host, why);
}

static void take_message(struct pg_stream *s, const struct pg_output *m)
{
    struct pg_envelope envelope = { 0 };
    const char *why = NULL;
    if (s->arrived && !strcmp(m->prefix, "fanwire.installed"))
        pg_session_lose(s->session, "another mode was installed: asking again");
    if (strcmp(m->prefix, "fanwire") != 0)
        return;
    if (!m->transactional || !s->in_transaction) {
        fw_host_refuse_event(s->host, "a message outside of its transaction");
        return;
    }
    s->change++;
    why = pg_envelope_parse(m->content, m->content_len, &envelope);
    if (why)
        on_refused_row(s, why);
    else
        append(s, &envelope.event, 0);
    pg_envelope_done(&envelope);
}

static void take_rows(struct pg_stream *s, const struct pg_output *m)
{
    const struct pg_row_sink sink = { on_row, on_refused_row, s };
    if (m->kind != PG_RELATION && m->kind != PG_TYPE)
        s->change++;
    int r = pg_rows_take(s->rows, m, s->xid, &sink);
    if (r < 0)
        pg_session_lose(s->session, r == -ENOMEM
                                        ? "out of memory"
                                        : "a row that does not fit its table's description");
}

/* ---- transactions ---- */

static void open_stream(struct pg_stream *s)
{
    s->opened = true;
    pg_session_opened(s->session, "wal", s->guarantee, s->identity);
    fw_timer_start(s->timer, 0);
}

/* The stream is where the server was when we came: history is over, and what was found to be
 * watched no more by then is told no more. */
static void arrive(struct pg_stream *s)
{
    s->arrived = true;
    pg_session_went_on(s->session);
    pg_rows_settle(s->rows);
    if (!s->opened)
        open_stream(s);
}

/* Everything before `lsn` is in the log. */
static void pass(struct pg_stream *s, uint64_t lsn)
{
    if (lsn <= s->received)
        return;
    s->received = lsn;
    pg_trail_pass(&s->trail, lsn, fw_host_now_ms(s->host));
}

/* The stream has 32 of the id's 64 bits; it is within 2^31 of those that were given last. */
static uint64_t widen(struct pg_stream *s, uint32_t xid)
{
    uint64_t wide = s->next_xid + (uint64_t)(int64_t)(int32_t)(xid - (uint32_t)s->next_xid);
    if (wide > s->next_xid)
        s->next_xid = wide;
    return wide;
}

static void begin_transaction(struct pg_stream *s, const struct pg_output *m)
{
    if (!s->arrived && m->lsn >= s->now)
        arrive(s); /* before its events: connected clients are to have them live */
    s->in_transaction = true;
    s->commit = m->lsn;
    s->change = 0;
    s->time_ms = m->time_ms;
    s->xid = widen(s, m->xid);
    pg_horizon_note(&s->horizon, s->commit, s->xid);
}

static void take_output(struct pg_stream *s, const char *data, size_t len)
{
    struct pg_output m;
    if (pg_output_parse(data, len, &m) < 0) {
        pg_session_lose(s->session, "a message of the stream does not follow the protocol");
    } else if (m.kind == PG_BEGIN) {
        begin_transaction(s, &m);
    } else if (m.kind == PG_COMMIT) {
        s->in_transaction = false;
        pass(s, m.end_lsn);
    } else if (m.kind == PG_MESSAGE) {
        take_message(s, &m);
    } else if (m.kind != PG_ORIGIN) {
        take_rows(s, &m);
    }
}

static uint64_t get_64(const char *at)
{
    uint64_t wire;
    memcpy(&wire, at, sizeof wire);
    return be64toh(wire);
}

static void take_keepalive(struct pg_stream *s, const char *data)
{
    if (!s->in_transaction)
        pass(s, get_64(data + 1));
    if (data[17])
        put_status(s, 0, false);
}

static void take(struct pg_stream *s, const char *data, size_t len)
{
    if (data[0] == 'w' && len > WAL_HEADER)
        take_output(s, data + WAL_HEADER, len - WAL_HEADER);
    else if (data[0] == 'k' && len >= 18)
        take_keepalive(s, data);
    else
        pg_session_lose(s->session, "the server sent what is no part of the protocol");
    if (s->session->streaming && !s->arrived && !s->in_transaction && s->received >= s->now)
        arrive(s);
}

void pg_stream_input(struct pg_stream *s)
{
    const struct pg_session *session = s->session;
    char *data = NULL;
    while (session->streaming && !(session->state == PG_OPEN && session->paused)) {
        int len = pg_session_copy(s->session, &data);
        if (len <= 0)
            return;
        take(s, data, (size_t)len);
        PQfreemem(data);
    }
}

/* ---- life ---- */

int pg_stream_init(struct pg_stream *s, struct pg_session *session, const char *guarantee,
                   int64_t retain_for_ms)
{
    size_t event_max = fw_host_event_max(session->host);
    *s = (struct pg_stream){ .session = session, .host = session->host, .guarantee = guarantee };
    if (retain_for_ms >= 0)
        pg_trail_init(&s->trail, (uint64_t)event_max * LOG_EVENTS, retain_for_ms);
    s->rows = pg_rows_new(event_max);
    return s->rows ? fw_host_timer(s->host, on_timer, s, &s->timer) : -ENOMEM;
}

void pg_stream_reset(struct pg_stream *s)
{
    fw_timer_stop(s->timer);
    pg_rows_reset(s->rows);
    s->in_transaction = s->opened = s->arrived = false;
}

void pg_stream_done(struct pg_stream *s)
{
    if (s->timer)
        fw_timer_free(s->timer);
    pg_rows_free(s->rows);
}

void pg_stream_begin(struct pg_stream *s, uint64_t start, bool at_once)
{
    s->received = s->confirmed = start;
    pg_trail_reset(&s->trail, start);
    pg_horizon_reset(&s->horizon, start, s->next_xid);
    fw_timer_start(s->timer, ARRIVE_MS);
    if (start >= s->now)
        arrive(s);
    else if (at_once)
        open_stream(s);
    else
        put_status(s, 0, true);
}

void pg_stream_ask(struct pg_stream *s)
{
    put_status(s, 0, true);
}
