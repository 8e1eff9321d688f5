/* The clients of the benchmarks: many WebSockets in one process that drain and check what they get.
 * Each compares each byte with what it has to be: a lost, torn, doubled or reordered event ends the
 * benchmark. */
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define CROWD_PAYLOAD   64
#define CROWD_FRAME     (2 + CROWD_PAYLOAD)
#define CROWD_BURST_MAX 1024

struct client;

struct crowd {
    int epoll;
    uint16_t port;
    const char *path;
    struct client *clients;
    size_t count, connecting, open;
    uint64_t sequence;            /* of the next event */
    uint64_t base;                /* bytes of text frames before this round */
    size_t complete;              /* clients that have all of this round */
    void (*completed)(void *arg); /* called for each of them; NULL: nobody asks */
    void *arg;
    size_t due_len;                                        /* what each has to get in this round */
    char lines[CROWD_BURST_MAX * (CROWD_PAYLOAD + 1) + 1]; /* its events, one to a line */
    uint8_t due[CROWD_BURST_MAX * CROWD_FRAME];
    uint8_t buf[CROWD_BURST_MAX * CROWD_FRAME];
};

__attribute__((format(printf, 1, 2), noreturn)) void crowd_fail(const char *format, ...);
uint64_t crowd_now_ns(clockid_t clock);

struct crowd *crowd_new(uint16_t port, const char *path, size_t count);
void crowd_connect(struct crowd *w);
/* Begins a round: makes `burst` events, for the caller to send by the server under test. */
void crowd_expect(struct crowd *w, size_t burst);
/* Returns when every client has all of the round. sleep false: it spins meanwhile. */
void crowd_receive(struct crowd *w, bool sleep);

#endif
