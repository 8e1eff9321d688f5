/* Where the to-do items are kept: SQLite or Postgres, alike to who calls.
 *
 * All functions from store_list() on may be called by any thread, many at a time;
 * they block. They return > 0 / 0 / -errno, with text in *err when negative:
 *   -EAGAIN     the database is away, or busy for too long; nothing was changed
 *   -ETIMEDOUT  the connection was lost before the answer came: the change may have been made
 *   -EINVAL     the database refuses the values
 *   -ENOSPC     the list has no room for it: 10,000 items, 8 MiB of titles
 *   -EIO        anything else; who runs the server has to look */
#ifndef TODO_STORE_H
#define TODO_STORE_H

#include "draft.h"

#include <fanwire.h>

struct store;

struct item {
    const char *id, *title;
    bool completed;
    int64_t created; /* ms since 1970 */
};

/* Is told an item, borrowed for the call. Returns 0 or a negative errno, which ends the listing. */
typedef int item_fn(const struct item *item, void *arg);

/* Can it be the URL of a store: "sqlite:FILE", "postgres://…"? Keeps nothing of it. 0 or -EINVAL.
 */
int store_check(const char *url, struct fw_error *err);
/* What each connection makes sure of, as SQL; `more` is the second part. Static; of a URL that
 * store_check() takes. */
const char *store_sql(const char *url, const char **more);

/* The query for all items, for those who listen to them. Static; of a URL that store_check() takes.
 */
const char *store_query(const char *url);

/* Reads the URL; connections are made when they are needed, and
 * each makes the tables where they are missing. Returns 0, -EINVAL or -ENOMEM. *ret is owned. */
int store_open(const char *url, struct store **ret, struct fw_error *err);
void store_close(struct store *store); /* NULL allowed */

/* All items by (created, id). Returns 0 or -errno. */
int store_list(struct store *store, item_fn *each, void *arg, struct fw_error *err);
/* Returns 1, or 0 when there is no such item. */
int store_get(struct store *store, const char *id, item_fn *each, void *arg, struct fw_error *err);
/* Tells the item as it is then. Returns 1 when it was added, 0 when there was one of this id. */
int store_add(struct store *store, const struct draft *draft, item_fn *each, void *arg,
              struct fw_error *err);
/* Changes what the draft has, and tells the item. Returns 1, or 0 when there is no such item. */
int store_change(struct store *store, const struct draft *draft, item_fn *each, void *arg,
                 struct fw_error *err);
int store_remove(struct store *store, const char *id, struct fw_error *err);
/* `ids`: a JSON array; only those of them. NULL: all. */
int store_change_all(struct store *store, bool completed, const char *ids, struct fw_error *err);
int store_remove_completed(struct store *store, const char *ids, struct fw_error *err);

#endif
