/* The 0x1E envelope: there and back, and everything that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_envelope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *written(struct buf *b, const char *channel, const char *key, const char *from,
                           const char *data, size_t len)
{
    struct fw_publish publish = { .channel = channel,
                                  .channel_len = strlen(channel),
                                  .key = key,
                                  .from = from,
                                  .data = data,
                                  .len = len };
    assert_int_equal(pg_envelope_write(b, &publish), 0);
    assert_int_equal(b->len, strlen((char *)b->data) + 1);
    return (char *)b->data;
}

static void writes_what_is_specified(void **state)
{
    struct buf b = buf_make(8000);
    assert_string_equal(written(&b, "todos", NULL, NULL, "hi", 2),
                        "\x1e{\"channel\":\"todos\"}\nhi");
    buf_clear(&b);
    assert_string_equal(written(&b, "a\"b", "k", "me", "", 0),
                        "\x1e{\"channel\":\"a\\\"b\",\"key\":\"k\",\"from\":\"me\"}\n");
    buf_clear(&b);
    assert_string_equal(written(&b, "c", NULL, NULL, "\0\xff", 2),
                        "\x1e{\"channel\":\"c\",\"enc\":\"base64\"}\nAP8=");
    buf_done(&b);
}

static void reads_what_it_writes(void **state)
{
    static const struct {
        const char *channel, *key, *from, *data;
        size_t len;
    } cases[] = {
        { "todos", NULL, NULL, "plain", 5 },
        { "a \"b\" \\ / \u2028 ü", "k\n\t\x01", "\x1e", "\x1e{\"channel\":\"x\"}\ny", 18 },
        { "c", "", "", "", 0 },
        { "c", NULL, "me", "\0\0\0", 3 },
        { "c", "k", NULL, "\xc3", 1 },
        { "c", NULL, NULL, "line\nline\r\n", 11 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = buf_make(8000);
        struct pg_envelope e;
        const char *text =
            written(&b, cases[i].channel, cases[i].key, cases[i].from, cases[i].data, cases[i].len);
        assert_null(pg_envelope_parse(text, strlen(text), &e));
        assert_int_equal(e.event.channel_len, strlen(cases[i].channel));
        assert_memory_equal(e.event.channel, cases[i].channel, e.event.channel_len);
        assert_int_equal(e.event.len, cases[i].len);
        assert_memory_equal(e.event.data, cases[i].data, cases[i].len);
        assert_int_equal(!e.event.key, !cases[i].key);
        assert_int_equal(!e.event.from, !cases[i].from);
        if (cases[i].key)
            assert_string_equal(e.event.key, cases[i].key);
        if (cases[i].from)
            assert_string_equal(e.event.from, cases[i].from);
        pg_envelope_done(&e);
        buf_done(&b);
    }
}

static void knows_its_limit(void **state)
{
    struct buf b = buf_make(100);
    char data[100] = { 0 };
    memset(data, 'x', sizeof data);
    struct fw_publish publish = { .channel = "c", .channel_len = 1, .data = data, .len = 82 };
    assert_int_equal(pg_envelope_write(&b, &publish), 0); /* 17 + 82 + NUL */
    assert_int_equal(b.len, 100);
    buf_clear(&b);
    publish.len = 83;
    assert_int_equal(pg_envelope_write(&b, &publish), -EMSGSIZE);
    buf_clear(&b);
    data[0] = '\0';
    publish.len = 60; /* 80 in base64 */
    assert_int_equal(pg_envelope_write(&b, &publish), -EMSGSIZE);
    buf_done(&b);
}

static void refuses_what_is_none(void **state)
{
    static const char *const cases[] = {
        "",
        "plain",
        "{\"channel\":\"c\"}\nx",
        "\x1e",
        "\x1e{\"channel\":\"c\"}",
        "\x1e\nx",
        "\x1e[]\nx",
        "\x1e\"c\"\nx",
        "\x1e{}\nx",
        "\x1e{\"channel\":null}\nx",
        "\x1e{\"channel\":1}\nx",
        "\x1e{\"channel\":\"c\",}\nx",
        "\x1e{\"channel\":\"c\"} {}\nx",
        "\x1e{\"channel\":\"c\",\"channel\":\"d\"}\nx",
        "\x1e{\"channel\":\"a\\u0000b\"}\nx",
        "\x1e{\"channel\":\"\xff\"}\nx",
        "\x1e{\"channel\":\"a\tb\"}\nx",
        "\x1e{\"channel\":\"a\"b\"}\nx",
        "\x1e{\"channel\":\"a\\\"}\nx",
        "\x1e{\"channel\":\"}\nx",
        "\x1e{\"channel\":\"c\",\"key\":1}\nx",
        "\x1e{\"channel\":\"c\",\"from\":{}}\nx",
        "\x1e{\"channel\":\"c\",\"key\":null}\nx",
        "\x1e{\"channel\":\"c\",\"enc\":\"gzip\"}\nx",
        "\x1e{\"channel\":\"c\",\"enc\":true}\nx",
        "\x1e{\"channel\":\"c\",\"enc\":\"base64\"}\n*",
        "\x1e{\"channel\":\"c\",\"enc\":\"base64\"}\nA",
        "\x1e{\"channel\":\n\"c\"}\nx",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pg_envelope e;
        if (!pg_envelope_parse(cases[i], strlen(cases[i]), &e))
            fail_msg("accepted: %s", cases[i]);
        pg_envelope_done(&e);
    }
}

static void ignores_members_of_later_versions(void **state)
{
    static const char text[] = "\x1e{\"channel\":\"c\",\"ttl\":5,\"x\":{}}\ny";
    struct pg_envelope e;
    assert_null(pg_envelope_parse(text, sizeof text - 1, &e));
    assert_int_equal(e.event.len, 1);
    pg_envelope_done(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_what_is_specified),
        cmocka_unit_test(reads_what_it_writes),
        cmocka_unit_test(knows_its_limit),
        cmocka_unit_test(refuses_what_is_none),
        cmocka_unit_test(ignores_members_of_later_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
