/* JSON validation against RFC 8259's corner cases and against jansson; escaping that parses back.
 */
#include "json.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool valid(const char *text)
{
    return json_valid(text, strlen(text), NULL);
}

static void accepts(void **state)
{
    static const char *const good[] = {
        "{}",
        "[]",
        "0",
        "-0",
        "1",
        "-1",
        "10",
        "1.5",
        "1e5",
        "1E+5",
        "1e-5",
        "0.0e0",
        "-0.0",
        "1e999",
        "true",
        "false",
        "null",
        "\"\"",
        "\"a\"",
        " 1 ",
        "\t\r\n{}\n",
        "[1,2,3]",
        "[[],{},[[]]]",
        "{\"a\":1}",
        "{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":\"e\"}",
        "{\"\":0}",
        "{\"a\":1,\"a\":2}",
        "[ 1 , 2 ]",
        "{ \"a\" : 1 , \"b\" : [ ] }",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83C\\udf89\"",
        "\"\\ud800\"",
        "\"\x7F\"",
        "\"käse 日本 🎉\"",
        "\"\xE2\x80\xA8\"",
        "\"/\"",
        "[true,false,null]",
        "123456789012345678901234567890",
        "[[[[[[[[[[1]]]]]]]]]]",
        "\"0123456789abcdef\"",
        "\"01234567\\n89abcdef\"",
        "[\"a\",\"b\"]",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!valid(good[i]))
            fail_msg("refused: %s", good[i]);
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "\n",
        "{",
        "}",
        "[",
        "]",
        "[}",
        "{]",
        "{}}",
        "[]]",
        "{} {}",
        "1 2",
        "[1,]",
        "[,1]",
        "[1,,2]",
        "[1 2]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\" 1}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1,,\"b\":2}",
        "{null:1}",
        "'a'",
        "\"",
        "\"a",
        "a\"",
        "\"\\\"",
        "\"\\a\"",
        "\"\\u12\"",
        "\"\\u123g\"",
        "\"\\",
        "\"\\u",
        "\"\\U0041\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"\x01\"",
        "\"0123456\x1F"
        "abc\"",
        "+1",
        "-",
        "01",
        "-01",
        "00",
        "1.",
        ".5",
        "1.e5",
        "1e",
        "1e+",
        "1e1.5",
        "0x10",
        "1_000",
        "NaN",
        "Infinity",
        "-Infinity",
        "tru",
        "truE",
        "True",
        "nul",
        "nulll",
        "falsee",
        "truefalse",
        "// c\n1",
        "1 // c",
        "/**/1",
        "\xEF\xBB\xBF{}",
        "\"\xFF\"",
        "\"\xC0\x80\"",
        "\"\xED\xA0\x80\"",
        "\"\xF4\x90\x80\x80\"",
        "\"\xC3\"",
        "\"\xE2\x82\"",
        "\xC3\xA4",
        "\v1",
        "\f1",
        "1\v",
        "\xC2\xA0"
        "1",
        "[1]x",
        "undefined",
        "{\"a\":1}]",
        "[{]}",
        "\"abcdefg\xC3\"",
        "[1;2]",
        "{\"a\"=1}",
        ",",
        ":",
        "\\",
        "-\"a\"",
        "- 1",
        "1 .5",
        "[\"a]",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (valid(bad[i]))
            fail_msg("accepted: %s", bad[i]);
    assert_false(json_valid("\0", 1, NULL));
    assert_false(json_valid("1\0", 2, NULL));
    assert_false(json_valid("\"\0\"", 3, NULL));
    assert_false(json_valid("\"a\\\0\"", 5, NULL));
    assert_false(json_valid(NULL, 0, NULL));
}

/* No prefix of these is JSON itself, and nothing is read beyond the end. */
static void every_prefix_is_refused(void **state)
{
    const char *text =
        "{\"key\":[1.5e+3,\"string \\u00e4 \xC3\xA4 \\n\",true,false,null,{}],\"b\":\"x\"}";
    size_t len = strlen(text);
    for (size_t n = 0; n <= len; n++) {
        char *exact = malloc(n + 1);
        assert_non_null(exact);
        memcpy(exact, text, n);
        exact[n] = '"'; /* must not be looked at */
        assert_int_equal(json_valid(exact, n, NULL), n == len);
        free(exact);
    }
}

static void depth_is_limited(void **state)
{
    char text[4 * JSON_DEPTH_MAX + 8];
    for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(json_valid(text, 2 * depth, NULL), depth <= JSON_DEPTH_MAX);
    }
    /* objects and arrays in turns: the bits of 512 levels */
    size_t len = 0;
    for (size_t i = 0; i < JSON_DEPTH_MAX / 2; i++) {
        memcpy(text + len, "[{\"\":", 5);
        len += 5;
    }
    assert_true(len < sizeof(text));
    char *whole = malloc(len + 1 + JSON_DEPTH_MAX);
    assert_non_null(whole);
    memcpy(whole, text, len);
    whole[len++] = '1';
    for (size_t i = 0; i < JSON_DEPTH_MAX / 2; i++) {
        whole[len++] = '}';
        whole[len++] = ']';
    }
    assert_true(json_valid(whole, len, NULL));
    whole[len - 1] = '}';
    assert_false(json_valid(whole, len, NULL));
    free(whole);
}

