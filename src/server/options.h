/* What `fanwire serve` was told: one table of flags (options.c), checked and ready to use. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include "address.h"
#include "engine.h"
#include "settings.h"
#include "worker.h"

#include <fanwire/source.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define WORKERS_MAX 256

struct application;
struct flag;

struct server_options {
    char *source; /* URL, owned; may hold a password: server_options_forget_source() */
    struct address http[WORKER_LISTENERS_MAX];
    size_t n_http;
    struct address admin;
    bool admin_on;
    uint32_t workers;
    uint64_t retain;
    uint32_t linger_ms;
    struct engine_snapshot *snapshots; /* n_snapshots, owned, each texts in one piece */
    size_t n_snapshots;
    enum fw_log_level log_level;
    bool log_json;
    struct application *application; /* of a program with routes; NULL: none */
    struct settings settings; /* for the workers; texts are borrowed from arguments/environment */
};

/* Reads arguments (argv[0] is "serve") and environment. The URL is moved out of both.
 * Returns 0, 1 when help was asked for, -EINVAL with text (exit code 2), -ENOMEM. */
int server_options_parse(struct server_options *options, int argc, char **argv,
                         struct fw_error *err);
/* The same for a program that has set some itself. `source`: its own, "" or NULL for none; goes
 * before the environment's, is wiped. */
int server_options_parse_for(struct server_options *options, char *source, int argc, char **argv,
                             struct fw_error *err);
const struct flag *server_options_flag(const char *name); /* "http"; NULL: there is none */
void server_options_help(FILE *out);
/* Wipes the URL and the environment's database passwords from this process's memory. */
void server_options_forget_source(struct server_options *options);
/* Wipes the URL alone, for a process that is the program's own. */
void server_options_forget_url(struct server_options *options);
void server_options_done(struct server_options *options);

/* The URL without password, parameters and fragment, for people's eyes. Returns out. */
char *url_redact(char *out, size_t size, const char *url);

#endif
