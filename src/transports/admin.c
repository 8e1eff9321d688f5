/* The admin address: /metrics (Prometheus text), /healthz, /readyz. Any worker can answer: every
 * process keeps a page of counters that all can read. No channel, user or address is ever a label.
 */
#include "turn.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const char *const transport_names[N_TRANSPORTS] = { "http", "ws", "sse" };

static struct counters *page_at(const struct worker *w, size_t i)
{
    return (struct counters *)(void *)((char *)w->options->all + i * COUNTERS_SIZE);
}

/* Sum of one counter over all processes; `offset` is offsetof(struct counters, …). */
static uint64_t sum(const struct worker *w, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < w->options->n_all; i++)
        total += counted((_Atomic uint64_t *)(void *)((char *)page_at(w, i) + offset));
    return total;
}

#define SUM(w, member) sum(w, offsetof(struct counters, member))

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(struct buf *out, const char *name, const char *type, const char *help,
                uint64_t value)
{
    head(out, name, type, help);
    buf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void by_transport(const struct worker *w, struct buf *out, const char *name,
                         const char *type, const char *help, size_t offset)
{
    head(out, name, type, help);
    for (unsigned t = 0; t < N_TRANSPORTS; t++)
        buf_printf(out, "%s{transport=\"%s\"} %llu\n", name, transport_names[t],
                   (unsigned long long)sum(w, offset + t * sizeof(uint64_t)));
}

static void source_metrics(const struct worker *w, struct buf *out)
{
    head(out, "fanwire_build_info", "gauge", "The version.");
    buf_printf(out, "fanwire_build_info{version=\"%s\"} 1\n", FANWIRE_VERSION);
    one(out, "fanwire_source_up", "gauge", "1 while the source is connected.", !w->down);
    head(out, "fanwire_source_info", "gauge", "What the source promises.");
    buf_printf(out, "fanwire_source_info{kind=\"%s\",mode=\"%s\",durable=\"%s\"} 1\n", w->kind,
               w->mode, w->durable ? "true" : "false");
    one(out, "fanwire_source_reconnects_total", "counter", "Lost connections to the backend.",
        SUM(w, source_reconnects));
    one(out, "fanwire_source_events_total", "counter", "Events taken from the backend.",
        SUM(w, source_events));
    one(out, "fanwire_source_bytes_total", "counter", "Payload bytes taken from the backend.",
        SUM(w, source_bytes));
    one(out, "fanwire_source_refused_events_total", "counter",
        "Events dropped: no valid channel or envelope.", SUM(w, source_refused_events));
    one(out, "fanwire_snapshots_total", "counter",
        "Queries whose rows were joined to a channel's events.", SUM(w, source_snapshots));
    one(out, "fanwire_source_repeated_events_total", "counter",
        "Events not appended: the log has their key already.", SUM(w, source_repeated_events));
    uint64_t last = SUM(w, source_last_event_ms), now = (uint64_t)w->wall_ms;
    head(out, "fanwire_source_idle_seconds", "gauge", "Since the last event of the backend.");
    buf_printf(out, "fanwire_source_idle_seconds %.3f\n",
               last && now > last ? (double)(now - last) / 1e3 : 0.0);
    head(out, "fanwire_source_lag_seconds", "gauge",
         "Age of the oldest event that is committed but cannot be read yet.");
    buf_printf(out, "fanwire_source_lag_seconds %.3f\n", (double)SUM(w, source_lag_ms) / 1e3);
    one(out, "fanwire_source_retained_bytes", "gauge",
        "What the backend keeps for fanwire on its disk.", SUM(w, source_retained_bytes));
    head(out, "fanwire_source_paused_seconds_total", "counter",
         "Time in which the backend was not read, so that no worker was lapped.");
    buf_printf(out, "fanwire_source_paused_seconds_total %.3f\n",
               (double)SUM(w, source_paused_ms) / 1e3);
    one(out, "fanwire_log_capacity_bytes", "gauge", "Size of the log.", log_size(w->log));
    int64_t oldest = log_oldest_time_ms(w->log);
    head(out, "fanwire_log_window_seconds", "gauge",
         "Age of the oldest readable event: how long a client may be away.");
    buf_printf(out, "fanwire_log_window_seconds %.3f\n",
               oldest && w->wall_ms > oldest ? (double)(w->wall_ms - oldest) / 1e3 : 0.0);
}

static void closed_metrics(const struct worker *w, struct buf *out)
{
    head(out, "fanwire_connections_closed_total", "counter", "Connections closed, by code.");
    for (unsigned t = 0; t < N_TRANSPORTS; t++) {
        for (unsigned i = 0; i < N_CLOSE_CODES; i++) {
            uint64_t n = sum(w, offsetof(struct counters, closed) +
                                    (t * N_CLOSE_CODES + i) * sizeof(uint64_t));
            char code[16] = "other";
            if (close_code_at(i))
                (void)snprintf(code, sizeof(code), "%u", close_code_at(i));
            if (n)
                buf_printf(out,
                           "fanwire_connections_closed_total{transport=\"%s\",code=\"%s\"} %llu\n",
                           transport_names[t], code, (unsigned long long)n);
        }
    }
}

static void by_code(const struct worker *w, struct buf *out, const char *name, const char *help,
                    const char *label, size_t offset)
{
    head(out, name, "counter", help);
    for (unsigned i = 0; i < N_CODES; i++) {
        uint64_t n = sum(w, offset + i * sizeof(uint64_t));
        if (n)
            buf_printf(out, "%s{%scode=\"%s\"} %llu\n", name, label, code_text(i),
                       (unsigned long long)n);
    }
}

static void latency_metrics(const struct worker *w, struct buf *out)
{
    const char *name = "fanwire_delivery_seconds";
    head(out, name, "histogram", "From the log's append (ms clock) to the kernel.");
    uint64_t total = 0;
    for (unsigned i = 0; i < N_LATENCY_BUCKETS; i++) {
        total += sum(w, offsetof(struct counters, latency) + i * sizeof(uint64_t));
        if (i < N_LATENCY_BUCKETS - 1)
            buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, (double)(50ull << i) / 1e6,
                       (unsigned long long)total);
    }
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %g\n%s_count %llu\n", name,
               (unsigned long long)total, name, (double)SUM(w, latency_sum_us) / 1e6, name,
               (unsigned long long)total);
}

