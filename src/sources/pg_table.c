/* The tables of a stream as it has described them, and what templates make of their columns.
 *
 * An event's channel and columns are looked up once for a table and a template (a binding) and
 * again when either has changed; then a change costs a pass over its values for each template. */
#include "pg_table.h"

#include "json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_NAME_MAX 1024 /* of a name as JSON */

/* ---- descriptions ---- */

static void unbind(struct pg_table *t)
{
    for (size_t i = 0; i < t->n_bindings; i++)
        free(t->bindings[i].uses);
    free(t->bindings);
    t->bindings = NULL;
    t->n_bindings = 0;
}

static void table_done(struct pg_table *t)
{
    unbind(t);
    for (unsigned i = 0; i < t->n_fields; i++) {
        free(t->fields[i].name);
        free(t->fields[i].json);
    }
    free(t->fields);
    free(t->name);
}

struct pg_table *pg_tables_find(const struct pg_tables *all, uint32_t oid)
{
    for (size_t i = 0; i < all->n_tables; i++)
        if (all->tables[i].oid == oid)
            return &all->tables[i];
    return NULL;
}

static struct pg_json_type find_type(const struct pg_tables *all, uint32_t oid)
{
    for (size_t i = 0; i < all->n_types; i++)
        if (all->types[i].oid == oid)
            return all->types[i].type;
    return pg_json_type(oid);
}

int pg_tables_take_type(struct pg_tables *all, const struct pg_output *m)
{
    struct pg_user_type type = { m->oid, pg_json_type_named(m->name_space, m->name) };
    for (size_t i = 0; i < all->n_types; i++)
        if (all->types[i].oid == m->oid) {
            all->types[i] = type;
            return 0;
        }
    struct pg_user_type *types = reallocarray(all->types, all->n_types + 1, sizeof *types);
    if (!types)
        return -ENOMEM;
    all->types = types;
    types[all->n_types++] = type;
    return 0;
}

/* A copy of a text as JSON, with `after` behind it. */
static char *quoted_copy(const char *text, const char *after)
{
    struct buf b = buf_make(JSON_NAME_MAX);
    (void)json_append_string(&b, text, strlen(text));
    (void)buf_append(&b, after, strlen(after) + 1);
    if (!b.failed)
        return (char *)b.data;
    buf_done(&b);
    return NULL;
}

static char *table_name(const struct pg_output *m)
{
    char text[512];
    const char *name_space = m->name_space[0] ? m->name_space : "pg_catalog";
    int n = snprintf(text, sizeof text, "%s.%s", name_space, m->name);
    return n > 0 && (size_t)n < sizeof text ? quoted_copy(text, "") : NULL;
}

static int read_fields(const struct pg_tables *all, struct pg_tuple columns, struct pg_table *t)
{
    struct pg_column column;
    t->fields = calloc(columns.n + 1u, sizeof *t->fields);
    if (!t->fields)
        return -ENOMEM;
    while (pg_column_next(&columns, &column)) {
        struct pg_field *field = &t->fields[t->n_fields++];
        *field = (struct pg_field){ .name = strdup(column.name),
                                    .json = quoted_copy(column.name, ":"),
                                    .type = find_type(all, column.type),
                                    .identity = column.identity };
        if (!field->name || !field->json)
            return -ENOMEM;
    }
    return 0;
}

static int add_table(struct pg_tables *all, const struct pg_table *t)
{
    struct pg_table *old = pg_tables_find(all, t->oid);
    if (old) {
        table_done(old);
        *old = *t;
        return 0;
    }
    struct pg_table *tables = reallocarray(all->tables, all->n_tables + 1, sizeof *tables);
    if (!tables)
        return -ENOMEM;
    all->tables = tables;
    tables[all->n_tables++] = *t;
    return 0;
}

/* ---- partitions ---- */

/* What is logged of old rows of its partitions. */
static void look_at_partitions(const struct pg_tables *all, struct pg_table *whole)
{
    whole->n_less = 0;
    for (unsigned i = 0; i < whole->n_fields; i++)
        whole->fields[i].n_has = 0;
    for (size_t k = 0; k < all->n_tables && whole->full; k++) {
        const struct pg_table *part = &all->tables[k];
        if (part->whole != whole->oid || part->full)
            continue;
        whole->n_less++;
        for (unsigned i = 0; i < part->n_fields; i++) {
            const char *name = part->fields[i].name;
            int at = pg_table_field(whole, name, strlen(name));
            if (at >= 0 && part->fields[i].identity)
                whole->fields[at].n_has++;
        }
    }
}

