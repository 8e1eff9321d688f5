/* What the supervisor's children are given, whatever they are. */
#ifndef SERVER_CHILD_H
#define SERVER_CHILD_H

#include "counters.h"
#include "logline.h"
#include "title.h"

#include <stdbool.h>
#include <sys/types.h>

struct child {
    struct counters *counters;
    int life_fd; /* end of file: the supervisor is gone */
    const struct logger *logger;
    const struct title *title;
    bool (*peer_allowed)(void *arg, pid_t pid);
    bool (*may_stop)(void *arg); /* asked at SIGTERM; thread: maybe another than the main one */
    void *arg;
};

#endif
