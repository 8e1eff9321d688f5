/* What the doctor found: a list of findings, the mode that follows from them, and the exit code. */
#ifndef CLI_DOCTOR_REPORT_H
#define CLI_DOCTOR_REPORT_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum level {
    LEVEL_OK,      /* works */
    LEVEL_NOTE,    /* good to know */
    LEVEL_WARNING, /* works, and will bite */
    LEVEL_PROBLEM, /* serving is impossible with it */
};

struct finding {
    enum level level;
    const char *id; /* static: for programs */
    struct buf title, detail;
    struct buf commands; /* each with its NUL: what would mend it */
    struct buf facts;    /* members of a JSON object, `,"name":value` each */
};

struct report {
    char source[512];    /* as people may see it: no password */
    const char *kind;    /* "postgres", … ; static */
    char mode[24];       /* the mode that would be followed; "" when it is not known */
    const char *why;     /* why this mode; static */
    const char *promise; /* of that mode; static */
    bool durable;
    bool unreachable;
    struct finding *findings; /* owned */
    size_t n, size;
    bool failed; /* out of memory */
};

/* Adds a finding; the title is a sentence without its full stop. Borrowed until the next one is
 * added. NULL when memory is out: everything below takes that. */
struct finding *report_add(struct report *report, enum level level, const char *id,
                           const char *title, ...) __attribute__((format(printf, 4, 5)));
void report_done(struct report *report);

/* Appends sentences. */
void finding_detail(struct finding *finding, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Appends a sentence of somebody else's, with a full stop where it has none. */
void finding_quote(struct finding *finding, const char *text);
/* Appends a command for the shell, to be run as it stands. */
void finding_command(struct finding *finding, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* For programs only. */
void finding_text(struct finding *finding, const char *name, const char *value);
void finding_number(struct finding *finding, const char *name, int64_t value);
void finding_flag(struct finding *finding, const char *name, bool value);

bool report_has_problem(const struct report *report);
/* 0, 1 problems, 3 unreachable, 5 not durable though that was required. */
int report_exit_code(const struct report *report, bool require_durable);

/* Both return 0 or -EIO when it cannot be written. */
int report_print(const struct report *report, FILE *out, bool colours);
int report_print_json(const struct report *report, FILE *out, int exit_code);

#endif
