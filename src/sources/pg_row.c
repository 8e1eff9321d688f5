/* Changes of watched tables as events: what is watched, how the tables look, the contract's JSON.
 */
#include "pg_row.h"

#include "json.h"
#include "pg_table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANNEL_MAX 255
#define WHY_SIZE    400
#define ROOM        4096 /* of an event beyond its largest payload: it is seen to be too large */

/* A row's values; kind 0: not known. */
struct values {
    struct pg_value at[PG_COLUMNS_MAX];
};

struct pg_rows {
    size_t event_max;
    struct pg_watching watching;
    struct pg_tables tables;
    struct values row, old;
    struct buf event, channel, other_channel;
};

/* ---- values ---- */

static bool known(const struct pg_value *v)
{
    return v->kind == 't' || v->kind == 'n';
}

/* What the message has of a row. */
static int read_values(const struct pg_table *t, struct pg_tuple tuple, struct values *ret)
{
    struct pg_value value;
    if (tuple.n != t->n_fields)
        return -EBADMSG;
    for (unsigned i = 0; pg_tuple_next(&tuple, &value); i++)
        ret->at[i] = value;
    return 0;
}

static void know_nothing(const struct pg_table *t, struct values *ret)
{
    memset(ret->at, 0, t->n_fields * sizeof ret->at[0]);
}

/* May it be the row of a partition that logs less of it? Then everything else is null. */
static bool may_be_less(const struct pg_table *t, const struct values *old)
{
    bool less = t->n_less > 0;
    for (unsigned i = 0; i < t->n_fields && less; i++)
        less = t->fields[i].n_has > 0 || old->at[i].kind == 'n';
    return less;
}

/* What is not logged of an old row is sent as null. What is part of an identity is never null. */
static int read_old(const struct pg_table *t, const struct pg_output *m, struct values *old)
{
    int r = read_values(t, m->old_row, old);
    bool whole = m->old_kind == 'O' && r == 0 && !may_be_less(t, old);
    for (unsigned i = 0; i < t->n_fields && !whole; i++)
        if (old->at[i].kind == 'n' || !t->fields[i].identity)
            old->at[i].kind = 0;
    return r;
}

/* No old row: what would be logged of it has not changed. */
static void infer_old(const struct pg_table *t, const struct values *row, struct values *old)
{
    for (unsigned i = 0; i < t->n_fields; i++) {
        const struct pg_field *f = &t->fields[i];
        bool logged = t->full ? t->n_less > 0 && f->n_has == t->n_less : f->identity;
        if (logged)
            old->at[i] = row->at[i];
    }
}

static int read_rows(struct pg_rows *rows, const struct pg_table *t, const struct pg_output *m)
{
    int r = 0;
    know_nothing(t, &rows->row);
    know_nothing(t, &rows->old);
    if (m->old_kind)
        r = read_old(t, m, &rows->old);
    if (r == 0 && m->kind != PG_DELETE)
        r = read_values(t, m->row, &rows->row);
    if (r == 0 && m->kind == PG_UPDATE && !m->old_kind)
        infer_old(t, &rows->row, &rows->old);
    /* A large value that has not changed is not sent again, but the old row may have it. */
    for (unsigned i = 0; i < t->n_fields && r == 0; i++)
        if (rows->row.at[i].kind == 'u' && known(&rows->old.at[i]))
            rows->row.at[i] = rows->old.at[i];
    return r;
}

/* ---- channels ---- */

enum channel { CHANNEL_MADE, CHANNEL_NULL, CHANNEL_UNKNOWN, CHANNEL_LACKING };

static enum channel write_part(const struct pg_table *t, const struct values *values,
                               const char *name, size_t len, struct buf *out)
{
    int i = pg_table_field(t, name, len);
    if (i < 0)
        return CHANNEL_LACKING;
    if (values->at[i].kind == 'n')
        return CHANNEL_NULL;
    if (!known(&values->at[i]))
        return CHANNEL_UNKNOWN;
    (void)pg_json_write_text(out, t->fields[i].type, values->at[i].text, values->at[i].len);
    return CHANNEL_MADE;
}

/* The channel that the template makes of the row. One that is too long is no channel, which the
 * hub says. */
