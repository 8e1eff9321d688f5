/* What a worker and the application process say to each other, without I/O, over a stream socket:
 *
 *   size u32 (of all) | type u8 | pad u8 | status u16 | route u32 | items u32 | id u64 |
 *   items: length u32, bytes, NUL
 *
 * in host byte order (both ends are one program on one host).
 *
 * worker → application
 *   REQUEST  id, route; method, path, query, the header's lines, body, then the path's parameters
 *
 * application → worker
 *   HELLO    it takes requests
 *   ANSWER   id, status; header lines, type, body, reason (of a WebSocket's close)
 *   ACCEPT   id; the stream's first messages, then header lines
 *
 * What comes is checked for any bytes: the other process may have gone mad. */
#ifndef TRANSPORTS_CALL_MESSAGE_H
#define TRANSPORTS_CALL_MESSAGE_H

#include "buf.h"
#include "http.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CALL_BODY_MAX    (1u << 20)  /* of a request */
#define CALL_ANSWER_MAX  (16u << 20) /* body of an answer; a stream's messages together */
#define CALL_FIELDS_MAX  (16u << 10) /* header lines of an answer */
#define CALL_REASON_MAX  512
#define CALL_ITEM_EXTRA  5 /* what an item costs above its bytes */
#define CALL_HEAD_SIZE   24
#define CALL_REQUEST_MAX (CALL_BODY_MAX + (64u << 10))   /* a whole message to the application */
#define CALL_REPLY_MAX   (CALL_ANSWER_MAX + (64u << 10)) /* a whole message to a worker */

enum call_type { CALL_HELLO = 1, CALL_REQUEST, CALL_ANSWER, CALL_ACCEPT, CALL_N_TYPES };

/* Places of the items. */
enum { REQUEST_METHOD, REQUEST_PATH, REQUEST_QUERY, REQUEST_FIELDS, REQUEST_BODY, REQUEST_PARAMS };
enum { ANSWER_FIELDS, ANSWER_TYPE, ANSWER_BODY, ANSWER_REASON, ANSWER_ITEMS };

struct call_message {
    enum call_type type;
    uint16_t status;
    uint32_t route, n_items;
    uint64_t id;
    const uint8_t *items; /* what call_message_next() has not returned yet */
};

/* ---- reading ---- */

/* The size of the message that `data` begins with; 0 while its head is incomplete; -EPROTO when it
 * is larger than `max` or no message. */
int64_t call_message_size(const void *data, size_t len, size_t max);
/* Checks a whole message of `size` bytes and points into it. 0 or -EPROTO. */
int call_message_decode(const void *data, size_t size, struct call_message *ret);
/* The next item, NUL-terminated in place. False: there are no more. */
bool call_message_next(struct call_message *message, struct slice *ret);

/* ---- writing: begin, items, end; a failure stays in buf->failed ---- */

void call_message_begin(struct buf *out, const struct call_message *head); /* clears out */
void call_message_add(struct buf *out, const void *data, size_t len);
void call_message_end(struct buf *out);

/* ---- header fields of an answer ---- */

/* May an application say this? Not what is no field, nor what the server says itself. */
bool call_field_allowed(const char *name, size_t name_len, const char *value, size_t value_len);
/* Are all these lines ("Name: value" CRLF) allowed? */
bool call_fields_allowed(struct slice fields);
bool call_type_allowed(struct slice type); /* a Content-Type; empty: none */
/* Walks header lines that were checked before: the next name and value. False at the end. */
bool call_field_next(struct slice *fields, struct slice *name, struct slice *value);

#endif
