/* fanwire sql: prints the SQL that a database needs for a source. */
#include "cli.h"

#include "sql_postgres_uninstall.h"
#include "sql_sqlite.h"

#include <fanwire.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define EXIT_USAGE 2

static const char usage[] =
    "usage: fanwire sql postgres [--mode notify|wal|outbox] [--uninstall]\n"
    "\n"
    "Prints the SQL that installs fanwire_publish(), fanwire_watch() and what belongs to them in "
    "a\n"
    "database; safe to run again. For example:\n"
    "\n"
    "  fanwire sql postgres | psql -1 -v ON_ERROR_STOP=1 \"$DATABASE_URL\"\n"
    "\n"
    "  --mode notify   LISTEN and NOTIFY: live events, 8 kB (default)\n"
    "  --mode wal      the write-ahead log: every event, in commit order, across restarts; "
    "Postgres 14,\n"
    "                  wal_level = logical\n"
    "  --mode outbox   a table: every event, across restarts, on any server\n"
    "  --uninstall     print the SQL that removes it instead\n"
    "\n"
    "The SQL of another mode replaces what is installed; tables that are watched stay watched.\n";

struct sql_options {
    const char *database, *mode;
    bool uninstall, help, watch;
};

static int parse(int argc, char **argv, struct sql_options *ret)
{
    static const struct option options[] = {
        { "mode", required_argument, NULL, 'm' },
        { "uninstall", no_argument, NULL, 'u' },
        { "watch", required_argument, NULL, 'w' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    *ret = (struct sql_options){ .mode = "notify" };
    optind = 0; /* the caller has parsed with getopt, too */
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'm')
            ret->mode = optarg;
        else if (c == 'u')
            ret->uninstall = true;
        else if (c == 'w')
            ret->watch = true;
        else if (c == 'h')
            ret->help = true;
        else
            return -1; /* getopt has said why */
    }
    if (optind < argc)
        ret->database = argv[optind++];
    return argc - optind;
}

static int refuse(const char *format, const char *what)
{
    fputs("fanwire sql: ", stderr);
    fprintf(stderr, format, what);
    fputs("\n", stderr);
    return EXIT_USAGE;
}

/* What this version does not have is told apart from what no version has. */
static int check(const struct sql_options *o)
{
    if (!o->database)
        return refuse("which database? %s", "write: fanwire sql postgres, or sqlite");
    if (!strcmp(o->database, "sqlite"))
        return refuse("%s comes first: fanwire sql sqlite …", o->database);
    if (strcmp(o->database, "postgres") != 0)
        return refuse("unknown database \"%s\"; known: postgres, sqlite", o->database);
    if (!fw_sql(o->database, o->mode))
        return refuse("unknown mode \"%s\"; known: notify, wal, outbox", o->mode);
    if (o->watch)
        return refuse("%s is not in this version of fanwire", "--watch");
    return 0;
}

int cli_sql(int argc, char **argv)
{
    struct sql_options options;
    if (argc > 1 && !strcmp(argv[1], "sqlite"))
        return sql_sqlite(argc - 1, argv + 1);
    int extra = parse(argc, argv, &options);
    if (extra == 0 && options.help)
        return fputs(usage, stdout) < 0 || fputs("\n", stdout) < 0 || sql_sqlite_help(stdout) < 0;
    if (extra > 0)
        return refuse("unexpected argument \"%s\"", argv[argc - extra]);
    if (extra < 0) {
        fputs("Try: fanwire sql --help\n", stderr);
        return EXIT_USAGE;
    }
    int r = check(&options);
    if (r != 0)
        return r;
    const char *sql =
        options.uninstall ? sql_postgres_uninstall : fw_sql(options.database, options.mode);
    if (fputs(sql, stdout) < 0 || fflush(stdout) != 0) {
        perror("fanwire sql: cannot write");
        return 1;
    }
    return 0;
}
