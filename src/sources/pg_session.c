/* The streaming connection: one query at a time or a copy stream, and whether it still lives.
 *
 * libpq keeps notifications and results apart: results are taken first, so that what follows a
 * `ready` on the wire follows it here (the other way round, nothing depends on it). A query has
 * ended when the server is ready for the next one, for only then its transaction is committed:
 * CommandComplete comes too early.
 *
 * While events come by the thousands, the socket is left alone for a millisecond after each turn,
 * as network cards do with interrupts: the server sends each event by itself, and to be woken for
 * every few of them would cost all three, server, source and readers, more than the events do.
 *
 * Whether the connection still lives is asked by TCP keep-alive and, when nothing came for a while,
 * by a question of whoever uses the session.
 *
 * A server that decodes a large transaction takes messages now and then only (every
 * wal_sender_timeout / 2), and where it tells nothing of it, or is an older one, not at all until
 * the end; after a loss it begins anew. So a stream is given a minute to answer, and twice as long
 * after each time that this was too short, until it comes through. */
#include "pg_session.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define QUIET_MS      15000 /* without a byte from the server this long: ask */
#define STREAM_MAX_MS (64 * PG_STREAM_MS)
#define FLUSH_EVERY   256
#define MANY          64 /* events of one turn: there are more to come */
#define REST_MS       1
#define READS_MAX     64 /* of one turn, 16 KiB each: others want to be heard, too */

static bool connected(const struct pg_session *s)
{
    return s->state == PG_CONNECTED || s->state == PG_OPEN;
}

/* ---- losing the connection ---- */

static void forget(struct pg_session *s)
{
    pg_link_close(&s->link);
    if (s->work)
        fw_timer_stop(s->work);
    if (s->quiet)
        fw_timer_stop(s->quiet);
    s->state = PG_CLOSED;
    s->in_query = s->streaming = s->broken = s->asked = false;
    s->paused = false; /* the end of a pause is told to open streams only */
    s->resting = false;
    s->unflushed = 0;
    s->unflushed_len = 0;
}

static void lose(struct pg_session *s, const char *message, bool misconfigured)
{
    char text[2 * PG_MESSAGE_MAX];
    snprintf(text, sizeof text, "%s", message); /* it may be libpq's, which goes now */
    forget(s);
    s->owner->lost(s->owner_arg, text, misconfigured);
}

void pg_session_lose(struct pg_session *s, const char *message)
{
    lose(s, message, false);
}

void pg_session_misconfigured(struct pg_session *s, const char *message)
{
    lose(s, message, true);
}

void pg_session_lose_by_link(struct pg_session *s)
{
    char message[PG_MESSAGE_MAX];
    lose(s, pg_link_message(&s->link, message), false);
}

/* ---- sending ---- */

static void watch(struct pg_session *s)
{
    int unsent = PQflush(s->link.conn);
    bool read = !s->resting && (!s->paused || s->state != PG_OPEN);
    pg_link_watch(&s->link, (read ? FW_READABLE : 0) | (unsent > 0 ? FW_WRITABLE : 0));
}

void pg_session_query(struct pg_session *s, const char *sql, unsigned answer_ms)
{
    s->in_query = true;
    s->failed = s->transient = false;
    s->error[0] = s->sqlstate[0] = '\0';
    s->answer_ms = answer_ms;
    s->heard_ms = fw_host_now_ms(s->host);
    if (!PQsendQuery(s->link.conn, sql)) {
        pg_session_lose_by_link(s);
        return;
    }
    watch(s);
    fw_timer_start(s->quiet, answer_ms);
}

void pg_session_put(struct pg_session *s, const char *data, int len)
{
    if (PQputCopyData(s->link.conn, data, len) < 0)
        pg_session_lose_by_link(s);
    else
        watch(s);
}

void pg_session_look_soon(struct pg_session *s)
{
    fw_timer_start(s->work, 0);
}

static void look_for_work(struct pg_session *s)
{
    if (connected(s) && !s->in_query && !s->streaming && s->events->idle)
        s->events->idle(s->arg);
    if (connected(s))
        watch(s);
}

/* ---- results ---- */

/* Out of something, ended by an operator or a time-out, an internal error, a conflict: by the class
 * of the SQLSTATE (Postgres, appendix A). Anything else is about what was asked. */
static bool is_transient(const char *sqlstate)
{
    static const char classes[][3] = { "40", "53", "57", "58", "XX" };
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strncmp(sqlstate, classes[i], 2) == 0)
            return true;
    return false;
}

