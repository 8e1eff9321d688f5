/* What mode wal needs of a server, and the replication slots that fanwire has there. */
#include "doctor_pg.h"

#include "doctor_quote.h"

#include <stdio.h>
#include <string.h>

#define SLOT_KEEPS_MUCH (1ll << 30) /* bytes of WAL that somebody should know of */
#define WAL_VERSION     140000      /* pgoutput tells messages since then */

/* Only such are fanwire's, for listing and for dropping. */
#define IS_FANWIRES "starts_with(s.slot_name, 'fanwire_') AND s.slot_type = 'logical'"

/* ---- settings ---- */

static void look_at_level(struct exam *exam, const PGresult *facts)
{
    const char *level = exam_field(facts, 0, "wal_level");
    exam->logical = !strcmp(level, "logical");
    if (exam->logical) {
        finding_text(report_add(exam->report, LEVEL_OK, "wal-level", "wal_level is logical"),
                     "wal_level", level);
        return;
    }
    struct finding *f = report_add(exam->report, exam_level(exam, MODE_WAL), "wal-level",
                                   "wal_level is %s; mode wal needs logical", level);
    finding_text(f, "wal_level", level);
    if (exam_field_true(facts, 0, "pending")) {
        finding_detail(f, "It was changed and takes effect with the next restart.");
        finding_command(f, "%s", exam->restart);
        return;
    }
    remedy_setting(exam, f, "wal_level", "logical", "logical", true);
}

/* Managed databases may give the right by another role: where the role's own attribute does not say
 * so, the attempt does. */
static void look_at_role(struct exam *exam, bool works)
{
    exam->replication |= works;
    if (exam->replication) {
        (void)report_add(exam->report, LEVEL_OK, "replication-role", "the role may replicate");
        return;
    }
    struct finding *f =
        report_add(exam->report, exam_level(exam, MODE_WAL), "replication-role",
                   "the role %s may not replicate; mode wal needs that", exam->role);
    remedy_replication(exam, f);
}

/* One setting that limits how many there may be. */
static bool look_at_room(struct exam *exam, const PGresult *facts, const char *id,
                         const char *setting, const char *what, bool has_own)
{
    int64_t max = exam_field_number(facts, 0, setting);
    int64_t used = exam_field_number(facts, 0, id);
    bool room = used < max || has_own;
    struct finding *f = report_add(exam->report, room ? LEVEL_OK : exam_level(exam, MODE_WAL), id,
                                   "%jd of %jd %s are in use%s", (intmax_t)used, (intmax_t)max,
                                   what, room ? "" : "; mode wal needs one");
    finding_number(f, "used", used);
    finding_number(f, "max", max);
    if (!room) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%jd", (intmax_t)(max + 10));
        remedy_setting(exam, f, setting, value, value, true);
    }
    return room;
}

static void look_at_limit(struct exam *exam, const PGresult *facts)
{
    const char *limit = exam_field(facts, 0, "keep");
    bool bounded = strcmp(limit, "-1") != 0;
    if (!limit[0]) /* before 13 there is none */
        return;
    struct finding *f =
        report_add(exam->report,
                   bounded                  ? LEVEL_OK
                   : exam->mode == MODE_WAL ? LEVEL_WARNING
                                            : LEVEL_NOTE,
                   "slot-limit",
                   bounded ? "max_slot_wal_keep_size is %s"
                           : "max_slot_wal_keep_size is %s: a slot that nobody reads keeps WAL "
                             "until the disk is full",
                   bounded ? limit : "unlimited");
    finding_text(f, "max_slot_wal_keep_size", limit);
    if (bounded)
        return;
    finding_detail(f, "With a limit, a fanwire that was away for too long is told so: its clients "
                      "get a gap, and the database goes on.");
    remedy_setting(exam, f, "max_slot_wal_keep_size", "'4GB'", "4096", false);
}

/* ---- the replication connection ---- */

