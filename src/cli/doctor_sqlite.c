/* fanwire doctor sqlite:FILE: the file, its tables, and the place where it lies. It is only read;
 * whether it may be written is asked of the system, for the user that runs the doctor. */
#include "doctor_sources.h"

#include "clock.h"
#include "doctor_quote.h"
#include "error.h"
#include "sqlite_url.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LIMIT_MS       5000  /* for each question: quick_check of a large file takes minutes */
#define LOOK_EVERY     10000 /* instructions of SQLite's between two looks at the clock */
#define BUSY_MS        2000
#define WAL_LARGE      (256ll << 20)
#define DISK_LOW       (64ull << 20)
#define TABLES_VERSION 1 /* what sqlite_outbox.sql makes */

struct patient {
    struct report *report;
    const struct sqlite_url *url;
    sqlite3 *db;
    int64_t until; /* the end of the present question's time */
    char directory[PATH_MAX];
    struct buf command; /* of the moment */
    bool wal;
};

static const char promise[] = "every committed row once, in commit order, across restarts of "
                              "anything";

/* The file's name as a word of a command; "-x" would be an option. */
static const char *quoted_file(struct patient *p)
{
    buf_clear(&p->command);
    if (p->url->path[0] == '-')
        (void)buf_append_str(&p->command, "./");
    quote_shell(&p->command, p->url->path);
    return buf_append(&p->command, "", 1) == 0 ? (const char *)p->command.data : "FILE";
}

static void unreachable(struct patient *p, const char *what, const char *why, const char *advice)
{
    struct finding *f = report_add(p->report, LEVEL_PROBLEM, "file", "%s %s", what, p->url->path);
    finding_detail(f, "%s.%s%s", why, *advice ? " " : "", advice);
    p->report->unreachable = true;
}

/* ---- the place ---- */

/* Locks and shared memory do not work reliably there (sqlite.org/lockingv3.html, wal.html). */
static const char *network_file_system(const char *directory)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {
        { 0x6969, "NFS" },
        { 0xFF534D42, "CIFS" },
        { 0xFE534D42, "SMB" },
        { 0x517B, "SMB" },
        { 0x01021997, "9p" },
        { 0x5346414F, "AFS" },
        { 0x00C36400, "Ceph" },
        { 0x73757245, "Coda" },
        { 0x564C, "NCP" },
        { 0x0BD00BD0, "Lustre" },
        { 0x47504653, "GPFS" },
        { 0x7461636F, "OCFS2" },
        { 0x65735546, "FUSE" },
        { 0xAAD7AAEA, "PanFS" },
        { 0x6A656A63, "9p of a hypervisor" },
        { 0x786F4256, "VirtualBox shared folder" },
    };
    struct statfs fs;
    if (statfs(directory, &fs) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (((unsigned long)fs.f_type & 0xFFFFFFFF) == known[i].magic)
            return known[i].name;
    return NULL;
}

static void look_at_file_system(struct patient *p)
{
    const char *network = network_file_system(p->directory);
    struct statvfs fs;
    if (network)
        finding_detail(report_add(p->report, LEVEL_WARNING, "file-system",
                                  "the file lies on a network file system (%s)", network),
                       "Locks and shared memory of SQLite are not safe on most of them, and "
                       "changes by other machines are not noticed at once. Put the file on a disk "
                       "of this machine.");
    else
        (void)report_add(p->report, LEVEL_OK, "file-system", "the file system is local");
    if (statvfs(p->directory, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < DISK_LOW)
        (void)report_add(p->report, LEVEL_WARNING, "disk", "only %ju MiB of disk are free",
                         (uintmax_t)((uint64_t)fs.f_bavail * fs.f_frsize >> 20));
}

static void find_directory(struct patient *p)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", p->url->path);
    (void)snprintf(p->directory, sizeof(p->directory), "%s", dirname(path));
}

