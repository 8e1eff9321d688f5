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

struct reader_handlers {
    /* The channel is heard without a break from offset covered_from; tell `ready` once everything
     * up to ready_at was delivered. */
    void (*ready)(void *arg, const char *channel, size_t len, uint64_t covered_from,
                  uint64_t ready_at);
    void (*refused)(void *arg, const char *channel, size_t len, enum error_code code,
                    const char *message);
    /* id: "" where the backend tells none */
    void (*published)(void *arg, uint64_t request, enum error_code code, const char *message,
                      const char *id);
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

/* 0, -EAGAIN (inbox full: again when writable; nothing was sent), -EPIPE (source process gone). */
int reader_subscribe(struct reader *reader, const char *channel, size_t len);
/* The same after a reconnect, for a channel that was ready before: `covered_from` is what ready()
 * told then. Where the new source process hears the channel from later on, and no gap of all
 * channels stands after that place, it appends a gap of this channel: readers need no rule of their
 * own. */
int reader_resubscribe(struct reader *reader, const char *channel, size_t len,
                       uint64_t covered_from);
int reader_unsubscribe(struct reader *reader, const char *channel, size_t len);
/* Takes any size up to the protocol's 1 MiB by fragments (-EMSGSIZE beyond); -EAGAIN only before
 * the first fragment, the rest is kept and sent by reader_process(). `data` is copied where needed.
 */
int reader_publish(struct reader *reader, uint64_t request, const char *channel, size_t channel_len,
                   const void *data, size_t len, const char *key, const char *from);
/* Makes the source side bump the wake word and write this reader's eventfd. Thread: any.
 * 0, -EAGAIN (inbox full) or -EPIPE. */
int reader_poke(struct reader *reader);
/* Ends the connection without releasing anything: both sides wake up to its end. Thread: any. */
void reader_hang_up(struct reader *reader);
/* Reads and handles all messages there are, sends what is left over. 0, or -EPIPE at end of file
 * (the source process has gone: close, connect again, repeat the channels). */
int reader_process(struct reader *reader, const struct reader_handlers *handlers, void *arg);

#endif
