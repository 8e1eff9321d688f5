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

bool json_member(const char *json, size_t len, const char *key, const char **ret, size_t *ret_len)
{
    struct scan s = { json, json + len };
    size_t key_len = strlen(key);
    skip_space(&s);
    s.at++; /* { */
    while (s.at < s.end) {
        skip_space(&s);
        if (s.at >= s.end || *s.at != '"')
            return false; /* } */
        const char *name = s.at + 1;
        skip_string(&s);
        bool found = (size_t)(s.at - name) == key_len + 1 && memcmp(name, key, key_len) == 0;
        skip_space(&s);
        s.at++; /* : */
        skip_space(&s);
        const char *value = s.at;
        skip_value(&s);
        if (found) {
            const char *end = s.at;
            while (end > value && strchr(" \t\r\n", end[-1]))
                end--;
            *ret = value;
            *ret_len = (size_t)(end - value);
            return true;
        }
        skip_space(&s);
        s.at++; /* , or } */
    }
    return false;
}
