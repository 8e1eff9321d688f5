/* Connections that threads take in turn: each is one thread's at a time. */
#include "pool.h"

void pool_init(struct pool *pool)
{
    *pool = (struct pool){ .n = 0 };
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->given, NULL);
}

void pool_done(struct pool *pool)
{
    (void)pthread_cond_destroy(&pool->given);
    (void)pthread_mutex_destroy(&pool->lock);
}

void *pool_take(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    while (pool->n == 0)
        (void)pthread_cond_wait(&pool->given, &pool->lock);
    void *connection = pool->idle[--pool->n];
    (void)pthread_mutex_unlock(&pool->lock);
    return connection;
}

void pool_give(struct pool *pool, void *connection)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->idle[pool->n++] = connection;
    (void)pthread_cond_signal(&pool->given);
    (void)pthread_mutex_unlock(&pool->lock);
}
