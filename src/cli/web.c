/* HTTP to a running server. */
#include "web.h"

#include "error.h"
#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX   (1 << 20)
#define REQUEST_MS 15000L
#define CONNECT_MS 5000L
#define SILENCE_S  60L /* no heartbeat for so long: the connection is dead */
#define POLL_MS    1000

struct web {
    CURL *curl;
    const char *where;
    char *base; /* without a slash at the end */
    char error[CURL_ERROR_SIZE];
};

bool web_is_server(const char *where)
{
    return strncmp(where, "http://", 7) == 0 || strncmp(where, "https://", 8) == 0 ||
           strncmp(where, "unix:", 5) == 0;
}

int web_open(const char *where, struct web **ret, struct fw_error *err)
{
    struct web *web = calloc(1, sizeof(*web));
    if (!web || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(web);
        return error_set(err, -ENOMEM, "out of memory");
    }
    bool is_unix = strncmp(where, "unix:", 5) == 0;
    web->where = where;
    web->base = strdup(is_unix ? "http://localhost" : where);
    web->curl = curl_easy_init();
    if (!web->base || !web->curl) {
        web_close(web);
        return error_set(err, -ENOMEM, "out of memory");
    }
    size_t len = strlen(web->base);
    while (len > 0 && web->base[len - 1] == '/')
        web->base[--len] = '\0';
    if (is_unix && curl_easy_setopt(web->curl, CURLOPT_UNIX_SOCKET_PATH, where + 5) != CURLE_OK) {
        web_close(web);
        return error_set(err, -EINVAL, "%s: the path is too long", where);
    }
    *ret = web;
    return 0;
}

void web_close(struct web *web)
{
    if (!web)
        return;
    if (web->curl)
        curl_easy_cleanup(web->curl);
    curl_global_cleanup();
    free(web->base);
    free(web);
}

int web_escape(struct buf *out, const char *text)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    int r = 0;
    for (; *text && r == 0; text++) {
        if (strchr(plain, *text))
            r = buf_append_char(out, *text);
        else
            r = buf_printf(out, "%%%02X", (unsigned char)*text);
    }
    return r;
}

/* ---- one exchange ---- */

struct exchange {
    struct web *web;
    const struct web_stream *stream; /* NULL: all goes to the body */
    struct buf *body;
    struct curl_slist *headers;
    bool enough;
};

static long status_of(const struct web *web)
{
    long status = 0;
    (void)curl_easy_getinfo(web->curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static size_t take_data(char *data, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    size_t len = size * n;
    if (x->stream && status_of(x->web) == 200) {
        x->enough = !x->stream->on_data(x->stream->arg, data, len);
        return x->enough ? 0 : len;
    }
    if (x->body->len + len <= BODY_MAX)
        (void)buf_append(x->body, data, len);
    return len;
}

static int prepare(struct exchange *x, const char *path, struct fw_error *err)
{
    CURL *curl = x->web->curl;
    size_t size = strlen(x->web->base) + strlen(path) + 1;
    char *url = malloc(size);
    if (!url)
        return error_set(err, -ENOMEM, "out of memory");
    (void)snprintf(url, size, "%s%s", x->web->base, path);
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    free(url);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "fanwire/" FANWIRE_VERSION);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, x->web->error);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_data);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, x->headers);
    x->web->error[0] = '\0';
    return 0;
}

static int unreachable(const struct web *web, CURLcode code, struct fw_error *err)
{
    const char *why = web->error[0] ? web->error : curl_easy_strerror(code);
    int r = code == CURLE_URL_MALFORMAT          ? -EINVAL
            : code == CURLE_OPERATION_TIMEDOUT   ? -ETIMEDOUT
            : code == CURLE_COULDNT_CONNECT      ? -ECONNREFUSED
            : code == CURLE_COULDNT_RESOLVE_HOST ? -EHOSTUNREACH
                                                 : -EIO;
    return error_set(err, r,
                     "cannot reach %.200s: %s; is \"fanwire serve\" running there? "
                     "-s or FANWIRE_SERVER says where",
                     web->where, why);
}

