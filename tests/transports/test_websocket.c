/* The WebSocket codec, fed byte by byte and all at once, with everything RFC 6455 forbids. */
#include "websocket.h"

#include "text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MESSAGE_MAX 65536

/* ---- what a client sends ---- */

struct script {
    uint8_t *data;
    size_t len, cap;
};

static void script_raw(struct script *s, const void *data, size_t len)
{
    if (s->len + len >= s->cap) {
        s->cap = 2 * (s->len + len) + 64;
        s->data = realloc(s->data, s->cap);
        assert_non_null(s->data);
    }
    memcpy(s->data + s->len, data, len);
    s->len += len;
}

/* A masked frame with its length in the shortest form. `first` is FIN, reserved bits and opcode. */
static void script_frame(struct script *s, uint8_t first, const void *payload, size_t len)
{
    static const uint8_t mask[4] = { 0x12, 0xA5, 0x00, 0xFF };
    uint8_t head[WS_HEAD_MAX];
    size_t n = ws_encode_head(head, WS_TEXT, len);
    head[0] = first;
    head[1] |= 0x80;
    script_raw(s, head, n);
    script_raw(s, mask, 4);
    script_raw(s, payload, len);
    for (size_t i = 0; i < len; i++)
        s->data[s->len - len + i] ^= mask[i % 4];
}

static void script_text(struct script *s, uint8_t first, const char *text)
{
    script_frame(s, first, text, strlen(text));
}

/* ---- what the decoder makes of it ---- */

struct outcome {
    int failed; /* close code, 0 = none */
    size_t at;  /* bytes presented when it failed */
    char log[4096];
};

static void note(struct outcome *o, const struct ws_event *event)
{
    char line[256];
    size_t n = event->len < 60 ? event->len : 60;
    int len = snprintf(line, sizeof(line), "%d:%zu:", event->opcode, event->len);
    (void)text_escape(line + len, sizeof(line) - (size_t)len, event->data, n);
    if (event->opcode == WS_CLOSE)
        (void)snprintf(line + strlen(line), 16, "(%u)", event->close_code);
    assert_true(strlen(o->log) + strlen(line) + 2 < sizeof(o->log));
    strcat(strcat(o->log, line), "\n");
}

/* Decodes all there is; returns false when it failed. */
static bool decode_all(struct ws_decoder *d, uint8_t *data, size_t *len, struct outcome *o)
{
    size_t done = 0;
    for (;;) {
        struct ws_event event;
        size_t consumed;
        int r = ws_decode(d, data + done, *len - done, &consumed, &event);
        if (r < 0) {
            o->failed = -r;
            return false;
        }
        assert_true(r == 0 || consumed > 0);
        done += consumed;
        if (r == 1)
            note(o, &event);
        else if (!consumed)
            break;
    }
    memmove(data, data + done, *len - done);
    *len -= done;
    return true;
}

/* Presents the script `step` bytes at a time, as a connection does: what is not consumed stays. The
 * buffer is exactly as large as what has come, so that the sanitizer sees reads beyond. */
static struct outcome run(const struct script *s, size_t step, size_t message_max)
{
    struct outcome o = { 0 };
    struct ws_decoder d;
    size_t held = 0;
    uint8_t *buffer = NULL;
    ws_decoder_init(&d, message_max);
    while (o.at < s->len) {
        size_t n = s->len - o.at < step ? s->len - o.at : step;
        uint8_t *next = malloc(held + n);
        assert_non_null(next);
        if (held)
            memcpy(next, buffer, held);
        memcpy(next + held, s->data + o.at, n);
        free(buffer);
        buffer = next;
        held += n;
        o.at += n;
        if (!decode_all(&d, buffer, &held, &o))
            break;
    }
    free(buffer);
    ws_decoder_done(&d);
    return o;
}

static void check_max(struct script *s, int failed, const char *log, size_t message_max)
{
    static const size_t steps[] = { 1, 2, 3, 7, 64, 4096, SIZE_MAX / 2 };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (s->len > 20000 && steps[i] < 4096)
            continue;
        struct outcome o = run(s, steps[i], message_max);
        assert_int_equal(o.failed, failed);
        assert_string_equal(o.log, log);
    }
    free(s->data);
    *s = (struct script){ 0 };
}

static void check(struct script *s, int failed, const char *log)
{
    check_max(s, failed, log, MESSAGE_MAX);
}

