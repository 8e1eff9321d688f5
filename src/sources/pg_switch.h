/* Transactions that were open when another mode was installed. */
#ifndef SOURCES_PG_SWITCH_H
#define SOURCES_PG_SWITCH_H

#include "pg_holder.h"

#include <fanwire/source.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

/* What such a transaction has published stands where nobody reads any more. So the source opens in
 * the new mode when they have ended: the gap that everybody is told then (new-epoch) covers what
 * they have done.
 *
 * Which those are is known by fanwire.installation.since, the number of the transaction that
 * installed the mode. One that came between that and its commit is younger: to who was reading
 * then, all are waited for that were open when it found the other mode. */
struct pg_switch {
    struct fw_host *host;
    bool changed;   /* another mode than was read */
    uint64_t until; /* transactions up to this one are waited for, too; 0: none */
    char told[128]; /* whom the log has named last */
    int64_t began_ms, told_ms;
};

#define PG_SWITCH_SQL_MAX (1024 + PG_HOLDER_SQL_MAX)

/* From now on it is asked whether they have ended. */
void pg_switch_begin(struct pg_switch *sw, struct fw_host *host, bool changed);
/* Writes the question. Returns sql. */
char *pg_switch_sql(const struct pg_switch *sw, char *sql, size_t size);
/* Takes each result of it: sets *waits, or logs for whom, from a second on. */
void pg_switch_take(struct pg_switch *sw, const PGresult *result, bool *waits);
/* When to ask again. */
unsigned pg_switch_delay_ms(const struct pg_switch *sw);

#endif
