/* Publishing and history over HTTP: what is asked, checked, and answered. */
#include "batch_body.h"
#include "http_session.h"
#include "text.h"

#include <fanwire.h>
#include <stdio.h>
#include <string.h>

static bool needs_no_params(struct worker *w, struct conn *c, const struct http_request *request)
{
    char detail[512];
    struct params params;
    enum error_code code =
        params_parse(&params, PARAMS_NONE, request, (struct slice){ 0 }, 1, detail, sizeof(detail));
    params_done(&params);
    if (code)
        http_problem(w, c, code, detail);
    return code == CODE_OK;
}

bool http_publish_checks(struct worker *w, struct conn *c, const struct http_request *request,
                         struct slice rest, struct publish_fields *fields, char *channel,
                         size_t *channel_len)
{
    char detail[512];
    if (!needs_no_params(w, c, request))
        return false;
    const char *wrong = publish_fields_read(fields, request);
    if (wrong) {
        http_problem(w, c, CODE_BAD_REQUEST, wrong);
        return false;
    }
    *channel_len = 0;
    if (rest.len < 2)
        return true; /* the channels of a batch are in its body */
    int64_t len = rest.len - 1 > 3 * FW_CHANNEL_MAX
                      ? -1
                      : percent_decode(channel, rest.data + 1, rest.len - 1, false);
    enum error_code code =
        len < 0 ? CODE_BAD_CHANNEL
                : check_channel(w, channel, (size_t)len, true, detail, sizeof(detail));
    if (code) {
        http_problem(w, c, code, len < 0 ? "malformed or over-long channel name" : detail);
        return false;
    }
    *channel_len = (size_t)len;
    return true;
}

static void send_publication(struct worker *w, struct conn *c, const struct publication *what)
{
    c->state = CONN_WAIT;
    conn_arm(w, c);
    if (publish(w, c, what) < 0) {
        http_problem(w, c, CODE_OVERLOADED, "out of memory");
        http_answered(w, c);
    }
}

static enum error_code check_write(void *arg, const char *channel, size_t len, char *detail,
                                   size_t size)
{
    return check_channel(arg, channel, len, true, detail, size);
}

static void batch_request(struct worker *w, struct conn *c, const struct publish_fields *fields,
                          const char *json, size_t len)
{
    struct batch_body body = { .key = fields->key, .check = check_write, .arg = w };
    enum error_code code = batch_body_read(&body, json, len);
    if (code) {
        http_problem(w, c, code, body.detail);
        http_answered(w, c);
    } else {
        send_publication(w, c,
                         &(struct publication){ .channel = "",
                                                .data = body.events.data,
                                                .len = body.events.len,
                                                .n_events = body.n,
                                                .key = "",
                                                .from = fields->from,
                                                .ref = "" });
    }
    buf_done(&body.events);
}

void http_publish_request(struct worker *w, struct conn *c, const struct http_request *request,
                          struct slice rest, const char *body, size_t len)
{
    struct publish_fields fields;
    char channel[3 * FW_CHANNEL_MAX];
    size_t channel_len;
    if (!http_publish_checks(w, c, request, rest, &fields, channel, &channel_len))
        http_answered(w, c);
    else if (channel_len == 0)
        batch_request(w, c, &fields, body, len);
    else
        send_publication(w, c,
                         &(struct publication){ .channel = channel,
                                                .channel_len = channel_len,
                                                .data = body,
                                                .len = len,
                                                .key = fields.key,
                                                .from = fields.from,
                                                .ref = "" });
}

static void respond_json(struct worker *w, struct conn *c, const struct buf *body)
{
    http_respond(w, c, 200, "application/json", c->more ? c->more->fields : "", body->data,
                 body->len);
    http_answered(w, c);
}

void http_published(struct worker *w, struct conn *c, enum error_code code, const char *message,
                    const char *id)
{
    struct buf *body = &w->text;
    if (code) {
        http_problem(w, c, code, message && *message ? message : code_title(code));
        http_answered(w, c);
        return;
    }
    buf_clear(body);
    (void)buf_printf(body, id && *id ? "{\"id\":\"%s\"}\n" : "{\"id\":null}\n", id);
    respond_json(w, c, body);
}

void http_batch_published(struct worker *w, struct conn *c, const struct buf *ids)
{
    struct buf *body = &w->text;
    buf_clear(body);
    (void)buf_append_str(body, "{\"ids\":[");
    (void)buf_append(body, ids->data, ids->len);
    (void)buf_append_str(body, "]}\n");
    if (ids->failed || body->failed) {
        conn_kill(w, c, 1011); /* stored, but it can't be told what */
        return;
    }
    respond_json(w, c, body);
}

void http_batch_refused(struct worker *w, struct conn *c, const struct reader_published *answer)
{
    char accepted[40] = "";
    if (answer->in_parts)
        (void)snprintf(accepted, sizeof(accepted), ",\"accepted\":%zu", answer->index);
    http_problem_with(w, c, answer->code,
                      *answer->message ? answer->message : code_title(answer->code), accepted);
    http_answered(w, c);
}

void http_history_request(struct worker *w, struct conn *c, const struct http_request *request,
                          struct slice rest)
{
    char detail[512];
    struct params params;
    enum error_code code =
        params_parse(&params, PARAMS_HISTORY, request, rest, 1, detail, sizeof(detail));
    if (code == CODE_OK)
        code = http_check_channels(w, &params, detail, sizeof(detail));
    if (code == CODE_OK) {
        history_begin(w, c, &params);
    } else {
        http_problem(w, c, code, detail);
        http_answered(w, c);
    }
    params_done(&params);
}
