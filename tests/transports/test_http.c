/* The request-head parser: fed whole and byte by byte, with everything RFC 9112 forbids. */
#include "http.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Parses an exact copy, so that the sanitizer sees reads beyond the end; the caller frees it. */
static int64_t parse(const char *data, size_t len, struct http_request *r, char **ret_copy)
{
    const char *error = NULL;
    *ret_copy = malloc(len ? len : 1);
    assert_non_null(*ret_copy);
    memcpy(*ret_copy, data, len);
    int64_t n = http_parse(*ret_copy, len, r, &error);
    assert_int_equal(error != NULL, n < 0);
    return n;
}

/* What comes of the text when it arrives byte by byte: the length, or the status, with *ret_at the
 * bytes that had come by then. */
static int64_t feed(const char *text, size_t len, size_t *ret_at)
{
    struct http_request r;
    for (*ret_at = 0; *ret_at <= len; ++*ret_at) {
        char *copy;
        int64_t n = parse(text, *ret_at, &r, &copy);
        free(copy);
        if (n != 0)
            return n;
    }
    return 0;
}

static void assert_slice(struct slice s, const char *expected)
{
    if (!expected) {
        assert_null(s.data);
        return;
    }
    assert_non_null(s.data);
    assert_int_equal(s.len, strlen(expected));
    assert_memory_equal(s.data, expected, s.len);
}

/* A head that must be good, however it arrives. Kept until the next call. */
static struct http_request good(const char *text)
{
    static char *copy;
    struct http_request r;
    size_t at;
    free(copy);
    copy = NULL;
    if (!text)
        return (struct http_request){ 0 };
    int64_t n = parse(text, strlen(text), &r, &copy);
    if (n != (int64_t)strlen(text))
        fail_msg("%lld for %s", (long long)n, text);
    assert_int_equal(feed(text, strlen(text), &at), n);
    assert_int_equal(at, n);
    return r;
}

static int forget(void **state)
{
    (void)good(NULL);
    return 0;
}

static void bad_bytes(const char *text, size_t len, int status)
{
    struct http_request r;
    char *copy;
    size_t at;
    int64_t n = parse(text, len, &r, &copy);
    free(copy);
    if (n != -status)
        fail_msg("%lld instead of %d for %s", (long long)n, -status, text);
    assert_int_equal(feed(text, len, &at), -status);
}

static void bad(const char *text, int status)
{
    bad_bytes(text, strlen(text), status);
}

#define HOST           "Host: a\r\n"
#define BYTES(literal) literal, sizeof(literal) - 1
#define GET            "GET / HTTP/1.1\r\n" HOST

/* ---- good heads ---- */

static void a_browser_s_upgrade(void **state)
{
    struct http_request r = good("GET /ws/todos?since=now HTTP/1.1\r\n"
                                 "Host: localhost:4600\r\n"
                                 "Connection: keep-alive, Upgrade\r\n"
                                 "Upgrade: websocket\r\n"
                                 "Origin: http://localhost:3000\r\n"
                                 "Sec-WebSocket-Version: 13\r\n"
                                 "Cookie: a=b\r\n"
                                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                 "Sec-WebSocket-Protocol: fanwire.v1, other\r\n"
                                 "Sec-WebSocket-Extensions: permessage-deflate; x\r\n\r\n");
    assert_int_equal(r.method, HTTP_GET);
    assert_int_equal(r.minor, 1);
    assert_true(r.keep_alive && r.upgrade_websocket);
    assert_false(r.chunked || r.has_length || r.expect_continue);
    assert_slice(r.path, "/ws/todos");
    assert_slice(r.query, "since=now");
    assert_slice(r.host, "localhost:4600");
    assert_slice(r.origin, "http://localhost:3000");
    assert_slice(r.cookie, "a=b");
    assert_slice(r.ws_version, "13");
    assert_slice(r.ws_key, "dGhlIHNhbXBsZSBub25jZQ==");
    assert_slice(r.ws_protocol, "fanwire.v1, other");
    assert_slice(r.ws_extensions, "permessage-deflate; x");
    assert_slice(r.last_event_id, NULL);
    assert_slice(r.authorization, NULL);
}

