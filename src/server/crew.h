/* The threads that run handlers, and the bounded queue before them. */
#ifndef SERVER_CREW_H
#define SERVER_CREW_H

#include "list.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct fw_request;

struct crew {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct list queue; /* of struct fw_request */
    size_t n_queued, queued_bytes;
    unsigned n_running; /* handlers */
    bool full;          /* somebody waits for room */
    bool ending;        /* threads leave when the queue is empty */
    pthread_t *threads;
    unsigned n_threads;
    /* Any thread: there is room again, or nothing is left to do while ending. */
    void (*relieved)(void *arg);
    void *arg;
};

/* Starts n threads. 0 or -errno: then none run. */
int crew_start(struct crew *crew, unsigned n, void (*relieved)(void *arg), void *arg);
/* Queues a request, which it now owns. */
void crew_push(struct crew *crew, struct fw_request *request);
/* Is there no room? Then relieved() tells when there is. */
bool crew_full(struct crew *crew);
void crew_end(struct crew *crew);  /* no more will be pushed */
bool crew_idle(struct crew *crew); /* nothing queued, nothing running */
void crew_join(struct crew *crew); /* after crew_end(); blocks */

#endif
