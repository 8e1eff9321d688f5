/* Mode outbox: the table fanwire.outbox, read in the order of transactions (pg_outbox_rows.c), when
 * pg_outbox_pace.c says so.
 *
 * LISTEN comes first where it works: what is committed after it is announced, what was before is
 * read at once. Then the outbox is asked which one it is. If the log holds its stream, reading goes
 * on after the log's newest position; else the newest rows that fit into three quarters of the log
 * are its history.
 *
 * A position that this outbox has never given, or that lies in the future, means that an older copy
 * of the database was put back: the outbox gets a new id (fanwire.renew_outbox()), and so everybody
 * a gap. One that was pruned meanwhile lies below the floor: a gap up to the floor. An outbox that
 * has become another one under way loses the connection, and is begun anew by the next.
 *
 * Every read bounds itself, so the result is appended wholly even if readers ask for a pause.
 *
 * A row whose text has no form in UTF-8 (fanwire_publish() refuses it; in a database of another
 * encoding, who writes the table itself can) fails the read that comes to it. It is repeated with
 * each row looked at first, which takes longer: such a row is refused, the others are told. */
#include "pg_holder.h"
#include "pg_mode.h"
#include "pg_outbox_pace.h"
#include "pg_outbox_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY_MS    60000 /* the server may look through all rows */
#define PRUNE_MS      1000
#define PRUNE_IDLE_MS 5000
#define PRUNE_MORE_MS 20
#define HELD_TELL_MS  1000 /* a shorter wait is everyday */
#define REPEAT_MS     60000
#define RIGHTS_MAX    400

#define INSTALL "fanwire sql postgres --mode outbox | psql -1 -v ON_ERROR_STOP=1 \"$DATABASE_URL\""

struct pg_reader {
    struct pg_session *session;
    struct fw_host *host;
    const struct pg_server *server;
    const struct pg_url *url;
    struct fw_timer *timer; /* to the next read or pruning */
    struct outbox_pace pace;
    struct outbox_start start;
    struct outbox_rows rows; /* of the last read */
    uint64_t identity, pos[2];
    const char *replaced; /* why the last read was of another outbox; NULL: it was not */
    bool known, renewed;  /* the log's position is of this outbox; it was renewed in this session */
    bool placed;          /* the floor of the history was found */
    bool prunes, kept;    /* may remove old rows; has said how old */
    int64_t prune_ms, held_told_ms, gap_told_ms;
    bool told_poll, told_rights;
    bool judge; /* the rows one by one: in the next read is one that cannot be sent */
    enum {
        QUERY_LISTEN,
        QUERY_START,
        QUERY_KEEP,
        QUERY_KNOWN,
        QUERY_RENEW,
        QUERY_FLOOR,
        QUERY_ROWS,
        QUERY_HOLDER,
        QUERY_PRUNE
    } query;
    char sql[OUTBOX_SQL_MAX];
};

static bool is_open(const struct pg_reader *o)
{
    return o->session->state == PG_OPEN;
}

static bool listens(const struct pg_reader *o)
{
    return !o->server->pooled && !o->server->standby;
}

static void tell_poll(struct pg_reader *o, enum fw_log_level level, const char *why)
{
    if (!o->told_poll)
        fw_host_log(o->host, level, "polling", "%s: the outbox is polled", why);
    o->told_poll = true;
}

static void query(struct pg_reader *o, int query, const char *sql, unsigned answer_ms)
{
    o->query = query;
    pg_session_query(o->session, sql, answer_ms);
}

/* ---- refusals ---- */

static const char *grants(const struct pg_reader *o, char *out, size_t size)
{
    char *role = PQescapeIdentifier(o->session->link.conn, PQuser(o->session->link.conn),
                                    strlen(PQuser(o->session->link.conn)));
    snprintf(out, size,
             "GRANT SELECT, INSERT, DELETE ON fanwire.outbox TO %.132s; "
             "GRANT SELECT, UPDATE ON fanwire.outbox_state TO %.132s",
             role ? role : "…", role ? role : "…");
    if (role)
        PQfreemem(role);
    return out;
}

/* What failed may go away, or somebody has to act. */
static void fail(struct pg_reader *o)
{
    char message[2 * PG_MESSAGE_MAX], rights[RIGHTS_MAX];
    const struct pg_session *s = o->session;
    if (s->transient) {
        pg_session_lose(o->session, s->error);
        return;
    }
    if (!strcmp(s->sqlstate, "42501"))
        snprintf(message, sizeof message, "the outbox cannot be read: %.200s; as its owner: %s",
                 s->error, grants(o, rights, sizeof rights));
    else if (!strcmp(s->sqlstate, "42P01") || !strcmp(s->sqlstate, "42883") ||
             !strcmp(s->sqlstate, "42703") || !strcmp(s->sqlstate, "3F000"))
        snprintf(message, sizeof message,
                 "the outbox is not there, or not whole: %.200s; install it: " INSTALL, s->error);
    else
        snprintf(message, sizeof message, "the outbox cannot be read: %s", s->error);
    pg_session_misconfigured(o->session, message);
}