static void a_publisher_s_post(void **state)
{
    struct http_request r = good("POST /publish/a%20b HTTP/1.1\r\n"
                                 "Host: [::1]:4600\r\n"
                                 "Content-Length: 0012\r\n"
                                 "Content-Type:text/plain\r\n"
                                 "Authorization: \t Bearer x y \t \r\n"
                                 "Idempotency-Key: \"k\"\r\n"
                                 "Fanwire-Client: k3x9\r\n"
                                 "Expect: 100-Continue\r\n"
                                 "X-Forwarded-For: 1.2.3.4\r\n\r\n");
    assert_int_equal(r.method, HTTP_POST);
    assert_true(r.has_length && r.expect_continue && r.keep_alive);
    assert_int_equal(r.content_length, 12);
    assert_slice(r.path, "/publish/a%20b");
    assert_slice(r.query, NULL);
    assert_slice(r.content_type, "text/plain");
    assert_slice(r.authorization, "Bearer x y");
    assert_slice(r.idempotency_key, "\"k\"");
    assert_slice(r.client, "k3x9");
    assert_slice(r.forwarded_for, "1.2.3.4");
}

static void eventsource_and_preflight(void **state)
{
    struct http_request r = good("GET /sse/x HTTP/1.1\r\nhost: a\r\nLAST-EVENT-ID: l1.2\r\n"
                                 "accept: text/event-stream\r\nIf-None-Match: \"1\"\r\n\r\n");
    assert_slice(r.last_event_id, "l1.2");
    assert_slice(r.accept, "text/event-stream");
    assert_slice(r.if_none_match, "\"1\"");
    r = good("OPTIONS /publish/x HTTP/1.1\r\nHost: a\r\nOrigin: null\r\n"
             "Access-Control-Request-Method: POST\r\n"
             "Access-Control-Request-Headers: content-type\r\n\r\n");
    assert_int_equal(r.method, HTTP_OPTIONS);
    assert_slice(r.cors_method, "POST");
    assert_slice(r.cors_headers, "content-type");
}

static void methods(void **state)
{
    static const struct {
        const char *text;
        enum http_method method;
    } cases[] = {
        { "GET", HTTP_GET },     { "HEAD", HTTP_HEAD },      { "POST", HTTP_POST },
        { "PUT", HTTP_PUT },     { "DELETE", HTTP_DELETE },  { "OPTIONS", HTTP_OPTIONS },
        { "PATCH", HTTP_OTHER }, { "get", HTTP_OTHER },      { "GETX", HTTP_OTHER },
        { "GE", HTTP_OTHER },    { "M-SEARCH", HTTP_OTHER }, { "G#T", HTTP_OTHER },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64];
        (void)snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: a\r\n\r\n", cases[i].text);
        struct http_request r = good(text);
        assert_int_equal(r.method, cases[i].method);
        assert_slice(r.method_text, cases[i].text);
    }
}