static void client_metrics(const struct worker *w, struct buf *out)
{
    one(out, "fanwire_channels", "gauge", "Channels with subscribers, summed over workers.",
        SUM(w, channels));
    one(out, "fanwire_subscriptions", "gauge", "Subscriptions of clients.", SUM(w, subscriptions));
    by_transport(w, out, "fanwire_connections", "gauge", "Open connections.",
                 offsetof(struct counters, connections));
    by_transport(w, out, "fanwire_connections_opened_total", "counter", "Connections opened.",
                 offsetof(struct counters, opened));
    closed_metrics(w, out);
    by_code(w, out, "fanwire_requests_rejected_total", "Requests refused, by code.", "",
            offsetof(struct counters, rejected));
    one(out, "fanwire_connections_behind", "gauge", "Connections served from the log now.",
        SUM(w, behind));
    by_transport(w, out, "fanwire_deliveries_total", "counter", "Events handed to the kernel.",
                 offsetof(struct counters, deliveries));
    by_transport(w, out, "fanwire_delivered_bytes_total", "counter", "Bytes of events sent.",
                 offsetof(struct counters, delivered_bytes));
    latency_metrics(w, out);
    head(out, "fanwire_gaps_total", "counter", "Gaps told to clients, by reason.");
    for (unsigned i = 1; i < N_REASONS; i++)
        buf_printf(out, "fanwire_gaps_total{reason=\"%s\"} %llu\n", reason_text(i),
                   (unsigned long long)sum(w,
                                           offsetof(struct counters, gaps) + i * sizeof(uint64_t)));
    head(out, "fanwire_resumes_total", "counter", "Resumes from a position.");
    buf_printf(out,
               "fanwire_resumes_total{result=\"complete\"} %llu\n"
               "fanwire_resumes_total{result=\"gap\"} %llu\n",
               (unsigned long long)SUM(w, resumes_complete),
               (unsigned long long)SUM(w, resumes_gap));
    by_code(w, out, "fanwire_publishes_total", "Publishes by clients, by outcome.",
            "via=\"client\",", offsetof(struct counters, publishes));
    by_code(w, out, "fanwire_calls_total", "Requests for the program's routes, by outcome.", "",
            offsetof(struct counters, calls));
    one(out, "fanwire_calls_waiting", "gauge", "Requests that the program has not answered yet.",
        SUM(w, calls_waiting));
    one(out, "fanwire_unsent_bytes", "gauge", "Rests of large frames kept for slow clients.",
        SUM(w, tail_bytes));
}

