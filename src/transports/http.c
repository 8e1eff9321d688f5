/* The HTTP/1.1 request-head parser (RFC 9112): line by line, each checked as soon as it is whole.
 * An unfinished head is parsed again from its start when more has come; at 16 KiB that costs less
 * than the packet that brings it. */
#include "http.h"

#include "text.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct head {
    const char *start, *p, *end; /* all bytes there are; where to go on */
    struct http_request *request;
    const char *error;
    struct slice transfer_encoding, content_length, expect;
    bool close, keep_alive, connection_upgrade, upgrade_websocket;
    unsigned n_fields;
};

static int fail(struct head *head, int status, const char *error)
{
    head->error = error;
    return -status;
}

/* ---- characters ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_tchar(char c)
{
    return is_alnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Any visible ASCII but '#': a fragment is the client's own business. */
static bool is_target_char(char c)
{
    return c > 0x20 && c < 0x7F && c != '#';
}

static bool is_host_char(char c)
{
    return is_alnum(c) || (c && strchr("-._~!$&'()*+,;=%[]:", c));
}

static bool is_value_char(char c)
{
    return c == '\t' || ((unsigned char)c >= 0x20 && c != 0x7F);
}

/* Can a byte of the word be a control character? May be a false alarm, never silence. */
static bool may_hold_control(const char *p)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t word, del;
    memcpy(&word, p, 8);
    del = word ^ ones * 0x7F;
    return (((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & ones * 0x80;
}

static bool all(struct slice s, bool (*is)(char))
{
    for (size_t i = 0; i < s.len; i++)
        if (!is(s.data[i]))
            return false;
    return true;
}

/* Eight bytes at a time: values are nearly all of a head, and an unfinished head is read again. */
static bool value_valid(struct slice s)
{
    size_t i = 0;
    for (; s.len - i >= 8 && !may_hold_control(s.data + i);)
        i += 8;
    return all((struct slice){ s.data + i, s.len - i }, is_value_char);
}

static struct slice trim(struct slice s)
{
    while (s.len && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }
    while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool equals(struct slice s, const char *text)
{
    return s.len == strlen(text) && strncasecmp(s.data, text, s.len) == 0;
}

/* Cuts s at the first c: returns what is before it; s becomes what is after it, absent without c.
 */
static struct slice cut(struct slice *s, char c)
{
    const char *at = memchr(s->data, c, s->len);
    struct slice before = { s->data, at ? (size_t)(at - s->data) : s->len };
    *s = at ? (struct slice){ at + 1, s->len - before.len - 1 } : (struct slice){ 0 };
    return before;
}

/* ---- lists ---- */

/* The next element of a comma-separated list, trimmed, maybe empty; false at the end. */
static bool list_next(struct slice *rest, struct slice *ret)
{
    if (!rest->data)
        return false;
    *ret = trim(cut(rest, ','));
    return true;
}

bool http_list_has(struct slice list, const char *token)
{
    struct slice element;
    while (list_next(&list, &element))
        if (equals(element, token))
            return true;
    return false;
}

/* ---- lines ---- */

/* Takes a line without its CRLF, looking at `max` bytes only. 1, 0 when it is not whole in these,
 * or -400: a CR or LF alone is where two parsers may see two different requests. */
static int take_line(struct head *head, size_t max, struct slice *ret)
{
    size_t left = (size_t)(head->end - head->p);
    if (left > max)
        left = max;
    const char *lf = memchr(head->p, '\n', left);
    const char *stop = lf ? lf : head->p + left;
    *ret = (struct slice){ head->p, (size_t)(stop - head->p) };
    const char *cr = memchr(ret->data, '\r', ret->len);
    if (cr && cr + 1 != stop)
        return fail(head, 400, "a carriage return stands alone");
    if (!lf)
        return 0;
    if (!cr)
        return fail(head, 400, "a line ends without a carriage return");
    ret->len--;
    head->p = lf + 1;
    return 1;
}

/* ---- the request line ---- */

static enum http_method method_of(struct slice text)
{
    static const char *const names[] = {
        [HTTP_GET] = "GET",         [HTTP_HEAD] = "HEAD", [HTTP_POST] = "POST",
        [HTTP_OPTIONS] = "OPTIONS", [HTTP_PUT] = "PUT",   [HTTP_DELETE] = "DELETE",
    };
    for (unsigned i = 0; i < HTTP_OTHER; i++)
        if (text.len == strlen(names[i]) && memcmp(text.data, names[i], text.len) == 0)
            return (enum http_method)i;
    return HTTP_OTHER;
}

static int parse_version(struct head *head, struct slice version)
{
    if (version.len != 8 || memcmp(version.data, "HTTP/", 5) != 0 || !is_digit(version.data[5]) ||
        version.data[6] != '.' || !is_digit(version.data[7]))
        return fail(head, 400, "the request line does not end in an HTTP version");
    if (version.data[5] != '1')
        return fail(head, 505, "HTTP/1.0 and HTTP/1.1 are spoken here");
    head->request->minor = version.data[7] == '0' ? 0 : 1; /* a higher one is answered as 1.1 */
    return 1;
}

/* host [":" port], section 3.2 of RFC 9110's URI grammar, not resolved. */
static bool host_valid(struct slice host)
{
    if (!host.len || !all(host, is_host_char))
        return false;
    struct slice rest = host;
    if (host.data[0] == '[') {
        (void)cut(&rest, ']');
        if (!rest.data)
            return false;
        return !rest.len || (rest.data[0] == ':' &&
                             all((struct slice){ rest.data + 1, rest.len - 1 }, is_digit));
    }
    struct slice name = cut(&rest, ':');
    return name.len && all(rest, is_digit) && !memchr(name.data, '[', name.len) &&
           !memchr(name.data, ']', name.len);
}

/* absolute-form: the authority takes the place of the Host field (section 3.2.2). */
static int parse_absolute(struct head *head, struct slice target)
{
    size_t scheme = target.len > 7 && strncasecmp(target.data, "http://", 7) == 0    ? 7
                    : target.len > 8 && strncasecmp(target.data, "https://", 8) == 0 ? 8
                                                                                     : 0;
    if (!scheme)
        return fail(head, 400, "the request target must begin with a slash");
    struct slice rest = { target.data + scheme, target.len - scheme };
    size_t n = 0;
    while (n < rest.len && rest.data[n] != '/' && rest.data[n] != '?')
        n++;
    head->request->host = (struct slice){ rest.data, n };
    if (!host_valid(head->request->host))
        return fail(head, 400, "the request target names no valid host");
    head->request->path = (struct slice){ rest.data + n, rest.len - n };
    return 1;
}

static int parse_target(struct head *head, struct slice target)
{
    struct http_request *request = head->request;
    if (!target.len || !all(target, is_target_char))
        return fail(head, 400, "the request target may hold visible ASCII only; percent-encode");
    request->path = target;
    if (equals(target, "*"))
        return request->method == HTTP_OPTIONS ? 1 : fail(head, 400, "only OPTIONS may ask for *");
    if (target.data[0] != '/') {
        int r = parse_absolute(head, target);
        if (r < 0)
            return r;
    }
    request->query = request->path;
    request->path = cut(&request->query, '?');
    if (!request->path.len)
        request->path = (struct slice){ "/", 1 };
    return 1;
}

static int parse_request_line(struct head *head, struct slice line)
{
    struct slice rest = line;
    head->request->method_text = cut(&rest, ' ');
    head->request->method = method_of(head->request->method_text);
    if (!head->request->method_text.len || !all(head->request->method_text, is_tchar) || !rest.data)
        return fail(head, 400, "the request line does not begin with a method");
    struct slice target = cut(&rest, ' ');
    if (!rest.data)
        return fail(head, 400, "the request line does not end in an HTTP version");
    int r = parse_target(head, target);
    return r < 0 ? r : parse_version(head, rest);
}

/* Of an unfinished request line only what can't be one is told, so that another protocol's bytes
 * are not waited on. */
static int check_partial_line(struct head *head, struct slice line)
{
    for (size_t i = 0; i < line.len; i++)
        if (line.data[i] != '\r' && !(line.data[i] >= 0x20 && line.data[i] < 0x7F))
            return fail(head, 400, "this is no HTTP request");
    if (line.len >= HTTP_LINE_MAX + 2)
        return fail(head, 414, "the request line is longer than 8 KiB");
    return 0;
}

static int take_request_line(struct head *head)
{
    struct slice line;
    int r = take_line(head, HTTP_LINE_MAX + 2, &line);
    if (r == 1 && !line.len) /* section 2.2: one empty line is left over from before */
        r = take_line(head, HTTP_LINE_MAX + 2, &line);
    if (r == 0)
        return check_partial_line(head, line);
    return r < 0 ? r : parse_request_line(head, line);
}

/* ---- fields ---- */

enum repeat { ONCE, FIRST };

#define FIELD(name, member, repeat)                                                                \
    {                                                                                              \
        name, sizeof(name) - 1, offsetof(struct http_request, member), repeat                      \
    }

static const struct {
    const char *name;
    size_t len, offset;
    enum repeat repeat;
} fields[] = {
    FIELD("host", host, ONCE),
    FIELD("origin", origin, ONCE),
    FIELD("last-event-id", last_event_id, ONCE),
    FIELD("authorization", authorization, ONCE),
    FIELD("cookie", cookie, FIRST),
    FIELD("content-type", content_type, ONCE),
    FIELD("accept", accept, FIRST),
    FIELD("sec-websocket-key", ws_key, ONCE),
    FIELD("sec-websocket-version", ws_version, ONCE),
    FIELD("sec-websocket-protocol", ws_protocol, ONCE),
    FIELD("sec-websocket-extensions", ws_extensions, FIRST),
    FIELD("access-control-request-method", cors_method, ONCE),
    FIELD("access-control-request-headers", cors_headers, ONCE),
    FIELD("idempotency-key", idempotency_key, ONCE),
    FIELD("fanwire-client", client, ONCE),
    FIELD("x-forwarded-for", forwarded_for, FIRST),
    FIELD("if-none-match", if_none_match, FIRST),
};

static int keep(struct head *head, struct slice *place, struct slice value, enum repeat repeat)
{
    if (!place->data)
        *place = value;
    else if (repeat == ONCE)
        return fail(head, 400, "a header field is repeated that may come once only");
    return 1;
}

/* The fields that decide how the bytes that follow are read. */
static int take_framing_field(struct head *head, struct slice name, struct slice value, bool *taken)
{
    *taken = true;
    if (equals(name, "content-length"))
        return keep(head, &head->content_length, value, ONCE);
    if (equals(name, "transfer-encoding"))
        return keep(head, &head->transfer_encoding, value, ONCE);
    if (equals(name, "expect"))
        return keep(head, &head->expect, value, ONCE);
    if (equals(name, "connection")) {
        head->close |= http_list_has(value, "close");
        head->keep_alive |= http_list_has(value, "keep-alive");
        head->connection_upgrade |= http_list_has(value, "upgrade");
        return 1;
    }
    if (equals(name, "upgrade")) {
        head->upgrade_websocket |= http_list_has(value, "websocket");
        return 1;
    }
    *taken = false;
    return 1;
}

static int take_field(struct head *head, struct slice line)
{
    if (line.data[0] == ' ' || line.data[0] == '\t')
        return fail(head, 400, "a header line begins with a space");
    struct slice value = line, name = cut(&value, ':');
    if (!value.data || !name.len || !all(name, is_tchar))
        return fail(head, 400, "a header line is no \"Name: value\"");
    if (!value_valid(value))
        return fail(head, 400, "a header field holds a control character");
    if (++head->n_fields > HTTP_FIELDS_MAX)
        return fail(head, 431, "there are more than 100 header fields");
    value = trim(value);
    bool taken;
    int r = take_framing_field(head, name, value, &taken);
    if (taken)
        return r;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].len != name.len || !equals(name, fields[i].name))
            continue;
        char *request = (char *)head->request;
        return keep(head, (struct slice *)(void *)(request + fields[i].offset), value,
                    fields[i].repeat);
    }
    return 1;
}

