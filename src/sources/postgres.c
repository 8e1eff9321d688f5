/* The Postgres source in notify mode: one listening connection, one command connection on demand.
 *
 * The listening connection LISTENs to "fanwire", under which fanwire_publish() and we ourselves
 * send everything with the channel inside an envelope (pg_envelope.c), and on demand to plain names
 * of others (pg_names.c). One query is in flight at most; a channel is ready when the query with
 * its LISTEN has ended, that is, when its transaction is committed: CommandComplete comes too
 * early. libpq keeps notifications and results apart: results are taken first, so that what follows
 * a `ready` on the wire follows it here (the other way round, nothing depends on it).
 *
 * Nothing is durable: a lost connection is a gap, which the hub tells. Whether the connection still
 * lives is asked by TCP keep-alive and, when nothing came for a while, by SELECT 1; never by
 * NOTIFY, which would take a database-wide lock and write WAL. */
#include "error.h"
#include "pg_envelope.h"
#include "pg_link.h"
#include "pg_names.h"
#include "pg_publish.h"
#include "pg_url.h"
#include "text.h"

#include <errno.h>
#include <fanwire/source.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_MS    15000 /* without a byte from the server this long: ask */
#define ANSWER_MS   10000 /* without a byte this long while a query runs: it is gone */
#define FLUSH_EVERY 256
#define SQL_MAX     (PG_NAMES_BATCH * (2 * PG_NAME_MAX + 32))

/* Asks what the connection is good for, then listens; one transaction. Servers that end idle
 * sessions (14 and later) must not end this one. */
static const char start_sql[] =
    "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_encoding'), "
    "EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n "
    "ON n.oid = p.pronamespace WHERE n.nspname = 'public' AND p.proname = 'fanwire_status');"
    "SELECT pg_catalog.set_config('idle_session_timeout', '0', false) "
    "WHERE pg_catalog.current_setting('idle_session_timeout', true) IS NOT NULL;"
    "LISTEN \"fanwire\"";
static const char mode_sql[] = "SELECT mode FROM public.fanwire_status()";

enum query { QUERY_NONE, QUERY_START, QUERY_MODE, QUERY_NAMES, QUERY_PING };

struct fw_source {
    struct fw_host *host;
    struct pg_url url;
    struct pg_link link;
    struct pg_names names;
    struct pg_publisher publisher;
    enum { CLOSED, CONNECTING, STARTING, OPEN } state;
    enum query query;             /* the one in flight */
    bool query_failed, transient; /* the failure may go away by itself */
    bool broken;                  /* the connection is gone, what it brought is still being read */
    bool paused;
    bool installed; /* fanwire_status() exists */
    bool warned_url, warned_pooler, warned_encoding;
    unsigned unflushed;      /* events since the last fw_host_flush() */
    int64_t heard_ms;        /* when the server last said something, or was last asked */
    struct fw_timer *work;   /* what must not happen inside the hub's call */
    struct fw_timer *silent; /* runs while open */
    struct buf sql;
    char error[PG_MESSAGE_MAX]; /* of the query in flight */
    char mode[16];              /* of the installed SQL */
};

/* ---- losing the connection ---- */

static void lose(struct fw_source *s, const char *message)
{
    char line[PG_MESSAGE_MAX];
    snprintf(line, sizeof line, "%s", message); /* it may be libpq's, which goes now */
    pg_link_close(&s->link);
    pg_names_reset(&s->names);
    fw_timer_stop(s->work);
    fw_timer_stop(s->silent);
    s->state = CLOSED;
    s->query = QUERY_NONE;
    s->broken = false;
    s->paused = false; /* the end of a pause is told to open streams only */
    s->unflushed = 0;
    fw_host_lost(s->host, "connection-lost", line);
}

static void lose_by_link(struct fw_source *s)
{
    char message[PG_MESSAGE_MAX];
    lose(s, pg_link_message(&s->link, message));
}

/* ---- queries ---- */

static void watch(struct fw_source *s)
{
    int unsent = PQflush(s->link.conn);
    bool read = !s->paused || s->state != OPEN;
    pg_link_watch(&s->link, (read ? FW_READABLE : 0) | (unsent > 0 ? FW_WRITABLE : 0));
}

