/* Reads members of a JSON envelope. */
#include "envelope.h"

#include "json.h"
#include "json_member.h"
#include "text.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

bool envelope_valid(const char *json, size_t len)
{
    if (!json_valid(json, len, NULL))
        return false;
    while (len > 0 && strchr(" \t\r\n", *json)) {
        json++;
        len--;
    }
    return *json == '{';
}

int envelope_string(const char *json, size_t len, const char *name, struct buf *out)
{
    const char *value;
    size_t value_len;
    if (!json_member(json, len, name, &value, &value_len) || value_len < 2 || *value != '"')
        return -ENOENT;
    json_t *string = json_loadb(value, value_len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    int r = json_is_string(string)
                ? buf_append(out, json_string_value(string), json_string_length(string))
                : -ENOENT;
    json_decref(string);
    return r;
}

static int append_base64(const char *json, size_t len, struct buf *out)
{
    const char *value;
    size_t value_len;
    if (!json_member(json, len, "base64", &value, &value_len) || value_len < 2)
        return -ENOENT;
    int r = buf_reserve(out, value_len / 4 * 3 + 3);
    if (r < 0)
        return r;
    int64_t n = base64_decode(out->data + out->len, value + 1, value_len - 2);
    if (n < 0)
        return -ENOENT;
    out->len += (size_t)n;
    return 0;
}

int envelope_payload(const char *json, size_t len, struct buf *out)
{
    const char *value;
    size_t value_len;
    if (json_member(json, len, "data", &value, &value_len))
        return buf_append(out, value, value_len);
    int r = envelope_string(json, len, "text", out);
    return r == -ENOENT ? append_base64(json, len, out) : r;
}
