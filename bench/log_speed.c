/* How fast the log is: appends of 64-byte events, and reading them back with a copy, on one core.
 *
 * Usage: log_speed SAMPLES EVENTS; prints per sample "append NS", "append-many NS" (a thousand
 * channels in turn) and "read NS": nanoseconds of CPU per event. Appends go round the ring, so that
 * giving up old events is part of them; a read is one event of a full ring, as a worker does it. */
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RING     (64u << 20) /* the server's default */
#define PAYLOAD  64
#define CHANNELS 1000

static void fail(const char *what)
{
    (void)fprintf(stderr, "log_speed: %s\n", what);
    exit(1);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void print(const char *what, uint64_t ns, size_t n)
{
    (void)printf("%s %.2f\n", what, (double)ns / (double)n);
}

static uint64_t append(struct log *log, size_t events, size_t channels)
{
    static char names[CHANNELS][32];
    char payload[PAYLOAD];
    memset(payload, 'x', sizeof(payload));
    for (size_t i = 0; i < channels; i++)
        (void)snprintf(names[i], sizeof(names[i]), "channel:%04zu", i);

    struct log_event event = { .channel_len = strlen(names[0]), .data = payload, .len = PAYLOAD };
    const uint64_t begin = cpu_ns();
    for (size_t i = 0, at = 0; i < events; i++) {
        memcpy(payload, &i, sizeof(i));
        event.channel = names[at];
        event.time_ms = (int64_t)i;
        if (log_append(log, &event) == 0)
            fail("an event does not fit");
        at = at + 1 == channels ? 0 : at + 1;
    }
    return cpu_ns() - begin;
}

/* From the oldest record to the newest. */
static uint64_t read_all(const struct log *log, size_t *ret_events)
{
    uint64_t body[64], sum = 0;
    size_t n = 0;
    const uint64_t begin = cpu_ns();
    for (uint64_t off = log_tail(log), end = log_indexed(log); off < end; n++) {
        struct log_record record;
        if (log_peek(log, off, &record) == 0)
            fail("lapped without a writer");
        if (record.kind != RECORD_PAD) {
            if (log_body_size(&record) > sizeof(body) || log_body(log, &record, body) == 0)
                fail("not the event that was appended");
            sum += record.data[0];
        }
        off = record.next;
    }
    const uint64_t ns = cpu_ns() - begin;
    if (n == 0 || sum == 0)
        fail("nothing to read");
    *ret_events = n;
    return ns;
}

/* The ring is read as often as it takes to see `events`. */
static void read_events(const struct log *log, size_t events)
{
    uint64_t ns = 0;
    size_t seen = 0, n;
    for (; seen < events; seen += n)
        ns += read_all(log, &n);
    print("read", ns, seen);
}

int main(int argc, char **argv)
{
    const size_t samples = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
    const size_t events = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    struct log *log;
    if (samples == 0 || events == 0)
        fail("usage: log_speed SAMPLES EVENTS");
    if (log_create(RING, &log) < 0)
        fail("cannot make a log");
    (void)append(log, events, 1); /* fills the ring */
    for (size_t i = 0; i < samples; i++) {
        print("append-many", append(log, events, CHANNELS), events);
        print("append", append(log, events, 1), events);
        read_events(log, events);
    }
    log_close(log);
    return 0;
}
