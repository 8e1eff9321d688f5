/* Mode wal: the write-ahead log, decoded by a replication slot (pgoutput).
 *
 * Events are messages that fanwire_publish() writes with pg_logical_emit_message(), and rows of the
 * tables in the publication "fanwire" (pg_row.c). The server sends whole transactions in the order
 * of their commits, never those that were rolled back, and keeps large ones on its own disk: here
 * one message is held at a time (pg_stream.c).
 *
 * This file gets the stream: it asks what is there (pg_survey.c), makes the slot where there is
 * none or where it is beyond repair, and tells where the log stands to it. The slot is no part of
 * the positions' identity: every slot of a database tells the same. */
#include "pg_mode.h"
#include "pg_retained.h"
#include "pg_slot_wait.h"
#include "pg_stream.h"
#include "pg_survey.h"
#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CREATE_MS    600000 /* a new slot waits for all transactions that are open */
#define STREAM_MS    60000
#define LSN          "%" PRIX32 "/%" PRIX32
#define LSN_OF(lsn)  (uint32_t)((lsn) >> 32), (uint32_t)(lsn)
#define MESSAGE_SIZE (2 * PG_MESSAGE_MAX)

/* SQLSTATEs; texts are in the server's language. */
#define UNDEFINED_OBJECT       "42704"
#define UNDEFINED_FILE         "58P01"
#define INSUFFICIENT_PRIVILEGE "42501"

static const char durable_text[] =
    "every committed event once, in commit order, across restarts of anything (durable slot)";
static const char temporary_text[] = "every committed event once, in commit order; a gap after "
                                     "each lost connection (temporary slot; "
                                     "--node NAME makes it durable)";

struct pg_reader {
    struct pg_session *session;
    struct fw_host *host;
    const struct pg_server *server;
    char slot[PG_SLOT_MAX];
    bool durable;
    struct pg_stream stream;
    struct pg_retained retained;
    struct pg_slot_wait slot_wait;
    enum {
        ASK_SURVEY,
        ASK_SETTINGS,
        ASK_DROP,
        ASK_IDENTITY,
        ASK_SLOT,
        ASK_WATCHING,
        ASK_STREAM
    } asking;
    struct pg_survey survey;
    bool surveyed;
    bool begun;         /* the stream, on this connection */
    bool renew;         /* the slot cannot be read any more: make it anew */
    bool made;          /* the slot, on this connection */
    uint64_t skip;      /* the stream begins there: what is before cannot be sent; 0: nothing */
    uint64_t broken_at; /* where the stream has ended for lack of a file; 0: nowhere */
    uint64_t nonce;     /* of the identity, after the server was found to be older than the log */
    uint64_t system;    /* as the replication connection tells */
    uint32_t timeline;
    uint64_t start; /* where the slot begins */
};

/* ---- the stream's beginning ---- */

static void identify(struct pg_reader *w)
{
    struct pg_server server = *w->server;
    char more[32] = "";
    server.system = w->system;
    server.timeline = w->timeline;
    if (w->nonce)
        (void)snprintf(more, sizeof more, "%" PRIx64, w->nonce);
    w->stream.identity = pg_identity(&server, pg_wal.name, more);
}

/* The log's newest position, if it holds this stream. A server that has never been so far is an
 * older copy of itself: its positions will come a second time, and mean something else. */
static bool find_log(struct pg_reader *w)
{
    identify(w);
    bool known = fw_host_continue(w->host, w->stream.identity, w->stream.last);
    if (!known || w->stream.last[0] <= w->stream.now)
        return known;
    fw_host_log(w->host, FW_LOG_WARNING, "restored",
                "the database is older than what was read from it (a backup was restored?): its "
                "events begin anew, and every client is told a gap");
    w->nonce = w->stream.last[0] ^ (uint64_t)fw_host_now_ms(w->host) << 20;
    identify(w);
    return false;
}

