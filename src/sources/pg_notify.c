/* Mode notify: LISTEN on the streaming connection.
 *
 * It LISTENs to "fanwire", under which fanwire_publish() and we ourselves send everything with the
 * channel inside an envelope (pg_envelope.c), and on demand to plain names of others (pg_names.c).
 * A channel is ready when the query with its LISTEN has ended.
 *
 * Nothing is durable: a lost connection is a gap, which the hub tells. A quiet connection is asked
 * by SELECT 1; never by NOTIFY, which would take a database-wide lock and write WAL. */
#include "pg_envelope.h"
#include "pg_mode.h"
#include "pg_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTIFY_MAX 7999 /* bytes of payload that pg_notify() takes */
#define SQL_MAX    (PG_NAMES_BATCH * (2 * PG_NAME_MAX + 32))

struct pg_reader {
    struct pg_session *session;
    struct fw_host *host;
    const struct pg_server *server;
    bool warned; /* of a pooler */
    struct pg_names names;
    enum { QUERY_LISTEN, QUERY_NAMES, QUERY_PING } query; /* the one in flight */
    struct buf sql;
};

/* ---- queries ---- */

static void query(struct pg_reader *n, int query, const char *sql)
{
    n->query = query;
    pg_session_query(n->session, sql, PG_ANSWER_MS);
}

static void notify_start(struct pg_reader *n)
{
    if (n->server->pooled && !n->warned) {
        n->warned = true;
        fw_host_log(n->host, FW_LOG_WARNING, "pooler",
                    "the URL seems to lead to a connection pooler, through which LISTEN does not "
                    "work; give fanwire the address of the server itself");
    }
    query(n, QUERY_LISTEN, "LISTEN \"fanwire\"");
}

static void end_listen(struct pg_reader *n)
{
    char message[PG_MESSAGE_MAX + 64];
    if (n->session->failed) {
        snprintf(message, sizeof message, "cannot LISTEN: %s", n->session->error);
        pg_session_lose(n->session, message);
        return;
    }
    pg_session_opened(n->session, pg_notify.name, pg_notify.guarantee, 0);
}

static void end_names(struct pg_reader *n)
{
    if (n->session->failed && n->session->transient)
        pg_session_lose(n->session, n->session->error); /* not the names' fault: all again */
    else
        pg_names_settle(&n->names, !n->session->failed, n->session->error);
}

static void on_ended(void *arg)
{
    struct pg_reader *n = arg;
    if (n->query == QUERY_LISTEN)
        end_listen(n);
    else if (n->query == QUERY_NAMES)
        end_names(n);
}

/* Sends the next batch of LISTEN and UNLISTEN if there is one. */
static void on_idle(void *arg)
{
    struct pg_reader *n = arg;
    if (n->session->state != PG_OPEN)
        return;
    buf_clear(&n->sql);
    unsigned count = pg_names_next(&n->names, n->session->link.conn, &n->sql);
    if (n->sql.failed)
        pg_session_lose(n->session, "out of memory");
    else if (count > 0)
        query(n, QUERY_NAMES, (const char *)n->sql.data);
}

static void on_silent(void *arg)
{
    query(arg, QUERY_PING, "SELECT 1");
}

/* ---- notifications ---- */

/* fanwire_publish() writes elsewhere from now on: another mode was installed. */
static bool tells_of_another_mode(const PGnotify *notify)
{
    return !strcmp(notify->relname, "fanwire") &&
           (!strcmp(notify->extra, "installed") || !strcmp(notify->extra, "outbox"));
}

static void append(struct pg_reader *n, const PGnotify *notify)
{
    struct pg_envelope envelope = { 0 };
    struct fw_source_event plain = { .channel = notify->relname,
                                     .channel_len = strlen(notify->relname),
                                     .data = notify->extra,
                                     .len = strlen(notify->extra) };
    if (strcmp(notify->relname, "fanwire") != 0) {
        (void)fw_host_append(n->host, &plain);
        return;
    }
    const char *why = pg_envelope_parse(notify->extra, plain.len, &envelope);
    if (why)
        fw_host_refuse_event(n->host, why);
    else
        (void)fw_host_append(n->host, &envelope.event);
    pg_envelope_done(&envelope);
}

/* Before the hub knows, notifications wait in libpq. */
static void on_input(void *arg)
{
    struct pg_reader *n = arg;
    PGnotify *notify;
    bool go_on = n->session->state == PG_OPEN && !n->session->paused;
    while (go_on && (notify = PQnotifies(n->session->link.conn))) {
        bool other = tells_of_another_mode(notify);
        size_t len = strlen(notify->extra);
        if (!other)
            append(n, notify);
        PQfreemem(notify);
        go_on = !other && pg_session_appended(n->session, len);
        if (other)
            pg_session_lose(n->session, "another mode was installed: asking again");
    }
}

/* ---- the names ---- */

static void on_ready(void *arg, const char *name, size_t len)
{
    struct pg_reader *n = arg;
    fw_host_ready(n->host, name, len);
}

static void on_refused(void *arg, const char *name, size_t len, const char *message)
{
    struct pg_reader *n = arg;
    char line[PG_MESSAGE_MAX];
    fw_host_refused(n->host, name, len, "source-refused", pg_one_line(line, sizeof line, message));
}

static void notify_subscribe(struct pg_reader *n, const char *channel, size_t len)
{
    if (pg_names_want(&n->names, channel, len) < 0)
        fw_host_refused(n->host, channel, len, "overloaded", "out of memory");
    else
        pg_session_look_soon(n->session); /* all of one turn of the loop go out together */
}

static void notify_unsubscribe(struct pg_reader *n, const char *channel, size_t len)
{
    pg_names_drop(&n->names, channel, len);
    pg_session_look_soon(n->session);
}

/* ---- the mode ---- */

static struct pg_reader *notify_create(struct pg_session *session, const struct pg_server *server,
                                       const struct pg_url *url)
{
    struct pg_reader *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->session = session;
    n->host = session->host;
    n->server = server;
    n->sql = buf_make(SQL_MAX);
    pg_names_init(&n->names);
    n->names.on_ready = on_ready;
    n->names.on_refused = on_refused;
    n->names.arg = n;
    return n;
}

static void notify_lost(struct pg_reader *n)
{
    pg_names_reset(&n->names);
}

static void notify_destroy(struct pg_reader *n)
{
    pg_names_reset(&n->names);
    buf_done(&n->sql);
    free(n);
}

/* A notification does not survive a crash of the server anyway (its readers are told a gap), so its
 * commit need not wait for the disk. Local to the statement: a pooler's other users never see it.
 */
#define PUBLISH_SQL                                                                                \
    "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), "                            \
    "pg_catalog.pg_notify('fanwire', $1)"

const struct pg_mode pg_notify = {
    .name = "notify",
    .guarantee = "live events; a gap after each lost connection",
    .traits = FW_SOURCE_ON_DEMAND,
    .publish = { .sql = PUBLISH_SQL,
                 .max = NOTIFY_MAX,
                 .too_large = "the event with its envelope is larger than the 7999 bytes that "
                              "Postgres takes in notify mode; use mode=outbox or mode=wal where "
                              "available, or publish a reference and let readers fetch" },
    .events = { .ended = on_ended, .input = on_input, .idle = on_idle, .silent = on_silent },
    .create = notify_create,
    .destroy = notify_destroy,
    .start = notify_start,
    .lost = notify_lost,
    .subscribe = notify_subscribe,
    .unsubscribe = notify_unsubscribe,
};
