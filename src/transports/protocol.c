/* fanwire.v1 from the client: one JSON object per text message (docs/protocol.md). */
#include "json.h"
#include "json_member.h"
#include "meta.h"
#include "text.h"
#include "turn.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REF_MAX 64 /* bytes of a ref's text */

struct request {
    struct worker *w;
    struct conn *c;
    const char *text; /* the whole message */
    size_t len;
    json_t *json;          /* all numbers as reals: an integer beyond 64 bits is legal in "data" */
    char ref[REF_MAX + 8]; /* raw JSON, "" if none */
};

/* ---- answers ---- */

static const char *ref_of(const struct request *r)
{
    return r->ref[0] ? r->ref : NULL;
}

static void answer_error(struct request *r, enum error_code code, const char *message)
{
    count(&r->w->counters->rejected[code], 1);
    struct buf *json = &r->w->text;
    buf_clear(json);
    json_error(json, code, message, ref_of(r));
    send_control(r->w, r->c, "error", json);
}

static void answer_ok(struct request *r)
{
    struct buf *json = &r->w->text;
    buf_clear(json);
    json_ok(json, NULL, ref_of(r));
    send_control(r->w, r->c, "ok", json);
}

void ws_published(struct worker *w, struct conn *c, enum error_code code, const char *message,
                  const char *id, const char *ref)
{
    struct buf *json = &w->text;
    buf_clear(json);
    if (code)
        json_error(json, code, message && *message ? message : code_title(code), ref);
    else
        json_ok(json, id && *id ? id : NULL, ref);
    send_control(w, c, code ? "error" : "ok", json);
}

/* ---- fields ---- */

/* A number or a short string; it comes back as it was sent. */
static bool take_ref(struct request *r)
{
    json_t *ref = json_object_get(r->json, "ref");
    if (!ref)
        return true;
    if (!json_is_number(ref) && !json_is_string(ref))
        return false;
    const char *text;
    size_t len;
    if (!json_member(r->text, r->len, "ref", &text, &len) || len > REF_MAX)
        return false;
    memcpy(r->ref, text, len);
    r->ref[len] = 0;
    return true;
}

/* The channel, checked for reading or writing; answers what is wrong and returns NULL. */
static const char *take_channel(struct request *r, bool write, size_t *ret_len)
{
    json_t *channel = json_object_get(r->json, "channel");
    char detail[512];
    if (!json_is_string(channel)) {
        bool pattern = json_object_get(r->json, "pattern");
        answer_error(r, pattern ? CODE_NOT_SUPPORTED : CODE_BAD_CHANNEL,
                     pattern ? "patterns are not in this version" : "\"channel\" is missing");
        return NULL;
    }
    *ret_len = json_string_length(channel);
    enum error_code code =
        check_channel(r->w, json_string_value(channel), *ret_len, write, detail, sizeof(detail));
    if (code == CODE_OK)
        return json_string_value(channel);
    answer_error(r, code, detail);
    return NULL;
}

/* since and last; false when answered with an error. */
static bool take_since(struct request *r, struct since *since, uint32_t *last)
{
    json_t *text = json_object_get(r->json, "since"), *n = json_object_get(r->json, "last");
    *since = (struct since){ .kind = SINCE_NOW };
    *last = 0;
    if (text && !json_is_null(text)) {
        if (!json_is_string(text) ||
            since_parse(json_string_value(text), json_string_length(text), since) < 0) {
            answer_error(r, CODE_BAD_POSITION, "\"since\" is \"now\", \"oldest\" or a position");
            return false;
        }
    } else if (n && !json_is_null(n)) {
        double value = json_number_value(n);
        if (!json_is_number(n) || value < 1 || value > 1000 || value != (uint32_t)value) {
            answer_error(r, CODE_BAD_REQUEST, "\"last\" is a number from 1 to 1000");
            return false;
        }
        *last = (uint32_t)value;
    }
    return true;
}

/* snapshot; false when answered with an error. */
static bool take_rows(struct request *r, const char *channel, size_t len, struct start *start)
{
    json_t *rows = json_object_get(r->json, "snapshot");
    char detail[512] = "\"snapshot\" is true or false, and goes without \"since\" and \"last\"";
    enum error_code code = CODE_OK;
    start->rows = json_is_true(rows);
    if ((rows && !json_is_boolean(rows)) ||
        (start->rows && (start->last || start->since.kind != SINCE_NOW)))
        code = CODE_BAD_REQUEST;
    else if (start->rows)
        code = check_rows(r->w, channel, len, detail, sizeof(detail));
    if (code)
        answer_error(r, code, detail);
    return code == CODE_OK;
}

/* ---- requests ---- */

static void on_subscribe(struct request *r)
{
    struct start start = { 0 };
    size_t len;
    const char *channel = take_channel(r, false, &len);
    if (!channel || !take_since(r, &start.since, &start.last) ||
        !take_rows(r, channel, len, &start))
        return;
    switch (subscribe(r->w, r->c, channel, len, &start, r->ref)) {
    case 0:
        joins_advance(r->w, r->c);
        return;
    case -EEXIST:
        answer_error(r, CODE_BAD_REQUEST, "this channel is subscribed already");
        return;
    case -EMFILE:
        answer_error(r, CODE_TOO_MANY_CHANNELS, "too many channels on one connection");
        return;
    default:
        answer_error(r, CODE_OVERLOADED, "out of memory");
    }
}

