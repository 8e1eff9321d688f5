/* A reader's end of the control inbox: subscribe, unsubscribe, publish and their replies. One per
 * reader process (or per library subscription). Never blocks; not thread-safe but reader_poke(). */
#ifndef HUB_READER_H
#define HUB_READER_H

#include "codes.h"
#include "log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct reader;

/* The answer to a question: which one is for the asker to compare, as a channel that was left and
 * asked for again may still be told the answer from before. */
struct reader_channel {
    const char *name;
    size_t len;
    uint64_t question;
};

/* The answer to a publish, or to one event of a batch: in order, until one is refused. */
struct reader_published {
    uint64_t request;
    enum error_code code;
    const char *message, *id; /* id: "" where the backend tells none */
    size_t index;             /* of the event in its batch; when refused, how many were accepted */
    bool in_parts;            /* refused: those that were accepted stay so */
};

/* A part of the answer to a snapshot's request: `len` more bytes of rows_len bytes of rows and then
 * of offsets (inbox.h); `more` follow. With `code` it was refused (`message` for the operator), and
 * there is nothing. */
struct reader_rows {
    const char *name;
    size_t name_len;
    uint64_t request, until;
    enum error_code code;
    const char *message;
    const void *data;
    size_t len, rows_len;
    bool more;
};

struct reader_handlers {
    /* The channel is heard without a break from offset covered_from; tell `ready` once everything
     * up to ready_at was delivered. */
    void (*ready)(void *arg, const struct reader_channel *channel, uint64_t covered_from,
                  uint64_t ready_at);
    void (*refused)(void *arg, const struct reader_channel *channel, enum error_code code,
                    const char *message);
    void (*published)(void *arg, const struct reader_published *answer);
    void (*rows)(void *arg, const struct reader_rows *part);
    /* The source process has greeted: mode and guarantee for `welcome`; may be called again when
     * they become known or change. */
    void (*source)(void *arg, const char *kind, const char *mode, bool durable,
                   const char *guarantee);
};

/* Connects to the listener's address (a fresh source process accepts it later). 0 or -errno. */
int reader_connect(const struct sockaddr_un *address, socklen_t len, struct reader **ret);
int reader_adopt(int fd, struct reader **ret); /* takes the descriptor */
void reader_close(struct reader *reader);      /* NULL allowed */

int reader_fd(const struct reader *reader);       /* poll for reading; and writing when _blocked */
bool reader_blocked(const struct reader *reader); /* the last request did not fit: poll writable */
/* Page and eventfd of this reader, NULL / -1 until the source process has greeted. */
struct log_slot *reader_slot(const struct reader *reader);
int reader_eventfd(const struct reader *reader);

/* Asks for the channel; its question's number comes back in the answer.
 * 0, -EAGAIN (inbox full: again when writable; nothing was sent), -EPIPE (source process gone). */
int reader_subscribe(struct reader *reader, const struct reader_channel *channel);
/* The same after a reconnect, for a channel that was ready before: `covered_from` is what ready()
 * told then. Where the new source process hears the channel from later on, and no gap of all
 * channels stands after that place, it appends a gap of this channel: readers need no rule of their
 * own. */
int reader_resubscribe(struct reader *reader, const struct reader_channel *channel,
                       uint64_t covered_from);
int reader_unsubscribe(struct reader *reader, const char *channel, size_t len);
/* Asks for the rows that stand before the channel's events; 0, -EAGAIN, -EPIPE as above. */
int reader_snapshot(struct reader *reader, uint64_t request, const char *channel, size_t len);
/* Takes any size up to the protocol's 1 MiB by fragments (-EMSGSIZE beyond); -EAGAIN only before
 * the first fragment, the rest is kept and sent by reader_process(). `data` is copied where needed.
 */
int reader_publish(struct reader *reader, uint64_t request, const char *channel, size_t channel_len,
                   const void *data, size_t len, const char *key, const char *from);
/* `n` events as batch.h packs them, up to INBOX_EVENTS_MAX and INBOX_BATCH_MAX bytes. Otherwise the
 * same. */
int reader_publish_batch(struct reader *reader, uint64_t request, const void *events, size_t len,
                         size_t n, const char *from);
/* Makes the source side bump the wake word and write this reader's eventfd. Thread: any.
 * 0, -EAGAIN (inbox full) or -EPIPE. */
int reader_poke(struct reader *reader);
/* Ends the connection without releasing anything: both sides wake up to its end. Thread: any. */
void reader_hang_up(struct reader *reader);
/* Reads and handles all messages there are, sends what is left over. 0, or -EPIPE at end of file
 * (the source process has gone: close, connect again, repeat the channels), or -EMFILE: it has
 * greeted, but this process had no descriptors for the page and the eventfd. */
int reader_process(struct reader *reader, const struct reader_handlers *handlers, void *arg);

#endif
