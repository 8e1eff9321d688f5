/* Listening sockets, bound before anything else and kept for the server's life, so that a dying
 * worker resets nobody in its accept queue. */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include "address.h"

#include <stddef.h>
#include <sys/types.h>

#define LISTENER_TEXT_MAX 160

/* One bound address. TCP has one socket per worker (SO_REUSEPORT: the kernel spreads connections
 * and no accept is fought over); a Unix socket or the admin address has one that all share. */
struct listener {
    int *fds;
    size_t n_fds;
    uint16_t port;                /* TCP: the one that it got */
    char text[LISTENER_TEXT_MAX]; /* where it really is: "http://127.0.0.1:4600/", "unix:PATH" */
    char path[sizeof(((struct address *)0)->path)]; /* to be unlinked by listener_close() */
    dev_t path_dev;
    ino_t path_ino;
};

/* Binds `address` with `copies` sockets per resolved TCP address. A name may resolve to several;
 * fills at most `max` listeners. A stale Unix socket file is replaced, a live one is an error.
 * Returns their number, -EADDRINUSE and the like with text (exit code 4). Blocks on DNS. */
int listener_open(const struct address *address, size_t copies, struct listener *out, size_t max,
                  struct fw_error *err);
void listener_close(struct listener *listener);

#endif
