/* Routes: which templates are taken, which path finds which of them, methods, channels. */
#include "routes.h"

#include <fanwire.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct slice text(const char *s)
{
    return (struct slice){ s, strlen(s) };
}

static int add(struct routes *routes, const char *method, const char *path)
{
    struct fw_error err = { 0 };
    struct route route = { .kind = ROUTE_HANDLER, .method = (char *)method, .path = (char *)path };
    int r = routes_add(routes, &route, &err);
    assert_int_equal(r < 0, err.message[0] != 0);
    return r;
}

static int add_stream(struct routes *routes, const char *path, const char *channel)
{
    struct fw_error err = { 0 };
    struct route route = { .kind = ROUTE_STREAM,
                           .method = (char *)"GET",
                           .path = (char *)path,
                           .channel = (char *)channel };
    return routes_add(routes, &route, &err);
}

/* Index, or -1. */
static int find(const struct routes *routes, const char *method, const char *path)
{
    struct route_match match;
    return routes_match(routes, text(path), text(method), false, &match) ? (int)match.index : -1;
}

static void test_templates(void **state)
{
    (void)state;
    struct routes routes = { 0 };
    static const char *const bad[] = {
        "",           "api",      "/a//b",    "/a?b",
        "/{id",       "/x{id}",   "/{id}x",   "/{}",
        "/{i-d}",     "/{1}",     "/{a}/{a}", "/a b",
        "/%41",       "/ws",      "/ws/x",    "/sse/{a}",
        "/history/a", "/publish", "/healthz", "/fanwire.js",
        "/\xff",      "//",       "/a\n",     "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(add(&routes, "GET", bad[i]), -EINVAL);
    static const char *const bad_methods[] = { "", "get", "HEAD", "OPTIONS", "G T", "GET\r\n" };
    for (size_t i = 0; i < sizeof(bad_methods) / sizeof(bad_methods[0]); i++)
        assert_int_equal(add(&routes, bad_methods[i], "/a"), -EINVAL);
    assert_int_equal(routes.count, 0);
    assert_int_equal(add(&routes, "GET", "/"), 0);
    assert_int_equal(add(&routes, "GET", "/wsx"), 1);
    assert_int_equal(add(&routes, "M-SEARCH", "/\xC3\xA9/{a}/"), 2);
    routes_done(&routes);
}

static void test_taken(void **state)
{
    (void)state;
    struct routes routes = { 0 };
    assert_int_equal(add(&routes, "GET", "/a/{id}"), 0);
    assert_int_equal(add(&routes, "GET", "/a/{other}"), -EEXIST);
    assert_int_equal(add(&routes, "PUT", "/a/{other}"), 1);
    assert_int_equal(add(&routes, "GET", "/a/{id}/"), 2);
    assert_int_equal(add(&routes, "GET", "/a/b"), 3);
    assert_int_equal(add_stream(&routes, "/a/{id}", "c:{id}"), 4);
    assert_int_equal(add_stream(&routes, "/a/{x}", "d:{x}"), -EEXIST);
    struct fw_error err = { 0 };
    struct route asset = { .kind = ROUTE_ASSET,
                           .method = (char *)"GET",
                           .path = (char *)"/a/b",
                           .type = (char *)"text/plain",
                           .data = "x",
                           .len = 1 };
    assert_int_equal(routes_add(&routes, &asset, &err), -EEXIST);
    asset.path = (char *)"/{a}";
    assert_int_equal(routes_add(&routes, &asset, &err), -EINVAL);
    asset.path = (char *)"/a.js";
    assert_int_equal(routes_add(&routes, &asset, &err), 5);
    assert_int_equal(routes.n_calls, 5);
    assert_true(strlen(routes.items[5].etag) > 2);
    routes_done(&routes);
}

static void test_matching(void **state)
{
    (void)state;
    struct routes routes = { 0 };
    struct route_match match;
    assert_int_equal(add(&routes, "GET", "/{a}/x"), 0);
    assert_int_equal(add(&routes, "GET", "/t/{b}"), 1);
    assert_int_equal(add(&routes, "GET", "/t/x"), 2);
    assert_int_equal(add(&routes, "PUT", "/t/{b}"), 3);
    assert_int_equal(add(&routes, "GET", "/t/{b}/"), 4);
    assert_int_equal(add(&routes, "GET", "/"), 5);
    assert_int_equal(find(&routes, "GET", "/t/x"), 2);
    assert_int_equal(find(&routes, "HEAD", "/t/x"), 2);
    assert_int_equal(find(&routes, "GET", "/t/%78"), 2);
    assert_int_equal(find(&routes, "GET", "/t/y"), 1);
    assert_int_equal(find(&routes, "GET", "/s/x"), 0);
    assert_int_equal(find(&routes, "PUT", "/t/x"), 3);
    assert_int_equal(find(&routes, "GET", "/t/y/"), 4);
    assert_int_equal(find(&routes, "GET", "/"), 5);
    static const char *const none[] = { "/t/", "/t//", "/t", "/s/y", "/t/y/z", "//", "*", "" };
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_int_equal(find(&routes, "GET", none[i]), -1);
    assert_int_equal(find(&routes, "POST", "/t/x"), -1);
    assert_true(routes_match(&routes, text("/t/a%2Fb"), text("PUT"), false, &match));
    assert_int_equal(match.params[0].len, 5);
    assert_memory_equal(match.params[0].data, "a%2Fb", 5);
    assert_false(routes_match(NULL, text("/"), text("GET"), false, &match));
    routes_done(&routes);
}

static void test_methods(void **state)
{
    (void)state;
    struct routes routes = { 0 };
    char out[40];
    assert_int_equal(add(&routes, "PUT", "/a"), 0);
    assert_int_equal(add(&routes, "GET", "/{x}"), 1);
    assert_int_equal(add_stream(&routes, "/s/{x}", "s"), 2);
    assert_string_equal(routes_methods(&routes, text("/a"), out, sizeof(out)),
                        "PUT, GET, HEAD, OPTIONS");
    assert_string_equal(routes_methods(&routes, text("/s/1"), out, sizeof(out)),
                        "GET, HEAD, OPTIONS");
    assert_string_equal(routes_methods(&routes, text("/a/b"), out, sizeof(out)), "");
    assert_string_equal(routes_methods(NULL, text("/a"), out, sizeof(out)), "");
    static const char *const more[] = { "POST", "DELETE", "PATCH", "PROPFIND", "PROPPATCH" };
    for (size_t i = 0; i < 5; i++)
        assert_true(add(&routes, more[i], "/a") > 0);
    assert_true(strlen(routes_methods(&routes, text("/a"), out, sizeof(out))) < sizeof(out));
    assert_string_equal(out + strlen(out) - 7, "OPTIONS");
    routes_done(&routes);
}

static void test_channels(void **state)
{
    (void)state;
    struct routes routes = { 0 };
    static const char *const bad[] = { "", "c:{b}", "c:{a", "c:a}", "c:{}", "{a}}" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(add_stream(&routes, "/{a}", bad[i]), -EINVAL);
    char name[FW_CHANNEL_MAX], long_name[FW_CHANNEL_MAX + 1];
    assert_int_equal(add_stream(&routes, "/{a}/{b}", "x:{b}/{a}:y:{b}"), 0);
    const struct slice params[] = { text("one"), text("two") };
    assert_int_equal(route_channel(&routes.items[0], params, name, sizeof(name)), 15);
    assert_memory_equal(name, "x:two/one:y:two", 15);
    memset(long_name, 'a', sizeof(long_name));
    const struct slice too_long[] = { { long_name, sizeof(long_name) }, text("") };
    assert_int_equal(route_channel(&routes.items[0], too_long, name, sizeof(name)), -EMSGSIZE);
    routes_done(&routes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_templates), cmocka_unit_test(test_taken),
        cmocka_unit_test(test_matching),  cmocka_unit_test(test_methods),
        cmocka_unit_test(test_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