/* Proves it: the right, a free sender, pg_hba.conf, and that no pooler refuses it. */
static PGresult *try_replication(struct exam *exam, struct exam_failure *failure)
{
    PGconn *conn = exam_open_again(exam->url, exam->conn, "replication", "database", failure);
    PGresult *result = conn ? exam_query(conn, "IDENTIFY_SYSTEM", failure) : NULL;
    PQfinish(conn);
    return result;
}

static void report_replication(struct exam *exam, const PGresult *result,
                               const struct exam_failure *failure)
{
    struct finding *f =
        report_add(exam->report, result ? LEVEL_OK : exam_level(exam, MODE_WAL), "replication",
                   result ? "a replication connection works"
                          : "a replication connection does not work; mode wal needs one");
    if (result) {
        finding_text(f, "system", exam_field(result, 0, "systemid"));
        finding_text(f, "timeline", exam_field(result, 0, "timeline"));
    } else {
        finding_quote(f, failure->text);
        if (exam->pooled)
            finding_detail(f, "Most poolers pass none on: use the server's own address.");
    }
    exam->replication &= result != NULL;
}

/* ---- slots ---- */

static const char slots_sql[] =
    "SELECT s.slot_name, s.database, s.active, s.active_pid, a.application_name, "
    "host(a.client_addr) AS client_addr, to_jsonb(s) ->> 'wal_status' AS wal_status, "
    "pg_size_pretty(r.bytes) AS pretty, r.bytes::bigint AS bytes "
    "FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid, "
    "LATERAL (SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_lsn() END, s.restart_lsn) AS bytes) r WHERE " IS_FANWIRES
    " ORDER BY s.slot_name LIMIT 100";

static void describe_slot(struct exam *exam, const PGresult *slots, int row)
{
    const char *name = exam_field(slots, row, "slot_name");
    const char *status = exam_field(slots, row, "wal_status");
    const char *pretty = exam_field(slots, row, "pretty");
    const char *application = exam_field(slots, row, "application_name");
    const char *address = exam_field(slots, row, "client_addr");
    bool active = exam_field_true(slots, row, "active");
    bool lost = !strcmp(status, "lost"), endangered = !strcmp(status, "unreserved");
    bool much = exam_field_number(slots, row, "bytes") >= SLOT_KEEPS_MUCH;
    struct finding *f = report_add(exam->report,
                                   lost || endangered || (!active && much) ? LEVEL_WARNING
                                   : active                                ? LEVEL_OK
                                                                           : LEVEL_NOTE,
                                   "slot", "slot %s of database %s: %s%s%s", name,
                                   exam_field(slots, row, "database"),
                                   active ? "in use by pid " : "nobody reads it",
                                   active ? exam_field(slots, row, "active_pid") : "",
                                   lost ? ", and it is lost" : "");
    if (active && application[0])
        finding_detail(f, "Its reader is called %s%s%s.", application, address[0] ? ", from " : "",
                       address);
    if (pretty[0])
        finding_detail(f, "It keeps %s of WAL.", pretty);
    if (lost)
        finding_detail(f, "The server has removed WAL that it needed: its fanwire tells everybody "
                          "a gap and begins anew.");
    if (endangered)
        finding_detail(f, "It keeps more than max_slot_wal_keep_size, and is lost with the next "
                          "checkpoint unless its reader catches up.");
    finding_text(f, "slot", name);
    finding_flag(f, "active", active);
    if (active) {
        finding_number(f, "pid", exam_field_number(slots, row, "active_pid"));
        finding_text(f, "application", application);
    }
    finding_number(f, "retained_bytes", exam_field_number(slots, row, "bytes"));
    finding_text(f, "wal_status", status[0] ? status : NULL);
    if (active)
        return;
    finding_detail(f, "If no fanwire will come back for it, drop it.");
    struct buf command = buf_make(1024);
    (void)buf_printf(&command, "fanwire doctor --drop-slot %s ", name);
    quote_shell(&command, exam->report->source);
    if (buf_append(&command, "", 1) == 0)
        finding_command(f, "%s", (const char *)command.data);
    buf_done(&command);
}

