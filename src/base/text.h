/* Text from outside: UTF-8, base64, numbers with units, percent-encoding, escaping for logs. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whole text at once. Strict: no surrogates, no overlong forms, <= U+10FFFF (RFC 3629). */
bool utf8_valid(const void *data, size_t len);

/* Length (1–4) of the valid character that text of len ≥ 1 bytes begins with, 0 if there is none.
 */
size_t utf8_char(const uint8_t *p, size_t len);

/* Incremental, for fragmented messages: state starts as 0; returns the new state, UTF8_REJECT for
 * bytes that can't begin or continue valid text (fails as early as possible). 0 = complete; states
 * of unfinished characters are < 256. */
#define UTF8_REJECT UINT32_MAX
uint32_t utf8_feed(uint32_t state, const void *data, size_t len);

size_t base64_encoded_len(size_t len);                         /* with padding, no NUL */
size_t base64_encode(char *out, const void *data, size_t len); /* bytes written, no NUL */
/* Returns the decoded length or -EINVAL. Accepts padding or none, and any bits in the unused part
 * of the last character (RFC 4648 3.5); out holds len / 4 * 3 + 3. */
int64_t base64_decode(void *out, const char *text, size_t len);

/* "64M" "64MiB" "128K" "1G" "512" → bytes; "30s" "10m" "250ms" "1h" "2d" → ms (a bare number is
 * refused for durations except 0). Returns 0 or -EINVAL. Whole string. */
int parse_size(const char *text, uint64_t *ret);
int parse_duration_ms(const char *text, uint64_t *ret);
int parse_uint(const char *text, uint64_t max, uint64_t *ret);

/* Decodes %XX (plus_is_space: also '+'). Returns bytes written to out (≤ len), or -EINVAL for a
 * malformed escape. out may be the input. */
int64_t percent_decode(char *out, const char *text, size_t len, bool plus_is_space);

/* Writes untrusted text for a log line: printable ASCII and UTF-8 stay, quotes, backslashes and
 * control bytes are escaped, cut to size with "…". Always terminated. Returns out. */
char *text_escape(char *out, size_t size, const void *data, size_t len);

#endif
