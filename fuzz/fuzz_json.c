/* JSON: valid exactly when jansson can read it, a member is the one that jansson finds, and what is
 * written always reads back. */
#include "fuzz.h"
#include "json.h"
#include "json_member.h"
#include "text.h"

#include <jansson.h>
#include <string.h>

/* jansson has tighter limits than the grammar: numbers must fit its types, and a lone surrogate in
 * an escape is no text to it. (And it takes a NUL after the text for its end: not compared.) */
static bool is_jansson_s_own_limit(const json_error_t *error)
{
    return json_error_code(error) == json_error_numeric_overflow ||
           strstr(error->text, "invalid Unicode") != NULL;
}

static void compare(const uint8_t *data, size_t size)
{
    json_error_t error;
    bool newline, ours = json_valid(data, size, &newline);
    json_t *json = json_loadb((const char *)data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (json)
        require(ours || size > JSON_DEPTH_MAX || memchr(data, '\0', size)); /* too deep for us */
    else
        require(!ours || is_jansson_s_own_limit(&error));
    json_decref(json);
    require(!ours || utf8_valid(data, size));
    require(!newline || memchr(data, '\n', size) || memchr(data, '\r', size));
}

/* Keys that need no escape, in objects without repeated keys. */
static void check_members(const uint8_t *data, size_t size)
{
    const size_t flags = JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES;
    json_t *json = json_loadb((const char *)data, size, flags, NULL), *value;
    const char *key, *raw;
    size_t len;
    json_object_foreach(json, key, value)
    {
        if (!json_member((const char *)data, size, key, &raw, &len))
            continue; /* written with an escape */
        require((const uint8_t *)raw > data && (const uint8_t *)raw + len < data + size);
        require(json_valid(raw, len, NULL));
        json_t *again = json_loadb(raw, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        require(json_equal(again, value));
        json_decref(again);
    }
    json_decref(json);
}

static void write_and_read(const uint8_t *data, size_t size)
{
    struct buf b = buf_make(size * 6 + 2);
    require(json_append_string(&b, data, size) == 0);
    require(json_valid(b.data, b.len, NULL));
    json_t *json = json_loadb((char *)b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    require(json);
    if (utf8_valid(data, size))
        require(json_string_length(json) == size &&
                memcmp(json_string_value(json), data, size) == 0);
    json_decref(json);
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    compare(data, size);
    if (json_valid(data, size, NULL))
        check_members(data, size);
    write_and_read(data, size);
    return 0;
}