static void on_unsubscribe(struct request *r)
{
    json_t *channel = json_object_get(r->json, "channel");
    const char *name = json_string_value(channel);
    size_t len = json_string_length(channel);
    if (!name || unsubscribe(r->w, r->c, name, len) < 0) {
        answer_error(r, CODE_BAD_REQUEST, "this channel is not subscribed");
        return;
    }
    struct buf *json = &r->w->text;
    buf_clear(json);
    json_unsubscribed(json, name, len, CODE_OK, NULL, ref_of(r));
    send_control(r->w, r->c, "unsubscribed", json);
    joins_advance(r->w, r->c); /* it may have been the last that the others waited for */
}

/* Exactly one of data, text and base64, as bytes. Returns malloc'ed memory (free()), or NULL when
 * answered with an error. */
static char *take_payload(struct request *r, size_t *ret_len)
{
    json_t *data = json_object_get(r->json, "data");
    json_t *text = json_object_get(r->json, "text");
    json_t *base64 = json_object_get(r->json, "base64");
    char *payload = NULL;
    if (!!data + !!text + !!base64 != 1 || (text && !json_is_string(text)) ||
        (base64 && !json_is_string(base64))) {
        answer_error(r, CODE_BAD_REQUEST, "exactly one of \"data\", \"text\" and \"base64\"");
        return NULL;
    }
    if (data) { /* verbatim: it is the client's text, not ours to rewrite */
        const char *raw;
        if (json_member(r->text, r->len, "data", &raw, ret_len) && (payload = malloc(*ret_len + 1)))
            memcpy(payload, raw, *ret_len);
    } else {
        json_t *value = text ? text : base64;
        size_t len = json_string_length(value);
        payload = malloc(len + 3);
        if (payload && text) {
            memcpy(payload, json_string_value(value), len);
            *ret_len = len;
        } else if (payload) {
            int64_t n = base64_decode(payload, json_string_value(value), len);
            if (n < 0) {
                free(payload);
                answer_error(r, CODE_BAD_REQUEST, "\"base64\" is not base64");
                return NULL;
            }
            *ret_len = (size_t)n;
        }
    }
    if (!payload)
        answer_error(r, CODE_OVERLOADED, "out of memory");
    return payload;
}

/* "" without one; NULL when answered with an error. */
static const char *take_key(struct request *r)
{
    const json_t *json = json_object_get(r->json, "key");
    const char *key = json_string_value(json);
    if (!json)
        return "";
    if (key && *key && strlen(key) == json_string_length(json) && meta_fits(key, NULL))
        return key;
    answer_error(r, CODE_BAD_REQUEST, "\"key\" is a string of 1 to 255 bytes without NUL");
    return NULL;
}

static void on_publish(struct request *r)
{
    size_t channel_len, len = 0;
    const char *channel = take_channel(r, true, &channel_len);
    const char *key = channel ? take_key(r) : NULL;
    char *payload = key ? take_payload(r, &len) : NULL;
    char from[24];
    if (!payload)
        return;
    client_name(r->w, r->c, from);
    const struct publication what = { .channel = channel,
                                      .channel_len = channel_len,
                                      .data = payload,
                                      .len = len,
                                      .key = key,
                                      .from = from,
                                      .ref = r->ref };
    if (publish(r->w, r->c, &what) < 0)
        answer_error(r, CODE_OVERLOADED, "out of memory");
    free(payload);
}

static void on_ping(struct request *r)
{
    answer_ok(r);
}

static void on_auth(struct request *r)
{
    answer_error(r, CODE_NOT_SUPPORTED, "tokens are not in this version");
}

static const struct {
    const char *type;
    void (*handle)(struct request *r);
} requests[] = {
    { "subscribe", on_subscribe }, { "unsubscribe", on_unsubscribe },
    { "publish", on_publish },     { "ping", on_ping },
    { "auth", on_auth },
};

static void handle(struct request *r)
{
    const char *type = json_string_value(json_object_get(r->json, "type"));
    if (!take_ref(r)) {
        answer_error(r, CODE_BAD_REQUEST, "\"ref\" is a number or a short string");
        return;
    }
    for (size_t i = 0; type && i < sizeof(requests) / sizeof(requests[0]); i++) {
        if (strcmp(type, requests[i].type) == 0) {
            requests[i].handle(r);
            return;
        }
    }
    answer_error(r, CODE_BAD_REQUEST, "\"type\" is subscribe, unsubscribe, publish, ping or auth");
}

void protocol_message(struct worker *w, struct conn *c, const uint8_t *data, size_t len)
{
    json_error_t error;
    struct request r = { .w = w, .c = c, .text = (const char *)data, .len = len };
    if (json_valid(data, len, NULL)) /* stricter than jansson, which stops at a NUL */
        r.json =
            json_loadb(r.text, len,
                       JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    if (!json_is_object(r.json)) {
        /* Half a conversation can't be trusted: the client is broken, not unlucky. */
        conn_refuse(w, c, CODE_BAD_REQUEST, "not a JSON object");
    } else {
        handle(&r);
    }
    json_decref(r.json);
}
