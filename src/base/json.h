/* JSON without allocating: validation and escaping (RFC 8259). Parsing into a tree is jansson's. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>

#define JSON_DEPTH_MAX 512

/* True if data is exactly one JSON text (UTF-8, any top-level value, depth ≤ JSON_DEPTH_MAX).
 * Leading and trailing white space is allowed; an empty text is not JSON. Does not recurse.
 * *ret_has_newline (may be NULL): CR or LF occurs between tokens. */
bool json_valid(const void *data, size_t len, bool *ret_has_newline);

/* Appends a JSON string with quotes. Bytes that are not UTF-8 become U+FFFD each, so that the
 * result is JSON whatever comes in; U+2028/2029 stay as they are. Returns 0, -EMSGSIZE, -ENOMEM
 * (then nothing was appended). */
int json_append_string(struct buf *b, const void *data, size_t len);

#endif
