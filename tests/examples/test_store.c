/* Both stores of the to-do program: each test runs on a new SQLite file, then on Postgres. */
#include "item.h"
#include "store.h"

#include <errno.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_THREADS 12 /* more than there are connections */

struct fixture {
    struct store *store;
    struct fw_error err;
    char url[300], path[200];
    bool postgres;
    PGconn *admin; /* of Postgres */
    sqlite3 *file; /* of SQLite */
};

/* ---- another program on the same database ---- */

static void sql(struct fixture *f, const char *text)
{
    if (f->postgres) {
        PGresult *result = PQexec(f->admin, text);
        if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
            fail_msg("%s: %s", text, PQerrorMessage(f->admin));
        PQclear(result);
    } else if (sqlite3_exec(f->file, text, NULL, NULL, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", text, sqlite3_errmsg(f->file));
    }
}

/* The file is the source's to make. */
static void make_file(struct fixture *f)
{
    sqlite3_close(f->file);
    assert_int_equal(sqlite3_open(f->path, &f->file), SQLITE_OK);
    sql(f, "PRAGMA journal_mode = WAL");
}

static void open_sqlite(struct fixture *f)
{
    snprintf(f->path, sizeof f->path, "%s/todo-store-XXXXXX", getenv("FANWIRE_TEST_PG"));
    assert_non_null(mkdtemp(f->path));
    strcat(f->path, "/todo.db");
    snprintf(f->url, sizeof f->url, "sqlite:%s", f->path);
    make_file(f);
}

static void open_postgres(struct fixture *f)
{
    f->postgres = true;
    f->admin = PQconnectdb("");
    if (PQstatus(f->admin) != CONNECTION_OK)
        fail_msg("run me by private_postgres.py: %s", PQerrorMessage(f->admin));
    snprintf(f->url, sizeof f->url,
             "postgres://postgres@127.0.0.1:%s/postgres?application_name=store", getenv("PGPORT"));
    sql(f, "SET client_min_messages = error; DROP TABLE IF EXISTS todos");
}

static int open_store(void **state, bool postgres)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    (postgres ? open_postgres : open_sqlite)(f);
    if (store_open(f->url, &f->store, &f->err) < 0)
        fail_msg("%s: %s", f->url, f->err.message);
    assert_int_equal(store_remove(f->store, "none", &f->err), 0); /* the tables are there now */
    *state = f;
    return 0;
}

static int setup_sqlite(void **state)
{
    return open_store(state, false);
}

static int setup_postgres(void **state)
{
    return open_store(state, true);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_close(f->store);
    PQfinish(f->admin);
    sqlite3_close(f->file);
    free(f);
    return 0;
}

/* ---- asking the store ---- */

static struct draft item(const char *id, const char *title, int64_t created)
{
    struct draft draft = draft_make(id);
    draft.title = (char *)title; /* borrowed here */
    draft.created = created;
    return draft;
}

static json_t *add_ok(struct fixture *f, const struct draft *draft, int expected)
{
    json_t *json = NULL;
    int r = store_add(f->store, draft, item_keep, &json, &f->err);
    if (r != expected)
        fail_msg("%s: %d %s", draft->id, r, f->err.message);
    return json;
}

static void add(struct fixture *f, const char *id, const char *title, int64_t created)
{
    struct draft draft = item(id, title, created);
    json_decref(add_ok(f, &draft, 1));
}

/* Asserts that the JSON is this text, and releases it. */
static void is(json_t *json, const char *expected)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
    json_decref(json);
}

static json_t *list(struct fixture *f)
{
    json_t *items = json_array();
    if (store_list(f->store, item_append, items, &f->err) != 0)
        fail_msg("%s", f->err.message);
    return items;
}

/* How many events the changes have made, on SQLite; Postgres's are seen end to end. */
static int events(struct fixture *f)
{
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_prepare_v2(f->file, "SELECT count(*) FROM fanwire_outbox", -1, &stmt,
                                        NULL),
                     0);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int n = sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    return n;
}

/* ---- tests ---- */

