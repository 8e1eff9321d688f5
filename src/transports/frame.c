/* The wire formats of an event and of what is said about events (docs/protocol.md). Everything is
 * appended whole or not at all. */
#include "frame.h"

#include "json.h"
#include "text.h"
#include "websocket.h"

#include <string.h>

/* ---- payloads ---- */

enum payload_class payload_classify(const void *data, size_t len, bool *ret_newlines)
{
    *ret_newlines = false;
    if (json_valid(data, len, ret_newlines))
        return PAYLOAD_JSON;
    return utf8_valid(data, len) ? PAYLOAD_TEXT : PAYLOAD_BINARY;
}

static void classify(struct frame_message *message)
{
    if (message->class == PAYLOAD_UNKNOWN)
        message->class = payload_classify(message->data, message->len, &message->newlines);
}

/* For the bare formats, which need not know whether it is JSON. */
static bool is_utf8(const struct frame_message *message)
{
    if (message->class == PAYLOAD_UNKNOWN)
        return utf8_valid(message->data, message->len);
    return message->class != PAYLOAD_BINARY;
}

/* ---- pieces ---- */

/* What was begun at `start` is taken back if any of it failed. */
static int finish(struct buf *out, size_t start)
{
    if (out->failed)
        out->len = start;
    return out->failed;
}

static void append_base64(struct buf *out, const void *data, size_t len)
{
    size_t n = base64_encoded_len(len);
    if (buf_reserve(out, n) == 0)
        out->len += base64_encode((char *)out->data + out->len, data, len);
}

static void append_number(struct buf *out, int64_t n)
{
    char digits[20], *at = digits + sizeof(digits);
    uint64_t rest = n < 0 ? -(uint64_t)n : (uint64_t)n;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (n < 0)
        *--at = '-';
    (void)buf_append(out, at, (size_t)(digits + sizeof(digits) - at));
}

/* JSON in one line: line ends stand only between its tokens, where a space means the same. */
static void append_one_line(struct buf *out, const uint8_t *json, size_t len)
{
    if (buf_append(out, json, len) < 0)
        return;
    for (uint8_t *p = out->data + out->len - len; p < out->data + out->len; p++)
        if (*p == '\n' || *p == '\r')
            *p = ' ';
}

static void append_member(struct buf *out, const char *name, const char *value, size_t len)
{
    (void)buf_append_str(out, name);
    (void)json_append_string(out, value, len);
}

/* As above; nothing when there is no value. */
static void append_optional(struct buf *out, const char *name, const char *value)
{
    if (value)
        append_member(out, name, value, strlen(value));
}

static void append_nullable(struct buf *out, const char *name, const char *value)
{
    if (value)
        append_member(out, name, value, strlen(value));
    else
        (void)buf_printf(out, "%snull", name);
}

static void append_channel(struct buf *out, const char *channel, size_t len)
{
    if (len)
        append_member(out, ",\"channel\":", channel, len);
}

static void append_ref(struct buf *out, const char *ref)
{
    if (!ref)
        return;
    (void)buf_append_str(out, ",\"ref\":");
    (void)buf_append_str(out, ref);
}

/* ---- JSON objects ---- */

static void append_payload(struct buf *out, struct frame_message *message, bool one_line)
{
    classify(message);
    switch (message->class) {
    case PAYLOAD_JSON:
        (void)buf_append_str(out, ",\"data\":");
        if (one_line && message->newlines)
            append_one_line(out, message->data, message->len);
        else
            (void)buf_append(out, message->data, message->len);
        break;
    case PAYLOAD_TEXT:
        append_member(out, ",\"text\":", (const char *)message->data, message->len);
        break;
    default:
        (void)buf_append_str(out, ",\"base64\":\"");
        append_base64(out, message->data, message->len);
        (void)buf_append_char(out, '"');
    }
}

int json_message(struct buf *out, struct frame_message *message, bool with_type_and_channel,
                 bool escape_newlines)
{
    size_t start = out->len;
    if (with_type_and_channel) {
        (void)buf_append_str(out, "{\"type\":\"message\"");
        append_channel(out, message->channel, message->channel_len);
        (void)buf_append_char(out, ',');
    } else {
        (void)buf_append_char(out, '{');
    }
    append_member(out, "\"id\":", message->id, message->id_len);
    (void)buf_append_str(out, ",\"time\":");
    append_number(out, message->time_ms);
    append_payload(out, message, escape_newlines);
    if (message->from && message->from[0])
        append_optional(out, ",\"from\":", message->from);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_ready(struct buf *out, const char *channel, size_t channel_len, const char *id,
               const char *ref)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"ready\"");
    append_channel(out, channel, channel_len);
    append_nullable(out, ",\"id\":", id);
    append_ref(out, ref);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_gap(struct buf *out, const char *channel, size_t channel_len, const char *after,
             const char *before, enum gap_reason reason)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"gap\"");
    append_channel(out, channel, channel_len);
    append_nullable(out, ",\"after\":", after);
    append_nullable(out, ",\"before\":", before);
    append_optional(out, ",\"reason\":", reason_text(reason));
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_down(struct buf *out, enum gap_reason reason)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"down\"");
    if (reason != REASON_NONE)
        append_optional(out, ",\"reason\":", reason_text(reason));
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_up(struct buf *out)
{
    return buf_append_str(out, "{\"type\":\"up\"}");
}