/* A field that could not be appended would be left out in silence: a publish without its key. */
static struct curl_slist *post_headers(const char *field)
{
    struct curl_slist *headers = curl_slist_append(curl_slist_append(NULL, "Expect:"),
                                                   "Content-Type: application/octet-stream");
    struct curl_slist *all = field && headers ? curl_slist_append(headers, field) : headers;
    if (!all)
        curl_slist_free_all(headers);
    return all;
}

int web_request(struct web *web, const char *path, const char *field, const void *data, size_t len,
                struct buf *body, struct fw_error *err)
{
    struct exchange x = { .web = web, .body = body };
    if (data && !(x.headers = post_headers(field)))
        return error_set(err, -ENOMEM, "out of memory");
    int r = prepare(&x, path, err);
    if (r == 0) {
        (void)curl_easy_setopt(web->curl, CURLOPT_TIMEOUT_MS, REQUEST_MS);
        (void)curl_easy_setopt(web->curl, data ? CURLOPT_POST : CURLOPT_HTTPGET, 1L);
        if (data) {
            (void)curl_easy_setopt(web->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
            (void)curl_easy_setopt(web->curl, CURLOPT_POSTFIELDS, data);
        }
        CURLcode code = curl_easy_perform(web->curl);
        r = code == CURLE_OK ? (int)status_of(web) : unreachable(web, code, err);
    }
    (void)curl_easy_setopt(web->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(x.headers);
    return r;
}

/* ---- a stream ---- */

static CURLcode run_stream(CURLM *multi, struct exchange *x)
{
    int running = 1;
    while (running && !x->enough) {
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return CURLE_FAILED_INIT;
        if (running && curl_multi_poll(multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
            return CURLE_FAILED_INIT;
        x->enough = x->enough || !x->stream->wanted(x->stream->arg);
    }
    int left;
    CURLMsg *message = curl_multi_info_read(multi, &left);
    return message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_OK;
}

static struct curl_slist *stream_headers(const struct web_stream *stream)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Accept: text/event-stream");
    if (headers && stream->last_event_id && stream->last_event_id[0]) {
        char text[32 + FW_POSITION_MAX];
        (void)snprintf(text, sizeof(text), "Last-Event-ID: %s", stream->last_event_id);
        headers = curl_slist_append(headers, text);
    }
    return headers;
}

int web_follow(struct web *web, const char *path, const struct web_stream *stream, struct buf *body,
               struct fw_error *err)
{
    struct exchange x = { .web = web, .stream = stream, .body = body };
    CURLM *multi = curl_multi_init();
    x.headers = stream_headers(stream);
    int r = multi && x.headers ? prepare(&x, path, err) : error_set(err, -ENOMEM, "out of memory");
    if (r == 0) {
        (void)curl_easy_setopt(web->curl, CURLOPT_TIMEOUT_MS, 0L);
        (void)curl_easy_setopt(web->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        (void)curl_easy_setopt(web->curl, CURLOPT_LOW_SPEED_TIME, SILENCE_S);
        (void)curl_easy_setopt(web->curl, CURLOPT_HTTPGET, 1L);
        (void)curl_multi_add_handle(multi, web->curl);
        CURLcode code = run_stream(multi, &x);
        long status = status_of(web);
        if (x.enough)
            r = 0;
        else if (status > 0) /* it did answer, then it ended, well or badly */
            r = (int)status;
        else
            r = unreachable(web, code, err);
        (void)curl_multi_remove_handle(multi, web->curl);
    }
    (void)curl_easy_setopt(web->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(x.headers);
    (void)curl_multi_cleanup(multi);
    return r;
}

char *web_problem(char *out, size_t size, int status, const struct buf *body)
{
    json_t *root = json_loadb((const char *)body->data, body->len, 0, NULL);
    const char *detail = json_string_value(json_object_get(root, "detail"));
    if (!detail)
        detail = json_string_value(json_object_get(root, "title"));
    if (detail)
        (void)snprintf(out, size, "%s", detail);
    else
        (void)snprintf(out, size, "the server answered HTTP %d", status);
    json_decref(root);
    return out;
}
