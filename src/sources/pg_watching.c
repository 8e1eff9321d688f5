/* What is watched: a channel template of a table, and which columns its events have. */
#include "pg_watching.h"

#include "pg_json.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX (1 << 20)

static void done(struct pg_watch *watch)
{
    free(watch->channel);
    json_decref(watch->columns);
    json_decref(watch->keys);
}

void pg_watching_clear(struct pg_watching *w)
{
    for (size_t i = 0; i < w->n; i++)
        done(&w->items[i]);
    free(w->items);
    *w = (struct pg_watching){ .serial = w->serial + 1 };
}

static struct pg_watch *find(struct pg_watching *w, uint32_t relation, const char *channel)
{
    for (size_t i = 0; i < w->n; i++)
        if (w->items[i].relation == relation && !strcmp(w->items[i].channel, channel))
            return &w->items[i];
    return NULL;
}

static void remove_item(struct pg_watching *w, struct pg_watch *watch)
{
    done(watch);
    size_t after = (size_t)(w->items + w->n - (watch + 1));
    memmove(watch, watch + 1, after * sizeof *watch);
    w->n--;
    w->serial++;
}

/* text[] → array of strings */
static int read_names(const char *text, json_t **ret)
{
    static const struct pg_json_type names = { .array = true, .delimiter = ',' };
    struct buf b = buf_make(NAMES_MAX);
    *ret = NULL;
    if (!text)
        return 0;
    int r = pg_json_write(&b, names, text, strlen(text));
    if (r == 0)
        *ret = json_loadb((const char *)b.data, b.len, 0, NULL);
    buf_done(&b);
    return r == -ENOMEM ? r : json_is_array(*ret) ? 0 : -EINVAL;
}

static int read_numbers(const struct pg_watch_row *row, uint32_t *ret_id, uint32_t *ret_relation)
{
    uint64_t id, relation;
    if (!row->id || !row->relation || !row->channel ||
        parse_uint(row->id, (1u << (PG_ROW_SUB_BITS - 1)) - 1, &id) < 0 ||
        parse_uint(row->relation, UINT32_MAX, &relation) < 0)
        return -EINVAL;
    *ret_id = (uint32_t)id;
    *ret_relation = (uint32_t)relation;
    return 0;
}

static int read_row(const struct pg_watch_row *row, bool asked, struct pg_watch *ret)
{
    *ret = (struct pg_watch){ .active = asked || !row->ended, .doubtful = asked && row->ended };
    int r = read_numbers(row, &ret->id, &ret->relation);
    if (r == 0)
        r = read_names(row->columns, &ret->columns);
    if (r == 0)
        r = read_names(row->keys, &ret->keys);
    if (r == 0 && !(ret->channel = strdup(row->channel)))
        r = -ENOMEM;
    if (r < 0)
        done(ret);
    return r;
}

static int insert(struct pg_watching *w, const struct pg_watch *watch)
{
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 16;
        struct pg_watch *items = reallocarray(w->items, cap, sizeof *items);
        if (!items)
            return -ENOMEM;
        w->items = items;
        w->cap = cap;
    }
    size_t at = w->n;
    while (at > 0 && w->items[at - 1].id > watch->id)
        at--;
    memmove(w->items + at + 1, w->items + at, (w->n - at) * sizeof *w->items);
    w->items[at] = *watch;
    w->n++;
    w->serial++;
    return 0;
}

int pg_watching_put(struct pg_watching *w, const struct pg_watch_row *row, bool asked)
{
    struct pg_watch watch;
    int r = read_row(row, asked, &watch);
    if (r < 0)
        return r;
    struct pg_watch *old = find(w, watch.relation, watch.channel);
    if (old)
        remove_item(w, old);
    r = insert(w, &watch);
    if (r < 0)
        done(&watch);
    return r;
}

void pg_watching_remove(struct pg_watching *w, const struct pg_watch_row *row)
{
    uint64_t relation;
    if (!row->relation || !row->channel || parse_uint(row->relation, UINT32_MAX, &relation) < 0)
        return;
    struct pg_watch *watch = find(w, (uint32_t)relation, row->channel);
    if (watch)
        remove_item(w, watch);
}

void pg_watching_settle(struct pg_watching *w)
{
    for (size_t i = 0; i < w->n; i++) {
        w->items[i].active &= !w->items[i].doubtful;
        w->items[i].doubtful = false;
    }
    w->serial++;
}