/* ---- messages ---- */

static void whole_messages(void **state)
{
    struct script s = { 0 };
    script_text(&s, 0x81, "hello");
    script_text(&s, 0x82, "\xFF\xFE");
    script_text(&s, 0x81, "");
    script_text(&s, 0x81, "käse 🎉");
    check(&s, 0, "1:5:hello\n2:2:\\xff\\xfe\n1:0:\n1:10:käse 🎉\n");
}

static void every_length_form(void **state)
{
    static const size_t lengths[] = { 0,   1,   7,   8,    9,     124,   125,
                                      126, 127, 128, 4095, 65534, 65535, 65536 };
    static char payload[65536 + 1];
    memset(payload, 'x', sizeof(payload) - 1);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct script s = { 0 };
        char log[128];
        size_t shown = lengths[i] < 60 ? lengths[i] : 60;
        (void)snprintf(log, sizeof(log), "1:%zu:%.*s\n", lengths[i], (int)shown, payload);
        script_frame(&s, 0x81, payload, lengths[i]);
        check(&s, 0, log);
    }
}

static void fragments_become_one_message(void **state)
{
    struct script s = { 0 };
    script_text(&s, 0x01, "Hel");
    script_text(&s, 0x00, "");
    script_text(&s, 0x00, "lo ");
    script_text(&s, 0x80, "world");
    script_text(&s, 0x02, "");
    script_text(&s, 0x80, "");
    script_text(&s, 0x02, "\xFF");
    script_text(&s, 0x80, "\xFE");
    check(&s, 0, "1:11:Hello world\n2:0:\n2:2:\\xff\\xfe\n");
}

static void control_frames_between_fragments(void **state)
{
    struct script s = { 0 };
    script_text(&s, 0x01, "one ");
    script_text(&s, 0x89, "ping");
    script_text(&s, 0x00, "two ");
    script_text(&s, 0x8A, "");
    script_text(&s, 0x80, "three");
    script_text(&s, 0x89, "");
    check(&s, 0, "9:4:ping\n10:0:\n1:13:one two three\n9:0:\n");
}

static void characters_cut_by_fragments(void **state)
{
    const char *text = "aä日🎉";
    for (size_t a = 0; a <= strlen(text); a++)
        for (size_t b = a; b <= strlen(text); b++) {
            struct script s = { 0 };
            script_frame(&s, 0x01, text, a);
            script_text(&s, 0x89, "\xFF"); /* a ping's payload is no text */
            script_frame(&s, 0x00, text + a, b - a);
            script_frame(&s, 0x80, text + b, strlen(text) - b);
            check(&s, 0, "9:1:\\xff\n1:10:aä日🎉\n");
        }
}

static void memory_is_held_only_for_fragments(void **state)
{
    struct script s = { 0 };
    struct ws_decoder d;
    struct ws_event event;
    size_t consumed, at = 0;
    script_text(&s, 0x81, "whole");
    script_text(&s, 0x01, "frag");
    script_text(&s, 0x80, "ment");
    ws_decoder_init(&d, MESSAGE_MAX);
    assert_true(ws_decoder_idle(&d));
    assert_int_equal(ws_decode(&d, s.data, s.len, &consumed, &event), 1);
    assert_true(event.data > s.data && event.data < s.data + s.len); /* not copied */
    assert_true(ws_decoder_idle(&d));
    assert_null(d.message.data);
    at += consumed;
    assert_int_equal(ws_decode(&d, s.data + at, s.len - at, &consumed, &event), 0);
    assert_false(ws_decoder_idle(&d));
    at += consumed;
    assert_int_equal(ws_decode(&d, s.data + at, s.len - at, &consumed, &event), 1);
    assert_true(ws_decoder_idle(&d));
    assert_memory_equal(event.data, "fragment", 8);
    at += consumed;
    assert_int_equal(at, s.len);
    assert_int_equal(ws_decode(&d, s.data + at, 0, &consumed, &event), 0);
    assert_null(d.message.data);
    ws_decoder_done(&d);
    free(s.data);
}

