/* A query's rows, and how far the outbox was when they were read. */
#ifndef SOURCES_SQLITE_SNAPSHOT_H
#define SOURCES_SQLITE_SNAPSHOT_H

#include "buf.h"
#include "sqlite_outbox.h"

#include <stdint.h>

#define SQLITE_SNAPSHOT_MS 5000 /* the query may take so long: events wait meanwhile */

/* Appends each row as a JSON object and a NUL; *ret_upto: the rows contain what was done up to and
 * with this event. Returns 0, -EAGAIN: locked by others; or with text in outbox->error -EINVAL: the
 * query is wrong, or took too long; -EMSGSIZE: too many rows; -EIO. */
int sqlite_snapshot_read(struct sqlite_outbox *outbox, const char *sql, struct buf *rows,
                         int64_t *ret_upto);

#endif
