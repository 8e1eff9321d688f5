/* WebSocket (RFC 6455) without I/O: bytes in, events out; frame heads out. */
#ifndef TRANSPORTS_WEBSOCKET_H
#define TRANSPORTS_WEBSOCKET_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10
};

#define WS_HEAD_MAX      10 /* bytes of an unmasked head */
#define WS_FRAGMENTS_MAX 16384
#define WS_ACCEPT_LEN    28

/* A server's inbound side. Memory is held in `message` only while a fragmented message is being put
 * together and until the call after the one that returned it. */
struct ws_decoder {
    struct buf message; /* unfinished message; .max set by ws_decoder_init() */
    uint32_t checked;   /* bytes of an incomplete text frame that are known to be UTF-8 */
    uint16_t fragments; /* taken of the unfinished message */
    uint8_t opcode;     /* of the unfinished message, 0 = none */
    uint8_t utf8;       /* state of a text message so far */
};
_Static_assert(sizeof(struct ws_decoder) <= 48, "one per connection that speaks");

struct ws_event {
    enum ws_opcode opcode; /* TEXT, BINARY (whole messages), PING, PONG, CLOSE */
    uint8_t *data;         /* borrowed: into the input or the decoder, until the next call */
    size_t len;
    uint16_t close_code; /* CLOSE: 1005 when the frame was empty; data/len = reason */
};

/* message_max < 4 GiB. */
void ws_decoder_init(struct ws_decoder *d, size_t message_max);
/* Frees the memory it holds; the decoder is as after init. An event's data of it is gone. */
void ws_decoder_done(struct ws_decoder *d);
/* True between messages: ws_decoder_done() loses nothing then. */
bool ws_decoder_idle(const struct ws_decoder *d);
/* Takes one frame from the front of data (unmasks in place; each byte is presented only until
 * consumed). Returns 1 with an event, 0 when more bytes are needed (*ret_consumed > 0: a fragment
 * was taken, call again), or the negated close code to fail with: 1002, 1007, 1009, 1011 (out of
 * memory); nothing may be decoded after that, nor after a CLOSE. The caller keeps unconsumed bytes
 * and presents them again, unchanged, with what comes after them; a frame needs at most
 * max(message_max, 125) + 14 of them. */
int ws_decode(struct ws_decoder *d, uint8_t *data, size_t len, size_t *ret_consumed,
              struct ws_event *ret);

/* Head of an unmasked, final frame. Returns its length. */
size_t ws_encode_head(uint8_t out[WS_HEAD_MAX], enum ws_opcode opcode, uint64_t len);
/* Sec-WebSocket-Accept; out gets WS_ACCEPT_LEN bytes and a NUL. False unless key is 24 characters
 * of base64 that decode to 16 bytes. */
bool ws_accept(char out[WS_ACCEPT_LEN + 1], const char *key, size_t key_len);
/* May this code stand in a close frame (RFC 6455 7.4)? */
bool ws_close_code_valid(uint16_t code);

#endif