/* A table that is described directly after another one is its partition: else a row of that one
 * would stand in between. (Or both were truncated: then all of the columns would have to be the
 * same.) */
static uint32_t find_whole(const struct pg_tables *all, const struct pg_table *t)
{
    const struct pg_table *whole = all->described ? pg_tables_find(all, all->described) : NULL;
    if (!whole || whole->oid == t->oid || whole->n_fields != t->n_fields)
        return 0;
    for (unsigned i = 0; i < t->n_fields; i++)
        if (pg_table_field(whole, t->fields[i].name, strlen(t->fields[i].name)) < 0)
            return 0;
    return whole->oid;
}

static void place(struct pg_tables *all, uint32_t oid)
{
    struct pg_table *t = pg_tables_find(all, oid);
    look_at_partitions(all, t);
    struct pg_table *whole = t->whole ? pg_tables_find(all, t->whole) : NULL;
    if (whole)
        look_at_partitions(all, whole);
    all->described = oid;
}

void pg_tables_take_change(struct pg_tables *all)
{
    all->described = 0;
}

int pg_tables_take_relation(struct pg_tables *all, const struct pg_output *m)
{
    if (m->columns.n > PG_COLUMNS_MAX)
        return -EBADMSG;
    struct pg_table t = { .oid = m->oid,
                          .full = m->identity == 'f',
                          .watching =
                              !strcmp(m->name_space, "fanwire") && !strcmp(m->name, "watching"),
                          .name = table_name(m),
                          .unbound = true };
    int r = t.name ? read_fields(all, m->columns, &t) : -ENOMEM;
    if (r == 0) {
        t.whole = find_whole(all, &t);
        r = add_table(all, &t);
    }
    if (r < 0)
        table_done(&t);
    else
        place(all, m->oid);
    return r;
}

/* ---- bindings ---- */

static bool contains(const json_t *names, const char *name)
{
    size_t i;
    const json_t *item;
    json_array_foreach(names, i, item)
    {
        const char *text = json_string_value(item);
        if (text && !strcmp(text, name))
            return true;
    }
    return false;
}

/* Does it list a column that the table does not have? */
static bool lacks(const struct pg_table *t, const json_t *names)
{
    size_t i;
    const json_t *item;
    json_array_foreach(names, i, item)
    {
        const char *name = json_string_value(item);
        if (name && pg_table_field(t, name, strlen(name)) < 0)
            return true;
    }
    return false;
}

static int bind_one(struct pg_table *t, const struct pg_watch *watch)
{
    struct pg_binding *bindings = reallocarray(t->bindings, t->n_bindings + 1, sizeof *bindings);
    if (!bindings)
        return -ENOMEM;
    t->bindings = bindings;
    struct pg_binding *b = &bindings[t->n_bindings];
    *b = (struct pg_binding){ .watch = watch,
                              .uses = calloc(t->n_fields + 1, 1),
                              .lacks = lacks(t, watch->columns) || lacks(t, watch->keys) };
    if (!b->uses)
        return -ENOMEM;
    t->n_bindings++;
    for (unsigned i = 0; i < t->n_fields; i++) {
        const char *name = t->fields[i].name;
        bool row = !watch->columns || contains(watch->columns, name);
        bool key = watch->keys && contains(watch->keys, name);
        b->uses[i] = (uint8_t)((row ? PG_USE_ROW : 0) | (key ? PG_USE_KEY : 0));
    }
    return 0;
}

int pg_table_bind(struct pg_table *t, const struct pg_watching *watching)
{
    int r = 0;
    if (!t->unbound && t->serial == watching->serial)
        return 0;
    unbind(t);
    for (size_t i = 0; i < watching->n && r == 0; i++) {
        const struct pg_watch *watch = &watching->items[i];
        if (watch->relation == t->oid && watch->active)
            r = bind_one(t, watch);
    }
    t->unbound = r < 0;
    t->serial = watching->serial;
    return r;
}

int pg_table_field(const struct pg_table *t, const char *name, size_t len)
{
    for (unsigned i = 0; i < t->n_fields; i++)
        if (strlen(t->fields[i].name) == len && !memcmp(t->fields[i].name, name, len))
            return (int)i;
    return -1;
}

void pg_tables_clear(struct pg_tables *all)
{
    for (size_t i = 0; i < all->n_tables; i++)
        table_done(&all->tables[i]);
    free(all->tables);
    free(all->types);
    *all = (struct pg_tables){ 0 };
}
