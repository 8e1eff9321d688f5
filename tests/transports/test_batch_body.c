/* The body of a batch: what is taken, and that anything else is refused whatever it is. */
#include "batch_body.h"

#include "batch.h"
#include "inbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum error_code check(void *arg, const char *channel, size_t len, char *detail, size_t size)
{
    (void)snprintf(detail, size, "not this one");
    return len == 4 && memcmp(channel, "none", 4) == 0 ? CODE_CHANNEL_FORBIDDEN : CODE_OK;
}

static struct batch_body read_with(const char *key, const char *json, size_t len,
                                   enum error_code expected)
{
    struct batch_body body = { .key = key, .check = check };
    char *exact = malloc(len ? len : 1); /* so that the sanitizer sees reads beyond */
    memcpy(exact, json, len);
    enum error_code code = batch_body_read(&body, exact, len);
    if (code != expected)
        fail_msg("%.*s: %s, %s", (int)(len < 200 ? len : 200), json, code_text(code),
                 code ? body.detail : "");
    free(exact);
    return body;
}

/* `expected`: "channel key data" of each, separated by semicolons. */
static void takes(const char *key, const char *json, const char *expected)
{
    struct batch_body body = read_with(key, json, strlen(json), CODE_OK);
    const char *at = (const char *)body.events.data;
    size_t left = body.events.len, n = 0;
    struct batch_event event;
    char found[1024] = "";
    for (; batch_next(&at, &left, &event); n++)
        (void)snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s%s %s %.*s",
                       n ? ";" : "", event.channel, event.key, (int)event.len, event.data);
    assert_int_equal(left, 0);
    assert_int_equal(n, body.n);
    assert_string_equal(found, expected);
    buf_done(&body.events);
}

static void refuses(const char *json, enum error_code code, const char *detail)
{
    struct batch_body body = read_with("", json, strlen(json), code);
    assert_non_null(strstr(body.detail, detail));
    buf_done(&body.events);
}

static void every_form_is_taken(void **state)
{
    takes("", "[{\"channel\":\"a\",\"data\":1}]", "a  1");
    takes("",
          " [ {\"data\" : {\"x\": [1,2.50]} , \"channel\" : \"a\"} ,\n{\"channel\":\"b\",\"text\""
          ":\"\\u00fc\"}\n] ",
          "a  {\"x\": [1,2.50]};b  \xc3\xbc");
    takes("", "[{\"channels\":[\"a\", \"b\"],\"base64\":\"aGk=\",\"key\":\"k\"}]", "a k hi;b k hi");
    takes("", "[{\"channel\":\"a\\n\",\"text\":\"\"}]", "a\n  ");
    takes("", "[{\"channel\":\"a\",\"data\":null},{\"channel\":\"a\",\"data\":\"}]\"}]",
          "a  null;a  \"}]\"");
}

static void the_requests_key_is_that_of_each(void **state)
{
    takes("K", "[{\"channels\":[\"a\",\"b\"],\"data\":1},{\"channel\":\"a\",\"data\":2}]",
          "a K/0 1;b K/0 1;a K/1 2");
    char key[256];
    memset(key, 'x', sizeof(key));
    key[254] = '\0';
    const char json[] = "[{\"channel\":\"a\",\"data\":1}]";
    struct batch_body body = read_with(key, json, strlen(json), CODE_BAD_REQUEST);
    buf_done(&body.events);
    key[253] = '\0';
    body = read_with(key, json, strlen(json), CODE_OK);
    buf_done(&body.events);
}

