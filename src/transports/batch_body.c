/* Reads the body of a batch. Nothing is made a tree of: an array of a million brackets fits into
 * the 1 MiB that a body may have. */
#include "batch_body.h"

#include "batch.h"
#include "inbox.h"
#include "json.h"
#include "json_member.h"
#include "meta.h"
#include "text.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNEL, CHANNELS, DATA, TEXT, BASE64, KEY, N_MEMBERS };

static const char *const names[N_MEMBERS] = {
    "channel", "channels", "data", "text", "base64", "key"
};

struct reading {
    struct batch_body *body;
    size_t index; /* of the array's element */
    struct json_text members[N_MEMBERS];
    json_t *payload_text, *key_text; /* own what `event` points into */
    void *decoded;
    char key[META_KEY_MAX + 16];
    struct batch_event event;
};

/* ---- what is wrong ---- */

static enum error_code fail(struct reading *r, enum error_code code, const char *what)
{
    (void)snprintf(r->body->detail, sizeof(r->body->detail), "event %zu: %s", r->index, what);
    return code;
}

static enum error_code too_many(struct batch_body *body)
{
    (void)snprintf(body->detail, sizeof(body->detail),
                   "a batch is at most %d events (each counts once for each of its channels) and "
                   "%d MiB of them; send several",
                   INBOX_EVENTS_MAX, INBOX_BATCH_MAX >> 20);
    return CODE_TOO_LARGE;
}

/* ---- members ---- */

static int member_of(struct json_text name)
{
    for (int i = 0; i < N_MEMBERS; i++)
        if (name.len == strlen(names[i]) && memcmp(name.data, names[i], name.len) == 0)
            return i;
    return -1;
}

static enum error_code take_members(struct reading *r, struct json_text element)
{
    struct json_walk walk;
    struct json_text name, value;
    char shown[80], text[200];
    if (element.data[0] != '{' || !json_walk_begin(&walk, element))
        return fail(r, CODE_BAD_REQUEST, "it is no JSON object");
    while (json_walk_member(&walk, &name, &value)) {
        int member = member_of(name);
        bool again = member >= 0 && r->members[member].data;
        if (member >= 0 && !again) {
            r->members[member] = value;
            continue;
        }
        text_escape(shown, sizeof(shown), name.data, name.len);
        (void)snprintf(text, sizeof(text), again ? "\"%s\" comes twice" : "unknown member \"%s\"",
                       shown);
        return fail(r, CODE_BAD_REQUEST, text);
    }
    return CODE_OK;
}

/* A JSON string's value; NULL when it is none. */
static json_t *string_of(struct json_text value)
{
    json_t *json = value.data[0] == '"'
                       ? json_loadb(value.data, value.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL)
                       : NULL;
    return json;
}

static enum error_code take_payload(struct reading *r)
{
    const struct json_text *m = r->members;
    if (!!m[DATA].data + !!m[TEXT].data + !!m[BASE64].data != 1)
        return fail(r, CODE_BAD_REQUEST, "exactly one of \"data\", \"text\" and \"base64\"");
    if (m[DATA].data) {
        r->event.data = m[DATA].data;
        r->event.len = m[DATA].len;
        return CODE_OK;
    }
    r->payload_text = string_of(m[TEXT].data ? m[TEXT] : m[BASE64]);
    if (!r->payload_text)
        return fail(r, CODE_BAD_REQUEST, "\"text\" and \"base64\" are strings");
    r->event.data = json_string_value(r->payload_text);
    r->event.len = json_string_length(r->payload_text);
    if (m[TEXT].data)
        return CODE_OK;
    r->decoded = malloc(r->event.len + 3);
    if (!r->decoded)
        return fail(r, CODE_OVERLOADED, "out of memory");
    int64_t n = base64_decode(r->decoded, r->event.data, r->event.len);
    if (n < 0)
        return fail(r, CODE_BAD_REQUEST, "\"base64\" is not base64");
    r->event.data = r->decoded;
    r->event.len = (size_t)n;
    return CODE_OK;
}

