/* How much WAL the server keeps for a slot, asked now and then. */
#ifndef SOURCES_PG_RETAINED_H
#define SOURCES_PG_RETAINED_H

#include "pg_question.h"

/* What the stream says of positions is what was decoded, not what is kept: an open transaction
 * holds WAL that was read long ago, and a server that lags does not see how far the end is. */
struct pg_retained {
    struct pg_question question;
    char sql[320];
};

/* `url` is borrowed. Returns 0 or -ENOMEM; pg_retained_done() in either case. */
int pg_retained_init(struct pg_retained *retained, struct fw_host *host, const struct pg_url *url,
                     const char *slot);
void pg_retained_done(struct pg_retained *retained);
/* Asks, then every 30 s, and sets FW_GAUGE_RETAINED_BYTES. */
void pg_retained_start(struct pg_retained *retained);
void pg_retained_stop(struct pg_retained *retained); /* the gauge is 0: not known */

#endif
