/* Text from outside: UTF-8, base64, numbers with units, percent-encoding, escaping for logs. */
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- UTF-8 ---- */

/* What may follow inside a character: RFC 3629's table of well-formed sequences as states. Only the
 * first continuation byte is ever limited (no overlong forms, surrogates, or > U+10FFFF). */
enum utf8_state { BOUNDARY, TAIL1, TAIL2, TAIL3, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4 };

static const struct {
    uint8_t low, high, next;
} utf8_steps[] = {
    [TAIL1] = { 0x80, 0xBF, BOUNDARY }, [TAIL2] = { 0x80, 0xBF, TAIL1 },
    [TAIL3] = { 0x80, 0xBF, TAIL2 },    [AFTER_E0] = { 0xA0, 0xBF, TAIL1 },
    [AFTER_ED] = { 0x80, 0x9F, TAIL1 }, [AFTER_F0] = { 0x90, 0xBF, TAIL2 },
    [AFTER_F4] = { 0x80, 0x8F, TAIL2 },
};

static uint32_t utf8_lead(uint8_t c)
{
    if (c < 0x80)
        return BOUNDARY;
    if (c < 0xC2)
        return UTF8_REJECT;
    if (c < 0xE0)
        return TAIL1;
    if (c < 0xF0)
        return c == 0xE0 ? AFTER_E0 : c == 0xED ? AFTER_ED : TAIL2;
    if (c > 0xF4)
        return UTF8_REJECT;
    return c == 0xF0 ? AFTER_F0 : c == 0xF4 ? AFTER_F4 : TAIL3;
}

static const uint8_t *skip_ascii(const uint8_t *p, const uint8_t *end)
{
    uint64_t word;
    while (end - p >= 8) {
        memcpy(&word, p, 8);
        if (word & 0x8080808080808080u)
            break;
        p += 8;
    }
    while (p < end && *p < 0x80)
        p++;
    return p;
}

static bool is_tail(uint8_t c)
{
    return c >> 6 == 2;
}

size_t utf8_char(const uint8_t *p, size_t len)
{
    if (p[0] < 0x80)
        return 1;
    uint32_t state = utf8_lead(p[0]);
    if (state == UTF8_REJECT || len < 2 || p[1] < utf8_steps[state].low ||
        p[1] > utf8_steps[state].high)
        return 0;
    if (p[0] < 0xE0)
        return 2;
    if (len < 3 || !is_tail(p[2]))
        return 0;
    if (p[0] < 0xF0)
        return 3;
    return len >= 4 && is_tail(p[3]) ? 4 : 0;
}

bool utf8_valid(const void *data, size_t len)
{
    return utf8_feed(BOUNDARY, data, len) == BOUNDARY;
}

static uint32_t utf8_step(uint32_t state, uint8_t c)
{
    if (state == BOUNDARY)
        return utf8_lead(c);
    if (c < utf8_steps[state].low || c > utf8_steps[state].high)
        return UTF8_REJECT;
    return utf8_steps[state].next;
}

/* Whole characters at once; byte by byte only where one is cut by an end, or wrong. */
uint32_t utf8_feed(uint32_t state, const void *data, size_t len)
{
    if (!len)
        return state;
    const uint8_t *p = data, *end = p + len;
    while (p < end && state != UTF8_REJECT) {
        size_t n = 0;
        if (state == BOUNDARY) {
            p = skip_ascii(p, end);
            while (p < end && *p >= 0x80 && (n = utf8_char(p, (size_t)(end - p))) > 0)
                p += n;
            if (p == end)
                break;
            if (*p < 0x80)
                continue;
        }
        state = utf8_step(state, *p++);
    }
    return state;
}

/* ---- base64 (RFC 4648 4) ---- */

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encoded_len(size_t len)
{
    return (len / 3 + (len % 3 != 0)) * 4;
}

size_t base64_encode(char *out, const void *data, size_t len)
{
    const uint8_t *p = data;
    char *at = out;
    for (; len >= 3; p += 3, len -= 3, at += 4) {
        uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        at[0] = base64_digits[bits >> 18];
        at[1] = base64_digits[bits >> 12 & 63];
        at[2] = base64_digits[bits >> 6 & 63];
        at[3] = base64_digits[bits & 63];
    }
    if (len) {
        uint32_t bits = (uint32_t)p[0] << 16 | (len == 2 ? (uint32_t)p[1] << 8 : 0);
        at[0] = base64_digits[bits >> 18];
        at[1] = base64_digits[bits >> 12 & 63];
        at[2] = len == 2 ? base64_digits[bits >> 6 & 63] : '=';
        at[3] = '=';
        at += 4;
    }
    return (size_t)(at - out);
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int64_t base64_decode(void *out, const char *text, size_t len)
{
    if (len && len % 4 == 0 && text[len - 1] == '=')
        len -= text[len - 2] == '=' ? 2 : 1;
    if (len % 4 == 1)
        return -EINVAL;
    uint8_t *at = out;
    uint32_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        int value = base64_value(text[i]);
        if (value < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 == 0)
            continue;
        *at++ = (uint8_t)(bits >> (6 - i % 4 * 2));
    }
    return at - (uint8_t *)out;
}