int json_position(struct buf *out, const char *id)
{
    size_t start = out->len;
    append_nullable(out, "{\"type\":\"position\",\"id\":", id);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_snapshot(struct buf *out, const char *channel, size_t channel_len, const char *json,
                  size_t len)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"snapshot\"");
    append_channel(out, channel, channel_len);
    (void)buf_append_str(out, ",\"data\":");
    (void)buf_append(out, json, len);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_closing(struct buf *out, enum error_code code, unsigned retry_ms)
{
    return buf_printf(out, "{\"type\":\"closing\",\"code\":\"%s\",\"retry_ms\":%u}",
                      code_text(code), retry_ms);
}

int json_error(struct buf *out, enum error_code code, const char *message, const char *ref)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"error\"");
    append_ref(out, ref);
    append_optional(out, ",\"code\":", code_text(code));
    append_optional(out, ",\"message\":", message);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_unsubscribed(struct buf *out, const char *channel, size_t channel_len,
                      enum error_code code, const char *message, const char *ref)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"unsubscribed\"");
    append_channel(out, channel, channel_len);
    if (code != CODE_OK)
        append_optional(out, ",\"code\":", code_text(code));
    append_optional(out, ",\"message\":", message);
    append_ref(out, ref);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_ok(struct buf *out, const char *id, const char *ref)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"ok\"");
    append_ref(out, ref);
    append_nullable(out, ",\"id\":", id);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

int json_welcome(struct buf *out, const char *client, unsigned heartbeat_s, unsigned max,
                 const char *server, const char *mode, bool durable)
{
    size_t start = out->len;
    (void)buf_append_str(out, "{\"type\":\"welcome\"");
    append_optional(out, ",\"client\":", client);
    (void)buf_printf(out, ",\"heartbeat\":%u,\"max\":%u", heartbeat_s, max);
    append_optional(out, ",\"server\":", server);
    append_optional(out, ",\"mode\":", mode);
    (void)buf_printf(out, ",\"durable\":%s}", durable ? "true" : "false");
    return finish(out, start);
}

int problem_body(struct buf *out, enum error_code code, unsigned status, const char *detail)
{
    size_t start = out->len;
    const char *text = code_text(code);
    (void)buf_printf(out, "{\"type\":\"urn:fanwire:error:%s\",\"code\":\"%s\",\"status\":%u", text,
                     text, status);
    append_optional(out, ",\"title\":", code_title(code));
    append_optional(out, ",\"detail\":", detail);
    (void)buf_append_char(out, '}');
    return finish(out, start);
}

/* ---- WebSocket frames ---- */

static size_t ws_head_size(size_t len)
{
    uint8_t head[WS_HEAD_MAX];
    return ws_encode_head(head, WS_TEXT, len);
}

static void append_ws(struct buf *out, enum ws_opcode opcode, const void *data, size_t len)
{
    uint8_t head[WS_HEAD_MAX];
    (void)buf_append(out, head, ws_encode_head(head, opcode, len));
    (void)buf_append(out, data, len);
}

static const uint8_t free_room[WS_HEAD_MAX];

/* Puts the head of a text frame before the payload that was appended after `room` bytes left free
 * at `start`: moves the payload only if the guess of its length was off by enough to matter. */
static void close_ws_text(struct buf *out, size_t start, size_t room)
{
    uint8_t head[WS_HEAD_MAX];
    if (out->failed)
        return;
    size_t len = out->len - start - room;
    size_t size = ws_encode_head(head, WS_TEXT, len);
    if (size > room && buf_reserve(out, size - room) < 0)
        return;
    if (size != room)
        memmove(out->data + start + size, out->data + start + room, len);
    memcpy(out->data + start, head, size);
    out->len = start + size + len;
}

