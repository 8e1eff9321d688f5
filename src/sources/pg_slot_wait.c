/* What a slot that is being made waits for, told to the operator. */
#include "pg_slot_wait.h"

#include <stdio.h>
#include <string.h>

#define FIRST_MS  1000 /* a shorter wait is everyday */
#define EVERY_MS  5000
#define REPEAT_MS 60000

static void on_answer(void *arg, const PGresult *result)
{
    struct pg_slot_wait *w = arg;
    struct fw_host *host = w->question.session.host;
    const char *name = pg_holder_name(result);
    char who[PG_MESSAGE_MAX];
    int64_t now = fw_host_now_ms(host);
    if (!strncmp(name, w->told, sizeof w->told - 1) && now - w->told_ms < REPEAT_MS)
        return;
    if (!pg_holder_read(result, who, sizeof who))
        return;
    (void)snprintf(w->told, sizeof w->told, "%s", name);
    w->told_ms = now;
    fw_host_log(
        host, FW_LOG_WARNING, "slot-waits",
        "the replication slot %s is made when the transactions that are open have ended; it "
        "waits for %s",
        w->slot, who);
}

int pg_slot_wait_init(struct pg_slot_wait *w, struct fw_host *host, const struct pg_url *url,
                      const char *slot)
{
    w->slot = slot;
    return pg_question_init(&w->question, host, url, on_answer, w);
}

void pg_slot_wait_start(struct pg_slot_wait *w, int pid)
{
    w->told[0] = '\0';
    w->told_ms = fw_host_now_ms(w->question.session.host);
    (void)pg_holder_of_sql(w->sql, sizeof w->sql, pid);
    pg_question_start(&w->question, w->sql, FIRST_MS, EVERY_MS);
}

void pg_slot_wait_stop(struct pg_slot_wait *w)
{
    pg_question_stop(&w->question);
}

void pg_slot_wait_done(struct pg_slot_wait *w)
{
    pg_question_done(&w->question);
}