bool pg_session_lacks_utf8(const struct pg_session *s)
{
    return s->failed && (!strcmp(s->sqlstate, "22P05") || !strcmp(s->sqlstate, "22021"));
}

static void take_failure(struct pg_session *s, const PGresult *result)
{
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    s->failed = true;
    snprintf(s->sqlstate, sizeof s->sqlstate, "%s", sqlstate ? sqlstate : "");
    s->transient = is_transient(s->sqlstate);
    pg_one_line(s->error, sizeof s->error, text ? text : PQresultErrorMessage(result));
}

static void end_query(struct pg_session *s)
{
    s->in_query = false;
    if (PQstatus(s->link.conn) != CONNECTION_OK)
        s->broken = true; /* read_all() says so when the last notification is taken */
    else if (s->events->ended)
        s->events->ended(s->arg);
}

static void take_result(struct pg_session *s, const PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_FATAL_ERROR:
    case PGRES_BAD_RESPONSE:
        take_failure(s, result);
        break;
    case PGRES_COPY_BOTH:
        s->streaming = true;
        end_query(s);
        break;
    case PGRES_COPY_IN: /* what libpq makes of a stream that the server has ended */
        pg_session_lose(s, "the server has ended the stream");
        break;
    default:
        if (s->events->result)
            s->events->result(s->arg, result);
    }
}

static void take_results(struct pg_session *s)
{
    while (connected(s) && s->in_query && !PQisBusy(s->link.conn)) {
        PGresult *result = PQgetResult(s->link.conn);
        if (result)
            take_result(s, result);
        else
            end_query(s);
        PQclear(result);
    }
}

/* ---- events ---- */

int pg_session_copy(struct pg_session *s, char **ret_data)
{
    int len = PQgetCopyData(s->link.conn, ret_data, 1);
    if (len >= 0)
        return len;
    if (len == -1) { /* its last result, why it ended, follows */
        s->streaming = false;
        s->in_query = true;
        pg_session_look_soon(s);
    } else {
        pg_session_lose_by_link(s);
    }
    return -1;
}

static void flush(struct pg_session *s)
{
    if (s->unflushed == 0)
        return;
    s->unflushed = 0;
    s->unflushed_len = 0;
    if (!fw_host_flush(s->host) && s->state == PG_OPEN)
        s->paused = true;
}

bool pg_session_appended(struct pg_session *s, size_t len)
{
    s->turn_events++;
    s->unflushed++;
    s->unflushed_len += len;
    if (s->unflushed >= FLUSH_EVERY || s->unflushed_len >= fw_host_event_max(s->host))
        flush(s);
    return !s->paused;
}

/* Takes what libpq has read, up to a pause. */
static void read_all(struct pg_session *s)
{
    take_results(s);
    if (connected(s) && s->events->input)
        s->events->input(s->arg);
}

/* What was taken is for the readers now; a broken connection has brought all that it had. */
static void end_turn(struct pg_session *s)
{
    if (!connected(s))
        return;
    flush(s);
    s->broken |= s->link.failed;
    if (s->broken && !(s->paused && s->state == PG_OPEN))
        pg_session_lose_by_link(s);
}

/* Is there more to read at once, after n reads? */
static bool more_to_read(const struct pg_session *s, unsigned n)
{
    struct pollfd socket = { .fd = PQsocket(s->link.conn), .events = POLLIN };
    if (n == 1 && PQsslInUse(s->link.conn))
        return true; /* the rest of a TLS record makes no socket readable */
    return s->turn_events >= MANY && poll(&socket, 1, 0) > 0;
}

static void read_socket(struct pg_session *s)
{
    unsigned n = 0;
    s->turn_events = 0;
    do {
        if (!PQconsumeInput(s->link.conn))
            s->broken = true;
        read_all(s);
        n++;
    } while (connected(s) && !s->broken && !s->paused && n < READS_MAX && more_to_read(s, n));
    end_turn(s);
    s->resting = connected(s) && s->turn_events >= MANY;
    if (s->resting)
        fw_timer_start(s->work, REST_MS);
}

static void on_io(void *arg, unsigned events)
{
    struct pg_session *s = arg;
    if (events & FW_READABLE) {
        s->heard_ms = fw_host_now_ms(s->host);
        s->asked = false;
        read_socket(s);
    }
    look_for_work(s);
}

/* ---- timers ---- */

