/* fanwire doctor: looks at a source and says what works, what does not, and what would mend it. */
#include "cli.h"

#include "doctor_sources.h"
#include "error.h"
#include "flags.h"
#include "options.h"
#include "terminal.h"

#include <fanwire.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

struct doctor {
    const char *require, *drop_slot;
    bool json;
};

static const struct flag doctor_flags[] = {
    { "require", 0, false, FLAG_TEXT, offsetof(struct doctor, require), "durable", NULL,
      "exit with 5 when events can be lost" },
    { "json", 0, false, FLAG_BOOL, offsetof(struct doctor, json), NULL, NULL,
      "print one JSON object" },
    { "drop-slot", 0, false, FLAG_TEXT, offsetof(struct doctor, drop_slot), "NAME", NULL,
      "drop a replication slot of fanwire's that nobody reads" },
    { NULL },
};

static const char usage[] =
    "fanwire doctor [OPTION…] [SOURCE]\n\n"
    "Looks at SOURCE (postgres://…, sqlite:FILE, …; else FANWIRE_SOURCE) and says what\n"
    "works, which mode \"fanwire serve\" would follow, what that promises, and the commands\n"
    "that would make it better. It changes nothing.\n\n"
    "Exit code 0 if it can be served, 1 if not, 2 usage, 3 if it cannot be reached,\n"
    "5 if --require is not met.\n\n";

/* ---- sources without a backend ---- */

struct simple {
    const char *scheme, *mode, *title, *promise;
};

static const struct simple simple_sources[] = {
    { "memory", "memory", "memory: needs nothing",
      "what is published lives in the server's memory and ends with it" },
    { "stdin", "lines", "stdin: reads lines of standard input",
      "each line once, from the start of the server to its end; nothing before or after" },
};

static void doctor_simple(struct report *report, const struct simple *source)
{
    struct finding *f = report_add(report, LEVEL_OK, "source", "%s", source->title);
    finding_detail(f, "Clients that come back to the running server get what they missed; after a "
                      "restart they are told a gap.");
    report->why = "there is no other";
    report->promise = source->promise;
    (void)snprintf(report->mode, sizeof(report->mode), "%s", source->mode);
}

/* ---- which source ---- */

static bool has_scheme(const char *url, const char *scheme)
{
    size_t len = strcspn(url, ":+");
    return url[len] && len == strlen(scheme) && strncasecmp(url, scheme, len) == 0;
}

static const char *kind_of(const char *url)
{
    static const char *const kinds[][2] = {
        { "postgres", "postgres" }, { "postgresql", "postgres" }, { "postgis", "postgres" },
        { "sqlite", "sqlite" },     { "sqlite3", "sqlite" },      { "memory", "memory" },
        { "stdin", "stdin" },
    };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (has_scheme(url, kinds[i][0]))
            return kinds[i][1];
    return NULL;
}

static int examine(struct report *report, const char *url, const char *drop_slot,
                   struct fw_error *err)
{
    if (!strcmp(report->kind, "postgres"))
        return doctor_postgres(report, url, drop_slot, err);
    if (drop_slot)
        return error_set(err, -EINVAL, "--drop-slot is for postgres:// sources only");
    if (!strcmp(report->kind, "sqlite"))
        return doctor_sqlite(report, url, err);
    for (size_t i = 0; i < sizeof(simple_sources) / sizeof(simple_sources[0]); i++)
        if (!strcmp(report->kind, simple_sources[i].scheme))
            doctor_simple(report, &simple_sources[i]);
    return report->failed ? error_set(err, -ENOMEM, "out of memory") : 0;
}

/* ---- the command ---- */

static int complain(int code, const char *text)
{
    terminal_complain("doctor", text);
    return code;
}

static bool use_colours(void)
{
    const char *no = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no && *no);
}

static int print(const struct report *report, const struct doctor *doctor)
{
    int code = report_exit_code(report, doctor->require != NULL);
    int r = doctor->json ? report_print_json(report, stdout, code)
                         : report_print(report, stdout, use_colours());
    if (r == 0 && code == 5)
        (void)complain(code, "--require durable is not met: events can be lost");
    return r < 0 ? complain(1, "cannot write") : code;
}

static int run(const struct doctor *doctor, const char *url)
{
    struct report report = { .kind = kind_of(url) };
    struct fw_error err = { 0 };
    if (!report.kind)
        return complain(2, "no such source; write postgres://USER@HOST/DATABASE, sqlite:FILE, "
                           "memory: or stdin:CHANNEL");
    (void)url_redact(report.source, sizeof(report.source), url);
    int r = examine(&report, url, doctor->drop_slot, &err);
    int code = r < 0 ? complain(r == -EINVAL ? 2 : 1, err.message) : print(&report, doctor);
    report_done(&report);
    return code;
}

int cli_doctor(int argc, char **argv, const struct title *title)
{
    struct doctor doctor = { 0 };
    struct strings rest = { 0 };
    struct fw_error err = { 0 };
    title_set(title, "fanwire: doctor"); /* SOURCE may hold a password */
    int r = flags_parse(doctor_flags, &doctor, argc, argv, &rest, &err), code;
    const char *url = rest.count ? rest.items[0] : getenv("FANWIRE_SOURCE");
    if (r > 0) {
        (void)fputs(usage, stdout);
        flags_help(doctor_flags, stdout);
        code = 0;
    } else if (r < 0) {
        code = complain(2, err.message);
    } else if (rest.count > 1) {
        code = complain(2, "one SOURCE is enough");
    } else if (doctor.require && strcmp(doctor.require, "durable") != 0) {
        code = complain(2, "--require: the one thing to require is durable");
    } else if (!url || !*url) {
        code = complain(2, "SOURCE is missing: postgres://USER@HOST/DATABASE, sqlite:FILE, …, or "
                           "FANWIRE_SOURCE");
    } else {
        code = run(&doctor, url);
    }
    strings_done(&rest);
    return code;
}
