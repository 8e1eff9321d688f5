/* Reads the header fields of a publish. */
#include "publish_fields.h"

#include "text.h"

#include <string.h>

static const char bad_key[] =
    "Idempotency-Key is a string of 1 to 255 bytes of UTF-8, as it is or in quotes (\"…\")";
static const char bad_client[] =
    "Fanwire-Client is the id that a connection's welcome names as \"client\"";

static bool is_visible(char c)
{
    return (unsigned char)c >= 0x20 && c != 0x7F;
}

/* Without quotes and escapes; false when it does not end where it should. */
static bool unquote(struct slice value, char *out, size_t *ret_len)
{
    size_t at = 1, len = 0;
    for (; at < value.len && value.data[at] != '"'; at++) {
        if (value.data[at] == '\\' &&
            (++at == value.len || (value.data[at] != '"' && value.data[at] != '\\')))
            return false;
        if (len == META_KEY_MAX)
            return false;
        out[len++] = value.data[at];
    }
    *ret_len = len;
    return at + 1 == value.len;
}

static bool read_key(struct slice value, char out[META_KEY_MAX + 1])
{
    size_t len = value.len;
    if (value.len > 0 && value.data[0] == '"') {
        if (!unquote(value, out, &len))
            return false;
    } else if (len <= META_KEY_MAX) {
        memcpy(out, value.data, len);
    }
    if (len == 0 || len > META_KEY_MAX || !utf8_valid(out, len))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_visible(out[i]))
            return false;
    out[len] = '\0';
    return true;
}

static size_t hex_digits(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && ((text[n] >= '0' && text[n] <= '9') || (text[n] >= 'a' && text[n] <= 'f')))
        n++;
    return n;
}

bool client_name_valid(const char *name, size_t len)
{
    size_t host = hex_digits(name, len);
    if (host == 0 || host == len || len > 23 || name[host] != 'w')
        return false;
    size_t number = hex_digits(name + host + 1, len - host - 1);
    return number > 0 && host + 1 + number == len;
}

const char *publish_fields_read(struct publish_fields *ret, const struct http_request *request)
{
    struct slice key = request->idempotency_key, client = request->client;
    ret->key[0] = ret->from[0] = '\0';
    if (key.data && !read_key(key, ret->key))
        return bad_key;
    if (!client.data)
        return NULL;
    if (!client_name_valid(client.data, client.len))
        return bad_client;
    memcpy(ret->from, client.data, client.len);
    ret->from[client.len] = '\0';
    return NULL;
}