static void send_query(struct fw_source *s, enum query query, const char *sql)
{
    s->query = query;
    s->query_failed = s->transient = false;
    s->error[0] = '\0';
    s->heard_ms = fw_host_now_ms(s->host);
    if (!PQsendQuery(s->link.conn, sql)) {
        lose_by_link(s);
        return;
    }
    watch(s);
    fw_timer_start(s->silent, ANSWER_MS);
}

/* Sends the next batch of LISTEN and UNLISTEN if there is one and the connection is free. */
static void send_names(struct fw_source *s)
{
    if (s->state != OPEN || s->query != QUERY_NONE)
        return;
    buf_clear(&s->sql);
    unsigned n = pg_names_next(&s->names, s->link.conn, &s->sql);
    if (s->sql.failed)
        lose(s, "out of memory");
    else if (n > 0)
        send_query(s, QUERY_NAMES, (const char *)s->sql.data);
}

static void look_soon(struct fw_source *s)
{
    fw_timer_start(s->work, 0);
}

/* ---- results ---- */

/* What START says about the server. */
static void take_server(struct fw_source *s, const PGresult *result)
{
    uint64_t pid = 0;
    (void)parse_uint(PQgetvalue(result, 0, 0), INT32_MAX, &pid);
    s->installed = PQgetvalue(result, 0, 2)[0] == 't';
    if (!s->warned_pooler && (int)pid != PQbackendPID(s->link.conn)) {
        s->warned_pooler = true;
        fw_host_log(s->host, FW_LOG_WARNING, "pooler",
                    "the URL seems to lead to a connection pooler, through which LISTEN does not "
                    "work; give fanwire the address of the server itself");
    }
    if (!s->warned_encoding && !strcmp(PQgetvalue(result, 0, 1), "SQL_ASCII")) {
        s->warned_encoding = true;
        fw_host_log(s->host, FW_LOG_WARNING, "encoding",
                    "the database's encoding is SQL_ASCII: payloads arrive as the bytes that were "
                    "sent, names that are not UTF-8 are refused");
    }
}

/* Out of something, ended by an operator or a time-out, an internal error, a conflict: by the class
 * of the SQLSTATE (Postgres, appendix A). Anything else is about what was asked. */
static bool is_transient(const PGresult *result)
{
    static const char classes[][3] = { "40", "53", "57", "58", "XX" };
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    for (size_t i = 0; state && i < sizeof classes / sizeof classes[0]; i++)
        if (strncmp(state, classes[i], 2) == 0)
            return true;
    return false;
}

static void take_result(struct fw_source *s, const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE) {
        const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        s->query_failed = true;
        s->transient = is_transient(result);
        pg_one_line(s->error, sizeof s->error, text ? text : PQresultErrorMessage(result));
    } else if (status == PGRES_TUPLES_OK && s->query == QUERY_START && PQnfields(result) == 3) {
        take_server(s, result);
    } else if (status == PGRES_TUPLES_OK && s->query == QUERY_MODE && PQntuples(result) > 0) {
        snprintf(s->mode, sizeof s->mode, "%s", PQgetvalue(result, 0, 0));
    }
}

static void opened(struct fw_source *s)
{
    s->state = OPEN;
    s->heard_ms = fw_host_now_ms(s->host);
    s->publisher.retry_ms = 0; /* the server is back: no reason to wait any longer */
    fw_timer_start(s->silent, QUIET_MS);
    fw_host_opened(s->host, "notify", "live events; a gap after each lost connection", 0);
    watch(s);
    look_soon(s);
}

static void end_start(struct fw_source *s)
{
    char message[PG_MESSAGE_MAX + 64];
    s->mode[0] = '\0';
    if (s->query_failed) {
        snprintf(message, sizeof message, "cannot LISTEN: %s", s->error);
        lose(s, message);
    } else if (s->installed) {
        send_query(s, QUERY_MODE, mode_sql);
    } else {
        opened(s);
    }
}

/* The installed SQL says where fanwire_publish() writes: reading elsewhere would hear nothing. */
static void end_mode(struct fw_source *s)
{
    if (s->query_failed)
        fw_host_log(s->host, FW_LOG_WARNING, "status", "cannot ask public.fanwire_status(): %s",
                    s->error);
    if (s->query_failed || !strcmp(s->mode, "notify")) {
        opened(s);
        return;
    }
    char message[PG_MESSAGE_MAX];
    snprintf(message, sizeof message,
             "the SQL installed in this database is for mode \"%s\", this version reads mode "
             "notify; run: fanwire sql postgres --mode notify | psql …",
             s->mode);
    lose(s, message);
}

