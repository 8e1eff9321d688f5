/* How fast the library's iterator is: fw_sub_next() over events that are there already, on one
 * core.
 *
 * Usage: iterator SAMPLES EVENTS; publishes EVENTS events of 64 bytes to a hub of its own, then
 * reads them SAMPLES times from the oldest to the newest and prints per sample "next NS":
 * nanoseconds of the reading thread's CPU per event. */
#include <fanwire.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAYLOAD   64
#define RETAIN    (64u << 20)
#define TIMEOUT   10000
#define EVENT_MAX 256 /* bytes of the log that an event of this benchmark takes, at most */

static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "iterator: %s: %s\n", what, why);
    exit(1);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct fw_hub *fill(size_t events)
{
    struct fw_hub_options options = { .size = sizeof(options), .retain = RETAIN, .in_process = 1 };
    struct fw_hub *hub;
    struct fw_error err;
    if (fw_hub_open("memory:", &options, &hub, &err) < 0)
        fail("hub", err.message);
    for (size_t i = 0; i < events; i++) {
        char payload[PAYLOAD] = { 0 };
        memcpy(payload, &i, sizeof(i));
        if (fw_hub_publish(hub, "bench", payload, PAYLOAD, TIMEOUT, NULL, &err) < 0)
            fail("publish", err.message);
    }
    return hub;
}

static struct fw_sub *subscribe(struct fw_hub *hub)
{
    struct fw_sub_options options = { .size = sizeof(options), .since = "oldest" };
    struct fw_sub *sub;
    struct fw_error err;
    if (fw_sub_open(hub, "bench", &options, &sub, &err) < 0)
        fail("subscription", err.message);
    return sub;
}

/* The first event opens the channel, which may wait for the hub's thread; the clock starts after
 * it. */
static void sample(struct fw_hub *hub, size_t events)
{
    struct fw_sub *sub = subscribe(hub);
    struct fw_event event;
    uint64_t begin = 0;
    for (size_t seen = 0; seen < events;) {
        int kind = fw_sub_next(sub, &event, TIMEOUT);
        if (kind == FW_GAP || kind == 0)
            fail("next", kind ? "a gap" : "events are missing");
        if (kind < 0)
            fail("next", fw_sub_error(sub));
        if (kind == FW_MESSAGE && (event.len != PAYLOAD || memcmp(event.data, &seen, sizeof(seen))))
            fail("next", "not the event due");
        if (kind == FW_MESSAGE && seen++ == 0)
            begin = cpu_ns();
    }
    (void)printf("next %.2f\n", (double)(cpu_ns() - begin) / (double)(events - 1));
    fw_sub_close(sub);
}

int main(int argc, char **argv)
{
    size_t samples = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
    size_t events = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (samples == 0 || events < 2 || events > RETAIN / EVENT_MAX)
        fail("usage", "iterator SAMPLES EVENTS");
    struct fw_hub *hub = fill(events);
    for (size_t i = 0; i < samples; i++)
        sample(hub, events);
    fw_hub_close(hub);
    return 0;
}
