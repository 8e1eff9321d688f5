/* The outbox of mode outbox: whether it is whole, what the role may do with it, what is in it. */
#include "doctor_pg.h"

#define OUTBOX_VERSION 130000 /* xid8 */

static void report_incomplete(struct exam *exam, const char *what)
{
    struct finding *f = report_add(exam->report, LEVEL_PROBLEM, "outbox", "%s", what);
    finding_detail(f, "Installing it again makes what is missing.");
    remedy_install(exam, f, MODE_OUTBOX);
}

/* Reading is all that the stream takes; fanwire also publishes there and removes what is old. */
static void report_rights(struct exam *exam, const PGresult *r)
{
    bool reads = exam_field_true(r, 0, "reads"), publishes = exam_field_true(r, 0, "publishes");
    if (reads && publishes && exam_field_true(r, 0, "prunes"))
        return;
    struct finding *f = report_add(exam->report, reads ? LEVEL_WARNING : LEVEL_PROBLEM,
                                   "outbox-rights", "the role %s may not %s the outbox", exam->role,
                                   !reads      ? "read"
                                   : publishes ? "remove old rows from"
                                               : "publish into");
    if (reads && !publishes)
        finding_detail(f, "Publishing through fanwire is refused; by SQL it works.");
    if (reads)
        finding_detail(f, "Unless somebody else prunes it, the table grows.");
    remedy_sql(exam, f, true, "GRANT SELECT, INSERT, DELETE ON fanwire.outbox TO %s", exam->role);
    remedy_sql(exam, f, true, "GRANT SELECT, UPDATE ON fanwire.outbox_state TO %s", exam->role);
}

static void report_content(struct exam *exam, const char *size)
{
    PGresult *r = exam_ask(
        exam, "the outbox",
        "SELECT EXISTS (SELECT FROM fanwire.outbox_state) AS whole, "
        "(SELECT extract(epoch FROM clock_timestamp() - o.created)::bigint FROM fanwire.outbox o "
        "ORDER BY o.xid, o.id LIMIT 1) AS oldest_s");
    if (r && !exam_field_true(r, 0, "whole")) {
        report_incomplete(exam, "the table fanwire.outbox_state is empty");
    } else if (r) {
        int64_t oldest_s = exam_field_number(r, 0, "oldest_s");
        struct finding *f =
            report_add(exam->report, LEVEL_OK, "outbox", "the table fanwire.outbox has %s", size);
        if (oldest_s >= 0)
            finding_detail(f, "Its oldest event is of %jd s ago.", (intmax_t)oldest_s);
        finding_number(f, "oldest_s", oldest_s);
    }
    PQclear(r);
}

static void look_at_tables(struct exam *exam)
{
    PGresult *r =
        exam_ask(exam, "the outbox",
                 "SELECT has_table_privilege('fanwire.outbox', 'SELECT') "
                 "AND has_table_privilege('fanwire.outbox_state', 'SELECT') AS reads, "
                 "has_table_privilege('fanwire.outbox', 'INSERT') AS publishes, "
                 "has_table_privilege('fanwire.outbox', 'DELETE') "
                 "AND has_table_privilege('fanwire.outbox_state', 'UPDATE') AS prunes, "
                 "pg_size_pretty(pg_total_relation_size('fanwire.outbox')) AS size, "
                 "current_setting('fanwire.notify', true) IS NOT DISTINCT FROM 'off' AS silent");
    if (!r)
        return;
    report_rights(exam, r);
    if (exam_field_true(r, 0, "reads"))
        report_content(exam, exam_field(r, 0, "size"));
    if (exam_field_true(r, 0, "silent"))
        (void)report_add(exam->report, LEVEL_NOTE, "outbox-notify",
                         "fanwire.notify is off: fanwire is not woken and polls");
    PQclear(r);
}

void exam_outbox(struct exam *exam)
{
    if (exam->version < OUTBOX_VERSION)
        (void)report_add(exam->report, exam_level(exam, MODE_OUTBOX), "outbox-version",
                         "mode outbox needs PostgreSQL 13");
    if (exam->mode != MODE_OUTBOX || !exam->installed)
        return;
    PGresult *r = exam_ask(exam, "the outbox",
                           "SELECT to_regclass('fanwire.outbox') IS NOT NULL "
                           "AND to_regclass('fanwire.outbox_state') IS NOT NULL AS there");
    if (exam_field_true(r, 0, "there"))
        look_at_tables(exam);
    else if (r)
        report_incomplete(exam, "a table of the outbox is gone");
    PQclear(r);
}