static int take_fields(struct head *head)
{
    for (;;) {
        struct slice line;
        int r = take_line(head, SIZE_MAX, &line);
        if (r < 1)
            return r;
        if (!line.len)
            return 1;
        r = take_field(head, line);
        if (r < 0)
            return r;
    }
}

/* ---- the whole ---- */

/* Section 6.1: chunked may be the last coding only, and is the only one known here. */
static int check_transfer_encoding(struct head *head)
{
    struct slice rest = head->transfer_encoding, coding;
    bool unknown = false;
    if (head->request->minor == 0)
        return fail(head, 400, "HTTP/1.0 knows no Transfer-Encoding");
    if (head->content_length.data)
        return fail(head, 400, "Content-Length and Transfer-Encoding contradict each other");
    while (list_next(&rest, &coding)) {
        if (!coding.len || head->request->chunked)
            return fail(head, 400, "Transfer-Encoding must end in chunked, once");
        if (equals(coding, "chunked"))
            head->request->chunked = true;
        else
            unknown = true;
    }
    return unknown ? fail(head, 501, "no transfer coding but chunked is known here") : 1;
}

static int check_content_length(struct head *head)
{
    uint64_t n = 0;
    struct slice text = head->content_length;
    if (!text.len || !all(text, is_digit))
        return fail(head, 400, "Content-Length is not a number");
    for (size_t i = 0; i < text.len; i++)
        if (__builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(text.data[i] - '0'), &n))
            return fail(head, 400, "Content-Length is too large a number");
    head->request->content_length = n;
    head->request->has_length = true;
    return 1;
}

