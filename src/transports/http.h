/* HTTP/1.1 request heads (RFC 9112), without I/O: bytes in, a request that points into them out.
 * Strict where leniency smuggles requests: no bare LF, no obs-fold, no space before the colon, one
 * Host, one Content-Length of digits, no Content-Length beside Transfer-Encoding. */
#ifndef TRANSPORTS_HTTP_H
#define TRANSPORTS_HTTP_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEAD_MAX   (16 * 1024)
#define HTTP_LINE_MAX   (8 * 1024) /* of the request line, without its end */
#define HTTP_FIELDS_MAX 100

struct slice {
    const char *data; /* NULL: absent */
    size_t len;
};

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_OPTIONS,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_OTHER
};

struct http_request {
    enum http_method method;
    uint8_t minor;          /* HTTP/1.minor, 0 or 1 */
    bool keep_alive;        /* after version and Connection */
    bool upgrade_websocket; /* Connection: upgrade and Upgrade: websocket */
    bool chunked;           /* Transfer-Encoding: chunked as the only coding */
    bool has_length, expect_continue;
    uint64_t content_length;
    struct slice method_text, path, query; /* path not decoded, without '?'; query without it */
    struct slice fields;                   /* the header's lines, as sent, each with its CRLF */
    struct slice host, origin, last_event_id, authorization, cookie, content_type, accept;
    struct slice ws_key, ws_version, ws_protocol, ws_extensions;
    struct slice cors_method, cors_headers; /* Access-Control-Request-* */
    struct slice idempotency_key, client;   /* Idempotency-Key, Fanwire-Client */
    struct slice forwarded_for, if_none_match;
};

/* Parses one head at the start of data, after one empty line at most. Returns its length (> 0) when
 * complete, 0 when more bytes are needed (then all of it is presented again), or, as soon as a line
 * is wrong, the negated HTTP status to answer with before closing: 400, 414, 431, 501 (unknown
 * transfer coding), 505. *ret borrows from data; `error` (may be NULL) gets a static sentence.
 * Of Cookie, Accept, X-Forwarded-For, If-None-Match and Sec-WebSocket-Extensions the first line is
 * kept; any other field of *ret may come once only. */
int64_t http_parse(const char *data, size_t len, struct http_request *ret, const char **error);

/* Walks a query string: name=value&…; decodes both ('+' is a space) into buf, which holds at least
 * the query's length; what was returned stays valid as long as buf. Empty pairs are skipped; a name
 * without '=' has an empty value. Returns 1, 0 at the end, -EINVAL for a bad escape or NUL in a
 * name. */
struct http_query {
    struct slice rest; /* the query, then what is left of it */
    char *buf;         /* moves on with each call */
};
int http_query_next(struct http_query *q, struct slice *name, struct slice *value);

/* Is `token` in this comma-separated list (case-insensitive)? */
bool http_list_has(struct slice list, const char *token);
const char *http_status_text(unsigned status);

#endif
