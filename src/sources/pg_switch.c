/* Transactions that were open when another mode was installed. */
#include "pg_switch.h"

#include "pg_link.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

#define PATIENCE_MS 1000 /* a shorter wait is everyday */
#define SOON_MS     50
#define EVERY_MS    500
#define REPEAT_MS   60000

void pg_switch_begin(struct pg_switch *sw, struct fw_host *host, bool changed)
{
    int64_t now = fw_host_now_ms(host);
    *sw = (struct pg_switch){
        .host = host, .changed = changed || sw->changed, .until = sw->until, .began_ms = now
    };
}

/* By the names of Postgres 12. An installation of an earlier form has no `since`; a dump brings one
 * along that this cluster has not reached. Who asks is a transaction himself only where he has to
 * know a number. */
char *pg_switch_sql(const struct pg_switch *sw, char *sql, size_t size)
{
    int n = snprintf(
        sql, size,
        "SELECT coalesce((pg_catalog.to_jsonb(i) ->> 'since')::bigint, 0) AS since, "
        "pg_catalog.txid_snapshot_xmin(x) AS oldest, pg_catalog.txid_snapshot_xmax(x) AS next, "
        "CASE WHEN %s AND NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.txid_current() "
        "ELSE 0 END AS now FROM fanwire.installation i, pg_catalog.txid_current_snapshot() x;",
        sw->changed ? "true" : "false");
    if (n > 0 && (size_t)n < size)
        (void)pg_holder_sql(sql + n, size - (size_t)n);
    return sql;
}

static uint64_t number(const PGresult *result, const char *name)
{
    uint64_t value = 0;
    int column = PQfnumber(result, name);
    if (column >= 0 && PQntuples(result) > 0)
        (void)parse_uint(PQgetvalue(result, 0, column), UINT64_MAX, &value);
    return value;
}

static bool judge(struct pg_switch *sw, const PGresult *result)
{
    uint64_t since = number(result, "since"), oldest = number(result, "oldest"),
             next = number(result, "next"), now = number(result, "now");
    if (sw->changed) {
        sw->changed = false;
        sw->until = now;
        return now > 0 || (since < next && oldest <= since); /* who was open is seen next time */
    }
    if (sw->until >= next) /* of another cluster */
        sw->until = 0;
    return oldest <= sw->until || (since < next && oldest <= since);
}

static void tell(struct pg_switch *sw, const PGresult *result)
{
    const char *name = pg_holder_name(result);
    char who[PG_MESSAGE_MAX];
    int64_t now = fw_host_now_ms(sw->host);
    bool same = !strncmp(name, sw->told, sizeof sw->told - 1);
    if (now - sw->began_ms < PATIENCE_MS || (same && now - sw->told_ms < REPEAT_MS) ||
        !pg_holder_read(result, who, sizeof who))
        return;
    (void)snprintf(sw->told, sizeof sw->told, "%s", name);
    sw->told_ms = now;
    fw_host_log(sw->host, FW_LOG_WARNING, "switch-waits",
                "another mode was installed, and is read when the transactions that were open then "
                "have ended: what they have published is in the former one; it waits for %s",
                who);
}

void pg_switch_take(struct pg_switch *sw, const PGresult *result, bool *waits)
{
    if (PQfnumber(result, "oldest") >= 0)
        *waits = PQntuples(result) > 0 && judge(sw, result);
    else if (*waits)
        tell(sw, result);
}

unsigned pg_switch_delay_ms(const struct pg_switch *sw)
{
    return fw_host_now_ms(sw->host) - sw->began_ms < PATIENCE_MS ? SOON_MS : EVERY_MS;
}