static void look_at_slots(struct exam *exam)
{
    PGresult *slots = exam_ask(exam, "replication slots", slots_sql);
    for (int row = 0; slots && row < PQntuples(slots); row++)
        describe_slot(exam, slots, row);
    PQclear(slots);
}

/* ---- the node ---- */

static void report_node(struct exam *exam, const PGresult *r)
{
    const char *node = exam->url->node;
    struct finding *f;
    if (PQntuples(r) == 0) {
        f = report_add(exam->report, LEVEL_NOTE, "node", "the slot fanwire_%s is not there yet",
                       node);
        finding_detail(f, "fanwire serve makes it, which waits until all transactions that are "
                          "open by then have ended.");
    } else if (!exam_field_true(r, 0, "here")) {
        f = report_add(exam->report, LEVEL_PROBLEM, "node",
                       "the slot fanwire_%s is of another database, or not fanwire's", node);
        finding_detail(f, "Choose another node, or drop it.");
    } else if (exam_field_true(r, 0, "active")) {
        f = report_add(exam->report, LEVEL_NOTE, "node", "the node %s is running: pid %s (%s)",
                       node, exam_field(r, 0, "active_pid"), exam_field(r, 0, "application_name"));
        finding_detail(f, "Each server needs a node of its own.");
    } else {
        f = report_add(exam->report, LEVEL_OK, "node", "the slot fanwire_%s waits for its server",
                       node);
    }
    finding_text(f, "node", node);
}

/* Only a node's slot outlives the connection. Returns true when it is there. */
static bool look_at_node(struct exam *exam)
{
    const char *node = exam->url->node;
    char sql[512];
    if (exam->mode != MODE_WAL)
        return false;
    if (!node[0]) {
        finding_detail(report_add(exam->report, LEVEL_NOTE, "node",
                                  "no node is named: the slot would be temporary"),
                       "Then a lost connection is a gap. fanwire serve --node NAME, or ?node=NAME "
                       "in the URL, makes it durable; each server has a name of its own.");
        return false;
    }
    (void)snprintf(sql, sizeof(sql),
                   "SELECT s.database = current_database() AND s.plugin = 'pgoutput' AS here, "
                   "s.active, s.active_pid, a.application_name FROM pg_replication_slots s "
                   "LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid "
                   "WHERE s.slot_name = 'fanwire_%s'",
                   node);
    PGresult *r = exam_ask(exam, "the node's slot", sql);
    bool there = r && PQntuples(r) > 0;
    if (r)
        report_node(exam, r);
    PQclear(r);
    return there;
}

/* It has to be older than what is decoded, so the SQL makes it, before there is a slot. */
static void look_at_publication(struct exam *exam)
{
    if (exam->mode != MODE_WAL || !exam->installed)
        return;
    PGresult *r =
        exam_ask(exam, "the publication",
                 "SELECT (SELECT count(*) FROM pg_publication_tables "
                 "WHERE pubname = 'fanwire' AND schemaname <> 'fanwire') AS tables, "
                 "EXISTS (SELECT FROM pg_publication WHERE pubname = 'fanwire') AS there");
    if (r && exam_field_true(r, 0, "there")) {
        struct finding *f = report_add(exam->report, LEVEL_OK, "publication",
                                       "the publication fanwire is there; %s tables are watched",
                                       exam_field(r, 0, "tables"));
        finding_number(f, "tables", exam_field_number(r, 0, "tables"));
    } else if (r) {
        struct finding *f = report_add(exam->report, LEVEL_PROBLEM, "publication",
                                       "the publication fanwire is gone");
        finding_detail(f, "Installing it again makes it, and a new slot is needed: what was "
                          "written meanwhile cannot be read.");
        remedy_install(exam, f, MODE_WAL);
    }
    PQclear(r);
}

