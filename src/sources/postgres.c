/* The Postgres source: connects, asks what is installed, and lets a mode read (pg_mode.h).
 *
 * mode=auto, the default, obeys the SQL that is installed in the database (fanwire_status()), each
 * time it connects anew: nothing installed means notify. A mode that the URL names must not
 * contradict it, for fanwire_publish() would write where nobody reads: that is said with the
 * command that mends it, and looked at again until somebody has. */
#include "error.h"
#include "pg_mode.h"
#include "pg_switch.h"
#include "siphash.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The modes of this build. */
static const struct pg_mode *const modes[] = {
    &pg_notify,
    &pg_outbox,
    &pg_wal,
};

/* Asks what the connection is good for. Servers that end idle sessions (14 and later) must not end
 * this one. Those of SQL_ASCII would look whether what they send is UTF-8, and break off where it
 * is not. */
static const char server_sql[] =
    "SELECT pg_catalog.pg_backend_pid() AS pid, "
    "pg_catalog.current_setting('server_encoding') AS encoding, "
    "pg_catalog.current_setting('wal_level') AS wal_level, "
    "pg_catalog.pg_is_in_recovery() AS standby, "
    "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
    "AS database, "
    "EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n "
    "ON n.oid = p.pronamespace WHERE n.nspname = 'public' AND p.proname = 'fanwire_status') "
    "AS installed;"
    "SELECT pg_catalog.set_config('idle_session_timeout', '0', false) "
    "WHERE pg_catalog.current_setting('idle_session_timeout', true) IS NOT NULL;"
    "SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) "
    "WHERE pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'";
static const char status_sql[] = "SELECT * FROM public.fanwire_status()";
/* Any role may call these, unless somebody has taken the right away. A standby has no WAL position
 * of its own, and a primary's control file learns of a new timeline late. */
static const char identity_sql[] =
    "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system, "
    "CASE WHEN pg_catalog.pg_is_in_recovery() "
    "THEN (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()) "
    "ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), "
    "1, 8))::bit(32)::integer END AS timeline";

#define PSQL "psql -1 -v ON_ERROR_STOP=1 \"$DATABASE_URL\""

struct fw_source {
    struct fw_host *host;
    struct pg_url url;
    struct pg_session session;
    struct pg_publisher publisher;
    struct pg_snapshot snapshot;
    struct pg_server server;
    const struct pg_mode *mode; /* NULL: not known yet */
    struct pg_reader *reader;   /* of the mode */
    bool reading;               /* the session is the reader's */
    enum { ASK_SERVER, ASK_STATUS, ASK_SWITCH, ASK_IDENTITY } asking;
    struct pg_switch sw;
    struct fw_timer *timer; /* to the next question of the switch */
    bool waits;             /* its answer */
    bool by_sql;            /* the mode that is read, or was, was that of installed SQL */
    bool warned_url, warned_encoding;
};

/* ---- the modes ---- */

static const struct pg_mode *find_mode(const char *name)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(modes[i]->name, name))
            return modes[i];
    return NULL;
}

static const char *list_modes(char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0, at = 0; i < sizeof modes / sizeof *modes && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", modes[i]->name);
    return out;
}

static void drop_mode(struct fw_source *s)
{
    if (s->reader)
        s->mode->destroy(s->reader);
    s->reader = NULL;
    s->mode = NULL;
}

/* Returns 0 or -ENOMEM. */
static int use_mode(struct fw_source *s, const struct pg_mode *mode)
{
    if (mode != s->mode) {
        drop_mode(s);
        s->reader = mode->create(&s->session, &s->server, &s->url);
        if (!s->reader)
            return -ENOMEM;
        s->mode = mode;
        unsigned traits = mode->traits;
        if (!s->url.foreign) /* everything comes by way of "fanwire" */
            traits &= ~(unsigned)FW_SOURCE_ON_DEMAND;
        fw_host_traits(s->host, traits);
    }
    pg_publisher_use(&s->publisher, &mode->publish);
    return 0;
}