static void targets(void **state)
{
    static const struct {
        const char *target, *path, *query, *host;
    } cases[] = {
        { "/", "/", NULL, "a" },
        { "/x?", "/x", "", "a" },
        { "/x?a=1?b", "/x", "a=1?b", "a" },
        { "//x//y", "//x//y", NULL, "a" },
        { "/a|b{c}", "/a|b{c}", NULL, "a" },
        { "http://b.example:80/x?y", "/x", "y", "b.example:80" },
        { "HTTPS://b.example", "/", NULL, "b.example" },
        { "http://b?q", "/", "q", "b" },
        { "http://[::1]:1/x", "/x", NULL, "[::1]:1" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\n" HOST "\r\n", cases[i].target);
        struct http_request r = good(text);
        assert_slice(r.path, cases[i].path);
        assert_slice(r.query, cases[i].query);
        assert_slice(r.host, cases[i].host);
    }
    struct http_request r = good("OPTIONS * HTTP/1.1\r\n" HOST "\r\n");
    assert_slice(r.path, "*");
}

static void persistence(void **state)
{
    static const struct {
        const char *version, *connection;
        bool keep;
    } cases[] = {
        { "1.1", "x", true },
        { "1.1", "close", false },
        { "1.1", "keep-alive", true },
        { "1.1", "Keep-Alive, CLOSE", false },
        { "1.0", "x", false },
        { "1.0", "keep-alive", true },
        { "1.0", "close", false },
        { "1.1", "closed", true },
        { "1.1", "", true },
        { "1.1", ",,close,", false },
        { "1.1", "x\r\nConnection: close", false },
        { "1.0", "keep-alive\r\nConnection: close", false },
        { "1.9", "x", true },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "GET / HTTP/%s\r\n" HOST "Connection: %s\r\n\r\n",
                       cases[i].version, cases[i].connection);
        assert_int_equal(good(text).keep_alive, cases[i].keep);
    }
}

