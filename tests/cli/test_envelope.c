/* Members of an envelope: raw payloads stay what they are, anything else does no harm. */
#include "envelope.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_payload(const char *json, const char *want)
{
    struct buf out = buf_make(1000);
    assert_int_equal(envelope_payload(json, strlen(json), &out), 0);
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.data ? (const char *)out.data : "", want, out.len);
    buf_done(&out);
}

static void payloads_come_out_as_they_went_in(void **state)
{
    check_payload("{\"type\":\"message\",\"data\":{\"a\": [1, \"}\\\"]\", {\"data\":2}]}}",
                  "{\"a\": [1, \"}\\\"]\", {\"data\":2}]}");
    check_payload("{\"data\":12345678901234567890123.50}", "12345678901234567890123.50");
    check_payload("{\"data\":null,\"x\":1}", "null");
    check_payload("{\"data\":\"text as JSON\"}", "\"text as JSON\"");
    check_payload("{\"text\":\"a\\u00e4\\n\\\"\"}", "a\xc3\xa4\n\"");
    check_payload("{\"text\":\"\"}", "");
    check_payload("{\"base64\":\"aGVsbG8=\"}", "hello");
    check_payload(" {\n \"type\" : \"message\" , \"data\" : [ 1 , 2 ] }\n", "[ 1 , 2 ]");
}

static void only_members_of_the_envelope_itself_are_found(void **state)
{
    static const char json[] = "{\"data\":{\"id\":\"inner\"},\"id\":\"outer\",\"n\":7}";
    struct buf out = buf_make(1000);
    assert_int_equal(envelope_string(json, strlen(json), "id", &out), 0);
    assert_int_equal(out.len, 5);
    assert_memory_equal(out.data, "outer", 5);
    assert_int_equal(envelope_string(json, strlen(json), "n", &out), -ENOENT);
    assert_int_equal(envelope_string(json, strlen(json), "data", &out), -ENOENT);
    assert_int_equal(envelope_string(json, strlen(json), "absent", &out), -ENOENT);
    buf_done(&out);
}

static void broken_envelopes_are_told_apart(void **state)
{
    static const char whole[] = " {\"a\":\"x\\\"y\",\"b\":[{\"c\":\"]\"}],\"text\":\"z\\\\\"}";
    for (size_t len = 0; len <= strlen(whole); len++) {
        char *copy = malloc(len ? len : 1); /* exactly as long: a sanitizer sees a step too far */
        memcpy(copy, whole, len);
        assert_int_equal(envelope_valid(copy, len), len == strlen(whole));
        free(copy);
    }
    assert_false(envelope_valid("[]", 2));
    assert_false(envelope_valid("\"a\"", 3));
}

static void envelopes_without_a_payload_are_told_apart(void **state)
{
    static const char *const texts[] = { "{\"base64\":\"!\"}", "{\"base64\":7}", "{}",
                                         "{\"text\":7}", "{\"x\":{\"data\":1}}" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct buf out = buf_make(1000);
        assert_int_equal(envelope_payload(texts[i], strlen(texts[i]), &out), -ENOENT);
        buf_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(payloads_come_out_as_they_went_in),
        cmocka_unit_test(only_members_of_the_envelope_itself_are_found),
        cmocka_unit_test(broken_envelopes_are_told_apart),
        cmocka_unit_test(envelopes_without_a_payload_are_told_apart),
    };
    return cmocka_run_group_tests_name("envelope", tests, NULL, NULL);
}