static void keeps_items_in_order(void **state)
{
    struct fixture *f = *state;
    is(list(f), "[]");
    add(f, "z", "first", 1);
    add(f, "b", "third", 2);
    add(f, "B", "second", 2);
    is(list(f), "[{\"id\":\"z\",\"title\":\"first\",\"completed\":false,\"created\":1},"
                "{\"id\":\"B\",\"title\":\"second\",\"completed\":false,\"created\":2},"
                "{\"id\":\"b\",\"title\":\"third\",\"completed\":false,\"created\":2}]");
}

static void adds_once(void **state)
{
    struct fixture *f = *state;
    struct draft draft = item("a", "tea", 5), again = item("a", "other", 6);
    const char *expected = "{\"id\":\"a\",\"title\":\"tea\",\"completed\":true,\"created\":5}";
    draft.completed = 1;
    is(add_ok(f, &draft, 1), expected);
    is(add_ok(f, &draft, 0), expected);
    is(add_ok(f, &again, 0), expected);
    json_t *one = NULL;
    assert_int_equal(store_get(f->store, "a", item_keep, &one, &f->err), 1);
    is(one, expected);
    assert_int_equal(store_get(f->store, "b", item_keep, NULL, &f->err), 0);
}

static void gives_the_time(void **state)
{
    struct fixture *f = *state;
    struct draft draft = item("a", "tea", -1);
    json_t *json = add_ok(f, &draft, 1);
    int64_t now = (int64_t)time(NULL) * 1000;
    int64_t created = json_integer_value(json_object_get(json, "created"));
    assert_in_range(created, now - 60000, now + 60000);
    json_decref(json);
}

static json_t *change_ok(struct fixture *f, const char *id, const char *title, int completed)
{
    json_t *json = NULL;
    struct draft draft = item(id, title, -1);
    draft.completed = completed;
    int r = store_change(f->store, &draft, item_keep, &json, &f->err);
    if (r != 1)
        fail_msg("%d %s", r, f->err.message);
    return json;
}

static void changes_what_is_said(void **state)
{
    struct fixture *f = *state;
    add(f, "a", "tea", 5);
    add(f, "b", "milk", 6);
    is(change_ok(f, "a", NULL, 1),
       "{\"id\":\"a\",\"title\":\"tea\",\"completed\":true,\"created\":5}");
    is(change_ok(f, "a", "cake", -1),
       "{\"id\":\"a\",\"title\":\"cake\",\"completed\":true,\"created\":5}");
    is(change_ok(f, "a", "pie", 0),
       "{\"id\":\"a\",\"title\":\"pie\",\"completed\":false,\"created\":5}");
    struct draft draft = item("none", "x", -1);
    assert_int_equal(store_change(f->store, &draft, item_keep, NULL, &f->err), 0);
    assert_int_equal(store_remove(f->store, "a", &f->err), 0);
    assert_int_equal(store_remove(f->store, "a", &f->err), 0);
    is(list(f), "[{\"id\":\"b\",\"title\":\"milk\",\"completed\":false,\"created\":6}]");
}

/* What is as it should be is not written: no event tells a change that is none. */
static void writes_only_what_differs(void **state)
{
    struct fixture *f = *state;
    add(f, "a", "tea", 5);
    add(f, "b", "milk", 6);
    assert_int_equal(events(f), 4); /* each on "todos" and on its own channel */
    json_decref(change_ok(f, "a", "tea", 0));
    json_decref(change_ok(f, "a", NULL, -1));
    assert_int_equal(events(f), 4);
    json_decref(change_ok(f, "a", "tea", 1));
    assert_int_equal(events(f), 6);
    assert_int_equal(store_change_all(f->store, true, NULL, &f->err), 0);
    assert_int_equal(events(f), 8);
    assert_int_equal(store_change_all(f->store, true, NULL, &f->err), 0);
    assert_int_equal(events(f), 8);
}

static void changes_all(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 200; i++) {
        char id[16];
        snprintf(id, sizeof id, "i%03d", i);
        add(f, id, "one of many", i);
    }
    assert_int_equal(store_change_all(f->store, true, NULL, &f->err), 0);
    json_t *items = list(f), *one;
    size_t i;
    assert_int_equal(json_array_size(items), 200);
    json_array_foreach(items, i, one) assert_true(json_is_true(json_object_get(one, "completed")));
    json_decref(items);
    json_decref(change_ok(f, "i007", NULL, 0));
    assert_int_equal(store_remove_completed(f->store, NULL, &f->err), 0);
    is(list(f), "[{\"id\":\"i007\",\"title\":\"one of many\",\"completed\":false,\"created\":7}]");
}

