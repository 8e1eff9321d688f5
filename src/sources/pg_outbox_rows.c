/* The outbox table in SQL, and what it answers.
 *
 * What was read once with (xid, id) > P is all there will ever be up to the last row read: only
 * rows of transactions older than every open one are read (below the horizon, pg_snapshot_xmin()),
 * and a transaction's rows have its id. Ids of rows alone, or times, are given before the commit: a
 * reader would pass by those that commit late.
 *
 * The state is read in the same statement, hence the same snapshot: a pruned row and the floor that
 * tells of it are seen together. ORDER BY names the table, for the column xid of the result is
 * text.
 */
#include "pg_outbox_rows.h"

#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX     512
#define ROWS_BYTES   (1u << 20)
#define ROW_OVERHEAD 96 /* bytes of log beside the texts */

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

#define NOW     "pg_catalog.pg_current_snapshot()"
#define HORIZON "pg_catalog.pg_snapshot_xmin(" NOW ")"
#define NEXT    "pg_catalog.pg_snapshot_xmax(" NOW ")"
#define STATE                                                                                      \
    "pg_catalog.concat_ws('/', s.id, 'fanwire.outbox'::regclass::oid, "                            \
    "(SELECT i.mode FROM fanwire.installation i)) AS outbox, s.floor_xid, s.floor_id"

/* ---- columns ---- */

static const char *field(const PGresult *result, int row, const char *name)
{
    int column = PQfnumber(result, name);
    return column < 0 || row >= PQntuples(result) ? "" : PQgetvalue(result, row, column);
}

static uint64_t number(const PGresult *result, int row, const char *name)
{
    uint64_t value = 0;
    (void)parse_uint(field(result, row, name), UINT64_MAX, &value);
    return value;
}

static bool truth(const PGresult *result, const char *name)
{
    return field(result, 0, name)[0] == 't';
}

uint64_t outbox_read_number(const PGresult *result, const char *column)
{
    return number(result, 0, column);
}

static void read_state(const PGresult *result, struct outbox_state *ret)
{
    snprintf(ret->id, sizeof ret->id, "%s", field(result, 0, "outbox"));
    ret->floor[0] = number(result, 0, "floor_xid");
    ret->floor[1] = number(result, 0, "floor_id");
}

__attribute__((format(printf, 2, 3))) static const char *write_sql(char *out, const char *format,
                                                                   ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(out, OUTBOX_SQL_MAX, format, args);
    va_end(args);
    return out;
}

/* ---- the start ---- */

const char outbox_start_sql[] =
    "SELECT " STATE ", " NEXT " AS next_xid, s.floor_xid >= " NEXT
    " OR EXISTS (SELECT FROM fanwire.outbox o WHERE o.xid >= " NEXT ") AS overtaken, "
    "pg_catalog.has_table_privilege('fanwire.outbox', 'INSERT') AS may_publish, "
    "pg_catalog.has_table_privilege('fanwire.outbox', 'DELETE') AND "
    "pg_catalog.has_table_privilege('fanwire.outbox_state', 'UPDATE') AS may_prune "
    "FROM fanwire.outbox_state s";

void outbox_read_start(const PGresult *result, struct outbox_start *ret)
{
    *ret = (struct outbox_start){ .there = PQntuples(result) > 0 };
    read_state(result, &ret->state);
    ret->overtaken = truth(result, "overtaken");
    ret->may_publish = truth(result, "may_publish");
    ret->may_prune = truth(result, "may_prune");
    ret->next_xid = number(result, 0, "next_xid");
}

const char *outbox_known_sql(char *out, const uint64_t pos[2])
{
    unsigned long long xid = pos[0], id = pos[1];
    return write_sql(out,
                     "SELECT (s.floor_xid, s.floor_id) >= ('%llu'::xid8, %llu) OR EXISTS "
                     "(SELECT FROM fanwire.outbox o WHERE o.xid = '%llu'::xid8 AND o.id = %llu) "
                     "AS known FROM fanwire.outbox_state s",
                     xid, id, xid, id);
}

const char *outbox_renew_sql(char *out, const struct outbox_state *state)
{
    return write_sql(out, "SELECT fanwire.renew_outbox('%.36s')", state->id);
}

/* Sizes are known without reading what is stored out of line. */
const char *outbox_floor_sql(char *out, uint64_t budget)
{
    unsigned long long bytes = budget, rows = budget / ROW_OVERHEAD;
    return write_sql(
        out,
        "SELECT w.xid, w.id FROM (SELECT o.xid, o.id, sum(octet_length(o.payload)::bigint + "
        "2 * octet_length(o.channel) + coalesce(octet_length(o.key), 0) + "
        "coalesce(octet_length(o.client), 0) + %u) OVER "
        "(ORDER BY o.xid DESC, o.id DESC ROWS UNBOUNDED PRECEDING) AS used "
        "FROM fanwire.outbox o WHERE o.xid < " HORIZON " ORDER BY o.xid DESC, o.id DESC LIMIT %llu"
        ") w WHERE w.used > %llu ORDER BY w.xid DESC, w.id DESC LIMIT 1",
        ROW_OVERHEAD, rows + 1, bytes);
}

bool outbox_read_position(const PGresult *result, uint64_t ret_pos[2])
{
    ret_pos[0] = number(result, 0, "xid");
    ret_pos[1] = number(result, 0, "id");
    return PQntuples(result) > 0 && ret_pos[0] > 0;
}

/* ---- rows ---- */