static void tell_rights(struct pg_reader *o)
{
    char rights[RIGHTS_MAX];
    bool all = o->start.may_publish && (o->start.may_prune || !o->prunes);
    if (o->told_rights || o->server->standby || all)
        return;
    o->told_rights = true;
    fw_host_log(o->host, FW_LOG_WARNING, "rights",
                "this role may read the outbox, but not %s; as its owner: %s",
                o->start.may_publish ? "remove what is old" : "publish",
                grants(o, rights, sizeof rights));
}

/* ---- the start ---- */

static void on_timer(void *arg)
{
    struct pg_reader *o = arg;
    if (is_open(o))
        pg_session_look_soon(o->session);
}

static void ask_start(struct pg_reader *o)
{
    query(o, QUERY_START, outbox_start_sql, PG_ANSWER_MS);
}

static void outbox_start(struct pg_reader *o)
{
    if (!o->timer && fw_host_timer(o->host, on_timer, o, &o->timer) < 0) {
        pg_session_lose(o->session, "out of memory");
        return;
    }
    o->renewed = false;
    o->prunes = !o->server->standby;
    if (listens(o))
        query(o, QUERY_LISTEN, "LISTEN \"fanwire\"", PG_ANSWER_MS);
    else
        ask_start(o);
}

static void read_rows(struct pg_reader *o)
{
    outbox_pace_sent(&o->pace);
    query(o, QUERY_ROWS, outbox_rows_sql(o->sql, o->pos, fw_host_event_max(o->host), o->judge),
          PG_ANSWER_MS);
}

static void go_live(struct pg_reader *o)
{
    int64_t now = fw_host_now_ms(o->host);
    outbox_pace_start(&o->pace, listens(o), now);
    if (!listens(o))
        tell_poll(o, FW_LOG_INFO,
                  o->server->standby ? "a standby has no LISTEN"
                                     : "LISTEN does not work through a connection pooler");
    o->prune_ms = now + PRUNE_MS;
    pg_session_opened(o->session, pg_outbox.name, pg_outbox.guarantee, o->identity);
}

/* An older copy of the database was put back: its events are others under the same positions. */
static void renew(struct pg_reader *o)
{
    if (o->renewed) {
        pg_session_lose(o->session, "the outbox has been renewed, and does not match again");
        return;
    }
    o->renewed = true;
    fw_host_log(o->host, FW_LOG_WARNING, "restored",
                "the outbox does not hold what was read from it (an older copy was restored?): its "
                "events begin anew, and every client is told a gap");
    query(o, QUERY_RENEW, outbox_renew_sql(o->sql, &o->start.state), PG_ANSWER_MS);
}

static void end_start(struct pg_reader *o)
{
    if (!o->start.there) {
        pg_session_misconfigured(o->session,
                                 "the table fanwire.outbox_state is empty; fill it: " INSTALL);
        return;
    }
    tell_rights(o);
    o->prunes = o->prunes && o->start.may_prune;
    if (o->url->keep_given && o->prunes && !o->kept) {
        o->kept = true; /* once: another server may be told otherwise */
        query(o, QUERY_KEEP, outbox_keep_sql(o->sql, o->url->keep_ms), PG_ANSWER_MS);
        return;
    }
    o->identity = pg_identity(o->server, pg_outbox.name, o->start.state.id);
    bool goes_on = fw_host_continue(o->host, o->identity, o->pos);
    if (o->start.overtaken || (goes_on && o->pos[0] >= o->start.next_xid))
        renew(o);
    else if (goes_on)
        query(o, QUERY_KNOWN, outbox_known_sql(o->sql, o->pos), PG_ANSWER_MS);
    else
        query(o, QUERY_FLOOR, outbox_floor_sql(o->sql, (uint64_t)fw_host_event_max(o->host) * 12),
              HISTORY_MS); /* an event is 1/16 of the log at most: three quarters */
}

static void begin_history(struct pg_reader *o)
{
    if (!o->placed)
        memcpy(o->pos, o->start.state.floor, sizeof o->pos);
    fw_host_begin(o->host, o->identity, o->pos);
    read_rows(o);
}

/* ---- rows ---- */

static void tell_gap(struct pg_reader *o)
{
    int64_t now = fw_host_now_ms(o->host);
    fw_host_gap(o->host, "expired", o->pos, !is_open(o));
    if (o->gap_told_ms && now - o->gap_told_ms < REPEAT_MS)
        return;
    o->gap_told_ms = now;
    fw_host_log(o->host, FW_LOG_WARNING, "rows-missing",
                "rows of the outbox up to (%llu, %llu) were pruned before they were read: a gap; "
                "keep them longer: keep-for=",
                (unsigned long long)o->pos[0], (unsigned long long)o->pos[1]);
}

