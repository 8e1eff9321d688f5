/* pgoutput, protocol version 1: the messages of a logical replication stream, without I/O. */
#include "pg_output.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define EPOCH_MS 946684800000 /* of Postgres, 2000-01-01, since 1970 */

/* ---- bytes: what is not there reads as 0 and makes `at` NULL, looked at once at the end ---- */

static const uint8_t *take(struct pg_span *s, size_t n)
{
    if (!s->at || s->len < n) {
        *s = (struct pg_span){ 0 };
        return NULL;
    }
    const uint8_t *at = s->at;
    s->at += n;
    s->len -= n;
    return at;
}

static uint8_t take_8(struct pg_span *s)
{
    const uint8_t *at = take(s, 1);
    return at ? *at : 0;
}

static uint16_t take_16(struct pg_span *s)
{
    const uint8_t *at = take(s, 2);
    return at ? (uint16_t)(at[0] << 8 | at[1]) : 0;
}

static uint32_t take_32(struct pg_span *s)
{
    uint32_t value;
    const uint8_t *at = take(s, sizeof value);
    if (!at)
        return 0;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static uint64_t take_64(struct pg_span *s)
{
    uint64_t value;
    const uint8_t *at = take(s, sizeof value);
    if (!at)
        return 0;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

static int64_t take_time_ms(struct pg_span *s)
{
    return (int64_t)take_64(s) / 1000 + EPOCH_MS;
}

static const char *take_string(struct pg_span *s)
{
    const uint8_t *end = s->at ? memchr(s->at, '\0', s->len) : NULL;
    const char *text = (const char *)s->at;
    if (!end) {
        *s = (struct pg_span){ 0 };
        return "";
    }
    (void)take(s, (size_t)(end - s->at) + 1);
    return text;
}

/* ---- rows ---- */

static struct pg_value take_value(struct pg_span *s)
{
    struct pg_value value = { .kind = (char)take_8(s), .text = "" };
    if (value.kind == 't') {
        value.len = take_32(s);
        value.text = (const char *)take(s, value.len);
    } else if (value.kind != 'n' && value.kind != 'u') {
        *s = (struct pg_span){ 0 };
    }
    return value;
}

static struct pg_tuple take_tuple(struct pg_span *s)
{
    struct pg_tuple tuple = { .n = take_16(s), .rest = *s };
    for (unsigned i = 0; i < tuple.n && s->at; i++)
        (void)take_value(s);
    return tuple;
}

static struct pg_column take_column(struct pg_span *s)
{
    struct pg_column column = { .identity = take_8(s) & 1 };
    column.name = take_string(s);
    column.type = take_32(s);
    (void)take_32(s); /* modifier */
    return column;
}

bool pg_tuple_next(struct pg_tuple *tuple, struct pg_value *ret)
{
    if (tuple->n == 0)
        return false;
    tuple->n--;
    *ret = take_value(&tuple->rest);
    return true;
}

bool pg_column_next(struct pg_tuple *columns, struct pg_column *ret)
{
    if (columns->n == 0)
        return false;
    columns->n--;
    *ret = take_column(&columns->rest);
    return true;
}

bool pg_oid_next(struct pg_tuple *tables, uint32_t *ret)
{
    if (tables->n == 0)
        return false;
    tables->n--;
    *ret = take_32(&tables->rest);
    return true;
}

/* ---- messages ---- */

static void take_relation(struct pg_span *s, struct pg_output *m)
{
    m->oid = take_32(s);
    m->name_space = take_string(s);
    m->name = take_string(s);
    m->identity = (char)take_8(s);
    m->columns.n = take_16(s);
    m->columns.rest = *s;
    for (unsigned i = 0; i < m->columns.n && s->at; i++)
        (void)take_column(s);
}

static void take_old(struct pg_span *s, struct pg_output *m, char kind)
{
    if (kind != 'K' && kind != 'O')
        *s = (struct pg_span){ 0 };
    m->old_kind = kind;
    m->old_row = take_tuple(s);
}

static void take_new(struct pg_span *s, struct pg_output *m, char kind)
{
    if (kind != 'N')
        *s = (struct pg_span){ 0 };
    m->row = take_tuple(s);
}

static void take_update(struct pg_span *s, struct pg_output *m)
{
    m->oid = take_32(s);
    char kind = (char)take_8(s);
    if (kind != 'N') {
        take_old(s, m, kind);
        kind = (char)take_8(s);
    }
    take_new(s, m, kind);
}

static void take_truncate(struct pg_span *s, struct pg_output *m)
{
    uint32_t n = take_32(s);
    (void)take_8(s); /* CASCADE, RESTART IDENTITY */
    m->tables = (struct pg_tuple){ .n = (uint16_t)n, .rest = *s };
    if (n > UINT16_MAX)
        *s = (struct pg_span){ 0 };
    (void)take(s, (size_t)m->tables.n * 4);
}

static void take_message(struct pg_span *s, struct pg_output *m)
{
    m->transactional = take_8(s) & 1;
    m->lsn = take_64(s);
    m->prefix = take_string(s);
    m->content_len = take_32(s);
    m->content = (const char *)take(s, m->content_len);
}

static void take_begin(struct pg_span *s, struct pg_output *m)
{
    m->lsn = take_64(s);
    m->time_ms = take_time_ms(s);
    m->xid = take_32(s);
}

static void take_commit(struct pg_span *s, struct pg_output *m)
{
    (void)take_8(s); /* flags: none yet */
    m->lsn = take_64(s);
    m->end_lsn = take_64(s);
    m->time_ms = take_time_ms(s);
}

static void take_body(struct pg_span *s, struct pg_output *m)
{
    switch (m->kind) {
    case PG_BEGIN:
        take_begin(s, m);
        break;
    case PG_COMMIT:
        take_commit(s, m);
        break;
    case PG_ORIGIN:
        m->lsn = take_64(s);
        m->name = take_string(s);
        break;
    case PG_RELATION:
        take_relation(s, m);
        break;
    case PG_TYPE:
        m->oid = take_32(s);
        m->name_space = take_string(s);
        m->name = take_string(s);
        break;
    case PG_INSERT:
        m->oid = take_32(s);
        take_new(s, m, (char)take_8(s));
        break;
    case PG_UPDATE:
        take_update(s, m);
        break;
    case PG_DELETE:
        m->oid = take_32(s);
        take_old(s, m, (char)take_8(s));
        break;
    case PG_TRUNCATE:
        take_truncate(s, m);
        break;
    case PG_MESSAGE:
        take_message(s, m);
        break;
    default:
        *s = (struct pg_span){ 0 };
    }
}

int pg_output_parse(const void *data, size_t len, struct pg_output *ret)
{
    struct pg_span s = { data, len };
    *ret = (struct pg_output){ .name_space = "", .name = "", .prefix = "", .content = "" };
    ret->kind = (enum pg_output_kind)take_8(&s);
    take_body(&s, ret);
    return s.at && s.len == 0 ? 0 : -EBADMSG;
}