static enum channel make_channel(const struct pg_table *t, const char *template,
                                 const struct values *values, struct buf *out)
{
    enum channel made = CHANNEL_MADE;
    buf_clear(out);
    for (const char *at = template; *at && made == CHANNEL_MADE;) {
        size_t len = strcspn(at, "{}");
        (void)buf_append(out, at, len);
        at += len;
        const char *end = *at == '{' ? strchr(at, '}') : NULL;
        if (end)
            made = write_part(t, values, at + 1, (size_t)(end - at - 1), out);
        at = end ? end + 1 : *at ? at + 1 : at;
    }
    return made;
}

/* ---- JSON ---- */

/* Appends {"column":value,…} of what is known; true if something is missing. */
static bool write_object(struct buf *b, const struct pg_table *t, const struct pg_binding *binding,
                         unsigned use, const struct values *values)
{
    bool missing = false;
    const char *joint = "";
    (void)buf_append_char(b, '{');
    for (unsigned i = 0; i < t->n_fields; i++) {
        const struct pg_value *v = &values->at[i];
        if (!(binding->uses[i] & use))
            continue;
        if (!known(v)) {
            missing = true;
            continue;
        }
        (void)buf_append_str(b, joint);
        (void)buf_append_str(b, t->fields[i].json);
        joint = ",";
        if (v->kind == 'n')
            (void)buf_append_str(b, "null");
        else
            (void)pg_json_write(b, t->fields[i].type, v->text, v->len);
    }
    (void)buf_append_char(b, '}');
    return missing;
}

static const char *op_name(enum pg_output_kind kind)
{
    switch (kind) {
    case PG_INSERT:
        return "insert";
    case PG_UPDATE:
        return "update";
    case PG_DELETE:
        return "delete";
    default:
        return "truncate";
    }
}

static void begin_event(struct pg_rows *rows, const struct pg_table *t, enum pg_output_kind kind)
{
    buf_clear(&rows->event);
    (void)buf_printf(&rows->event, "{\"op\":\"%s\",\"table\":", op_name(kind));
    (void)buf_append_str(&rows->event, t->name);
}

static void end_event(struct pg_rows *rows, uint64_t xid, bool partial)
{
    (void)buf_printf(&rows->event, ",\"tx\":\"%" PRIu64 "\"%s}", xid,
                     partial ? ",\"partial\":true" : "");
}

/* Of a full identity all of the old row is to be expected. */
static bool write_old(struct buf *b, const struct pg_table *t, const struct pg_binding *binding,
                      const struct pg_output *m, const struct values *old)
{
    if (!m->old_kind)
        return t->full && m->kind == PG_UPDATE;
    (void)buf_append_str(b, ",\"old\":");
    return write_object(b, t, binding, PG_USE_ROW, old) && t->full;
}

static void write_change(struct pg_rows *rows, const struct pg_table *t,
                         const struct pg_binding *binding, const struct pg_output *m, uint64_t xid)
{
    struct buf *b = &rows->event;
    bool partial = binding->lacks;
    begin_event(rows, t, m->kind);
    if (binding->watch->keys) {
        (void)buf_append_str(b, ",\"key\":");
        partial |=
            write_object(b, t, binding, PG_USE_KEY, m->kind == PG_DELETE ? &rows->old : &rows->row);
    }
    if (m->kind != PG_DELETE) {
        (void)buf_append_str(b, ",\"row\":");
        partial |= write_object(b, t, binding, PG_USE_ROW, &rows->row);
    }
    partial |= write_old(b, t, binding, m, &rows->old);
    end_event(rows, xid, partial);
}

/* ---- events ---- */

static void give(struct pg_rows *rows, const struct buf *channel, uint32_t sub,
                 const struct pg_row_sink *sink)
{
    struct pg_row_event event = { .channel = channel->data ? (const char *)channel->data : "",
                                  .channel_len = channel->len,
                                  .data = rows->event.data,
                                  .len = rows->event.len,
                                  .sub = sub };
    if (channel->failed)
        event.channel_len = CHANNEL_MAX + 1;
    if (rows->event.failed || event.len > rows->event_max) {
        event.data = NULL;
        event.len = rows->event_max + 1;
    }
    if (event.channel_len >= 9 && !memcmp(event.channel, "$fanwire/", 9))
        sink->refused(sink->arg, "a row's channel begins with $fanwire/, which is reserved");
    else if (event.channel_len == 0 || event.channel_len > CHANNEL_MAX)
        sink->refused(sink->arg, "a row's channel has not 1 to 255 bytes");
    else
        sink->event(sink->arg, &event);
}