static bool before(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] < b[0] || (a[0] == b[0] && a[1] < b[1]);
}

static void append(struct pg_reader *o, const PGresult *result, unsigned i)
{
    struct fw_source_event event;
    void *decoded;
    const char *why = outbox_read_event(result, i, &event, &decoded);
    event.history = !is_open(o);
    memcpy(o->pos, event.pos, sizeof o->pos);
    if (why)
        fw_host_refuse_event(o->host, why);
    else
        (void)fw_host_append(o->host, &event);
    free(decoded);
    (void)pg_session_appended(o->session, event.len); /* what is in the result is taken */
}

static const char *mode_of(const struct outbox_state *state)
{
    const char *slash = strrchr(state->id, '/');
    return slash ? slash + 1 : "";
}

/* Why this is not what was begun with any more, or NULL. */
static const char *why_replaced(const struct pg_reader *o)
{
    if (o->rows.standby != o->server->standby)
        return "the standby has become a primary: its events begin anew";
    if (strcmp(o->rows.state.id, o->start.state.id) == 0)
        return NULL;
    if (strcmp(mode_of(&o->rows.state), mode_of(&o->start.state)) != 0)
        return "the SQL of another mode was installed: asking again";
    return "the outbox was emptied by hand, or made anew: its events begin anew";
}

static void take_rows(struct pg_reader *o, const PGresult *result)
{
    outbox_read_rows(result, &o->rows);
    o->replaced = why_replaced(o);
    o->judge = false;
    if (o->replaced)
        return;
    if (before(o->pos, o->rows.state.floor)) {
        memcpy(o->pos, o->rows.state.floor, sizeof o->pos);
        tell_gap(o);
    }
    for (unsigned i = 0; i < o->rows.n; i++)
        append(o, result, i);
}

static void end_live_rows(struct pg_reader *o)
{
    struct outbox_found found = { .rows = o->rows.n > 0,
                                  .more = o->rows.more,
                                  .held = o->rows.held_ms > 0 };
    fw_host_gauge(o->host, FW_GAUGE_LAG_MS, o->rows.held_ms);
    if (outbox_pace_took(&o->pace, &found, fw_host_now_ms(o->host)))
        tell_poll(o, FW_LOG_WARNING,
                  "events come that no NOTIFY has announced (fanwire.notify = off, or a pooler "
                  "in between)");
}

static void end_rows(struct pg_reader *o)
{
    if (o->replaced)
        pg_session_lose(o->session, o->replaced);
    else if (is_open(o))
        end_live_rows(o);
    else if (o->rows.more)
        read_rows(o);
    else
        go_live(o);
}

/* ---- the horizon ---- */

static bool holder_due(const struct pg_reader *o, int64_t now)
{
    return o->rows.held_ms >= HELD_TELL_MS &&
           (!o->held_told_ms || now - o->held_told_ms >= REPEAT_MS);
}

static void take_holder(struct pg_reader *o, const PGresult *result)
{
    char who[PG_MESSAGE_MAX];
    if (pg_holder_read(result, who, sizeof who))
        fw_host_log(o->host, FW_LOG_WARNING, "held-back",
                    "events wait, the oldest for %llu ms, until an older transaction that writes "
                    "ends: %s",
                    (unsigned long long)o->rows.held_ms, who);
}

/* ---- pruning ---- */

static void take_pruned(struct pg_reader *o, const PGresult *result)
{
    int64_t now = fw_host_now_ms(o->host);
    uint64_t removed = outbox_read_number(result, "removed");
    fw_host_gauge(o->host, FW_GAUGE_RETAINED_BYTES, outbox_read_number(result, "bytes"));
    if (removed >= OUTBOX_PRUNE_ROWS)
        o->prune_ms = now + PRUNE_MORE_MS;
    else
        o->prune_ms = now + (removed > 0 ? PRUNE_MS : PRUNE_IDLE_MS);
}

static void end_prune(struct pg_reader *o)
{
    if (!o->session->failed)
        return;
    o->prune_ms = fw_host_now_ms(o->host) + PRUNE_IDLE_MS;
    if (o->session->transient)
        return;
    o->prunes = false;
    fw_host_log(o->host, FW_LOG_WARNING, "prune-failed", "old events are not removed: %s",
                o->session->error);
}

/* ---- the session ---- */

