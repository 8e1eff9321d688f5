/* fanwire doctor postgres://…: looks at a server and its database, concludes which mode is
 * followed.
 *
 * Everything is asked by statements that work on any server since version 12, whatever is installed
 * and whatever the role may see; what could not be asked is a finding, too. Nothing is written but
 * one NOTIFY of a random name. */
#include "doctor_pg.h"
#include "doctor_quote.h"
#include "doctor_sources.h"

#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION_MIN    120000
#define VERSION_OUTBOX 130000
#define VERSION_WAL    140000
#define CONNECTIONS    4 /* that fanwire opens at most */

const char *const exam_modes[N_MODES] = { "notify", "outbox", "wal" };

static const char *const promises[N_MODES] = {
    "live events, and a gap after each lost connection",
    "every committed event once, in one order on all servers, across restarts; an open transaction "
    "that writes delays it",
    "every committed event once, in commit order, across restarts of anything",
};
static const char temporary_promise[] =
    "every committed event once, in commit order; a gap after each lost connection, as the slot is "
    "temporary";

static int mode_of(const char *name)
{
    for (int i = 0; i < N_MODES; i++)
        if (!strcmp(name, exam_modes[i]))
            return i;
    return -1;
}

/* ---- the server ---- */

/* Debian names clusters by version and name, which its own tool restarts. */
static void find_restart(struct exam *exam, const char *directory)
{
    char version[16], name[64];
    int end = 0;
    struct buf command = buf_make(8192);
    if (sscanf(directory, "/var/lib/postgresql/%15[0-9]/%63[A-Za-z0-9_-]%n", version, name, &end) ==
            2 &&
        directory[end] == '\0') {
        (void)buf_printf(&command, "pg_ctlcluster %s %s restart", version, name);
    } else if (*directory) {
        (void)buf_append_str(&command, "pg_ctl -D ");
        quote_shell(&command, directory);
        (void)buf_append_str(&command, " restart");
    } else { /* only told to pg_read_all_settings */
        (void)buf_append_str(&command, "systemctl restart postgresql");
    }
    if (buf_append(&command, "", 1) == 0)
        exam->restart = strdup((const char *)command.data);
    buf_done(&command);
}

static void look_at_encoding(struct exam *exam, const char *encoding)
{
    bool none = !strcmp(encoding, "SQL_ASCII");
    bool whole = !strcmp(encoding, "UTF8") || !strcmp(encoding, "LATIN1");
    struct finding *f = report_add(exam->report, whole ? LEVEL_OK : LEVEL_WARNING, "encoding",
                                   "the database's encoding is %s", encoding);
    finding_text(f, "encoding", encoding);
    if (whole)
        return;
    finding_detail(f, none ? "That is none: text need not be UTF-8, in which events travel."
                           : "Not all of its text has a form in UTF-8, in which events travel.");
    finding_detail(f,
                   "fanwire_publish() refuses what has none. A watched row with it is told in "
                   "part (\"partial\":true); in mode wal %s.",
                   none ? "with U+FFFD for each such byte"
                        : "the rest of its transaction becomes a gap");
    finding_detail(f, "A new database with ENCODING 'UTF8' is the way out.");
}

static void look_at_standby(struct exam *exam)
{
    if (!exam->standby) {
        (void)report_add(exam->report, LEVEL_OK, "primary", "the server is a primary");
        return;
    }
    bool reads = exam->mode == MODE_OUTBOX;
    struct finding *f = report_add(exam->report, reads ? LEVEL_WARNING : LEVEL_PROBLEM, "primary",
                                   "the server is a standby");
    if (reads)
        finding_detail(f,
                       "It can be read, by polling; publishing through fanwire needs the primary.");
    else
        finding_detail(f, "In mode %s only a primary can be read.", exam_modes[exam->mode]);
    finding_detail(f, "Give the primary's address, or all of them: "
                      "postgres://a,b/app?target_session_attrs=read-write.");
    struct exam_failure ignored;
    PGresult *r = exam_query(exam->conn,
                             "SELECT sender_host, sender_port FROM pg_stat_wal_receiver", &ignored);
    if (exam_field(r, 0, "sender_host")[0])
        finding_detail(f, "It follows %s port %s.", exam_field(r, 0, "sender_host"),
                       exam_field(r, 0, "sender_port"));
    PQclear(r);
}

