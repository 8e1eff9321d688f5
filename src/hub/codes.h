/* The one vocabulary of error codes and gap reasons, for HTTP problems, WebSocket closes, log lines
 * and metrics. */
#ifndef HUB_CODES_H
#define HUB_CODES_H

#include <stdint.h>

/* X(NAME, "text", HTTP status, WebSocket close code, "title") */
#define ERROR_CODES(X)                                                                             \
    X(BAD_REQUEST, "bad-request", 400, 4000, "Bad request")                                        \
    X(BAD_CHANNEL, "bad-channel", 400, 4000, "Bad channel name")                                   \
    X(BAD_POSITION, "bad-position", 400, 4000, "Bad position")                                     \
    X(UNKNOWN_PARAMETER, "unknown-parameter", 400, 4000, "Unknown parameter")                      \
    X(UNAUTHORIZED, "unauthorized", 401, 4001, "Not authenticated")                                \
    X(TOKEN_EXPIRED, "token-expired", 401, 4201, "Token expired")                                  \
    X(CHANNEL_FORBIDDEN, "channel-forbidden", 403, 4003, "Not allowed")                            \
    X(ORIGIN_FORBIDDEN, "origin-forbidden", 403, 4003, "Origin not allowed")                       \
    X(NOT_FOUND, "not-found", 404, 4000, "Not found")                                              \
    X(METHOD_NOT_ALLOWED, "method-not-allowed", 405, 4000, "Method not allowed")                   \
    X(TOO_LARGE, "too-large", 413, 1009, "Too large")                                              \
    X(RATE_LIMITED, "rate-limited", 429, 4129, "Rate limited")                                     \
    X(TOO_MANY_CHANNELS, "too-many-channels", 400, 4000, "Too many channels")                      \
    X(TOO_MANY_CONNECTIONS, "too-many-connections", 429, 4029, "Too many connections")             \
    X(SOURCE_DOWN, "source-down", 503, 4103, "Source not available")                               \
    X(SOURCE_REFUSED, "source-refused", 502, 4000, "Refused by the source")                        \
    X(NOT_SUPPORTED, "not-supported", 501, 4000, "Not supported")                                  \
    X(OVERLOADED, "overloaded", 503, 4103, "Overloaded")                                           \
    X(RESTART, "restart", 503, 1012, "Restarting")                                                 \
    X(INTERNAL, "internal", 500, 1011, "Internal error")

enum error_code {
    CODE_OK, /* no error */
#define X(name, text, status, close, title) CODE_##name,
    ERROR_CODES(X)
#undef X
        N_CODES
};

const char *code_text(enum error_code code); /* "ok", "bad-request", … */
const char *code_title(enum error_code code);
unsigned code_status(enum error_code code);
unsigned code_close(enum error_code code);
/* The code of a text, CODE_INTERNAL for an unknown one, CODE_OK for NULL. */
enum error_code code_from_text(const char *text);

#define GAP_REASONS(X)                                                                             \
    X(LAPPED, "lapped")                                                                            \
    X(EXPIRED, "expired")                                                                          \
    X(CONNECTION_LOST, "connection-lost")                                                          \
    X(RESTART, "restart")                                                                          \
    X(NOT_COVERED, "not-covered")                                                                  \
    X(TOO_LARGE, "too-large")                                                                      \
    X(NEW_EPOCH, "new-epoch")                                                                      \
    X(SLOT_LOST, "slot-lost")                                                                      \
    X(FOREIGN_POSITION, "foreign-position")                                                        \
    X(ENDED, "ended") /* down only */                                                              \
    X(HUNG, "hung")   /* down only */

enum gap_reason {
    REASON_NONE,
#define X(name, text) REASON_##name,
    GAP_REASONS(X)
#undef X
        N_REASONS
};

const char *reason_text(enum gap_reason reason);                  /* "" for REASON_NONE */
enum gap_reason reason_from_text(const char *text, uint32_t len); /* CONNECTION_LOST if unknown */

#endif
