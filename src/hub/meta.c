/* Encodes and decodes the key and the sender that travel with an event. */
#include "meta.h"

#include <string.h>

static size_t fitting(const char *text, size_t max)
{
    size_t len = text ? strnlen(text, max + 1) : 0;
    return len > max ? 0 : len;
}

bool meta_fits(const char *key, const char *from)
{
    return (!key || strnlen(key, META_KEY_MAX + 1) <= META_KEY_MAX) &&
           (!from || strnlen(from, META_FROM_MAX + 1) <= META_FROM_MAX);
}

size_t meta_encode(char *buf, const char *key, const char *from)
{
    size_t key_len = fitting(key, META_KEY_MAX), from_len = fitting(from, META_FROM_MAX);
    if (!key_len && !from_len)
        return 0;
    if (key_len)
        memcpy(buf, key, key_len);
    buf[key_len] = '\0';
    if (from_len)
        memcpy(buf + key_len + 1, from, from_len);
    return key_len + 1 + from_len;
}

const char *meta_key(const struct log_record *record)
{
    return record->meta_len ? record->meta : "";
}

const char *meta_from(const struct log_record *record)
{
    if (!record->meta_len)
        return "";
    const char *nul = memchr(record->meta, '\0', record->meta_len);
    return nul ? nul + 1 : "";
}