static bool same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (a->len == 0 || !memcmp(a->data, b->data, a->len));
}

/* The first column of the template that the table does not have. */
static const char *lacking(const struct pg_table *t, const char *template, size_t *ret_len)
{
    const char *at = template;
    while ((at = strchr(at, '{'))) {
        *ret_len = strcspn(++at, "}");
        if (pg_table_field(t, at, *ret_len) < 0)
            return at;
    }
    *ret_len = 0;
    return "";
}

/* The template, which may be long, stands last. */
static void refuse_lacking(const struct pg_table *t, const char *template,
                           const struct pg_row_sink *sink)
{
    char why[WHY_SIZE];
    size_t len = 0;
    const char *name = lacking(t, template, &len);
    (void)snprintf(why, sizeof why,
                   "the table %s no longer has the column %.*s; call fanwire_watch() with the name "
                   "that it has now, and fanwire_unwatch() with \"%s\"",
                   t->name, (int)len, name, template);
    sink->refused(sink->arg, why);
}

static void refuse_unknown(const struct pg_table *t, const char *template,
                           const struct pg_row_sink *sink)
{
    char why[WHY_SIZE];
    (void)snprintf(why, sizeof why,
                   "a change cannot be told in the channel of its old row: the replica identity of "
                   "the table %s, or of a partition, lacks the columns; call fanwire_watch() again "
                   "with \"%s\"",
                   t->name, template);
    sink->refused(sink->arg, why);
}

static int tell(struct pg_rows *rows, const struct pg_table *t, const struct pg_binding *binding,
                const struct pg_output *m, uint64_t xid, const struct pg_row_sink *sink)
{
    const char *template = binding->watch->channel;
    uint32_t sub = binding->watch->id << 1;
    enum channel now = CHANNEL_NULL, before = CHANNEL_NULL;
    if (m->kind != PG_DELETE)
        now = make_channel(t, template, &rows->row, &rows->channel);
    if (m->kind != PG_INSERT)
        before = make_channel(t, template, &rows->old, &rows->other_channel);
    if (now == CHANNEL_LACKING || before == CHANNEL_LACKING)
        refuse_lacking(t, template, sink);
    else if (now == CHANNEL_UNKNOWN || before == CHANNEL_UNKNOWN)
        refuse_unknown(t, template, sink);
    if (now != CHANNEL_MADE && before != CHANNEL_MADE)
        return 0;
    write_change(rows, t, binding, m, xid);
    if (rows->event.failed == -ENOMEM)
        return -ENOMEM;
    if (now == CHANNEL_MADE)
        give(rows, &rows->channel, sub, sink);
    if (before == CHANNEL_MADE &&
        (now != CHANNEL_MADE || !same(&rows->channel, &rows->other_channel)))
        give(rows, &rows->other_channel, sub | 1, sink);
    return 0;
}

/* ---- fanwire.watching ---- */

/* NUL-terminated in `b`. */
static int copy_value(struct buf *b, const struct pg_value *v, size_t *ret_at)
{
    *ret_at = b->len;
    if (v->len > 0)
        (void)buf_append(b, v->text, v->len);
    return buf_append_char(b, '\0');
}

static int read_watch(const struct pg_table *t, const struct values *values, struct buf *b,
                      struct pg_watch_row *ret)
{
    static const char *const names[] = { "id", "relation", "channel", "columns", "keys", "ended" };
    const char **out[] = { &ret->id,      &ret->relation, &ret->channel,
                           &ret->columns, &ret->keys,     &ret->ended };
    size_t at[6];
    for (int k = 0; k < 6; k++) {
        int i = pg_table_field(t, names[k], strlen(names[k]));
        bool there = i >= 0 && values->at[i].kind == 't';
        at[k] = SIZE_MAX;
        if (there && copy_value(b, &values->at[i], &at[k]) < 0)
            return b->failed;
    }
    for (int k = 0; k < 6; k++)
        *out[k] = at[k] == SIZE_MAX ? NULL : (const char *)b->data + at[k];
    return 0;
}