static void process_metrics(const struct worker *w, struct buf *out)
{
    head(out, "fanwire_worker_restarts_total", "counter", "Processes that had to be restarted.");
    buf_printf(out,
               "fanwire_worker_restarts_total{role=\"source\"} %llu\n"
               "fanwire_worker_restarts_total{role=\"worker\"} %llu\n"
               "fanwire_worker_restarts_total{role=\"application\"} %llu\n",
               (unsigned long long)SUM(w, restarts_source),
               (unsigned long long)SUM(w, restarts_worker),
               (unsigned long long)SUM(w, restarts_application));
    head(out, "fanwire_turns_total", "counter", "Turns of the workers' loops.");
    buf_printf(out, "fanwire_turns_total %llu\n", (unsigned long long)SUM(w, turns));
}

static void respond_metrics(struct worker *w, struct conn *c)
{
    struct buf body = buf_make(1u << 20);
    source_metrics(w, &body);
    client_metrics(w, &body);
    process_metrics(w, &body);
    if (body.failed)
        http_problem(w, c, CODE_OVERLOADED, "out of memory");
    else
        http_respond(w, c, 200, "text/plain; version=0.0.4", "", body.data, body.len);
    buf_done(&body);
    http_answered(w, c);
}

/* Ready = this worker accepts, the log is attached, the source was up once, not draining. The
 * strict form wants the source to be up now. */
static void respond_ready(struct worker *w, struct conn *c, bool strict)
{
    const char *why = NULL;
    if (w->draining || SUM(w, draining))
        why = "draining";
    else if (w->reader == NULL)
        why = "the source process is restarting";
    else if (strict ? w->down : !w->mode[0])
        why = "the source is not up";
    if (why) {
        http_problem(w, c, w->draining ? CODE_RESTART : CODE_SOURCE_DOWN, why);
    } else {
        http_respond(w, c, 200, "text/plain", "", "ready\n", 6);
    }
    http_answered(w, c);
}

static bool path_is(const struct http_request *request, const char *path)
{
    return request->path.len == strlen(path) && memcmp(request->path.data, path, strlen(path)) == 0;
}

bool admin_request(struct worker *w, struct conn *c, const struct http_request *request)
{
    bool get = request->method == HTTP_GET || request->method == HTTP_HEAD;
    if (path_is(request, "/metrics") && get) {
        respond_metrics(w, c);
    } else if (path_is(request, "/healthz") && get) {
        http_respond(w, c, 200, "text/plain", "", "ok\n", 3);
        http_answered(w, c);
    } else if (path_is(request, "/readyz") && get) {
        bool strict = request->query.len == 9 && memcmp(request->query.data, "source=up", 9) == 0;
        respond_ready(w, c, strict);
    } else {
        return false;
    }
    return true;
}
