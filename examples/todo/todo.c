/* A to-do list for many people at a time: a database, seven routes, a page, and fanwire between. */
#include "api.h"
#include "page_files.h"
#include "pool.h"

#include <fanwire/server.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE    2
#define STORE_DEFAULT "sqlite:todo.db"

static const char usage[] =
    "usage: todo [--store sqlite:FILE | postgres://…] [flags of fanwire serve]\n"
    "\n"
    "Serves a to-do list: a page, its API below /api/todos/, and every change as it happens.\n"
    "\n"
    "  --store URL   where the items are kept (default " STORE_DEFAULT
    "); missing tables are made\n"
    "  --sql         print the SQL that the store needs, for a role that may run it\n"
    "  --help        this\n"
    "\n"
    "All else is as for the server: man fanwire-serve. By default http://127.0.0.1:4600/.\n";

struct options {
    char *store; /* in the arguments; NULL: not said */
    bool sql, help;
};

/* What the application process works with. */
struct todo {
    struct api api;
    char *url; /* of the store: what other processes must not have */
};

/* Takes our own flags out of the arguments; what stays is the server's. */
static int take_options(int *argc, char **argv, struct options *ret)
{
    int n = 1;
    *ret = (struct options){ 0 };
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--store") == 0 && i + 1 < *argc)
            ret->store = argv[++i];
        else if (strncmp(argv[i], "--store=", 8) == 0)
            ret->store = argv[i] + 8;
        else if (strcmp(argv[i], "--sql") == 0)
            ret->sql = true;
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            ret->help = true;
        else if (strcmp(argv[i], "--store") == 0)
            return -1;
        else
            argv[n++] = argv[i];
    }
    argv[n] = NULL;
    *argc = n;
    return 0;
}

static int print_sql(const char *store)
{
    const char *more, *text = store_sql(store, &more);
    return fputs(text, stdout) < 0 || fputs(more, stdout) < 0 || fflush(stdout) != 0;
}

/* ---- the application process ---- */

/* Without the database, too: each request looks for it again. The store is made here and not in
 * main(), as all that main() holds is in the workers, too. */
static int start(void *arg)
{
    struct todo *todo = arg;
    struct fw_error err = { 0 };
    int r = store_open(todo->url, &todo->api.store, &err);
    if (r < 0) {
        fw_server_log(todo->api.server, LEVEL_ERROR, "store-failed", "%s", err.message);
        return r;
    }
    api_start(&todo->api);
    return 0;
}

static void stop(void *arg)
{
    struct todo *todo = arg;
    store_close(todo->api.store);
    todo->api.store = NULL;
}

/* ---- what is served ---- */

/* The source reads the database that the store writes. There fanwire_watch() alone publishes, so
 * nothing has to be listened to by name (foreign=off). */
static int set_source(struct fw_server *server, const char *store, struct fw_error *err)
{
    bool sqlite = strncmp(store, "sqlite:", 7) == 0;
    const char *more = sqlite ? "" : strchr(store, '?') ? "&foreign=off" : "?foreign=off";
    size_t size = strlen(store) + strlen(more) + 1;
    char *source = malloc(size); /* asprintf() would leave pieces in freed memory */
    if (!source) {
        (void)snprintf(err->message, sizeof(err->message), "out of memory");
        return -1;
    }
    (void)snprintf(source, size, "%s%s", store, more);
    int r = fw_server_set(server, "source", source, err);
    explicit_bzero(source, strlen(source));
    free(source);
    return r;
}

/* Who listens to all items gets those that there are first. */
static int set_snapshot(struct fw_server *server, const char *store, struct fw_error *err)
{
    char snapshot[256];
    (void)snprintf(snapshot, sizeof(snapshot), "todos=%s", store_query(store));
    return fw_server_set(server, "snapshot", snapshot, err);
}

static int add_page(struct fw_server *server, struct fw_error *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof(page_files) / sizeof(page_files[0]); i++)
        r = fw_server_asset(server, page_files[i].path, page_files[i].type, page_files[i].data,
                            page_files[i].len, err);
    return r;
}

static int set_up(struct todo *todo, struct fw_error *err)
{
    struct api *api = &todo->api;
    const struct fw_application application = { .size = sizeof(application),
                                                .name = "todo",
                                                .n_threads = POOL_SIZE,
                                                .start = start,
                                                .stop = stop,
                                                .arg = todo,
                                                .secret = todo->url };
    int r = set_source(api->server, todo->url, err);
    if (r == 0)
        r = fw_server_set(api->server, "public", "todos", err);
    if (r == 0)
        r = fw_server_set(api->server, "public", "todos:*", err);
    if (r == 0)
        r = set_snapshot(api->server, todo->url, err);
    if (r == 0)
        r = fw_server_application(api->server, &application, err);
    if (r == 0)
        r = add_page(api->server, err);
    return r < 0 ? r : api_routes(api, err);
}

static int serve(struct todo *todo, int argc, char **argv)
{
    struct api *api = &todo->api;
    struct fw_error err = { 0 };
    int code = 1;
    if (fw_server_new(&api->server, &err) == 0 && set_up(todo, &err) == 0)
        code = fw_server_run(api->server, argc, argv, &err);
    if (code != 0 && err.message[0])
        fprintf(stderr, "todo: %s\n", err.message);
    fw_server_free(api->server);
    return code;
}

/* The one copy of the URL; in the arguments, where ps and the workers would find it, it is wiped.
 */
static char *take_url(char *given)
{
    char *url = strdup(given ? given : STORE_DEFAULT);
    if (given)
        explicit_bzero(given, strlen(given));
    return url;
}

int main(int argc, char **argv)
{
    struct options options;
    struct fw_error err;
    struct todo todo = { 0 };
    if (take_options(&argc, argv, &options) < 0 || options.help)
        return fputs(usage, options.help ? stdout : stderr) < 0 || !options.help ? EXIT_USAGE : 0;
    todo.url = take_url(options.store);
    if (!todo.url || store_check(todo.url, &err) < 0) {
        fprintf(stderr, "todo: %s\n", todo.url ? err.message : "out of memory");
        free(todo.url);
        return EXIT_USAGE;
    }
    int code = options.sql ? print_sql(todo.url) : serve(&todo, argc, argv);
    free(todo.url);
    return code;
}
