/* Packs the events of a batch, and takes them out again. */
#include "batch.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

struct head {
    uint16_t channel_len, key_len;
    uint32_t len;
};
_Static_assert(sizeof(struct head) == 8, "the layout in batch.h");

static void put(struct buf *out, const char *text, size_t len)
{
    memcpy(out->data + out->len, text, len);
    out->data[out->len + len] = '\0';
    out->len += len + 1;
}

int batch_append(struct buf *out, const struct batch_event *event)
{
    if (event->channel_len > UINT16_MAX || event->key_len > UINT16_MAX || event->len > INT32_MAX)
        return -EMSGSIZE;
    const struct head head = { (uint16_t)event->channel_len, (uint16_t)event->key_len,
                               (uint32_t)event->len };
    int r = buf_reserve(out, sizeof(head) + event->channel_len + event->key_len + event->len + 3);
    if (r < 0)
        return r;
    memcpy(out->data + out->len, &head, sizeof(head));
    out->len += sizeof(head);
    put(out, event->channel, event->channel_len);
    put(out, event->key_len ? event->key : "", event->key_len);
    put(out, event->len ? event->data : "", event->len);
    return 0;
}

static bool take(const char **at, size_t *left, size_t len, const char **ret)
{
    if (*left <= len || (*at)[len] != '\0')
        return false;
    *ret = *at;
    *at += len + 1;
    *left -= len + 1;
    return true;
}

bool batch_next(const char **at, size_t *left, struct batch_event *ret)
{
    struct head head;
    if (*left < sizeof(head))
        return false;
    memcpy(&head, *at, sizeof(head));
    *at += sizeof(head);
    *left -= sizeof(head);
    *ret = (struct batch_event){ .channel_len = head.channel_len,
                                 .key_len = head.key_len,
                                 .len = head.len };
    return take(at, left, ret->channel_len, &ret->channel) &&
           take(at, left, ret->key_len, &ret->key) && take(at, left, ret->len, &ret->data);
}

bool batch_valid(const char *at, size_t len, size_t n)
{
    struct batch_event event;
    for (size_t i = 0; i < n; i++)
        if (!batch_next(&at, &len, &event))
            return false;
    return len == 0;
}
