/* Connections that threads take in turn: each is one thread's at a time. */
#ifndef TODO_POOL_H
#define TODO_POOL_H

#include <pthread.h>

#define POOL_SIZE 8 /* as many as there are threads, so that none ever waits */

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t given;
    void *idle[POOL_SIZE];
    unsigned n;
};

void pool_init(struct pool *pool);
void pool_done(struct pool *pool);
/* Waits until there is one; the one last given comes first, so that the others stay unopened. */
void *pool_take(struct pool *pool);
void pool_give(struct pool *pool, void *connection);

#endif
