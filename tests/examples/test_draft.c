/* What clients say of an item. */
#include "draft.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ALL (DRAFT_ID | DRAFT_TITLE | DRAFT_COMPLETED | DRAFT_CREATED)

static char why[256];

static struct draft read_ok(const char *body, unsigned allowed, unsigned needed)
{
    struct draft draft;
    int r = draft_read(&draft, body, strlen(body), allowed, needed, why, sizeof(why));
    if (r != 0)
        fail_msg("%s: %s", body, why);
    return draft;
}

static void refused(const char *body, unsigned allowed, unsigned needed, const char *sentence)
{
    struct draft draft;
    why[0] = '\0';
    assert_int_equal(draft_read(&draft, body, strlen(body), allowed, needed, why, sizeof(why)),
                     -EINVAL);
    draft_done(&draft);
    if (!strstr(why, sentence))
        fail_msg("%.100s: not \"%s\" but \"%s\"", body, sentence, why);
}

static void takes_members(void **state)
{
    struct draft draft = read_ok("{\"id\":\"a-Z_9\",\"title\":\"tea\",\"completed\":true,"
                                 "\"created\":1795334400123}",
                                 ALL, DRAFT_TITLE);
    assert_string_equal(draft.id, "a-Z_9");
    assert_string_equal(draft.title, "tea");
    assert_int_equal(draft.completed, 1);
    assert_int_equal(draft.created, 1795334400123);
    draft_done(&draft);
}

static void keeps_what_is_not_said_apart(void **state)
{
    struct draft draft = read_ok(" {} ", DRAFT_TITLE | DRAFT_COMPLETED, 0);
    assert_string_equal(draft.id, "");
    assert_null(draft.title);
    assert_int_equal(draft.completed, -1);
    assert_int_equal(draft.created, -1);
    draft_done(&draft);
    draft = read_ok("{\"completed\":false}", DRAFT_COMPLETED, DRAFT_COMPLETED);
    assert_int_equal(draft.completed, 0);
    draft_done(&draft);
}

static void trims_titles(void **state)
{
    static const char *const cases[][2] = {
        { " tea ", "tea" },
        { "\\t\\n\\u000b\\f\\rtea\\r\\n", "tea" },
        { "\u00a0\u2003\u3000\ufeff\u2028tea for  two \u205f\u1680\xc2\x85", "tea for  two" },
        { "a\u00a0b", "a\u00a0b" },
        { "\u200btea", "\u200btea" }, /* no white space to Unicode */
        { "👩‍👩‍👧 \u00e9", "👩‍👩‍👧 \u00e9" },
        { "<b>&amp;\\\"", "<b>&amp;\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"title\":\"%s\"}", cases[i][0]);
        struct draft draft = read_ok(body, ALL, DRAFT_TITLE);
        assert_string_equal(draft.title, cases[i][1]);
        draft_done(&draft);
    }
}

/* A title of n characters, each `character`, between white space. */
static char *body_with(const char *character, size_t n)
{
    static const char begin[] = "{\"title\":\" ", end[] = " \"}";
    size_t len = strlen(character), size = sizeof(begin) + n * len + sizeof(end);
    char *body = malloc(size);
    assert_non_null(body);
    memcpy(body, begin, sizeof(begin) - 1);
    char *at = body + sizeof(begin) - 1;
    for (size_t i = 0; i < n; i++, at += len)
        memcpy(at, character, len);
    memcpy(at, end, sizeof(end));
    return body;
}

static void counts_characters(void **state)
{
    static const char *const characters[] = { "a", "ä", "€", "🍵" };
    for (size_t i = 0; i < 4; i++) {
        char *body = body_with(characters[i], TITLE_MAX);
        struct draft draft = read_ok(body, ALL, DRAFT_TITLE);
        assert_int_equal(strlen(draft.title), TITLE_MAX * strlen(characters[i]));
        draft_done(&draft);
        free(body);
        body = body_with(characters[i], TITLE_MAX + 1);
        refused(body, ALL, DRAFT_TITLE, "10001 characters; at most 10000");
        free(body);
    }
}

static void refuses_titles(void **state)
{
    refused("{\"title\":\"\"}", ALL, DRAFT_TITLE, "at least one character");
    refused("{\"title\":\" \u3000\\n\"}", ALL, DRAFT_TITLE, "at least one character");
    refused("{\"title\":7}", ALL, DRAFT_TITLE, "\"title\" is a text");
    refused("{\"title\":null}", ALL, DRAFT_TITLE, "\"title\" is a text");
    refused("{\"title\":\"a\\u0000b\"}", ALL, DRAFT_TITLE, "not JSON");
    refused("{\"title\":\"\\ud800\"}", ALL, DRAFT_TITLE, "not JSON");
    refused("{\"title\":\"\xff\"}", ALL, DRAFT_TITLE, "not JSON");
    refused("{}", ALL, DRAFT_TITLE, "\"title\" is missing");
}

