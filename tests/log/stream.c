#include "stream.h"

#include "seed.h"

/* A few busy channels, many quiet ones. */
unsigned stream_channel(const struct stream *stream, uint64_t number)
{
    const uint64_t x = mix(stream->seed ^ number << 8);
    const unsigned n = x >> 62 ? stream->n_channels / 16 + 1 : stream->n_channels;
    return (unsigned)((x & 0xffffffff) % n);
}

size_t stream_name(unsigned channel, char name[STREAM_NAME_MAX])
{
    return (size_t)snprintf(name, STREAM_NAME_MAX, "c%u", channel);
}

/* Mostly small; now and then empty, and exactly as large as fits. */
static size_t length(const struct stream *stream, uint64_t x, size_t used)
{
    const size_t max = stream->event_max < STREAM_LEN_MAX ? stream->event_max : STREAM_LEN_MAX;
    switch (x % 256) {
    case 0:
        return max - used;
    case 1:
    case 2:
    case 3:
        return (x >> 8) % (max - used);
    default:
        return x % 16 == 4 ? 0 : (x >> 8) % 96;
    }
}

void stream_make(const struct stream *stream, uint64_t number, struct stream_event *ret)
{
    const uint64_t x = mix(mix(stream->seed) + number);
    const size_t name_len = stream_name(stream_channel(stream, number), ret->channel);
    const size_t meta_len = x >> 61 ? 0 : (x >> 50) % sizeof(ret->meta);
    const size_t len = length(stream, x, name_len + meta_len);

    memset(ret->meta, (int)(x >> 40), meta_len);
    for (size_t i = 0; i < len / 8 + 1; i++)
        ret->data[i] = x + i * 0x9e3779b97f4a7c15;
    ret->event = (struct log_event){
        .channel = ret->channel,
        .channel_len = name_len,
        .meta = ret->meta,
        .meta_len = meta_len,
        .data = ret->data,
        .len = len,
        .time_ms = (int64_t)(x >> 20),
        .pos = { number / 3 + 1, number % 3 },
        .xid = number + 1,
        .kind = x % 64 == 5 ? RECORD_GAP : RECORD_MESSAGE,
        .history = x % 32 == 6,
    };
}

const char *stream_check(const struct stream *stream, const struct log *log,
                         const struct log_record *record)
{
    struct stream_event want;
    const struct log_event *e = &want.event;
    stream_make(stream, record->xid - 1, &want);
    if (record->channel_len != e->channel_len || record->meta_len != e->meta_len ||
        record->len != e->len)
        return "a length is wrong";
    if (memcmp(record->channel, e->channel, e->channel_len + 1) != 0)
        return "the channel is wrong";
    if (memcmp(record->meta, e->meta, e->meta_len) != 0 || record->meta[e->meta_len])
        return "the meta data are wrong";
    if (memcmp(record->data, e->data, e->len) != 0 || record->data[e->len])
        return "the payload is wrong";
    if (record->hash != log_hash(log, e->channel, e->channel_len))
        return "the hash is wrong";
    if (record->pos[0] != e->pos[0] || record->pos[1] != e->pos[1] ||
        record->time_ms != (uint64_t)e->time_ms)
        return "position or time is wrong";
    if (record->kind != e->kind || record->history != e->history)
        return "a flag is wrong";
    return NULL;
}
