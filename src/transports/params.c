/* URL parameters. */
#include "params.h"

#include "pattern.h"
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAST_MAX      1000
#define LAST_SUM_MAX  10000 /* newest events of all channels together */
#define LIMIT_MAX     1000
#define HEARTBEAT_MIN 5
#define HEARTBEAT_MAX 60
#define WAIT_MAX      60

struct parsing {
    struct params *params;
    enum params_for what;
    char *detail;
    size_t size;
    size_t max_channels;
    char *names; /* free space for decoded names, each with its NUL */
};

__attribute__((format(printf, 3, 4))) static enum error_code
fail(struct parsing *p, enum error_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(p->detail, p->size, format, args);
    va_end(args);
    return code;
}

static enum error_code add_channel(struct parsing *p, const char *name, size_t len)
{
    struct params *params = p->params;
    if (!channel_valid(name, len))
        return fail(p, CODE_BAD_CHANNEL,
                    "a channel's name is 1 to 255 bytes of UTF-8 without control characters");
    for (size_t i = 0; i < params->n_channels; i++) {
        // NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): n_channels of them are filled in
        if (params->channels[i].len == len && memcmp(params->channels[i].name, name, len) == 0)
            return CODE_OK; /* twice the same is once */
    }
    if (params->n_channels == p->max_channels)
        return fail(p, CODE_TOO_MANY_CHANNELS, "at most %zu channels per connection",
                    p->max_channels);
    memcpy(p->names, name, len);
    p->names[len] = 0;
    params->channels[params->n_channels++] = (struct channel_name){ p->names, len };
    p->names += len + 1;
    return CODE_OK;
}

static enum error_code parse_number(struct parsing *p, struct slice name, struct slice value,
                                    uint32_t low, uint32_t high, uint32_t *ret)
{
    char text[16];
    uint64_t number;
    bool fits = value.len > 0 && value.len < sizeof(text);
    if (fits) {
        memcpy(text, value.data, value.len);
        text[value.len] = 0;
    }
    if (!fits || parse_uint(text, high, &number) < 0 || number < low)
        return fail(p, CODE_BAD_REQUEST, "%.*s is a number from %u to %u", (int)name.len, name.data,
                    low, high);
    *ret = (uint32_t)number;
    return CODE_OK;
}

static enum error_code parse_since(struct parsing *p, struct slice value)
{
    if (since_parse(value.data, value.len, &p->params->since) < 0)
        return fail(p, CODE_BAD_POSITION,
                    "since is \"now\", \"oldest\" or a position that this server gave as id");
    p->params->has_since = true;
    return CODE_OK;
}

