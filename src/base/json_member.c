/* Finding a member's raw text in valid JSON. */
#include "json_member.h"

#include <string.h>

struct scan {
    const char *at, *end;
};

static void skip_space(struct scan *s)
{
    while (s->at < s->end && strchr(" \t\r\n", *s->at) && *s->at)
        s->at++;
}

/* At the opening quote; ends after the closing one. */
static void skip_string(struct scan *s)
{
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++) {
        if (*s->at == '\\')
            s->at++;
    }
    if (s->at < s->end)
        s->at++;
}

static void skip_value(struct scan *s)
{
    size_t depth = 0;
    while (s->at < s->end) {
        char ch = *s->at;
        if (ch == '"') {
            skip_string(s);
        } else {
            if (depth == 0 && (ch == ',' || ch == '}' || ch == ']'))
                return;
            depth += ch == '{' || ch == '[';
            depth -= ch == '}' || ch == ']';
            s->at++;
        }
        if (depth == 0 && (ch == '"' || ch == '}' || ch == ']'))
            return;
    }
}

/* The value that begins here, without the space after it; then steps over what follows it. */
static void take_value(struct scan *s, struct json_text *ret)
{
    skip_space(s);
    ret->data = s->at;
    skip_value(s);
    const char *end = s->at;
    while (end > ret->data && strchr(" \t\r\n", end[-1]))
        end--;
    ret->len = (size_t)(end - ret->data);
    skip_space(s);
    s->at++; /* , or } or ] */
}

static bool take_member(struct scan *s, struct json_text *name, struct json_text *value)
{
    skip_space(s);
    if (s->at >= s->end || *s->at != '"')
        return false; /* } */
    name->data = s->at + 1;
    skip_string(s);
    name->len = (size_t)(s->at - name->data) - 1;
    skip_space(s);
    s->at++; /* : */
    take_value(s, value);
    return true;
}

bool json_member(const char *json, size_t len, const char *key, const char **ret, size_t *ret_len)
{
    struct scan s = { json, json + len };
    struct json_text name, value;
    size_t key_len = strlen(key);
    skip_space(&s);
    s.at++; /* { */
    while (take_member(&s, &name, &value)) {
        if (name.len == key_len && memcmp(name.data, key, key_len) == 0) {
            *ret = value.data;
            *ret_len = value.len;
            return true;
        }
    }
    return false;
}

/* ---- one after the other ---- */

bool json_walk_begin(struct json_walk *walk, struct json_text json)
{
    struct scan s = { json.data, json.data + json.len };
    skip_space(&s);
    bool begins = s.at < s.end && (*s.at == '{' || *s.at == '[');
    *walk = (struct json_walk){ s.at + begins, s.end };
    return begins;
}

bool json_walk_element(struct json_walk *walk, struct json_text *value)
{
    struct scan s = { walk->at, walk->end };
    skip_space(&s);
    if (s.at >= s.end || *s.at == ']')
        return false;
    take_value(&s, value);
    walk->at = s.at;
    return true;
}

bool json_walk_member(struct json_walk *walk, struct json_text *name, struct json_text *value)
{
    struct scan s = { walk->at, walk->end };
    bool taken = take_member(&s, name, value);
    walk->at = s.at;
    return taken;
}
