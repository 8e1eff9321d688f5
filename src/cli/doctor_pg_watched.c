/* Tables whose changes are not told, or not in full, though they are watched. */
#include "doctor_pg.h"

#include <string.h>

#define MOST "100" /* findings of a kind */
#define WATCH_AGAIN                                                                                \
    "SELECT fanwire_watch(tbl, channel, columns) FROM fanwire.watched WHERE tbl = %s::regclass"

/* ---- the publication ---- */

/* It is what the log tells by, fanwire.watching how it is told. */
static void look_at_publication(struct exam *exam)
{
    PGresult *r = exam_ask(
        exam, "what is watched",
        "SELECT w.tbl::text AS name, w.channel, c.oid IS NOT NULL AS there "
        "FROM fanwire.watching w LEFT JOIN pg_class c ON c.oid = w.tbl "
        "WHERE w.ended IS NULL AND (c.oid IS NULL OR NOT EXISTS (SELECT FROM pg_publication p "
        "JOIN pg_publication_rel m ON m.prpubid = p.oid "
        "WHERE p.pubname = 'fanwire' AND m.prrelid = w.tbl)) ORDER BY 1, 2 LIMIT " MOST);
    for (int row = 0; r && row < PQntuples(r); row++) {
        bool there = exam_field_true(r, row, "there");
        struct finding *f =
            report_add(exam->report, LEVEL_WARNING, "watched", "%s %s, watched as %s, is %s",
                       there ? "the table" : "a table, number", exam_field(r, row, "name"),
                       exam_field(r, row, "channel"),
                       there ? "not in the publication fanwire" : "gone");
        finding_detail(f, "Its changes are not told.");
        if (there)
            finding_detail(f, "Its owner puts it there again by fanwire_watch().");
        else
            finding_detail(f, "A table that was made anew under its name is to be watched anew.");
    }
    PQclear(r);
}

/* ---- columns ---- */

#define COLUMNS(table, active)                                                                     \
    "SELECT w.tbl::text AS name, quote_literal(w.tbl) AS tbl, w.channel, "                         \
    "quote_literal(w.channel) AS template, a.lacks, "                                              \
    "fanwire.lacking_columns(w.tbl, w.channel, w.columns) IS NULL AS again "                       \
    "FROM " table " w JOIN pg_class c ON c.oid = w.tbl, "                                          \
    "LATERAL (SELECT fanwire.lacking_columns(w.tbl, w.channel, w.columns || w.keys) AS lacks) a "  \
    "WHERE " active " AND a.lacks IS NOT NULL ORDER BY 1, 3 LIMIT " MOST

/* They were renamed or dropped. Of a key's it is enough to look once more. */
static void look_at_columns(struct exam *exam)
{
    PGresult *r =
        exam_ask(exam, "the columns of what is watched",
                 exam->mode == MODE_WAL ? COLUMNS("fanwire.watching", "w.ended IS NULL")
                                        : COLUMNS("fanwire.watch_triggers", "w.for_rows"));
    for (int row = 0; r && row < PQntuples(r); row++) {
        const char *tbl = exam_field(r, row, "tbl");
        struct finding *f =
            report_add(exam->report, LEVEL_WARNING, "watched-columns",
                       "the table %s, watched as %s, no longer has %s", exam_field(r, row, "name"),
                       exam_field(r, row, "channel"), exam_field(r, row, "lacks"));
        if (exam_field_true(r, row, "again")) {
            finding_detail(f, "Its changes are told without the key.");
            remedy_sql(exam, f, true, WATCH_AGAIN " AND channel = %s", tbl,
                       exam_field(r, row, "template"));
            continue;
        }
        finding_detail(
            f, "Its changes are not told, or without that column. Call fanwire_watch() with "
               "the names that it has now, and end this:");
        remedy_sql(exam, f, true, "SELECT fanwire_unwatch(%s, %s)", tbl,
                   exam_field(r, row, "template"));
    }
    PQclear(r);
}

/* ---- partitions ---- */

static const char partitions_sql[] =
    "SELECT t.oid::regclass::text AS name, quote_literal(t.oid::regclass) AS tbl, "
    "string_agg(u.part::text, ', ' ORDER BY u.part::text) AS parts, "
    "bool_or(c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index i "
    "WHERE i.indrelid = c.oid AND i.indisprimary)) AS fails "
    "FROM fanwire.published p JOIN pg_class t ON t.oid = p.relation AND t.relkind = 'p', "
    "LATERAL fanwire.unfit_partitions(t.oid) u JOIN pg_class c ON c.oid = u.part "
    "GROUP BY t.oid ORDER BY 1 LIMIT " MOST;

static void look_at_partitions(struct exam *exam)
{
    PGresult *r = exam_ask(exam, "the partitions of what is watched", partitions_sql);
    for (int row = 0; r && row < PQntuples(r); row++) {
        bool fails = exam_field_true(r, row, "fails");
        struct finding *f = report_add(
            exam->report, fails ? LEVEL_PROBLEM : LEVEL_WARNING, "watched-partitions",
            "partitions of the table %s, which is watched, lack its replica identity: %s",
            exam_field(r, row, "name"), exam_field(r, row, "parts"));
        finding_detail(f,
                       fails
                           ? "Having no key, they cannot be updated, nor rows of them deleted."
                           : "Their old rows are not known: channels that are made of them are not "
                             "told.");
        remedy_sql(exam, f, true, WATCH_AGAIN, exam_field(r, row, "tbl"));
    }
    PQclear(r);
}

/* Where a new one gets it by itself, there is nothing to remember. */
static void look_at_new_partitions(struct exam *exam)
{
    PGresult *r = exam_ask(
        exam, "the event trigger for partitions",
        "SELECT string_agg(t.oid::regclass::text, ', ' ORDER BY t.oid::regclass::text) AS names "
        "FROM fanwire.published p JOIN pg_class t ON t.oid = p.relation "
        "WHERE t.relkind = 'p' AND t.relreplident <> 'd' AND NOT EXISTS (SELECT FROM "
        "pg_event_trigger WHERE evtname = 'fanwire_partitions' AND evtenabled IN ('O', 'A'))");
    if (exam_field(r, 0, "names")[0]) {
        struct finding *f =
            report_add(exam->report, LEVEL_NOTE, "watched-new-partitions",
                       "new partitions will lack the replica identity of their table: %s",
                       exam_field(r, 0, "names"));
        finding_detail(f,
                       "Call fanwire_watch() again after making or attaching one. An event trigger "
                       "does it where a superuser has installed fanwire's SQL.");
    }
    PQclear(r);
}

void exam_watched(struct exam *exam)
{
    if (!exam->installed)
        return;
    PGresult *r =
        exam_ask(exam, "what is watched",
                 exam->mode == MODE_WAL
                     ? "SELECT to_regclass('fanwire.watching') IS NOT NULL AS there"
                     : "SELECT to_regclass('fanwire.watch_triggers') IS NOT NULL AS there");
    bool there = exam_field_true(r, 0, "there");
    PQclear(r);
    if (!there)
        return;
    if (exam->mode == MODE_WAL) {
        look_at_publication(exam);
        look_at_partitions(exam);
        look_at_new_partitions(exam);
    }
    look_at_columns(exam);
}
