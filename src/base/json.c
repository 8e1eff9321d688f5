/* JSON without allocating. The validator is a loop over three states; what is open is a bit per
 * level (object or array), so that depth costs 64 bytes and no recursion. Strings, where nearly all
 * bytes are, are scanned eight bytes at a time. */
#include "json.h"

#include "text.h"

#include <stdint.h>
#include <string.h>

struct scan {
    const uint8_t *p, *end;
    bool newline;
    unsigned depth;
    uint64_t objects[JSON_DEPTH_MAX / 64]; /* bit set: that level is an object, else an array */
};

/* ---- strings ---- */

#define EACH_BYTE(c) (0x0101010101010101u * (uint64_t)(c))
#define HIGH_BITS    EACH_BYTE(0x80)

/* A word with the high bit of each byte that is not plain inside a string: quote, backslash,
 * control, beyond ASCII. Exact up to the first such byte; later bits may be false alarms. */
static uint64_t special_bytes(uint64_t word)
{
    uint64_t quote = word ^ EACH_BYTE('"'), backslash = word ^ EACH_BYTE('\\');
    return ((word - EACH_BYTE(0x20)) | (quote - EACH_BYTE(1)) | (backslash - EACH_BYTE(1)) | word) &
           HIGH_BITS;
}

static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
    uint64_t word;
    while (end - p >= 8) {
        memcpy(&word, p, 8);
        if (special_bytes(word))
            break;
        p += 8;
    }
    while (p < end && is_plain(*p))
        p++;
    return p;
}

static bool is_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Length of the escape sequence at p, 0 if it is none. */
static size_t escape_len(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 2)
        return 0;
    if (p[1] == 'u')
        return end - p >= 6 && is_hex(p[2]) && is_hex(p[3]) && is_hex(p[4]) && is_hex(p[5]) ? 6 : 0;
    return p[1] && strchr("\"\\/bfnrt", p[1]) ? 2 : 0;
}

/* A run of characters beyond ASCII. False when one is not UTF-8. */
static bool skip_wide(struct scan *s)
{
    while (s->p < s->end && *s->p >= 0x80) {
        size_t n = utf8_char(s->p, (size_t)(s->end - s->p));
        if (!n)
            return false;
        s->p += n;
    }
    return true;
}

static bool skip_escape(struct scan *s)
{
    size_t n = escape_len(s->p, s->end);
    s->p += n;
    return n > 0;
}

/* From the opening quote to after the closing one. */
static bool scan_string(struct scan *s)
{
    if (s->p == s->end || *s->p != '"')
        return false;
    for (s->p++;;) {
        s->p = skip_plain(s->p, s->end);
        if (s->p == s->end || *s->p < 0x20)
            return false;
        if (*s->p == '"')
            break;
        if (*s->p == '\\' ? !skip_escape(s) : !skip_wide(s))
            return false;
    }
    s->p++;
    return true;
}

/* ---- other tokens ---- */

static void skip_space(struct scan *s)
{
    for (; s->p < s->end; s->p++) {
        if (*s->p == '\n' || *s->p == '\r')
            s->newline = true;
        else if (*s->p != ' ' && *s->p != '\t')
            break;
    }
}

static bool take(struct scan *s, char c)
{
    if (s->p == s->end || *s->p != (uint8_t)c)
        return false;
    s->p++;
    return true;
}

static bool scan_digits(struct scan *s)
{
    const uint8_t *start = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > start;
}

static bool scan_number(struct scan *s)
{
    (void)take(s, '-');
    if (!take(s, '0') && !scan_digits(s))
        return false;
    if (take(s, '.') && !scan_digits(s))
        return false;
    if (!take(s, 'e') && !take(s, 'E'))
        return true;
    if (!take(s, '+'))
        (void)take(s, '-');
    return scan_digits(s);
}

static bool scan_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len) != 0)
        return false;
    s->p += len;
    return true;
}

static bool scan_scalar(struct scan *s)
{
    switch (*s->p) {
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

/* ---- structure ---- */

static bool open_level(struct scan *s, bool object)
{
    if (s->depth == JSON_DEPTH_MAX)
        return false;
    uint64_t bit = 1ull << s->depth % 64, *word = &s->objects[s->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    s->depth++;
    s->p++;
    return true;
}

static bool in_object(const struct scan *s)
{
    unsigned level = s->depth - 1;
    return s->objects[level / 64] >> level % 64 & 1;
}

static bool close_level(struct scan *s)
{
    if (!s->depth || !take(s, in_object(s) ? '}' : ']'))
        return false;
    s->depth--;
    return true;
}

/* "key" : */
static bool scan_key(struct scan *s)
{
    skip_space(s);
    if (!scan_string(s))
        return false;
    skip_space(s);
    return take(s, ':');
}

/* Takes what stands before the next scalar: opening brackets and keys. *ret_closed: an empty object
 * or array was opened and closed instead, so that no scalar follows. */
static bool open_levels(struct scan *s, bool *ret_closed)
{
    *ret_closed = false;
    for (;;) {
        skip_space(s);
        if (s->p == s->end)
            return false;
        if (*s->p != '{' && *s->p != '[')
            return true;
        bool object = *s->p == '{';
        if (!open_level(s, object))
            return false;
        skip_space(s);
        if (close_level(s)) {
            *ret_closed = true;
            return true;
        }
        if (object && !scan_key(s))
            return false;
    }
}

/* Takes what stands after a value: closing brackets, then a comma and a key, or the end of all. */
static bool close_levels(struct scan *s, bool *ret_end)
{
    do
        skip_space(s);
    while (close_level(s));
    *ret_end = s->depth == 0;
    if (*ret_end)
        return s->p == s->end;
    return take(s, ',') && (!in_object(s) || scan_key(s));
}

bool json_valid(const void *data, size_t len, bool *ret_has_newline)
{
    if (ret_has_newline)
        *ret_has_newline = false;
    if (!len)
        return false;
    struct scan s = { .p = data, .end = (const uint8_t *)data + len };
    bool ok, closed, end = false;
    do
        ok = open_levels(&s, &closed) && (closed || scan_scalar(&s)) && close_levels(&s, &end);
    while (ok && !end);
    if (ok && ret_has_newline)
        *ret_has_newline = s.newline;
    return ok;
}

/* ---- writing ---- */

static int append_escape(struct buf *b, uint8_t c)
{
    static const char shorts[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'
    };
    if (c == '"' || c == '\\')
        return buf_append(b, (char[]){ '\\', (char)c }, 2);
    if (shorts[c])
        return buf_append(b, (char[]){ '\\', shorts[c] }, 2);
    return buf_printf(b, "\\u%04x", c);
}

int json_append_string(struct buf *b, const void *data, size_t len)
{
    if (!len)
        return buf_append_str(b, "\"\"");
    const uint8_t *p = data, *end = p + len;
    size_t start = b->len;
    int r = buf_append_char(b, '"');
    while (r == 0 && p < end) {
        const uint8_t *plain = p;
        p = skip_plain(p, end);
        for (size_t n; p < end && *p >= 0x80 && (n = utf8_char(p, (size_t)(end - p))) > 0;)
            p = skip_plain(p + n, end);
        r = buf_append(b, plain, (size_t)(p - plain));
        if (r < 0 || p == end)
            break;
        r = *p < 0x80 ? append_escape(b, *p) : buf_append_str(b, "\xEF\xBF\xBD");
        p++;
    }
    if (r == 0)
        r = buf_append_char(b, '"');
    if (r < 0)
        b->len = start;
    return r;
}