static int take_watching(struct pg_rows *rows, const struct pg_table *t, const struct pg_output *m)
{
    struct buf b = buf_make(1 << 20);
    struct pg_watch_row row;
    int r = 0;
    if (m->old_kind) { /* deleted, or its table's number has changed */
        r = read_watch(t, &rows->old, &b, &row);
        if (r == 0)
            pg_watching_remove(&rows->watching, &row);
    }
    if (r == 0 && m->kind != PG_DELETE)
        r = read_watch(t, &rows->row, &b, &row);
    if (r == 0 && m->kind != PG_DELETE)
        r = pg_watching_put(&rows->watching, &row, false);
    buf_done(&b);
    return r == -ENOMEM ? r : 0; /* a row that nobody but fanwire_watch() writes */
}

/* ---- messages ---- */

static int take_change(struct pg_rows *rows, const struct pg_output *m, uint64_t xid,
                       const struct pg_row_sink *sink)
{
    struct pg_table *t = pg_tables_find(&rows->tables, m->oid);
    int r = t ? read_rows(rows, t, m) : -EBADMSG;
    if (r < 0)
        return r;
    if (t->watching)
        return take_watching(rows, t, m);
    r = pg_table_bind(t, &rows->watching);
    for (size_t i = 0; i < t->n_bindings && r == 0; i++)
        r = tell(rows, t, &t->bindings[i], m, xid, sink);
    return r;
}

static bool lists(struct pg_tuple tables, uint32_t oid)
{
    for (uint32_t listed; pg_oid_next(&tables, &listed);)
        if (listed == oid)
            return true;
    return false;
}

/* In the order of the templates' ids, as everything. */
static int take_truncate(struct pg_rows *rows, const struct pg_output *m, uint64_t xid,
                         const struct pg_row_sink *sink)
{
    for (size_t i = 0; i < rows->watching.n; i++) {
        const struct pg_watch *watch = &rows->watching.items[i];
        const struct pg_table *t = pg_tables_find(&rows->tables, watch->relation);
        if (!watch->active || !t || strchr(watch->channel, '{') || !lists(m->tables, t->oid))
            continue;
        buf_clear(&rows->channel);
        (void)buf_append_str(&rows->channel, watch->channel);
        begin_event(rows, t, m->kind);
        end_event(rows, xid, false);
        if (rows->event.failed == -ENOMEM)
            return -ENOMEM;
        give(rows, &rows->channel, watch->id << 1, sink);
    }
    return 0;
}

static int take_relation(struct pg_rows *rows, const struct pg_output *m)
{
    for (size_t i = 0; i < rows->watching.n; i++)
        if (rows->watching.items[i].relation == m->oid) { /* told as its own: nobody's partition */
            pg_tables_take_change(&rows->tables);
            break;
        }
    return pg_tables_take_relation(&rows->tables, m);
}

int pg_rows_take(struct pg_rows *rows, const struct pg_output *m, uint64_t xid,
                 const struct pg_row_sink *sink)
{
    if (m->kind != PG_RELATION && m->kind != PG_TYPE)
        pg_tables_take_change(&rows->tables);
    switch (m->kind) {
    case PG_RELATION:
        return take_relation(rows, m);
    case PG_TYPE:
        return pg_tables_take_type(&rows->tables, m);
    case PG_INSERT:
    case PG_UPDATE:
    case PG_DELETE:
        return take_change(rows, m, xid, sink);
    case PG_TRUNCATE:
        return take_truncate(rows, m, xid, sink);
    default:
        return 0;
    }
}

/* ---- life ---- */

struct pg_rows *pg_rows_new(size_t event_max)
{
    struct pg_rows *rows = calloc(1, sizeof *rows);
    if (!rows)
        return NULL;
    rows->event_max = event_max;
    rows->event = buf_make(event_max > SIZE_MAX / 2 ? SIZE_MAX / 2 : event_max + ROOM);
    rows->channel = buf_make(2 * CHANNEL_MAX);
    rows->other_channel = buf_make(2 * CHANNEL_MAX);
    return rows;
}

void pg_rows_reset(struct pg_rows *rows)
{
    pg_tables_clear(&rows->tables);
    pg_watching_clear(&rows->watching);
}

void pg_rows_free(struct pg_rows *rows)
{
    if (!rows)
        return;
    pg_rows_reset(rows);
    buf_done(&rows->event);
    buf_done(&rows->channel);
    buf_done(&rows->other_channel);
    free(rows);
}

int pg_rows_watch(struct pg_rows *rows, const struct pg_watch_row *row)
{
    return pg_watching_put(&rows->watching, row, true);
}

void pg_rows_settle(struct pg_rows *rows)
{
    pg_watching_settle(&rows->watching);
}