uint64_t pg_identity(const struct pg_server *server, const char *mode, const char *more)
{
    static const uint64_t key[2] = { 0x66616e77697265, 0x706f737467726573 }; /* the same anywhere */
    char text[256];
    int len = snprintf(text, sizeof text, "%llu %u %u %s %s", (unsigned long long)server->system,
                       server->timeline, server->database, mode, more);
    size_t used = len < 0 ? 0 : (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
    uint64_t hash = siphash(key, text, used);
    return hash ? hash : 1;
}

/* ---- what the server says ---- */

/* By name: another version of the installed SQL may have more columns, or fewer. */
static const char *column(const PGresult *result, const char *name)
{
    int i = PQfnumber(result, name);
    return i < 0 || PQntuples(result) == 0 ? "" : PQgetvalue(result, 0, i);
}

static uint64_t number(const PGresult *result, const char *name)
{
    uint64_t value = 0;
    (void)parse_uint(column(result, name), UINT64_MAX, &value);
    return value;
}

static void take_server(struct fw_source *s, const PGresult *result)
{
    struct pg_server *server = &s->server;
    server->installed = column(result, "installed")[0] == 't';
    server->pooled = (int)number(result, "pid") != PQbackendPID(s->session.link.conn);
    server->standby = column(result, "standby")[0] == 't';
    server->database = (uint32_t)number(result, "database");
    snprintf(server->wal_level, sizeof server->wal_level, "%s", column(result, "wal_level"));
    server->sql_ascii = !strcmp(column(result, "encoding"), "SQL_ASCII");
    if (!s->warned_encoding && server->sql_ascii) {
        s->warned_encoding = true;
        fw_host_log(s->host, FW_LOG_WARNING, "encoding",
                    "the database's encoding is SQL_ASCII: fanwire_publish() takes UTF-8 only; of "
                    "rows and plain NOTIFY, names that are not UTF-8 are refused");
    }
}

static void on_result(void *arg, const PGresult *result)
{
    struct fw_source *s = arg;
    if (s->asking == ASK_SERVER && PQfnumber(result, "pid") >= 0) {
        take_server(s, result);
    } else if (s->asking == ASK_STATUS) {
        s->server.sql_version = (unsigned)number(result, "version");
        snprintf(s->server.mode, sizeof s->server.mode, "%s", column(result, "mode"));
        snprintf(s->server.slot, sizeof s->server.slot, "%s", column(result, "slot"));
    } else if (s->asking == ASK_SWITCH) {
        pg_switch_take(&s->sw, result, &s->waits);
    } else if (s->asking == ASK_IDENTITY) {
        s->server.system = number(result, "system");
        s->server.timeline = (uint32_t)number(result, "timeline");
    }
}

/* ---- which mode ---- */

/* The mode to read in; NULL: the session is closed and the reason told. */
static const struct pg_mode *choose(struct fw_source *s)
{
    char message[2 * PG_MESSAGE_MAX], known[64];
    const char *installed = s->server.mode, *named = s->url.mode;
    const char *wanted = named[0] ? named : installed[0] ? installed : "notify";
    const struct pg_mode *mode = find_mode(wanted);
    if (installed[0] && strcmp(installed, wanted) != 0)
        snprintf(message, sizeof message,
                 "mode=%s was asked for, but the SQL installed in this database is for mode "
                 "\"%s\"; leave mode= and --mode out, or install the other: fanwire sql postgres "
                 "--mode %s | " PSQL,
                 wanted, installed, wanted);
    else if (!mode)
        snprintf(message, sizeof message,
                 "the SQL installed in this database is for mode \"%s\", which this fanwire does "
                 "not read (it has: %s); use a newer one, or install other SQL: fanwire sql "
                 "postgres | " PSQL,
                 installed, list_modes(known, sizeof known));
    else if (mode->needs_sql && !installed[0])
        snprintf(message, sizeof message,
                 "mode=%s needs fanwire's SQL in this database; install it: fanwire sql postgres "
                 "--mode %s | " PSQL,
                 wanted, wanted);
    else
        return mode;
    pg_session_misconfigured(&s->session, message);
    return NULL;
}

static void ask(struct fw_source *s, int asking, const char *sql)
{
    s->asking = asking;
    pg_session_query(&s->session, sql, PG_ANSWER_MS);
}

static void start_mode(struct fw_source *s)
{
    s->reading = true;
    pg_session_hand_over(&s->session, &s->mode->events, s->reader);
    s->mode->start(s->reader);
}

static void ask_identity(struct fw_source *s)
{
    if (s->mode->traits & FW_SOURCE_ORDERED)
        ask(s, ASK_IDENTITY, identity_sql);
    else
        start_mode(s);
}

static void ask_switch(struct fw_source *s)
{
    char sql[PG_SWITCH_SQL_MAX];
    s->waits = false;
    ask(s, ASK_SWITCH, pg_switch_sql(&s->sw, sql, sizeof sql));
}

static void on_timer(void *arg)
{
    ask_switch(arg);
}

/* Where it cannot be asked (an earlier form, a right taken away), it is not waited for. */
static void end_switch(struct fw_source *s)
{
    if (s->session.failed && s->session.transient)
        pg_session_lose(&s->session, s->session.error);
    else if (s->waits && !s->session.failed)
        fw_timer_start(s->timer, pg_switch_delay_ms(&s->sw));
    else
        ask_identity(s);
}

static void choose_mode(struct fw_source *s)
{
    const struct pg_mode *mode = choose(s);
    if (!mode)
        return;
    bool changed = s->by_sql && mode != s->mode;
    if (use_mode(s, mode) < 0 ||
        (!s->timer && fw_host_timer(s->host, on_timer, s, &s->timer) < 0)) {
        pg_session_lose(&s->session, "out of memory");
        return;
    }
    s->by_sql = s->server.mode[0];
    pg_switch_begin(&s->sw, s->host, changed);
    if (s->server.installed)
        ask_switch(s);
    else
        ask_identity(s);
}

static void end_server(struct fw_source *s)
{
    char message[PG_MESSAGE_MAX + 64];
    if (s->session.failed) {
        snprintf(message, sizeof message, "cannot ask the server: %s", s->session.error);
        pg_session_lose(&s->session, message);
    } else if (s->server.installed) {
        ask(s, ASK_STATUS, status_sql);
    } else {
        choose_mode(s);
    }
}

static void end_status(struct fw_source *s)
{
    if (s->session.failed && s->session.transient) {
        pg_session_lose(&s->session, s->session.error);
        return;
    }
    if (s->session.failed)
        fw_host_log(s->host, FW_LOG_WARNING, "status", "cannot ask public.fanwire_status(): %s",
                    s->session.error);
    choose_mode(s);
}

/* What the role may not ask stays unknown. */
static void end_identity(struct fw_source *s)
{
    if (s->session.failed && s->session.transient)
        pg_session_lose(&s->session, s->session.error);
    else
        start_mode(s);
}

static void on_ended(void *arg)
{
    struct fw_source *s = arg;
    if (s->asking == ASK_SERVER)
        end_server(s);
    else if (s->asking == ASK_STATUS)
        end_status(s);
    else if (s->asking == ASK_SWITCH)
        end_switch(s);
    else
        end_identity(s);
}

static void on_connected(void *arg)
{
    struct fw_source *s = arg;
    s->server = (struct pg_server){ 0 };
    ask(s, ASK_SERVER, server_sql);
}

static const struct pg_session_events asking_events = {
    .connected = on_connected,
    .result = on_result,
    .ended = on_ended,
};

/* ---- the session ---- */

static void on_opened(void *arg)
{
    struct fw_source *s = arg;
    s->publisher.retry_ms = 0; /* the server is back: no reason to wait any longer */
}

static void on_lost(void *arg, const char *message, bool misconfigured)
{
    struct fw_source *s = arg;
    pg_snapshot_cancel(&s->snapshot);
    if (s->timer)
        fw_timer_stop(s->timer);
    if (s->reading && s->mode->lost)
        s->mode->lost(s->reader);
    s->reading = false;
    if (misconfigured || !s->mode)
        pg_publisher_block(&s->publisher, message);
    if (misconfigured)
        fw_host_misconfigured(s->host, message);
    else
        fw_host_lost(s->host, "connection-lost", message);
}

static const struct pg_session_owner session_owner = { .opened = on_opened, .lost = on_lost };

/* ---- the class ---- */

static void pg_destroy(struct fw_source *s)
{
    if (!s)
        return;
    pg_snapshot_done(&s->snapshot);
    pg_publisher_done(&s->publisher);
    pg_session_done(&s->session);
    if (s->timer)
        fw_timer_free(s->timer);
    drop_mode(s);
    pg_url_done(&s->url);
    free(s);
}

/* A mode that the URL names is known from the start. */
static int take_mode(struct fw_source *s, struct fw_error *err)
{
    char known[64];
    const struct pg_mode *mode = find_mode(s->url.mode);
    if (!s->url.mode[0]) /* the class's traits, until it is known */
        return 0;
    if (!mode)
        return error_set(err, -EINVAL, "mode=%s is not in this build of fanwire; it has: %s",
                         s->url.mode, list_modes(known, sizeof known));
    if (use_mode(s, mode) < 0)
        return error_set(err, -ENOMEM, "cannot open the Postgres source: out of memory");
    return 0;
}

static int pg_create(struct fw_host *host, const char *url, struct fw_source **ret,
                     struct fw_error *err)
{
    struct fw_source *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, -ENOMEM, "cannot open the Postgres source: out of memory");
    s->host = host;
    int r = pg_url_parse(url, &s->url, err);
    if (r < 0) {
        free(s);
        return r;
    }
    pg_session_init(&s->session, host, &s->url, &session_owner, s);
    pg_publisher_init(&s->publisher, host, &s->url);
    pg_snapshot_init(&s->snapshot, host, &s->url);
    r = take_mode(s, err);
    if (r < 0) {
        pg_destroy(s);
        return r;
    }
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

static void pg_open(struct fw_source *s)
{
    if (s->session.state != PG_CLOSED)
        return;
    warn_of_url(s);
    pg_session_hand_over(&s->session, &asking_events, s);
    pg_session_open(&s->session);
}

static void pg_subscribe(struct fw_source *s, const char *channel, size_t len)
{
    if (s->session.state == PG_OPEN)
        s->mode->subscribe(s->reader, channel, len);
}

static void pg_unsubscribe(struct fw_source *s, const char *channel, size_t len)
{
    if (s->session.state == PG_OPEN)
        s->mode->unsubscribe(s->reader, channel, len);
}

static void pg_publish(struct fw_source *s, const struct fw_publish *publish)
{
    pg_publisher_send(&s->publisher, publish, 1);
}

static void pg_publish_batch(struct fw_source *s, const struct fw_publish *events, size_t n)
{
    pg_publisher_send(&s->publisher, events, n);
}

/* A standby does not list the transactions that are open on its primary. */
static void pg_ask_snapshot(struct fw_source *s, uint64_t request, const char *sql)
{
    if (s->server.standby && s->mode->join.sql)
        fw_host_snapshot_refused(s->host, request, "source-refused",
                                 "rows can be joined to events on the primary only, and this "
                                 "server is a standby");
    else
        pg_snapshot_ask(&s->snapshot, &s->mode->join, s->reader, request, sql);
}

static void pg_pause(struct fw_source *s, bool paused)
{
    pg_session_pause(&s->session, paused);
}

const struct fw_source_class source_postgres = {
    .kind = "postgres",
    .schemes = "postgres postgresql postgis",
    .traits = FW_SOURCE_ON_DEMAND, /* until the mode is known */
    .create = pg_create,
    .open = pg_open,
    .subscribe = pg_subscribe,
    .unsubscribe = pg_unsubscribe,
    .publish = pg_publish,
    .publish_batch = pg_publish_batch,
    .pause = pg_pause,
    .snapshot = pg_ask_snapshot,
    .destroy = pg_destroy,
};