static void report_stranger(struct exam *exam, const struct exam_failure *failure)
{
    struct finding *f = report_add(exam->report, LEVEL_PROBLEM, "server",
                                   "it does not answer as a PostgreSQL database does");
    if (!strcmp(PQdb(exam->conn), "pgbouncer"))
        finding_detail(f, "The database pgbouncer is PgBouncer's own console.");
    else
        finding_quote(f, failure->text);
    exam->report->unreachable = true;
}

static bool look_at_server(struct exam *exam)
{
    static const char sql[] =
        "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby, "
        "pg_backend_pid() AS pid, "
        "current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync, "
        "host(inet_server_addr()) AS address, current_setting('port') AS port, "
        "(SELECT setting FROM pg_settings WHERE name = 'data_directory') AS directory";
    struct exam_failure failure;
    PGresult *r = exam_query(exam->conn, sql, &failure);
    if (!r) {
        report_stranger(exam, &failure);
        return false;
    }
    bool old = exam->version < VERSION_MIN;
    struct finding *f =
        report_add(exam->report, old ? LEVEL_PROBLEM : LEVEL_OK, "version", "PostgreSQL %s%s",
                   exam_field(r, 0, "version"), old ? "; fanwire needs 12 or later" : "");
    finding_number(f, "version", exam->version);
    exam->standby = exam_field_true(r, 0, "standby");
    exam->pooled = exam_field_number(r, 0, "pid") != PQbackendPID(exam->conn);
    find_restart(exam, exam_field(r, 0, "directory"));
    exam->report->failed |= !exam->restart;
    (void)snprintf(exam->server_host, sizeof(exam->server_host), "%s", exam_field(r, 0, "address"));
    (void)snprintf(exam->server_port, sizeof(exam->server_port), "%s", exam_field(r, 0, "port"));
    look_at_encoding(exam, exam_field(r, 0, "encoding"));
    if (!strcmp(exam_field(r, 0, "fsync"), "off"))
        finding_detail(report_add(exam->report, LEVEL_WARNING, "fsync", "fsync is off"),
                       "A crash of its machine may lose or destroy what was committed; no mode "
                       "can promise anything then.");
    PQclear(r);
    return !old && !exam->report->failed;
}

/* ---- the role ---- */

static void look_at_connections(struct exam *exam, const PGresult *r)
{
    int64_t limit = exam_field_number(r, 0, "rolconnlimit");
    int64_t left = exam_field_number(r, 0, "left");
    if (limit >= 0 && limit < CONNECTIONS) {
        struct finding *f = report_add(exam->report, LEVEL_WARNING, "connections",
                                       "the role may have %jd connections; fanwire opens up to %d",
                                       (intmax_t)limit, CONNECTIONS);
        remedy_sql(exam, f, true, "ALTER ROLE %s CONNECTION LIMIT %d", exam->role, CONNECTIONS + 1);
    } else {
        bool few = left < CONNECTIONS;
        struct finding *f =
            report_add(exam->report, few ? LEVEL_WARNING : LEVEL_OK, "connections",
                       "%jd connections of %s are free", (intmax_t)(left < 0 ? 0 : left),
                       exam_field(r, 0, "max_connections"));
        finding_number(f, "free", left);
        if (few)
            finding_detail(f, "Fanwire opens up to %d.", CONNECTIONS);
    }
}

