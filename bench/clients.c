/* The load of the fan-out benchmark: a crowd of WebSockets (crowd.h) and the feeder of the server's
 * standard input, in one process: the next events are written when every client has the ones
 * before, so that both servers under test are driven alike and below saturation.
 *
 * Usage: clients PORT PATH COUNT PID FD, with PID = the process whose CPU time counts and FD = the
 * pipe to the server's standard input. It connects, prints "connected N", then obeys lines of
 * standard input:
 *
 *     run ROUNDS BURST      ROUNDS times: write BURST events of 64 bytes at once, wait for all
 *                           prints "DELIVERIES CPU_NS WALL_NS": CPU is that of PID meanwhile */
#include "crowd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct load {
    struct crowd *crowd;
    int events_fd;
    clockid_t cpu; /* of the server */
};

/* The clients do not sleep while events are due: the sender pays for waking them, and how often
 * they sleep is chance. It made up to 15 % of the cost of the same bytes, mostly to the favour of
 * the slower sender. */
static void run_round(const struct load *l, size_t burst)
{
    size_t len = burst * (CROWD_PAYLOAD + 1);
    crowd_expect(l->crowd, burst);
    if (write(l->events_fd, l->crowd->lines, len) != (ssize_t)len)
        crowd_fail("cannot write events: %s", strerror(errno));
    crowd_receive(l->crowd, false);
}

static void run(const struct load *l, size_t rounds, size_t burst)
{
    uint64_t cpu = crowd_now_ns(l->cpu), wall = crowd_now_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < rounds; i++)
        run_round(l, burst);
    cpu = crowd_now_ns(l->cpu) - cpu;
    wall = crowd_now_ns(CLOCK_MONOTONIC) - wall;
    (void)printf("%zu %llu %llu\n", rounds * burst * l->crowd->count, (unsigned long long)cpu,
                 (unsigned long long)wall);
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        crowd_fail("usage: clients PORT PATH COUNT PID FD");
    struct load l = { .events_fd = (int)strtol(argv[5], NULL, 10) };
    l.crowd = crowd_new((uint16_t)strtoul(argv[1], NULL, 10), argv[2], strtoul(argv[3], NULL, 10));
    if (clock_getcpuclockid((pid_t)strtol(argv[4], NULL, 10), &l.cpu) != 0)
        crowd_fail("there is no process %s", argv[4]);
    crowd_connect(l.crowd);
    (void)printf("connected %zu\n", l.crowd->open);
    (void)fflush(stdout);

    char command[128];
    while (fgets(command, sizeof(command), stdin)) {
        size_t rounds, burst;
        if (sscanf(command, "run %zu %zu", &rounds, &burst) != 2 || burst == 0 ||
            burst > CROWD_BURST_MAX)
            crowd_fail("not a command: %s", command);
        run(&l, rounds, burst);
    }
    return 0;
}