static void refuses_ids(void **state)
{
    char body[256];
    refused("{\"id\":\"\",\"title\":\"t\"}", ALL, DRAFT_TITLE, "1 to 64");
    refused("{\"id\":\"a b\",\"title\":\"t\"}", ALL, DRAFT_TITLE, "1 to 64");
    refused("{\"id\":\"a/../b\",\"title\":\"t\"}", ALL, DRAFT_TITLE, "1 to 64");
    refused("{\"id\":\"ü\",\"title\":\"t\"}", ALL, DRAFT_TITLE, "1 to 64");
    refused("{\"id\":1,\"title\":\"t\"}", ALL, DRAFT_TITLE, "\"id\" is a text");
    snprintf(body, sizeof body, "{\"id\":\"%065d\",\"title\":\"t\"}", 0);
    refused(body, ALL, DRAFT_TITLE, "1 to 64");
    snprintf(body, sizeof body, "{\"id\":\"%064d\",\"title\":\"t\"}", 0);
    struct draft draft = read_ok(body, ALL, DRAFT_TITLE);
    assert_int_equal(strlen(draft.id), 64);
    draft_done(&draft);
}

static void refuses_other_values(void **state)
{
    refused("{\"completed\":1}", ALL, 0, "true or false");
    refused("{\"completed\":null}", ALL, 0, "true or false");
    refused("{\"completed\":\"yes\"}", ALL, 0, "true or false");
    refused("{}", DRAFT_COMPLETED, DRAFT_COMPLETED, "\"completed\" is missing");
    refused("{\"created\":\"now\"}", ALL, 0, "whole number");
    refused("{\"created\":1.5}", ALL, 0, "whole number");
    refused("{\"created\":-1}", ALL, 0, "milliseconds");
    refused("{\"created\":8640000000000001}", ALL, 0, "milliseconds");
    refused("{\"titel\":\"t\"}", ALL, 0, "\"titel\" cannot be said here");
    refused("{\"title\":\"t\",\"id\":\"a\"}", DRAFT_TITLE | DRAFT_COMPLETED, 0, "\"id\" cannot");
    refused("{\"ääääääääääääääääääääääääääääääää\":1}", ALL, 0, "\"…\" cannot");
}

static void refuses_other_bodies(void **state)
{
    refused("", ALL, 0, "not JSON (line");
    refused("title=tea", ALL, 0, "not JSON (line 1, column");
    refused("{\"title\":\"a\",\"title\":\"b\"}", ALL, 0, "not JSON");
    refused("{\"title\":\"a\"} x", ALL, 0, "not JSON");
    refused("[]", ALL, 0, "not an object");
    refused("\"tea\"", ALL, 0, "not");
    char deep[5001];
    memset(deep, '[', 5000);
    deep[5000] = '\0';
    refused(deep, ALL, 0, "not JSON");
}

static void makes_ids(void **state)
{
    struct draft one = draft_make(""), two = draft_make("");
    assert_int_equal(draft_make_id(&one), 0);
    assert_int_equal(draft_make_id(&two), 0);
    assert_true(id_is_valid(one.id) && id_is_valid(two.id));
    assert_string_not_equal(one.id, two.id);
}

static void takes_ids_of_many(void **state)
{
    struct draft draft = read_ok("{ \"ids\": [\"a\", \"b-Z\"] }", DRAFT_IDS, DRAFT_IDS);
    assert_string_equal(draft.ids, "[\"a\",\"b-Z\"]");
    draft_done(&draft);
    assert_null(draft.ids);
    refused("{}", DRAFT_IDS, DRAFT_IDS, "\"ids\" is missing");
    refused("{\"ids\":\"a\"}", DRAFT_IDS, 0, "an array");
    refused("{\"ids\":[\"a\",5]}", DRAFT_IDS, 0, "are texts");
    refused("{\"ids\":[\"a b\"]}", DRAFT_IDS, 0, "are texts");
    refused("{\"ids\":[\"a\"]}", DRAFT_COMPLETED, 0, "cannot be said here");
    char *many = malloc(10001 * 4 + 20), *at = many;
    assert_non_null(many);
    at += sprintf(at, "{\"ids\":[");
    for (int i = 0; i < 10001; i++)
        at += sprintf(at, "\"a\"%s", i < 10000 ? "," : "]}");
    refused(many, DRAFT_IDS, 0, "At most 10000");
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_ids_of_many),
        cmocka_unit_test(takes_members),
        cmocka_unit_test(keeps_what_is_not_said_apart),
        cmocka_unit_test(trims_titles),
        cmocka_unit_test(counts_characters),
        cmocka_unit_test(refuses_titles),
        cmocka_unit_test(refuses_ids),
        cmocka_unit_test(refuses_other_values),
        cmocka_unit_test(refuses_other_bodies),
        cmocka_unit_test(makes_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
