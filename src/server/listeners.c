/* All sockets of the server: those for clients, and the admin address. */
#include "listeners.h"

#include "error.h"

#include <errno.h>
#include <unistd.h>

int listeners_open(struct listeners *listeners, const struct server_options *options,
                   struct fw_error *err)
{
    for (size_t i = 0; i < options->n_http; i++) {
        int n =
            listener_open(&options->http[i], options->workers, &listeners->http[listeners->n_http],
                          WORKER_LISTENERS_MAX - listeners->n_http, err);
        if (n < 0)
            return n;
        listeners->n_http += (size_t)n;
    }
    if (!options->admin_on)
        return 0;
    int n = listener_open(&options->admin, 1, &listeners->admin, 1, err);
    if (n < 0 && err->code == -EADDRINUSE) {
        struct fw_error first = *err;
        return error_set(err, n, "%.380s (this is the --admin address; \"--admin off\" exists)",
                         first.message);
    }
    return n < 0 ? n : 0;
}

void listeners_close_public(struct listeners *listeners)
{
    for (size_t i = 0; i < listeners->n_http; i++)
        listener_close(&listeners->http[i]);
    listeners->n_http = 0;
}

void listeners_close(struct listeners *listeners)
{
    listeners_close_public(listeners);
    listener_close(&listeners->admin);
}

static void drop(struct listener *listener)
{
    listener->path[0] = '\0';
    listener_close(listener);
}

void listeners_drop(struct listeners *listeners)
{
    for (size_t i = 0; i < listeners->n_http; i++)
        drop(&listeners->http[i]);
    drop(&listeners->admin);
}

size_t listeners_keep(struct listeners *listeners, size_t worker, int *fds)
{
    for (size_t i = 0; i < listeners->n_http; i++) {
        struct listener *l = &listeners->http[i];
        size_t own = (worker - 1) % l->n_fds;
        fds[i] = l->fds[own];
        for (size_t j = 0; j < l->n_fds; j++) {
            if (j != own)
                close(l->fds[j]);
        }
    }
    return listeners->n_http;
}
