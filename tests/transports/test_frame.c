/* The wire formats, byte for byte as docs/protocol.md has them. */
#include "frame.h"

#include "json.h"
#include "websocket.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BYTES(literal) literal, sizeof(literal) - 1

static struct buf out = { .max = 1 << 22 };

static int clean(void **state)
{
    buf_done(&out);
    return 0;
}

#define CASE(test) cmocka_unit_test_teardown(test, clean)

static void assert_out(const char *expected, size_t len)
{
    if (out.len != len || (len && memcmp(out.data, expected, len) != 0))
        fail_msg("%.*s", (int)out.len, out.data ? (char *)out.data : "");
    buf_clear(&out);
}

static struct frame_message message(const void *data, size_t len)
{
    return (struct frame_message){
        .channel = "todos",
        .channel_len = 5,
        .id = "l1.2a",
        .id_len = 5,
        .time_ms = 1795334400123,
        .data = data,
        .len = len,
    };
}

/* The message in this format must be exactly `expected`. */
static void check(enum frame_format format, const void *data, size_t len, const char *expected,
                  size_t expected_len)
{
    struct frame_message m = message(data, len);
    assert_int_equal(frame_message(&out, format, &m), 0);
    assert_out(expected, expected_len);
}

#define HEAD "{\"type\":\"message\",\"channel\":\"todos\",\"id\":\"l1.2a\",\"time\":1795334400123,"

/* ---- payload classes ---- */

