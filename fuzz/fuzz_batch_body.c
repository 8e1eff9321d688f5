/* The body of a batch: refused with a text, or packed events within all limits. */
#include "batch.h"
#include "batch_body.h"
#include "fuzz.h"
#include "inbox.h"
#include "meta.h"

#include <string.h>

static enum error_code check(void *arg, const char *channel, size_t len, char *detail, size_t size)
{
    return len > 0 && len <= 255 && !memchr(channel, '\0', len) ? CODE_OK : CODE_BAD_CHANNEL;
}

static enum error_code check_and_tell(void *arg, const char *channel, size_t len, char *detail,
                                      size_t size)
{
    (void)snprintf(detail, size, "no");
    return check(arg, channel, len, detail, size);
}

static void read_with(const char *key, const char *json, size_t size)
{
    struct batch_body body = { .key = key, .check = check_and_tell };
    enum error_code code = batch_body_read(&body, json, size);
    const char *at = (const char *)body.events.data;
    size_t left = body.events.len, n = 0;
    struct batch_event event;
    require(body.events.len <= INBOX_BATCH_MAX);
    require(code == CODE_OK ? body.n > 0 && body.n <= INBOX_EVENTS_MAX : *body.detail != '\0');
    for (; batch_next(&at, &left, &event); n++) {
        require(check(NULL, event.channel, event.channel_len, NULL, 0) == CODE_OK);
        require(event.key_len <= META_KEY_MAX && strlen(event.key) == event.key_len);
        require(!*key || strncmp(event.key, key, strlen(key)) == 0);
    }
    require(n == body.n && left == 0);
    buf_done(&body.events);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = copy_of(data, size, 0);
    read_with("", copy, size);
    read_with("K", copy, size);
    free(copy);
    return 0;
}
