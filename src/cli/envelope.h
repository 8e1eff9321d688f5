/* Reads members of a JSON envelope without parsing the payload inside: it is the user's, and a
 * parser may have other limits (numbers, depth) than the server that validated it. */
#ifndef CLI_ENVELOPE_H
#define CLI_ENVELOPE_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>

/* One JSON object; the others below may only be given such. Safe with any bytes. */
bool envelope_valid(const char *json, size_t len);
/* Appends a string member, decoded. 0, -ENOENT when there is no such string, -ENOMEM, -EMSGSIZE. */
int envelope_string(const char *json, size_t len, const char *name, struct buf *out);
/* Appends the payload: `data` as it stands, `text` decoded, `base64` decoded. As above. */
int envelope_payload(const char *json, size_t len, struct buf *out);

#endif