/* Those that are meant, and of them those that are as was said; the others stay as they are. */
static void changes_those_that_are_meant(void **state)
{
    struct fixture *f = *state;
    const char *ids = "[\"a\",\"b\",\"gone\"]";
    add(f, "a", "tea", 1);
    add(f, "b", "milk", 2);
    add(f, "c", "other", 3);
    assert_int_equal(store_change_all(f->store, true, "[]", &f->err), 0);
    assert_int_equal(store_change_all(f->store, true, ids, &f->err), 0);
    sql(f, "UPDATE todos SET completed = NOT completed WHERE id IN ('b', 'c')");
    assert_int_equal(store_remove_completed(f->store, "[]", &f->err), 0);
    assert_int_equal(store_remove_completed(f->store, ids, &f->err), 0);
    is(list(f), "[{\"id\":\"b\",\"title\":\"milk\",\"completed\":false,\"created\":2},"
                "{\"id\":\"c\",\"title\":\"other\",\"completed\":true,\"created\":3}]");
}

static void fill(struct fixture *f, int n, const char *title)
{
    char text[400];
    snprintf(text, sizeof text,
             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
             "INSERT INTO todos (id, title, created) SELECT 'i' || i, %s, i FROM n",
             n, title);
    sql(f, text);
}

static void has_a_bound(void **state)
{
    struct fixture *f = *state;
    fill(f, 9999, "'x'");
    add(f, "last", "tea", 1);
    struct draft draft = item("over", "tea", 1);
    json_t *json = NULL;
    assert_int_equal(store_add(f->store, &draft, item_keep, &json, &f->err), -ENOSPC);
    assert_null(json);
    draft = item("last", "other", 1);
    is(add_ok(f, &draft, 0),
       "{\"id\":\"last\",\"title\":\"tea\",\"completed\":false,\"created\":1}");
    assert_int_equal(store_remove(f->store, "i7", &f->err), 0);
    add(f, "again", "milk", 2);
}

/* Titles count as they are sent: a control character as six. */
static void titles_have_a_bound(void **state)
{
    struct fixture *f = *state;
    fill(f, 139,
         f->postgres ? "repeat(chr(1), 10000)" : "replace(hex(zeroblob(5000)), '0', char(1))");
    char *long_title = malloc(10001);
    assert_non_null(long_title);
    memset(long_title, 1, 10000);
    long_title[10000] = '\0';
    add(f, "short", "tea", 200);
    struct draft draft = item("long", long_title, 200);
    json_t *json = NULL;
    assert_int_equal(store_add(f->store, &draft, item_keep, &json, &f->err), -ENOSPC);
    draft = item("short", long_title, -1);
    assert_int_equal(store_change(f->store, &draft, item_keep, &json, &f->err), -ENOSPC);
    draft = item("i7", "now short", -1);
    assert_int_equal(store_change(f->store, &draft, item_keep, &json, &f->err), 1);
    draft = item("short", long_title, -1);
    assert_int_equal(store_change(f->store, &draft, item_keep, &json, &f->err), 1);
    json_decref(json);
    free(long_title);
}

static void takes_any_text(void **state)
{
    struct fixture *f = *state;
    static const char *const titles[] = { "'; DROP TABLE todos; --", "<b>\"&\\", "🍵\u0301 ✓",
                                          "%s\n" };
    for (size_t i = 0; i < 4; i++)
        add(f, (const char[]){ (char)('a' + i), 0 }, titles[i], (int64_t)i);
    char *longest = malloc((size_t)TITLE_MAX * 4 + 1);
    assert_non_null(longest);
    for (size_t i = 0; i < TITLE_MAX; i++)
        strcpy(longest + 4 * i, "🍵");
    add(f, "long", longest, 9);
    json_t *items = list(f);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(json_string_value(json_object_get(json_array_get(items, i), "title")),
                            titles[i]);
    assert_string_equal(json_string_value(json_object_get(json_array_get(items, 4), "title")),
                        longest);
    json_decref(items);
    free(longest);
}

