/* The queries of a configuration: channels, and the SQL whose rows stand before their events. */
#ifndef HUB_SNAPSHOT_QUERY_H
#define HUB_SNAPSHOT_QUERY_H

#include "engine.h"

#include <fanwire.h>
#include <stdbool.h>
#include <stddef.h>

/* Without space around it, and a semicolon at its end, which are cut off in place. */
char *snapshot_sql_trim(char *sql);
bool snapshot_sql_is_query(const char *sql); /* as far as its first word tells */
/* May the channel have a query besides those of `others`? `what` begins the text: the option's
 * name. 0 or -EINVAL. */
int snapshot_channel_check(const char *what, const char *channel,
                           const struct engine_snapshot *others, size_t n, struct fw_error *err);

/* Copies of the library's options. */
struct snapshot_queries {
    struct engine_snapshot *items;
    size_t n;
};
int snapshot_queries_copy(const struct fw_snapshot_query *queries, size_t n,
                          struct snapshot_queries *ret, struct fw_error *err);
void snapshot_queries_done(struct snapshot_queries *queries);
bool snapshot_queries_have(const struct snapshot_queries *queries, const char *channel);

#endif