/* ---- numbers ---- */

/* Reads digits; returns the text after them, or NULL without digits or when it overflows. */
static const char *read_digits(const char *text, uint64_t *ret)
{
    uint64_t n = 0;
    if (*text < '0' || *text > '9')
        return NULL;
    for (; *text >= '0' && *text <= '9'; text++)
        if (__builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
            return NULL;
    *ret = n;
    return text;
}

int parse_uint(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t n = 0;
    const char *rest = read_digits(text, &n);
    if (!rest || *rest || n > max)
        return -EINVAL;
    *ret = n;
    return 0;
}

int parse_size(const char *text, uint64_t *ret)
{
    static const struct {
        char upper, lower;
        uint64_t bytes;
    } units[] = {
        { 'K', 'k', 1ull << 10 },
        { 'M', 'm', 1ull << 20 },
        { 'G', 'g', 1ull << 30 },
        { 'T', 't', 1ull << 40 },
    };
    uint64_t n = 0;
    const char *rest = read_digits(text, &n);
    if (!rest)
        return -EINVAL;
    for (size_t i = 0; *rest && i < sizeof(units) / sizeof(units[0]); i++) {
        if (*rest != units[i].upper && *rest != units[i].lower)
            continue;
        if (rest[1] && strcmp(rest + 1, "iB") != 0)
            return -EINVAL;
        return __builtin_mul_overflow(n, units[i].bytes, ret) ? -EINVAL : 0;
    }
    if (*rest)
        return -EINVAL;
    *ret = n;
    return 0;
}

int parse_duration_ms(const char *text, uint64_t *ret)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {
        { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 3600 * 1000 }, { "d", 86400 * 1000 },
    };
    uint64_t n = 0;
    const char *rest = read_digits(text, &n);
    if (!rest)
        return -EINVAL;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(rest, units[i].name) == 0)
            return __builtin_mul_overflow(n, units[i].ms, ret) ? -EINVAL : 0;
    if (*rest || n)
        return -EINVAL;
    *ret = 0;
    return 0;
}

/* ---- percent-encoding (RFC 3986 2.1) ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int64_t percent_decode(char *out, const char *text, size_t len, bool plus_is_space)
{
    char *at = out;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '%') {
            *at++ = text[i] == '+' && plus_is_space ? ' ' : text[i];
            continue;
        }
        if (len - i < 3)
            return -EINVAL;
        int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
        if (high < 0 || low < 0)
            return -EINVAL;
        *at++ = (char)(high << 4 | low);
        i += 2;
    }
    return at - out;
}

/* ---- log lines ---- */

/* Writes one character, as it is or escaped (≤ 8 bytes); returns the bytes taken from the text. */
static size_t escape_char(char out[12], const uint8_t *text, size_t len)
{
    size_t n = utf8_char(text, len);
    if (n == 1 && text[0] >= 0x20 && text[0] != 0x7F) {
        bool quote = text[0] == '"' || text[0] == '\\';
        (void)snprintf(out, 12, "%s%c", quote ? "\\" : "", text[0]);
        return 1;
    }
    bool c1 = n == 2 && text[0] == 0xC2 && text[1] < 0xA0; /* terminals obey these too */
    if (n > 1 && !c1) {
        memcpy(out, text, n);
        out[n] = '\0';
        return n;
    }
    if (text[0] == '\n' || text[0] == '\r' || text[0] == '\t')
        (void)snprintf(out, 12, "\\%c", text[0] == '\n' ? 'n' : text[0] == '\r' ? 'r' : 't');
    else if (c1)
        (void)snprintf(out, 12, "\\x%02x\\x%02x", text[0], text[1]);
    else
        (void)snprintf(out, 12, "\\x%02x", text[0]);
    return c1 ? 2 : 1;
}

char *text_escape(char *out, size_t size, const void *data, size_t len)
{
    static const char cut[] = "…";
    size_t at = 0, cut_at = 0; /* cut_at: the last place with room for the ellipsis */
    if (!size)
        return out;
    out[0] = '\0';
    if (!len)
        return out;
    const uint8_t *p = data, *end = p + len;
    while (p < end) {
        char piece[12];
        p += escape_char(piece, p, (size_t)(end - p));
        size_t n = strlen(piece);
        if (at + sizeof(cut) <= size)
            cut_at = at;
        if (n >= size - at) {
            at = cut_at;
            if (at + sizeof(cut) <= size) {
                memcpy(out + at, cut, sizeof(cut) - 1);
                at += sizeof(cut) - 1;
            }
            break;
        }
        memcpy(out + at, piece, n);
        at += n;
    }
    out[at] = '\0';
    return out;
}
