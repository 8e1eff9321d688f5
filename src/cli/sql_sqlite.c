/* fanwire sql sqlite: prints the tables of the SQLite source, and triggers that put each change of
 * a table's rows into the outbox. SQLite's triggers have no loops over columns, so the table is
 * read from the file and its columns are written out. */
#include "sql_sqlite.h"

#include "buf.h"
#include "siphash.h"

#include <errno.h>
#include <fanwire.h>
#include <getopt.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE  2
#define COLUMNS_MAX 60 /* a function takes 127 arguments, two for each */
#define WATCHES_MAX 64
#define OUTPUT_MAX  (8u << 20)
#define SUFFIX_MAX  32

static const char usage[] =
    "usage: fanwire sql sqlite [FILE]\n"
    "       fanwire sql sqlite --watch TABLE=CHANNEL … FILE\n"
    "       fanwire sql sqlite --unwatch TABLE[=CHANNEL] … FILE\n"
    "       fanwire sql sqlite --uninstall FILE\n"
    "\n"
    "Prints SQL for the database FILE, safe to run again: the tables of the SQLite source (which\n"
    "fanwire also makes by itself), and triggers that tell a table's changes. For example:\n"
    "\n"
    "  fanwire sql sqlite --watch todos=todos --watch 'todos=todo:{id}' app.db | sqlite3 app.db\n"
    "\n"
    "  --watch TABLE=CHANNEL  an event for each row inserted, updated or deleted; {column} in the\n"
    "                         channel is the row's value (a row that moves is told to both); "
    "beside\n"
    "                         the other channels of the table\n"
    "  --unwatch TABLE[=CHANNEL]\n"
    "                         remove its triggers: those of this channel, or all\n"
    "  --uninstall            remove all of fanwire's triggers in FILE, and the tables\n";

#define N_OPS 3
static const char *const ops[N_OPS] = { "insert", "update", "delete" };

struct watch {
    char *table;          /* owned; the template follows the '=' that was in it */
    const char *template; /* NULL: whatever it is (--unwatch) */
};

struct options {
    struct watch watches[WATCHES_MAX], unwatches[WATCHES_MAX];
    size_t n_watches, n_unwatches;
    const char *file;
    bool uninstall, help;
};

struct table {
    char name[256];
    struct buf names; /* of its columns, each with its NUL */
    size_t at[COLUMNS_MAX];
    bool key[COLUMNS_MAX];
    size_t n, n_key;
};

__attribute__((format(printf, 2, 3))) static int refuse(int code, const char *format, ...)
{
    va_list args;
    fputs("fanwire sql sqlite: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\n", stderr);
    return code;
}

/* ---- arguments ---- */

static int add(struct watch *list, size_t *n, const char *option, const char *text)
{
    if (*n == WATCHES_MAX)
        return refuse(EXIT_USAGE, "at most %d %s at a time", WATCHES_MAX, option);
    struct watch *watch = &list[*n];
    watch->table = strdup(text);
    if (!watch->table)
        return refuse(1, "out of memory");
    *n += 1;
    char *equals = strchr(watch->table, '=');
    if (!equals)
        return 0;
    if (equals == watch->table || !equals[1])
        return refuse(EXIT_USAGE, "%s %s: write TABLE=CHANNEL, for example todos=todos", option,
                      text);
    *equals = '\0';
    watch->template = equals + 1;
    return 0;
}

static int add_watch(struct options *o, const char *text)
{
    if (!strchr(text, '='))
        return refuse(EXIT_USAGE, "--watch %s: write TABLE=CHANNEL, for example todos=todos", text);
    return add(o->watches, &o->n_watches, "--watch", text);
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = { { "watch", required_argument, NULL, 'w' },
                                             { "unwatch", required_argument, NULL, 'x' },
                                             { "uninstall", no_argument, NULL, 'u' },
                                             { "help", no_argument, NULL, 'h' },
                                             { NULL, 0, NULL, 0 } };
    optind = 0;
    for (int c, r; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'w' && (r = add_watch(o, optarg)) != 0)
            return r;
        if (c == 'x' && (r = add(o->unwatches, &o->n_unwatches, "--unwatch", optarg)) != 0)
            return r;
        o->uninstall |= c == 'u';
        o->help |= c == 'h';
        if (c == '?') { /* getopt has said why */
            fputs("Try: fanwire sql sqlite --help\n", stderr);
            return EXIT_USAGE;
        }
    }
    o->file = optind < argc ? argv[optind++] : NULL;
    if (optind < argc)
        return refuse(EXIT_USAGE, "unexpected argument \"%s\"", argv[optind]);
    if (o->help)
        return 0;
    if (!o->file && (o->n_watches || o->n_unwatches || o->uninstall))
        return refuse(EXIT_USAGE, "which file? What is printed depends on what is in it");
    if (o->uninstall && (o->n_watches || o->n_unwatches))
        return refuse(EXIT_USAGE, "--uninstall removes everything: leave the others out");
    return 0;
}