static void tell_slot_lost(struct pg_reader *w)
{
    const uint64_t pos[2] = { w->start, 0 };
    fw_host_log(w->host, FW_LOG_WARNING, "slot-lost",
                "the replication slot %s does not have what follows the log (it was dropped, "
                "invalidated, or read by another): events before " LSN
                " may be missing, and every client is told a gap",
                w->slot, LSN_OF(w->start));
    fw_host_gap(w->host, "slot-lost", pos, false);
    memcpy(w->stream.last, pos, sizeof pos);
}

/* Of a transaction in a database of another encoding: a row has text that has no form in UTF-8. */
static void tell_skipped(struct pg_reader *w)
{
    const uint64_t pos[2] = { w->skip, 0 };
    if (!pg_before(w->stream.last, pos))
        return; /* that was told before */
    fw_host_refuse_event(w->host, "a transaction with text that has no form in UTF-8 cannot be "
                                  "read: what is left of it is a gap");
    fw_host_gap(w->host, "connection-lost", pos, false);
    memcpy(w->stream.last, pos, sizeof pos);
}

static void begin_stream(struct pg_reader *w)
{
    w->begun = true;
    bool known = find_log(w);
    const uint64_t floor[2] = { w->start, 0 };
    if (!known) {
        fw_host_begin(w->host, w->stream.identity, floor);
        memcpy(w->stream.last, floor, sizeof floor);
    } else if (w->durable && pg_before(w->stream.last, floor)) {
        tell_slot_lost(w);
    } else {
        pg_stream_mark(&w->stream, w->start); /* a temporary slot: the hub tells the gap */
    }
    if (w->skip)
        tell_skipped(w);
    pg_retained_start(&w->retained);
    pg_stream_begin(&w->stream, w->skip ? w->skip : w->start, known);
}

/* ---- questions ---- */

static void ask(struct pg_reader *w, int asking, const char *sql, unsigned answer_ms)
{
    w->asking = asking;
    pg_session_query(w->session, sql, answer_ms);
}

static void ask_stream(struct pg_reader *w)
{
    char sql[256];
    if (w->skip > w->stream.now)
        w->skip = w->stream.now;
    if (w->skip <= w->start)
        w->skip = 0;
    (void)snprintf(sql, sizeof sql,
                   "START_REPLICATION SLOT \"%s\" LOGICAL " LSN " (proto_version '1', "
                   "publication_names 'fanwire', messages 'true')",
                   w->slot, LSN_OF(w->skip)); /* 0/0: where the slot begins */
    ask(w, ASK_STREAM, sql, STREAM_MS);
}

static void ask_slot(struct pg_reader *w)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "CREATE_REPLICATION_SLOT \"%s\"%s LOGICAL pgoutput "
                   "NOEXPORT_SNAPSHOT",
                   w->slot, w->durable ? "" : " TEMPORARY");
    if (w->durable)
        fw_host_log(w->host, FW_LOG_INFO, "slot",
                    "making the replication slot %s; this waits for the transactions that are open",
                    w->slot);
    pg_slot_wait_start(&w->slot_wait, PQbackendPID(w->session->link.conn));
    ask(w, ASK_SLOT, sql, CREATE_MS);
}

static void ask_identity(struct pg_reader *w)
{
    ask(w, ASK_IDENTITY, "IDENTIFY_SYSTEM", PG_ANSWER_MS);
}

static void end_survey(struct pg_reader *w)
{
    char message[MESSAGE_SIZE];
    enum pg_fault fault = PG_FAULT_MISCONFIGURED;
    if (w->session->failed && w->session->transient)
        fault = PG_FAULT_PASSING;
    if (w->session->failed || !w->surveyed)
        (void)snprintf(message, sizeof message,
                       "cannot ask what is installed: %s; install it "
                       "again: fanwire sql postgres --mode wal | psql -1 \"$DATABASE_URL\"",
                       w->session->error);
    else
        fault = pg_survey_judge(&w->survey, w->slot, message, sizeof message);
    if (fault == PG_FAULT_MISCONFIGURED)
        pg_session_misconfigured(w->session, message);
    else if (fault == PG_FAULT_PASSING)
        pg_session_lose(w->session, message);
    else
        pg_session_reopen(w->session, true);
}