void exam_wal(struct exam *exam)
{
    static const char sql[] =
        "SELECT current_setting('wal_level') AS wal_level, "
        "(SELECT pending_restart FROM pg_settings WHERE name = 'wal_level') AS pending, "
        "current_setting('max_replication_slots') AS max_replication_slots, "
        "(SELECT count(*) FROM pg_replication_slots) AS slots, "
        "current_setting('max_wal_senders') AS max_wal_senders, "
        "(SELECT count(*) FROM pg_stat_replication) AS senders, "
        "(SELECT count(*) FROM pg_stat_replication WHERE application_name = 'fanwire') AS own, "
        "current_setting('max_slot_wal_keep_size', true) AS keep";
    PGresult *facts = exam_ask(exam, "write-ahead logging", sql);
    if (!facts)
        return;
    if (exam->version < WAL_VERSION)
        (void)report_add(exam->report, exam_level(exam, MODE_WAL), "wal-version",
                         "mode wal needs PostgreSQL 14");
    look_at_level(exam, facts);
    struct exam_failure failure = { 0 };
    bool try =
        exam_field_number(facts, 0, "max_wal_senders") > exam_field_number(facts, 0, "senders");
    PGresult *identity = try ? try_replication(exam, &failure) : NULL;
    bool granted = exam->replication;
    look_at_role(exam, identity != NULL);
    look_at_publication(exam);
    look_at_slots(exam);
    bool has_own = look_at_node(exam);
    exam->free_slot =
        look_at_room(exam, facts, "slots", "max_replication_slots", "replication slots", has_own);
    exam->free_sender = look_at_room(exam, facts, "senders", "max_wal_senders", "WAL senders",
                                     exam_field_number(facts, 0, "own") > 0);
    look_at_limit(exam, facts);
    if (try && (granted || identity))
        report_replication(exam, identity, &failure);
    PQclear(identity);
    PQclear(facts);
}

/* ---- dropping one ---- */

static void refuse(struct exam *exam, const char *name, const char *why)
{
    (void)report_add(exam->report, LEVEL_PROBLEM, "drop-slot", "the slot %s is not dropped: %s",
                     name, why);
}

static void drop(struct exam *exam, const char *name)
{
    char sql[160];
    struct exam_failure failure = { 0 };
    (void)snprintf(sql, sizeof(sql), "SELECT pg_drop_replication_slot('%s')", name);
    PGresult *result = exam_query(exam->conn, sql, &failure);
    if (result)
        (void)report_add(exam->report, LEVEL_OK, "drop-slot", "the slot %s is dropped", name);
    else
        refuse(exam, name, failure.text);
    PQclear(result);
}

/* Names of slots have these characters only, so one with others exists nowhere. */
static bool may_be_slot(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len < 64 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

void exam_drop_slot(struct exam *exam, const char *name)
{
    char sql[512];
    if (!may_be_slot(name)) {
        refuse(exam, name, "a slot's name has lower-case letters, digits and _ only");
        return;
    }
    (void)snprintf(sql, sizeof(sql),
                   "SELECT (" IS_FANWIRES ") AS ours, s.active, s.active_pid, a.application_name "
                   "FROM pg_replication_slots s LEFT JOIN pg_stat_activity a "
                   "ON a.pid = s.active_pid WHERE s.slot_name = '%s'",
                   name);
    PGresult *slot = exam_ask(exam, "the slot", sql);
    if (!slot)
        return;
    char why[EXAM_TEXT_MAX];
    if (PQntuples(slot) == 0) {
        refuse(exam, name, "there is none of this name");
    } else if (!exam_field_true(slot, 0, "ours")) {
        refuse(exam, name, "it is not fanwire's, whose logical slots begin with fanwire_");
    } else if (exam_field_true(slot, 0, "active")) {
        (void)snprintf(why, sizeof(why), "it is in use by pid %s (%s); end that first",
                       exam_field(slot, 0, "active_pid"), exam_field(slot, 0, "application_name"));
        refuse(exam, name, why);
    } else {
        drop(exam, name);
    }
    PQclear(slot);
}
