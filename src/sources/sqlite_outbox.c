/* The outbox table of one SQLite file.
 *
 * SQLite has one writer at a time, and an id is given inside the transaction that writes it: so ids
 * rise in the order of commits, and what is read once with id > N is all there will ever be up to
 * the newest id read. (AUTOINCREMENT: an id is never given twice, also when its row is gone.)
 *
 * The identity of the stream is made of a random id in the table fanwire_meta and the file's inode:
 * a copy that is put in the file's place has the same random id, and may give the same ids to other
 * events. */
#include "sqlite_outbox.h"

#include "clock.h"
#include "siphash.h"
#include "sqlite_outbox_sql.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define BUSY_MS      100 /* one try; who calls tries again */
#define BUSY_STEP_MS 2
#define PRUNE_STEP   500  /* rows: other writers wait meanwhile */
#define ROW_OVERHEAD 96   /* bytes of log beside the texts */
#define STOP_EVERY   5000 /* instructions of SQLite's between two looks at `stop` */

/* ---- errors ---- */

static int set_error(struct sqlite_outbox *o, int r, const char *what, const char *why)
{
    (void)snprintf(o->error, sizeof(o->error), "%s %.200s: %.200s", what, o->url->path, why);
    return r;
}

/* What SQLite's last result means for us. */
static int fail(struct sqlite_outbox *o, const char *what)
{
    int code = o->db ? sqlite3_extended_errcode(o->db) : SQLITE_NOMEM;
    const char *text = o->db ? sqlite3_errmsg(o->db) : "out of memory";
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_INTERRUPT:
        return set_error(o, -EAGAIN, what, "another process has it locked");
    case SQLITE_READONLY:
        return set_error(o, -EROFS, what, text);
    case SQLITE_NOTADB:
        return set_error(o, -EIO, what, "this file is no SQLite database");
    case SQLITE_CORRUPT:
        (void)snprintf(o->error, sizeof(o->error),
                       "%s %.200s: the database is corrupt (%.100s); look at it with: sqlite3 FILE "
                       "'PRAGMA integrity_check'",
                       what, o->url->path, text);
        return -EIO;
    default:
        return set_error(o, -EIO, what, text);
    }
}

static int on_busy(void *arg, int n)
{
    const struct sqlite_outbox *o = arg;
    const struct timespec step = { .tv_nsec = BUSY_STEP_MS * 1000000 };
    if (n >= BUSY_MS / BUSY_STEP_MS || atomic_load_explicit(o->stop, memory_order_relaxed))
        return 0;
    (void)nanosleep(&step, NULL);
    return 1;
}

static int on_progress(void *arg)
{
    const struct sqlite_outbox *o = arg;
    return atomic_load_explicit(o->stop, memory_order_relaxed) ||
           (o->deadline_ms && clock_monotonic_ms() >= o->deadline_ms);
}

/* ---- statements ---- */

static int prepare(struct sqlite_outbox *o, sqlite3_stmt **stmt, const char *sql)
{
    if (*stmt)
        return 0;
    int r = sqlite3_prepare_v3(o->db, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL);
    return r == SQLITE_OK ? 0 : fail(o, "cannot use");
}

/* Runs a statement without rows. */
static int run(struct sqlite_outbox *o, sqlite3_stmt *stmt, const char *what)
{
    int r = sqlite3_step(stmt), result = r == SQLITE_DONE || r == SQLITE_ROW ? 0 : fail(o, what);
    (void)sqlite3_reset(stmt);
    return result;
}