static void what_is_wrong_is_said_with_its_index(void **state)
{
    static const struct {
        const char *json;
        enum error_code code;
        const char *detail;
    } cases[] = {
        { "[{\"channel\":\"a\",\"data\":1},7]", CODE_BAD_REQUEST, "event 1: it is no JSON object" },
        { "[[]]", CODE_BAD_REQUEST, "event 0: it is no" },
        { "[\"x\"]", CODE_BAD_REQUEST, "event 0: it is no" },
        { "[{}]", CODE_BAD_REQUEST, "exactly one of" },
        { "[{\"channel\":\"a\"}]", CODE_BAD_REQUEST, "exactly one of" },
        { "[{\"channel\":\"a\",\"data\":1,\"text\":\"\"}]", CODE_BAD_REQUEST, "exactly one of" },
        { "[{\"data\":1}]", CODE_BAD_REQUEST, "either \"channel\" or" },
        { "[{\"data\":1,\"channel\":\"a\",\"channels\":[]}]", CODE_BAD_REQUEST, "either" },
        { "[{\"data\":1,\"channels\":[]}]", CODE_BAD_REQUEST, "at least one name" },
        { "[{\"data\":1,\"channels\":\"a\"}]", CODE_BAD_REQUEST, "at least one name" },
        { "[{\"data\":1,\"channels\":[\"a\",[\"b\"]]}]", CODE_BAD_CHANNEL, "is a string" },
        { "[{\"data\":1,\"channel\":null}]", CODE_BAD_CHANNEL, "is a string" },
        { "[{\"data\":1,\"channel\":\"none\"}]", CODE_CHANNEL_FORBIDDEN, "event 0: not this one" },
        { "[{\"data\":1,\"channels\":[\"a\",\"none\"]}]", CODE_CHANNEL_FORBIDDEN, "not this one" },
        { "[{\"channel\":\"a\",\"text\":1}]", CODE_BAD_REQUEST, "are strings" },
        { "[{\"channel\":\"a\",\"base64\":\"?\"}]", CODE_BAD_REQUEST, "is not base64" },
        { "[{\"channel\":\"a\",\"data\":1,\"colour\":2}]", CODE_BAD_REQUEST,
          "unknown member \"colour\"" },
        { "[{\"ch\\u0061nnel\":\"a\",\"data\":1}]", CODE_BAD_REQUEST, "unknown member" },
        { "[{\"channel\":\"a\",\"data\":1,\"data\":1}]", CODE_BAD_REQUEST, "\"data\" comes twice" },
        { "[{\"channel\":\"a\",\"data\":1,\"key\":\"\"}]", CODE_BAD_REQUEST, "\"key\" is" },
        { "[{\"channel\":\"a\",\"data\":1,\"key\":\"a\\u0000\"}]", CODE_BAD_REQUEST, "\"key\" is" },
        { "[{\"channel\":\"a\",\"data\":1,\"key\":7}]", CODE_BAD_REQUEST, "\"key\" is" },
        { "", CODE_BAD_REQUEST, "a batch is a JSON array" },
        { "[]", CODE_BAD_REQUEST, "a batch is a JSON array" },
        { "{\"channel\":\"a\",\"data\":1}", CODE_BAD_REQUEST, "a batch is a JSON array" },
        { "[{\"channel\":\"a\",\"data\":1}", CODE_BAD_REQUEST, "a batch is a JSON array" },
        { "\"[]\"", CODE_BAD_REQUEST, "a batch is a JSON array" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        refuses(cases[i].json, cases[i].code, cases[i].detail);
}

static void one_key_or_the_other(void **state)
{
    const char json[] = "[{\"channel\":\"a\",\"data\":1,\"key\":\"own\"}]";
    struct batch_body body = read_with("K", json, strlen(json), CODE_BAD_REQUEST);
    assert_non_null(strstr(body.detail, "one of the two"));
    buf_done(&body.events);
}

static void number_and_size_are_limited(void **state)
{
    static const char event[] = "{\"channels\":[\"a\",\"b\"],\"data\":1}";
    struct buf json = buf_make(1 << 20);
    for (int i = 0; i < INBOX_EVENTS_MAX / 2; i++)
        (void)buf_printf(&json, "%c%s", i ? ',' : '[', event);
    (void)buf_append_char(&json, ']');
    struct batch_body body = read_with("", (char *)json.data, json.len, CODE_OK);
    assert_int_equal(body.n, INBOX_EVENTS_MAX);
    buf_done(&body.events);
    json.len--;
    (void)buf_printf(&json, ",%s]", event);
    body = read_with("", (char *)json.data, json.len, CODE_TOO_LARGE);
    buf_done(&body.events);
    buf_clear(&json);
    (void)buf_printf(&json, "[{\"channels\":[\"a\",\"b\",\"c\"],\"text\":\"%0900000d\"}]", 0);
    body = read_with("", (char *)json.data, json.len, CODE_TOO_LARGE);
    buf_done(&body.events);
    buf_done(&json);
}

/* Each byte of a good batch changed, and each beginning of it: never a step outside. */
static void broken_bodies_are_refused(void **state)
{
    static const char good[] = "[{\"channel\":\"a\",\"data\":{\"x\":[1]},\"key\":\"k\"},"
                               "{\"channels\":[\"a\",\"b\"],\"base64\":\"aGk=\"}]";
    static const char others[] = "\"[]{},:\\ \n0\xff\0";
    for (size_t cut = 0; cut < strlen(good); cut++) {
        struct batch_body body = read_with("", good, cut, CODE_BAD_REQUEST);
        buf_done(&body.events);
    }
    for (size_t i = 0; i < strlen(good); i++)
        for (size_t k = 0; k < sizeof(others); k++) {
            char *changed = malloc(strlen(good));
            memcpy(changed, good, strlen(good));
            changed[i] = others[k];
            struct batch_body body = { .key = "", .check = check };
            enum error_code code = batch_body_read(&body, changed, strlen(good));
            assert_true(code != CODE_OK || body.n > 0);
            buf_done(&body.events);
            free(changed);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_is_taken),
        cmocka_unit_test(the_requests_key_is_that_of_each),
        cmocka_unit_test(what_is_wrong_is_said_with_its_index),
        cmocka_unit_test(one_key_or_the_other),
        cmocka_unit_test(number_and_size_are_limited),
        cmocka_unit_test(broken_bodies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