static void classes(void **state)
{
    static const struct {
        const char *data;
        size_t len;
        enum payload_class class;
        bool newlines;
    } cases[] = {
        { BYTES("{\"a\":1}"), PAYLOAD_JSON, false },
        { BYTES("42"), PAYLOAD_JSON, false },
        { BYTES("{\n}"), PAYLOAD_JSON, true },
        { BYTES("[1,\r2]"), PAYLOAD_JSON, true },
        { BYTES("hello"), PAYLOAD_TEXT, false },
        { BYTES(""), PAYLOAD_TEXT, false },
        { BYTES(" \n"), PAYLOAD_TEXT, false },
        { BYTES("a\0b"), PAYLOAD_TEXT, false },
        { BYTES("{\"a\":1"), PAYLOAD_TEXT, false },
        { BYTES("\xFF"), PAYLOAD_BINARY, false },
        { BYTES("\"\xED\xA0\x80\""), PAYLOAD_BINARY, false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool newlines = true;
        assert_int_equal(payload_classify(cases[i].data, cases[i].len, &newlines), cases[i].class);
        assert_int_equal(newlines, cases[i].newlines);
    }
}

static void a_class_is_found_once(void **state)
{
    struct frame_message m = message("[\n]", 3);
    assert_int_equal(frame_message(&out, FORMAT_WS_JSON, &m), 0);
    assert_int_equal(m.class, PAYLOAD_JSON);
    assert_true(m.newlines);
    buf_clear(&out);
    m = message("[]", 2);
    m.class = PAYLOAD_TEXT; /* is believed */
    assert_int_equal(json_message(&out, &m, true, false), 0);
    assert_out(BYTES(HEAD "\"text\":\"[]\"}"));
}

/* ---- WebSocket ---- */

static void bare_websocket(void **state)
{
    check(FORMAT_WS_BARE, BYTES("hello"), BYTES("\x81\x05hello"));
    check(FORMAT_WS_BARE, BYTES("{\"a\":1}"), BYTES("\x81\x07{\"a\":1}"));
    check(FORMAT_WS_BARE, BYTES(""), BYTES("\x81\x00"));
    check(FORMAT_WS_BARE, NULL, 0, BYTES("\x81\x00"));
    check(FORMAT_WS_BARE, BYTES("a\r\nb"),
          BYTES("\x81\x04"
                "a\r\nb"));
    check(FORMAT_WS_BARE, BYTES("\xFF\xFE"), BYTES("\x82\x02\xFF\xFE"));
    struct frame_message m = message("\xFF", 1);
    m.class = PAYLOAD_BINARY;
    assert_int_equal(frame_message(&out, FORMAT_WS_BARE, &m), 0);
    assert_out(BYTES("\x82\x01\xFF"));
}

static void json_websocket(void **state)
{
    check(FORMAT_WS_JSON, BYTES("{ \"op\" : \"insert\" }"),
          BYTES("\x81\x61" HEAD "\"data\":{ \"op\" : \"insert\" }}"));
    check(FORMAT_WS_JSON, BYTES("not \"JSON\""),
          BYTES("\x81\x5C" HEAD "\"text\":\"not \\\"JSON\\\"\"}"));
    check(FORMAT_WS_JSON, BYTES(""), BYTES("\x81\x50" HEAD "\"text\":\"\"}"));
    check(FORMAT_WS_JSON, BYTES("\xFF\xFE"), BYTES("\x81\x56" HEAD "\"base64\":\"//4=\"}"));
    check(FORMAT_WS_JSON, BYTES("[\n1]"), BYTES("\x81\x52" HEAD "\"data\":[\n1]}"));
}

static void the_sender_comes_last(void **state)
{
    struct frame_message m = message("1", 1);
    m.from = "k\"3";
    assert_int_equal(json_message(&out, &m, true, false), 0);
    assert_out(BYTES(HEAD "\"data\":1,\"from\":\"k\\\"3\"}"));
    m.from = "";
    assert_int_equal(json_message(&out, &m, false, false), 0);
    assert_out(BYTES("{\"id\":\"l1.2a\",\"time\":1795334400123,\"data\":1}"));
}

static void times(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        { 0, "0" },
        { 9, "9" },
        { 10, "10" },
        { -1, "-1" },
        { INT64_MAX, "9223372036854775807" },
        { INT64_MIN, "-9223372036854775808" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[128];
        struct frame_message m = message("1", 1);
        m.time_ms = cases[i].ms;
        assert_int_equal(json_message(&out, &m, false, false), 0);
        (void)snprintf(expected, sizeof(expected), "{\"id\":\"l1.2a\",\"time\":%s,\"data\":1}",
                       cases[i].text);
        assert_out(expected, strlen(expected));
    }
}

/* The head is guessed before the payload is written: every length around the three forms, with
 * escapes that make the guess wrong, after bytes that must stay. */
static void heads_fit_their_payloads(void **state)
{
    static char text[70000];
    static const size_t lengths[] = {
        10, 50, 66, 120, 126, 10900, 32700, 65400, 65535, 65536, 69000
    };
    for (unsigned round = 0; round < 3; round++) {
        memset(text, round == 0 ? 'x' : round == 1 ? '"' : '\x01', sizeof(text));
        text[0] = 'x'; /* two quotes would be JSON */
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
            for (size_t len = lengths[i] - 8; len < lengths[i] + 8; len++) {
                struct frame_message m = message(text, len);
                uint8_t head[WS_HEAD_MAX];
                assert_int_equal(buf_append_str(&out, "before"), 0);
                assert_int_equal(frame_message(&out, FORMAT_WS_JSON, &m), 0);
                static const size_t grown[] = { 1, 2, 6 };
                size_t payload = strlen(HEAD "\"text\":\"x\"}") + (len - 1) * grown[round];
                size_t n = ws_encode_head(head, WS_TEXT, payload);
                assert_int_equal(out.len, 6 + n + payload);
                assert_memory_equal(out.data, "before", 6);
                assert_memory_equal(out.data + 6, head, n);
                assert_memory_equal(out.data + 6 + n, HEAD, strlen(HEAD));
                assert_true(json_valid(out.data + 6 + n, payload, NULL));
                buf_clear(&out);
            }
    }
}

/* ---- SSE ---- */

static void bare_sse(void **state)
{
    check(FORMAT_SSE_BARE, BYTES("hello"), BYTES("id: l1.2a\ndata: hello\n\n"));
    check(FORMAT_SSE_BARE, BYTES(""), BYTES("id: l1.2a\ndata: \n\n"));
    check(FORMAT_SSE_BARE, NULL, 0, BYTES("id: l1.2a\ndata: \n\n"));
    check(FORMAT_SSE_BARE, BYTES("a\nb"), BYTES("id: l1.2a\ndata: a\ndata: b\n\n"));
    check(FORMAT_SSE_BARE, BYTES("\n"), BYTES("id: l1.2a\ndata: \ndata: \n\n"));
    check(FORMAT_SSE_BARE, BYTES("a\n\nb\n"),
          BYTES("id: l1.2a\ndata: a\ndata: \ndata: b\ndata: \n\n"));
    check(FORMAT_SSE_BARE, BYTES(" x"), BYTES("id: l1.2a\ndata:  x\n\n"));
    check(FORMAT_SSE_BARE, BYTES("{\n\"a\":1}"), BYTES("id: l1.2a\ndata: {\ndata: \"a\":1}\n\n"));
}

static void what_would_break_sse_goes_as_base64(void **state)
{
    check(FORMAT_SSE_BARE, BYTES("a\rb"), BYTES("id: l1.2a\nevent: binary\ndata: YQ1i\n\n"));
    check(FORMAT_SSE_BARE, BYTES("\r"), BYTES("id: l1.2a\nevent: binary\ndata: DQ==\n\n"));
    check(FORMAT_SSE_BARE, BYTES("\xFF"), BYTES("id: l1.2a\nevent: binary\ndata: /w==\n\n"));
    check(FORMAT_SSE_BARE, BYTES("[1,\r\n2]"),
          BYTES("id: l1.2a\nevent: binary\ndata: WzEsDQoyXQ==\n\n"));
}

static void json_sse_is_one_line(void **state)
{
    check(FORMAT_SSE_JSON, BYTES("{\"a\":\r\n1}"),
          BYTES("id: l1.2a\ndata: " HEAD "\"data\":{\"a\":  1}}\n\n"));
    check(FORMAT_SSE_JSON, BYTES("a\r\nb"),
          BYTES("id: l1.2a\ndata: " HEAD "\"text\":\"a\\r\\nb\"}\n\n"));
    check(FORMAT_SSE_JSON, BYTES("\xFF\n"),
          BYTES("id: l1.2a\ndata: " HEAD "\"base64\":\"/wo=\"}\n\n"));
}

/* ---- control ---- */

static void control_in_every_format(void **state)
{
    const char *json = "{\"type\":\"up\"}";
    size_t len = strlen(json);
    assert_int_equal(frame_control(&out, FORMAT_WS_BARE, "up", json, len), 0);
    assert_out("", 0);
    assert_int_equal(frame_control(&out, FORMAT_WS_JSON, "up", json, len), 0);
    assert_out(BYTES("\x81\x0D{\"type\":\"up\"}"));
    assert_int_equal(frame_control(&out, FORMAT_SSE_BARE, "up", json, len), 0);
    assert_out(BYTES("event: up\ndata: {\"type\":\"up\"}\n\n"));
    assert_int_equal(frame_control(&out, FORMAT_SSE_JSON, "up", json, len), 0);
    assert_out(BYTES("data: {\"type\":\"up\"}\n\n"));
}

static void heartbeats(void **state)
{
    assert_int_equal(frame_heartbeat(&out, FORMAT_WS_BARE, "l1.5"), 0);
    assert_out(BYTES("\x89\x00"));
    assert_int_equal(frame_heartbeat(&out, FORMAT_WS_JSON, "l1.5"), 0);
    assert_out(BYTES("\x89\x00\x81\x1F{\"type\":\"position\",\"id\":\"l1.5\"}"));
    assert_int_equal(frame_heartbeat(&out, FORMAT_SSE_BARE, "l1.5"), 0);
    assert_out(BYTES("id: l1.5\n\n"));
    assert_int_equal(frame_heartbeat(&out, FORMAT_SSE_JSON, "l1.5"), 0);
    assert_out(BYTES("id: l1.5\n\n"));
}

/* "id:" without a value would make EventSource forget its last position. */
static void heartbeats_without_a_position(void **state)
{
    assert_int_equal(frame_heartbeat(&out, FORMAT_SSE_BARE, NULL), 0);
    assert_out(BYTES(":\n\n"));
    assert_int_equal(frame_heartbeat(&out, FORMAT_SSE_JSON, ""), 0);
    assert_out(BYTES(":\n\n"));
    assert_int_equal(frame_heartbeat(&out, FORMAT_WS_JSON, NULL), 0);
    assert_out(BYTES("\x89\x00\x81\x1D{\"type\":\"position\",\"id\":null}"));
}

static void heartbeats_with_the_longest_position(void **state)
{
    char id[201], expected[256];
    memset(id, 'p', 200);
    id[200] = '\0';
    assert_int_equal(frame_heartbeat(&out, FORMAT_WS_JSON, id), 0);
    int n = snprintf(expected, sizeof(expected), "{\"type\":\"position\",\"id\":\"%s\"}", id);
    assert_memory_equal(out.data, "\x89\x00\x81\x7E\x00\xE3", 6);
    assert_int_equal(out.len, 6 + n);
    assert_memory_equal(out.data + 6, expected, (size_t)n);
    buf_clear(&out);
}

static void json_objects(void **state)
{
    assert_int_equal(json_welcome(&out, "k3x9", 25, 65536, "fanwire/0.1", "wal", true), 0);
    assert_out(BYTES("{\"type\":\"welcome\",\"client\":\"k3x9\",\"heartbeat\":25,\"max\":65536,"
                     "\"server\":\"fanwire/0.1\",\"mode\":\"wal\",\"durable\":true}"));
    assert_int_equal(json_welcome(&out, "k3x9", 5, 1, "fanwire/0.1", NULL, false), 0);
    assert_out(BYTES("{\"type\":\"welcome\",\"client\":\"k3x9\",\"heartbeat\":5,\"max\":1,"
                     "\"server\":\"fanwire/0.1\",\"durable\":false}"));
    assert_int_equal(json_ready(&out, "to\"dos", 6, "p1.2", "2"), 0);
    assert_out(BYTES("{\"type\":\"ready\",\"channel\":\"to\\\"dos\",\"id\":\"p1.2\",\"ref\":2}"));
    assert_int_equal(json_ready(&out, "todos", 5, "p1.2", NULL), 0);
    assert_out(BYTES("{\"type\":\"ready\",\"channel\":\"todos\",\"id\":\"p1.2\"}"));
    assert_int_equal(json_snapshot(&out, "todos", 5, "{\"id\": 1}", 9), 0);
    assert_out(BYTES("{\"type\":\"snapshot\",\"channel\":\"todos\",\"data\":{\"id\": 1}}"));
    assert_int_equal(json_gap(&out, "todos", 5, "a.1", "b.2", REASON_EXPIRED), 0);
    assert_out(BYTES("{\"type\":\"gap\",\"channel\":\"todos\",\"after\":\"a.1\",\"before\":\"b.2\","
                     "\"reason\":\"expired\"}"));
    assert_int_equal(json_gap(&out, NULL, 0, NULL, "b.2", REASON_CONNECTION_LOST), 0);
    assert_out(BYTES("{\"type\":\"gap\",\"after\":null,\"before\":\"b.2\","
                     "\"reason\":\"connection-lost\"}"));
    assert_int_equal(json_down(&out, REASON_HUNG), 0);
    assert_out(BYTES("{\"type\":\"down\",\"reason\":\"hung\"}"));
    assert_int_equal(json_down(&out, REASON_NONE), 0);
    assert_out(BYTES("{\"type\":\"down\"}"));
    assert_int_equal(json_up(&out), 0);
    assert_out(BYTES("{\"type\":\"up\"}"));
    assert_int_equal(json_position(&out, "p1.3"), 0);
    assert_out(BYTES("{\"type\":\"position\",\"id\":\"p1.3\"}"));
    assert_int_equal(json_closing(&out, CODE_RESTART, 4200), 0);
    assert_out(BYTES("{\"type\":\"closing\",\"code\":\"restart\",\"retry_ms\":4200}"));
}

static void json_answers(void **state)
{
    assert_int_equal(json_ok(&out, "p1.3", "4"), 0);
    assert_out(BYTES("{\"type\":\"ok\",\"ref\":4,\"id\":\"p1.3\"}"));
    assert_int_equal(json_ok(&out, NULL, "\"x\""), 0);
    assert_out(BYTES("{\"type\":\"ok\",\"ref\":\"x\",\"id\":null}"));
    assert_int_equal(json_error(&out, CODE_RATE_LIMITED, "20 publishes/s allowed", "5"), 0);
    assert_out(BYTES("{\"type\":\"error\",\"ref\":5,\"code\":\"rate-limited\","
                     "\"message\":\"20 publishes/s allowed\"}"));
    assert_int_equal(json_error(&out, CODE_BAD_REQUEST, NULL, NULL), 0);
    assert_out(BYTES("{\"type\":\"error\",\"code\":\"bad-request\"}"));
    assert_int_equal(json_unsubscribed(&out, "x", 1, CODE_CHANNEL_FORBIDDEN, "no", "3"), 0);
    assert_out(BYTES("{\"type\":\"unsubscribed\",\"channel\":\"x\",\"code\":\"channel-forbidden\","
                     "\"message\":\"no\",\"ref\":3}"));
    assert_int_equal(json_unsubscribed(&out, "x", 1, CODE_OK, NULL, "\"r\""), 0);
    assert_out(BYTES("{\"type\":\"unsubscribed\",\"channel\":\"x\",\"ref\":\"r\"}"));
}

static void problems(void **state)
{
    assert_int_equal(problem_body(&out, CODE_CHANNEL_FORBIDDEN, 403, "channel \"todos\""), 0);
    assert_out(BYTES("{\"type\":\"urn:fanwire:error:channel-forbidden\","
                     "\"code\":\"channel-forbidden\",\"status\":403,\"title\":\"Not allowed\","
                     "\"detail\":\"channel \\\"todos\\\"\"}"));
    assert_int_equal(problem_body(&out, CODE_BAD_CHANNEL, 400, "\xFF"), 0); /* as it came in */
    assert_true(json_valid(out.data, out.len, NULL));
    buf_clear(&out);
    assert_int_equal(problem_body(&out, CODE_BAD_REQUEST, 431, NULL), 0);
    assert_true(json_valid(out.data, out.len, NULL));
    buf_clear(&out);
}

/* ---- limits ---- */

static void all_or_nothing(void **state)
{
    static const char *const payloads[] = { "{\"a\":1}", "te\"xt", "\xFF\xFE", "a\nb\rc" };
    for (size_t p = 0; p < 4; p++)
        for (unsigned format = 0; format < N_FORMATS; format++) {
            struct frame_message m = message(payloads[p], strlen(payloads[p]));
            assert_int_equal(frame_message(&out, format, &m), 0);
            size_t whole = out.len;
            buf_clear(&out);
            for (size_t max = 0; max <= whole; max++) {
                struct buf small = buf_make(2 + max);
                assert_int_equal(buf_append_str(&small, "ab"), 0);
                int r = frame_message(&small, format, &m);
                assert_int_equal(r, max < whole ? -EMSGSIZE : 0);
                assert_int_equal(small.len, 2 + (max < whole ? 0 : whole));
                assert_int_equal(small.failed, r);
                assert_memory_equal(small.data, "ab", 2);
                buf_done(&small);
            }
        }
    for (size_t max = 0; max < 33; max++) {
        struct buf small = buf_make(max);
        assert_int_equal(frame_heartbeat(&small, FORMAT_WS_JSON, "l1.5"), -EMSGSIZE);
        assert_int_equal(small.len, 0);
        assert_int_equal(frame_control(&small, FORMAT_WS_JSON, "x", "{}", 2), -EMSGSIZE);
        buf_done(&small);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(classes),
        CASE(a_class_is_found_once),
        CASE(bare_websocket),
        CASE(json_websocket),
        CASE(the_sender_comes_last),
        CASE(times),
        CASE(heads_fit_their_payloads),
        CASE(bare_sse),
        CASE(what_would_break_sse_goes_as_base64),
        CASE(json_sse_is_one_line),
        CASE(control_in_every_format),
        CASE(heartbeats),
        CASE(heartbeats_without_a_position),
        CASE(heartbeats_with_the_longest_position),
        CASE(json_objects),
        CASE(json_answers),
        CASE(problems),
        CASE(all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
