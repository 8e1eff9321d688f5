/* The source process: the engine, and what watches its supervisor. */
#ifndef SERVER_SOURCE_PROCESS_H
#define SERVER_SOURCE_PROCESS_H

#include "counters.h"
#include "log.h"
#include "logline.h"
#include "title.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct source_process {
    const char *url;
    struct log *log; /* writable */
    uint32_t linger_ms;
    struct counters *counters;
    int inbox_fd; /* listener */
    int life_fd;  /* end of file: the supervisor is gone */
    const struct logger *logger;
    const struct title *title;
    bool (*peer_allowed)(void *arg, pid_t pid);
    bool (*may_stop)(void *arg); /* asked at SIGTERM; thread: another than the engine's */
    void *arg;
};

/* Runs the engine until SIGTERM comes while may_stop(). Returns the exit code. Blocks. */
int source_process_run(const struct source_process *process);

#endif