static void the_end_of_a_decoder_frees_an_unfinished_message(void **state)
{
    struct script s = { 0 };
    struct ws_decoder d;
    struct ws_event event;
    size_t consumed;
    script_text(&s, 0x01, "never finished");
    ws_decoder_init(&d, 100);
    assert_int_equal(ws_decode(&d, s.data, s.len, &consumed, &event), 0);
    ws_decoder_done(&d); /* the leak checker looks */
    assert_true(ws_decoder_idle(&d));
    assert_int_equal(d.message.max, 100);
    free(s.data);
}

/* ---- close ---- */

static void close_frames(void **state)
{
    static const struct {
        const char *payload;
        size_t len;
        int failed;
        const char *log;
    } cases[] = {
        { "", 0, 0, "8:0:(1005)\n" },
        { "\x03\xE8", 2, 0, "8:0:(1000)\n" },
        { "\x03\xE8 bye ä", 9, 0, "8:7: bye ä(1000)\n" },
        { "\x03", 1, 1002, "" },
        { "\x00\x00", 2, 1002, "" },
        { "\x03\xE7", 2, 1002, "" }, /* 999 */
        { "\x03\xED", 2, 1002, "" }, /* 1005 */
        { "\x03\xE8\xFF", 3, 1007, "" },
        { "\x03\xE8\xE2\x82", 4, 1007, "" }, /* unfinished character */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct script s = { 0 };
        script_frame(&s, 0x88, cases[i].payload, cases[i].len);
        check(&s, cases[i].failed, cases[i].log);
    }
}

