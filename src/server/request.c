/* Requests: what was asked, and the answer in the making. */
#include "request.h"

#include "codes.h"
#include "frame.h"
#include "json.h"
#include "worker_link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- birth and end ---- */

static void request_free(struct fw_request *request)
{
    worker_link_unref(request->link);
    buf_done(&request->answer_fields);
    buf_done(&request->messages);
    free(request->query);
    free(request->fields);
    free(request->bytes);
    free(request);
}

static char *append_pair(char *at, struct slice name, struct slice value)
{
    memcpy(at, name.data, name.len);
    at[name.len] = '\0';
    at += name.len + 1;
    memcpy(at, value.data, value.len);
    at[value.len] = '\0';
    return at + value.len + 1;
}

/* A pair "a&" becomes "a", NUL, "", NUL: at most twice as long. */
static char *read_query(struct slice query)
{
    char *memory = malloc(query.len + 1), *list = malloc(2 * query.len + 2), *at = list;
    struct http_query walk = { query, memory };
    struct slice name, value;
    while (memory && list && http_query_next(&walk, &name, &value) > 0) {
        if (name.len) /* an empty one ends the list */
            at = append_pair(at, name, value);
    }
    if (memory && list)
        *at = '\0';
    free(memory);
    if (!memory) {
        free(list);
        return NULL;
    }
    return list;
}

static char *read_fields(struct slice fields)
{
    char *list = malloc(fields.len + 1), *at = list;
    struct slice name, value;
    while (list && call_field_next(&fields, &name, &value))
        at = append_pair(at, name, value);
    if (list)
        *at = '\0';
    return list;
}

static const char *find_pair(const char *list, const char *name, bool any_case)
{
    while (*list) {
        const char *value = list + strlen(list) + 1;
        if ((any_case ? strcasecmp(list, name) : strcmp(list, name)) == 0)
            return value;
        list = value + strlen(value) + 1;
    }
    return NULL;
}

static bool read_items(struct fw_request *request, struct call_message *message)
{
    for (int i = 0; i < REQUEST_PARAMS; i++) {
        if (!call_message_next(message, &request->items[i]))
            return false;
    }
    for (uint32_t i = 0; i < request->route->n_params; i++) {
        if (!call_message_next(message, &request->params[i]))
            return false;
    }
    return message->n_items == 0;
}

int request_new(const struct application *application, struct worker_link *link,
                const uint8_t *bytes, size_t size, struct fw_request **ret)
{
    struct call_message message;
    uint8_t *copy = malloc(size);
    struct fw_request *request = calloc(1, sizeof(*request));
    if (!copy || !request) {
        free(copy);
        free(request);
        return -ENOMEM;
    }
    memcpy(copy, bytes, size);
    request->bytes = copy;
    request->size = size;
    request->link = worker_link_ref(link);
    request->answer_fields = buf_make(CALL_FIELDS_MAX);
    request->messages = buf_make(CALL_REPLY_MAX);
    bool sane = call_message_decode(copy, size, &message) == 0 && message.type == CALL_REQUEST &&
                message.route < application->routes.count &&
                application->handlers[message.route].run;
    if (sane) {
        request->id = message.id;
        request->route = &application->routes.items[message.route];
        request->handler = application->handlers[message.route];
        sane = read_items(request, &message);
    }
    if (sane) {
        request->query = read_query(request->items[REQUEST_QUERY]);
        request->fields = read_fields(request->items[REQUEST_FIELDS]);
    }
    if (!sane || !request->query || !request->fields) {
        request_free(request);
        return sane ? -ENOMEM : -EPROTO;
    }
    *ret = request;
    return 0;
}

void request_run(struct fw_request *request)
{
    request->handler.run(request, request->handler.arg);
}

/* ---- what was asked ---- */

const char *fw_request_method(const struct fw_request *request)
{
    return request->items[REQUEST_METHOD].data;
}

const char *fw_request_path(const struct fw_request *request)
{
    return request->items[REQUEST_PATH].data;
}

const char *fw_request_param(const struct fw_request *request, const char *name)
{
    const struct route *route = request->route;
    for (uint32_t i = 0; i < route->n_params; i++) {
        if (strlen(name) == route->params[i].len &&
            memcmp(name, route->params[i].data, route->params[i].len) == 0)
            return request->params[i].data;
    }
    return NULL;
}

const char *fw_request_query(const struct fw_request *request, const char *name)
{
    return find_pair(request->query, name, false);
}

const char *fw_request_header(const struct fw_request *request, const char *name)
{
    return find_pair(request->fields, name, true);
}

const void *fw_request_body(const struct fw_request *request, size_t *ret_len)
{
    *ret_len = request->items[REQUEST_BODY].len;
    return request->items[REQUEST_BODY].data;
}

/* ---- the answer ---- */

int fw_request_add_header(struct fw_request *request, const char *name, const char *value)
{
    struct buf *fields = &request->answer_fields;
    if (!call_field_allowed(name, strlen(name), value, strlen(value)))
        return -EINVAL;
    int r = buf_printf(fields, "%s: %s\r\n", name, value);
    fields->failed = 0; /* it is as it was */
    return r == -EMSGSIZE ? -EINVAL : r;
}

