/* The counters of one process: one shared page each, written by its owner alone, summed by whoever
 * answers /metrics. Relaxed atomics; gauges are counters that also fall. */
#ifndef HUB_COUNTERS_H
#define HUB_COUNTERS_H

#include "codes.h"

#include <stdatomic.h>
#include <stdint.h>

enum transport { TRANSPORT_HTTP, TRANSPORT_WS, TRANSPORT_SSE, N_TRANSPORTS };
#define N_CLOSE_CODES     16
#define N_LATENCY_BUCKETS 20 /* ≤ 50 µs · 2^i; the last is +Inf */
#define COUNTERS_SIZE     4096

struct counters {
    _Atomic uint64_t pid, started_ms; /* of the process that writes this page; 0 = free */
    _Atomic uint64_t beat_ms; /* monotonic; a worker's, at least every second: hung after 10 s */
    /* the source process */
    _Atomic uint64_t source_events, source_bytes, source_reconnects, source_refused_events;
    _Atomic uint64_t source_repeated_events;
    _Atomic uint64_t source_publishes[N_CODES];
    _Atomic uint64_t source_last_event_ms, source_paused_ms, source_lingering;
    _Atomic uint64_t source_lag_ms, source_retained_bytes, source_snapshots;
    /* workers */
    _Atomic uint64_t connections[N_TRANSPORTS], opened[N_TRANSPORTS];
    _Atomic uint64_t closed[N_TRANSPORTS][N_CLOSE_CODES]; /* close_code_index() */
    _Atomic uint64_t rejected[N_CODES];
    _Atomic uint64_t behind, channels, subscriptions;
    _Atomic uint64_t deliveries[N_TRANSPORTS], delivered_bytes[N_TRANSPORTS];
    _Atomic uint64_t gaps[N_REASONS];
    _Atomic uint64_t resumes_complete, resumes_gap;
    _Atomic uint64_t publishes[N_CODES]; /* by HTTP and WebSocket together */
    _Atomic uint64_t calls[N_CODES];     /* requests for the application, by outcome */
    _Atomic uint64_t calls_waiting;
    _Atomic uint64_t latency[N_LATENCY_BUCKETS], latency_sum_us;
    _Atomic uint64_t events_ingested, turns, tail_bytes;
    /* supervisor */
    _Atomic uint64_t restarts_source, restarts_worker, restarts_application;
    _Atomic uint64_t draining; /* 1: workers are to drain; 2: everybody is to end at once */
};
_Static_assert(sizeof(struct counters) <= COUNTERS_SIZE, "a page per process");

static inline void count(_Atomic uint64_t *c, uint64_t n)
{
    /* one writer per page: no read-modify-write needed */
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline uint64_t counted(const _Atomic uint64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

/* 1000 1001 1002 1007 1009 1011 1012 4000 4001 4003 4029 4102 4103 4108 4129, other = 15. */
unsigned close_code_index(unsigned code);
unsigned close_code_at(unsigned index); /* 0 for "other" */

#endif
