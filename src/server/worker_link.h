/* The workers' connections, seen from the application process: requests in, answers out. */
#ifndef SERVER_WORKER_LINK_H
#define SERVER_WORKER_LINK_H

#include "crew.h"
#include "list.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct application;
struct worker_link;

struct links {
    /* set before links_open() */
    const struct application *application;
    struct crew *crew; /* takes the requests */
    bool (*peer_allowed)(void *arg, pid_t pid);
    void (*written)(void *arg); /* an answer has left, or the loop was woken */
    void *arg;
    /* the loop's thread */
    uv_pipe_t listener;
    struct list open;
    size_t n_writes; /* on their way */
    bool paused;     /* the crew is full, or the end has come: nothing is read */
    /* any thread */
    uv_async_t wake;
    pthread_mutex_t mutex;
    struct list outbox; /* of answers; by `mutex` */
};

/* Listens and takes requests, in the loop's thread. 0 or -errno. */
int links_open(struct links *links, uv_loop_t *loop, int listen_fd);
void links_pause(struct links *links);
void links_resume(struct links *links);  /* as far as the crew has room */
bool links_flushed(struct links *links); /* every answer has left */

/* References are for requests that wait for an answer. Any thread. */
struct worker_link *worker_link_ref(struct worker_link *link); /* returns link */
void worker_link_unref(struct worker_link *link);
/* Sends bytes, which it now owns (malloc). 0, -EPIPE or -ENOMEM. Any thread; never blocks. */
int worker_link_send(struct worker_link *link, uint8_t *bytes, size_t len);

#endif
