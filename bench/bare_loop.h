/* What fan-out costs at the least: a WebSocket server that does nothing else. Every event is framed
 * once, and the same bytes go to every client by a plain loop of send(2).
 *
 * It knows no channels, keeps nothing, and gives up when a client is too slow: it is the yardstick
 * of the benchmarks, not a server. The events come from a program of its own for each source. */
#ifndef BENCH_BARE_LOOP_H
#define BENCH_BARE_LOOP_H

#include <stddef.h>

struct bare;

__attribute__((format(printf, 1, 2), noreturn)) void bare_fail(const char *format, ...);

/* Listens on a free port of 127.0.0.1 and prints "port N". */
struct bare *bare_new(void);
/* An event: a text frame. It waits for the next flush, at the latest until the buffer is full. */
void bare_put(struct bare *b, const char *data, size_t len);
/* Sends what was put, one send(2) per client. */
void bare_flush(struct bare *b);
/* Serves; `read` is called whenever there is something to read from fd. */
__attribute__((noreturn)) void bare_run(struct bare *b, int fd, void (*read)(void *arg), void *arg);

#endif
