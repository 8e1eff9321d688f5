/* Threads and their queue. */
#include "crew.h"

#include "request.h"

#include <errno.h>
#include <stdlib.h>

#define QUEUE_MAX       256
#define QUEUE_BYTES_MAX (32u << 20)

static bool has_room(const struct crew *crew)
{
    return crew->n_queued < QUEUE_MAX && crew->queued_bytes < QUEUE_BYTES_MAX;
}

/* Half empty: reading begins again for many, not for one. */
static bool is_relieved(const struct crew *crew)
{
    return crew->n_queued <= QUEUE_MAX / 2 && crew->queued_bytes <= QUEUE_BYTES_MAX / 2;
}

/* NULL: the thread is to leave. Called with the mutex held. */
static struct fw_request *next_request(struct crew *crew)
{
    struct list *node;
    while (!(node = list_pop(&crew->queue)) && !crew->ending)
        (void)pthread_cond_wait(&crew->work, &crew->mutex);
    if (!node)
        return NULL;
    struct fw_request *request = list_entry(node, struct fw_request, node);
    crew->n_queued--;
    crew->queued_bytes -= request->size;
    crew->n_running++;
    return request;
}

static void *work(void *arg)
{
    struct crew *crew = arg;
    struct fw_request *request;
    (void)pthread_mutex_lock(&crew->mutex);
    while ((request = next_request(crew))) {
        bool relieved = crew->full && is_relieved(crew);
        crew->full &= !relieved;
        (void)pthread_mutex_unlock(&crew->mutex);
        if (relieved)
            crew->relieved(crew->arg);
        request_run(request);
        (void)pthread_mutex_lock(&crew->mutex);
        crew->n_running--;
        if (crew->ending && crew->n_running == 0 && crew->n_queued == 0)
            crew->relieved(crew->arg);
    }
    (void)pthread_mutex_unlock(&crew->mutex);
    return NULL;
}

int crew_start(struct crew *crew, unsigned n, void (*relieved)(void *arg), void *arg)
{
    *crew = (struct crew){ .relieved = relieved, .arg = arg };
    list_init(&crew->queue);
    (void)pthread_mutex_init(&crew->mutex, NULL);
    (void)pthread_cond_init(&crew->work, NULL);
    crew->threads = calloc(n, sizeof(*crew->threads));
    int r = crew->threads ? 0 : -ENOMEM;
    while (r == 0 && crew->n_threads < n) {
        r = -pthread_create(&crew->threads[crew->n_threads], NULL, work, crew);
        crew->n_threads += r == 0;
    }
    if (r < 0) {
        crew_end(crew);
        crew_join(crew);
    }
    return r;
}

void crew_push(struct crew *crew, struct fw_request *request)
{
    (void)pthread_mutex_lock(&crew->mutex);
    list_push(&crew->queue, &request->node);
    crew->n_queued++;
    crew->queued_bytes += request->size;
    (void)pthread_cond_signal(&crew->work);
    (void)pthread_mutex_unlock(&crew->mutex);
}

bool crew_full(struct crew *crew)
{
    (void)pthread_mutex_lock(&crew->mutex);
    bool full = crew->full || !has_room(crew);
    crew->full = full;
    (void)pthread_mutex_unlock(&crew->mutex);
    return full;
}

void crew_end(struct crew *crew)
{
    (void)pthread_mutex_lock(&crew->mutex);
    crew->ending = true;
    (void)pthread_cond_broadcast(&crew->work);
    (void)pthread_mutex_unlock(&crew->mutex);
}

bool crew_idle(struct crew *crew)
{
    (void)pthread_mutex_lock(&crew->mutex);
    bool idle = crew->n_running == 0 && crew->n_queued == 0;
    (void)pthread_mutex_unlock(&crew->mutex);
    return idle;
}

void crew_join(struct crew *crew)
{
    for (unsigned i = 0; i < crew->n_threads; i++)
        (void)pthread_join(crew->threads[i], NULL);
    free(crew->threads);
    crew->threads = NULL;
    crew->n_threads = 0;
}
