/* Text from outside, each function against all that is bad. */
#include "text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- UTF-8 ---- */

/* A second opinion: decodes by the definition. */
static bool utf8_by_definition(const uint8_t *p, size_t len)
{
    static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
    for (size_t i = 0; i < len;) {
        size_t n = p[i] < 0x80           ? 1
                   : (p[i] >> 5) == 6    ? 2
                   : (p[i] >> 4) == 0xE  ? 3
                   : (p[i] >> 3) == 0x1E ? 4
                                         : 0;
        if (n == 0 || len - i < n)
            return false;
        uint32_t c = n == 1 ? p[i] : p[i] & (0x7Fu >> n);
        for (size_t k = 1; k < n; k++) {
            if (p[i + k] >> 6 != 2)
                return false;
            c = c << 6 | (p[i + k] & 0x3F);
        }
        if (c < smallest[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
            return false;
        i += n;
    }
    return true;
}

static void utf8_agrees_with_the_definition(void **state)
{
    uint8_t text[4];
    for (uint32_t lead = 0; lead < 256; lead++)
        for (uint32_t second = 0; second < 256; second++)
            for (uint32_t rest = 0; rest < 16; rest++) {
                static const uint8_t edges[] = { 0x41, 0x7F, 0x80, 0xBF };
                text[0] = (uint8_t)lead;
                text[1] = (uint8_t)second;
                text[2] = edges[rest % 4];
                text[3] = edges[rest / 4];
                for (size_t len = 0; len <= 4; len++)
                    assert_int_equal(utf8_valid(text, len), utf8_by_definition(text, len));
                size_t n = utf8_char(text, 4);
                assert_true(n == 0 || utf8_by_definition(text, n));
                for (size_t len = 1; n == 0 && len <= 4; len++)
                    assert_false(utf8_by_definition(text, len));
            }
}

static void utf8_is_the_same_in_pieces(void **state)
{
    const char *text = "ascii äöü κόσμος 日本語 🎉 and more ascii to fill words ☃";
    size_t len = strlen(text);
    for (size_t cut = 0; cut <= len; cut++) {
        uint32_t half = utf8_feed(0, text, cut);
        assert_true(half < 256);
        assert_int_equal(utf8_feed(half, text + cut, len - cut), 0);
    }
    uint32_t one = 0;
    for (size_t i = 0; i < len; i++)
        one = utf8_feed(one, text + i, 1);
    assert_int_equal(one, 0);
}

static void utf8_fails_at_the_first_wrong_byte(void **state)
{
    static const struct {
        const char *text;
        size_t wrong; /* index of the byte that can't be */
    } cases[] = {
        { "abc\x80", 3 },      { "\xC0", 0 },     { "\xC1", 0 },      { "\xE0\x9F", 1 },
        { "\xED\xA0", 1 },     { "\xF0\x8F", 1 }, { "\xF4\x90", 1 },  { "\xF5", 0 },
        { "\xFF", 0 },         { "\xC3(", 1 },    { "\xE2\x82(", 2 }, { "\xF0\x9F\x8E(", 3 },
        { "\xF4\x8F\xC0", 2 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_not_equal(utf8_feed(0, cases[i].text, cases[i].wrong), UTF8_REJECT);
        assert_int_equal(utf8_feed(0, cases[i].text, cases[i].wrong + 1), UTF8_REJECT);
        assert_int_equal(utf8_feed(UTF8_REJECT, "a", 1), UTF8_REJECT);
    }
}

static void utf8_in_long_texts(void **state)
{
    uint8_t text[64];
    for (size_t at = 0; at < sizeof(text); at++) {
        memset(text, 'a', sizeof(text));
        assert_true(utf8_valid(text, sizeof(text)));
        text[at] = 0xFF;
        assert_false(utf8_valid(text, sizeof(text)));
    }
    assert_true(utf8_valid("", 0));
    assert_true(utf8_valid(NULL, 0));
    assert_true(utf8_valid("a\0b", 3));
}

/* ---- base64 ---- */

static void base64_vectors(void **state)
{
    static const char *const vectors[][2] = {
        /* RFC 4648 10 */
        { "", "" },
        { "f", "Zg==" },
        { "fo", "Zm8=" },
        { "foo", "Zm9v" },
        { "foob", "Zm9vYg==" },
        { "fooba", "Zm9vYmE=" },
        { "foobar", "Zm9vYmFy" },
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        const char *plain = vectors[i][0], *coded = vectors[i][1];
        char out[16];
        assert_int_equal(base64_encoded_len(strlen(plain)), strlen(coded));
        assert_int_equal(base64_encode(out, plain, strlen(plain)), strlen(coded));
        assert_memory_equal(out, coded, strlen(coded));
        assert_int_equal(base64_decode(out, coded, strlen(coded)), strlen(plain));
        assert_memory_equal(out, plain, strlen(plain));
        size_t bare = strcspn(coded, "=");
        assert_int_equal(base64_decode(out, coded, bare), strlen(plain));
    }
}

static void base64_round_trips(void **state)
{
    uint8_t data[200], back[300];
    char text[300];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 37 + (i >> 3));
    for (size_t len = 0; len <= sizeof(data); len++) {
        size_t n = base64_encode(text, data, len);
        assert_int_equal(n, base64_encoded_len(len));
        assert_int_equal(base64_decode(back, text, n), len);
        assert_memory_equal(back, data, len);
    }
}

static void base64_refuses(void **state)
{
    static const char *const bad[] = {
        "A",     "AAAAA",    "A===", "====",  "=",    "AA=",   "AA=A",   "A=AA",    "=AAA",
        "AAA=A", "AA==AA==", "AA A", "AAA\n", "AA-_", "AAAA=", "AAAA==", "AAA\x80", "Zm9v====",
    };
    char out[32];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(base64_decode(out, bad[i], strlen(bad[i])), -EINVAL);
    assert_int_equal(base64_decode(out, "AA\0A", 4), -EINVAL);
}

/* ---- numbers ---- */

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 },          { "512", 512 },        { "128K", 128 << 10 },
        { "64M", 64 << 20 }, { "64MiB", 64 << 20 }, { "1G", 1 << 30 },
        { "64m", 64 << 20 }, { "2T", 2ull << 40 },  { "18446744073709551615", UINT64_MAX },
    };
    static const char *const bad[] = { "",
                                       "M",
                                       "-1",
                                       "+1",
                                       " 1",
                                       "1 ",
                                       "1.5M",
                                       "64MB",
                                       "64Mi",
                                       "64Q",
                                       "64KK",
                                       "0x10",
                                       "18446744073709551616",
                                       "99999999999999T",
                                       "64M\n",
                                       "64iB" };
    uint64_t n;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(parse_size(good[i].text, &n), 0);
        assert_int_equal(n, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(parse_size(bad[i], &n), -EINVAL);
}

