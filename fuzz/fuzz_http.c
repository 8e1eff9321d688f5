/* Request heads and queries: whatever comes is parsed the same in pieces, within its bounds. */
#include "fuzz.h"
#include "http.h"

#include <errno.h>
#include <string.h>

static void check_slice(struct slice s, const char *data, int64_t len)
{
    if (s.len)
        require((s.data >= data && s.data + s.len <= data + len) || strcmp(s.data, "/") == 0);
}

static void check_request(const struct http_request *r, const char *data, int64_t len)
{
    const struct slice slices[] = {
        r->method_text, r->path,         r->query,           r->host,          r->origin,
        r->cookie,      r->accept,       r->content_type,    r->authorization, r->last_event_id,
        r->ws_key,      r->ws_version,   r->ws_protocol,     r->ws_extensions, r->cors_method,
        r->client,      r->cors_headers, r->idempotency_key, r->forwarded_for, r->if_none_match,
    };
    for (size_t i = 0; i < sizeof(slices) / sizeof(slices[0]); i++)
        check_slice(slices[i], data, len);
    require(r->path.len > 0 && r->method_text.len > 0);
    require(r->minor == 0 || r->host.data);
    require(!(r->chunked && r->has_length));
    require(!r->upgrade_websocket || r->minor == 1);
    require(len <= HTTP_HEAD_MAX);
    (void)http_list_has(r->ws_protocol, "fanwire.v1");
}

/* Once a prefix is answered, more bytes don't change the answer. */
static void check_prefixes(const char *data, size_t size, int64_t whole)
{
    size_t step = size / 50 + 1;
    for (size_t n = 0; n < size; n += step) {
        struct http_request r;
        char *prefix = copy_of(data, n, 0);
        int64_t part = http_parse(prefix, n, &r, NULL);
        free(prefix);
        require(part == 0 || part == whole);
    }
}

static void check_query(struct slice query)
{
    char *buf = copy_of("", 0, query.len);
    struct http_query q = { .rest = query, .buf = buf };
    struct slice name, value;
    int r;
    while ((r = http_query_next(&q, &name, &value)) == 1)
        require(name.data >= buf && value.data + value.len <= buf + query.len);
    require(r == 0 || r == -EINVAL);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_request r;
    const char *text = (const char *)data, *error = NULL;
    int64_t n = http_parse(text, size, &r, &error);
    require(n <= (int64_t)size && (n < 0) == (error != NULL));
    require(n >= 0 || n == -400 || n == -414 || n == -431 || n == -501 || n == -505);
    if (n > 0)
        check_request(&r, text, n);
    if (n > 0 && r.query.data)
        check_query(r.query);
    check_prefixes(text, size, n);
    check_query((struct slice){ text, size });
    return 0;
}
