/* libuv has this too, but it writes over the arguments alone: "fanwire serve" is shorter than
 * "fanwire: worker 1", and a URL in the environment would stay readable in /proc/PID/environ. */
#include "title.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* The kernel lays arguments and environment out back to back, above everything else; what a program
 * has taken out of argv leaves a hole, and what setenv() has made lies below. */
static size_t area_size(int argc, char **argv, char **env)
{
    char *end = argv[0] + strlen(argv[0]) + 1;
    for (int i = 1; i < argc; i++) {
        if (argv[i] >= end)
            end = argv[i] + strlen(argv[i]) + 1;
    }
    for (size_t i = 0; env && env[i]; i++) {
        if (env[i] >= end)
            end = env[i] + strlen(env[i]) + 1;
    }
    return (size_t)(end - argv[0]);
}

static void free_strings(char **strings)
{
    for (size_t i = 0; strings && strings[i]; i++)
        free(strings[i]);
    free(strings);
}

static char **copy_strings(char **strings)
{
    size_t n = 0;
    while (strings[n])
        n++;
    char **copy = calloc(n + 1, sizeof(*copy));
    for (size_t i = 0; copy && i < n; i++) {
        copy[i] = strdup(strings[i]);
        if (!copy[i]) {
            free_strings(copy);
            return NULL;
        }
    }
    return copy;
}

char **title_init(struct title *title, int argc, char **argv)
{
    *title = (struct title){ 0 };
    if (argc < 1 || !argv[0] || !environ)
        return argv;
    char **args = copy_strings(argv);
    char **env = copy_strings(environ);
    if (!args || !env) {
        free_strings(args);
        free_strings(env);
        return argv;
    }
    *title =
        (struct title){ .area = argv[0], .size = area_size(argc, argv, environ), .args = args };
    environ = env;
    return args;
}

void title_done(struct title *title)
{
    free_strings(title->args);
    *title = (struct title){ 0 };
}

void title_set(const struct title *title, const char *text)
{
    (void)prctl(PR_SET_NAME, text); /* cut to 15 bytes by the kernel */
    if (!title->area)
        return;
    size_t len = strnlen(text, title->size - 1);
    memcpy(title->area, text, len);
    memset(title->area + len, 0, title->size - len);
}
