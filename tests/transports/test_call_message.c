/* Messages between workers and the application process: written, cut anywhere, and forged. */
#include "call_message.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct slice text(const char *s)
{
    return (struct slice){ s, strlen(s) };
}

static struct buf write_answer(void)
{
    struct buf out = buf_make(4096);
    struct call_message head = { .type = CALL_ANSWER, .status = 201, .route = 3, .id = 77 };
    call_message_begin(&out, &head);
    call_message_add(&out, "X: y\r\n", 6);
    call_message_add(&out, NULL, 0);
    call_message_add(&out, "body\0more", 9);
    call_message_end(&out);
    assert_int_equal(out.failed, 0);
    return out;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct buf out = write_answer();
    struct call_message message;
    struct slice item;
    assert_int_equal(call_message_size(out.data, out.len, 4096), out.len);
    assert_int_equal(call_message_decode(out.data, out.len, &message), 0);
    assert_int_equal(message.type, CALL_ANSWER);
    assert_int_equal(message.status, 201);
    assert_int_equal(message.route, 3);
    assert_int_equal(message.id, 77);
    assert_true(call_message_next(&message, &item));
    assert_string_equal(item.data, "X: y\r\n");
    assert_true(call_message_next(&message, &item));
    assert_int_equal(item.len, 0);
    assert_string_equal(item.data, "");
    assert_true(call_message_next(&message, &item));
    assert_int_equal(item.len, 9);
    assert_memory_equal(item.data, "body\0more", 10);
    assert_false(call_message_next(&message, &item));
    buf_done(&out);
}

/* Each prefix, in memory of its own size: more is awaited until the head is there. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    struct buf out = write_answer();
    for (size_t len = 0; len < out.len; len++) {
        struct call_message message;
        uint8_t *cut = malloc(len + 1);
        memcpy(cut, out.data, len);
        int64_t size = call_message_size(cut, len, 4096);
        assert_int_equal(size, len < CALL_HEAD_SIZE ? 0 : (int64_t)out.len);
        assert_int_equal(call_message_decode(cut, len, &message), -EPROTO);
        free(cut);
    }
    buf_done(&out);
}

static void test_forged(void **state)
{
    (void)state;
    struct call_message message;
    struct buf out = write_answer();
    assert_int_equal(call_message_size(out.data, out.len, out.len - 1), -EPROTO);
    for (size_t at = 0; at < out.len; at++) { /* any byte may be any: never outside of it */
        uint8_t kept = out.data[at];
        static const uint8_t values[] = { 0, 1, 0x7F, 0x80, 0xFF };
        for (size_t v = 0; v < sizeof(values); v++) {
            uint8_t *copy = malloc(out.len);
            out.data[at] = values[v];
            memcpy(copy, out.data, out.len);
            if (call_message_decode(copy, out.len, &message) == 0) {
                struct slice item;
                while (call_message_next(&message, &item)) {
                    assert_true((const uint8_t *)item.data + item.len < copy + out.len);
                    assert_int_equal(item.data[item.len], 0);
                }
            }
            free(copy);
        }
        out.data[at] = kept;
    }
    out.data[4] = CALL_N_TYPES;
    assert_int_equal(call_message_decode(out.data, out.len, &message), -EPROTO);
    buf_done(&out);
}

static void test_limits_of_writing(void **state)
{
    (void)state;
    struct buf out = buf_make(CALL_HEAD_SIZE + CALL_ITEM_EXTRA + 4);
    struct call_message head = { .type = CALL_ACCEPT }, message;
    call_message_begin(&out, &head);
    call_message_add(&out, "1234", 4);
    call_message_add(&out, "5", 1);
    assert_int_equal(out.failed, -EMSGSIZE);
    out.failed = 0; /* what did not fit has left no trace */
    call_message_end(&out);
    assert_int_equal(call_message_decode(out.data, out.len, &message), 0);
    assert_int_equal(message.n_items, 1);
    buf_done(&out);
}

static void test_allowed_fields(void **state)
{
    (void)state;
    static const char *const good[] = { "",
                                        "X-A: b\r\n",
                                        "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
                                        "ETag: \"x\"\r\n",
                                        "X-Empty:\r\n",
                                        "Connections: 1\r\n" };
    static const char *const bad[] = {
        "X-A: b",
        "\r\n",
        "X-A: b\r\n\r\n",
        "no field\r\n",
        ": empty\r\n",
        "X A: b\r\n",
        "X: a\nY: b\r\n",
        "X: a\r Y\r\n",
        "content-length: 1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "CONNECTION: close\r\n",
        "Date: now\r\n",
        "Sec-WebSocket-Accept: x\r\n",
        "Access-Control-Allow-Origin: *\r\n",
        "X: \x7f\r\n",
        "X: 1\r\nContent-Type: a\r\n",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(call_fields_allowed(text(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(call_fields_allowed(text(bad[i])));
    assert_false(call_fields_allowed((struct slice){ "X: \0\r\n", 6 }));
    assert_true(call_type_allowed(text("text/html; charset=utf-8")));
    assert_false(call_type_allowed(text("text/html\r\nX: y")));
}

static void test_walking_fields(void **state)
{
    (void)state;
    struct slice fields = text("Host: a\r\nX-Word:\t two words \r\nX-Empty:\r\n"), name, value;
    assert_true(call_field_next(&fields, &name, &value));
    assert_memory_equal(name.data, "Host", 4);
    assert_int_equal(value.len, 1);
    assert_true(call_field_next(&fields, &name, &value));
    assert_int_equal(value.len, 9);
    assert_memory_equal(value.data, "two words", 9);
    assert_true(call_field_next(&fields, &name, &value));
    assert_int_equal(value.len, 0);
    assert_false(call_field_next(&fields, &name, &value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_forged),         cmocka_unit_test(test_limits_of_writing),
        cmocka_unit_test(test_allowed_fields), cmocka_unit_test(test_walking_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