static void not_writable(struct patient *p, const char *what, const char *why)
{
    struct finding *f =
        report_add(p->report, p->url->readonly ? LEVEL_NOTE : LEVEL_PROBLEM, "permissions",
                   "user id %u may not write %s", (unsigned)geteuid(), what);
    finding_detail(f, "%s", why);
    if (!p->url->readonly)
        finding_detail(f, "Run the doctor as fanwire's user to be sure, or use ?readonly=on, with "
                          "which publishing is refused and nothing is pruned.");
}

/* -wal and -shm, or -journal, are made beside the file, by each writer. */
static void look_at_permissions(struct patient *p)
{
    static const char *const endings[] = { "", "-wal", "-shm", "-journal" };
    size_t n = p->report->n;
    if (access(p->directory, W_OK | X_OK) < 0)
        not_writable(p, p->directory, "SQLite makes files beside the database.");
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        char path[PATH_MAX + 16];
        (void)snprintf(path, sizeof(path), "%s%s", p->url->path, endings[i]);
        if (access(path, F_OK) == 0 && access(path, W_OK) < 0)
            not_writable(p, path,
                         i ? "Another user's process has made it." : "It is the database.");
    }
    if (p->report->n == n)
        (void)report_add(p->report, LEVEL_OK, "permissions",
                         "user id %u may write the file and its directory", (unsigned)geteuid());
}

/* ---- opening ---- */

/* There is no file yet. */
static void look_at_nothing(struct patient *p)
{
    if (!p->url->create || p->url->readonly) {
        unreachable(p, "there is no file", "create=off or readonly=on: it is waited for", "");
        return;
    }
    if (access(p->directory, F_OK) < 0) {
        unreachable(p, "there is no file", "Neither is there its directory",
                    "A relative path begins where fanwire is started.");
        return;
    }
    finding_detail(report_add(p->report, LEVEL_NOTE, "file", "there is no file %s yet",
                              p->url->path),
                   "fanwire serve makes it, with its tables. A relative path begins where fanwire "
                   "is started.");
    look_at_file_system(p);
    look_at_permissions(p);
}

static int on_progress(void *arg)
{
    const struct patient *p = arg;
    return clock_monotonic_ms() > p->until;
}

static bool open_file(struct patient *p)
{
    char file[PATH_MAX + 8]; /* a name like "file:x" means itself only after a directory */
    (void)snprintf(file, sizeof(file), "%s%s", p->url->path[0] == '/' ? "" : "./", p->url->path);
    if (access(p->url->path, R_OK) < 0) {
        unreachable(p, "cannot open", strerror(errno), "");
        return false;
    }
    int r = sqlite3_open_v2(file, &p->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_EXRESCODE, NULL);
    if (r == SQLITE_OK) {
        (void)sqlite3_busy_timeout(p->db, BUSY_MS);
        sqlite3_progress_handler(p->db, LOOK_EVERY, on_progress, p);
        return true;
    }
    unreachable(p, "cannot open", p->db ? sqlite3_errmsg(p->db) : "out of memory", "");
    return false;
}

/* ---- asking ---- */

/* What a failure of SQLite's means. Returns false. */
static bool fail(struct patient *p, const char *what)
{
    int code = sqlite3_extended_errcode(p->db) & 0xff;
    const char *text = sqlite3_errmsg(p->db);
    struct finding *f;
    switch (code) {
    case SQLITE_NOTADB:
        unreachable(p, "this is no SQLite database:", text, "Another file, or an encrypted one.");
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        f = report_add(p->report, LEVEL_WARNING, "locked",
                       "another process has the database locked; %s could not be asked", what);
        finding_detail(f,
                       "It was waited for %d s. Somebody holds a transaction open, or has "
                       "locked it exclusively.",
                       BUSY_MS / 1000);
        break;
    case SQLITE_CORRUPT:
        f = report_add(p->report, LEVEL_PROBLEM, "integrity", "the database is corrupt");
        finding_detail(f, "%s. Restore a backup, or save what can be read:", text);
        finding_command(f, "sqlite3 %s .recover | sqlite3 recovered.db", quoted_file(p));
        break;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
        unreachable(p, "cannot open", text,
                    "In WAL mode, who reads needs to write -shm beside it.");
        break;
    case SQLITE_INTERRUPT:
        (void)report_add(p->report, LEVEL_NOTE, "unknown", "finding out about %s takes over %d s",
                         what, LIMIT_MS / 1000);
        break;
    default:
        (void)report_add(p->report, LEVEL_WARNING, "unknown", "cannot find out about %s: %s", what,
                         text);
    }
    return false;
}

