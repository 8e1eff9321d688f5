/* The WebSocket codec of a server (RFC 6455): one frame at a time from the caller's buffer. A frame
 * that is not whole yet stays in that buffer; of a text frame only how far it was checked is kept,
 * so that invalid UTF-8 fails with the byte that makes it so. */
#include "websocket.h"

#include "text.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#define WS_GUID         "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define WS_CONTROL_MAX  125
#define WS_KEY_TEXT_LEN 24
#define WS_KEY_LEN      16

enum close_code {
    CLOSE_PROTOCOL = 1002,
    CLOSE_NO_STATUS = 1005,
    CLOSE_UTF8 = 1007,
    CLOSE_TOO_BIG = 1009,
    CLOSE_INTERNAL = 1011,
};

struct frame_head {
    size_t size; /* bytes of the head itself */
    uint64_t len;
    const uint8_t *mask;
    uint8_t opcode;
    bool final;
};

static bool is_control(uint8_t opcode)
{
    return opcode >= WS_CLOSE;
}

void ws_decoder_init(struct ws_decoder *d, size_t message_max)
{
    *d = (struct ws_decoder){ .message = buf_make(message_max) };
}

void ws_decoder_done(struct ws_decoder *d)
{
    buf_done(&d->message);
    ws_decoder_init(d, d->message.max);
}

bool ws_decoder_idle(const struct ws_decoder *d)
{
    return !d->opcode && !d->checked;
}

/* ---- heads ---- */

/* Section 5.2 and 5.4: which frame may come now. */
static int check_opcode(const struct ws_decoder *d, uint8_t first)
{
    uint8_t opcode = first & 0x0F;
    bool final = first & 0x80;
    if (first & 0x70)
        return -CLOSE_PROTOCOL; /* no extension was negotiated that uses a reserved bit */
    switch (opcode) {
    case WS_TEXT:
    case WS_BINARY:
        return d->opcode ? -CLOSE_PROTOCOL : 0;
    case WS_CONTINUATION:
        return d->opcode ? 0 : -CLOSE_PROTOCOL;
    case WS_CLOSE:
    case WS_PING:
    case WS_PONG:
        return final ? 0 : -CLOSE_PROTOCOL;
    default:
        return -CLOSE_PROTOCOL;
    }
}

static uint64_t read_be(const uint8_t *p, size_t size)
{
    uint64_t n = 0;
    for (size_t i = 0; i < size; i++)
        n = n << 8 | p[i];
    return n;
}

/* The payload's length: 1 when known, 0 when more bytes are needed. The shortest form is required.
 */
static int read_length(const uint8_t *data, size_t len, struct frame_head *head)
{
    uint8_t first = data[1] & 0x7F;
    size_t extra = first == 127 ? 8 : first == 126 ? 2 : 0;
    if (extra && is_control(head->opcode))
        return -CLOSE_PROTOCOL;
    if (len < 2 + extra)
        return 0;
    head->size = 2 + extra;
    head->len = extra ? read_be(data + 2, extra) : first;
    if ((extra == 2 && head->len < 126) || (extra == 8 && head->len <= UINT16_MAX) ||
        head->len >> 63)
        return -CLOSE_PROTOCOL;
    return 1;
}

/* Limits hold for what a head declares: nothing that is too large is waited for. */
static int check_limits(const struct ws_decoder *d, const struct frame_head *head)
{
    if (is_control(head->opcode))
        return 1;
    if (head->len > d->message.max - d->message.len || d->fragments >= WS_FRAGMENTS_MAX)
        return -CLOSE_TOO_BIG;
    return 1;
}

/* 1 with the whole head, 0 when more bytes are needed, or the negated close code as soon as a byte
 * of it is wrong. */
static int read_head(const struct ws_decoder *d, const uint8_t *data, size_t len,
                     struct frame_head *head)
{
    if (len < 1)
        return 0;
    int r = check_opcode(d, data[0]);
    if (r < 0 || len < 2)
        return r;
    if (!(data[1] & 0x80))
        return -CLOSE_PROTOCOL; /* section 5.1: clients mask */
    *head = (struct frame_head){ .opcode = data[0] & 0x0F, .final = data[0] & 0x80 };
    r = read_length(data, len, head);
    if (r == 1)
        r = check_limits(d, head);
    if (r < 1 || len < head->size + 4)
        return r < 0 ? r : 0;
    head->mask = data + head->size;
    head->size += 4;
    return 1;
}

/* ---- payloads ---- */

static void unmask(uint8_t *out, const uint8_t *data, size_t len, const uint8_t mask[4])
{
    uint64_t word, wide;
    uint8_t twice[8];
    memcpy(twice, mask, 4);
    memcpy(twice + 4, mask, 4);
    memcpy(&wide, twice, 8);
    size_t i = 0;
    for (; len - i >= 8; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(out + i, &word, 8);
    }
    for (; i < len; i++)
        out[i] = data[i] ^ mask[i % 4];
}

static bool is_text(const struct ws_decoder *d, const struct frame_head *head)
{
    return head->opcode == WS_TEXT || (head->opcode == WS_CONTINUATION && d->opcode == WS_TEXT);
}