static int exec(struct sqlite_outbox *o, const char *sql, const char *what)
{
    int r = sqlite3_exec(o->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(o, what);
    if (r < 0 && !sqlite3_get_autocommit(o->db))
        (void)sqlite3_exec(o->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

/* The first column of the first row, as a number; 0 without a row. */
static int query_int(struct sqlite_outbox *o, const char *sql, int64_t *ret)
{
    sqlite3_stmt *stmt = NULL;
    int r = prepare(o, &stmt, sql);
    if (r == 0) {
        int step = sqlite3_step(stmt);
        *ret = step == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
        r = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : fail(o, "cannot read");
    }
    (void)sqlite3_finalize(stmt);
    return r;
}

/* ---- opening ---- */

static int open_file(struct sqlite_outbox *o)
{
    struct stat st;
    const char *path = o->url->path;
    bool exists = stat(path, &st) == 0;
    if (!exists && errno != ENOENT)
        return set_error(o, -EIO, "cannot open", strerror(errno));
    if (!exists && (!o->url->create || o->url->readonly || o->was_there))
        return set_error(o, -EIO, "waiting for", "the file is not there");
    if (exists && !S_ISREG(st.st_mode))
        return set_error(o, -EIO, "cannot open", "it is not a file");
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                (o->url->readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
                (exists ? 0 : SQLITE_OPEN_CREATE);
    char file[4096 + 8]; /* a name like "file:x" or ":x" means itself only after a directory */
    (void)snprintf(file, sizeof(file), "%s%s", *path == '/' ? "" : "./", path);
    if (sqlite3_open_v2(file, &o->db, flags, NULL) != SQLITE_OK) {
        if (o->db && sqlite3_system_errno(o->db) != 0)
            return set_error(o, -EIO, "cannot open", strerror(sqlite3_system_errno(o->db)));
        return fail(o, "cannot open");
    }
    o->made = exists ? 0 : OUTBOX_FILE_MADE;
    return 0;
}

static int read_journal_mode(struct sqlite_outbox *o)
{
    sqlite3_stmt *stmt = NULL;
    int r = prepare(o, &stmt, "PRAGMA journal_mode");
    if (r == 0 && sqlite3_step(stmt) != SQLITE_ROW)
        r = fail(o, "cannot read");
    if (r == 0)
        o->wal = !strcmp((const char *)sqlite3_column_text(stmt, 0), "wal");
    (void)sqlite3_finalize(stmt);
    return r;
}

static int configure(struct sqlite_outbox *o)
{
    (void)sqlite3_busy_handler(o->db, on_busy, o);
    sqlite3_progress_handler(o->db, STOP_EVERY, on_progress, o);
    o->readonly = sqlite3_db_readonly(o->db, "main") != 0;
    if (o->made & OUTBOX_FILE_MADE) {
        int r = exec(o, "PRAGMA journal_mode = WAL", "cannot make");
        if (r < 0)
            return r;
    }
    return read_journal_mode(o);
}

static int install(struct sqlite_outbox *o)
{
    int64_t n = 0;
    int r = query_int(o,
                      "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN "
                      "('fanwire_outbox', 'fanwire_meta')",
                      &n);
    if (r < 0 || n == 2)
        return r;
    if (o->readonly || !o->url->create)
        return set_error(o, -EIO, "cannot read",
                         "it has no table fanwire_outbox; run: fanwire sql sqlite | sqlite3 FILE");
    r = exec(o, sqlite_outbox_sql, "cannot make the table fanwire_outbox in");
    if (r == 0)
        o->made |= OUTBOX_TABLE_MADE;
    return r == -EROFS ? -EIO : r;
}

static int check_version(struct sqlite_outbox *o)
{
    int64_t version = 0;
    int r = query_int(o, "SELECT value FROM fanwire_meta WHERE name = 'version'", &version);
    if (r == 0 && version > 1)
        return set_error(o, -EIO, "cannot read",
                         "fanwire's tables in it are of a newer version; use that fanwire here");
    return r;
}

static int prepare_all(struct sqlite_outbox *o)
{
    int r = prepare(o, &o->version, "PRAGMA data_version");
    if (r == 0)
        r = prepare(o, &o->state,
                    "SELECT (SELECT value FROM fanwire_meta WHERE name = 'id'), "
                    "max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fanwire_outbox'), "
                    "0), coalesce((SELECT max(id) FROM fanwire_outbox), 0))");
    if (r == 0)
        r = prepare(o, &o->read,
                    "SELECT id, channel, payload, created, key, client FROM fanwire_outbox "
                    "WHERE id > ?1 ORDER BY id");
    if (r < 0 || o->readonly)
        return r;
    if ((r = prepare(o, &o->begin, "BEGIN IMMEDIATE")) < 0 ||
        (r = prepare(o, &o->commit, "COMMIT")) < 0 ||
        (r = prepare(o, &o->rollback, "ROLLBACK")) < 0 ||
        (r = prepare(o, &o->insert,
                     "INSERT INTO fanwire_outbox (channel, payload, key, client) "
                     "VALUES (?1, ?2, ?3, ?4)")) < 0 ||
        (r = prepare(o, &o->boundary,
                     "SELECT max(id), count(*) FROM (SELECT id, created FROM fanwire_outbox "
                     "WHERE id <= ?1 ORDER BY id LIMIT ?2) WHERE id <= ?3 OR created < ?4")) < 0)
        return r;
    return prepare(o, &o->prune, "DELETE FROM fanwire_outbox WHERE id <= ?1");
}

static uint64_t identity_of(const struct sqlite_outbox *o)
{
    static const uint64_t key[2] = { 0x66616e7769726531, 0x73716c6974650000 };
    struct {
        char id[sizeof(o->id)];
        uint64_t inode, salt;
    } name = { .salt = o->salt };
    struct stat st;
    if (stat(o->url->path, &st) == 0)
        name.inode = (uint64_t)st.st_ino;
    memcpy(name.id, o->id, sizeof(name.id));
    uint64_t hash = siphash(key, &name, sizeof(name));
    return hash ? hash : 1;
}

int sqlite_outbox_open(struct sqlite_outbox *o)
{
    o->error[0] = o->id[0] = '\0';
    int r = open_file(o);
    if (r == 0)
        r = configure(o);
    if (r == 0)
        r = install(o);
    if (r == 0)
        r = check_version(o);
    if (r == 0)
        r = prepare_all(o);
    if (r == 0)
        r = sqlite_outbox_changed(o);
    if (r >= 0)
        r = sqlite_outbox_state(o);
    if (r >= 0) {
        o->identity = identity_of(o);
        o->was_there = true;
        return 0;
    }
    sqlite_outbox_close(o);
    return r;
}

void sqlite_outbox_close(struct sqlite_outbox *o)
{
    sqlite3_stmt **all[] = { &o->version, &o->state,    &o->read,     &o->insert, &o->begin,
                             &o->commit,  &o->rollback, &o->boundary, &o->prune };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        (void)sqlite3_finalize(*all[i]);
        *all[i] = NULL;
    }
    (void)sqlite3_close(o->db);
    o->db = NULL;
}

/* ---- state ---- */

int sqlite_outbox_changed(struct sqlite_outbox *o)
{
    int step = sqlite3_step(o->version);
    int64_t version = step == SQLITE_ROW ? sqlite3_column_int64(o->version, 0) : 0;
    int r = step == SQLITE_ROW ? version != o->changed : fail(o, "cannot read");
    (void)sqlite3_reset(o->version);
    if (r == 1)
        o->changed = version;
    return r;
}

int sqlite_outbox_state(struct sqlite_outbox *o)
{
    char id[sizeof(o->id)] = { 0 };
    int step = sqlite3_step(o->state);
    if (step == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(o->state, 0);
        (void)snprintf(id, sizeof(id), "%s", text ? text : "");
        o->newest = sqlite3_column_int64(o->state, 1);
    }
    int r = step == SQLITE_ROW ? 0 : fail(o, "cannot read");
    (void)sqlite3_reset(o->state);
    if (r < 0)
        return r;
    bool other = memcmp(id, o->id, sizeof(id)) != 0;
    memcpy(o->id, id, sizeof(id));
    if (other)
        o->identity = identity_of(o);
    return other;
}

bool sqlite_outbox_moved(struct sqlite_outbox *o)
{
    int moved = 0;
    return sqlite3_file_control(o->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
           moved;
}

/* Another fanwire on the same file may have seen it, too: only one of us changes the id. */
static int replace_id(struct sqlite_outbox *o)
{
    sqlite3_stmt *stmt = NULL;
    int r = prepare(o, &stmt,
                    "UPDATE fanwire_meta SET value = lower(hex(randomblob(16))) "
                    "WHERE name = 'id' AND value = ?1");
    if (r == 0) {
        (void)sqlite3_bind_text(stmt, 1, o->id, -1, SQLITE_STATIC);
        r = run(o, stmt, "cannot write");
    }
    (void)sqlite3_finalize(stmt);
    return r;
}

int sqlite_outbox_new_identity(struct sqlite_outbox *o)
{
    int r = o->readonly ? -EROFS : replace_id(o);
    if (r == -EROFS) {
        sqlite3_randomness(sizeof(o->salt), &o->salt);
        o->identity = identity_of(o);
        return 0;
    }
    return r < 0 ? r : sqlite_outbox_state(o);
}

/* ---- reading ---- */

int sqlite_outbox_floor(struct sqlite_outbox *o, uint64_t budget, int64_t *ret)
{
    sqlite3_stmt *stmt = NULL;
    int step = SQLITE_DONE, r = prepare(o, &stmt,
                                        "SELECT id, coalesce(length(CAST(payload AS BLOB)), 0) + "
                                        "2 * length(channel) + coalesce(length(key), 0) + "
                                        "coalesce(length(client), 0) "
                                        "FROM fanwire_outbox ORDER BY id DESC");
    *ret = o->newest;
    for (uint64_t used = 0; r == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW;) {
        used += (uint64_t)sqlite3_column_int64(stmt, 1) + ROW_OVERHEAD;
        if (used > budget)
            break;
        *ret = sqlite3_column_int64(stmt, 0) - 1;
    }
    if (r == 0 && step != SQLITE_ROW && step != SQLITE_DONE)
        r = fail(o, "cannot read");
    (void)sqlite3_finalize(stmt);
    return r;
}

static int put(struct sqlite_batch *batch, const void *data, size_t len, size_t *ret_at)
{
    *ret_at = batch->bytes.len;
    int r = len > 0 ? buf_append(&batch->bytes, data, len) : 0;
    return r < 0 ? r : buf_append_char(&batch->bytes, '\0');
}

static int put_optional(struct sqlite_batch *batch, sqlite3_stmt *row, int column, size_t *ret_at)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    *ret_at = SIZE_MAX;
    if (!text || !*text)
        return 0;
    size_t len = strlen(text);
    return put(batch, text, len < 1024 ? len : 1024, ret_at);
}

static int take_row(struct sqlite_outbox *o, struct sqlite_batch *batch, int64_t after)
{
    sqlite3_stmt *row = o->read;
    struct sqlite_event *event = &batch->events[batch->n];
    const char *channel = (const char *)sqlite3_column_text(row, 1);
    size_t channel_len = (size_t)sqlite3_column_bytes(row, 1);
    const void *data = sqlite3_column_blob(row, 2);
    *event = (struct sqlite_event){ .id = sqlite3_column_int64(row, 0),
                                    .len = (size_t)sqlite3_column_bytes(row, 2),
                                    .channel_len = channel_len < 1024 ? channel_len : 1024 };
    int64_t created = sqlite3_column_int64(row, 3);
    event->time_ms = created > 0 ? created : 0;
    event->gap = event->id != after + 1;
    event->too_large = event->len > o->event_max;
    int r = put(batch, channel, event->channel_len, &event->channel_at);
    if (r == 0)
        r = put(batch, data, event->too_large ? 0 : event->len, &event->data_at);
    if (r == 0)
        r = put_optional(batch, row, 4, &event->key_at);
    if (r == 0)
        r = put_optional(batch, row, 5, &event->from_at);
    if (r < 0)
        return set_error(o, -EIO, "cannot read", "out of memory");
    batch->n++;
    return 0;
}

int sqlite_outbox_read(struct sqlite_outbox *o, int64_t after, struct sqlite_batch *batch)
{
    int r = 0, step = SQLITE_ROW;
    (void)sqlite3_bind_int64(o->read, 1, after);
    while (r == 0 && batch->n < SQLITE_BATCH_EVENTS && batch->bytes.len < SQLITE_BATCH_BYTES &&
           (step = sqlite3_step(o->read)) == SQLITE_ROW)
        r = take_row(o, batch, batch->n ? batch->events[batch->n - 1].id : after);
    if (r == 0 && step != SQLITE_ROW && step != SQLITE_DONE && batch->n == 0)
        r = fail(o, "cannot read"); /* else the next call meets it, what was read is good */
    (void)sqlite3_reset(o->read);
    return r < 0 ? r : step != SQLITE_DONE;
}

/* ---- writing ---- */

/* Payloads that are UTF-8 become text, so that SQL sees text. */
static void bind(sqlite3_stmt *insert, const struct sqlite_publish *p, bool text)
{
    (void)sqlite3_bind_text(insert, 1, p->channel, (int)p->channel_len, SQLITE_STATIC);
    if (text)
        (void)sqlite3_bind_text64(insert, 2, p->data, p->len, SQLITE_STATIC, SQLITE_UTF8);
    else
        (void)sqlite3_bind_blob64(insert, 2, p->data, p->len, SQLITE_STATIC);
    (void)sqlite3_bind_text(insert, 3, p->key, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(insert, 4, p->from, -1, SQLITE_STATIC);
}

/* A row that the table's constraints or triggers refuse is its publisher's matter alone. */
static int insert(struct sqlite_outbox *o, struct sqlite_publish *p)
{
    bind(o->insert, p, memchr(p->data, '\0', p->len) == NULL && utf8_valid(p->data, p->len));
    int step = sqlite3_step(o->insert), r = 0;
    if (step == SQLITE_DONE) {
        p->id = sqlite3_last_insert_rowid(o->db);
    } else if ((step & 0xff) == SQLITE_CONSTRAINT && !sqlite3_get_autocommit(o->db)) {
        p->code = "source-refused";
        (void)snprintf(p->message, sizeof(p->message), "%s", sqlite3_errmsg(o->db));
    } else {
        r = fail(o, "cannot write");
    }
    (void)sqlite3_reset(o->insert);
    return r;
}

/* What one of a batch was refused for, all of it is. Returns the last one of the batch. */
static struct sqlite_publish *share_refusal(struct sqlite_publish *first,
                                            const struct sqlite_publish *refused)
{
    struct sqlite_publish *p = first;
    for (;; p = p->next) {
        if (p != refused) {
            p->code = refused->code;
            memcpy(p->message, refused->message, sizeof(p->message));
        }
        if (!p->more)
            return p;
    }
}

/* Inserts one publish, or a batch, of which all is stored or nothing; *publish becomes its last. */
static int insert_batch(struct sqlite_outbox *o, struct sqlite_publish **publish)
{
    struct sqlite_publish *first = *publish, *p = first;
    int r = first->more ? exec(o, "SAVEPOINT fanwire_batch", "cannot write") : 0;
    if (r == 0)
        r = insert(o, p);
    for (; r == 0 && !p->code && p->more; r = insert(o, p))
        p = p->next;
    *publish = p;
    if (r < 0 || !first->more)
        return r;
    if (p->code) {
        *publish = share_refusal(first, p);
        r = exec(o, "ROLLBACK TO fanwire_batch", "cannot write");
    }
    return r < 0 ? r : exec(o, "RELEASE fanwire_batch", "cannot write");
}

int sqlite_outbox_publish(struct sqlite_outbox *o, struct sqlite_publish *first)
{
    if (o->readonly)
        return set_error(o, -EROFS, "cannot write", "fanwire can only read this database");
    int r = run(o, o->begin, "cannot write");
    if (r < 0)
        return r;
    for (struct sqlite_publish *p = first; r == 0 && p; p = p->next)
        r = insert_batch(o, &p);
    if (r == 0)
        r = run(o, o->commit, "cannot write");
    if (r == 0)
        return 0;
    char error[sizeof(o->error)];
    memcpy(error, o->error, sizeof(error));
    if (!sqlite3_get_autocommit(o->db))
        (void)run(o, o->rollback, "cannot roll back");
    memcpy(o->error, error, sizeof(error));
    for (struct sqlite_publish *p = first; p; p = p->next)
        p->code = NULL;
    return r;
}

int sqlite_outbox_prune(struct sqlite_outbox *o, int64_t upto, int64_t now_ms)
{
    const struct sqlite_url *url = o->url;
    if (o->readonly || (url->keep == UINT64_MAX && url->keep_ms == UINT64_MAX))
        return 0;
    int64_t last = url->keep == UINT64_MAX ? 0 : o->newest - (int64_t)url->keep;
    (void)sqlite3_bind_int64(o->boundary, 1, upto);
    (void)sqlite3_bind_int64(o->boundary, 2, PRUNE_STEP);
    (void)sqlite3_bind_int64(o->boundary, 3, last);
    (void)sqlite3_bind_int64(o->boundary, 4,
                             url->keep_ms == UINT64_MAX ? INT64_MIN
                                                        : now_ms - (int64_t)url->keep_ms);
    int step = sqlite3_step(o->boundary);
    int64_t boundary = step == SQLITE_ROW ? sqlite3_column_int64(o->boundary, 0) : 0;
    bool more = step == SQLITE_ROW && sqlite3_column_int64(o->boundary, 1) == PRUNE_STEP;
    int r = step == SQLITE_ROW ? 0 : fail(o, "cannot read");
    (void)sqlite3_reset(o->boundary);
    if (r < 0 || boundary <= 0)
        return r;
    (void)sqlite3_bind_int64(o->prune, 1, boundary);
    r = run(o, o->prune, "cannot prune");
    return r < 0 ? r : more;
}