/* A statement at its first row; NULL when it failed, which was said. At the end of its rows,
 * sqlite3_data_count() is 0. */
static sqlite3_stmt *ask(struct patient *p, const char *what, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    p->until = clock_monotonic_ms() + LIMIT_MS;
    int r = sqlite3_prepare_v2(p->db, sql, -1, &stmt, NULL);
    if (r == SQLITE_OK)
        r = sqlite3_step(stmt);
    if (r == SQLITE_ROW || r == SQLITE_DONE)
        return stmt;
    (void)fail(p, what);
    (void)sqlite3_finalize(stmt);
    return NULL;
}

static const char *text_of(sqlite3_stmt *stmt, int column)
{
    const char *text =
        sqlite3_data_count(stmt) > column ? (const char *)sqlite3_column_text(stmt, column) : NULL;
    return text ? text : "";
}

/* ---- the database ---- */

static bool look_at_journal(struct patient *p)
{
    sqlite3_stmt *stmt = ask(p, "the journal", "PRAGMA journal_mode");
    if (!stmt)
        return false;
    const char *mode = text_of(stmt, 0);
    p->wal = !strcmp(mode, "wal");
    struct finding *f = report_add(p->report, p->wal ? LEVEL_OK : LEVEL_WARNING, "journal-mode",
                                   "journal_mode is %s", mode);
    finding_text(f, "journal_mode", mode);
    if (!p->wal) {
        finding_detail(f, "Readers and writers wait for each other: each look of fanwire's may "
                          "hold up a writer, which needs a busy_timeout. WAL does not have that.");
        finding_command(f, "sqlite3 %s 'PRAGMA journal_mode = WAL'", quoted_file(p));
    }
    (void)sqlite3_finalize(stmt);
    return true;
}

static void look_at_integrity(struct patient *p)
{
    sqlite3_stmt *stmt = NULL;
    p->until = clock_monotonic_ms() + LIMIT_MS;
    int r = sqlite3_prepare_v2(p->db, "PRAGMA quick_check(3)", -1, &stmt, NULL);
    if (r == SQLITE_OK)
        r = sqlite3_step(stmt);
    if ((r & 0xff) == SQLITE_INTERRUPT) {
        struct finding *f =
            report_add(p->report, LEVEL_NOTE, "integrity",
                       "quick_check found nothing wrong in the %d s that it was given",
                       LIMIT_MS / 1000);
        finding_detail(f, "The whole file takes longer:");
        finding_command(f, "sqlite3 %s 'PRAGMA quick_check'", quoted_file(p));
    } else if (r == SQLITE_ROW && !strcmp(text_of(stmt, 0), "ok")) {
        (void)report_add(p->report, LEVEL_OK, "integrity", "quick_check finds nothing wrong");
    } else if (r == SQLITE_ROW) {
        struct finding *f =
            report_add(p->report, LEVEL_PROBLEM, "integrity", "the database is corrupt");
        for (; r == SQLITE_ROW; r = sqlite3_step(stmt))
            finding_detail(f, "%.300s.", text_of(stmt, 0));
        finding_detail(f, "Restore a backup, or save what can be read:");
        finding_command(f, "sqlite3 %s .recover | sqlite3 recovered.db", quoted_file(p));
    } else {
        (void)fail(p, "its integrity");
    }
    (void)sqlite3_finalize(stmt);
}

