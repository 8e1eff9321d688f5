/* A question that is asked now and then, on a connection of its own. */
#include "pg_question.h"

static void on_timer(void *arg)
{
    struct pg_question *q = arg;
    if (q->session.state == PG_CLOSED)
        pg_session_open(&q->session);
    fw_timer_start(q->timer, q->every_ms);
}

static void on_connected(void *arg)
{
    struct pg_question *q = arg;
    pg_session_query(&q->session, q->sql, PG_ANSWER_MS);
}

static void on_result(void *arg, const PGresult *result)
{
    struct pg_question *q = arg;
    q->answered(q->arg, result);
}

static void on_ended(void *arg)
{
    struct pg_question *q = arg;
    pg_session_lose(&q->session, "asked");
}

static const struct pg_session_events events = {
    .connected = on_connected,
    .result = on_result,
    .ended = on_ended,
};

static void on_lost(void *arg, const char *message, bool misconfigured)
{
    (void)arg;
    (void)message;
    (void)misconfigured;
}

static const struct pg_session_owner owner = { .lost = on_lost };

int pg_question_init(struct pg_question *q, struct fw_host *host, const struct pg_url *url,
                     void (*answered)(void *arg, const PGresult *result), void *arg)
{
    *q = (struct pg_question){ .answered = answered, .arg = arg };
    pg_session_init(&q->session, host, url, &owner, q);
    pg_session_hand_over(&q->session, &events, q);
    return fw_host_timer(host, on_timer, q, &q->timer);
}

void pg_question_start(struct pg_question *q, const char *sql, unsigned first_ms, unsigned every_ms)
{
    q->sql = sql;
    q->every_ms = every_ms;
    fw_timer_start(q->timer, first_ms);
}

void pg_question_stop(struct pg_question *q)
{
    fw_timer_stop(q->timer);
    if (q->session.state != PG_CLOSED)
        pg_session_lose(&q->session, "stopped");
}

void pg_question_done(struct pg_question *q)
{
    pg_session_done(&q->session);
    if (q->timer)
        fw_timer_free(q->timer);
}
