/* For programs that embed the server: all that `fanwire serve` does, and routes of your own.
 *
 *   struct fw_server *server;
 *   struct fw_error err;
 *   if (fw_server_new(&server, &err) < 0 ||
 *       fw_server_set(server, "source", "sqlite:app.db", &err) < 0 ||
 *       fw_server_route(server, "GET", "/api/items/{id}", get_item, NULL, &err) < 0)
 *       return fprintf(stderr, "%s\n", err.message), 1;
 *   int code = fw_server_run(server, argc, argv, &err);    // until SIGTERM or SIGINT
 *
 * Where things run: fw_server_run() forks. The calling process becomes the supervisor; one process
 * holds the source, some hold the clients' sockets (the workers), and one, the application
 * process, runs your handlers in threads of its own. A worker never runs your code, so nothing you
 * do can block or crash what streams to browsers; a request is forwarded, and answered when you
 * answer, from any thread. If the application process dies, requests that it had not answered get
 * 503, it is started again, and streams go on untouched.
 *
 * Results are > 0 / 0 / negative errno; human text goes to struct fw_error, on failure only. Until
 * fw_server_run() the program must be single-threaded and hold no database connection open: what
 * a handler needs is opened by its application's start(). All memory that the program holds before
 * fw_server_run() is in the workers too, which talk to anybody: they forget the source's URL by
 * themselves, the program's own secrets only where fw_application.secret names them. Link with
 * libfanwire-server, which contains libfanwire. */
#ifndef FANWIRE_SERVER_H
#define FANWIRE_SERVER_H

#include <fanwire.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fw_server;  /* what is to be served */
struct fw_request; /* a client's request, until it is answered */

/* Answers `request`, now or later: whoever has it owns it until one of fw_request_answer(),
 * fw_request_problem() and fw_request_accept() takes it back, on any thread. Each request must be
 * taken back in the end; one that is not answered within 30 s answers 503 to its client, and is
 * still yours. Thread: one of the application's, many at the same time. May block. */
typedef void fw_handler_fn(struct fw_request *request, void *arg);

/* The application process. Zeroed fields mean the default. `size` = sizeof(struct ...). */
struct fw_application {
    size_t size;
    const char *name;   /* in the log and the process's title; default "application" */
    unsigned n_threads; /* that run handlers, 1–256; default 4 */
    /* In the application process, before any handler, no other thread running: open databases
     * here. Returns 0; anything else ends the process, and it is started again after a while (an
     * absent database is no reason to end the server). */
    int (*start)(void *arg);
    /* After the last handler has returned, when the server ends. Not called after a crash. */
    void (*stop)(void *arg);
    void *arg;
    /* A text that handlers alone need, as a database's URL with its password: overwritten with
     * zeros in every process but the supervisor and the application's, where start() may read it.
     * Other copies of it are the program's to wipe before fw_server_run(). NULL: none. Borrowed. */
    char *secret;
};

/* Makes a server without routes. Returns 0 or -ENOMEM. Ownership: *ret_server is owned, released
 * by fw_server_free(). Thread: setup. */
FW_API int fw_server_new(struct fw_server **ret_server, struct fw_error *err);
FW_API void fw_server_free(struct fw_server *server); /* NULL allowed; not while it runs */

/* Sets an option by its name: "source", or a flag of `fanwire serve` without its dashes ("http",
 * "public", "workers"; man fanwire-serve). A flag without a value takes "". Lists grow with each
 * call. It stands before what fw_server_run() reads from the command line, which may say otherwise,
 * and above the environment. Returns 0, -EINVAL (no such option) or -ENOMEM; what is wrong with a
 * value is found by fw_server_run(). Ownership: copied. Thread: setup. */
FW_API int fw_server_set(struct fw_server *server, const char *name, const char *value,
                         struct fw_error *err);

/* Says how the application process is made; without it, routes get the defaults. Returns 0, -EINVAL
 * or -ENOMEM. Ownership: copied, but for `arg` and `secret`. Thread: setup. */
FW_API int fw_server_application(struct fw_server *server, const struct fw_application *application,
                                 struct fw_error *err);

/* Serves fixed bytes at `path` ("/", "/app.js"), from the workers themselves: with an ETag, and 304
 * for who has it, and X-Frame-Options: SAMEORIGIN, so that foreign pages cannot frame it. A page at
 * "/" takes the place of the one of --dev. Returns 0, -EINVAL (bad path or type), -EEXIST (the path
 * is taken) or -ENOMEM. Ownership: `data` is borrowed until fw_server_free(), path and type are
 * copied. Thread: setup. */
FW_API int fw_server_asset(struct fw_server *server, const char *path, const char *type,
                           const void *data, size_t len, struct fw_error *err);

/* Hands requests of this method and path to `handler`. `path` begins with a slash, below
 * --base-path; {name} stands for one segment, not empty: "/api/todos/{id}/". Where several match,
 * the one with the earlier literal segment wins. A GET route answers HEAD too, OPTIONS (CORS) and
 * unknown methods (405) are answered by the server, and so are a foreign Origin (403) and escapes
 * (%..) that are malformed or no UTF-8 (400). At most 8 {name}s. Returns 0, -EINVAL (bad method or
 * path, or one of the server's own: /ws /sse /history /publish /healthz /fanwire.js, and what is
 * below them), -EEXIST or -ENOMEM. Ownership: copied, but for `arg`. Thread: setup. */
