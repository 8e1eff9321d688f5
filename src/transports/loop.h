/* The worker's poller: bare epoll, edge-triggered, one pointer per descriptor. An idle connection
 * may cost 300 bytes in all, so there is no handle object. (The file to replace for kqueue.) */
#ifndef TRANSPORTS_LOOP_H
#define TRANSPORTS_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#define LOOP_EVENTS_MAX 256

struct loop {
    int fd;
};

struct loop_event {
    void *data;
    bool readable, writable; /* edges since the last time; hang-up and error count as both */
};

int loop_init(struct loop *loop);
void loop_done(struct loop *loop);
/* Edge-triggered for reading and writing: one registration for the descriptor's whole life. */
int loop_add(struct loop *loop, int fd, void *data);
/* Level-triggered for reading: listeners, where what is left over must be told again. */
int loop_add_level(struct loop *loop, int fd, void *data);
void loop_remove(struct loop *loop, int fd);
/* Waits up to timeout_ms (-1: for ever). Returns the number of events, 0 when interrupted too. */
int loop_wait(struct loop *loop, struct loop_event events[LOOP_EVENTS_MAX], int timeout_ms);

#endif
