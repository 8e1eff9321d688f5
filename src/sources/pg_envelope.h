/* The envelope around an event where the backend has no headers:
 * 0x1E {"channel":…,"key":…,"from":…,"enc":"base64"} LF payload. */
#ifndef SOURCES_PG_ENVELOPE_H
#define SOURCES_PG_ENVELOPE_H

#include "buf.h"

#include <fanwire/source.h>
#include <jansson.h>
#include <stddef.h>

/* Appends the publish in its envelope, NUL-terminated (buf.len counts the NUL). A payload that text
 * cannot carry (NUL, invalid UTF-8) goes as base64. Returns 0, -EMSGSIZE (buf.max) or -ENOMEM. */
int pg_envelope_write(struct buf *b, const struct fw_publish *publish);
/* The same for the nth event of a transaction (0: its only one): Postgres delivers equal
 * notifications of one transaction once, so the head bears the number. */
int pg_envelope_write_nth(struct buf *b, const struct fw_publish *publish, unsigned nth);

struct pg_envelope {
    struct fw_source_event event; /* borrows from the text, where no NUL follows, and from below */
    json_t *head;
    void *decoded;
};

/* Opens an envelope. Returns NULL, or why it is none (static). ret->event is valid until
 * pg_envelope_done() and while `text` is; done is allowed after a failure. Unknown members of the
 * head are ignored. */
const char *pg_envelope_parse(const char *text, size_t len, struct pg_envelope *ret);
void pg_envelope_done(struct pg_envelope *envelope);

#endif
