/* A program that embeds the server: what it sets, and its run. */
#include "application.h"
#include "call_message.h"
#include "error.h"
#include "flags.h"
#include "options.h"
#include "server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
#define THREADS_DEFAULT 4
#define THREADS_MAX     256

struct fw_server {
    char *source;        /* wiped by fw_server_run() */
    struct strings args; /* "--http=:80"; owned */
    struct application application;
};

/* ---- birth and end ---- */

static const struct fw_application defaults = { .size = sizeof(defaults) };

int fw_server_new(struct fw_server **ret_server, struct fw_error *err)
{
    struct fw_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(err, -ENOMEM, "out of memory");
    (void)fw_server_application(server, &defaults, err);
    *ret_server = server;
    return 0;
}

static void forget_source(struct fw_server *server)
{
    if (server->source)
        explicit_bzero(server->source, strlen(server->source));
    free(server->source);
    server->source = NULL;
}

void fw_server_free(struct fw_server *server)
{
    if (!server)
        return;
    forget_source(server);
    for (size_t i = 0; i < server->args.count; i++)
        free(server->args.items[i]);
    strings_done(&server->args);
    routes_done(&server->application.routes);
    free(server->application.handlers);
    free(server);
}

/* ---- options ---- */

static int set_source(struct fw_server *server, const char *value, struct fw_error *err)
{
    forget_source(server);
    server->source = strdup(value);
    return server->source ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int fw_server_set(struct fw_server *server, const char *name, const char *value,
                  struct fw_error *err)
{
    if (strcmp(name, "source") == 0)
        return set_source(server, value, err);
    const struct flag *flag = server_options_flag(name);
    if (!flag)
        return error_set(err, -EINVAL, "there is no option \"%.64s\"; man fanwire-serve lists them",
                         name);
    if (flag->kind == FLAG_LATER)
        return error_set(err, -EINVAL, "%s is not in this version: %s", name, flag->help);
    char *arg;
    int n = flag->kind == FLAG_BOOL && !*value ? asprintf(&arg, "--%s", name)
                                               : asprintf(&arg, "--%s=%s", name, value);
    if (n < 0)
        return error_set(err, -ENOMEM, "out of memory");
    if (strings_add(&server->args, arg) < 0) {
        free(arg);
        return error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

int fw_server_application(struct fw_server *server, const struct fw_application *application,
                          struct fw_error *err)
{
    struct application *a = &server->application;
    const char *name = application->name ? application->name : "application";
    size_t len = strlen(name);
    if (application->size != sizeof(*application))
        return error_set(err, -EINVAL, "size is to be sizeof(struct fw_application)");
    if (len == 0 || len >= sizeof(a->name) || strspn(name, NAME_CHARACTERS) != len)
        return error_set(err, -EINVAL,
                         "\"%.40s\" is no name for an application: 1 to %zu letters, digits, - _ .",
                         name, sizeof(a->name) - 1);
    if (application->n_threads > THREADS_MAX)
        return error_set(err, -EINVAL, "an application has 1 to %d threads", THREADS_MAX);
    memcpy(a->name, name, len + 1);
    a->n_threads = application->n_threads ? application->n_threads : THREADS_DEFAULT;
    a->start = application->start;
    a->stop = application->stop;
    a->arg = application->arg;
    a->secret = application->secret;
    return 0;
}

/* ---- routes ---- */

static int add(struct fw_server *server, const struct route *route, struct handler handler,
               struct fw_error *err)
{
    struct application *a = &server->application;
    if (route->kind != ROUTE_ASSET && !handler.run)
        return error_set(err, -EINVAL, "a route needs a handler");
    struct handler *handlers = realloc(a->handlers, (a->routes.count + 1) * sizeof(*handlers));
    if (!handlers)
        return error_set(err, -ENOMEM, "out of memory");
    a->handlers = handlers;
    int index = routes_add(&a->routes, route, err);
    if (index < 0)
        return index;
    a->handlers[index] = handler;
    return 0;
}

int fw_server_asset(struct fw_server *server, const char *path, const char *type, const void *data,
                    size_t len, struct fw_error *err)
{
    struct slice named = { type, strlen(type) };
    if (named.len == 0 || !call_type_allowed(named))
        return error_set(err, -EINVAL, "%.200s: its type is no Content-Type", path);
    struct route route = { .kind = ROUTE_ASSET,
                           .method = (char *)"GET",
                           .path = (char *)path,
                           .type = (char *)type,
                           .data = data,
                           .len = len };
    return add(server, &route, (struct handler){ 0 }, err);
}

int fw_server_route(struct fw_server *server, const char *method, const char *path,
                    fw_handler_fn *handler, void *arg, struct fw_error *err)
{
    struct route route = { .kind = ROUTE_HANDLER, .method = (char *)method, .path = (char *)path };
    return add(server, &route, (struct handler){ handler, arg }, err);
}

int fw_server_stream(struct fw_server *server, const char *path, const char *channel,
                     fw_handler_fn *handler, void *arg, struct fw_error *err)
{
    struct route route = { .kind = ROUTE_STREAM,
                           .method = (char *)"GET",
                           .path = (char *)path,
                           .channel = (char *)channel };
    return add(server, &route, (struct handler){ handler, arg }, err);
}

/* ---- running ---- */

/* What was set, then what the command line says. NULL: out of memory. */
static char **join_arguments(const struct fw_server *server, int argc, char **argv, int *ret_count)
{
    static char name[] = "serve";
    size_t n = 1, given = argc > 0 ? (size_t)argc : 1;
    char **all = calloc(server->args.count + given + 1, sizeof(*all));
    if (!all)
        return NULL;
    all[0] = name;
    for (size_t i = 0; i < server->args.count; i++)
        all[n++] = server->args.items[i];
    for (size_t i = 1; i < given; i++)
        all[n++] = argv[i];
    *ret_count = (int)n;
    return all;
}

static int run(struct fw_server *server, int argc, char **argv, const struct title *title,
               struct fw_error *err)
{
    struct server_options options;
    struct application *a = &server->application;
    int r = server_options_parse_for(&options, server->source, argc, argv, err);
    forget_source(server);
    if (r > 0) {
        server_options_help(stdout);
        return 0;
    }
    if (r < 0)
        return 2;
    options.settings.routes = a->routes.count ? &a->routes : NULL;
    options.application = a->routes.n_calls ? a : NULL;
    int code = server_run(&options, title, err);
    server_options_done(&options);
    return code;
}

int fw_server_run(struct fw_server *server, int argc, char **argv, struct fw_error *err)
{
    struct title title;
    struct fw_error unused;
    int n, code = 1;
    char **args = title_init(&title, argc, argv);
    char **all = join_arguments(server, argc, args, &n);
    if (all)
        code = run(server, n, all, &title, err ? err : &unused);
    else
        (void)error_set(err, -ENOMEM, "out of memory");
    free(all);
    title_done(&title);
    return code;
}

/* ---- the log ---- */

void fw_server_log(struct fw_server *server, int level, const char *event, const char *format, ...)
{
    const struct application *a = &server->application;
    if (!a->logger)
        return;
    char text[2048];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_message(a->logger, (enum fw_log_level)level, "application", a->name, event, "%s", text);
}