/* `target_host`: of an absolute-form target, replaces the field. */
static int check_host(struct head *head, struct slice target_host)
{
    struct http_request *request = head->request;
    if (request->minor >= 1 && !request->host.data)
        return fail(head, 400, "the Host header field is missing");
    if (request->host.data && !host_valid(request->host))
        return fail(head, 400, "the Host header field is no host");
    if (target_host.data)
        request->host = target_host;
    return 1;
}

static int check_whole(struct head *head, struct slice target_host)
{
    struct http_request *request = head->request;
    int r = check_host(head, target_host);
    if (r == 1 && head->transfer_encoding.data)
        r = check_transfer_encoding(head);
    if (r == 1 && head->content_length.data)
        r = check_content_length(head);
    request->keep_alive = !head->close && (request->minor >= 1 || head->keep_alive);
    request->upgrade_websocket =
        request->minor >= 1 && head->connection_upgrade && head->upgrade_websocket;
    request->expect_continue = request->minor >= 1 && equals(head->expect, "100-continue");
    return r;
}

static int64_t parse(struct head *head)
{
    int r = take_request_line(head);
    struct slice target_host = head->request->host;
    head->request->host = (struct slice){ 0 };
    const char *begin = head->p;
    if (r == 1)
        r = take_fields(head);
    if (r == 1)
        head->request->fields = (struct slice){ begin, (size_t)(head->p - begin) - 2 };
    if (r < 0)
        return r;
    if (r == 0 && head->end - head->start >= HTTP_HEAD_MAX)
        return fail(head, 431, "the request head is longer than 16 KiB");
    if (r == 1)
        r = check_whole(head, target_host);
    return r < 1 ? r : head->p - head->start;
}