static enum error_code take_own_key(struct reading *r)
{
    r->key_text = string_of(r->members[KEY]);
    const char *key = json_string_value(r->key_text);
    size_t len = json_string_length(r->key_text);
    if (!key || len == 0 || len > META_KEY_MAX || strlen(key) != len)
        return fail(r, CODE_BAD_REQUEST, "\"key\" is a string of 1 to 255 bytes without NUL");
    if (*r->body->key)
        return fail(r, CODE_BAD_REQUEST,
                    "it has a \"key\", and the request an Idempotency-Key: one of the two");
    r->event.key = key;
    r->event.key_len = len;
    return CODE_OK;
}

static enum error_code take_key(struct reading *r)
{
    if (r->members[KEY].data)
        return take_own_key(r);
    if (!*r->body->key)
        return CODE_OK;
    r->event.key_len = (size_t)snprintf(r->key, sizeof(r->key), "%s/%zu", r->body->key, r->index);
    r->event.key = r->key;
    if (r->event.key_len > META_KEY_MAX)
        return fail(r, CODE_BAD_REQUEST,
                    "an Idempotency-Key of a batch is at most 251 bytes: \"/INDEX\" is added");
    return CODE_OK;
}

/* ---- channels ---- */

/* Packs the event for one channel. */
static enum error_code add(struct reading *r, struct json_text value)
{
    struct batch_body *body = r->body;
    json_t *channel = string_of(value);
    char detail[512];
    enum error_code code = CODE_OVERLOADED;
    r->event.channel = json_string_value(channel);
    r->event.channel_len = json_string_length(channel);
    if (!channel)
        return fail(r, CODE_BAD_CHANNEL, "a channel's name is a string");
    code = body->check(body->arg, r->event.channel, r->event.channel_len, detail, sizeof(detail));
    if (code != CODE_OK) {
        (void)fail(r, code, detail);
    } else if (body->n == INBOX_EVENTS_MAX) {
        code = too_many(body);
    } else {
        int e = batch_append(&body->events, &r->event);
        code = e == 0           ? CODE_OK
               : e == -EMSGSIZE ? too_many(body)
                                : fail(r, CODE_OVERLOADED, "out of memory");
        body->n += e == 0;
    }
    json_decref(channel);
    return code;
}

static enum error_code add_all(struct reading *r)
{
    struct json_text channel = r->members[CHANNEL], channels = r->members[CHANNELS], one;
    struct json_walk walk;
    if (!channel.data == !channels.data)
        return fail(r, CODE_BAD_REQUEST, "either \"channel\" or \"channels\"");
    if (channel.data)
        return add(r, channel);
    size_t before = r->body->n;
    enum error_code code = CODE_OK;
    bool array = channels.data[0] == '[' && json_walk_begin(&walk, channels);
    while (array && code == CODE_OK && json_walk_element(&walk, &one))
        code = add(r, one);
    if (code == CODE_OK && r->body->n == before)
        return fail(r, CODE_BAD_REQUEST, "\"channels\" is an array of at least one name");
    return code;
}

/* ---- the whole ---- */

static enum error_code read_event(struct batch_body *body, size_t index, struct json_text element)
{
    struct reading r = { .body = body, .index = index };
    enum error_code code = take_members(&r, element);
    if (code == CODE_OK)
        code = take_payload(&r);
    if (code == CODE_OK)
        code = take_key(&r);
    if (code == CODE_OK)
        code = add_all(&r);
    json_decref(r.payload_text);
    json_decref(r.key_text);
    free(r.decoded);
    return code;
}

enum error_code batch_body_read(struct batch_body *body, const char *json, size_t len)
{
    struct json_walk walk;
    struct json_text element;
    bool array = json_valid(json, len, NULL) &&
                 json_walk_begin(&walk, (struct json_text){ json, len }) && walk.at[-1] == '[';
    enum error_code code = CODE_OK;
    body->events = buf_make(INBOX_BATCH_MAX);
    body->n = 0;
    for (size_t i = 0; array && code == CODE_OK && json_walk_element(&walk, &element); i++)
        code = read_event(body, i, element);
    if (code != CODE_OK || body->n > 0)
        return code;
    (void)snprintf(body->detail, sizeof(body->detail),
                   "a batch is a JSON array of {\"channel\" or \"channels\", \"data\", \"text\" or "
                   "\"base64\", and maybe \"key\"}; POST /publish/CHANNEL publishes one event");
    return CODE_BAD_REQUEST;
}