const char *outbox_rows_sql(char *out, const uint64_t pos[2], size_t event_max, bool judge)
{
    /* base64 with its line ends, should a writer of his own use them */
    unsigned long long size_max = event_max < SIZE_MAX / 4 ? event_max / 2 * 3 + 64 : SIZE_MAX / 2;
    char fine[160] = "true";
    if (judge)
        (void)snprintf(fine, sizeof fine,
                       "fanwire.has_utf8(pg_catalog.concat(w.channel, w.key, w.client, "
                       "CASE WHEN w.size <= %llu THEN w.payload END))",
                       size_max);
    return write_sql(
        out,
        "SELECT " STATE ", pg_catalog.pg_is_in_recovery() AS standby, "
        "(SELECT greatest(1, (extract(epoch FROM pg_catalog.clock_timestamp() - h.created) * 1000)"
        "::bigint) FROM fanwire.outbox h WHERE h.xid >= " HORIZON " AND h.xid < " NEXT
        " ORDER BY h.xid, h.id LIMIT 1) AS held_ms, "
        "o.xid, o.id, CASE WHEN o.fine THEN o.channel END AS channel, "
        "CASE WHEN o.fine AND o.size <= %llu THEN o.payload END AS payload, o.size, o.fine, o.enc, "
        "CASE WHEN o.fine THEN o.key END AS key, CASE WHEN o.fine THEN o.client END AS client, "
        "(extract(epoch FROM o.created) * 1000)::bigint AS created_ms "
        "FROM fanwire.outbox_state s LEFT JOIN LATERAL (SELECT *, %s AS fine FROM ("
        "SELECT o.*, octet_length(o.payload) AS size, sum(octet_length(o.payload)::bigint) "
        "OVER (ORDER BY o.xid, o.id ROWS UNBOUNDED PRECEDING) AS total FROM fanwire.outbox o "
        "WHERE (o.xid, o.id) > ('%llu'::xid8, %llu) AND o.xid < " HORIZON
        " ORDER BY o.xid, o.id LIMIT %u) w WHERE w.total - w.size < %u) o ON true "
        "ORDER BY o.xid, o.id",
        size_max, fine, (unsigned long long)pos[0], (unsigned long long)pos[1], ROWS_MAX,
        ROWS_BYTES);
}

static bool has(const PGresult *result, int row, const char *name)
{
    int column = PQfnumber(result, name);
    return column >= 0 && !PQgetisnull(result, row, column);
}

void outbox_read_rows(const PGresult *result, struct outbox_rows *ret)
{
    int n = PQntuples(result);
    uint64_t bytes = 0;
    *ret = (struct outbox_rows){ .held_ms = number(result, 0, "held_ms"),
                                 .standby = truth(result, "standby") };
    read_state(result, &ret->state);
    if (n == 0 || !has(result, 0, "xid"))
        return;
    for (int row = 0; row < n; row++)
        bytes += number(result, row, "size");
    ret->n = (unsigned)n;
    ret->more = n >= ROWS_MAX || bytes >= ROWS_BYTES;
}

static const char *optional(const PGresult *result, int row, const char *name)
{
    return has(result, row, name) ? field(result, row, name) : NULL;
}

static const char *decode(struct fw_source_event *event, void **ret_decoded)
{
    *ret_decoded = malloc(event->len / 4 * 3 + 3);
    if (!*ret_decoded)
        return "out of memory";
    int64_t n = base64_decode(*ret_decoded, event->data, event->len);
    if (n < 0)
        return "bad base64";
    event->data = *ret_decoded;
    event->len = (size_t)n;
    return NULL;
}

const char *outbox_read_event(const PGresult *result, unsigned i, struct fw_source_event *ret,
                              void **ret_decoded)
{
    int row = (int)i;
    *ret_decoded = NULL;
    *ret = (struct fw_source_event){ .channel = field(result, row, "channel"),
                                     .key = optional(result, row, "key"),
                                     .from = optional(result, row, "client"),
                                     .data = optional(result, row, "payload"),
                                     .len = number(result, row, "size"),
                                     .time_ms = (int64_t)number(result, row, "created_ms"),
                                     .xid = number(result, row, "xid") };
    ret->pos[0] = ret->xid;
    ret->pos[1] = number(result, row, "id");
    ret->channel_len = strlen(ret->channel);
    if (field(result, row, "fine")[0] == 'f')
        return "text that has no form in UTF-8";
    if (!ret->data) /* too large: what is left to say is its length */
        return NULL;
    ret->len = (size_t)PQgetlength(result, row, PQfnumber(result, "payload")); /* as UTF-8 */
    return has(result, row, "enc") ? decode(ret, ret_decoded) : NULL;
}

/* ---- pruning ---- */

/* It need not wait for the disk: what a crash takes back is pruned again. */
const char outbox_prune_sql[] =
    "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), "
    "fanwire.prune_batch(NULL, " TEXT(
        OUTBOX_PRUNE_ROWS) ") AS removed, "
                           "pg_catalog.pg_total_relation_size('fanwire.outbox') AS bytes";

const char *outbox_keep_sql(char *out, uint64_t keep_ms)
{
    char keep[48] = "NULL::interval";
    if (keep_ms != UINT64_MAX)
        snprintf(keep, sizeof keep, "interval '%llu ms'", (unsigned long long)keep_ms);
    return write_sql(out,
                     "UPDATE fanwire.outbox_state SET keep = %s WHERE keep IS DISTINCT FROM %s",
                     keep, keep);
}
