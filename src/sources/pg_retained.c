/* How much WAL the server keeps for a slot, asked now and then. */
#include "pg_retained.h"

#include "text.h"

#include <stdio.h>

#define ASK_MS 30000

static void on_answer(void *arg, const PGresult *result)
{
    struct pg_retained *r = arg;
    uint64_t bytes = 0;
    if (PQntuples(result) > 0 && parse_uint(PQgetvalue(result, 0, 0), UINT64_MAX, &bytes) == 0)
        fw_host_gauge(r->question.session.host, FW_GAUGE_RETAINED_BYTES, bytes);
}

int pg_retained_init(struct pg_retained *r, struct fw_host *host, const struct pg_url *url,
                     const char *slot)
{
    (void)snprintf(r->sql, sizeof r->sql,
                   "SELECT pg_catalog.trunc(GREATEST(pg_catalog.pg_wal_lsn_diff("
                   "pg_catalog.pg_current_wal_lsn(), restart_lsn), 0))::bigint "
                   "FROM pg_catalog.pg_replication_slots WHERE slot_name = '%s'",
                   slot);
    return pg_question_init(&r->question, host, url, on_answer, r);
}

void pg_retained_start(struct pg_retained *r)
{
    pg_question_start(&r->question, r->sql, 0, ASK_MS);
}

void pg_retained_stop(struct pg_retained *r)
{
    pg_question_stop(&r->question);
    fw_host_gauge(r->question.session.host, FW_GAUGE_RETAINED_BYTES, 0);
}

void pg_retained_done(struct pg_retained *r)
{
    pg_question_done(&r->question);
}