static void look_at_role(struct exam *exam)
{
    static const char sql[] =
        "SELECT quote_ident(r.rolname) AS role, r.rolsuper, r.rolconnlimit, "
        "r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_roles g "
        "WHERE g.rolname = 'rds_replication' AND pg_has_role(g.oid, 'MEMBER')) AS replication, "
        "coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace "
        "WHERE nspname = 'public'), false) "
        "AND has_database_privilege(current_database(), 'CREATE') AS may_install, "
        "r.rolsuper OR pg_has_role('pg_read_all_stats', 'MEMBER') AS sees_others, "
        "(SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1) "
        "AS superuser, current_setting('max_connections') AS max_connections, "
        "current_setting('max_connections')::int "
        "- current_setting('superuser_reserved_connections')::int "
        "- (SELECT sum(numbackends) FROM pg_stat_database)::int AS left "
        "FROM pg_roles r WHERE r.rolname = current_user";
    PGresult *r = exam_ask(exam, "the role", sql);
    exam->role = strdup(r ? exam_field(r, 0, "role") : "");
    exam->superuser_name =
        strdup(exam_field(r, 0, "superuser")[0] ? exam_field(r, 0, "superuser") : "postgres");
    exam->superuser = exam_field_true(r, 0, "rolsuper");
    exam->replication = exam_field_true(r, 0, "replication");
    exam->may_install = exam_field_true(r, 0, "may_install");
    exam->sees_others = exam_field_true(r, 0, "sees_others");
    if (!exam->role || !exam->superuser_name)
        exam->report->failed = true;
    if (!r || exam->report->failed) {
        PQclear(r);
        return;
    }
    struct finding *f =
        report_add(exam->report, LEVEL_OK, "role", "the role %s%s may connect, LISTEN and NOTIFY%s",
                   exam->role, exam->superuser ? " (superuser)" : "",
                   exam->may_install ? ", and install fanwire's SQL"
                                     : "; not install fanwire's SQL");
    finding_text(f, "role", exam->role);
    finding_flag(f, "superuser", exam->superuser);
    finding_flag(f, "replication", exam->replication);
    finding_flag(f, "may_install", exam->may_install);
    look_at_connections(exam, r);
    PQclear(r);
}

/* ---- what is installed ---- */

/* The version of the SQL that this program prints, as its first line says; 0: not known. */
static int own_sql_version(int mode)
{
    const char *sql = fw_sql("postgres", mode >= 0 ? exam_modes[mode] : NULL);
    const char *at = sql ? strstr(sql, ", version ") : NULL;
    return at ? (int)strtol(at + 10, NULL, 10) : 0;
}

static void report_installed(struct exam *exam, const PGresult *r, int mode)
{
    int version = (int)exam_field_number(r, 0, "version"), own = own_sql_version(mode);
    bool newer = own > 0 && version > own, older = version < own;
    struct finding *f = report_add(exam->report,
                                   newer   ? LEVEL_PROBLEM
                                   : older ? LEVEL_WARNING
                                           : LEVEL_OK,
                                   "sql", "fanwire's SQL is installed: mode %s, version %d%s",
                                   exam_field(r, 0, "mode"), version,
                                   newer   ? ", which is newer than this fanwire"
                                   : older ? ", which is older than this fanwire"
                                           : "");
    finding_number(f, "version", version);
    finding_text(f, "mode", exam_field(r, 0, "mode"));
    finding_text(f, "installed_by", exam_field(r, 0, "installed_by"));
    if (newer)
        finding_detail(f, "Use the fanwire that it came from, or a later one.");
    if (older && mode >= 0)
        remedy_install(exam, f, mode);
}

static void report_none_installed(struct exam *exam)
{
    struct finding *f =
        report_add(exam->report, exam->mode == MODE_NOTIFY ? LEVEL_NOTE : LEVEL_PROBLEM, "sql",
                   "fanwire's SQL is not installed");
    if (exam->mode == MODE_NOTIFY)
        finding_detail(f, "Plain NOTIFY works without it; fanwire_publish() and fanwire_watch() "
                          "need it.");
    else
        finding_detail(f, "Mode %s cannot do without it.", exam_modes[exam->mode]);
    if (!exam->may_install)
        finding_detail(f, "The role %s may not install it: another one must.", exam->role);
    remedy_install(exam, f, exam->mode);
}

static void report_contradiction(struct exam *exam, int installed)
{
    struct finding *f = report_add(exam->report, LEVEL_PROBLEM, "mode",
                                   "the URL says mode %s, the installed SQL is for mode %s",
                                   exam_modes[exam->asked_mode], exam_modes[installed]);
    finding_detail(f, "Leave mode= out of the URL, or install the other in its place; tables that "
                      "are watched stay watched:");
    remedy_install(exam, f, exam->asked_mode);
}

/* The installed mode, -1 when nothing is there, -2 when that is not known. */
static int read_installed(struct exam *exam)
{
    PGresult *r = exam_ask(
        exam, "fanwire's SQL",
        "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE n.nspname = 'public' AND p.proname = 'fanwire_status') AS there");
    bool known = r != NULL;
    exam->installed = exam_field_true(r, 0, "there");
    PQclear(r);
    if (!exam->installed)
        return known ? -1 : -2;
    r = exam_ask(exam, "fanwire's SQL", "SELECT * FROM public.fanwire_status()");
    int mode = r ? mode_of(exam_field(r, 0, "mode")) : -2;
    if (r && PQntuples(r) == 0) {
        (void)report_add(exam->report, LEVEL_WARNING, "sql",
                         "fanwire's SQL is installed by halves: fanwire_status() says nothing");
        mode = -2;
    } else if (r) {
        report_installed(exam, r, mode);
        if (mode == -1)
            (void)report_add(exam->report, LEVEL_PROBLEM, "mode",
                             "the installed SQL is for mode %s, which this fanwire does not know",
                             exam_field(r, 0, "mode"));
        mode = mode == -1 ? -2 : mode;
    }
    PQclear(r);
    return mode;
}

