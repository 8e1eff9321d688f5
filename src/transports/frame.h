/* The wire formats of an event: each event is encoded once per format in use. */
#ifndef TRANSPORTS_FRAME_H
#define TRANSPORTS_FRAME_H

#include "buf.h"
#include "codes.h"
#include "log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum frame_format {
    FORMAT_WS_BARE,  /* WebSocket, path form: the payload, text if UTF-8, else binary */
    FORMAT_WS_JSON,  /* WebSocket, fanwire.v1: one JSON envelope per text frame */
    FORMAT_SSE_BARE, /* SSE, path form: id + data; control as named events */
    FORMAT_SSE_JSON, /* SSE, query form: everything as unnamed envelopes */
    N_FORMATS
};

enum payload_class { PAYLOAD_UNKNOWN, PAYLOAD_JSON, PAYLOAD_TEXT, PAYLOAD_BINARY };

/* What a payload is, from its bytes alone: JSON (data), other UTF-8 (text, also empty), or binary
 * (base64). *ret_newlines: JSON with line ends between tokens. */
enum payload_class payload_classify(const void *data, size_t len, bool *ret_newlines);

struct frame_message {
    const char *channel;
    size_t channel_len;
    const char *id; /* position text */
    size_t id_len;
    int64_t time_ms;
    const uint8_t *data;
    size_t len;
    const char *from;         /* NULL or "": none */
    enum payload_class class; /* PAYLOAD_UNKNOWN: classified on demand and written back */
    bool newlines;
};

/* Everything below appends whole or not at all: 0, or -EMSGSIZE/-ENOMEM with out->len as it was and
 * out->failed set, as buf.h has it. */

/* Appends the whole wire frame of a message. */
int frame_message(struct buf *out, enum frame_format format, struct frame_message *message);

/* A message that stands before a bare stream's first event, and has no position. */
int frame_opening(struct buf *out, enum frame_format format, const void *data, size_t len);

/* Control messages, in the wire format of the connection (nothing for FORMAT_WS_BARE, but ping and
 * close). `json` is the whole JSON object, `name` its SSE event name. */
int frame_control(struct buf *out, enum frame_format format, const char *name, const char *json,
                  size_t len);
/* Builders of the JSON objects of docs/protocol.md. Strings may be NULL where the field is
 * optional; ref is raw JSON text (a number or a quoted string) or NULL. */
/* channel_len 0: all channels. */
int json_ready(struct buf *out, const char *channel, size_t channel_len, const char *id,
               const char *ref);
int json_gap(struct buf *out, const char *channel, size_t channel_len, const char *after,
             const char *before, enum gap_reason reason);
int json_down(struct buf *out, enum gap_reason reason);
int json_up(struct buf *out);
int json_position(struct buf *out, const char *id);
/* A row: `json` is its text, as it stands in the message. */
int json_snapshot(struct buf *out, const char *channel, size_t channel_len, const char *json,
                  size_t len);
int json_closing(struct buf *out, enum error_code code, unsigned retry_ms);
int json_error(struct buf *out, enum error_code code, const char *message, const char *ref);
int json_unsubscribed(struct buf *out, const char *channel, size_t channel_len,
                      enum error_code code, const char *message, const char *ref);
int json_ok(struct buf *out, const char *id, const char *ref); /* id NULL: "id":null */
int json_welcome(struct buf *out, const char *client, unsigned heartbeat_s, unsigned max,
                 const char *server, const char *mode, bool durable);
/* The message envelope alone (history and SSE use it): {"type":"message",…} */
int json_message(struct buf *out, struct frame_message *message, bool with_type_and_channel,
                 bool escape_newlines);

/* The lone "id: POS" heartbeat of SSE (both forms), or the position message of fanwire.v1 together
 * with a ping; for FORMAT_WS_BARE a ping. One send. id NULL or "" (SSE) while there is none yet. */
int frame_heartbeat(struct buf *out, enum frame_format format, const char *id);

/* RFC 9457 body. */
int problem_body(struct buf *out, enum error_code code, unsigned status, const char *detail);

#endif