static void on_work(void *arg)
{
    struct pg_session *s = arg;
    if (!connected(s))
        return;
    if (s->resting) {
        s->resting = false;
        read_socket(s);
    } else {
        read_all(s); /* what a pause left in libpq's hands makes no socket readable */
        end_turn(s);
    }
    look_for_work(s);
}

static unsigned patience_ms(const struct pg_session *s)
{
    if (s->in_query)
        return s->answer_ms;
    if (!s->asked)
        return QUIET_MS;
    return s->streaming ? s->stream_ms : PG_ANSWER_MS;
}

static void ask(struct pg_session *s)
{
    s->asked = true;
    s->heard_ms = fw_host_now_ms(s->host);
    fw_timer_start(s->quiet, patience_ms(s));
    if (s->events->silent)
        s->events->silent(s->arg);
}

static void give_up(struct pg_session *s, unsigned limit_ms)
{
    char message[64];
    snprintf(message, sizeof message, "the server did not answer within %u s", limit_ms / 1000);
    if (s->streaming && !s->in_query && s->stream_ms < STREAM_MAX_MS)
        s->stream_ms *= 2;
    pg_session_lose(s, message);
}

void pg_session_went_on(struct pg_session *s)
{
    s->stream_ms = PG_STREAM_MS;
}

static void on_quiet(void *arg)
{
    struct pg_session *s = arg;
    if (!connected(s) || (s->state == PG_OPEN && s->paused))
        return;
    unsigned limit = patience_ms(s);
    int64_t quiet = fw_host_now_ms(s->host) - s->heard_ms;
    if (quiet < limit)
        fw_timer_start(s->quiet, (unsigned)(limit - quiet));
    else if (!s->in_query && !s->asked)
        ask(s);
    else
        give_up(s, limit);
}

/* ---- the link ---- */

static void on_connected(void *arg)
{
    struct pg_session *s = arg;
    s->state = PG_CONNECTED;
    s->heard_ms = fw_host_now_ms(s->host);
    fw_timer_start(s->quiet, QUIET_MS);
    s->events->connected(s->arg);
}

static void on_failed(void *arg, const char *message)
{
    struct pg_session *s = arg;
    if (!s->events->failed || !s->events->failed(s->arg, message))
        pg_session_lose(s, message);
}

static const struct pg_link_events link_events = { on_connected, on_failed, on_io };

/* ---- life ---- */

void pg_session_init(struct pg_session *s, struct fw_host *host, const struct pg_url *url,
                     const struct pg_session_owner *owner, void *owner_arg)
{
    *s = (struct pg_session){
        .host = host, .owner = owner, .owner_arg = owner_arg, .stream_ms = PG_STREAM_MS
    };
    pg_link_init(&s->link, host, url, &link_events, s);
}

void pg_session_done(struct pg_session *s)
{
    pg_link_done(&s->link);
    if (s->work)
        fw_timer_free(s->work);
    if (s->quiet)
        fw_timer_free(s->quiet);
}

static void connect_link(struct pg_session *s, bool replication)
{
    int r = s->work ? 0 : fw_host_timer(s->host, on_work, s, &s->work);
    if (r == 0 && !s->quiet)
        r = fw_host_timer(s->host, on_quiet, s, &s->quiet);
    s->link.replication = replication;
    s->state = PG_CONNECTING;
    if (r == 0)
        r = pg_link_open(&s->link);
    if (r < 0)
        pg_session_lose(s, strerror(-r));
}

void pg_session_open(struct pg_session *s)
{
    connect_link(s, false);
}

void pg_session_reopen(struct pg_session *s, bool replication)
{
    forget(s);
    connect_link(s, replication);
}

void pg_session_hand_over(struct pg_session *s, const struct pg_session_events *events, void *arg)
{
    s->events = events;
    s->arg = arg;
}

void pg_session_opened(struct pg_session *s, const char *mode, const char *guarantee,
                       uint64_t identity)
{
    flush(s); /* of its history */
    s->state = PG_OPEN;
    s->heard_ms = fw_host_now_ms(s->host);
    fw_timer_start(s->quiet, QUIET_MS);
    s->owner->opened(s->owner_arg);
    fw_host_opened(s->host, mode, guarantee, identity);
    watch(s);
    pg_session_look_soon(s);
}

void pg_session_pause(struct pg_session *s, bool paused)
{
    s->paused = paused;
    if (s->state != PG_OPEN)
        return;
    if (paused) {
        watch(s);
        return;
    }
    s->heard_ms = fw_host_now_ms(s->host);
    fw_timer_start(s->quiet, patience_ms(s));
    pg_session_look_soon(s);
}
