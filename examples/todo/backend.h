/* What a database has to do for the store: run seven statements. */
#ifndef TODO_BACKEND_H
#define TODO_BACKEND_H

#include "store.h"

/* All the titles together, as JSON: the list has to fit into one answer of 16 MiB, beside its ids.
 */
#define LIST_ITEMS_MAX  "10000"
#define LIST_TITLES_MAX "8388608"

/* Each has up to five parameters, those of a draft: id, title, completed, created, ids. ADD and
 * CHANGE leave undone what would take the list over its bounds; two at the same moment may pass
 * together. */
enum statement {
    LIST,
    GET,
    ADD,
    CHANGE,
    REMOVE,
    CHANGE_ALL,
    REMOVE_COMPLETED,
    N_STATEMENTS,
};

struct backend {
    int (*open)(const char *url, void **ret_db, struct fw_error *err);
    /* Runs a statement and tells each row that it returns. Returns their number or -errno. */
    int (*run)(void *db, enum statement statement, const struct draft *draft, item_fn *each,
               void *arg, struct fw_error *err);
    void (*close)(void *db);
    const char *kind; /* of fw_sql() */
    const char *list; /* the statement LIST */
    const char *schema;
};

extern const struct backend backend_sqlite, backend_postgres;

/* Writes the text and returns `code`. */
__attribute__((format(printf, 3, 4))) int store_fail(struct fw_error *err, int code,
                                                     const char *format, ...);

#endif
