/* How much WAL the server keeps for a slot, asked now and then. */
#include "pg_retained.h"

#include "text.h"

#include <stdio.h>

#define ASK_MS 30000

static void on_timer(void *arg)
{
    struct pg_retained *r = arg;
    if (r->session.state == PG_CLOSED)
        pg_session_open(&r->session);
    fw_timer_start(r->timer, ASK_MS);
}

static void on_connected(void *arg)
{
    struct pg_retained *r = arg;
    pg_session_query(&r->session, r->sql, PG_ANSWER_MS);
}

static void on_result(void *arg, const PGresult *result)
{
    struct pg_retained *r = arg;
    uint64_t bytes = 0;
    if (PQntuples(result) > 0 && parse_uint(PQgetvalue(result, 0, 0), UINT64_MAX, &bytes) == 0)
        fw_host_gauge(r->session.host, FW_GAUGE_RETAINED_BYTES, bytes);
}

static void on_ended(void *arg)
{
    struct pg_retained *r = arg;
    pg_session_lose(&r->session, "asked");
}

static const struct pg_session_events events = {
    .connected = on_connected,
    .result = on_result,
    .ended = on_ended,
};

/* A connection that fails says nothing new: the stream's own is about to, if there is a reason. */
static void on_lost(void *arg, const char *message, bool misconfigured)
{
    (void)arg;
    (void)message;
    (void)misconfigured;
}

static const struct pg_session_owner owner = { .lost = on_lost };

int pg_retained_init(struct pg_retained *r, struct fw_host *host, const struct pg_url *url,
                     const char *slot)
{
    *r = (struct pg_retained){ 0 };
    pg_session_init(&r->session, host, url, &owner, r);
    pg_session_hand_over(&r->session, &events, r);
    (void)snprintf(r->sql, sizeof r->sql,
                   "SELECT pg_catalog.trunc(GREATEST(pg_catalog.pg_wal_lsn_diff("
                   "pg_catalog.pg_current_wal_lsn(), restart_lsn), 0))::bigint "
                   "FROM pg_catalog.pg_replication_slots WHERE slot_name = '%s'",
                   slot);
    return fw_host_timer(host, on_timer, r, &r->timer);
}

void pg_retained_start(struct pg_retained *r)
{
    fw_timer_start(r->timer, 0);
}

void pg_retained_stop(struct pg_retained *r)
{
    fw_timer_stop(r->timer);
    if (r->session.state != PG_CLOSED)
        pg_session_lose(&r->session, "the stream is lost");
    fw_host_gauge(r->session.host, FW_GAUGE_RETAINED_BYTES, 0);
}

void pg_retained_done(struct pg_retained *r)
{
    pg_session_done(&r->session);
    if (r->timer)
        fw_timer_free(r->timer);
}
