/* What travels between the thread that holds the database and the hub's loop. */
#include "sqlite_batch.h"

#include <stdlib.h>
#include <string.h>

/* ---- events ---- */

struct sqlite_batch *sqlite_batch_new(size_t event_max)
{
    struct sqlite_batch *batch = malloc(sizeof(*batch));
    if (!batch)
        return NULL;
    batch->n = 0;
    batch->bytes = buf_make(SQLITE_BATCH_BYTES + event_max + 4096);
    return batch;
}

void sqlite_batch_free(struct sqlite_batch *batch)
{
    if (!batch)
        return;
    buf_done(&batch->bytes);
    free(batch);
}

static const char *text_at(const struct sqlite_batch *batch, size_t at)
{
    return at == SIZE_MAX ? NULL : (const char *)batch->bytes.data + at;
}

struct fw_source_event sqlite_batch_event(const struct sqlite_batch *batch, unsigned i,
                                          bool history)
{
    const struct sqlite_event *event = &batch->events[i];
    return (struct fw_source_event){
        .channel = text_at(batch, event->channel_at),
        .channel_len = event->channel_len,
        .key = text_at(batch, event->key_at),
        .from = text_at(batch, event->from_at),
        .data = event->too_large ? NULL : text_at(batch, event->data_at),
        .len = event->len,
        .time_ms = event->time_ms,
        .pos = { (uint64_t)event->id, 0 },
        .history = history,
    };
}

/* ---- publishes ---- */

static char *put(char **at, const void *data, size_t len)
{
    char *start = *at;
    if (len > 0)
        memcpy(start, data, len);
    start[len] = '\0';
    *at = start + len + 1;
    return start;
}

struct sqlite_publish *sqlite_publish_new(const struct fw_publish *p, int64_t now_ms)
{
    size_t key = p->key ? strlen(p->key) : 0, from = p->from ? strlen(p->from) : 0;
    struct sqlite_publish *copy = malloc(sizeof(*copy) + p->channel_len + key + from + p->len + 4);
    if (!copy)
        return NULL;
    char *at = copy->bytes;
    *copy = (struct sqlite_publish){
        .request = p->request, .since_ms = now_ms, .channel_len = p->channel_len, .len = p->len
    };
    copy->channel = put(&at, p->channel, p->channel_len);
    copy->key = p->key ? put(&at, p->key, key) : NULL;
    copy->from = p->from ? put(&at, p->from, from) : NULL;
    copy->data = put(&at, p->data, p->len);
    return copy;
}

void sqlite_publishes_push(struct sqlite_publishes *queue, struct sqlite_publish *publish)
{
    publish->next = NULL;
    if (!queue->first)
        queue->last = &queue->first;
    *queue->last = publish;
    queue->last = &publish->next;
}

struct sqlite_publish *sqlite_publishes_pop(struct sqlite_publishes *queue)
{
    struct sqlite_publish *publish = queue->first;
    if (publish)
        queue->first = publish->next;
    return publish;
}

void sqlite_publishes_move(struct sqlite_publishes *to, struct sqlite_publishes *from)
{
    for (struct sqlite_publish *p; (p = sqlite_publishes_pop(from));)
        sqlite_publishes_push(to, p);
}