/* The server is ready for the next query. */
static void end_query(struct fw_source *s)
{
    enum query query = s->query;
    s->query = QUERY_NONE;
    if (PQstatus(s->link.conn) != CONNECTION_OK)
        s->broken = true; /* read_all() says so when the last notification is taken */
    else if (query == QUERY_START)
        end_start(s);
    else if (query == QUERY_MODE)
        end_mode(s);
    else if (query == QUERY_NAMES && s->query_failed && s->transient)
        lose(s, s->error); /* not the names' fault: everything is tried again */
    else if (query == QUERY_NAMES)
        pg_names_settle(&s->names, !s->query_failed, s->error);
}

/* ---- notifications ---- */

static void append(struct fw_source *s, const PGnotify *notify)
{
    struct pg_envelope envelope = { 0 };
    struct fw_source_event plain = { .channel = notify->relname,
                                     .channel_len = strlen(notify->relname),
                                     .data = notify->extra,
                                     .len = strlen(notify->extra) };
    if (strcmp(notify->relname, "fanwire") != 0) {
        (void)fw_host_append(s->host, &plain);
        return;
    }
    const char *why = pg_envelope_parse(notify->extra, plain.len, &envelope);
    if (why)
        fw_host_refuse_event(s->host, why);
    else
        (void)fw_host_append(s->host, &envelope.event);
    pg_envelope_done(&envelope);
}

static void flush(struct fw_source *s)
{
    if (s->unflushed == 0)
        return;
    s->unflushed = 0;
    if (!fw_host_flush(s->host))
        s->paused = true;
}

static void take_notifications(struct fw_source *s)
{
    PGnotify *notify;
    while (!s->paused && (notify = PQnotifies(s->link.conn))) {
        append(s, notify);
        PQfreemem(notify);
        if (++s->unflushed >= FLUSH_EVERY)
            flush(s);
    }
}

static void take_results(struct fw_source *s)
{
    while (s->state != CLOSED && s->query != QUERY_NONE && !PQisBusy(s->link.conn)) {
        PGresult *result = PQgetResult(s->link.conn);
        if (result)
            take_result(s, result);
        else
            end_query(s);
        PQclear(result);
    }
}

/* Takes what libpq has read, up to a pause. Before `opened`, notifications wait in libpq. */
static void read_all(struct fw_source *s)
{
    take_results(s);
    if (s->state == OPEN)
        take_notifications(s);
    if (s->state == CLOSED)
        return;
    flush(s);
    if (s->broken && !(s->paused && s->state == OPEN))
        lose_by_link(s);
}

static void on_io(void *arg, unsigned events)
{
    struct fw_source *s = arg;
    if (events & FW_READABLE) {
        s->heard_ms = fw_host_now_ms(s->host);
        if (!PQconsumeInput(s->link.conn))
            s->broken = true;
        read_all(s);
    }
    if (s->state == CLOSED)
        return;
    send_names(s);
    if (s->state != CLOSED)
        watch(s);
}

/* ---- timers ---- */

static void on_work(void *arg)
{
    struct fw_source *s = arg;
    if (s->state != OPEN)
        return;
    read_all(s); /* what a pause left in libpq's hands makes no socket readable */
    send_names(s);
    if (s->state == OPEN)
        watch(s);
}

static void on_silence(void *arg)
{
    struct fw_source *s = arg;
    if (s->state == CLOSED || s->state == CONNECTING || (s->state == OPEN && s->paused))
        return;
    int64_t limit = s->query == QUERY_NONE ? QUIET_MS : ANSWER_MS;
    int64_t quiet = fw_host_now_ms(s->host) - s->heard_ms;
    if (quiet < limit)
        fw_timer_start(s->silent, (unsigned)(limit - quiet));
    else if (s->query == QUERY_NONE)
        send_query(s, QUERY_PING, "SELECT 1");
    else
        lose(s, "the server did not answer within 10 s");
}

/* ---- the link ---- */

static void on_connected(void *arg)
{
    struct fw_source *s = arg;
    s->state = STARTING;
    s->broken = false;
    send_query(s, QUERY_START, start_sql);
}

