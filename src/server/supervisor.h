/* Keeps child processes running: forks them, restarts what dies, kills what hangs, ends them in
 * order. Knows nothing of what they do. */
#ifndef SERVER_SUPERVISOR_H
#define SERVER_SUPERVISOR_H

#include "logline.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_OK      0
#define EXIT_FAILED  1 /* while running */
#define EXIT_USAGE   2 /* usage or configuration: starting again would not help */
#define EXIT_SOURCE  3 /* source unreachable or refuses */
#define EXIT_ADDRESS 4 /* address not available */

struct supervisor_options {
    const struct logger *logger;
    size_t n_children;
    size_t n_last;     /* so many first children end last, after all others */
    uint32_t drain_ms; /* how long children may take to end; 0 and more get a few seconds on top */
    uint32_t hang_ms;  /* a child whose beat is older is killed */
    void *arg;
    /* What it is, for the log: "worker" "1". Borrowed. */
    void (*describe)(void *arg, size_t child, const char **ret_object, const char **ret_name);
    /* The child's life, in the child; its result is the exit code. EXIT_USAGE ends the supervisor
     * with it. `life_fd` reads end of file when the supervisor is gone: leave then. The signal mask
     * is empty and the dispositions are the default, but SIGPIPE is ignored. */
    int (*run)(void *arg, size_t child, int life_fd);
    /* May this child's EXIT_USAGE end the supervisor? One that runs foreign code may exit with
     * anything. NULL: any child's may. */
    bool (*may_refuse)(void *arg, size_t child);
    /* Monotonic ms of the child's last sign of life; 0: none yet. */
    int64_t (*beat_ms)(void *arg, size_t child);
    /* In the supervisor: it was reaped; `restarts` unless the supervisor is ending. */
    void (*reaped)(void *arg, size_t child, bool restarts);
    /* In the supervisor, before children are told: all but those that end last are to end;
     * `everybody`: they too, now that nobody else is left or that a second signal came. */
    void (*ending)(void *arg, bool everybody);
};

/* Blocks the signals that supervisor_run() takes, so that none is lost on the way there. */
void supervisor_hold_signals(void);
/* Runs until SIGTERM or SIGINT, which the children get as SIGTERM, in order. A second one ends at
 * once. A terminal or systemd sends its own to every process, and a second signal merges with one
 * that is pending, whoever sent it: so a child takes SIGTERM only as the hint to look at what
 * ending() has written. Returns the exit code, the
 * signals still blocked. Blocks. Call single-threaded. */
int supervisor_run(const struct supervisor_options *options);

#endif