/* ---- the file ---- */

static int open_file(const char *path, sqlite3 **ret)
{
    if (sqlite3_open_v2(path, ret, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
        return refuse(1, "cannot open %s: %s", path, sqlite3_errmsg(*ret));
    (void)sqlite3_busy_timeout(*ret, 5000);
    return 0;
}

static int query(sqlite3 *db, sqlite3_stmt **ret, const char *sql, const char *argument)
{
    if (sqlite3_prepare_v2(db, sql, -1, ret, NULL) != SQLITE_OK)
        return refuse(1, "cannot read the file: %s", sqlite3_errmsg(db));
    if (argument)
        (void)sqlite3_bind_text(*ret, 1, argument, -1, SQLITE_STATIC);
    return 0;
}

static int find_table(sqlite3 *db, const char *name, struct table *ret)
{
    sqlite3_stmt *stmt = NULL;
    int r =
        query(db, &stmt,
              "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
              name);
    if (r == 0 && sqlite3_step(stmt) == SQLITE_ROW)
        (void)snprintf(ret->name, sizeof(ret->name), "%s",
                       (const char *)sqlite3_column_text(stmt, 0));
    else if (r == 0)
        r = refuse(EXIT_USAGE, "there is no table \"%s\" in this file", name);
    (void)sqlite3_finalize(stmt);
    if (r == 0 && strncmp(ret->name, "fanwire_", 8) == 0)
        r = refuse(EXIT_USAGE, "\"%s\" is fanwire's own table", name);
    return r;
}

static int read_columns(sqlite3 *db, struct table *ret)
{
    sqlite3_stmt *stmt = NULL;
    int r = query(db, &stmt, "SELECT name, pk FROM pragma_table_info(?1)", ret->name);
    while (r == 0 && sqlite3_step(stmt) == SQLITE_ROW) {
        if (ret->n == COLUMNS_MAX) {
            r = refuse(EXIT_USAGE,
                       "the table \"%s\" has more than %d columns: write its triggers by hand",
                       ret->name, COLUMNS_MAX);
            break;
        }
        ret->key[ret->n] = sqlite3_column_int(stmt, 1) > 0;
        ret->n_key += ret->key[ret->n];
        ret->at[ret->n++] = ret->names.len;
        if (buf_append(&ret->names, sqlite3_column_text(stmt, 0),
                       (size_t)sqlite3_column_bytes(stmt, 0) + 1) < 0)
            r = refuse(1, "out of memory");
    }
    (void)sqlite3_finalize(stmt);
    return r;
}

static const char *column(const struct table *table, size_t i)
{
    return (const char *)table->names.data + table->at[i];
}

/* ---- SQL ---- */

static void put_quoted(struct buf *out, char quote, const char *text, size_t len)
{
    buf_append_char(out, quote);
    for (size_t i = 0; i < len; i++) {
        if (text[i] == quote)
            buf_append_char(out, quote);
        buf_append_char(out, text[i]);
    }
    buf_append_char(out, quote);
}

static void put_string(struct buf *out, const char *text)
{
    put_quoted(out, '\'', text, strlen(text));
}

static void put_name(struct buf *out, const char *text)
{
    put_quoted(out, '"', text, strlen(text));
}

/* json_object() refuses blobs, and the application's statement would fail with it. */
static void put_value(struct buf *out, const char *row, const char *of)
{
    struct buf name = buf_make(4096);
    put_name(&name, of);
    (void)buf_printf(out, "iif(typeof(%s.%.*s) = 'blob', hex(%s.%.*s), %s.%.*s)", row,
                     (int)name.len, (const char *)name.data, row, (int)name.len,
                     (const char *)name.data, row, (int)name.len, (const char *)name.data);
    buf_done(&name);
}

static void put_object(struct buf *out, const struct table *table, const char *row, bool key)
{
    const char *comma = "";
    buf_append_str(out, "json_object(");
    for (size_t i = 0; i < table->n; i++) {
        if (key && !table->key[i])
            continue;
        buf_append_str(out, comma);
        put_string(out, column(table, i));
        buf_append_str(out, ", ");
        put_value(out, row, column(table, i));
        comma = ",\n        ";
    }
    if (key && table->n_key == 0)
        (void)buf_printf(out, "'rowid', %s.rowid", row);
    buf_append_char(out, ')');
}

static const char *find_column(const struct table *table, const char *name, size_t len)
{
    for (size_t i = 0; i < table->n; i++) {
        if (strlen(column(table, i)) == len &&
            sqlite3_strnicmp(column(table, i), name, (int)len) == 0)
            return column(table, i);
    }
    return NULL;
}

/* The template as an expression over the row. */
static int put_channel(struct buf *out, const struct table *table, const char *row,
                       const char *template)
{
    const char *joint = "";
    for (const char *at = template; *at;) {
        size_t len = strcspn(at, "{");
        buf_append_str(out, joint);
        joint = " || ";
        if (len > 0) {
            put_quoted(out, '\'', at, len);
            at += len;
            continue;
        }
        size_t name = strcspn(at + 1, "}");
        const char *found = at[1 + name] ? find_column(table, at + 1, name) : NULL;
        if (!found)
            return refuse(EXIT_USAGE, "\"%s\": the table \"%s\" has no column %.*s", template,
                          table->name, (int)name, at + 1);
        (void)buf_printf(out, "coalesce(CAST(%s.", row);
        put_name(out, found);
        buf_append_str(out, " AS TEXT), '')");
        at += name + 2;
    }
    return 0;
}

static void put_payload(struct buf *out, const struct table *table, const char *op, bool row,
                        bool old)
{
    (void)buf_printf(out, "json_object(\n      'op', '%s', 'table', ", op);
    put_string(out, table->name);
    buf_append_str(out, ",\n      'key', ");
    put_object(out, table, row ? "NEW" : "OLD", true);
    if (row) {
        buf_append_str(out, ",\n      'row', ");
        put_object(out, table, "NEW", false);
    }
    if (old) {
        buf_append_str(out, ",\n      'old', ");
        put_object(out, table, "OLD", false);
    }
    buf_append_char(out, ')');
}

/* "_HASH_insert": the template is in the trigger's name, so that a table's templates stand side by
 * side. Hashed, because names are not told apart by upper and lower case, and templates are. */
static void suffix_of(const char *template, const char *op, char *ret, size_t size)
{
    static const uint64_t key[2] = { 0 }; /* the same name in every process */
    (void)snprintf(ret, size, "_%016" PRIx64 "_%s", siphash(key, template, strlen(template)), op);
}

static void put_trigger_name(struct buf *out, const char *table, const char *template,
                             const char *op)
{
    char suffix[SUFFIX_MAX];
    struct buf name = buf_make(1024);
    suffix_of(template, op, suffix, sizeof(suffix));
    (void)buf_printf(&name, "fanwire_watch_%s%s", table, suffix);
    put_quoted(out, '"', (const char *)name.data, name.len);
    buf_done(&name);
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), len_end = strlen(end);
    return len >= len_end && strcmp(text + len - len_end, end) == 0;
}

static bool is_of_template(const char *trigger, const char *template)
{
    for (size_t i = 0; i < N_OPS; i++) {
        char suffix[SUFFIX_MAX];
        suffix_of(template, ops[i], suffix, sizeof(suffix));
        if (ends_with(trigger, suffix))
            return true;
    }
    return false;
}

/* fanwire_watch_TABLE_insert, without a template: of an earlier version. */
static bool is_earlier(const char *trigger)
{
    size_t len = strlen(trigger) - strlen("_insert"); /* all three are as long */
    return len < 17 || trigger[len - 17] != '_' ||
           strspn(trigger + len - 16, "0123456789abcdef") < 16;
}

static void put_drop(struct buf *out, const char *name)
{
    buf_append_str(out, "DROP TRIGGER IF EXISTS ");
    put_name(out, name);
    buf_append_str(out, ";\n");
}

/* Of a template, or (NULL) all; looked up in the file, because the triggers of a table that was
 * renamed keep its old name in theirs. Those of an earlier version go when one is made anew. */
static int put_drops(struct buf *out, sqlite3 *db, const struct watch *watch, bool earlier)
{
    sqlite3_stmt *stmt = NULL;
    int r =
        query(db, &stmt,
              "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE "
              "'fanwire\\_watch\\_%' ESCAPE '\\' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name",
              watch->table);
    while (r == 0 && sqlite3_step(stmt) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(stmt, 0);
        if (!watch->template || is_of_template(name, watch->template) ||
            (earlier && is_earlier(name)))
            put_drop(out, name);
    }
    (void)sqlite3_finalize(stmt);
    return r;
}

/* A row that moves to another channel is told to the one it leaves, too. */
static int put_moved(struct buf *out, const struct table *table, const char *template)
{
    buf_append_str(out, "  INSERT INTO fanwire_outbox (channel, payload) SELECT\n    ");
    int r = put_channel(out, table, "OLD", template);
    buf_append_str(out, ",\n    ");
    put_payload(out, table, "update", true, true);
    buf_append_str(out, "\n    WHERE ");
    if (r == 0)
        r = put_channel(out, table, "OLD", template);
    buf_append_str(out, "\n       <> ");
    if (r == 0)
        r = put_channel(out, table, "NEW", template);
    buf_append_str(out, ";\n");
    return r;
}

static int put_trigger(struct buf *out, const struct table *table, const char *template,
                       const char *op)
{
    bool row = strcmp(op, "delete") != 0, old = strcmp(op, "insert") != 0;
    buf_append_str(out, "DROP TRIGGER IF EXISTS "); /* whenever this text is run again */
    put_trigger_name(out, table->name, template, op);
    buf_append_str(out, ";\nCREATE TRIGGER ");
    put_trigger_name(out, table->name, template, op);
    (void)buf_printf(out, " AFTER %s ON ", op);
    put_name(out, table->name);
    buf_append_str(out, "\nBEGIN\n  INSERT INTO fanwire_outbox (channel, payload) VALUES (\n    ");
    int r = put_channel(out, table, row ? "NEW" : "OLD", template);
    buf_append_str(out, ",\n    ");
    put_payload(out, table, op, row, old);
    buf_append_str(out, ");\n");
    if (r == 0 && row && old && strchr(template, '{'))
        r = put_moved(out, table, template);
    buf_append_str(out, "END;\n");
    return r;
}

static int put_watch(struct buf *out, sqlite3 *db, const struct watch *watch)
{
    struct table table = { .names = buf_make(OUTPUT_MAX) };
    int r = find_table(db, watch->table, &table);
    if (r == 0)
        r = read_columns(db, &table);
    if (r == 0)
        r = put_drops(out, db, watch, true);
    for (size_t i = 0; r == 0 && i < N_OPS; i++)
        r = put_trigger(out, &table, watch->template, ops[i]);
    buf_append_char(out, '\n');
    buf_done(&table.names);
    return r;
}

/* Triggers that would insert into a table that is gone fail the application's statements: so they
 * are looked up in the file and go first. */
static int put_uninstall(struct buf *out, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int r = query(db, &stmt,
                  "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE "
                  "'fanwire\\_watch\\_%' ESCAPE '\\' ORDER BY name",
                  NULL);
    while (r == 0 && sqlite3_step(stmt) == SQLITE_ROW)
        put_drop(out, (const char *)sqlite3_column_text(stmt, 0));
    (void)sqlite3_finalize(stmt);
    buf_append_str(out,
                   "DROP TABLE IF EXISTS fanwire_outbox;\nDROP TABLE IF EXISTS fanwire_meta;\n");
    return r;
}

static int put_all(struct buf *out, sqlite3 *db, const struct options *o)
{
    int r = 0;
    if (!o->uninstall && (o->n_watches || !o->n_unwatches))
        buf_append_str(out, fw_sql("sqlite", NULL));
    if (!o->uninstall && !o->n_watches && !o->n_unwatches)
        return 0;
    buf_append_str(out, "\nBEGIN IMMEDIATE;\n\n");
    for (size_t i = 0; r == 0 && i < o->n_unwatches; i++)
        r = put_drops(out, db, &o->unwatches[i], false);
    for (size_t i = 0; r == 0 && i < o->n_watches; i++)
        r = put_watch(out, db, &o->watches[i]);
    if (r == 0 && o->uninstall)
        r = put_uninstall(out, db);
    buf_append_str(out, "\nCOMMIT;\n");
    return r;
}

static int print(const struct options *o)
{
    sqlite3 *db = NULL;
    struct buf out = buf_make(OUTPUT_MAX);
    int r = o->file ? open_file(o->file, &db) : 0;
    if (r == 0)
        r = put_all(&out, db, o);
    if (r == 0 && out.failed)
        r = refuse(1, "out of memory");
    if (r == 0 && (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0))
        r = refuse(1, "cannot write: %s", strerror(errno));
    buf_done(&out);
    (void)sqlite3_close(db);
    return r;
}

int sql_sqlite_help(FILE *out)
{
    return fputs(usage, out);
}

int sql_sqlite(int argc, char **argv)
{
    struct options options = { 0 };
    int r = parse(argc, argv, &options);
    if (r == 0 && options.help)
        r = sql_sqlite_help(stdout) < 0;
    else if (r == 0)
        r = print(&options);
    for (size_t i = 0; i < options.n_watches; i++)
        free(options.watches[i].table);
    for (size_t i = 0; i < options.n_unwatches; i++)
        free(options.unwatches[i].table);
    return r;
}
