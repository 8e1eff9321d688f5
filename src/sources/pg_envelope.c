/* The envelope around an event where the backend has no headers. */
#include "pg_envelope.h"

#include "json.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

static void write_member(struct buf *b, const char *name, const char *value)
{
    if (!value)
        return;
    (void)buf_printf(b, ",\"%s\":", name);
    (void)json_append_string(b, value, strlen(value));
}

static void write_base64(struct buf *b, const void *data, size_t len)
{
    size_t encoded = base64_encoded_len(len);
    if (buf_reserve(b, encoded) < 0)
        return;
    b->len += base64_encode((char *)b->data + b->len, data, len);
}

int pg_envelope_write(struct buf *b, const struct fw_publish *publish)
{
    return pg_envelope_write_nth(b, publish, 0);
}

int pg_envelope_write_nth(struct buf *b, const struct fw_publish *publish, unsigned nth)
{
    bool plain = !memchr(publish->data ? publish->data : "", '\0', publish->len) &&
                 utf8_valid(publish->data, publish->len);
    (void)buf_append_str(b, "\x1e{\"channel\":");
    (void)json_append_string(b, publish->channel, publish->channel_len);
    write_member(b, "key", publish->key);
    write_member(b, "from", publish->from);
    if (nth > 0)
        (void)buf_printf(b, ",\"n\":%u", nth);
    (void)buf_append_str(b, plain ? "}\n" : ",\"enc\":\"base64\"}\n");
    if (!plain)
        write_base64(b, publish->data, publish->len);
    else if (publish->len > 0)
        (void)buf_append(b, publish->data, publish->len);
    (void)buf_append_char(b, '\0');
    return b->failed;
}

/* Reads an optional string. Returns false if it is there but no string. */
static bool read_string(const json_t *head, const char *name, const char **ret)
{
    const json_t *value = json_object_get(head, name);
    *ret = json_string_value(value);
    return !value || *ret;
}

static const char *decode(struct pg_envelope *envelope, const char *text, size_t len)
{
    envelope->decoded = malloc(len / 4 * 3 + 3);
    if (!envelope->decoded)
        return "out of memory";
    int64_t n = base64_decode(envelope->decoded, text, len);
    if (n < 0)
        return "bad base64";
    envelope->event.data = envelope->decoded;
    envelope->event.len = (size_t)n;
    return NULL;
}

/* Most heads name a channel and nothing else, as plain text: reading these without a JSON parser
 * takes a third off what an event costs in the source process. */
static bool take_plain_head(const char *head, size_t len, struct fw_source_event *event)
{
    static const char start[] = "{\"channel\":\"", end[] = "\"}";
    const size_t n_start = sizeof start - 1, n_end = sizeof end - 1;
    if (len < n_start + n_end || memcmp(head, start, n_start) != 0 ||
        memcmp(head + len - n_end, end, n_end) != 0)
        return false;
    const char *name = head + n_start;
    size_t n = len - n_start - n_end;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '"' || name[i] == '\\' || (unsigned char)name[i] < ' ')
            return false;
    event->channel = name;
    event->channel_len = n;
    return utf8_valid(name, n);
}

static const char *read_head(struct pg_envelope *envelope, const char *head, size_t len,
                             const char **ret_enc)
{
    struct fw_source_event *event = &envelope->event;
    *ret_enc = NULL;
    if (take_plain_head(head, len, event))
        return NULL;
    envelope->head = json_loadb(head, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(envelope->head))
        return "envelope is not a JSON object";
    if (!read_string(envelope->head, "channel", &event->channel) || !event->channel)
        return "envelope without channel";
    if (!read_string(envelope->head, "key", &event->key) ||
        !read_string(envelope->head, "from", &event->from) ||
        !read_string(envelope->head, "enc", ret_enc))
        return "envelope member is not a string";
    event->channel_len = strlen(event->channel);
    return NULL;
}

const char *pg_envelope_parse(const char *text, size_t len, struct pg_envelope *ret)
{
    *ret = (struct pg_envelope){ 0 };
    if (len == 0 || text[0] != '\x1e')
        return "no envelope";
    const char *end = memchr(text, '\n', len);
    if (!end)
        return "envelope without end";
    struct fw_source_event *event = &ret->event;
    const char *enc, *why = read_head(ret, text + 1, (size_t)(end - text - 1), &enc);
    if (why)
        return why;
    event->data = end + 1;
    event->len = len - (size_t)(end + 1 - text);
    if (!enc)
        return NULL;
    if (strcmp(enc, "base64") != 0)
        return "unknown encoding in envelope";
    return decode(ret, event->data, event->len);
}

void pg_envelope_done(struct pg_envelope *envelope)
{
    json_decref(envelope->head);
    free(envelope->decoded);
    *envelope = (struct pg_envelope){ 0 };
}