static void close_codes(void **state)
{
    static const uint16_t good[] = { 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                                     1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999 };
    static const uint16_t bad[] = { 0,    1,    999,  1004, 1005, 1006, 1015,
                                    1016, 1100, 2000, 2999, 5000, 65535 };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(ws_close_code_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(ws_close_code_valid(bad[i]));
}

/* ---- what is forbidden ---- */

/* Presents the bytes one at a time: the failure must come with the last of them, not later. */
static void check_early(const void *bytes, size_t len, int failed, size_t message_max)
{
    struct script s = { 0 };
    script_raw(&s, bytes, len);
    struct outcome o = run(&s, 1, message_max);
    assert_int_equal(o.failed, failed);
    assert_int_equal(o.at, len);
    check_max(&s, failed, "", message_max);
}

static void reserved_bits_and_opcodes(void **state)
{
    for (unsigned first = 0; first < 256; first++) {
        unsigned opcode = first & 15;
        bool final = first & 0x80, control = opcode >= 8;
        bool known = opcode <= 2 || (opcode >= 8 && opcode <= 10);
        if (first & 0x70 || !known || (control && !final) || opcode == 0)
            check_early((uint8_t[]){ (uint8_t)first }, 1, 1002, MESSAGE_MAX);
    }
}

static void unmasked_frames(void **state)
{
    check_early("\x81\x00", 2, 1002, MESSAGE_MAX);
    check_early("\x81\x05", 2, 1002, MESSAGE_MAX);
    check_early("\x89\x00", 2, 1002, MESSAGE_MAX);
    check_early("\x82\x7F", 2, 1002, MESSAGE_MAX);
}

static void long_control_frames(void **state)
{
    char payload[125];
    memset(payload, 'p', sizeof(payload));
    struct script s = { 0 };
    script_frame(&s, 0x89, payload, 125);
    char log[80];
    (void)snprintf(log, sizeof(log), "9:125:%.60s\n", payload);
    check(&s, 0, log);
    check_early("\x89\xFE", 2, 1002, MESSAGE_MAX);
    check_early("\x88\xFF", 2, 1002, MESSAGE_MAX);
    check_early("\x8A\xFE", 2, 1002, MESSAGE_MAX);
}

static void lengths_in_too_long_a_form(void **state)
{
    check_early("\x82\xFE\x00\x7D", 4, 1002, MESSAGE_MAX);
    check_early("\x82\xFE\x00\x00", 4, 1002, MESSAGE_MAX);
    check_early("\x82\xFF\0\0\0\0\0\0\xFF\xFF", 10, 1002, MESSAGE_MAX);
    check_early("\x82\xFF\0\0\0\0\0\0\0\x01", 10, 1002, MESSAGE_MAX);
    check_early("\x82\xFF\x80\0\0\0\0\x01\0\0", 10, 1002, MESSAGE_MAX); /* the 64th bit */
}

static void too_big_by_the_declared_length(void **state)
{
    check_early("\x81\xFE\x04\x01", 4, 1009, 1024);
    check_early("\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 10, 1009, 1024);
    check_early("\x01\xFE\x04\x01", 4, 1009, 1024);
    check_early("\x82\xFF\0\0\0\0\x01\0\0\0", 10, 1009, MESSAGE_MAX);
}

static void too_big_in_sum(void **state)
{
    char payload[600];
    struct script s = { 0 };
    memset(payload, 'x', sizeof(payload));
    script_frame(&s, 0x02, payload, 600);
    script_frame(&s, 0x00, payload, 424);
    script_text(&s, 0x80, "");
    char log[80];
    (void)snprintf(log, sizeof(log), "2:1024:%.60s\n", payload);
    check_max(&s, 0, log, 1024);
    script_frame(&s, 0x02, payload, 600);
    script_raw(&s, "\x80\xFE\x01\xA9", 4); /* 425 more are declared */
    check_max(&s, 1009, "", 1024);
}

static void control_frames_are_no_part_of_the_limit(void **state)
{
    struct script s = { 0 };
    script_text(&s, 0x02, "0123456789");
    script_text(&s, 0x89, "a ping of more than ten bytes");
    script_text(&s, 0x80, "");
    check_max(&s, 0, "9:29:a ping of more than ten bytes\n2:10:0123456789\n", 10);
}

static void too_many_fragments(void **state)
{
    struct script s = { 0 };
    script_text(&s, 0x02, "");
    for (unsigned i = 1; i < WS_FRAGMENTS_MAX - 1; i++)
        script_text(&s, 0x00, "");
    script_text(&s, 0x80, "");
    script_text(&s, 0x02, "");
    for (unsigned i = 1; i < WS_FRAGMENTS_MAX; i++)
        script_text(&s, 0x00, "");
    script_text(&s, 0x80, "");
    check(&s, 1009, "2:0:\n");
}

static void fragments_out_of_order(void **state)
{
    struct script s = { 0 };
    script_text(&s, 0x80, "nothing to continue");
    check(&s, 1002, "");
    script_text(&s, 0x01, "a");
    script_text(&s, 0x81, "b");
    check(&s, 1002, "");
    script_text(&s, 0x01, "a");
    script_text(&s, 0x02, "b");
    check(&s, 1002, "");
    script_text(&s, 0x81, "whole");
    script_text(&s, 0x00, "more?");
    check(&s, 1002, "1:5:whole\n");
}

/* ---- UTF-8 ---- */

static void invalid_text(void **state)
{
    static const char *const bad[] = {
        "\xFF",         "a\x80", "\xC0\xAF",   "\xED\xA0\x80", "\xF4\x90\x80\x80",
        "12345678\xFE", "\xC3",  "abc\xE2\x82"
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct script s = { 0 };
        script_text(&s, 0x81, bad[i]);
        check(&s, 1007, "");
        script_text(&s, 0x01, "good ");
        script_text(&s, 0x80, bad[i]);
        check(&s, 1007, "");
        script_text(&s, 0x01, "good ");
        script_text(&s, 0x00, bad[i]);
        script_text(&s, 0x80, "(");
        check(&s, 1007, "");
    }
}

/* With every split: the failure comes with the very byte that can't be, whether the frame is whole
 * or not, and not only at the end of the message. */
static void invalid_text_fails_with_the_wrong_byte(void **state)
{
    for (size_t at = 0; at < 600; at += 37) {
        for (unsigned final = 0; final < 2; final++) {
            char text[700];
            struct script s = { 0 };
            memset(text, 'x', sizeof(text));
            text[at] = '\xF4';
            text[at + 1] = '\x90';
            script_frame(&s, final ? 0x81 : 0x01, text, sizeof(text));
            struct outcome o = run(&s, 1, MESSAGE_MAX);
            assert_int_equal(o.failed, 1007);
            assert_int_equal(o.at, 8 + at + 2); /* head of 4, mask of 4 */
            check(&s, 1007, "");
        }
    }
}

static void invalid_text_in_a_later_fragment_fails_at_once(void **state)
{
    struct script s = { 0 };
    script_text(&s, 0x01, "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5");
    script_text(&s, 0x00, "\xF4\x90\x80\x80"); /* no final frame follows */
    struct outcome o = run(&s, 1, MESSAGE_MAX);
    assert_int_equal(o.failed, 1007);
    assert_int_equal(o.at, s.len - 2); /* with 0x90 */
    check(&s, 1007, "");
}

static void partial_checks_leave_the_bytes_alone(void **state)
{
    static char text[5000];
    for (size_t i = 0; i + 2 <= sizeof(text); i += 2)
        memcpy(text + i, "ä", 2);
    struct script s = { 0 };
    script_frame(&s, 0x81, text, sizeof(text));
    struct ws_decoder d;
    struct ws_event event;
    size_t consumed;
    ws_decoder_init(&d, MESSAGE_MAX);
    for (size_t n = 0; n < s.len; n++)
        assert_int_equal(ws_decode(&d, s.data, n, &consumed, &event), 0);
    assert_false(ws_decoder_idle(&d));
    assert_int_equal(ws_decode(&d, s.data, s.len, &consumed, &event), 1);
    assert_int_equal(event.len, sizeof(text));
    assert_memory_equal(event.data, text, sizeof(text));
    ws_decoder_done(&d);
    free(s.data);
}

/* ---- outbound and handshake ---- */

static void heads(void **state)
{
    uint8_t head[WS_HEAD_MAX];
    assert_int_equal(ws_encode_head(head, WS_TEXT, 0), 2);
    assert_memory_equal(head, "\x81\x00", 2);
    assert_int_equal(ws_encode_head(head, WS_BINARY, 125), 2);
    assert_memory_equal(head, "\x82\x7D", 2);
    assert_int_equal(ws_encode_head(head, WS_TEXT, 126), 4);
    assert_memory_equal(head, "\x81\x7E\x00\x7E", 4);
    assert_int_equal(ws_encode_head(head, WS_TEXT, 65535), 4);
    assert_memory_equal(head, "\x81\x7E\xFF\xFF", 4);
    assert_int_equal(ws_encode_head(head, WS_TEXT, 65536), 10);
    assert_memory_equal(head, "\x81\x7F\0\0\0\0\0\x01\0\0", 10);
    assert_int_equal(ws_encode_head(head, WS_PING, 0), 2);
    assert_memory_equal(head, "\x89\x00", 2);
}

static void accepts_keys(void **state)
{
    char out[WS_ACCEPT_LEN + 1];
    assert_true(ws_accept(out, "dGhlIHNhbXBsZSBub25jZQ==", 24)); /* RFC 6455 1.3 */
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_true(ws_accept(out, "AAAAAAAAAAAAAAAAAAAAAA==", 24));
    assert_string_equal(out, "ICX+Yqv66kxgM0FcWaLWlFLwTAI=");
}

static void refuses_keys(void **state)
{
    static const char *const bad[] = {
        "",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ==x",
        "dGhlIHNhbXBsZSBub25jZWU=", /* 17 bytes */
        "dGhlIHNhbXBsZSBub25jZWVl", /* 18 bytes */
        "dGhlIHNhbXBs!SBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ= ",
    };
    char out[WS_ACCEPT_LEN + 1];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(ws_accept(out, bad[i], strlen(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_messages),
        cmocka_unit_test(every_length_form),
        cmocka_unit_test(fragments_become_one_message),
        cmocka_unit_test(control_frames_between_fragments),
        cmocka_unit_test(characters_cut_by_fragments),
        cmocka_unit_test(memory_is_held_only_for_fragments),
        cmocka_unit_test(the_end_of_a_decoder_frees_an_unfinished_message),
        cmocka_unit_test(close_frames),
        cmocka_unit_test(close_codes),
        cmocka_unit_test(reserved_bits_and_opcodes),
        cmocka_unit_test(unmasked_frames),
        cmocka_unit_test(long_control_frames),
        cmocka_unit_test(lengths_in_too_long_a_form),
        cmocka_unit_test(too_big_by_the_declared_length),
        cmocka_unit_test(too_big_in_sum),
        cmocka_unit_test(control_frames_are_no_part_of_the_limit),
        cmocka_unit_test(too_many_fragments),
        cmocka_unit_test(fragments_out_of_order),
        cmocka_unit_test(invalid_text),
        cmocka_unit_test(invalid_text_fails_with_the_wrong_byte),
        cmocka_unit_test(invalid_text_in_a_later_fragment_fails_at_once),
        cmocka_unit_test(partial_checks_leave_the_bytes_alone),
        cmocka_unit_test(heads),
        cmocka_unit_test(accepts_keys),
        cmocka_unit_test(refuses_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
