/* What mode wal has to know, and to find fault with, before it asks for the stream. */
#include "pg_survey.h"

#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PSQL_SQL "psql -1 -v ON_ERROR_STOP=1 \"$DATABASE_URL\""

/* Managed databases give the right by a role of theirs (rds_replication, neon_superuser). LSNs come
 * as numbers. */
static const char survey_sql[] =
    "SELECT CURRENT_USER AS role, "
    "(SELECT r.rolsuper OR r.rolreplication FROM pg_catalog.pg_roles r "
    "WHERE r.rolname = CURRENT_USER) "
    "OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'rds_replication' "
    "AND pg_catalog.pg_has_role(r.oid, 'MEMBER')) AS replication, "
    "EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'fanwire') AS publication, "
    "pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) AS next_xid, "
    "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots) >= "
    "pg_catalog.current_setting('max_replication_slots')::integer AS slots_full, "
    "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity "
    "WHERE backend_type = 'walsender') >= "
    "pg_catalog.current_setting('max_wal_senders')::integer AS senders_full, "
    "s.slot_name IS NOT NULL AS slot, "
    "s.database = pg_catalog.current_database() AND s.plugin = 'pgoutput' AS here, "
    "s.wal_status = 'lost' OR s.confirmed_flush_lsn IS NULL AS slot_lost, "
    "s.confirmed_flush_lsn - '0/0'::pg_catalog.pg_lsn AS confirmed, "
    "s.active_pid AS holder, a.application_name AS holder_name, "
    "pg_catalog.host(a.client_addr) AS holder_address "
    "FROM (VALUES (1)) one "
    "LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = '%s' "
    "LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid;" PG_WATCHING_SQL;

char *pg_survey_sql(char *sql, size_t size, const char *slot)
{
    (void)snprintf(sql, size, survey_sql, slot);
    return sql;
}

/* ---- reading ---- */

static const char *column(const PGresult *result, const char *name)
{
    int i = PQfnumber(result, name);
    return i < 0 || PQntuples(result) == 0 ? "" : PQgetvalue(result, 0, i);
}

static bool is_true(const PGresult *result, const char *name)
{
    return column(result, name)[0] == 't';
}

static uint64_t number(const PGresult *result, const char *name)
{
    uint64_t value = 0;
    (void)parse_uint(column(result, name), UINT64_MAX, &value);
    return value;
}

static void copy(char *out, size_t size, const PGresult *result, const char *name)
{
    const char *text = column(result, name);
    (void)text_escape(out, size, text, strlen(text));
}

bool pg_survey_read(const PGresult *result, struct pg_survey *ret)
{
    if (PQfnumber(result, "replication") < 0)
        return false;
    *ret = (struct pg_survey){
        .replication = is_true(result, "replication"),
        .publication = is_true(result, "publication"),
        .slot = is_true(result, "slot"),
        .here = is_true(result, "here"),
        .slot_lost = is_true(result, "slot_lost"),
        .slots_full = is_true(result, "slots_full"),
        .senders_full = is_true(result, "senders_full"),
        .confirmed = number(result, "confirmed"),
        .next_xid = number(result, "next_xid"),
        .holder = number(result, "holder"),
    };
    copy(ret->role, sizeof ret->role, result, "role");
    copy(ret->holder_name, sizeof ret->holder_name, result, "holder_name");
    copy(ret->holder_address, sizeof ret->holder_address, result, "holder_address");
    return true;
}

/* ---- judging ---- */

enum pg_fault pg_survey_server(const struct pg_server *server, int version, char *out, size_t size)
{
    if (version < 140000)
        (void)snprintf(out, size,
                       "mode=wal needs Postgres 14 or later, this is %d; use another mode: fanwire "
                       "sql postgres --mode outbox | " PSQL_SQL,
                       version / 10000);
    else if (server->standby)
        (void)snprintf(out, size,
                       "mode=wal reads from a primary, and this server is a standby; give fanwire "
                       "the address of the primary, or both and target_session_attrs=read-write");
    else if (server->pooled)
        (void)snprintf(out, size,
                       "mode=wal needs the server itself, and the URL leads to a connection "
                       "pooler; give fanwire the address of the server");
    else if (strcmp(server->wal_level, "logical") != 0)
        (void)snprintf(out, size,
                       "mode=wal needs wal_level=logical, and it is %s; run, and restart the "
                       "server: psql -c \"ALTER SYSTEM SET wal_level = logical\" \"$DATABASE_URL\"",
                       server->wal_level);
    else
        return PG_FAULT_NONE;
    return PG_FAULT_MISCONFIGURED;
}

static enum pg_fault judge_slot(const struct pg_survey *s, const char *slot, char *out, size_t size)
{
    if (!s->here) {
        (void)snprintf(out, size,
                       "the replication slot %s is of another database or not fanwire's; choose "
                       "another --node, or drop it: psql -c \"SELECT "
                       "pg_drop_replication_slot('%s')\" \"$DATABASE_URL\"",
                       slot, slot);
        return PG_FAULT_MISCONFIGURED;
    }
    (void)snprintf(out, size,
                   "the replication slot %s is in use by process %llu of the server (application "
                   "\"%s\"%s%s); each fanwire needs a --node of its own",
                   slot, (unsigned long long)s->holder, s->holder_name,
                   s->holder_address[0] ? " from " : "", s->holder_address);
    return PG_FAULT_PASSING;
}

void pg_survey_tell_refused(const struct pg_survey *s, const char *why, char *out, size_t size)
{
    (void)
        snprintf(out, size,
                 "mode=wal needs the right to replicate, which the role \"%s\" has not (%s); as a "
                 "superuser: psql -c 'ALTER ROLE \"%s\" REPLICATION' \"$DATABASE_URL\"",
                 s->role, why, s->role);
}

enum pg_fault pg_survey_judge(const struct pg_survey *s, const char *slot, char *out, size_t size)
{
    if (!s->publication)
        (void)snprintf(out, size,
                       "the publication \"fanwire\" is not there; install it: fanwire sql postgres "
                       "--mode wal | " PSQL_SQL);
    else if (s->slot && (!s->here || s->holder))
        return judge_slot(s, slot, out, size);
    else if (!s->slot && s->slots_full)
        (void)snprintf(out, size,
                       "all of the server's max_replication_slots are taken; drop one that nobody "
                       "uses (fanwire doctor lists them), or raise it and restart the server: psql "
                       "-c \"ALTER SYSTEM SET max_replication_slots = 20\" \"$DATABASE_URL\"");
    else if (s->senders_full)
        (void)snprintf(out, size,
                       "all of the server's max_wal_senders are taken; raise it and restart the "
                       "server: psql -c \"ALTER SYSTEM SET max_wal_senders = 20\" "
                       "\"$DATABASE_URL\"");
    else
        return PG_FAULT_NONE;
    return PG_FAULT_MISCONFIGURED;
}