static void durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        { "0", 0 },        { "0s", 0 },       { "250ms", 250 },    { "30s", 30000 },
        { "10m", 600000 }, { "1h", 3600000 }, { "2d", 172800000 },
    };
    static const char *const bad[] = { "",
                                       "30",
                                       "s",
                                       "-1s",
                                       "1.5s",
                                       "30 s",
                                       "30S",
                                       "1w",
                                       "1hm",
                                       "1h30m",
                                       "10min",
                                       "30s ",
                                       "999999999999999999d" };
    uint64_t n;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(parse_duration_ms(good[i].text, &n), 0);
        assert_int_equal(n, good[i].ms);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(parse_duration_ms(bad[i], &n), -EINVAL);
}

static void whole_numbers(void **state)
{
    static const char *const bad[] = { "",    "-1",   "+1",
                                       " 1",  "1 ",   "1x",
                                       "0x1", "1001", "18446744073709551616" };
    uint64_t n;
    assert_int_equal(parse_uint("0", 1000, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(parse_uint("1000", 1000, &n), 0);
    assert_int_equal(n, 1000);
    assert_int_equal(parse_uint("007", 1000, &n), 0);
    assert_int_equal(n, 7);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(parse_uint(bad[i], 1000, &n), -EINVAL);
}

/* ---- percent-encoding ---- */

static void percent_decodes(void **state)
{
    static const struct {
        const char *text, *plain;
        bool plus;
    } good[] = {
        { "", "", false },
        { "todos", "todos", false },
        { "a%20b", "a b", false },
        { "a+b", "a+b", false },
        { "a+b", "a b", true },
        { "%41%5a%C3%a4", "AZ\xC3\xA4", true },
        { "%2525", "%25", false },
        { "%2B", "+", true },
        { "user:42/x", "user:42/x", false },
    };
    char out[32];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int64_t n = percent_decode(out, good[i].text, strlen(good[i].text), good[i].plus);
        assert_int_equal(n, strlen(good[i].plain));
        assert_memory_equal(out, good[i].plain, (size_t)n);
    }
    assert_int_equal(percent_decode(out, "a%00b", 5, false), 3);
    assert_memory_equal(out, "a\0b", 3);
}

static void percent_decodes_in_place(void **state)
{
    char text[] = "%61%62c%64";
    assert_int_equal(percent_decode(text, text, strlen(text), false), 4);
    assert_memory_equal(text, "abcd", 4);
}

static void percent_refuses(void **state)
{
    static const char *const bad[] = { "%",   "%4",   "a%",   "a%4", "%zz", "%4g",
                                       "%g4", "%%41", "% 41", "%-1", "%+1" };
    char out[32];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(percent_decode(out, bad[i], strlen(bad[i]), false), -EINVAL);
    assert_int_equal(percent_decode(out, "%41", 2, false), -EINVAL); /* the digits are another's */
}

/* ---- log lines ---- */

static void escapes_what_could_forge_a_line(void **state)
{
    static const struct {
        const char *text, *escaped;
    } cases[] = {
        { "plain", "plain" },
        { "", "" },
        { "say \"hi\"", "say \\\"hi\\\"" },
        { "back\\slash", "back\\\\slash" },
        { "two\nlines\r\n", "two\\nlines\\r\\n" },
        { "tab\t", "tab\\t" },
        { "\x1B[31mred", "\\x1b[31mred" },
        { "del\x7F", "del\\x7f" },
        { "käse 🎉", "käse 🎉" },
        { "bad \xFF\xC3", "bad \\xff\\xc3" },
        { "c1 \xC2\x9B"
          "31m",
          "c1 \\xc2\\x9b31m" },
    };
    char out[64];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_ptr_equal(text_escape(out, sizeof(out), cases[i].text, strlen(cases[i].text)), out);
        assert_string_equal(out, cases[i].escaped);
    }
    assert_string_equal(text_escape(out, sizeof(out), "a\0b", 3), "a\\x00b");
}

