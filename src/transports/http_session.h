/* What the files of an HTTP session share: reading (http_session.c), answering (http_answer.c),
 * routing (http_routing.c), streams (http_stream.c), publishing and history (http_publish.c). */
#ifndef TRANSPORTS_HTTP_SESSION_H
#define TRANSPORTS_HTTP_SESSION_H

#include "publish_fields.h"
#include "turn.h"

/* ---- http_answer.c ---- */
const char *http_date(struct worker *w); /* now, as Date says it; borrowed for a second */
/* A problem, and the end of this request. */
void http_refuse(struct worker *w, struct conn *c, enum error_code code, const char *detail);
/* The same for a head that can't be understood: no way to tell where the next would begin. */
void http_bad_head(struct worker *w, struct conn *c, unsigned status, const char *detail);
/* Is there a field of this name among these lines? */
bool http_has_field(const char *fields, const char *name);

/* ---- http_routing.c ---- */

/* Where a request leads. */
enum target_kind {
    TARGET_OUTSIDE, /* of --base-path */
    TARGET_WS,
    TARGET_SSE,
    TARGET_HISTORY,
    TARGET_PUBLISH,
    TARGET_ECHO,
    TARGET_HEALTH,
    TARGET_CLIENT, /* fanwire.js */
    TARGET_ROUTE,  /* of the program */
    TARGET_METHOD, /* a path of the program, in a method that it does not take */
    TARGET_PAGE,   /* of --dev */
    TARGET_NOTHING
};

struct target {
    enum target_kind kind;
    struct slice path; /* below the base path */
    struct slice rest; /* behind "/ws" and the like */
    struct route_match match;
};

struct target http_target(const struct worker *w, const struct http_request *request);
/* Carries out a request whose body is there. */
void http_dispatch(struct worker *w, struct conn *c, const struct http_request *request,
                   const char *body, size_t len);
/* Writes CORS fields for the answer to come. */
void http_allow_origin(const struct worker *w, struct conn *c, const struct http_request *request);
/* Answers a foreign Origin; true: it is none. */
bool http_origin_ok(struct worker *w, struct conn *c, const struct http_request *request);
/* 405 with what the path's routes allow. */
void http_refuse_method(struct worker *w, struct conn *c, const struct target *target);

/* ---- http_stream.c ---- */
/* The reason not to take another stream now, CODE_OK: none. */
enum error_code http_no_room(const struct worker *w, const struct conn *c);
enum error_code http_check_channels(struct worker *w, const struct params *params, char *detail,
                                    size_t size);
unsigned http_retry_ms(const struct conn *c);
/* Checks a handshake and writes the key's answer; false: answered. */
bool http_ws_check(struct worker *w, struct conn *c, const struct http_request *request,
                   char accept[WS_ACCEPT_LEN + 1]);
/* Appends the head that begins a stream. */
void http_ws_head(struct buf *out, const char *accept, bool json, const char *fields);
void http_sse_head(struct worker *w, const struct conn *c, struct buf *out, const char *fields);
void http_ws_request(struct worker *w, struct conn *c, const struct http_request *request,
                     struct slice rest);
void http_sse_request(struct worker *w, struct conn *c, const struct http_request *request,
                      struct slice rest);
void http_echo_request(struct worker *w, struct conn *c, const struct http_request *request);

/* ---- http_publish.c ---- */
/* Answers what keeps this request from being published, before its body is looked at; true: nothing
 * does. `channel` holds 3 * FW_CHANNEL_MAX; *channel_len 0: a batch. */
bool http_publish_checks(struct worker *w, struct conn *c, const struct http_request *request,
                         struct slice rest, struct publish_fields *fields, char *channel,
                         size_t *channel_len);
void http_publish_request(struct worker *w, struct conn *c, const struct http_request *request,
                          struct slice rest, const char *body, size_t len);
void http_history_request(struct worker *w, struct conn *c, const struct http_request *request,
                          struct slice rest);

#endif
