/* UTF-8, base64, percent-encoding, numbers and escaping: each against itself done another way. */
#include "fuzz.h"
#include "text.h"

#include <errno.h>
#include <string.h>

static void check_utf8(const uint8_t *data, size_t size)
{
    size_t valid = 0, n = 1;
    while (valid < size && (n = utf8_char(data + valid, size - valid)) > 0)
        valid += n;
    require(utf8_valid(data, size) == (valid == size));
    require(utf8_feed(0, data, valid) == 0);
    uint32_t state = 0;
    for (size_t i = 0; i < size; i++) {
        state = utf8_feed(state, data + i, 1);
        require(state == UTF8_REJECT || state < 256);
        require(i >= valid || state != UTF8_REJECT);
    }
    require((state == 0) == (valid == size));
    require(utf8_feed(0, data, size) == state);
}

static void check_base64(const uint8_t *data, size_t size)
{
    size_t len = base64_encoded_len(size);
    char *text = copy_of("", 0, len);
    uint8_t *back = copy_of("", 0, len / 4 * 3 + 3);
    require(base64_encode(text, data, size) == len);
    require(base64_decode(back, text, len) == (int64_t)size);
    require(memcmp(back, data, size) == 0);
    free(back);
    free(text);
    back = copy_of("", 0, size / 4 * 3 + 3);
    int64_t n = base64_decode(back, (const char *)data, size);
    require(n == -EINVAL || (n >= 0 && (size_t)n <= size / 4 * 3 + 2));
    free(back);
}

static void check_percent(const uint8_t *data, size_t size)
{
    char *in_place = copy_of(data, size, 0), *out = copy_of("", 0, size);
    int64_t n = percent_decode(out, (const char *)data, size, size % 2);
    int64_t m = percent_decode(in_place, in_place, size, size % 2);
    require(n == m && (n == -EINVAL || (n >= 0 && (size_t)n <= size)));
    require(n <= 0 || memcmp(in_place, out, (size_t)n) == 0);
    free(in_place);
    free(out);
}

static void check_numbers(const uint8_t *data, size_t size)
{
    char *text = copy_of(data, size, 1);
    uint64_t n = 0;
    text[size] = '\0';
    if (parse_uint(text, 1000, &n) == 0)
        require(n <= 1000);
    (void)parse_size(text, &n);
    (void)parse_duration_ms(text, &n);
    free(text);
}

static void check_escape(const uint8_t *data, size_t size)
{
    for (size_t room = 1; room < 2 * size + 8; room += size / 8 + 1) {
        char *out = copy_of("", 0, room);
        require(text_escape(out, room, data, size) == out);
        size_t len = strlen(out);
        require(len < room && utf8_valid(out, len));
        for (size_t i = 0; i < len; i++)
            require((unsigned char)out[i] >= 0x20 && out[i] != 0x7F);
        free(out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_utf8(data, size);
    check_base64(data, size);
    check_percent(data, size);
    check_numbers(data, size);
    check_escape(data, size);
    return 0;
}
