/* What a POST says of its publish in the header. */
#include "publish_fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* In a copy exactly as long, so that a sanitizer sees any step beyond. */
static const char *read_fields(struct publish_fields *ret, const char *key, const char *client)
{
    size_t key_len = key ? strlen(key) : 0, client_len = client ? strlen(client) : 0;
    char *copy = malloc(key_len + client_len + 1);
    if (key)
        memcpy(copy, key, key_len);
    if (client)
        memcpy(copy + key_len, client, client_len);
    const struct http_request request = {
        .idempotency_key = { key ? copy : NULL, key_len },
        .client = { client ? copy + key_len : NULL, client_len },
    };
    const char *wrong = publish_fields_read(ret, &request);
    free(copy);
    return wrong;
}

static void keys_are_taken_quoted_and_bare(void **state)
{
    static const struct {
        const char *value, *key;
    } cases[] = {
        { "abc", "abc" },
        { "\"abc\"", "abc" },
        { "\"a\\\"b\\\\c\"", "a\"b\\c" },
        { "a\"b\\c", "a\"b\\c" },
        { "a b", "a b" },
        { "\" \"", " " },
        { "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
    };
    struct publish_fields fields;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_null(read_fields(&fields, cases[i].value, NULL));
        assert_string_equal(fields.key, cases[i].key);
        assert_string_equal(fields.from, "");
    }
    assert_null(read_fields(&fields, NULL, NULL));
    assert_string_equal(fields.key, "");
}

static void other_keys_are_refused(void **state)
{
    static const char *const bad[] = { "",      "\"",      "\"a",       "\"\"",  "\"a\"b",
                                       "\"a\\", "\"\\n\"", "\"a\";x=1", "a\xff", "a\tb" };
    struct publish_fields fields;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_non_null(read_fields(&fields, bad[i], NULL));
}

static void the_length_of_a_key_is_limited(void **state)
{
    char text[2 * META_KEY_MAX + 4];
    struct publish_fields fields;
    memset(text, 'x', sizeof(text));
    text[META_KEY_MAX + 1] = '\0';
    assert_non_null(read_fields(&fields, text, NULL));
    text[META_KEY_MAX] = '\0';
    assert_null(read_fields(&fields, text, NULL));
    assert_int_equal(strlen(fields.key), META_KEY_MAX);
    text[0] = '"';
    for (int i = 0; i < META_KEY_MAX; i++)
        memcpy(text + 1 + 2 * i, "\\\"", 2);
    memcpy(text + 1 + 2 * META_KEY_MAX, "\"", 2);
    assert_null(read_fields(&fields, text, NULL));
    assert_int_equal(strlen(fields.key), META_KEY_MAX);
    memcpy(text + 1 + 2 * META_KEY_MAX, "x\"", 3);
    assert_non_null(read_fields(&fields, text, NULL));
}

static void a_client_is_one_that_a_welcome_names(void **state)
{
    static const char *const good[] = { "1w1", "fff2wdeadbeef", "0w0" };
    static const char *const bad[] = { "",    "w",   "1w",   "w1",  "1w1w1",
                                       "1W1", "A1w", "1w1 ", "1w-", "1111111111111111111111w1" };
    struct publish_fields fields;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_null(read_fields(&fields, "k", good[i]));
        assert_string_equal(fields.from, good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_non_null(read_fields(&fields, NULL, bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_taken_quoted_and_bare),
        cmocka_unit_test(other_keys_are_refused),
        cmocka_unit_test(the_length_of_a_key_is_limited),
        cmocka_unit_test(a_client_is_one_that_a_welcome_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
