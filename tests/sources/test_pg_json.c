/* Postgres's text of a value as JSON: scalars, times, arrays, and what is none of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_json.h"

#include <errno.h>

#include <string.h>

static char *json_of(struct pg_json_type type, const char *text)
{
    static char out[512];
    struct buf b = buf_make(sizeof out - 1);
    assert_int_equal(pg_json_write(&b, type, text, strlen(text)), 0);
    memcpy(out, b.data, b.len);
    out[b.len] = '\0';
    buf_done(&b);
    return out;
}

static char *text_of(struct pg_json_type type, const char *text)
{
    static char out[512];
    struct buf b = buf_make(sizeof out - 1);
    assert_int_equal(pg_json_write_text(&b, type, text, strlen(text)), 0);
    if (b.len > 0)
        memcpy(out, b.data, b.len);
    out[b.len] = '\0';
    buf_done(&b);
    return out;
}

enum { BOOL = 16, INT4 = 23, TEXT = 25, JSON = 114, FLOAT8 = 701, TIMESTAMP = 1114 };
enum { TIMESTAMPTZ = 1184, NUMERIC = 1700, JSONB = 3802 };
enum { BOOLS = 1000, INT4S = 1007, TEXTS = 1009, BOXES = 1020, JSONBS = 3807, TIMESTAMPTZS = 1185 };

static void expect(uint32_t oid, const char *text, const char *json)
{
    assert_string_equal(json_of(pg_json_type(oid), text), json);
}

static void scalars(void **state)
{
    expect(BOOL, "t", "true");
    expect(BOOL, "f", "false");
    expect(BOOL, "x", "\"x\"");
    expect(INT4, "-7", "-7");
    expect(NUMERIC, "12345678901234567890.1200", "12345678901234567890.1200");
    expect(FLOAT8, "1e-07", "1e-07");
    expect(FLOAT8, "NaN", "\"NaN\"");
    expect(FLOAT8, "-Infinity", "\"-Infinity\"");
    expect(NUMERIC, "", "\"\"");
    expect(NUMERIC, "1-2", "\"1-2\"");
    expect(TEXT, "a \"b\" \\ \n", "\"a \\\"b\\\" \\\\ \\n\"");
    expect(JSON, "{\"a\" : [1]}", "{\"a\" : [1]}");
    expect(JSONB, "null", "null");
    expect(JSONB, "{broken", "\"{broken\"");
    expect(99999, "7", "\"7\""); /* a type of the database's own */
}

static void times(void **state)
{
    expect(TIMESTAMP, "2026-11-22 08:15:02.123", "\"2026-11-22T08:15:02.123\"");
    expect(TIMESTAMPTZ, "2026-11-22 08:15:02+01", "\"2026-11-22T08:15:02+01:00\"");
    expect(TIMESTAMPTZ, "2026-11-22 08:15:02-03:30", "\"2026-11-22T08:15:02-03:30\"");
    expect(TIMESTAMPTZ, "0044-03-15 10:00:00+00 BC", "\"0044-03-15T10:00:00+00:00 BC\"");
    expect(TIMESTAMPTZ, "1890-01-01 00:00:00+00:53:28", "\"1890-01-01T00:00:00+00:53:28\"");
    expect(TIMESTAMP, "0044-03-15 10:00:00 BC", "\"0044-03-15T10:00:00 BC\"");
    expect(TIMESTAMP, "infinity", "\"infinity\"");
}

static void arrays(void **state)
{
    expect(INT4S, "{}", "[]");
    expect(INT4S, "{1,NULL,-3}", "[1,null,-3]");
    expect(INT4S, "{{1,2},{3,4}}", "[[1,2],[3,4]]");
    expect(INT4S, "[0:1][2:3]={{1,2},{3,4}}", "[[1,2],[3,4]]");
    expect(BOOLS, "{t,f,NULL}", "[true,false,null]");
    expect(TEXTS, "{a,\"b \\\"c\\\" \\\\ d\",\"NULL\",NULL,\"\",\"{,}\"}",
           "[\"a\",\"b \\\"c\\\" \\\\ d\",\"NULL\",null,\"\",\"{,}\"]");
    expect(JSONBS, "{\"{\\\"k\\\": 1}\",\"[2]\"}", "[{\"k\": 1},[2]]");
    expect(BOXES, "{(3,4),(1,2);(1,1),(0,0)}", "[\"(3,4),(1,2)\",\"(1,1),(0,0)\"]");
    expect(TIMESTAMPTZS, "{\"2026-11-22 08:15:02+00\"}", "[\"2026-11-22T08:15:02+00:00\"]");
}

static void what_is_no_array_becomes_a_string(void **state)
{
    static const char *const texts[] = {
        "",    "{",   "}",    "{1",  "{1,",  "{1}}", "{}}", "{{1}",  "[0:1]",          "[0:1]=",
        "1,2", "{,}", "{1,}", "{{}", "{\"a", "{1}x", "{\\", "{\"\\", "{{{{{{{1}}}}}}}"
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *json = json_of(pg_json_type(INT4S), texts[i]);
        if (json[0] != '"')
            fail_msg("%s became %s", texts[i], json);
    }
}

static void names_of_types(void **state)
{
    assert_string_equal(json_of(pg_json_type_named("", "int4"), "5"), "5"); /* of a domain */
    assert_string_equal(json_of(pg_json_type_named("pg_catalog", "_int4"), "{5}"), "[5]");
    assert_string_equal(json_of(pg_json_type_named("public", "int4"), "5"), "\"5\"");
    assert_string_equal(json_of(pg_json_type_named("public", "_mood"), "{sad,NULL}"),
                        "[\"sad\",null]");
}

static void text_for_channels(void **state)
{
    assert_string_equal(text_of(pg_json_type(TEXT), "a \"b\""), "a \"b\"");
    assert_string_equal(text_of(pg_json_type(TEXT), ""), "");
    assert_string_equal(text_of(pg_json_type(BOOL), "t"), "true");
    assert_string_equal(text_of(pg_json_type(INT4), "7"), "7");
    assert_string_equal(text_of(pg_json_type(JSONB), "\"a\\u00fc\""), "a\xc3\xbc");
    assert_string_equal(text_of(pg_json_type(JSONB), "[1]"), "[1]");
    assert_string_equal(text_of(pg_json_type(TIMESTAMP), "2026-11-22 08:15:02"),
                        "2026-11-22T08:15:02");
}

static void what_does_not_fit_is_said(void **state)
{
    struct buf b = buf_make(8);
    assert_int_equal(pg_json_write(&b, pg_json_type(TEXTS), "{aaaa,bbbb}", 11), -EMSGSIZE);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),
        cmocka_unit_test(times),
        cmocka_unit_test(arrays),
        cmocka_unit_test(what_is_no_array_becomes_a_string),
        cmocka_unit_test(names_of_types),
        cmocka_unit_test(text_for_channels),
        cmocka_unit_test(what_does_not_fit_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
