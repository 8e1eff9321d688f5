/* Command-line flags by one table: it drives parsing, the environment, the defaults and --help. */
#ifndef SERVER_FLAGS_H
#define SERVER_FLAGS_H

#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct fw_error;

/* What a flag's field is, and how its text is read. */
enum flag_kind {
    FLAG_BOOL,     /* bool; no argument */
    FLAG_TEXT,     /* const char *: borrowed from the arguments or the environment */
    FLAG_LIST,     /* struct strings: may be repeated; in the environment separated by space */
    FLAG_LINES,    /* the same for texts with spaces: in the environment one in a line */
    FLAG_SIZE,     /* uint64_t, bytes */
    FLAG_DURATION, /* uint32_t, ms */
    FLAG_UINT,     /* uint32_t */
    FLAG_CHOICE,   /* unsigned: index of the word in `arg`, "text|json" */
    FLAG_LATER,    /* known, but not in this version: `help` says what to do instead */
};

struct flag {
    const char *name; /* NULL ends the table */
    char letter;      /* 0: none */
    bool env;         /* also FANWIRE_NAME */
    enum flag_kind kind;
    size_t at;            /* offsetof the field */
    const char *arg;      /* what --help calls the argument */
    const char *fallback; /* the default, as a user would write it; NULL: zeroed */
    const char *help;
    uint64_t min, max; /* of FLAG_SIZE, FLAG_DURATION (ms), FLAG_UINT; max 0: no bound */
};

/* Fills *into by defaults, then environment, then arguments (argv[1] on). What is no flag goes to
 * *rest, also everything after "--". Returns 0, 1 when help was asked for, -EINVAL with text, or
 * -ENOMEM. Ownership: lists are owned (strings_done()), their items and texts borrowed. */
int flags_parse(const struct flag *flags, void *into, int argc, char **argv, struct strings *rest,
                struct fw_error *err);
void flags_help(const struct flag *flags, FILE *out);

/* The environment's variable of a flag: "retain-for" → "FANWIRE_RETAIN_FOR". Returns name. */
char *flag_variable(const struct flag *flag, char *name, size_t size);

int strings_add(struct strings *strings, char *item); /* 0 or -ENOMEM; the item is borrowed */
void strings_done(struct strings *strings);

#endif
