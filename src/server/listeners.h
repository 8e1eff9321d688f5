/* All sockets of the server: those for clients, and the admin address. */
#ifndef SERVER_LISTENERS_H
#define SERVER_LISTENERS_H

#include "listener.h"
#include "options.h"

struct listeners {
    struct listener http[WORKER_LISTENERS_MAX];
    size_t n_http;
    struct listener admin; /* n_fds 0: off */
};

/* Binds all of them, for as many workers as the options say. Returns 0 or -errno with text; what is
 * open then is for listeners_close(). */
int listeners_open(struct listeners *listeners, const struct server_options *options,
                   struct fw_error *err);
void listeners_close_public(struct listeners *listeners);
void listeners_close(struct listeners *listeners);

/* In a child: closes all of them without unlinking what the supervisor still serves. */
void listeners_drop(struct listeners *listeners);
/* In a worker (1, 2, …): keeps its own socket of each address for clients, or the one that all
 * share, and closes the rest. Fills `fds`; returns their number. */
size_t listeners_keep(struct listeners *listeners, size_t worker, int *fds);

#endif
