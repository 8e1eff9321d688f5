/* Channel names and patterns, against examples and against a matcher that tries everything. */
#include "pattern.h"

#include <fanwire.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void channel_names(void **state)
{
    static const char *const good[] = { "a",   "todos",    "user:42/x.y", "käse 🎉", "*",  " ",
                                        "a b", "\xC2\x80", "$fanwire/x",  "%2F",    "?#&" };
    static const char *const bad[] = { "",     "a\n",   "\x01",     "a\x7F",        "\x1F",
                                       "\xFF", "a\xC3", "\xC0\x80", "\xED\xA0\x80", "tab\t" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(channel_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(channel_valid(bad[i], strlen(bad[i])));
    assert_false(channel_valid("a\0b", 3));
    char long_name[FW_CHANNEL_MAX + 1];
    memset(long_name, 'x', sizeof(long_name));
    assert_true(channel_valid(long_name, FW_CHANNEL_MAX));
    assert_false(channel_valid(long_name, FW_CHANNEL_MAX + 1));
}

static void reserved_names(void **state)
{
    assert_true(channel_reserved("$fanwire/", 9));
    assert_true(channel_reserved("$fanwire/control", 16));
    assert_false(channel_reserved("$fanwire", 8));
    assert_false(channel_reserved("$fanwires/x", 11));
    assert_false(channel_reserved("x$fanwire/", 10));
    assert_false(channel_reserved("$FANWIRE/x", 10));
    assert_false(channel_reserved("", 0));
}

static void valid_patterns(void **state)
{
    static const char *const good[] = { "*",      "**",  "todos", "user:*", "user:{sub}:**",
                                        "a**b*c", "**/*" };
    static const char *const bad[] = { "", "***", "a***b", "****", "a\n", "\xFF" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(pattern_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(pattern_valid(bad[i], strlen(bad[i])));
}

static bool match(const char *pattern, const char *name)
{
    return pattern_match(pattern, name, strlen(name));
}

static void matches(void **state)
{
    static const char *const yes[][2] = {
        { "todos", "todos" },   { "*", "todos" },        { "**", "todos" },
        { "**", "a.b:c/d" },    { "user:*", "user:42" }, { "user:**", "user:42:x/y" },
        { "user:**", "user:" }, { "*:*", "a:b" },        { "*.*.*", "a.b.c" },
        { "a*c", "abc" },       { "a*c", "abcc" },       { "a**c", "ac" },
        { "a**c", "a.b.c" },    { "**.log", "x/y.log" }, { "**.log", ".log" },
        { "*a*a*", "xaxax" },   { "a*", "a*" },          { "*", "käse" },
        { "k*e", "käse" },      { "**a**a**", "xaxa" },  { "**b*", "abb:bc" },
        { "{sub}", "{sub}" },   { "a**", "a" },          { "*ab*.c", "xabab.c" },
    };
    static const char *const no[][2] = {
        { "todos", "todo" },   { "todo", "todos" }, { "todos", "Todos" },  { "*", "a.b" },
        { "*", "a:b" },        { "*", "a/b" },      { "user:*", "user:" }, { "user:*", "user:1:2" },
        { "user:**", "user" }, { "*:*", "a:" },     { "a*c", "ac" },       { "a*c", "a.c" },
        { "**.log", "log" },   { "*.*", "a.b.c" },  { "*a", "a" },         { "", "a" },
        { "a", "" },           { "*", "" },         { "**x", "xy" },       { "*ab*.c", "xab.c" },
    };
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        if (!match(yes[i][0], yes[i][1]))
            fail_msg("%s should match %s", yes[i][0], yes[i][1]);
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        if (match(no[i][0], no[i][1]))
            fail_msg("%s should not match %s", no[i][0], no[i][1]);
    assert_true(match("**", ""));
    assert_true(match("", ""));
    assert_true(pattern_match("a", "ab", 1)); /* names need no NUL */
    assert_false(pattern_match("a", "a\0b", 3));
}

static void reserved_names_need_a_literal_prefix(void **state)
{
    assert_false(match("**", "$fanwire/control"));
    assert_false(match("$**", "$fanwire/control"));
    assert_false(match("$fanwire**", "$fanwire/control"));
    assert_false(match("*/control", "$fanwire/control"));
    assert_true(match("$fanwire/**", "$fanwire/control"));
    assert_true(match("$fanwire/control", "$fanwire/control"));
    assert_true(match("**", "$fanwire"));
}

/* The definition, tried out: exponential, for short texts. */
static bool model(const char *pattern, const char *name, size_t len)
{
    if (!*pattern)
        return len == 0;
    if (pattern[0] == '*' && pattern[1] == '*') {
        for (size_t n = 0; n <= len; n++)
            if (model(pattern + 2, name + n, len - n))
                return true;
        return false;
    }
    if (pattern[0] == '*') {
        for (size_t n = 1; n <= len && !strchr(".:/", name[n - 1]); n++)
            if (model(pattern + 1, name + n, len - n))
                return true;
        return false;
    }
    return len > 0 && pattern[0] == name[0] && model(pattern + 1, name + 1, len - 1);
}

static void random_text(uint64_t *seed, const char *letters, char *out, size_t max)
{
    size_t n_letters = strlen(letters), len;
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    len = (*seed >> 33) % (max + 1);
    for (size_t i = 0; i < len; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        out[i] = letters[(*seed >> 33) % n_letters];
    }
    out[len] = '\0';
}

static void agrees_with_the_definition(void **state)
{
    uint64_t seed = 1;
    unsigned matched = 0;
    for (unsigned i = 0; i < 200000; i++) {
        char pattern[10], name[12];
        random_text(&seed, "ab.***", pattern, sizeof(pattern) - 1);
        random_text(&seed, "aab.", name, sizeof(name) - 1);
        bool expected = model(pattern, name, strlen(name));
        if (match(pattern, name) != expected)
            fail_msg("%s, %s: not %d", pattern, name, expected);
        matched += expected;
    }
    assert_true(matched > 10000); /* else nothing was tested */
}

/* What makes matchers that go back try for ever. */
static void the_worst_pattern_is_cheap(void **state)
{
    char pattern[FW_CHANNEL_MAX + 1] = "", name[FW_CHANNEL_MAX + 1];
    for (size_t i = 0; i + 3 < sizeof(pattern); i += 3)
        memcpy(pattern + i, "**a", 4);
    memset(name, 'a', sizeof(name));
    name[FW_CHANNEL_MAX - 1] = 'b';
    for (unsigned i = 0; i < 100; i++)
        assert_false(pattern_match(pattern, name, FW_CHANNEL_MAX));
}

static void too_long_never_matches(void **state)
{
    char name[FW_CHANNEL_MAX + 2];
    memset(name, 'a', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    assert_false(pattern_match("**", name, sizeof(name) - 1));
    assert_false(pattern_match(name, "a", 1));
    assert_true(pattern_match("**", name, FW_CHANNEL_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(channel_names),
        cmocka_unit_test(reserved_names),
        cmocka_unit_test(valid_patterns),
        cmocka_unit_test(matches),
        cmocka_unit_test(reserved_names_need_a_literal_prefix),
        cmocka_unit_test(agrees_with_the_definition),
        cmocka_unit_test(the_worst_pattern_is_cheap),
        cmocka_unit_test(too_long_never_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
