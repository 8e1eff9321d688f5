/* The commands that mend a Postgres server, quoted for the shell and for SQL; where a cloud runs
 * it, that cloud's own way, as ALTER SYSTEM does not exist there. */
#include "doctor_pg.h"

#include "doctor_quote.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define COMMAND_MAX 4096

struct provider {
    const char *name;
    const char *role;        /* exists only there */
    const char *parameter;   /* or this setting does; NULL */
    const char *logical[2];  /* the setting that means wal_level=logical there, and its value */
    const char *set;         /* a command with the setting's name and value, NULL: by hand */
    const char *set_advice;  /* about it */
    const char *fixed;       /* a setting that cannot be set there; NULL */
    const char *restart;     /* a command, NULL: happens by itself or by hand */
    const char *replication; /* SQL that gives %s the right to replicate */
    const char *direct;      /* how to go round its pooler */
};

static const struct provider providers[] = {
    { .name = "Amazon RDS or Aurora",
      .role = "rds_superuser",
      .parameter = "rds.logical_replication",
      .logical = { "rds.logical_replication", "1" },
      .set = "aws rds modify-db-parameter-group --db-parameter-group-name GROUP --parameters "
             "ParameterName=%s,ParameterValue=%s,ApplyMethod=pending-reboot",
      .set_advice = "GROUP is the instance's own parameter group; Aurora has it in the cluster's "
                    "(modify-db-cluster-parameter-group).",
      .restart = "aws rds reboot-db-instance --db-instance-identifier INSTANCE",
      .replication = "GRANT rds_replication TO %s",
      .direct = "Use the instance's endpoint, not that of RDS Proxy." },
    { .name = "Google Cloud SQL",
      .role = "cloudsqlsuperuser",
      .parameter = "cloudsql.logical_decoding",
      .logical = { "cloudsql.logical_decoding", "on" },
      .set = "gcloud sql instances patch INSTANCE --database-flags=%s=%s",
      .set_advice =
          "That replaces all flags of the instance: name those that are set already, too. "
          "It restarts.",
      .replication = "ALTER ROLE %s REPLICATION",
      .direct = "Use the instance's own address." },
    { .name = "Google AlloyDB",
      .role = "alloydbsuperuser",
      .parameter = "alloydb.logical_decoding",
      .logical = { "alloydb.logical_decoding", "on" },
      .set = "gcloud alloydb instances update INSTANCE --cluster=CLUSTER --region=REGION "
             "--database-flags=%s=%s",
      .set_advice =
          "That replaces all flags of the instance: name those that are set already, too. "
          "It restarts.",
      .replication = "ALTER ROLE %s REPLICATION",
      .direct = "Use the instance's own address." },
    { .name = "Azure Database for PostgreSQL",
      .role = "azure_pg_admin",
      .parameter = "azure.extensions",
      .logical = { "wal_level", "logical" },
      .set = "az postgres flexible-server parameter set --resource-group GROUP --server-name "
             "SERVER --name %s --value %s",
      .set_advice = "GROUP and SERVER are the names in Azure.",
      .fixed = "max_slot_wal_keep_size",
      .restart = "az postgres flexible-server restart --resource-group GROUP --name SERVER",
      .replication = "ALTER ROLE %s REPLICATION",
      .direct = "Use port 5432; 6432 is PgBouncer." },
    { .name = "Neon",
      .role = "neon_superuser",
      .parameter = "neon.tenant_id",
      .logical = { "wal_level", "logical" },
      .set_advice = "In Neon's console: Settings, Logical Replication, Enable. It restarts.",
      .replication = "ALTER ROLE %s REPLICATION",
      .direct = "Use the endpoint without \"-pooler\" in its name." },
    { .name = "Supabase",
      .role = "supabase_admin",
      .logical = { "wal_level", "logical" },
      .set = "supabase postgres-config update --experimental --config %s=%s",
      .set_advice = "wal_level is logical there unless it was changed.",
      .replication = "ALTER ROLE %s REPLICATION",
      .direct = "Use the direct connection, db.REF.supabase.co port 5432." },
};
#define N_PROVIDERS (sizeof(providers) / sizeof(providers[0]))

/* ---- who runs it ---- */

static void put_question(struct buf *sql)
{
    (void)buf_append_str(sql, "SELECT ");
    for (size_t i = 0; i < N_PROVIDERS; i++) {
        const struct provider *p = &providers[i];
        (void)buf_printf(sql, "%sEXISTS (SELECT FROM pg_roles WHERE rolname = '%s')",
                         i > 0 ? ", " : "", p->role);
        if (p->parameter)
            (void)buf_printf(sql, " OR current_setting('%s', true) IS NOT NULL", p->parameter);
    }
    (void)buf_append(sql, "", 1);
}

void exam_find_provider(struct exam *exam)
{
    struct buf sql = buf_make(COMMAND_MAX);
    put_question(&sql);
    PGresult *result =
        sql.failed ? NULL : exam_ask(exam, "who runs the server", (const char *)sql.data);
    for (size_t i = 0; result && i < N_PROVIDERS && !exam->provider; i++)
        if (PQgetvalue(result, 0, (int)i)[0] == 't')
            exam->provider = &providers[i];
    PQclear(result);
    buf_done(&sql);
    if (exam->provider)
        finding_text(report_add(exam->report, LEVEL_NOTE, "provider", "it is run by %s",
                                exam->provider->name),
                     "provider", exam->provider->name);
}