static void append_ws_envelope(struct buf *out, struct frame_message *message)
{
    size_t fixed = strlen("{'type':'message','channel':'','id':'','time':1795334400123,'data':}");
    size_t start = out->len;
    size_t room = ws_head_size(fixed + message->channel_len + message->id_len + message->len);
    (void)buf_append(out, free_room, room);
    (void)json_message(out, message, true, false);
    close_ws_text(out, start, room);
}

/* ---- SSE blocks ---- */

static void append_sse_id(struct buf *out, const char *id, size_t len)
{
    (void)buf_append_str(out, "id: ");
    (void)buf_append(out, id, len);
    (void)buf_append_char(out, '\n');
}

/* One data line per line of the payload; EventSource joins them again with LF. */
static void append_sse_lines(struct buf *out, const uint8_t *data, size_t len)
{
    for (;;) {
        const uint8_t *lf = len ? memchr(data, '\n', len) : NULL;
        size_t n = lf ? (size_t)(lf - data) : len;
        (void)buf_append_str(out, "data: ");
        (void)buf_append(out, data, n);
        (void)buf_append_char(out, '\n');
        if (!lf)
            break;
        data += n + 1;
        len -= n + 1;
    }
    (void)buf_append_char(out, '\n');
}

/* A CR would end a line for EventSource and corrupt the payload silently: such go as base64. */
static void append_sse_bare(struct buf *out, const struct frame_message *message)
{
    if (message->id)
        append_sse_id(out, message->id, message->id_len);
    if (is_utf8(message) && !(message->len && memchr(message->data, '\r', message->len))) {
        append_sse_lines(out, message->data, message->len);
        return;
    }
    (void)buf_append_str(out, "event: binary\ndata: ");
    append_base64(out, message->data, message->len);
    (void)buf_append_str(out, "\n\n");
}

static void append_sse_envelope(struct buf *out, struct frame_message *message)
{
    append_sse_id(out, message->id, message->id_len);
    (void)buf_append_str(out, "data: ");
    (void)json_message(out, message, true, true);
    (void)buf_append_str(out, "\n\n");
}

/* ---- frames ---- */

int frame_message(struct buf *out, enum frame_format format, struct frame_message *message)
{
    size_t start = out->len;
    switch (format) {
    case FORMAT_WS_BARE:
        append_ws(out, is_utf8(message) ? WS_TEXT : WS_BINARY, message->data, message->len);
        break;
    case FORMAT_WS_JSON:
        append_ws_envelope(out, message);
        break;
    case FORMAT_SSE_BARE:
        append_sse_bare(out, message);
        break;
    case FORMAT_SSE_JSON:
        append_sse_envelope(out, message);
        break;
    case N_FORMATS:
        break;
    }
    return finish(out, start);
}

int frame_opening(struct buf *out, enum frame_format format, const void *data, size_t len)
{
    struct frame_message message = { .data = data, .len = len };
    return frame_message(out, format, &message);
}

int frame_control(struct buf *out, enum frame_format format, const char *name, const char *json,
                  size_t len)
{
    size_t start = out->len;
    switch (format) {
    case FORMAT_WS_JSON:
        append_ws(out, WS_TEXT, json, len);
        break;
    case FORMAT_SSE_BARE:
        (void)buf_printf(out, "event: %s\n", name);
        append_sse_lines(out, (const uint8_t *)json, len);
        break;
    case FORMAT_SSE_JSON:
        append_sse_lines(out, (const uint8_t *)json, len);
        break;
    case FORMAT_WS_BARE:
    case N_FORMATS:
        break;
    }
    return finish(out, start);
}

/* Before the first position is known there is nothing to say but "alive"; an empty id would make
 * EventSource forget the one it has. */
static void append_sse_heartbeat(struct buf *out, const char *id)
{
    if (id && id[0])
        append_sse_id(out, id, strlen(id));
    else
        (void)buf_append_str(out, ":\n");
    (void)buf_append_char(out, '\n');
}

static void append_ws_position(struct buf *out, const char *id)
{
    size_t start = out->len;
    (void)buf_append(out, free_room, 2);
    (void)json_position(out, id);
    close_ws_text(out, start, 2);
}

int frame_heartbeat(struct buf *out, enum frame_format format, const char *id)
{
    size_t start = out->len;
    switch (format) {
    case FORMAT_WS_JSON:
        append_ws(out, WS_PING, NULL, 0);
        append_ws_position(out, id);
        break;
    case FORMAT_WS_BARE:
        append_ws(out, WS_PING, NULL, 0);
        break;
    case FORMAT_SSE_BARE:
    case FORMAT_SSE_JSON:
        append_sse_heartbeat(out, id);
        break;
    case N_FORMATS:
        break;
    }
    return finish(out, start);
}
