/* Which foreign names the server is told to LISTEN to, and how it gets there.
 *
 * A name's wish changes at any time, its state only when a query has ended. A name whose wish and
 * state may differ is in `pending`; next() looks at it again and decides, so that no order of
 * subscribe and unsubscribe can end wrong. Nothing but next(), settle() and reset() frees names. */
#include "pg_names.h"

#include "siphash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum name_state { ABSENT, LISTENING, LISTENED, LEAVING };

struct pg_name {
    struct list node; /* in pending or batch */
    uint64_t hash;
    enum name_state state;
    bool wanted;
    bool local; /* needs no LISTEN: reaches us inside the envelope only */
    bool alone; /* was in a batch that failed */
    size_t len;
    char text[];
};

void pg_names_init(struct pg_names *names)
{
    names->map = (struct map){ 0 };
    names->n_batch = 0;
    list_init(&names->pending);
    list_init(&names->batch);
    if (getrandom(names->key, sizeof names->key, 0) != sizeof names->key)
        names->key[0] = (uintptr_t)names;
}

static bool same_name(const void *value, const void *key, size_t len)
{
    const struct pg_name *name = value;
    return name->len == len && !memcmp(name->text, key, len);
}

static void name_free(struct pg_names *names, struct pg_name *name)
{
    list_remove(&name->node);
    (void)map_remove(&names->map, name->hash, name);
    free(name);
}

void pg_names_reset(struct pg_names *names)
{
    size_t at = 0;
    for (struct pg_name *name; (name = map_next(&names->map, &at));)
        free(name);
    map_done(&names->map);
    names->map = (struct map){ 0 };
    names->n_batch = 0;
    list_init(&names->pending);
    list_init(&names->batch);
}

static void make_pending(struct pg_names *names, struct pg_name *name)
{
    if (!list_linked(&name->node)) /* in a batch: settle() will look at it */
        list_push(&names->pending, &name->node);
}

/* "fanwire" itself is always listened to. */
static bool is_local(const char *text, size_t len)
{
    return len > PG_NAME_MAX || memchr(text, '\0', len) ||
           (len == 7 && !memcmp(text, "fanwire", 7));
}

static struct pg_name *name_new(struct pg_names *names, uint64_t hash, const char *text, size_t len)
{
    struct pg_name *name = malloc(sizeof *name + len + 1);
    if (!name)
        return NULL;
    *name = (struct pg_name){ .hash = hash, .len = len, .local = is_local(text, len) };
    memcpy(name->text, text, len);
    name->text[len] = '\0';
    if (map_put(&names->map, hash, name) == 0)
        return name;
    free(name);
    return NULL;
}

int pg_names_want(struct pg_names *names, const char *text, size_t len)
{
    uint64_t hash = siphash(names->key, text, len);
    struct pg_name *name = map_get(&names->map, hash, same_name, text, len);
    if (!name)
        name = name_new(names, hash, text, len);
    if (!name)
        return -ENOMEM;
    name->wanted = true;
    make_pending(names, name);
    return 0;
}

void pg_names_drop(struct pg_names *names, const char *text, size_t len)
{
    uint64_t hash = siphash(names->key, text, len);
    struct pg_name *name = map_get(&names->map, hash, same_name, text, len);
    if (!name)
        return;
    name->wanted = false;
    make_pending(names, name);
}

static bool write_statement(struct buf *sql, PGconn *conn, const char *verb,
                            const struct pg_name *name)
{
    char *quoted = PQescapeIdentifier(conn, name->text, name->len);
    if (!quoted)
        return false;
    (void)buf_printf(sql, "%s %s;", verb, quoted);
    PQfreemem(quoted);
    return !sql->failed;
}

static void refuse(struct pg_names *names, struct pg_name *name, const char *message)
{
    bool wanted = name->wanted;
    name->state = ABSENT;
    name->wanted = false;
    if (wanted)
        names->on_refused(names->arg, name->text, name->len, message);
    make_pending(names, name); /* freed by next(), unless wanted again by then */
}

/* Brings a name that needs the server into the query. */
static void add_to_batch(struct pg_names *names, struct pg_name *name, PGconn *conn,
                         struct buf *sql)
{
    bool listen = name->wanted;
    if (!write_statement(sql, conn, listen ? "LISTEN" : "UNLISTEN", name)) {
        refuse(names, name, PQerrorMessage(conn));
        return;
    }
    name->state = listen ? LISTENING : LEAVING;
    list_push(&names->batch, &name->node);
    names->n_batch++;
}

static void look_at(struct pg_names *names, struct pg_name *name, PGconn *conn, struct buf *sql)
{
    bool there = name->state == LISTENED;
    if (!name->wanted && (!there || name->local)) {
        name_free(names, name);
    } else if (name->wanted && (there || name->local)) {
        name->state = LISTENED;
        names->on_ready(names->arg, name->text, name->len);
    } else {
        add_to_batch(names, name, conn, sql);
    }
}

unsigned pg_names_next(struct pg_names *names, PGconn *conn, struct buf *sql)
{
    while (names->n_batch < PG_NAMES_BATCH && !list_empty(&names->pending)) {
        struct pg_name *name = list_entry(names->pending.next, struct pg_name, node);
        bool alone = name->alone;
        if (alone && names->n_batch > 0)
            break;
        list_remove(&name->node);
        look_at(names, name, conn, sql);
        if (alone && names->n_batch > 0)
            break;
    }
    if (names->n_batch > 0)
        (void)buf_append_char(sql, '\0');
    return names->n_batch;
}

static void settle_one(struct pg_names *names, struct pg_name *name, bool ok, bool was_alone,
                       const char *message)
{
    bool listening = name->state == LISTENING;
    if (ok) {
        name->state = listening ? LISTENED : ABSENT;
        name->alone = false;
    } else if (was_alone) {
        if (listening) {
            refuse(names, name, message);
            return;
        }
        name->state = ABSENT;
    } else { /* the whole query was rolled back */
        name->state = listening ? ABSENT : LISTENED;
        name->alone = true;
    }
    if (name->wanted && name->state == LISTENED)
        names->on_ready(names->arg, name->text, name->len);
    else
        make_pending(names, name);
}

void pg_names_settle(struct pg_names *names, bool ok, const char *message)
{
    bool was_alone = names->n_batch == 1;
    struct list done; /* callbacks may add to the lists */
    list_init(&done);
    for (struct list *node; (node = list_pop(&names->batch));)
        list_push(&done, node);
    names->n_batch = 0;
    for (struct list *node; (node = list_pop(&done));)
        settle_one(names, list_entry(node, struct pg_name, node), ok, was_alone, message);
}