static void upgrades(void **state)
{
    assert_true(good(GET "Connection: x\r\nUpgrade: h2c\r\nConnection: \tUPGRADE \r\n"
                         "Upgrade: foo, WebSocket\r\n\r\n")
                    .upgrade_websocket);
    assert_false(good(GET "Upgrade: websocket\r\n\r\n").upgrade_websocket);
    assert_false(good(GET "Connection: upgrade\r\n\r\n").upgrade_websocket);
    assert_false(good(GET "Connection: upgrade\r\nUpgrade: websockets\r\n\r\n").upgrade_websocket);
    assert_false(good("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                     .upgrade_websocket);
}

static void http_1_0(void **state)
{
    struct http_request r = good("GET / HTTP/1.0\r\n\r\n");
    assert_int_equal(r.minor, 0);
    assert_slice(r.host, NULL);
    r = good("POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(r.content_length, 3);
    assert_false(r.expect_continue);
}

static void bodies(void **state)
{
    assert_true(good(GET "Transfer-Encoding: \tCHUNKED \r\n\r\n").chunked);
    struct http_request r = good(GET "Content-Length: 18446744073709551615\r\n\r\n");
    assert_true(r.content_length == UINT64_MAX);
    assert_true(good(GET "Content-Length: 0\r\n\r\n").has_length);
}

static void first_of_lists_is_kept(void **state)
{
    struct http_request r = good(GET "Cookie: a=1\r\nCookie: b=2\r\nAccept: x\r\nAccept: y\r\n"
                                     "X-Forwarded-For: 1\r\nX-Forwarded-For: 2\r\n"
                                     "If-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n"
                                     "Sec-WebSocket-Extensions: p\r\n"
                                     "Sec-WebSocket-Extensions: q\r\n\r\n");
    assert_slice(r.cookie, "a=1");
    assert_slice(r.accept, "x");
    assert_slice(r.forwarded_for, "1");
    assert_slice(r.if_none_match, "\"a\"");
    assert_slice(r.ws_extensions, "p");
}

static void empty_values_are_there(void **state)
{
    struct http_request r = good(GET "Origin:\r\nCookie: \t \r\nX-Other:\r\n\r\n");
    assert_slice(r.origin, "");
    assert_slice(r.cookie, "");
    assert_slice(r.accept, NULL);
}

static void values_may_hold_utf8(void **state)
{
    assert_slice(good(GET "Last-Event-ID: k\xC3\xA4se\r\n\r\n").last_event_id, "k\xC3\xA4se");
}

static void what_follows_is_left_alone(void **state)
{
    const char *text = GET "\r\nGET /next HTTP/1.1\r\n";
    struct http_request r;
    char *copy;
    assert_int_equal(parse(text, strlen(text), &r, &copy), strlen(GET) + 2);
    free(copy);
    assert_int_equal(http_parse("", 0, &r, NULL), 0);
    assert_int_equal(http_parse(NULL, 0, &r, NULL), 0);
    assert_int_equal(http_parse("x\n", 2, &r, NULL), -400);
}

static void one_empty_line_before_is_tolerated(void **state)
{
    struct http_request r = good("\r\n" GET "\r\n");
    assert_slice(r.path, "/");
    bad("\r\n\r\n", 400);
    bad("\r\n\r\n" GET "\r\n", 400);
    bad("\n" GET "\r\n", 400);
    bad("\r\r\n", 400);
}

/* ---- bad heads ---- */

static void bad_request_lines(void **state)
{
    static const char *const lines[] = {
        "GET",
        "GET /",
        "GET / ",
        "GET / HTTP/1.1 ",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / a HTTP/1.1",
        "/ HTTP/1.1",
        "GET HTTP/1.1",
        "G(T / HTTP/1.1",
        "G\"T / HTTP/1.1",
        "GET: / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / HTTP/1",
        "GET / HTTP/1.",
        "GET / HTTP/.1",
        "GET / HTTP/1,1",
        "GET / HTTP/+1.1",
        "GET / HTTPS/1.1",
        "GET / HTTP 1.1",
        "GET / HTTP/1.x",
        "GET x HTTP/1.1",
        "GET * HTTP/1.1",
        "GET *x HTTP/1.1",
        "OPTIONS *? HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a:b/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET http://[::1]x/ HTTP/1.1",
        "GET /#x HTTP/1.1",
        "GET /\x7F HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET /k\xC3\xA4se HTTP/1.1",
        "GET ?x HTTP/1.1",
        "\x16\x03\x01",
        "\x80",
        "SSH-2.0-x",
        "GET /\\\r HTTP/1.1",
        "",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "%s\r\n" HOST "\r\n", lines[i]);
        bad(text, 400);
    }
    bad_bytes(BYTES("GET /\0 HTTP/1.1\r\n" HOST "\r\n"), 400);
}

static void other_versions(void **state)
{
    bad("GET / HTTP/2.0\r\n" HOST "\r\n", 505);
    bad("GET / HTTP/0.9\r\n" HOST "\r\n", 505);
    bad("GET / HTTP/9.1\r\n" HOST "\r\n", 505);
    bad("PRI * HTTP/2.0\r\n\r\n", 400); /* asterisk-form: only OPTIONS */
}

static void lines_that_end_wrongly(void **state)
{
    bad("GET / HTTP/1.1\n" HOST "\r\n", 400);
    bad("GET / HTTP/1.1\r\nHost: a\n\r\n", 400);
    bad("GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
    bad("GET / HTTP/1.1\r\r\n" HOST "\r\n", 400);
    bad("GET / HTTP/1.1\rHost: a\r\n\r\n", 400);
    bad("GET / HTTP/1.1\r\nHost: a\rOrigin: b\r\n\r\n", 400);
    bad("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", 400);
    bad("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n", 400);
}

static void bad_fields(void **state)
{
    static const char *const lines[] = {
        " folded",         "\tfolded",         "X",        "X ",       ": x",        " : x",
        "X : y",           "X\t: y",           "X y: z",   "X(: y",    "X[: y",      "X\x01: y",
        "X\xC3\xA4: y",    "X/Y: z",           "X: a\x01", "X: a\x7F", "X: \x1B[0m", "X: a\n b",
        "X: a\r\n folded", "X: a\r\n\tfolded", "\"X\": y", "X@: y",    "{X}: y",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), GET "%s\r\n\r\n", lines[i]);
        bad(text, 400);
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n%s\r\n" HOST "\r\n", lines[i]);
        bad(text, 400);
    }
    bad_bytes(BYTES(GET "X: a\0b\r\n\r\n"), 400);
    bad_bytes(BYTES(GET "X\0: b\r\n\r\n"), 400);
}

static void hosts(void **state)
{
    static const char *const wrong[] = {
        "",    "a b",     "a/b",     "a@b", "a:b",  "a:80:80",     "a#", "a?",   "[::1",
        "::1", "[::1]80", "[::1]:x", ":80", "a\\b", "k\xC3\xA4se", "a]", "a, b", "http://a"
    };
    static const char *const right[] = { "a",
                                         "a:80",
                                         "a:",
                                         "127.0.0.1:4600",
                                         "[::1]",
                                         "[::1]:80",
                                         "ex-am_ple.com",
                                         "xn--kse-qla.example",
                                         "a%20b" };
    char text[128];
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", wrong[i]);
        bad(text, 400);
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", wrong[i]);
        bad(text, 400);
    }
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", right[i]);
        assert_slice(good(text).host, right[i]);
    }
    bad("GET / HTTP/1.1\r\n\r\n", 400);
    bad("GET http://a/ HTTP/1.1\r\n\r\n", 400);
    bad("GET http://a/ HTTP/1.1\r\nHost: x y\r\n\r\n", 400);
    bad(GET HOST "\r\n", 400);
    bad("GET / HTTP/1.0\r\n" HOST HOST "\r\n", 400);
}