static void on_result(void *arg, const PGresult *result)
{
    struct pg_reader *o = arg;
    if (o->query == QUERY_START)
        outbox_read_start(result, &o->start);
    else if (o->query == QUERY_KNOWN)
        o->known = PQntuples(result) > 0 && PQgetvalue(result, 0, 0)[0] == 't';
    else if (o->query == QUERY_FLOOR)
        o->placed = outbox_read_position(result, o->pos);
    else if (o->query == QUERY_ROWS)
        take_rows(o, result);
    else if (o->query == QUERY_HOLDER)
        take_holder(o, result);
    else if (o->query == QUERY_PRUNE)
        take_pruned(o, result);
}

static void end_answered(struct pg_reader *o)
{
    switch (o->query) {
    case QUERY_LISTEN:
    case QUERY_RENEW:
    case QUERY_KEEP:
        ask_start(o);
        break;
    case QUERY_START:
        end_start(o);
        break;
    case QUERY_KNOWN:
        if (o->known)
            go_live(o);
        else
            renew(o);
        break;
    case QUERY_FLOOR:
        begin_history(o);
        break;
    case QUERY_ROWS:
        end_rows(o);
        break;
    default:
        break;
    }
}

static void on_ended(void *arg)
{
    struct pg_reader *o = arg;
    if (o->query == QUERY_PRUNE) {
        end_prune(o);
    } else if (o->query == QUERY_ROWS && pg_session_lacks_utf8(o->session) && !o->judge) {
        o->judge = true;
        read_rows(o);
    } else if (o->session->failed && o->query != QUERY_HOLDER) {
        fail(o);
    } else {
        end_answered(o);
    }
}

/* Under the name "fanwire" everything is a wake-up, whatever it says. */
static void on_input(void *arg)
{
    struct pg_reader *o = arg;
    for (PGnotify *notify; (notify = PQnotifies(o->session->link.conn));) {
        outbox_pace_heard(&o->pace);
        PQfreemem(notify);
    }
}

static void sleep_until_due(struct pg_reader *o, int64_t now)
{
    int64_t ms = outbox_pace_wait(&o->pace, now);
    if (o->prunes && o->prune_ms - now < ms)
        ms = o->prune_ms - now;
    fw_timer_start(o->timer, ms > 0 ? (unsigned)ms : 0);
}

static void on_idle(void *arg)
{
    struct pg_reader *o = arg;
    int64_t now = fw_host_now_ms(o->host);
    if (!is_open(o) || o->session->paused)
        return;
    if (outbox_pace_wait(&o->pace, now) <= 0) {
        read_rows(o);
    } else if (holder_due(o, now)) {
        o->held_told_ms = now;
        query(o, QUERY_HOLDER, pg_holder_sql(o->sql, sizeof o->sql), PG_ANSWER_MS);
    } else if (o->prunes && now >= o->prune_ms) {
        query(o, QUERY_PRUNE, outbox_prune_sql, HISTORY_MS);
    } else {
        sleep_until_due(o, now);
    }
}

/* ---- snapshots ---- */

static bool outbox_reached(const struct pg_reader *o, const uint64_t place[2])
{
    return is_open(o) && !before(o->pos, place);
}

static void outbox_floor(const struct pg_reader *o, uint64_t xid, uint64_t ret_pos[2])
{
    (void)o;
    ret_pos[0] = xid;
    ret_pos[1] = 0;
}

/* ---- the mode ---- */

static struct pg_reader *outbox_create(struct pg_session *session, const struct pg_server *server,
                                       const struct pg_url *url)
{
    struct pg_reader *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    *o = (struct pg_reader){
        .session = session, .host = session->host, .server = server, .url = url
    };
    return o;
}

static void outbox_lost(struct pg_reader *o)
{
    fw_host_gauge(o->host, FW_GAUGE_LAG_MS, 0);
    if (o->timer)
        fw_timer_stop(o->timer);
    o->rows = (struct outbox_rows){ 0 };
}

static void outbox_destroy(struct pg_reader *o)
{
    if (o->timer)
        fw_timer_free(o->timer);
    free(o);
}

const struct pg_mode pg_outbox = {
    .name = "outbox",
    .guarantee = "every committed event once, in one order on all servers, across restarts",
    .traits = FW_SOURCE_DURABLE | FW_SOURCE_ORDERED,
    .needs_sql = true,
    .publish = { .sql = "SELECT e.xid, e.id FROM fanwire.publish_event($1) e",
                 .position = outbox_read_position },
    .join = { .sql = "SELECT o.xid, o.id FROM fanwire.outbox o ORDER BY o.xid DESC, o.id DESC "
                     "LIMIT 1",
              .place = outbox_read_position,
              .reached = outbox_reached,
              .floor = outbox_floor },
    .events = { .result = on_result, .ended = on_ended, .input = on_input, .idle = on_idle },
    .create = outbox_create,
    .destroy = outbox_destroy,
    .start = outbox_start,
    .lost = outbox_lost,
};
