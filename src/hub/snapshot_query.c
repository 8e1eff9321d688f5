/* The queries of a configuration: what is one, and whose. */
#include "snapshot_query.h"

#include "error.h"
#include "pattern.h"
#include "text.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char spaces[] = " \t\r\n";

bool snapshot_sql_is_query(const char *sql)
{
    static const char *const words[] = { "SELECT", "WITH", "VALUES", "TABLE" };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i]);
        if (strncasecmp(sql, words[i], len) == 0 && !isalnum((unsigned char)sql[len]) &&
            sql[len] != '_')
            return true;
    }
    return false;
}

char *snapshot_sql_trim(char *sql)
{
    sql += strspn(sql, spaces);
    for (char *end = sql + strlen(sql); end > sql && (end[-1] == ';' || strchr(spaces, end[-1]));)
        *--end = '\0';
    return sql;
}

static bool have(const struct engine_snapshot *items, size_t n, const char *channel)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(items[i].channel, channel) == 0)
            return true;
    }
    return false;
}

int snapshot_channel_check(const char *what, const char *channel,
                           const struct engine_snapshot *others, size_t n, struct fw_error *err)
{
    size_t len = strlen(channel);
    char shown[128];
    (void)text_escape(shown, sizeof(shown), channel, len);
    if (!channel_valid(channel, len) || channel_reserved(channel, len))
        return error_set(err, -EINVAL,
                         "%s: \"%s\" is no channel: 1 to 255 bytes of UTF-8 without control "
                         "characters, not below $fanwire/",
                         what, shown);
    if (have(others, n, channel))
        return error_set(err, -EINVAL, "%s: channel \"%s\" has two", what, shown);
    return 0;
}

/* ---- the library's ---- */

/* One piece: the channel, a NUL, the SQL. */
static int copy_one(const struct fw_snapshot_query *query, struct snapshot_queries *to,
                    struct fw_error *err)
{
    if (!query->channel || !query->sql)
        return error_set(err, -EINVAL, "snapshots: query %zu lacks its channel or its SQL", to->n);
    int r = snapshot_channel_check("snapshots", query->channel, to->items, to->n, err);
    if (r < 0)
        return r;
    size_t len = strlen(query->channel) + 1, sql_len = strlen(query->sql) + 1;
    char *piece = malloc(len + sql_len);
    if (!piece)
        return error_set(err, -ENOMEM, "out of memory for a snapshot's query");
    memcpy(piece, query->channel, len);
    memcpy(piece + len, query->sql, sql_len);
    const char *sql = snapshot_sql_trim(piece + len);
    to->items[to->n++] = (struct engine_snapshot){ piece, sql };
    if (!snapshot_sql_is_query(sql))
        return error_set(err, -EINVAL,
                         "snapshots: what channel \"%s\" has is no query: write one SELECT, for "
                         "example SELECT id, title FROM todos",
                         piece);
    return 0;
}

int snapshot_queries_copy(const struct fw_snapshot_query *queries, size_t n,
                          struct snapshot_queries *ret, struct fw_error *err)
{
    *ret = (struct snapshot_queries){ 0 };
    if (n == 0)
        return 0;
    if (!queries)
        return error_set(err, -EINVAL, "snapshots is NULL, and n_snapshots is %zu", n);
    ret->items = calloc(n, sizeof(*ret->items));
    if (!ret->items)
        return error_set(err, -ENOMEM, "out of memory for %zu snapshots", n);
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = copy_one(&queries[i], ret, err);
    if (r < 0)
        snapshot_queries_done(ret);
    return r;
}

void snapshot_queries_done(struct snapshot_queries *queries)
{
    for (size_t i = 0; i < queries->n; i++)
        free((char *)queries->items[i].channel);
    free(queries->items);
    *queries = (struct snapshot_queries){ 0 };
}

bool snapshot_queries_have(const struct snapshot_queries *queries, const char *channel)
{
    return have(queries->items, queries->n, channel);
}
