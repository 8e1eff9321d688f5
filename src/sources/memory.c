/* memory: — a stream with no backend: what is published is an event, as long as the process lives.
 */
#include "error.h"

#include <errno.h>
#include <fanwire/source.h>
#include <stdlib.h>
#include <string.h>

struct fw_source {
    struct fw_host *host;
};

static int memory_create(struct fw_host *host, const char *url, struct fw_source **ret,
                         struct fw_error *err)
{
    const char *rest = strchr(url, ':') + 1;
    if (*rest)
        return error_set(err, -EINVAL,
                         "memory: stands alone, it has no name and no parameters (found \"%.40s\")",
                         rest);
    struct fw_source *source = malloc(sizeof(*source));
    if (!source)
        return error_set(err, -ENOMEM, "out of memory for the source");
    source->host = host;
    *ret = source;
    return 0;
}

static void memory_open(struct fw_source *source)
{
    fw_host_opened(source->host, "memory", "events live in this process's memory and end with it",
                   0);
}

static void memory_publish(struct fw_source *source, const struct fw_publish *publish)
{
    struct fw_source_event event = { .channel = publish->channel,
                                     .channel_len = publish->channel_len,
                                     .key = publish->key,
                                     .from = publish->from,
                                     .data = publish->data,
                                     .len = publish->len };
    if (fw_host_append(source->host, &event) < 0)
        fw_host_published(source->host, publish->request, "bad-channel", "bad channel name", NULL);
    else
        fw_host_published(source->host, publish->request, NULL, NULL,
                          fw_host_last_id(source->host));
}

/* Nothing is read from anywhere: the hub holds publishes back itself. */
static void memory_pause(struct fw_source *source, bool paused)
{
}

static void memory_destroy(struct fw_source *source)
{
    free(source);
}

extern const struct fw_source_class source_memory;
const struct fw_source_class source_memory = { .kind = "memory",
                                               .schemes = "memory",
                                               .create = memory_create,
                                               .open = memory_open,
                                               .publish = memory_publish,
                                               .pause = memory_pause,
                                               .destroy = memory_destroy };