FW_API int fw_server_route(struct fw_server *server, const char *method, const char *path,
                           fw_handler_fn *handler, void *arg, struct fw_error *err);

/* A stream at `path`: WebSocket, or SSE where a GET says "Accept: text/event-stream"; other
 * requests for the same path go to its routes. It first gets the messages that the handler gives
 * it, then each event of `channel`, in which {name} stands for the path's: "/api/todos/{id}/" with
 * "todos:{id}". Bare payloads, as of /ws/CHANNEL. The handler is called once the source has
 * confirmed the channel: what it then reads from the database and hands to fw_request_message()
 * misses nothing that the stream does not bring, events that it contains already may come again.
 * The channel need not be public: who may have it is for the handler to say. Returns as
 * fw_server_route(). Thread: setup. */
FW_API int fw_server_stream(struct fw_server *server, const char *path, const char *channel,
                            fw_handler_fn *handler, void *arg, struct fw_error *err);

/* Runs the server by what was set and by the arguments (argv[0] is skipped; flags as of `fanwire
 * serve`, then maybe a SOURCE; argc 0: none). Blocks until SIGTERM or SIGINT has drained it.
 * Returns an exit code: 0, 1 failed, 2 usage or configuration, 3 source refuses, 4 address not
 * available, with the text in *err when it is not 0 and the log has not said it; --help prints and
 * returns 0. The processes' titles are written over argv and the environment, which stay valid
 * elsewhere: call it at the end of main(), with what main() was given, and read nothing from argv
 * afterwards. Thread: setup, the only thread. */
FW_API int fw_server_run(struct fw_server *server, int argc, char **argv, struct fw_error *err);

/* A line in the server's log, as the server writes it. `level`: 3 error, 4 warning, 6 info, 7 debug
 * (enum fw_log_level); `event`: a short word. Thread: any of the application process. */
FW_API void fw_server_log(struct fw_server *server, int level, const char *event,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));

/* ---- what was asked. Borrowed until the request is taken back; strings are NUL-terminated ---- */

FW_API const char *fw_request_method(const struct fw_request *request); /* "GET" */
FW_API const char *fw_request_path(const struct fw_request *request);   /* as sent, without query */
/* The path's {name}, percent-decoded; NULL: the route has none of this name. */
FW_API const char *fw_request_param(const struct fw_request *request, const char *name);
/* The query's first value of this name, decoded; NULL: none. */
FW_API const char *fw_request_query(const struct fw_request *request, const char *name);
/* The first header field of this name, in any case; NULL: none. */
FW_API const char *fw_request_header(const struct fw_request *request, const char *name);
/* The body, followed by a NUL that *ret_len does not count; at most 1 MiB. Never NULL. */
FW_API const void *fw_request_body(const struct fw_request *request, size_t *ret_len);

/* ---- the answer. Any thread, one at a time per request; nothing here blocks ---- */

/* A header field of the answer to come, 16 KiB of them at most. Returns 0, -EINVAL (too many, what
 * can't be in one, or one that is the server's: Content-Length, Connection, Date,
 * Access-Control-…) or -ENOMEM. Copied. */
FW_API int fw_request_add_header(struct fw_request *request, const char *name, const char *value);

/* Answers and takes the request back, in every case. `type`: Content-Type, NULL for none; the body,
 * at most 16 MiB, is copied. On a stream it is the refusal: a WebSocket is closed with 4001 (401),
 * 4003 (403), 4129 (429), 4000 (other 4xx) or 1011, the body its reason; an EventSource, which
 * gives up for good on any other status, gets 5xx as 200 with `retry:` and the event `closing`.
 * Returns 0, -EINVAL (status not 200–599), -EMSGSIZE or -ENOMEM (the client got 500 instead), or
 * -EPIPE (nobody is there to have it). */
FW_API int fw_request_answer(struct fw_request *request, unsigned status, const char *type,
                             const void *body, size_t len);

/* Answers with an RFC 9457 problem, as the server itself does: `code` ("bad-request") becomes
 * urn:fanwire:error:CODE where it is one of docs/protocol.md, and about:blank where it is not.
 * `detail` says what to do. As fw_request_answer(). */
FW_API int fw_request_problem(struct fw_request *request, unsigned status, const char *code,
                              const char *detail);

/* Streams only: a message that is sent before the first event. Returns 0, -EINVAL (no stream),
 * -EMSGSIZE (over 16 MiB together) or -ENOMEM. Copied. */
FW_API int fw_request_message(struct fw_request *request, const void *data, size_t len);

/* Streams only: sends the messages, then the channel's events, and takes the request back. Returns
 * 0, -EINVAL (no stream: the request is still yours), -ENOMEM (the client was refused) or -EPIPE.
 */
FW_API int fw_request_accept(struct fw_request *request);

#ifdef __cplusplus
}
#endif
#endif
