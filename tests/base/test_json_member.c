/* The raw text of a member: found as it was written, at the top level only. */
#include "json_member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* `expected` NULL: there is none. */
static void check(const char *json, const char *key, const char *expected)
{
    size_t len = strlen(json), found_len = 0;
    const char *found = NULL;
    char *exact = malloc(len); /* so that the sanitizer sees reads beyond */
    assert_non_null(exact);
    memcpy(exact, json, len);
    bool there = json_member(exact, len, key, &found, &found_len);
    assert_int_equal(there, expected != NULL);
    if (expected) {
        assert_int_equal(found_len, strlen(expected));
        assert_memory_equal(found, expected, found_len);
    }
    free(exact);
}

static void finds_every_kind_of_value(void **state)
{
    const char *json = " { \"a\" : 1 , \"b\":\"x\\\"}]\", \"c\":[1,{\"z\":2}] ,\"d\":{ \"a\" : 9 },"
                       "\"e\":null,\"f\":-1.5e3,\"g\":\"\",\"h\":[],\"i\":true } ";
    check(json, "a", "1");
    check(json, "b", "\"x\\\"}]\"");
    check(json, "c", "[1,{\"z\":2}]");
    check(json, "d", "{ \"a\" : 9 }");
    check(json, "e", "null");
    check(json, "f", "-1.5e3");
    check(json, "g", "\"\"");
    check(json, "h", "[]");
    check(json, "i", "true");
}

static void finds_nothing_else(void **state)
{
    check("{}", "a", NULL);
    check(" { } ", "a", NULL);
    check("{\"ab\":1,\"\":2}", "a", NULL);
    check("{\"a\":{\"b\":1}}", "b", NULL);
    check("{\"a\":[\"b\",\"b\"]}", "b", NULL);
    check("{\"x\":\"a\",\"y\":\"\\\"a\\\":1\"}", "a", NULL);
    check("{\"\":1}", "", "1");
}

static void white_space_is_no_part_of_it(void **state)
{
    check("{\"a\"\n:\t[ 1 , 2 ]\r\n}", "a", "[ 1 , 2 ]");
    check("{\"a\": 1\n,\"b\":2 \t}", "a", "1");
    check("{\"a\": 1\n,\"b\":2 \t}", "b", "2");
}

static void the_first_of_equal_keys(void **state)
{
    check("{\"a\":1,\"a\":2}", "a", "1");
}

/* All names and values, as "name=value;…"; `exact` ends where its memory ends. */
static void walk(const char *json, bool members, const char *expected)
{
    size_t len = strlen(json);
    char *exact = malloc(len), found[256] = "", *at = found;
    struct json_walk walk;
    struct json_text name = { "", 0 }, value;
    memcpy(exact, json, len);
    assert_true(json_walk_begin(&walk, (struct json_text){ exact, len }));
    while (members ? json_walk_member(&walk, &name, &value) : json_walk_element(&walk, &value))
        at += sprintf(at, "%.*s%s%.*s;", (int)name.len, name.data, members ? "=" : "",
                      (int)value.len, value.data);
    assert_string_equal(found, expected);
    assert_false(members ? json_walk_member(&walk, &name, &value)
                         : json_walk_element(&walk, &value));
    free(exact);
}

static void walks_all_there_are(void **state)
{
    walk("[1,[2,3] , {\"a\":4},\"]\" ]", false, "1;[2,3];{\"a\":4};\"]\";");
    walk(" [ ] ", false, "");
    walk("[[]]", false, "[];");
    walk("{\"a\":1,\"b\" : { \"c\":[2] } ,\"a\":\"}\"}", true, "a=1;b={ \"c\":[2] };a=\"}\";");
    walk("{\"\\\"\":true}", true, "\\\"=true;");
    walk("{ }", true, "");
}

static void walks_nothing_else(void **state)
{
    struct json_walk walk;
    for (const char *const *json = (const char *const[]){ "", " ", "1", "\"[\"", "null", NULL };
         *json; json++)
        assert_false(json_walk_begin(&walk, (struct json_text){ *json, strlen(*json) }));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_all_there_are),          cmocka_unit_test(walks_nothing_else),
        cmocka_unit_test(finds_every_kind_of_value),    cmocka_unit_test(finds_nothing_else),
        cmocka_unit_test(white_space_is_no_part_of_it), cmocka_unit_test(the_first_of_equal_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
