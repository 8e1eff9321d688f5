/* The doctor at a Postgres server: what its parts share. Everything blocks, with time limits. */
#ifndef CLI_DOCTOR_PG_H
#define CLI_DOCTOR_PG_H

#include "doctor_report.h"
#include "pg_url.h"

#include <libpq-fe.h>
#include <stdbool.h>

#define EXAM_TEXT_MAX 640

enum exam_mode { MODE_NOTIFY, MODE_OUTBOX, MODE_WAL, N_MODES };
extern const char *const exam_modes[N_MODES];

/* Who runs the server, where that makes a difference; NULL: nobody in particular. */
struct provider;

struct exam {
    struct report *report;
    const struct pg_url *url;
    PGconn *conn;
    int asked_mode; /* enum exam_mode, -1: auto */
    int mode;       /* the one that follows */
    int version;    /* 150018 */
    bool standby, pooled;
    bool listen_arrives, logical, replication, free_slot, free_sender;
    bool may_install, superuser, sees_others;
    bool installed;
    char *role, *database; /* owned, as SQL writes them; "" while not known */
    char *superuser_name;  /* owned: a role to run administrative commands as */
    char *restart;         /* owned: the command that restarts the server */
    char server_host[64];  /* of the server itself, seen from a pooler; "": by a Unix socket */
    char server_port[8];
    const struct provider *provider;
};

/* What is wrong with it when `mode` is followed, and otherwise only keeps from raising it. */
static inline enum level exam_level(const struct exam *exam, enum exam_mode mode)
{
    return exam->mode == (int)mode ? LEVEL_PROBLEM : LEVEL_NOTE;
}

/* ---- doctor_pg_session.c ---- */

struct exam_failure {
    char state[6];            /* SQLSTATE; "" when the server never answered */
    char text[EXAM_TEXT_MAX]; /* one line */
};

/* Connects to one place with `name` set to `value` (both may be NULL), within the URL's time limit.
 * Returns an owned connection or NULL with the failure. */
PGconn *exam_open(const struct pg_url *url, const struct pg_place *place, const char *name,
                  const char *value, struct exam_failure *failure);
/* Connects once more to where `like` is connected. */
PGconn *exam_open_again(const struct pg_url *url, const PGconn *like, const char *name,
                        const char *value, struct exam_failure *failure);
/* Runs one statement within 10 s. Returns an owned result with or without rows, or NULL with the
 * failure; after a time-out the connection is of no use any more. */
PGresult *exam_query(PGconn *conn, const char *sql, struct exam_failure *failure);
/* The same, where a failure is a finding: `what` could not be asked. */
PGresult *exam_ask(struct exam *exam, const char *what, const char *sql);
/* The field of the first row, "" for NULL and what there is not. Borrowed from the result. */
const char *exam_field(const PGresult *result, int row, const char *name);
bool exam_field_true(const PGresult *result, int row, const char *name);
int64_t exam_field_number(const PGresult *result, int row, const char *name); /* -1: NULL */

/* ---- doctor_pg_connect.c ---- */

/* Tries the URL's places in turn, explains what fails. Leaves exam->conn NULL when all did. */
void exam_connect(struct exam *exam);

/* ---- doctor_pg_remedy.c ---- */

/* Finds out who runs the server. */
void exam_find_provider(struct exam *exam);
const char *exam_provider_hint(const struct exam *exam); /* on connecting directly; "" */
/* Commands: SQL by psql as the database's role or (admin) a superuser. */
void remedy_sql(const struct exam *exam, struct finding *finding, bool admin, const char *sql, ...)
    __attribute__((format(printf, 4, 5)));
/* … a server's setting, the way of who runs it, with a restart where that is needed. `value` as
 * SQL writes it, `plain` as a cloud's command does. */
void remedy_setting(const struct exam *exam, struct finding *finding, const char *name,
                    const char *value, const char *plain, bool restart);
void remedy_replication(const struct exam *exam, struct finding *finding);
/* … `fanwire sql postgres --mode MODE | psql …`, which also replaces another mode. */
void remedy_install(const struct exam *exam, struct finding *finding, enum exam_mode mode);

/* ---- doctor_pg_listen.c ---- */

/* Whether a NOTIFY of one connection reaches another, and whether a pooler is between. */
void exam_listen(struct exam *exam);

/* ---- doctor_pg_wal.c ---- */

/* wal_level, REPLICATION, slots, senders, a replication connection; fanwire's slots. */
void exam_wal(struct exam *exam);
/* Drops a slot of fanwire's that nobody uses. The outcome is a finding. */
void exam_drop_slot(struct exam *exam, const char *name);

/* ---- doctor_pg_outbox.c ---- */

void exam_outbox(struct exam *exam);

/* ---- doctor_pg_watched.c ---- */

/* Tables whose changes are not told, or not in full, though they are watched. */
void exam_watched(struct exam *exam);

/* ---- doctor_pg_horizon.c ---- */

/* What holds back xmin, and how full the queue of notifications is. */
void exam_horizon(struct exam *exam);

#endif