int64_t http_parse(const char *data, size_t len, struct http_request *ret, const char **error)
{
    *ret = (struct http_request){ 0 };
    if (!len)
        return 0;
    size_t seen = len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX;
    struct head head = { .start = data, .p = data, .end = data + seen, .request = ret };
    int64_t r = parse(&head);
    if (error)
        *error = head.error;
    return r;
}

/* ---- queries ---- */

static int64_t decode(struct http_query *q, struct slice text, struct slice *ret)
{
    int64_t n = percent_decode(q->buf, text.data, text.len, true);
    if (n < 0)
        return n;
    *ret = (struct slice){ q->buf, (size_t)n };
    q->buf += n;
    return n;
}

int http_query_next(struct http_query *q, struct slice *name, struct slice *value)
{
    struct slice pair = { 0 };
    while (q->rest.data && !pair.len)
        pair = cut(&q->rest, '&');
    if (!pair.len)
        return 0;
    struct slice rest = pair, raw = cut(&rest, '=');
    if (!rest.data)
        rest = (struct slice){ "", 0 };
    if (decode(q, raw, name) < 0 || decode(q, rest, value) < 0)
        return -EINVAL;
    return memchr(name->data, '\0', name->len) ? -EINVAL : 1;
}

/* ---- statuses ---- */

const char *http_status_text(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } texts[] = {
        { 100, "Continue" },
        { 101, "Switching Protocols" },
        { 200, "OK" },
        { 201, "Created" },
        { 202, "Accepted" },
        { 204, "No Content" },
        { 301, "Moved Permanently" },
        { 302, "Found" },
        { 303, "See Other" },
        { 304, "Not Modified" },
        { 307, "Temporary Redirect" },
        { 308, "Permanent Redirect" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 410, "Gone" },
        { 411, "Length Required" },
        { 412, "Precondition Failed" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" },
        { 422, "Unprocessable Content" },
        { 426, "Upgrade Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "Unknown";
}
