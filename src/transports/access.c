/* Who may read and write which channel, and from which origin. */
#include "pattern.h"
#include "settings.h"
#include "text.h"
#include "turn.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *const loopback_names[N_LOOPBACK_NAMES] = { "localhost", "127.0.0.1", "[::1]" };

static bool any_matches(const struct strings *patterns, const char *channel, size_t len)
{
    for (size_t i = 0; i < patterns->count; i++) {
        if (pattern_match(patterns->items[i], channel, len))
            return true;
    }
    return false;
}

bool may_read(const struct worker *w, const char *channel, size_t len)
{
    return w->settings->dev || any_matches(&w->settings->public_read, channel, len);
}

bool may_write(const struct worker *w, const char *channel, size_t len)
{
    return w->settings->dev || any_matches(&w->settings->public_write, channel, len);
}

enum error_code check_channel(const struct worker *w, const char *channel, size_t len, bool write,
                              char *detail, size_t size)
{
    if (!channel_valid(channel, len)) {
        (void)snprintf(detail, size,
                       "a channel's name is 1 to 255 bytes of UTF-8 without control characters");
        return CODE_BAD_CHANNEL;
    }
    if (channel_reserved(channel, len)) {
        (void)snprintf(detail, size, "channels below $fanwire/ are reserved");
        return CODE_CHANNEL_FORBIDDEN;
    }
    if (write ? may_write(w, channel, len) : may_read(w, channel, len))
        return CODE_OK;
    char shown[300];
    text_escape(shown, sizeof(shown), channel, len);
    (void)snprintf(detail, size, "channel \"%s\" is not public; start the server with --%s '%s'",
                   shown, write ? "public-write" : "public", shown);
    return CODE_CHANNEL_FORBIDDEN;
}

/* "http://host:port" → "host:port"; NULL when it is no such origin (as "null"). */
static struct slice origin_authority(struct slice origin)
{
    static const char *const schemes[] = { "http://", "https://" };
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i]);
        if (origin.len > len && strncasecmp(origin.data, schemes[i], len) == 0)
            return (struct slice){ origin.data + len, origin.len - len };
    }
    return (struct slice){ 0 };
}

static bool same(struct slice a, const char *b, size_t len)
{
    return a.data && b && a.len == len && strncasecmp(a.data, b, len) == 0;
}

/* Is this name what stands before the port? */
static bool is_name(struct slice authority, const char *name)
{
    size_t len = strlen(name);
    return authority.len >= len && strncasecmp(authority.data, name, len) == 0 &&
           (authority.len == len || authority.data[len] == ':');
}

static bool is_loopback(struct slice authority)
{
    for (size_t i = 0; i < N_LOOPBACK_NAMES; i++) {
        if (is_name(authority, loopback_names[i]))
            return true;
    }
    return false;
}

enum error_code check_rows(const struct worker *w, const char *channel, size_t len, char *detail,
                           size_t size)
{
    const struct strings *names = &w->settings->snapshots;
    for (size_t i = 0; i < names->count; i++) {
        if (strlen(names->items[i]) == len && memcmp(names->items[i], channel, len) == 0)
            return CODE_OK;
    }
    char shown[300];
    (void)snprintf(detail, size,
                   "channel \"%s\" has no rows to begin with; the server is to be started with "
                   "--snapshot 'CHANNEL=SELECT …'",
                   text_escape(shown, sizeof(shown), channel, len));
    return CODE_NOT_SUPPORTED;
}

bool host_allowed(const struct worker *w, const struct http_request *request)
{
    const struct strings *names = &w->settings->hosts;
    for (size_t i = 0; i < names->count; i++) {
        if (is_name(request->host, names->items[i]))
            return true;
    }
    /* Every browser names the host. */
    return names->count == 0 || !request->host.data;
}

bool origin_allowed(const struct worker *w, const struct http_request *request)
{
    struct slice origin = request->origin;
    if (!host_allowed(w, request))
        return false;
    if (!origin.data)
        return true; /* not a browser, or a plain navigation */
    struct slice authority = origin_authority(origin);
    if (same(authority, request->host.data, request->host.len))
        return true;
    if (w->settings->dev && authority.data && is_loopback(authority))
        return true;
    for (size_t i = 0; i < w->settings->origins.count; i++) {
        const char *allowed = w->settings->origins.items[i];
        if (strcmp(allowed, "*") == 0 || same(origin, allowed, strlen(allowed)))
            return true;
    }
    return false;
}