static void repeated_fields(void **state)
{
    static const char *const lines[] = {
        "Origin: a",
        "Sec-WebSocket-Key: a",
        "Sec-WebSocket-Version: 13",
        "Last-Event-ID: a",
        "Content-Length: 1",
        "Authorization: a",
        "Content-Type: a",
        "Idempotency-Key: a",
        "Fanwire-Client: a",
        "Access-Control-Request-Method: a",
        "Transfer-Encoding: chunked",
        "Sec-WebSocket-Protocol: a",
        "Access-Control-Request-Headers: a",
        "Expect: a",
        "Origin:",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char text[256];
        (void)snprintf(text, sizeof(text), GET "%s\r\nX: y\r\n%s\r\n\r\n", lines[i], lines[i]);
        bad(text, 400);
    }
}

static void lengths_that_smuggle(void **state)
{
    static const char *const values[] = { "",
                                          "+1",
                                          "-1",
                                          "1,1",
                                          "1, 1",
                                          "1 1",
                                          "0x1",
                                          "1.0",
                                          "1e3",
                                          "a",
                                          "\"1\"",
                                          "1;",
                                          "18446744073709551616",
                                          "99999999999999999999999999" };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), GET "Content-Length: %s\r\n\r\n", values[i]);
        bad(text, 400);
    }
    bad(GET "Content-Length: 1\r\ncontent-length: 2\r\n\r\n", 400);
    bad(GET "Content-Length : 1\r\n\r\n", 400);
}

