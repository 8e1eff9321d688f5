/* The command: finds the subcommand and hands over. */
#include "cli.h"

#include <fanwire.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name, *arguments, *summary;
    int (*run)(int argc, char **argv);
    int (*run_titled)(int argc, char **argv, const struct title *title); /* may hold secrets */
};

static const struct command commands[] = {
    { "serve", "[SOURCE]", "hold one connection to SOURCE, serve its events to browsers", NULL,
      cli_serve },
    { "tail", "CHANNEL...", "print events as they come", NULL, cli_tail },
    { "pub", "CHANNEL [PAYLOAD|-]", "publish an event", NULL, cli_pub },
    { "doctor", "[SOURCE]", "say what works with SOURCE, and what would mend the rest", NULL,
      cli_doctor },
    { "sql", "postgres", "print the SQL that installs fanwire_publish()", cli_sql, NULL },
    { "health", "[URL]", "exit 0 if the server answers", cli_health, NULL },
    { "version", "", "print the version", cli_version, NULL },
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(FILE *out)
{
    (void)fprintf(out, "fanwire %s: one connection in, every browser out.\n\n", fw_version());
    for (size_t i = 0; i < N_COMMANDS; i++)
        (void)fprintf(out, "  fanwire %-8s%-21s %s\n", commands[i].name, commands[i].arguments,
                      commands[i].summary);
    (void)fputs("\n\"fanwire COMMAND --help\" tells more. To try it: fanwire serve --dev\n", out);
}

static int run(const char *name, int argc, char **argv, const struct title *title)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (strcmp(c->name, name) == 0)
            return c->run ? c->run(argc, argv) : c->run_titled(argc, argv, title);
    }
    (void)fprintf(stderr, "fanwire: there is no command \"%.40s\"; \"fanwire help\" lists them\n",
                  name);
    return 2;
}

static int dispatch(int argc, char **argv, const struct title *title)
{
    static char help_flag[] = "--help", version[] = "version";
    char *name = argc > 1 ? argv[1] : argv[0];
    if (argc > 1 && (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0))
        return run(version, 1, (char *[]){ version, NULL }, title);
    bool is_help = argc < 2 || strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 ||
                   strcmp(name, "-h") == 0;
    if (!is_help)
        return run(name, argc - 1, argv + 1, title);
    if (argc > 2) /* fanwire help COMMAND */
        return run(argv[2], 2, (char *[]){ argv[2], help_flag, NULL }, title);
    help(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    struct title title;
    char **args = title_init(&title, argc, argv);
    int code = dispatch(argc, args, &title);
    title_done(&title);
    return code;
}
