/* The bare send loop (bare_loop.h) with the messages of a replication slot as events, the way
 * fanwire's mode wal gets them: pgoutput, decoded by a temporary slot of its own, one event for
 * each message in the publication "fanwire". What libpq has read at one time goes out together.
 *
 * One process, no log and no check of what the server sends: so this is the least that the way from
 * a commit to a WebSocket takes. Usage: bare_postgres CONNINFO; prints "port N". */
#include "bare_loop.h"

#include <endian.h>
#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAL_HEADER 25
#define MESSAGE_HEADER                                                                             \
    10 /* of pgoutput: kind, flags, LSN; then the prefix, the length, the content */

struct input {
    struct bare *bare;
    PGconn *conn;
};

static uint32_t get_32(const char *at)
{
    uint32_t wire;
    memcpy(&wire, at, sizeof(wire));
    return be32toh(wire);
}

/* The content is a line of JSON, which says the channel, and the payload. */
static void take_message(struct bare *bare, const char *data)
{
    const char *prefix = data + MESSAGE_HEADER;
    const char *length = prefix + strlen(prefix) + 1, *content = length + 4;
    size_t len = get_32(length);
    const char *nl = memchr(content, '\n', len);
    if (nl && strcmp(prefix, "fanwire") == 0)
        bare_put(bare, nl + 1, len - (size_t)(nl + 1 - content));
}

/* The server asks now and then whether we are there; everything up to its word has been read. */
static void answer_keepalive(PGconn *conn, const char *data)
{
    char status[34] = { 'r' };
    for (int i = 0; i < 3; i++)
        memcpy(status + 1 + 8 * i, data + 1, 8);
    if (data[17] && (PQputCopyData(conn, status, sizeof(status)) != 1 || PQflush(conn) < 0))
        bare_fail("%s", PQerrorMessage(conn));
}

static void read_slot(void *arg)
{
    struct input *in = arg;
    char *data;
    int len = 0;
    if (!PQconsumeInput(in->conn))
        bare_fail("%s", PQerrorMessage(in->conn));
    while ((len = PQgetCopyData(in->conn, &data, 1)) > 0) {
        if (data[0] == 'w' && data[WAL_HEADER] == 'M')
            take_message(in->bare, data + WAL_HEADER);
        else if (data[0] == 'k')
            answer_keepalive(in->conn, data);
        PQfreemem(data);
    }
    if (len < 0)
        bare_fail("the stream has ended: %s", PQerrorMessage(in->conn));
    bare_flush(in->bare);
}

static void ask(PGconn *conn, const char *sql, ExecStatusType wanted)
{
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) != wanted)
        bare_fail("%s", PQerrorMessage(conn));
    PQclear(result);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        bare_fail("usage: bare_postgres CONNINFO");
    const char *const names[] = { "dbname", "replication", NULL };
    const char *const values[] = { argv[1], "database", NULL };
    struct input in = { .conn = PQconnectdbParams(names, values, 1) };
    if (PQstatus(in.conn) != CONNECTION_OK)
        bare_fail("%s", PQerrorMessage(in.conn));
    ask(in.conn, "CREATE_REPLICATION_SLOT bare TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT",
        PGRES_TUPLES_OK);
    ask(in.conn,
        "START_REPLICATION SLOT bare LOGICAL 0/0 (proto_version '1', "
        "publication_names 'fanwire', messages 'true')",
        PGRES_COPY_BOTH);
    in.bare = bare_new();
    bare_run(in.bare, PQsocket(in.conn), read_slot, &in);
}