const char *exam_provider_hint(const struct exam *exam)
{
    return exam->provider ? exam->provider->direct : "";
}

/* ---- psql ---- */

/* What the URL says of TLS, as psql takes it from the environment. */
static void put_tls(const struct exam *exam, struct buf *out)
{
    static const char *const names[][2] = {
        { "sslmode", "PGSSLMODE" },
        { "sslrootcert", "PGSSLROOTCERT" },
        { "sslcert", "PGSSLCERT" },
        { "sslkey", "PGSSLKEY" },
    };
    for (const PQconninfoOption *o = exam->url->options; o->keyword; o++)
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            if (strcmp(o->keyword, names[i][0]) != 0 || !o->val || !*o->val)
                continue;
            (void)buf_printf(out, "%s=", names[i][1]);
            quote_shell(out, o->val);
            (void)buf_append_char(out, ' ');
        }
}

/* The command up to its statements. A password is asked for, or comes from ~/.pgpass. */
static void put_psql(const struct exam *exam, struct buf *out, bool admin)
{
    bool other = admin && !exam->superuser && !exam->provider;
    put_tls(exam, out);
    (void)buf_append_str(out, "psql -h ");
    quote_shell(out, PQhost(exam->conn));
    (void)buf_append_str(out, " -p ");
    quote_shell(out, PQport(exam->conn));
    (void)buf_append_str(out, " -U ");
    quote_shell(out, other && exam->superuser_name ? exam->superuser_name : PQuser(exam->conn));
    (void)buf_append_str(out, " -d ");
    quote_database(out, PQdb(exam->conn));
}

static void take_command(struct finding *finding, struct buf *command)
{
    if (buf_append(command, "", 1) == 0)
        finding_command(finding, "%s", (const char *)command->data);
    buf_done(command);
}

static void add_statement(const struct exam *exam, struct finding *finding, bool admin,
                          const char *first, const char *second)
{
    struct buf command = buf_make(COMMAND_MAX);
    put_psql(exam, &command, admin);
    (void)buf_append_str(&command, " -c ");
    quote_shell(&command, first);
    if (second) {
        (void)buf_append_str(&command, " -c ");
        quote_shell(&command, second);
    }
    take_command(finding, &command);
}

void remedy_sql(const struct exam *exam, struct finding *finding, bool admin, const char *sql, ...)
{
    char text[1024];
    va_list args;
    va_start(args, sql);
    (void)vsnprintf(text, sizeof(text), sql, args);
    va_end(args);
    add_statement(exam, finding, admin, text, NULL);
}

/* ---- settings and rights ---- */

static void remedy_in_cloud(const struct exam *exam, struct finding *finding, const char *name,
                            const char *value, bool restart)
{
    const struct provider *p = exam->provider;
    bool logical = !strcmp(name, "wal_level");
    if (p->fixed && !strcmp(name, p->fixed)) {
        finding_detail(finding, "On %s it cannot be set: watch the disk, and what slots keep.",
                       p->name);
        return;
    }
    finding_detail(finding, "On %s: %s", p->name, p->set_advice);
    if (p->set) {
        struct buf command = buf_make(COMMAND_MAX);
        const char *words[] = { logical ? p->logical[0] : name, logical ? p->logical[1] : value };
        const char *at = p->set;
        for (size_t i = 0; i < 2; i++) { /* each has two %s */
            const char *mark = strstr(at, "%s");
            (void)buf_append(&command, at, (size_t)(mark - at));
            (void)buf_append_str(&command, words[i]);
            at = mark + 2;
        }
        (void)buf_append_str(&command, at);
        take_command(finding, &command);
    }
    if (restart && p->restart)
        finding_command(finding, "%s", p->restart);
}

void remedy_setting(const struct exam *exam, struct finding *finding, const char *name,
                    const char *value, const char *plain, bool restart)
{
    char sql[256];
    if (exam->provider) {
        remedy_in_cloud(exam, finding, name, plain, restart);
        return;
    }
    (void)snprintf(sql, sizeof(sql), "ALTER SYSTEM SET %s = %s", name, value);
    add_statement(exam, finding, true, sql, restart ? NULL : "SELECT pg_reload_conf()");
    if (!restart)
        return;
    finding_detail(finding, "It takes a restart of the server, on its machine.");
    finding_command(finding, "%s", exam->restart);
}

void remedy_replication(const struct exam *exam, struct finding *finding)
{
    char sql[512];
    const char *way = exam->provider ? exam->provider->replication : "ALTER ROLE %s REPLICATION";
    const char *place = strstr(way, "%s");
    (void)snprintf(sql, sizeof(sql), "%.*s%s%s", (int)(place - way), way, exam->role, place + 2);
    add_statement(exam, finding, true, sql, NULL);
}

/* ---- fanwire's SQL ---- */

void remedy_install(const struct exam *exam, struct finding *finding, enum exam_mode mode)
{
    struct buf command = buf_make(COMMAND_MAX);
    (void)buf_printf(&command, "fanwire sql postgres --mode %s | ", exam_modes[mode]);
    put_psql(exam, &command, !exam->may_install);
    (void)buf_append_str(&command, " -q -1 -v ON_ERROR_STOP=1");
    take_command(finding, &command);
}