static void cuts_to_size_at_a_character(void **state)
{
    char out[64];
    assert_string_equal(text_escape(out, 6, "hello", 5), "hello");
    assert_string_equal(text_escape(out, 6, "hello!", 6), "he…");
    assert_string_equal(text_escape(out, 4, "hello", 5), "…");
    assert_string_equal(text_escape(out, 3, "hello", 5), "");
    assert_string_equal(text_escape(out, 1, "hello", 5), "");
    assert_string_equal(text_escape(out, 9, "\n\n\n\n\n", 5), "\\n\\n…");
    assert_string_equal(text_escape(out, 4, NULL, 0), "");
    out[0] = 'x';
    text_escape(out, 0, "hello", 5);
    assert_int_equal(out[0], 'x');
    const char *text = "aä\n\"🎉\x01zzzzzzzzzzz";
    for (size_t size = 1; size < sizeof(out); size++) {
        char *exact = malloc(size); /* so that the sanitizer sees an overrun */
        assert_non_null(exact);
        text_escape(exact, size, text, strlen(text));
        assert_true(strlen(exact) < size);
        assert_true(utf8_valid(exact, strlen(exact)));
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_agrees_with_the_definition),
        cmocka_unit_test(utf8_is_the_same_in_pieces),
        cmocka_unit_test(utf8_fails_at_the_first_wrong_byte),
        cmocka_unit_test(utf8_in_long_texts),
        cmocka_unit_test(base64_vectors),
        cmocka_unit_test(base64_round_trips),
        cmocka_unit_test(base64_refuses),
        cmocka_unit_test(sizes),
        cmocka_unit_test(durations),
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(percent_decodes),
        cmocka_unit_test(percent_decodes_in_place),
        cmocka_unit_test(percent_refuses),
        cmocka_unit_test(escapes_what_could_forge_a_line),
        cmocka_unit_test(cuts_to_size_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
