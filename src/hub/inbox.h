/* clang-format off */
/* The control inbox's messages, without I/O policy: one SOCK_SEQPACKET connection per reader to the
 * source side. Every message is one packet of at most INBOX_FRAGMENT_MAX bytes:
 *
 *   type u8 | flags u8 | code u16 | text lengths 3 × u16 | pad u16 | data u32
 *   | a u64 | b u64 | c u64 | texts, each followed by a NUL | data
 *
 * in host byte order (both ends are on one host and say their version first).
 *
 * reader → source side
 *   HELLO        code = version
 *   SUBSCRIBE    channel; a = the covered_from that the reader was told before a reconnect, or 0;
 *                c = the question's number, which comes back in its answer
 *   UNSUBSCRIBE  channel
 *   PUBLISH      a = request, b = whole length; channel, key, from; the first data
 *   BATCH        a = request, b = whole length, c = number of events; -, -, from; the first of
 *                the events, as batch.h packs them
 *   DATA         the next data of that publish or batch
 *   SNAPSHOT     a = request; channel
 *   POKE
 *
 * source side → reader
 *   HELLO        code = version; the reader's page and its eventfd are attached
 *   SOURCE       code = durable; kind, mode, guarantee
 *   READY        channel; a = covered_from, b = ready_at, c = which question
 *   REFUSED      channel, message; code; c = which question
 *   PUBLISHED    a = request; code; id, message; of a batch one for each event, in order, b = its
 *                index, until one is refused: then b = how many were accepted, and c = 1 where
 *                these stay so, 0 where none or all of a batch is stored
 *
 *   ROWS         a = request; code, b = bytes of rows, c = until; channel, message (refused: why);
 *                data: the rows (JSON texts, each followed by a NUL), then the offsets of the
 *                events that come after them but stand before offset `until` (u64 each)
 *
 * MORE is set on PUBLISH, BATCH, DATA and ROWS while data is left. Other messages may stand between
 * them.
 */
/* clang-format on */
#ifndef HUB_INBOX_H
#define HUB_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INBOX_VERSION      2
#define INBOX_FRAGMENT_MAX (32 * 1024)   /* a packet; larger ones are refused by default limits */
#define INBOX_PUBLISH_MAX  (1024 * 1024) /* payload of one publish */
#define INBOX_BATCH_MAX    (2 * 1024 * 1024) /* packed events of one batch */
#define INBOX_EVENTS_MAX   1000              /* of one batch */
#define INBOX_TEXT_MAX     512               /* one text; longer ones are cut when encoding */
#define INBOX_REPLY_MAX    2048              /* a packet to a reader */
#define INBOX_TEXTS        3

enum inbox_type {
    INBOX_HELLO = 1,
    INBOX_SUBSCRIBE,
    INBOX_UNSUBSCRIBE,
    INBOX_PUBLISH,
    INBOX_DATA,
    INBOX_POKE,
    INBOX_SOURCE,
    INBOX_READY,
    INBOX_REFUSED,
    INBOX_PUBLISHED,
    INBOX_BATCH,
    INBOX_SNAPSHOT,
    INBOX_ROWS,
    INBOX_N_TYPES
};

struct inbox_text {
    const char *text; /* NUL-terminated after inbox_decode(); NULL counts as "" when encoding */
    size_t len;
};

struct inbox_message {
    enum inbox_type type;
    bool more;
    uint16_t code;
    uint64_t a, b, c;
    struct inbox_text texts[INBOX_TEXTS];
    const void *data;
    size_t len;
};

static inline struct inbox_text inbox_text(const char *text, size_t len)
{
    return (struct inbox_text){ text, len };
}

/* Bytes of head and texts; the data follows. */
size_t inbox_head_size(const struct inbox_message *message);
/* Writes head and texts to buf (INBOX_REPLY_MAX bytes), not the data. Returns their length. */
size_t inbox_encode_head(void *buf, const struct inbox_message *message);
/* Checks a packet and points into it. Returns 0 or -EPROTO. */
int inbox_decode(const void *packet, size_t size, struct inbox_message *ret);

/* Sends one packet, with `n_fds` descriptors. Returns 0, -EAGAIN (nothing sent), -EPIPE. */
int inbox_send(int fd, const struct inbox_message *message, const int *fds, size_t n_fds);
/* Receives one packet into buf; ≤ 2 descriptors come with it (-1 = none; owned by the caller, who
 * passes NULL to have them closed). Returns its size, 0 at end of file, -EAGAIN, -EPROTO (cut off),
 * -EPIPE. */
int64_t inbox_receive(int fd, void *buf, size_t size, int fds[2]);

#endif
