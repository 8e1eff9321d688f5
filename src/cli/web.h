/* HTTP to a running server, by libcurl. */
#ifndef CLI_WEB_H
#define CLI_WEB_H

#include "buf.h"

#include <fanwire.h>

#include <stdbool.h>
#include <stddef.h>

#define WEB_DEFAULT "http://127.0.0.1:4600"

/* WHERE of -s: a running server (http://, https://, unix:PATH), or else a source's URL. */
bool web_is_server(const char *where);
#define WEB_HINT "a running server is -s http://HOST:PORT or -s unix:PATH"

struct web;

/* Where is borrowed. Returns 0, -EINVAL or -ENOMEM with text. */
int web_open(const char *where, struct web **ret, struct fw_error *err);
void web_close(struct web *web); /* NULL allowed */

/* Appends text percent-encoded. 0 or -ENOMEM/-EMSGSIZE. */
int web_escape(struct buf *out, const char *text);

/* GET (data NULL) or POST of `path` ("/healthz"), below the server's base. `field`: a further line
 * of a POST's header, or NULL. The answer's body goes to *body. Returns the HTTP status, or -errno
 * with text that says what to do (nobody there). */
int web_request(struct web *web, const char *path, const char *field, const void *data, size_t len,
                struct buf *body, struct fw_error *err);

struct web_stream {
    const char *last_event_id; /* NULL or "": none */
    /* The answer's bytes as they come. false: enough. */
    bool (*on_data)(void *arg, const char *data, size_t len);
    bool (*wanted)(void *arg); /* asked at least every second; false: enough */
    void *arg;
};
/* GET whose answer goes on; returns when it ends. With another status than 200 its body goes to
 * *body and on_data is not called. Returns as web_request(), 0 when on_data or wanted said enough.
 */
int web_follow(struct web *web, const char *path, const struct web_stream *stream, struct buf *body,
               struct fw_error *err);

/* The `detail` (or title) of a problem body (RFC 9457), else the HTTP status. Returns out. */
char *web_problem(char *out, size_t size, int status, const struct buf *body);

#endif