/* How values are written as text (pg_json.c reads it), and that a pause is no death: twice in 30 s
 * the server also looks up from a large transaction, and answers. */
static void on_connected(void *arg)
{
    struct pg_reader *w = arg;
    char sql[320];
    (void)
        snprintf(sql, sizeof sql,
                 "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; "
                 "SET extra_float_digits = 1; SET wal_sender_timeout = '30s'; SET "
                 "idle_session_timeout = 0%s",
                 w->server->sql_ascii ? "; SET client_encoding = 'SQL_ASCII'" : "");
    ask(w, ASK_SETTINGS, sql, PG_ANSWER_MS);
}

/* The role may have the right by another that it is a member of, as managed databases do it: only
 * the attempt tells. */
static bool on_failed(void *arg, const char *why)
{
    struct pg_reader *w = arg;
    char message[MESSAGE_SIZE];
    if (!w->session->link.replication || w->survey.replication ||
        strcmp(w->session->link.sqlstate, INSUFFICIENT_PRIVILEGE) != 0)
        return false;
    pg_survey_tell_refused(&w->survey, why, message, sizeof message);
    pg_session_misconfigured(w->session, message);
    return true;
}

static void end_settings(struct pg_reader *w)
{
    char sql[128];
    bool drop = w->durable && w->survey.slot && (w->survey.slot_lost || w->renew);
    if (!drop) {
        ask_identity(w);
        return;
    }
    (void)snprintf(sql, sizeof sql, "DROP_REPLICATION_SLOT \"%s\" WAIT", w->slot);
    w->survey.slot = false;
    fw_host_log(w->host, FW_LOG_WARNING, "slot-lost",
                "the replication slot %s cannot be read any more (its WAL was removed, or the "
                "publication made anew): it is made anew",
                w->slot);
    ask(w, ASK_DROP, sql, PG_ANSWER_MS);
}

static void end_identity(struct pg_reader *w)
{
    w->made = !w->survey.slot;
    w->start = w->survey.confirmed;
    if (w->made)
        ask_slot(w);
    else
        ask_stream(w);
}

/* A new slot may have waited for long: what was watched meanwhile is not in its stream. */
static void end_slot(struct pg_reader *w)
{
    w->renew = false;
    w->broken_at = 0;
    pg_slot_wait_stop(&w->slot_wait);
    pg_rows_reset(w->stream.rows);
    ask(w, ASK_WATCHING, PG_WATCHING_SQL, PG_ANSWER_MS);
}

/* Some failures say that this slot will never give the stream again. Where the server knows it (the
 * slot was invalidated), the survey finds it out. It does not know:
 *
 * - that the publication is not there for this slot, which decodes by the catalog of its time: it
 *   was made anew. If it is not there at all, or the slot is not, the survey says so first.
 * - that a row cannot be sent. Its transaction is left out. (Outside of one, which only a message
 *   of somebody else's can be: everything up to now.)
 * - that WAL was removed behind its back. Then the stream ends for lack of a file, each time at the
 *   same place. (Where it does not even begin, it is another file that is missing, as while the
 *   server's packages are renewed.) */
static void judge_failure(struct pg_reader *w)
{
    const char *sqlstate = w->session->sqlstate;
    if (!strcmp(sqlstate, UNDEFINED_OBJECT)) {
        w->renew = true;
    } else if (w->begun && pg_session_lacks_utf8(w->session)) {
        w->skip = w->stream.in_transaction ? w->stream.commit + 1 : UINT64_MAX;
    } else if (w->begun && !strcmp(sqlstate, UNDEFINED_FILE)) {
        w->renew |= w->broken_at != 0 && w->stream.received <= w->broken_at;
        w->broken_at = w->stream.received;
    }
}