static void codings_that_smuggle(void **state)
{
    static const struct {
        const char *value;
        int status;
    } cases[] = {
        { "", 400 },
        { ",", 400 },
        { "chunked, chunked", 400 },
        { "chunked,", 400 },
        { ",chunked", 400 },
        { "chunked, gzip", 400 },
        { "xchunked", 501 },
        { "gzip", 501 },
        { "gzip, chunked", 501 },
        { "identity", 501 },
        { "chunked;q=1", 501 },
        { "\"chunked\"", 501 },
        { "chunked chunked", 501 },
        { "chunke", 501 },
        { "x\r\nTransfer-Encoding: chunked", 400 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), GET "Transfer-Encoding: %s\r\n\r\n", cases[i].value);
        bad(text, cases[i].status);
    }
    bad(GET "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400);
    bad(GET "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    bad(GET "Content-Length: 1\r\nTransfer-Encoding: xchunked\r\n\r\n", 400);
    bad("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    bad(GET "Transfer-Encoding : chunked\r\n\r\n", 400);
    bad(GET " Transfer-Encoding: chunked\r\n\r\n", 400);
    bad(GET "Transfer-Encoding: \vchunked\r\n\r\n", 400);
}

static void wrong_bytes_are_told_when_they_come(void **state)
{
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        { "\x16", 400 },
        { "GET /\x80", 400 },
        { "GET /\x7F", 400 },
        { "GET / HTTP/1.1\n", 400 },
        { "GET / HTTP/1.1\r\r", 400 },
        { "GET / HTTP/3.0\r\n", 505 },
        { GET "X: y\n", 400 },
        { GET " folded\r\n", 400 },
        { GET HOST, 400 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t at;
        assert_int_equal(feed(cases[i].text, strlen(cases[i].text), &at), -cases[i].status);
        assert_int_equal(at, strlen(cases[i].text));
    }
}

/* ---- limits ---- */

/* A head of exactly `len` bytes with its length in one field. */
static char *head_of(size_t len)
{
    char *text = malloc(len + 1);
    assert_non_null(text);
    int n = snprintf(text, len + 1, GET "X: ");
    memset(text + n, 'x', len - (size_t)n - 4);
    memcpy(text + len - 4, "\r\n\r\n", 5);
    return text;
}

static void heads_of_16_kib(void **state)
{
    struct http_request r;
    char *text = head_of(HTTP_HEAD_MAX);
    assert_int_equal(http_parse(text, HTTP_HEAD_MAX, &r, NULL), HTTP_HEAD_MAX);
    assert_int_equal(http_parse(text, HTTP_HEAD_MAX - 1, &r, NULL), 0);
    free(text);
    text = head_of(HTTP_HEAD_MAX + 1);
    assert_int_equal(http_parse(text, HTTP_HEAD_MAX + 1, &r, NULL), -431);
    assert_int_equal(http_parse(text, HTTP_HEAD_MAX, &r, NULL), -431); /* it can't end in time */
    assert_int_equal(http_parse(text, HTTP_HEAD_MAX - 1, &r, NULL), 0);
    free(text);
    char small[HTTP_HEAD_MAX + 4096] = GET "\r\n"; /* a large body after a small head */
    assert_int_equal(http_parse(small, sizeof(small), &r, NULL), strlen(GET) + 2);
}

static void a_hundred_fields(void **state)
{
    for (size_t n = HTTP_FIELDS_MAX; n <= HTTP_FIELDS_MAX + 1; n++) {
        char text[2048] = GET;
        for (size_t i = 1; i < n; i++)
            strcat(text, "X-Many: y\r\n");
        strcat(text, "\r\n");
        struct http_request r;
        int64_t expected = n <= HTTP_FIELDS_MAX ? (int64_t)strlen(text) : -431;
        assert_int_equal(http_parse(text, strlen(text), &r, NULL), expected);
    }
}

static void request_lines_of_8_kib(void **state)
{
    for (size_t len = HTTP_LINE_MAX - 1; len <= HTTP_LINE_MAX + 1; len++) {
        char text[HTTP_LINE_MAX + 64];
        int status = len > HTTP_LINE_MAX ? -414 : 0;
        struct http_request r;
        memset(text, 'x', len);
        memcpy(text, "GET /", 5);
        memcpy(text + len - 9, " HTTP/1.1", 9);
        memcpy(text + len, "\r\n" HOST "\r\n", strlen(HOST) + 5);
        int64_t expected = status ? status : (int64_t)strlen(text);
        assert_int_equal(http_parse(text, strlen(text), &r, NULL), expected);
        assert_int_equal(http_parse(text, len + 1, &r, NULL), status); /* all but the LF */
        assert_int_equal(http_parse(text, len, &r, NULL), len > HTTP_LINE_MAX + 1 ? -414 : 0);
        assert_int_equal(http_parse(text, len + 2, &r, NULL), status);
    }
    char text[HTTP_LINE_MAX + 2];
    struct http_request r;
    memset(text, 'x', sizeof(text));
    assert_int_equal(http_parse(text, sizeof(text), &r, NULL), -414);
}

/* ---- queries and lists ---- */

static void walk(const char *query, const char *expected)
{
    char *buf = malloc(strlen(query) + 1), log[256] = "";
    assert_non_null(buf);
    struct http_query q = { .rest = { query, strlen(query) }, .buf = buf };
    struct slice name, value;
    int r;
    while ((r = http_query_next(&q, &name, &value)) == 1) {
        size_t n = strlen(log);
        (void)snprintf(log + n, sizeof(log) - n, "[%.*s=%.*s]", (int)name.len, name.data,
                       (int)value.len, value.data);
    }
    if (r < 0)
        strcat(log, r == -EINVAL ? "!" : "?");
    assert_string_equal(log, expected);
    free(buf);
}

static void queries(void **state)
{
    walk("", "");
    walk("a", "[a=]");
    walk("a=1", "[a=1]");
    walk("a=1&b=2", "[a=1][b=2]");
    walk("&&a=1&&b&", "[a=1][b=]");
    walk("=v", "[=v]");
    walk("a=b=c", "[a=b=c]");
    walk("channel=a+b%2B&channel=k%C3%A4se", "[channel=a b+][channel=käse]");
    walk("a%3Db=c%26d", "[a=b=c&d]");
    walk("a=1&b=%", "[a=1]!");
    walk("a=%zz", "!");
    walk("%4", "!");
    walk("a%00b=1", "!");
    walk("a=%00", "[a=]"); /* values are the reader's to check */
    struct http_query none = { 0 };
    struct slice name, value;
    assert_int_equal(http_query_next(&none, &name, &value), 0);
}

static void what_a_query_returned_stays(void **state)
{
    char buf[16];
    struct http_query q = { .rest = { "a=%31&b=%32", 11 }, .buf = buf };
    struct slice a, one, b, two;
    assert_int_equal(http_query_next(&q, &a, &one), 1);
    assert_int_equal(http_query_next(&q, &b, &two), 1);
    assert_slice(a, "a");
    assert_slice(one, "1");
    assert_slice(b, "b");
    assert_slice(two, "2");
}

static void lists(void **state)
{
    struct slice list = { BYTES("fanwire.v1 ,\tOther,, x") };
    assert_true(http_list_has(list, "fanwire.v1"));
    assert_true(http_list_has(list, "other"));
    assert_true(http_list_has(list, "x"));
    assert_false(http_list_has(list, "fanwire"));
    assert_false(http_list_has(list, "fanwire.v10"));
    assert_false(http_list_has((struct slice){ 0 }, "x"));
    assert_false(http_list_has((struct slice){ "", 0 }, "x"));
}

static void statuses(void **state)
{
    assert_string_equal(http_status_text(101), "Switching Protocols");
    assert_string_equal(http_status_text(431), "Request Header Fields Too Large");
    assert_string_equal(http_status_text(299), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_browser_s_upgrade),
        cmocka_unit_test(a_publisher_s_post),
        cmocka_unit_test(eventsource_and_preflight),
        cmocka_unit_test(methods),
        cmocka_unit_test(targets),
        cmocka_unit_test(persistence),
        cmocka_unit_test(upgrades),
        cmocka_unit_test(http_1_0),
        cmocka_unit_test(bodies),
        cmocka_unit_test(first_of_lists_is_kept),
        cmocka_unit_test(empty_values_are_there),
        cmocka_unit_test(values_may_hold_utf8),
        cmocka_unit_test(what_follows_is_left_alone),
        cmocka_unit_test(one_empty_line_before_is_tolerated),
        cmocka_unit_test(bad_request_lines),
        cmocka_unit_test(other_versions),
        cmocka_unit_test(lines_that_end_wrongly),
        cmocka_unit_test(bad_fields),
        cmocka_unit_test(hosts),
        cmocka_unit_test(repeated_fields),
        cmocka_unit_test(lengths_that_smuggle),
        cmocka_unit_test(codings_that_smuggle),
        cmocka_unit_test(wrong_bytes_are_told_when_they_come),
        cmocka_unit_test(heads_of_16_kib),
        cmocka_unit_test(a_hundred_fields),
        cmocka_unit_test(request_lines_of_8_kib),
        cmocka_unit_test(queries),
        cmocka_unit_test(what_a_query_returned_stays),
        cmocka_unit_test(lists),
        cmocka_unit_test(statuses),
    };
    return cmocka_run_group_tests(tests, NULL, forget);
}
