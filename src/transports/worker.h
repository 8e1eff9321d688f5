/* A worker: one event loop that holds client sockets. Never blocks, holds no backend credentials,
 * sees the log read-only. docs/architecture.md tells a worker's turn. */
#ifndef TRANSPORTS_WORKER_H
#define TRANSPORTS_WORKER_H

#include "counters.h"
#include "log.h"
#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#define WORKER_LISTENERS_MAX 8
#define WORKER_RESERVED_FDS  96 /* not for clients: listeners, inbox, …, polite refusals */

struct worker_options {
    const struct settings *settings;
    struct log *log;          /* read-only mapping */
    struct sockaddr_un inbox; /* the source process's inbox */
    socklen_t inbox_len;
    struct sockaddr_un application;      /* where the application process takes requests */
    socklen_t application_len;           /* 0: there is none */
    int listeners[WORKER_LISTENERS_MAX]; /* public addresses */
    size_t n_listeners;
    int admin_fd;              /* shared listener, -1 = off */
    int life_fd;               /* end of file = the supervisor is gone: leave */
    struct counters *counters; /* this process's page */
    struct counters *all;      /* every process's pages, n_all × COUNTERS_SIZE bytes apart */
    size_t n_all;
    unsigned index; /* 1-based */
    /* What an operator should know, a log event of this worker; NULL: nobody listens. */
    void (*warn)(void *arg, const char *event, const char *message);
    void *arg;
};

/* Runs until drained, told to end or the supervisor is gone. SIGTERM is only a hint (a terminal and
 * systemd signal every process, and pending signals merge): the loop then looks at
 * all[0].draining: 2 = end at once, otherwise drain; a repeated one changes nothing. SIGINT is
 * ignored, the supervisor turns it into SIGTERM. Writes counters->beat_ms at least every second.
 * Returns the exit code. */
int worker_run(const struct worker_options *options);

#endif
