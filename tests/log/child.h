/* Child processes of a test: they die with it, also when it fails. */
#ifndef TESTS_LOG_CHILD_H
#define TESTS_LOG_CHILD_H

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

static inline pid_t fork_child(void)
{
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
        _exit(100);
    return pid;
}

#endif
