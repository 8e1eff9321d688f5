/* What a slot that is being made waits for, told to the operator. */
#ifndef SOURCES_PG_SLOT_WAIT_H
#define SOURCES_PG_SLOT_WAIT_H

#include "pg_holder.h"
#include "pg_question.h"

#include <stdint.h>

/* A new slot begins where no transaction is open that it has not seen from its beginning, so the
 * server waits for each that is open, in any database, and says nothing meanwhile. */
struct pg_slot_wait {
    struct pg_question question;
    const char *slot;
    char sql[PG_HOLDER_SQL_MAX];
    char told[128]; /* whom the log has named last */
    int64_t told_ms;
};

/* `url` and `slot` are borrowed. Returns 0 or -ENOMEM; pg_slot_wait_done() in either case. */
int pg_slot_wait_init(struct pg_slot_wait *wait, struct fw_host *host, const struct pg_url *url,
                      const char *slot);
void pg_slot_wait_done(struct pg_slot_wait *wait);
/* From a second on, logs for whom the server process `pid` waits: each of them, and again once a
 * minute. */
void pg_slot_wait_start(struct pg_slot_wait *wait, int pid);
void pg_slot_wait_stop(struct pg_slot_wait *wait); /* idempotent */

#endif
