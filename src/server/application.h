/* The application process: a loop that talks to the workers, and threads that run handlers. */
#ifndef SERVER_APPLICATION_H
#define SERVER_APPLICATION_H

#include "child.h"
#include "routes.h"

#include <fanwire/server.h>

struct handler {
    fw_handler_fn *run;
    void *arg;
};

/* What the program said of it; the same in all processes. */
struct application {
    char name[32];
    unsigned n_threads;
    int (*start)(void *arg);
    void (*stop)(void *arg);
    void *arg;
    char *secret; /* the program's; zeroed in other processes */
    struct routes routes;
    struct handler *handlers;    /* by the route's index */
    const struct logger *logger; /* for fw_server_log(); NULL until its process runs */
};

/* In a process that is not the application's: wipes what is for that alone. NULL allowed. */
void application_forget_secret(struct application *application);

struct application_process {
    struct application *application;
    int listen_fd; /* where workers connect */
    struct child child;
};

/* Runs until SIGTERM comes while may_stop(): then handlers that run and requests that wait are
 * finished. Returns the exit code. Threads of the program may still hold requests then: the process
 * is to end. Blocks. */
int application_process_run(const struct application_process *process);

#endif
