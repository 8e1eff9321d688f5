/* What a worker needs to know of the configuration. Filled by the server, read-only afterwards. */
#ifndef TRANSPORTS_SETTINGS_H
#define TRANSPORTS_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strings {
    char **items;
    size_t count;
};

#define N_LOOPBACK_NAMES 3
extern const char *const loopback_names[N_LOOPBACK_NAMES]; /* of this machine, as Host has them */

struct routes;

struct settings {
    struct strings public_read, public_write; /* channel patterns (hub/pattern.h) */
    struct strings snapshots;                 /* channels that have rows before their events */
    struct strings origins;                   /* allowed Origin values; "*" = any */
    struct strings hosts;                     /* names that Host may have, no port; none = any */
    const char *base_path;                    /* "/" or "/live" (no slash at the end) */
    bool dev;                                 /* everything readable and writable, page at / */
    bool echo;                                /* WebSocket echo at /echo, for conformance suites */
    uint32_t max_connections;                 /* per worker; from the descriptor limit if 0 */
    uint32_t max_channels;                    /* per connection; 1,000 */
    uint32_t send_buffer;                     /* SO_SNDBUF bytes; 128 KiB */
    uint32_t head_timeout_ms;                 /* a request head must be complete within; 10 s */
    uint32_t heartbeat_s;                     /* default when the client says nothing; 25 */
    uint32_t stall_ms, behind_ms;             /* no progress: 30 s inside a frame, 60 s behind */
    uint32_t drain_ms;                        /* over which connections are closed; 30 s */
    const struct routes *routes;              /* of the program; NULL: none */
    const char *retain_text;                  /* for messages */
};

#endif
