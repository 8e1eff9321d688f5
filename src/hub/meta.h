/* A record's meta: the key and the sender of a publish. Bytes: key | NUL | from, nothing at all
 * when both are absent; the log adds a NUL after it, so both come back as C strings without a copy.
 */
#ifndef HUB_META_H
#define HUB_META_H

#include "log.h"

#include <stdbool.h>
#include <stddef.h>

#define META_KEY_MAX  255
#define META_FROM_MAX 64
#define META_MAX      (META_KEY_MAX + 1 + META_FROM_MAX)

/* NULL and "" mean none. False when one is longer than allowed. */
bool meta_fits(const char *key, const char *from);
/* Writes ≤ META_MAX bytes and returns their number; what does not fit is left out. */
size_t meta_encode(char *buf, const char *key, const char *from);
/* Of a record whose body was read; "" when absent. Borrowed from the body's buffer. */
const char *meta_key(const struct log_record *record);
const char *meta_from(const struct log_record *record);

#endif