static bool is(struct slice s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

static enum error_code parse_one(struct parsing *p, struct slice name, struct slice value)
{
    struct params *params = p->params;
    bool stream = p->what == PARAMS_WS || p->what == PARAMS_SSE;
    bool reads = stream || p->what == PARAMS_HISTORY;
    if (stream && is(name, "channel")) {
        if (params->path_form)
            return fail(p, CODE_BAD_REQUEST,
                        "the channel is in the path already; for several use "
                        "the query form without one");
        return add_channel(p, value.data, value.len);
    }
    if (reads && is(name, "since"))
        return parse_since(p, value);
    if (reads && is(name, "last"))
        return parse_number(p, name, value, 1, LAST_MAX, &params->last);
    if (stream && is(name, "heartbeat"))
        return parse_number(p, name, value, HEARTBEAT_MIN, HEARTBEAT_MAX, &params->heartbeat_s);
    if (p->what == PARAMS_HISTORY && is(name, "limit"))
        return parse_number(p, name, value, 1, LIMIT_MAX, &params->limit);
    if (p->what == PARAMS_HISTORY && is(name, "wait"))
        return parse_number(p, name, value, 0, WAIT_MAX, &params->wait_s);
    if (p->what == PARAMS_WS && is(name, "gap")) {
        params->gap_ignore = is(value, "ignore");
        if (params->gap_ignore || is(value, "close"))
            return CODE_OK;
        return fail(p, CODE_BAD_REQUEST, "gap is \"close\" or \"ignore\"");
    }
    if (stream && is(name, "snapshot")) {
        params->rows = is(value, "1");
        if (params->rows || is(value, "0"))
            return CODE_OK;
        return fail(p, CODE_BAD_REQUEST, "snapshot is 1 or 0");
    }
    if ((stream && (is(name, "pattern") || is(name, "token"))) ||
        (p->what == PARAMS_HISTORY && is(name, "token")))
        return fail(p, CODE_NOT_SUPPORTED, "%.*s is not in this version", (int)name.len, name.data);
    char shown[64];
    return fail(p, CODE_UNKNOWN_PARAMETER, "unknown parameter %s",
                text_escape(shown, sizeof(shown), name.data, name.len));
}

static enum error_code parse_path(struct parsing *p, struct slice rest, char *scratch)
{
    if (rest.len == 0)
        return CODE_OK;
    p->params->path_form = true;
    int64_t len = percent_decode(scratch, rest.data + 1, rest.len - 1, false);
    if (len < 0)
        return fail(p, CODE_BAD_CHANNEL, "malformed %%-escape in the channel's name");
    return add_channel(p, scratch, (size_t)len);
}

static enum error_code parse_query(struct parsing *p, struct slice query, char *scratch)
{
    struct http_query q = { .rest = query, .buf = scratch };
    struct slice name, value;
    int r;
    while ((r = http_query_next(&q, &name, &value)) > 0) {
        enum error_code code = parse_one(p, name, value);
        if (code)
            return code;
    }
    return r < 0 ? fail(p, CODE_BAD_REQUEST, "malformed query string") : CODE_OK;
}

static enum error_code check_together(struct parsing *p, const struct http_request *request)
{
    struct params *params = p->params;
    if (request->last_event_id.len && p->what == PARAMS_SSE) {
        if (since_parse(request->last_event_id.data, request->last_event_id.len, &params->since) <
            0)
            return fail(p, CODE_BAD_POSITION, "Last-Event-ID is not a position");
        params->has_since = true;
        params->rows = false; /* it goes on where it was */
    }
    if (params->rows && (params->has_since || params->last))
        return fail(p, CODE_BAD_REQUEST, "snapshot goes without since and last");
    if (params->rows && p->what == PARAMS_SSE && params->path_form)
        return fail(p, CODE_BAD_REQUEST, PARAMS_BARE_ROWS);
    if (params->has_since)
        params->last = 0;
    if (params->last && params->wait_s)
        return fail(p, CODE_BAD_REQUEST, "wait goes with since, not with last");
    if ((uint64_t)params->last * params->n_channels > LAST_SUM_MAX)
        return fail(p, CODE_BAD_REQUEST, "last × channels is at most %d", LAST_SUM_MAX);
    if (p->what == PARAMS_SSE && params->n_channels == 0)
        return fail(p, CODE_BAD_CHANNEL,
                    "name a channel: /sse/CHANNEL or /sse?channel=A&channel=B");
    if (p->what == PARAMS_HISTORY && params->n_channels == 0)
        return fail(p, CODE_BAD_CHANNEL, "name a channel: /history/CHANNEL");
    return CODE_OK;
}

enum error_code params_parse(struct params *ret, enum params_for what,
                             const struct http_request *request, struct slice rest,
                             size_t max_channels, char *detail, size_t size)
{
    *ret = (struct params){ .since.kind = SINCE_NOW };
    /* A name needs at least "&channel=": that many can be in the query at most. */
    size_t bytes = rest.len + request->query.len + 2;
    size_t slots = bytes / 9 + 2;
    ret->memory = calloc(1, slots * sizeof(struct channel_name) + 3 * bytes + slots);
    if (!ret->memory) {
        (void)snprintf(detail, size, "out of memory");
        return CODE_OVERLOADED;
    }
    ret->channels = ret->memory;
    char *text = (char *)(ret->channels + slots);
    struct parsing p = {
        .params = ret,
        .what = what,
        .detail = detail,
        .size = size,
        .max_channels = max_channels < slots ? max_channels : slots,
        .names = text + bytes,
    };
    enum error_code code = parse_path(&p, rest, text);
    if (code == CODE_OK)
        code = parse_query(&p, request->query, text);
    if (code == CODE_OK)
        code = check_together(&p, request);
    return code;
}

void params_done(struct params *params)
{
    free(params->memory);
    *params = (struct params){ 0 };
}