static void tells_line_ends_between_tokens(void **state)
{
    static const struct {
        const char *text;
        bool newline;
    } cases[] = {
        { "{}", false },         { "{\n}", true },        { "\n1", true },
        { "1\r", true },         { "[1,\r\n2]", true },   { "\"\\n\\r\"", false },
        { "{\"a\"\n:1}", true }, { "{\"a\":\n1}", true }, { " [ 1 ]\t", false },
        { "not json\n", false }, { "[\n", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool newline = !cases[i].newline;
        (void)json_valid(cases[i].text, strlen(cases[i].text), &newline);
        assert_int_equal(newline, cases[i].newline);
    }
}

/* jansson knows what JSON is, except that it also refuses numbers it can't hold. */
static bool jansson_accepts(const char *text, size_t len, enum json_error_code *ret_why)
{
    json_error_t error;
    json_t *json = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    *ret_why = json ? json_error_unknown : json_error_code(&error);
    json_decref(json);
    return json != NULL;
}

static void agrees_with_jansson_on_mutations(void **state)
{
    static const char *const seeds[] = {
        "{\"op\":\"x\",\"row\":{\"id\":42,\"t\":\"\\u00e4\\n\"},\"n\":[-2.5e3,null,false]}",
        "[\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x8E\x89\",{\"a\":{\"b\":{}}},[],0,true]",
        " { \"a\" : [ 1 , 2 , { } ] , \"b\" : \"c\" } ",
    };
    static const char alphabet[] = "{}[]\",:\\0123456789.eE+-truefalsn u\n\t\x80\xC3\xFF/";
    uint64_t seed = 7;
    for (unsigned round = 0; round < 60000; round++) {
        char text[128];
        const char *from = seeds[round % 3];
        size_t len = strlen(from);
        memcpy(text, from, len);
        for (unsigned k = 0; k <= round % 3; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            text[(seed >> 33) % len] = alphabet[(seed >> 20) % (sizeof(alphabet) - 1)];
        }
        enum json_error_code why;
        bool theirs = jansson_accepts(text, len, &why), ours = json_valid(text, len, NULL);
        if (ours != theirs && !(ours && why == json_error_numeric_overflow))
            fail_msg("we say %d, jansson %d: %.*s", ours, theirs, (int)len, text);
    }
}

/* ---- writing ---- */

static void assert_written(const void *data, size_t len, const char *expected)
{
    struct buf b = buf_make(4096);
    assert_int_equal(json_append_string(&b, data, len), 0);
    assert_int_equal(b.len, strlen(expected));
    assert_memory_equal(b.data, expected, b.len);
    assert_true(json_valid(b.data, b.len, NULL));
    buf_done(&b);
}

static void writes_strings(void **state)
{
    assert_written("", 0, "\"\"");
    assert_written(NULL, 0, "\"\"");
    assert_written("plain text, long enough for words", 33,
                   "\"plain text, long enough for words\"");
    assert_written("q\" b\\ /", 7, "\"q\\\" b\\\\ /\"");
    assert_written("\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\"");
    assert_written("\0\x01\x1F\x7F", 4, "\"\\u0000\\u0001\\u001f\x7F\"");
    assert_written("ä日🎉\xE2\x80\xA8", 12, "\"ä日🎉\xE2\x80\xA8\"");
    assert_written("a\xFF\xC3", 3, "\"a\xEF\xBF\xBD\xEF\xBF\xBD\"");
    assert_written("ä\x80ö", 5, "\"ä\xEF\xBF\xBDö\"");
    assert_written("\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

static void what_is_written_reads_back(void **state)
{
    uint8_t text[256];
    for (size_t i = 0; i < 128; i++)
        text[i] = (uint8_t)i;
    for (size_t at = 0; at < 64; at++) { /* every byte at every place in a word */
        struct buf b = buf_make(4096);
        assert_int_equal(json_append_string(&b, text + at, 128 - at), 0);
        json_t *json = json_loadb((char *)b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(json);
        assert_int_equal(json_string_length(json), 128 - at);
        assert_memory_equal(json_string_value(json), text + at, 128 - at);
        json_decref(json);
        buf_done(&b);
    }
}

static void what_does_not_fit_is_not_begun(void **state)
{
    for (size_t max = 0; max < 30; max++) {
        struct buf b = buf_make(max);
        const char *text = "abcdefgh\n\x01ä\xFFz";
        int r = json_append_string(&b, text, strlen(text));
        assert_true(r == 0 || (r == -EMSGSIZE && b.len == 0 && b.failed == -EMSGSIZE));
        assert_int_equal(r == 0, max >= 24);
        buf_done(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts),
        cmocka_unit_test(refuses),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(tells_line_ends_between_tokens),
        cmocka_unit_test(agrees_with_jansson_on_mutations),
        cmocka_unit_test(writes_strings),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(what_does_not_fit_is_not_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