/* What psql and the sqlite3 shell write is an item, too; what can't be one is refused there. */
static void others_write_too(void **state)
{
    struct fixture *f = *state;
    sql(f, "INSERT INTO todos (title) VALUES ('by hand')");
    json_t *items = list(f), *one = json_array_get(items, 0);
    assert_int_equal(json_array_size(items), 1);
    assert_string_equal(json_string_value(json_object_get(one, "title")), "by hand");
    assert_true(id_is_valid(json_string_value(json_object_get(one, "id"))));
    json_decref(items);
    struct draft bad = item("a b", "tea", 1);
    json_t *json = NULL;
    assert_int_equal(store_add(f->store, &bad, item_keep, &json, &f->err), -EINVAL);
    bad = item("a", "", 1);
    assert_int_equal(store_add(f->store, &bad, item_keep, &json, &f->err), -EINVAL);
    assert_null(json);
}

static void survives_text_that_is_none(void **state)
{
    struct fixture *f = *state;
    sql(f, "INSERT INTO todos (id, title, created) VALUES ('a', CAST(x'74ff' AS TEXT), 1)");
    is(list(f), "[{\"id\":\"a\",\"title\":\"\ufffd\",\"completed\":false,\"created\":1}]");
}

static void tables_that_go_come_back(void **state)
{
    struct fixture *f = *state;
    json_t *items = json_array();
    add(f, "a", "tea", 5);
    sql(f, "DROP TABLE todos");
    assert_int_equal(store_list(f->store, item_append, items, &f->err), -EIO);
    assert_non_null(strstr(f->err.message, "todos"));
    assert_int_equal(store_list(f->store, item_append, items, &f->err), 0);
    json_decref(items);
    add(f, "a", "tea", 5);
}

/* A connection that died while nobody used it is nobody's failure. */
static void survives_dead_connections(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        char id[2] = { (char)('a' + i), 0 };
        sql(f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
               "WHERE application_name = 'store'");
        add(f, id, "tea", i);
    }
    json_t *items = list(f);
    assert_int_equal(json_array_size(items), 3);
    json_decref(items);
}

static void says_that_a_file_is_locked(void **state)
{
    struct fixture *f = *state;
    add(f, "a", "tea", 1);
    sql(f, "BEGIN IMMEDIATE");
    assert_int_equal(store_remove(f->store, "a", &f->err), -EAGAIN);
    assert_non_null(strstr(f->err.message, "locked"));
    json_t *items = list(f); /* reading goes on */
    assert_int_equal(json_array_size(items), 1);
    json_decref(items);
    sql(f, "COMMIT");
    assert_int_equal(store_remove(f->store, "a", &f->err), 0);
}

static void notices_another_file(void **state)
{
    struct fixture *f = *state;
    char other[260];
    add(f, "a", "tea", 1);
    snprintf(other, sizeof other, "%s-gone", f->path);
    assert_int_equal(rename(f->path, other), 0);
    snprintf(other, sizeof other, "%s-wal", f->path);
    (void)unlink(other);
    snprintf(other, sizeof other, "%s-shm", f->path);
    (void)unlink(other);
    make_file(f);
    is(list(f), "[]");
}

static void *work(void *arg)
{
    struct fixture *f = arg;
    struct fw_error err;
    long failures = 0;
    for (int i = 0; i < 40; i++) {
        struct draft draft = draft_make("");
        json_t *json = NULL, *items = json_array();
        (void)draft_make_id(&draft);
        draft.title = (char *)"by a thread";
        failures += store_add(f->store, &draft, item_keep, &json, &err) != 1;
        draft.completed = 1;
        failures += store_change(f->store, &draft, item_keep, &json, &err) != 1;
        if (i % 10 == 0)
            failures += store_list(f->store, item_append, items, &err) != 0;
        if (i % 2 == 0)
            failures += store_remove(f->store, draft.id, &err) != 0;
        json_decref(json);
        json_decref(items);
    }
    return (void *)failures;
}

