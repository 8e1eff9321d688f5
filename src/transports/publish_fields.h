/* What a POST says of its publish in the header: Idempotency-Key and Fanwire-Client. */
#ifndef TRANSPORTS_PUBLISH_FIELDS_H
#define TRANSPORTS_PUBLISH_FIELDS_H

#include "http.h"
#include "meta.h"

#include <stdbool.h>

struct publish_fields {
    char key[META_KEY_MAX + 1], from[META_FROM_MAX + 1]; /* "" = none */
};

/* The key is a string of structured fields (RFC 8941 3.3.3, as draft-ietf-httpapi-idempotency-key
 * has it) or the same bytes bare; the client is one that a `welcome` has named. Returns NULL, or
 * what is wrong (static). */
const char *publish_fields_read(struct publish_fields *ret, const struct http_request *request);
/* Is it a name as client_name() makes them? */
bool client_name_valid(const char *name, size_t len);

#endif