/* Sends what is in `message` and ends the request. */
static int take_back(struct fw_request *request, struct buf *message)
{
    int r =
        message->failed ? -ENOMEM : worker_link_send(request->link, message->data, message->len);
    if (message->failed)
        buf_done(message);
    request_free(request);
    return r;
}

static int answer(struct fw_request *request, unsigned status, const char *type, const void *body,
                  size_t len, const char *reason, size_t reason_len)
{
    struct call_message head = { .type = CALL_ANSWER,
                                 .id = request->id,
                                 .status = (uint16_t)status };
    struct buf out = buf_make(CALL_REPLY_MAX);
    call_message_begin(&out, &head);
    call_message_add(&out, request->answer_fields.data, request->answer_fields.len);
    call_message_add(&out, type, type ? strlen(type) : 0);
    call_message_add(&out, body, len);
    call_message_add(&out, reason, reason_len < CALL_REASON_MAX ? reason_len : CALL_REASON_MAX);
    call_message_end(&out);
    return take_back(request, &out);
}

/* The client's 500 for what can't be sent. */
static int answer_failed(struct fw_request *request, int error)
{
    static const char reason[] = "internal: the application's answer can't be sent";
    struct buf body = buf_make(4096);
    (void)problem_body(&body, CODE_INTERNAL, 500, "the application's answer can't be sent");
    buf_done(&request->answer_fields);
    int r = answer(request, 500, "application/problem+json", body.data, body.len, reason,
                   sizeof(reason) - 1);
    buf_done(&body);
    return r == -EPIPE ? r : error;
}

int fw_request_answer(struct fw_request *request, unsigned status, const char *type,
                      const void *body, size_t len)
{
    struct slice named = { type, type ? strlen(type) : 0 };
    if (status < 200 || status > 599 || !call_type_allowed(named))
        return answer_failed(request, -EINVAL);
    if (len > CALL_ANSWER_MAX)
        return answer_failed(request, -EMSGSIZE);
    return answer(request, status, type, body, len, body, len);
}

/* Of a code that is not the server's own. */
static void foreign_problem(struct buf *out, unsigned status, const char *code, const char *detail)
{
    (void)buf_append_str(out, "{\"type\":\"about:blank\",\"code\":");
    json_append_string(out, code, strlen(code));
    (void)buf_printf(out, ",\"status\":%u,\"title\":", status);
    const char *title = http_status_text(status);
    json_append_string(out, title, strlen(title));
    (void)buf_append_str(out, ",\"detail\":");
    json_append_string(out, detail, strlen(detail));
    (void)buf_append_char(out, '}');
}

int fw_request_problem(struct fw_request *request, unsigned status, const char *code,
                       const char *detail)
{
    char reason[CALL_REASON_MAX];
    struct buf body = buf_make(64u << 10);
    enum error_code known = code_from_text(code);
    if (status < 200 || status > 599)
        return answer_failed(request, -EINVAL);
    if (known != CODE_OK && strcmp(code_text(known), code) == 0)
        (void)problem_body(&body, known, status, detail);
    else
        foreign_problem(&body, status, code, detail);
    if (body.failed) {
        int error = body.failed;
        buf_done(&body);
        return answer_failed(request, error);
    }
    int n = snprintf(reason, sizeof(reason), "%s: %s", code, detail);
    size_t len = n < (int)sizeof(reason) ? (size_t)n : sizeof(reason) - 1;
    int r = answer(request, status, "application/problem+json", body.data, body.len, reason, len);
    buf_done(&body);
    return r;
}

/* ---- streams ---- */

int fw_request_message(struct fw_request *request, const void *data, size_t len)
{
    struct buf *out = &request->messages;
    struct call_message head = { .type = CALL_ACCEPT, .id = request->id };
    if (request->route->kind != ROUTE_STREAM)
        return -EINVAL;
    if (len > CALL_ANSWER_MAX ||
        out->len + len + CALL_ITEM_EXTRA > CALL_HEAD_SIZE + CALL_ANSWER_MAX)
        return -EMSGSIZE;
    if (out->len == 0)
        call_message_begin(out, &head);
    call_message_add(out, data, len);
    int r = out->failed;
    out->failed = 0; /* it is as it was */
    if (r && out->len < CALL_HEAD_SIZE)
        buf_done(out);
    return r;
}

int fw_request_accept(struct fw_request *request)
{
    struct buf *out = &request->messages;
    struct call_message head = { .type = CALL_ACCEPT, .id = request->id };
    if (request->route->kind != ROUTE_STREAM)
        return -EINVAL;
    if (out->len == 0)
        call_message_begin(out, &head);
    call_message_add(out, request->answer_fields.data, request->answer_fields.len);
    call_message_end(out);
    struct buf message = *out;
    *out = (struct buf){ 0 };
    if (message.failed) {
        buf_done(&message);
        return answer_failed(request, -ENOMEM);
    }
    return take_back(request, &message);
}
