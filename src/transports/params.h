/* The parameters of a request's URL: checked, decoded, unknown ones refused (a typo in `since` must
 * not lose events). */
#ifndef TRANSPORTS_PARAMS_H
#define TRANSPORTS_PARAMS_H

#include "codes.h"
#include "http.h"
#include "position.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARAMS_BARE_ROWS                                                                             \
    "bare payloads can't be told apart from rows: use ?channel=…&snapshot=1 without a channel in " \
    "the path, or fanwire.v1"

enum params_for { PARAMS_WS, PARAMS_SSE, PARAMS_HISTORY, PARAMS_NONE };

struct channel_name {
    const char *name; /* NUL-terminated */
    size_t len;
};

struct params {
    bool path_form;                /* one channel, from the path */
    struct channel_name *channels; /* into `memory` */
    size_t n_channels;
    struct since since;
    bool has_since;
    uint32_t last, limit, heartbeat_s, wait_s; /* 0: not given */
    bool gap_ignore;
    bool rows; /* snapshot=1 */
    void *memory;
};

/* `rest` is the path after the route's name: "" or "/CHANNEL" (still encoded). Last-Event-ID goes
 * before since, since before last. Returns CODE_OK, or a code with its text in `detail`. The result
 * is released by params_done() in every case. */
enum error_code params_parse(struct params *ret, enum params_for what,
                             const struct http_request *request, struct slice rest,
                             size_t max_channels, char *detail, size_t size);
void params_done(struct params *params);

#endif