static void choose_mode(struct exam *exam)
{
    int installed = read_installed(exam);
    struct report *report = exam->report;
    exam->mode = exam->asked_mode >= 0 ? exam->asked_mode
                 : installed >= 0      ? installed
                                       : MODE_NOTIFY;
    report->why = exam->asked_mode >= 0 ? "the URL says so"
                  : installed >= 0      ? "the installed SQL says so"
                                        : "nothing else is installed";
    bool temporary = exam->mode == MODE_WAL && !exam->url->node[0];
    report->promise = temporary ? temporary_promise : promises[exam->mode];
    report->durable = exam->mode != MODE_NOTIFY && !temporary;
    (void)snprintf(report->mode, sizeof(report->mode), "%s", exam_modes[exam->mode]);
    if (installed == -1)
        report_none_installed(exam);
    if (installed >= 0 && exam->asked_mode >= 0 && installed != exam->asked_mode)
        report_contradiction(exam, installed);
}

/* ---- what would be better ---- */

static void suggest_outbox(struct exam *exam)
{
    struct finding *f =
        report_add(exam->report, LEVEL_NOTE, "better-outbox", "mode outbox would lose nothing");
    finding_detail(f, "It takes a table and no privilege, and works through poolers: %s.",
                   promises[MODE_OUTBOX]);
    remedy_install(exam, f, MODE_OUTBOX);
}

static void suggest_wal(struct exam *exam)
{
    bool ready = exam->logical && exam->replication && exam->free_slot && exam->free_sender;
    struct finding *f =
        report_add(exam->report, LEVEL_NOTE, "better-wal", "mode wal would lose nothing%s",
                   ready ? "" : ", once the server allows it (above)");
    finding_detail(
        f,
        "It needs no table, and writers do not wait for each other: %s, with fanwire serve "
        "--node NAME.",
        promises[MODE_WAL]);
    finding_flag(f, "ready", ready);
    remedy_install(exam, f, MODE_WAL);
}

static void suggest(struct exam *exam)
{
    if (exam->standby || exam->mode != MODE_NOTIFY || exam->report->unreachable)
        return;
    if (exam->version >= VERSION_OUTBOX)
        suggest_outbox(exam);
    if (exam->version >= VERSION_WAL)
        suggest_wal(exam);
}

/* ---- all of it ---- */

static void look_at_all(struct exam *exam)
{
    if (!look_at_server(exam))
        return;
    look_at_role(exam);
    exam_find_provider(exam);
    if (exam->report->failed)
        return;
    choose_mode(exam);
    look_at_standby(exam);
    exam_listen(exam);
    exam_wal(exam);
    exam_outbox(exam);
    exam_watched(exam);
    exam_horizon(exam);
    suggest(exam);
    if (exam->report->unreachable) { /* it went away meanwhile: nothing is known */
        exam->report->mode[0] = '\0';
        exam->report->durable = false;
    }
}

int doctor_postgres(struct report *report, const char *url, const char *drop_slot,
                    struct fw_error *err)
{
    struct pg_url parsed;
    struct exam exam = { .report = report, .url = &parsed, .mode = MODE_NOTIFY };
    int r = pg_url_parse(url, &parsed, err);
    if (r < 0)
        return r;
    exam.asked_mode = mode_of(parsed.mode);
    exam_connect(&exam);
    if (exam.conn) {
        exam.version = PQserverVersion(exam.conn);
        if (drop_slot)
            exam_drop_slot(&exam, drop_slot);
        else
            look_at_all(&exam);
    }
    PQfinish(exam.conn);
    free(exam.role);
    free(exam.superuser_name);
    free(exam.restart);
    pg_url_done(&parsed);
    return report->failed ? error_set(err, -ENOMEM, "out of memory") : 0;
}
