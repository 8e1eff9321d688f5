/* What holds the server back: transactions that stay open, in any database of the cluster, and the
 * queue of notifications. */
#include "doctor_pg.h"

#include <stdio.h>
#include <string.h>

#define LONG_S 60

/* Which modes wait for an open transaction that has written: outbox with every event, wal when a
 * slot is made. */
static enum level level_of(const struct exam *exam, int64_t age_s)
{
    return exam->mode != MODE_NOTIFY && age_s >= LONG_S ? LEVEL_WARNING : LEVEL_NOTE;
}

static const char consequence[] =
    "In mode outbox, events of later transactions wait for it; in mode wal a new slot does.";

static void show_age(struct finding *f, const struct exam *exam, int64_t age_s)
{
    if (age_s >= 0)
        finding_number(f, "age_s", age_s);
    else if (!exam->sees_others)
        remedy_sql(exam, f, true, "GRANT pg_read_all_stats TO %s", exam->role);
}

/* pid, name and xid of others are visible to everybody; since when, to pg_read_all_stats. */
static void look_at_writers(struct exam *exam)
{
    PGresult *r = exam_ask(exam, "open transactions",
                           "SELECT a.pid, a.application_name, d.datname, a.state, "
                           "extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS age_s, "
                           "age(a.backend_xid) AS xids, pg_get_userbyid(a.usesysid) AS role "
                           "FROM pg_stat_activity a LEFT JOIN pg_database d ON d.oid = a.datid "
                           "WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid() "
                           "ORDER BY age(a.backend_xid) DESC LIMIT 1");
    if (r && PQntuples(r) > 0) {
        int64_t age_s = exam_field_number(r, 0, "age_s");
        char since[48] = "";
        if (age_s >= 0)
            (void)snprintf(since, sizeof(since), ", %jd s", (intmax_t)age_s);
        const char *name = exam_field(r, 0, "application_name"), *pid = exam_field(r, 0, "pid");
        struct finding *f = report_add(exam->report, level_of(exam, age_s), "xmin",
                                       "the oldest open transaction that writes: pid %s (%s)%s",
                                       pid, name[0] ? name : "without application_name", since);
        finding_detail(f, "Role %s, database %s, %jd transactions ago%s%s. %s",
                       exam_field(r, 0, "role"), exam_field(r, 0, "datname"),
                       (intmax_t)exam_field_number(r, 0, "xids"),
                       exam_field(r, 0, "state")[0] ? ", " : "", exam_field(r, 0, "state"),
                       consequence);
        finding_number(f, "pid", exam_field_number(r, 0, "pid"));
        finding_text(f, "application", name);
        show_age(f, exam, age_s);
        if (age_s >= LONG_S)
            remedy_sql(exam, f, true, "SELECT pg_terminate_backend(%s)", pid);
    } else if (r) {
        (void)report_add(exam->report, LEVEL_OK, "xmin", "no transaction that writes is open");
    }
    PQclear(r);
}

static void look_at_prepared(struct exam *exam)
{
    PGresult *r = exam_ask(exam, "prepared transactions",
                           "SELECT quote_literal(gid) AS gid, owner, database, "
                           "extract(epoch FROM clock_timestamp() - prepared)::bigint AS age_s "
                           "FROM pg_prepared_xacts ORDER BY age(transaction) DESC LIMIT 1");
    if (r && PQntuples(r) > 0) {
        int64_t age_s = exam_field_number(r, 0, "age_s");
        const char *gid = exam_field(r, 0, "gid");
        struct finding *f =
            report_add(exam->report, level_of(exam, age_s), "prepared",
                       "the oldest prepared transaction: %s, %jd s", gid, (intmax_t)age_s);
        finding_detail(f, "Of %s, in database %s. %s If nobody will finish it, roll it back there:",
                       exam_field(r, 0, "owner"), exam_field(r, 0, "database"), consequence);
        finding_number(f, "age_s", age_s);
        remedy_sql(exam, f, true, "ROLLBACK PREPARED %s", gid);
    }
    PQclear(r);
}

/* These hold back vacuum, not events. */
static void look_at_snapshots(struct exam *exam)
{
    PGresult *r =
        exam_ask(exam, "old snapshots",
                 "SELECT * FROM (SELECT 'slot ' || slot_name AS who, NULL::bigint AS age_s, "
                 "greatest(age(xmin), age(catalog_xmin)) AS xids FROM pg_replication_slots "
                 "UNION ALL SELECT 'pid ' || pid || ' (' || coalesce(application_name, '') || ')', "
                 "extract(epoch FROM clock_timestamp() - xact_start)::bigint, age(backend_xmin) "
                 "FROM pg_stat_activity WHERE backend_xid IS NULL AND pid <> pg_backend_pid()) h "
                 "WHERE xids > 1000000 OR age_s > 300 ORDER BY xids DESC NULLS LAST LIMIT 3");
    for (int row = 0; r && row < PQntuples(r); row++) {
        struct finding *f = report_add(exam->report, LEVEL_NOTE, "vacuum", "%s holds back vacuum",
                                       exam_field(r, row, "who"));
        finding_detail(f,
                       "It looks at the database as of %jd transactions ago: what was deleted "
                       "since stays on disk.",
                       (intmax_t)exam_field_number(r, row, "xids"));
    }
    PQclear(r);
}

static void look_at_queue(struct exam *exam)
{
    PGresult *r = exam_ask(exam, "the queue of notifications",
                           "SELECT round(pg_notification_queue_usage()::numeric * 100)::int "
                           "AS percent");
    int64_t percent = exam_field_number(r, 0, "percent");
    PQclear(r);
    if (percent < 0)
        return;
    struct finding *f =
        report_add(exam->report, percent >= 25 ? LEVEL_WARNING : LEVEL_OK, "notify-queue",
                   "the queue of notifications is %jd %% full", (intmax_t)percent);
    finding_number(f, "percent", percent);
    if (percent >= 25)
        finding_detail(f, "When it is full, every NOTIFY fails. Some session listens and stays in "
                          "a transaction: end it.");
}

void exam_horizon(struct exam *exam)
{
    if (exam->standby)
        return;
    look_at_writers(exam);
    look_at_prepared(exam);
    look_at_snapshots(exam);
    look_at_queue(exam);
}