static int feed_text(struct ws_decoder *d, const uint8_t *text, size_t len)
{
    uint32_t state = utf8_feed(d->utf8, text, len);
    if (state == UTF8_REJECT)
        return -CLOSE_UTF8;
    d->utf8 = (uint8_t)state;
    return 0;
}

/* Checks what has come of an unfinished text frame, once each byte, without touching the input: the
 * same bytes are presented again. Whole groups of four, so that the mask stays in step. */
static int check_part(struct ws_decoder *d, const struct frame_head *head, const uint8_t *payload,
                      size_t len)
{
    uint8_t chunk[512];
    int r = 0;
    while (r == 0 && d->checked < len) {
        size_t from = d->checked & ~(size_t)3, skip = d->checked - from;
        size_t n = len - from < sizeof(chunk) ? len - from : sizeof(chunk);
        unmask(chunk, payload + from, n, head->mask);
        r = feed_text(d, chunk + skip, n - skip);
        d->checked = (uint32_t)(from + n);
    }
    return r;
}

static int take_control(const struct frame_head *head, uint8_t *payload, struct ws_event *ret)
{
    *ret = (struct ws_event){ .opcode = head->opcode, .data = payload, .len = head->len };
    if (head->opcode != WS_CLOSE)
        return 1;
    ret->close_code = CLOSE_NO_STATUS;
    if (!ret->len)
        return 1;
    if (ret->len == 1)
        return -CLOSE_PROTOCOL;
    ret->close_code = (uint16_t)read_be(payload, 2);
    ret->data += 2;
    ret->len -= 2;
    if (!ws_close_code_valid(ret->close_code))
        return -CLOSE_PROTOCOL;
    return utf8_valid(ret->data, ret->len) ? 1 : -CLOSE_UTF8;
}

static int take_data(struct ws_decoder *d, const struct frame_head *head, uint8_t *payload,
                     struct ws_event *ret)
{
    uint8_t opcode = d->opcode ? d->opcode : head->opcode;
    if (opcode == WS_TEXT) {
        int r = feed_text(d, payload + d->checked, head->len - d->checked);
        if (r == 0 && head->final && d->utf8)
            r = -CLOSE_UTF8; /* ends inside a character */
        if (r < 0)
            return r;
    }
    d->checked = 0;
    if (head->final && !d->opcode) { /* the usual case: a message in one frame, not copied */
        *ret = (struct ws_event){ .opcode = opcode, .data = payload, .len = head->len };
        return 1;
    }
    if (buf_append(&d->message, payload, head->len) < 0)
        return -CLOSE_INTERNAL; /* no memory: the size was checked */
    d->opcode = opcode;
    d->fragments++;
    if (!head->final)
        return 0;
    *ret = (struct ws_event){ .opcode = opcode, .data = d->message.data, .len = d->message.len };
    if (!ret->len)
        ret->data = payload;
    d->opcode = 0;
    d->fragments = 0;
    return 1;
}

int ws_decode(struct ws_decoder *d, uint8_t *data, size_t len, size_t *ret_consumed,
              struct ws_event *ret)
{
    struct frame_head head;
    *ret_consumed = 0;
    if (!d->opcode && d->message.data)
        buf_done(&d->message); /* lent out by the call before */
    int r = read_head(d, data, len, &head);
    if (r < 1)
        return r;
    uint8_t *payload = data + head.size;
    size_t left = len - head.size;
    if (left < head.len)
        return is_text(d, &head) ? check_part(d, &head, payload, left) : 0;
    unmask(payload, payload, head.len, head.mask);
    *ret_consumed = head.size + head.len;
    return is_control(head.opcode) ? take_control(&head, payload, ret)
                                   : take_data(d, &head, payload, ret);
}

/* ---- outbound ---- */

size_t ws_encode_head(uint8_t out[WS_HEAD_MAX], enum ws_opcode opcode, uint64_t len)
{
    out[0] = 0x80 | (uint8_t)opcode;
    if (len < 126) {
        out[1] = (uint8_t)len;
        return 2;
    }
    size_t extra = len <= UINT16_MAX ? 2 : 8;
    out[1] = extra == 2 ? 126 : 127;
    for (size_t i = 0; i < extra; i++)
        out[2 + i] = (uint8_t)(len >> (8 * (extra - 1 - i)));
    return 2 + extra;
}

/* ---- handshake ---- */

bool ws_accept(char out[WS_ACCEPT_LEN + 1], const char *key, size_t key_len)
{
    uint8_t raw[WS_KEY_TEXT_LEN], digest[EVP_MAX_MD_SIZE];
    char text[WS_KEY_TEXT_LEN + sizeof(WS_GUID) - 1];
    unsigned digest_len = 0;
    if (key_len != WS_KEY_TEXT_LEN || base64_decode(raw, key, key_len) != WS_KEY_LEN)
        return false;
    memcpy(text, key, WS_KEY_TEXT_LEN);
    memcpy(text + WS_KEY_TEXT_LEN, WS_GUID, sizeof(WS_GUID) - 1);
    if (!EVP_Digest(text, sizeof(text), digest, &digest_len, EVP_sha1(), NULL))
        return false;
    out[base64_encode(out, digest, digest_len)] = '\0';
    return true;
}

/* 1004 to 1006 and 1015 never travel; 1012 to 1014 are registered with IANA. */
bool ws_close_code_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}
