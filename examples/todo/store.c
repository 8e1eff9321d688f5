/* The store's verbs, made of a backend's statements. */
#include "store.h"

#include "backend.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 3

struct store {
    const struct backend *backend;
    void *db;
};

int store_fail(struct fw_error *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err->code = code;
    (void)vsnprintf(err->message, sizeof(err->message), format, args);
    va_end(args);
    return code;
}

static const struct backend *backend_of(const char *url)
{
    if (strncmp(url, "sqlite:", 7) == 0)
        return &backend_sqlite;
    if (strncmp(url, "postgres://", 11) == 0 || strncmp(url, "postgresql://", 13) == 0)
        return &backend_postgres;
    return NULL;
}

int store_check(const char *url, struct fw_error *err)
{
    const struct backend *backend = backend_of(url);
    if (!backend) /* not quoted: it may hold a password */
        return store_fail(err, -EINVAL, "--store: write sqlite:FILE or postgres://…");
    if (backend == &backend_sqlite &&
        strchr(url, '#')) /* a fragment to SQLite, not to the source */
        return store_fail(err, -EINVAL, "--store: write %%23 for # in the file's name");
    return 0;
}

int store_open(const char *url, struct store **ret, struct fw_error *err)
{
    int r = store_check(url, err);
    if (r < 0)
        return r;
    struct store *store = calloc(1, sizeof(*store));
    if (!store)
        return store_fail(err, -ENOMEM, "out of memory for the store");
    store->backend = backend_of(url);
    r = store->backend->open(url, &store->db, err);
    if (r < 0) {
        free(store);
        return r;
    }
    *ret = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    store->backend->close(store->db);
    free(store);
}

const char *store_sql(const char *url, const char **more)
{
    const struct backend *backend = backend_of(url);
    *more = backend->schema;
    return fw_sql(backend->kind, NULL);
}

const char *store_query(const char *url)
{
    return backend_of(url)->list;
}

static int run(struct store *store, enum statement statement, const struct draft *draft,
               item_fn *each, void *arg, struct fw_error *err)
{
    return store->backend->run(store->db, statement, draft, each, arg, err);
}

/* For statements whose rows don't matter. */
static int execute(struct store *store, enum statement statement, const struct draft *draft,
                   struct fw_error *err)
{
    int n = run(store, statement, draft, NULL, NULL, err);
    return n < 0 ? n : 0;
}

int store_list(struct store *store, item_fn *each, void *arg, struct fw_error *err)
{
    const struct draft nothing = draft_make("");
    int n = run(store, LIST, &nothing, each, arg, err);
    return n < 0 ? n : 0;
}

int store_get(struct store *store, const char *id, item_fn *each, void *arg, struct fw_error *err)
{
    const struct draft draft = draft_make(id);
    return run(store, GET, &draft, each, arg, err);
}

static int full(struct fw_error *err)
{
    return store_fail(err, -ENOSPC,
                      "The list is full: it has room for " LIST_ITEMS_MAX
                      " items, and for 8 MiB of titles. Delete some first.");
}

/* Between finding that there is one and reading it, it may be deleted. */
int store_add(struct store *store, const struct draft *draft, item_fn *each, void *arg,
              struct fw_error *err)
{
    for (int i = 0; i < TRIES; i++) {
        int n = run(store, ADD, draft, each, arg, err);
        if (n != 0)
            return n;
        n = run(store, GET, draft, each, arg, err);
        if (n != 0)
            return n < 0 ? n : 0;
    }
    return full(err);
}

/* Looks at an item on its way to whom it is told. */
struct look {
    const struct draft *draft;
    item_fn *each;
    void *arg;
    bool differs;
};

static int look_at(const struct item *item, void *arg)
{
    struct look *look = arg;
    const struct draft *draft = look->draft;
    look->differs = (draft->title && strcmp(draft->title, item->title) != 0) ||
                    (draft->completed >= 0 && draft->completed != item->completed);
    return look->each(item, look->arg);
}

/* Nothing is written, and so nobody is told, where the item is already as it shall be. If it is
 * not, somebody has changed it in between, or there is no room. */
int store_change(struct store *store, const struct draft *draft, item_fn *each, void *arg,
                 struct fw_error *err)
{
    struct look look = { draft, each, arg, false };
    for (int i = 0; i < TRIES; i++) {
        int n = run(store, CHANGE, draft, each, arg, err);
        if (n == 0)
            n = run(store, GET, draft, look_at, &look, err);
        if (n <= 0 || !look.differs)
            return n;
        look.differs = false;
    }
    return full(err);
}

int store_remove(struct store *store, const char *id, struct fw_error *err)
{
    const struct draft draft = draft_make(id);
    return execute(store, REMOVE, &draft, err);
}

int store_change_all(struct store *store, bool completed, const char *ids, struct fw_error *err)
{
    struct draft draft = draft_make("");
    draft.completed = completed;
    draft.ids = (char *)ids;
    return execute(store, CHANGE_ALL, &draft, err);
}

int store_remove_completed(struct store *store, const char *ids, struct fw_error *err)
{
    struct draft draft = draft_make("");
    draft.ids = (char *)ids;
    return execute(store, REMOVE_COMPLETED, &draft, err);
}
