/* The source process: the engine, and what watches its supervisor. */
#ifndef SERVER_SOURCE_PROCESS_H
#define SERVER_SOURCE_PROCESS_H

#include "child.h"
#include "log.h"

#include <stddef.h>
#include <stdint.h>

struct source_process {
    const char *url;
    struct log *log; /* writable */
    uint32_t linger_ms;
    const struct engine_snapshot *snapshots;
    size_t n_snapshots;
    int inbox_fd; /* listener */
    struct child child;
};

/* Runs the engine until SIGTERM comes while may_stop(). Returns the exit code. Blocks. */
int source_process_run(const struct source_process *process);

#endif