static void end_stream(struct pg_reader *w)
{
    struct pg_session *s = w->session;
    if (s->streaming) {
        begin_stream(w);
        return;
    }
    if (s->failed)
        judge_failure(w);
    pg_session_lose(s, s->failed ? s->error : "the server has ended the stream");
}

static void on_ended(void *arg)
{
    struct pg_reader *w = arg;
    bool failed = w->session->failed;
    char message[MESSAGE_SIZE];
    if (w->asking == ASK_SURVEY) {
        end_survey(w);
    } else if (w->asking == ASK_STREAM) {
        end_stream(w);
    } else if (failed) {
        (void)snprintf(message, sizeof message, "cannot get the replication slot %s: %s", w->slot,
                       w->session->error);
        pg_session_lose(w->session, message);
    } else if (w->asking == ASK_SETTINGS) {
        end_settings(w);
    } else if (w->asking == ASK_DROP) {
        ask_identity(w);
    } else if (w->asking == ASK_IDENTITY) {
        end_identity(w);
    } else if (w->asking == ASK_SLOT) {
        end_slot(w);
    } else {
        ask_stream(w);
    }
}

/* ---- answers ---- */

static const char *value(const PGresult *result, const char *name)
{
    int i = PQfnumber(result, name);
    return i < 0 || PQntuples(result) == 0 ? "" : PQgetvalue(result, 0, i);
}

static uint64_t read_lsn(const char *text)
{
    char *end = NULL;
    uint64_t high = strtoull(text, &end, 16);
    return *end == '/' ? high << 32 | strtoull(end + 1, NULL, 16) : 0;
}

/* The WAL's end may be given behind the header of a page that holds nothing else yet, where a
 * stream does not come to before the next record. */
static uint64_t read_end(const char *text)
{
    enum { PAGE = 8192, HEADER = 24, SEGMENT_HEADER = 40 };
    uint64_t lsn = read_lsn(text), in_page = lsn % PAGE;
    return in_page == HEADER || in_page == SEGMENT_HEADER ? lsn - in_page : lsn;
}

static const char *cell(const PGresult *result, int row, int column)
{
    return PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
}

static void take_watching(struct pg_reader *w, const PGresult *result)
{
    for (int i = 0; i < PQntuples(result); i++) {
        const struct pg_watch_row row = {
            .id = cell(result, i, 0),
            .relation = cell(result, i, 1),
            .channel = cell(result, i, 2),
            .columns = cell(result, i, 3),
            .keys = cell(result, i, 4),
            .ended = cell(result, i, 5),
        };
        if (pg_rows_watch(w->stream.rows, &row) < 0)
            fw_host_log(w->host, FW_LOG_WARNING, "watching",
                        "a row of fanwire.watching cannot be read: what it watches is not told");
    }
}

static void on_result(void *arg, const PGresult *result)
{
    struct pg_reader *w = arg;
    uint64_t number = 0;
    if (PQfnumber(result, "relation") >= 0) {
        take_watching(w, result);
    } else if (w->asking == ASK_SURVEY) {
        w->surveyed |= pg_survey_read(result, &w->survey);
        w->stream.next_xid = w->survey.next_xid;
    } else if (w->asking == ASK_IDENTITY) {
        (void)parse_uint(value(result, "systemid"), UINT64_MAX, &w->system);
        (void)parse_uint(value(result, "timeline"), UINT32_MAX, &number);
        w->timeline = (uint32_t)number;
        w->stream.now = read_end(value(result, "xlogpos"));
    } else if (w->asking == ASK_SLOT) {
        w->start = read_lsn(value(result, "consistent_point"));
    }
}

/* ---- snapshots ---- */

static bool read_place(const PGresult *result, uint64_t ret_place[2])
{
    ret_place[0] = read_end(value(result, "place"));
    ret_place[1] = 0;
    return ret_place[0] > 0;
}

static bool wal_reached(const struct pg_reader *w, const uint64_t place[2])
{
    return w->stream.opened && w->stream.received >= place[0];
}