static void look_at_size(struct patient *p)
{
    char path[PATH_MAX + 16];
    struct stat file, wal;
    (void)snprintf(path, sizeof(path), "%s-wal", p->url->path);
    if (stat(p->url->path, &file) < 0)
        return;
    bool has_wal = stat(path, &wal) == 0, large = has_wal && wal.st_size > WAL_LARGE;
    struct finding *f = report_add(p->report, large ? LEVEL_WARNING : LEVEL_OK, "size",
                                   "the file has %jd KiB%s", (intmax_t)(file.st_size >> 10),
                                   large ? ", its -wal is far larger than usual" : "");
    finding_number(f, "bytes", file.st_size);
    if (has_wal)
        finding_number(f, "wal_bytes", wal.st_size);
    if (large)
        finding_detail(f,
                       "%jd MiB: checkpoints do not get through, because some process keeps a "
                       "transaction open for reading.",
                       (intmax_t)(wal.st_size >> 20));
}

/* ---- fanwire's tables ---- */

static void suggest_tables(struct patient *p, struct finding *f)
{
    finding_command(f, "fanwire sql sqlite | sqlite3 %s", quoted_file(p));
}

static void look_at_missing_tables(struct patient *p)
{
    bool makes = p->url->create && !p->url->readonly;
    struct finding *f =
        report_add(p->report, makes ? LEVEL_NOTE : LEVEL_PROBLEM, "tables",
                   "it has no tables fanwire_outbox and fanwire_meta%s", makes ? " yet" : "");
    if (makes)
        finding_detail(f, "fanwire serve makes them; an application that is to insert before that "
                          "needs them now:");
    suggest_tables(p, f);
}

static bool look_at_version(struct patient *p)
{
    sqlite3_stmt *stmt =
        ask(p, "fanwire's tables", "SELECT value FROM fanwire_meta WHERE name = 'version'");
    if (!stmt)
        return false;
    int version = sqlite3_data_count(stmt) ? sqlite3_column_int(stmt, 0) : 0;
    (void)sqlite3_finalize(stmt);
    bool newer = version > TABLES_VERSION;
    struct finding *f = report_add(p->report, newer ? LEVEL_PROBLEM : LEVEL_OK, "tables",
                                   "fanwire's tables are of version %d%s", version,
                                   newer ? ", which is newer than this fanwire" : "");
    finding_number(f, "version", version);
    return true;
}

/* Somebody else's table of this name, or one made by hand. */
static bool look_at_columns(struct patient *p)
{
    sqlite3_stmt *stmt =
        ask(p, "the table fanwire_outbox",
            "SELECT (SELECT count(*) FROM pragma_table_info('fanwire_outbox') WHERE name IN "
            "('id', 'channel', 'payload', 'created', 'key', 'client')) = 6, "
            "sql LIKE '%AUTOINCREMENT%' FROM sqlite_master WHERE name = 'fanwire_outbox'");
    if (!stmt)
        return false;
    bool columns = sqlite3_column_int(stmt, 0), rises = sqlite3_column_int(stmt, 1);
    (void)sqlite3_finalize(stmt);
    if (columns && rises)
        return true;
    struct finding *f =
        report_add(p->report, LEVEL_PROBLEM, "outbox", "the table fanwire_outbox is not fanwire's");
    finding_detail(f, columns ? "Its ids are without AUTOINCREMENT: one that was removed may come "
                                "again."
                              : "It has not the columns id, channel, payload, created, key and "
                                "client.");
    finding_detail(f, "Rename it, then:");
    suggest_tables(p, f);
    return false;
}

