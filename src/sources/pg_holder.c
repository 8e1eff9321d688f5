/* Transactions that others wait for: who they are, for the operator. */
#include "pg_holder.h"

#include "text.h"

#include <stdint.h>
#include <stdio.h>

/* Everybody may see pid, name and transaction of others; since when, pg_read_all_stats. Prepared
 * ones belong to no process; who waits for one waits for process 0. */
static const char holder_sql[] =
    "SELECT * FROM (SELECT 'pid ' || a.pid AS who, a.application_name AS name, d.datname AS "
    "database, pg_catalog.pg_get_userbyid(a.usesysid) AS role, a.state, "
    "extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint AS age_s, "
    "pg_catalog.age(a.backend_xid) AS xids FROM pg_catalog.pg_stat_activity a "
    "LEFT JOIN pg_catalog.pg_database d ON d.oid = a.datid WHERE a.backend_xid IS NOT NULL%s "
    "UNION ALL SELECT 'prepared transaction ' || pg_catalog.quote_literal(p.gid), '', p.database, "
    "p.owner, 'prepared', extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::bigint, "
    "pg_catalog.age(p.transaction) FROM pg_catalog.pg_prepared_xacts p WHERE true%s) h "
    "ORDER BY h.xids DESC LIMIT 1";

char *pg_holder_sql(char *sql, size_t size)
{
    (void)snprintf(sql, size, holder_sql, "", "");
    return sql;
}

char *pg_holder_of_sql(char *sql, size_t size, int pid)
{
    char processes[80], prepared[80];
    (void)snprintf(processes, sizeof processes,
                   " AND a.pid = ANY (pg_catalog.pg_blocking_pids(%d))", pid);
    (void)snprintf(prepared, sizeof prepared, " AND 0 = ANY (pg_catalog.pg_blocking_pids(%d))",
                   pid);
    (void)snprintf(sql, size, holder_sql, processes, prepared);
    return sql;
}

static const char *field(const PGresult *result, const char *name)
{
    int column = PQfnumber(result, name);
    return column < 0 || PQntuples(result) == 0 ? "" : PQgetvalue(result, 0, column);
}

const char *pg_holder_name(const PGresult *result)
{
    return field(result, "who");
}

bool pg_holder_read(const PGresult *result, char *out, size_t size)
{
    if (PQntuples(result) == 0)
        return false;
    char since[48] = "", name[80] = "";
    uint64_t age_s = 0;
    if (parse_uint(field(result, "age_s"), UINT64_MAX, &age_s) == 0)
        (void)snprintf(since, sizeof since, ", open for %llu s", (unsigned long long)age_s);
    if (field(result, "name")[0])
        (void)snprintf(name, sizeof name, " (%.64s)", field(result, "name"));
    const char *state = field(result, "state");
    (void)snprintf(out, size, "%.120s%s, role %.64s, database %.64s%s%s%s", pg_holder_name(result),
                   name, field(result, "role"), field(result, "database"), state[0] ? ", " : "",
                   state, since);
    return true;
}