static void many_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, f), 0);
    for (int i = 0; i < N_THREADS; i++) {
        void *failures;
        assert_int_equal(pthread_join(threads[i], &failures), 0);
        assert_null(failures);
    }
    json_t *items = list(f);
    assert_int_equal(json_array_size(items), N_THREADS * 20);
    json_decref(items);
}

/* Two servers that start at once make the tables together. */
static void many_stores_at_once(void **state)
{
    struct fixture *f = *state;
    sql(f, f->postgres ? "DROP TABLE todos; DROP FUNCTION fanwire_watch CASCADE"
                       : "DROP TABLE todos; DROP TABLE fanwire_outbox");
    struct fixture others[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        others[i] = *f;
        assert_int_equal(store_open(f->url, &others[i].store, &f->err), 0);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &others[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *failures;
        assert_int_equal(pthread_join(threads[i], &failures), 0);
        assert_null(failures);
        store_close(others[i].store);
    }
}

static void refuses_urls(void **state)
{
    static const char *const urls[] = { "", "todo.db", "mysql://x", "sqlite:a#b",
                                        "postgres://secret:word@h/d?mode=wal" };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct store *store;
        struct fw_error err = { 0 };
        assert_int_equal(store_open(urls[i], &store, &err), -EINVAL);
        assert_non_null(strstr(err.message, "--store"));
        assert_null(strstr(err.message, "word"));
    }
}

static void says_that_a_database_is_away(void **state)
{
    static const char *const urls[] = { "sqlite:/nowhere/todo.db",
                                        "postgres://postgres@127.0.0.1:1/postgres" };
    for (size_t i = 0; i < 2; i++) {
        struct store *store;
        struct fw_error err = { 0 };
        assert_int_equal(store_open(urls[i], &store, &err), 0);
        assert_int_equal(store_remove(store, "a", &err), -EAGAIN);
        assert_true(err.message[0]);
        store_close(store);
    }
}

/* A role that may not make the tables is told what to do; where they are, it needs no such right.
 */
static void says_what_rights_are_missing(void **state)
{
    struct fixture *f = *state;
    const char *more;
    struct store *store;
    char url[200];
    sql(f, "DROP TABLE todos; DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN");
    snprintf(url, sizeof url, "postgres://app@127.0.0.1:%s/postgres", getenv("PGPORT"));
    assert_int_equal(store_open(url, &store, &f->err), 0);
    assert_int_equal(store_remove(store, "a", &f->err), -EIO);
    assert_non_null(strstr(f->err.message, "todo --store postgres:// --sql | psql"));
    sql(f, store_sql(url, &more));
    sql(f, more);
    sql(f, "GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO app");
    assert_int_equal(store_remove(store, "a", &f->err), 0);
    store_close(store);
    sql(f, "DROP TABLE todos; DROP ROLE app");
}

#define ON_SQLITE(test)                                                                            \
    {                                                                                              \
        "sqlite: " #test, test, setup_sqlite, teardown, NULL                                       \
    }
#define ON_POSTGRES(test)                                                                          \
    {                                                                                              \
        "postgres: " #test, test, setup_postgres, teardown, NULL                                   \
    }
#define ON_BOTH(test) ON_SQLITE(test), ON_POSTGRES(test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(keeps_items_in_order),
        ON_BOTH(adds_once),
        ON_BOTH(gives_the_time),
        ON_BOTH(changes_what_is_said),
        ON_SQLITE(writes_only_what_differs),
        ON_BOTH(changes_all),
        ON_BOTH(changes_those_that_are_meant),
        ON_BOTH(has_a_bound),
        ON_BOTH(titles_have_a_bound),
        ON_BOTH(takes_any_text),
        ON_BOTH(others_write_too),
        ON_SQLITE(survives_text_that_is_none),
        ON_BOTH(tables_that_go_come_back),
        ON_POSTGRES(survives_dead_connections),
        ON_SQLITE(says_that_a_file_is_locked),
        ON_SQLITE(notices_another_file),
        ON_BOTH(many_threads),
        ON_BOTH(many_stores_at_once),
        ON_POSTGRES(says_what_rights_are_missing),
        cmocka_unit_test(refuses_urls),
        cmocka_unit_test(says_that_a_database_is_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