static void on_failed(void *arg, const char *message)
{
    lose(arg, message);
}

static const struct pg_link_events link_events = { on_connected, on_failed, on_io };

/* ---- the names ---- */

static void on_ready(void *arg, const char *name, size_t len)
{
    struct fw_source *s = arg;
    fw_host_ready(s->host, name, len);
}

static void on_refused(void *arg, const char *name, size_t len, const char *message)
{
    struct fw_source *s = arg;
    char line[PG_MESSAGE_MAX];
    fw_host_refused(s->host, name, len, "source-refused", pg_one_line(line, sizeof line, message));
}

/* ---- the class ---- */

static int pg_create(struct fw_host *host, const char *url, struct fw_source **ret,
                     struct fw_error *err)
{
    struct fw_source *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, -ENOMEM, "cannot open the Postgres source: out of memory");
    s->host = host;
    s->sql = buf_make(SQL_MAX);
    int r = pg_url_parse(url, &s->url, err);
    if (r < 0) {
        free(s);
        return r;
    }
    pg_link_init(&s->link, host, &s->url, &link_events, s);
    pg_publisher_init(&s->publisher, host, &s->url);
    pg_names_init(&s->names);
    s->names.on_ready = on_ready;
    s->names.on_refused = on_refused;
    s->names.arg = s;
    if (!s->url.foreign) /* everything comes by way of "fanwire" */
        fw_host_hears_all(host);
    *ret = s;
    return 0;
}

static void warn_of_url(struct fw_source *s)
{
    if (s->warned_url || !s->url.ignored[0])
        return;
    s->warned_url = true;
    fw_host_log(s->host, FW_LOG_WARNING, "url",
                "ignored in the Postgres URL, as other programs' "
                "parameters: %s",
                s->url.ignored);
}

static int make_timers(struct fw_source *s)
{
    int r = s->work ? 0 : fw_host_timer(s->host, on_work, s, &s->work);
    if (r == 0 && !s->silent)
        r = fw_host_timer(s->host, on_silence, s, &s->silent);
    return r;
}

static void pg_open(struct fw_source *s)
{
    if (s->state != CLOSED)
        return;
    warn_of_url(s);
    int r = make_timers(s);
    s->state = CONNECTING;
    if (r == 0)
        r = pg_link_open(&s->link);
    if (r < 0) {
        s->state = CLOSED;
        fw_host_lost(s->host, "connection-lost", strerror(-r));
    }
}

static void pg_subscribe(struct fw_source *s, const char *channel, size_t len)
{
    if (s->state != OPEN)
        return;
    if (pg_names_want(&s->names, channel, len) < 0)
        fw_host_refused(s->host, channel, len, "overloaded", "out of memory");
    else
        look_soon(s); /* all that are asked for in one turn of the loop go out together */
}

static void pg_unsubscribe(struct fw_source *s, const char *channel, size_t len)
{
    if (s->state != OPEN)
        return;
    pg_names_drop(&s->names, channel, len);
    look_soon(s);
}

static void pg_publish(struct fw_source *s, const struct fw_publish *publish)
{
    pg_publisher_send(&s->publisher, publish);
}

static void pg_pause(struct fw_source *s, bool paused)
{
    s->paused = paused;
    if (s->state != OPEN)
        return;
    if (paused) {
        watch(s);
        return;
    }
    s->heard_ms = fw_host_now_ms(s->host);
    fw_timer_start(s->silent, s->query == QUERY_NONE ? QUIET_MS : ANSWER_MS);
    look_soon(s);
}

static void pg_destroy(struct fw_source *s)
{
    if (!s)
        return;
    pg_publisher_done(&s->publisher);
    pg_link_done(&s->link);
    pg_names_reset(&s->names);
    if (s->work)
        fw_timer_free(s->work);
    if (s->silent)
        fw_timer_free(s->silent);
    buf_done(&s->sql);
    pg_url_done(&s->url);
    free(s);
}

const struct fw_source_class source_postgres = {
    .kind = "postgres",
    .schemes = "postgres postgresql postgis",
    .traits = FW_SOURCE_ON_DEMAND,
    .create = pg_create,
    .open = pg_open,
    .subscribe = pg_subscribe,
    .unsubscribe = pg_unsubscribe,
    .publish = pg_publish,
    .pause = pg_pause,
    .destroy = pg_destroy,
};