static void wal_floor(const struct pg_reader *w, uint64_t xid, uint64_t ret_pos[2])
{
    ret_pos[0] = pg_horizon_find(&w->stream.horizon, xid);
    ret_pos[1] = 0;
}

static void on_input(void *arg)
{
    struct pg_reader *w = arg;
    pg_stream_input(&w->stream);
}

static void on_silent(void *arg)
{
    struct pg_reader *w = arg;
    pg_stream_ask(&w->stream);
}

/* ---- the mode ---- */

static void wal_start(struct pg_reader *w)
{
    char message[MESSAGE_SIZE], sql[PG_SURVEY_SQL_MAX];
    int version = PQserverVersion(w->session->link.conn);
    if (pg_survey_server(w->server, version, message, sizeof message) != PG_FAULT_NONE) {
        pg_session_misconfigured(w->session, message);
        return;
    }
    pg_stream_reset(&w->stream);
    w->surveyed = w->begun = false;
    fw_host_traits(w->host, FW_SOURCE_ORDERED | (w->durable ? FW_SOURCE_DURABLE : 0));
    ask(w, ASK_SURVEY, pg_survey_sql(sql, sizeof sql, w->slot), PG_ANSWER_MS);
}

static void wal_lost(struct pg_reader *w)
{
    pg_retained_stop(&w->retained);
    pg_slot_wait_stop(&w->slot_wait);
    pg_stream_reset(&w->stream);
}

static void wal_destroy(struct pg_reader *w)
{
    pg_retained_done(&w->retained);
    pg_slot_wait_done(&w->slot_wait);
    pg_stream_done(&w->stream);
    free(w);
}

static void name_slot(struct pg_reader *w, const struct pg_url *url)
{
    w->durable = url->node[0];
    if (w->durable)
        (void)snprintf(w->slot, sizeof w->slot, "fanwire_%s", url->node);
    else
        (void)snprintf(w->slot, sizeof w->slot, "fanwire_temporary_%ld_%" PRIx64, (long)getpid(),
                       (uint64_t)fw_host_now_ms(w->host));
}

static struct pg_reader *wal_create(struct pg_session *session, const struct pg_server *server,
                                    const struct pg_url *url)
{
    struct pg_reader *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->session = session;
    w->host = session->host;
    w->server = server;
    name_slot(w, url);
    int r = pg_stream_init(&w->stream, session, w->durable ? durable_text : temporary_text,
                           w->durable ? url->retain_for_ms : -1);
    int q = pg_retained_init(&w->retained, session->host, url, w->slot);
    int p = pg_slot_wait_init(&w->slot_wait, session->host, url, w->slot);
    if (r == 0 && q == 0 && p == 0)
        return w;
    wal_destroy(w);
    return NULL;
}

/* With FW_SOURCE_ON_DEMAND only, which it has not. */
static void wal_subscribe(struct pg_reader *w, const char *channel, size_t len)
{
    (void)w;
    (void)channel;
    (void)len;
}

const struct pg_mode pg_wal = {
    .name = "wal",
    .guarantee = durable_text,
    .traits = FW_SOURCE_DURABLE | FW_SOURCE_ORDERED,
    .needs_sql = true,
    .publish = { .sql = "SELECT pg_catalog.pg_logical_emit_message(true, 'fanwire', "
                        "pg_catalog.convert_to($1, 'UTF8'))" },
    /* The message brings the stream to the place at once, where nobody writes and the WAL's end
     * would wait to be flushed. */
    .join = { .sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS place",
              .place = read_place,
              .after = "SELECT pg_catalog.pg_logical_emit_message(true, 'fanwire_snapshot', '')",
              .reached = wal_reached,
              .floor = wal_floor },
    .events = { .connected = on_connected,
                .failed = on_failed,
                .result = on_result,
                .ended = on_ended,
                .input = on_input,
                .silent = on_silent },
    .create = wal_create,
    .destroy = wal_destroy,
    .start = wal_start,
    .lost = wal_lost,
    .subscribe = wal_subscribe,
    .unsubscribe = wal_subscribe,
};