static void look_at_rows(struct patient *p)
{
    sqlite3_stmt *stmt =
        ask(p, "the rows",
            "SELECT count(*), coalesce(max(id), 0), "
            "CAST(round((julianday('now') - 2440587.5) * 86400.0) AS INTEGER) "
            "- (SELECT created / 1000 FROM fanwire_outbox ORDER BY id LIMIT 1), "
            "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fanwire_outbox'), 0) "
            "FROM fanwire_outbox");
    if (!stmt)
        return;
    int64_t rows = sqlite3_column_int64(stmt, 0), age_s = sqlite3_column_int64(stmt, 2);
    struct finding *f =
        report_add(p->report, LEVEL_OK, "outbox", "%jd events are in the outbox", (intmax_t)rows);
    if (rows > 0)
        finding_detail(f, "The oldest is of %jd s ago.", (intmax_t)age_s);
    finding_number(f, "rows", rows);
    finding_number(f, "last_id", sqlite3_column_int64(stmt, 3));
    (void)sqlite3_finalize(stmt);
    if (p->url->keep != UINT64_MAX && (uint64_t)rows > 2 * p->url->keep && !p->url->readonly)
        finding_detail(report_add(p->report, LEVEL_NOTE, "keep",
                                  "there are more rows than ?keep=%ju keeps",
                                  (uintmax_t)p->url->keep),
                       "No fanwire serve is running here, or it cannot remove them.");
}

static void look_at_triggers(struct patient *p)
{
    sqlite3_stmt *stmt = ask(p, "triggers",
                             "SELECT count(*), group_concat(DISTINCT tbl_name) FROM sqlite_master "
                             "WHERE type = 'trigger' AND tbl_name <> 'fanwire_outbox' "
                             "AND sql LIKE '%fanwire_outbox%'");
    if (!stmt)
        return;
    int n = sqlite3_column_int(stmt, 0);
    struct finding *f = report_add(p->report, n ? LEVEL_OK : LEVEL_NOTE, "triggers",
                                   "%d triggers write into the outbox%s%.400s", n,
                                   n ? ", of the tables: " : "", text_of(stmt, 1));
    finding_number(f, "triggers", n);
    finding_text(f, "tables", text_of(stmt, 1));
    if (!n) {
        finding_detail(f, "Only what is inserted there is an event. To tell a table's changes:");
        finding_command(f, "fanwire sql sqlite --watch TABLE=CHANNEL %s | sqlite3 %s",
                        quoted_file(p), quoted_file(p));
    }
    (void)sqlite3_finalize(stmt);
}

static void look_at_tables(struct patient *p)
{
    sqlite3_stmt *stmt = ask(p, "its tables",
                             "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN "
                             "('fanwire_outbox', 'fanwire_meta')");
    if (!stmt)
        return;
    int n = sqlite3_column_int(stmt, 0);
    (void)sqlite3_finalize(stmt);
    if (n < 2) {
        look_at_missing_tables(p);
    } else if (look_at_version(p) && look_at_columns(p)) {
        look_at_rows(p);
        look_at_triggers(p);
    }
}

/* ---- all of it ---- */

static void look_at_file(struct patient *p)
{
    struct stat st;
    if (stat(p->url->path, &st) < 0 && errno == ENOENT) {
        look_at_nothing(p);
        return;
    }
    if (stat(p->url->path, &st) == 0 && !S_ISREG(st.st_mode)) {
        unreachable(p, "cannot open", "It is not a file", "");
        return;
    }
    if (!open_file(p))
        return;
    look_at_file_system(p);
    look_at_permissions(p);
    if (!look_at_journal(p))
        return;
    (void)report_add(p->report, LEVEL_OK, "file", "it opens");
    look_at_integrity(p);
    look_at_size(p);
    look_at_tables(p);
}

int doctor_sqlite(struct report *report, const char *url, struct fw_error *err)
{
    struct sqlite_url parsed;
    int r = sqlite_url_parse(url, &parsed, err);
    if (r < 0)
        return r;
    struct patient p = { .report = report, .url = &parsed, .command = buf_make(2 * PATH_MAX) };
    (void)report_add(report, LEVEL_OK, "library", "SQLite %s", sqlite3_libversion());
    find_directory(&p);
    look_at_file(&p);
    (void)snprintf(report->mode, sizeof(report->mode), "%s", report->unreachable ? "" : "outbox");
    report->why = "the only one";
    report->promise = promise;
    report->durable = !report->unreachable;
    (void)sqlite3_close(p.db);
    buf_done(&p.command);
    sqlite_url_done(&parsed);
    return report->failed ? error_set(err, -ENOMEM, "out of memory") : 0;
}
