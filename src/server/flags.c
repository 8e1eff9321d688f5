/* Command-line flags by one table. */
#include "flags.h"

#include "error.h"
#include "text.h"

#include <fanwire.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int strings_add(struct strings *strings, char *item)
{
    char **items = reallocarray(strings->items, strings->count + 1, sizeof(*items));
    if (!items)
        return -ENOMEM;
    strings->items = items;
    strings->items[strings->count++] = item;
    return 0;
}

void strings_done(struct strings *strings)
{
    free(strings->items);
    *strings = (struct strings){ 0 };
}

char *flag_variable(const struct flag *flag, char *name, size_t size)
{
    (void)snprintf(name, size, "FANWIRE_%s", flag->name);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    return name;
}

/* ---- one value ---- */

/* Where a value came from, for the error's text: "--retain" or "FANWIRE_RETAIN". */
static int bad_value(struct fw_error *err, const char *origin, const char *value, const char *want)
{
    char shown[128];
    return error_set(err, -EINVAL, "%s: \"%s\" is not %s", origin,
                     text_escape(shown, sizeof(shown), value, strlen(value)), want);
}

static int check_bounds(const struct flag *flag, uint64_t n, const char *origin, const char *value,
                        struct fw_error *err)
{
    if (n >= flag->min && (flag->max == 0 || n <= flag->max))
        return 0;
    const char *unit = flag->kind == FLAG_DURATION ? " ms" : "";
    char want[96];
    (void)snprintf(want, sizeof(want), "between %ju%s and %ju%s", (uintmax_t)flag->min, unit,
                   (uintmax_t)(flag->max ? flag->max : UINT64_MAX), unit);
    return bad_value(err, origin, value, want);
}

static int parse_choice(const struct flag *flag, const char *value, unsigned *ret)
{
    unsigned index = 0;
    size_t len = strlen(value);
    for (const char *at = flag->arg; at; index++) {
        const char *end = strchrnul(at, '|');
        if ((size_t)(end - at) == len && memcmp(at, value, len) == 0) {
            *ret = index;
            return 0;
        }
        at = *end ? end + 1 : NULL;
    }
    return -EINVAL;
}

static int parse_bool(const char *value, bool *ret)
{
    static const char *const words[] = { "0", "1", "no", "yes", "off", "on", "false", "true" };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(value, words[i]) == 0) {
            *ret = i % 2;
            return 0;
        }
    }
    return -EINVAL;
}

static int set_number(const struct flag *flag, void *field, const char *origin, const char *value,
                      struct fw_error *err)
{
    uint64_t n;
    if (flag->kind == FLAG_SIZE && parse_size(value, &n) < 0)
        return bad_value(err, origin, value, "a size such as 64M or 128K");
    if (flag->kind == FLAG_DURATION && parse_duration_ms(value, &n) < 0)
        return bad_value(err, origin, value, "a duration with its unit, such as 30s or 250ms");
    if (flag->kind == FLAG_UINT && parse_uint(value, UINT32_MAX, &n) < 0)
        return bad_value(err, origin, value, "a number");
    int r = check_bounds(flag, n, origin, value, err);
    if (r < 0)
        return r;
    if (flag->kind == FLAG_SIZE)
        *(uint64_t *)field = n;
    else if (n > UINT32_MAX)
        return bad_value(err, origin, value, "small enough");
    else
        *(uint32_t *)field = (uint32_t)n;
    return 0;
}

static int set_value(const struct flag *flag, void *into, const char *origin, char *value,
                     struct fw_error *err)
{
    void *field = (char *)into + flag->at;
    switch (flag->kind) {
    case FLAG_BOOL:
        if (parse_bool(value, field) < 0)
            return bad_value(err, origin, value, "yes or no");
        return 0;
    case FLAG_TEXT:
        *(const char **)field = value;
        return 0;
    case FLAG_LIST:
    case FLAG_LINES:
        return strings_add(field, value) < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
    case FLAG_CHOICE:
        if (parse_choice(flag, value, field) < 0)
            return bad_value(err, origin, value, flag->arg);
        return 0;
    case FLAG_SIZE:
    case FLAG_DURATION:
    case FLAG_UINT:
        return set_number(flag, field, origin, value, err);
    case FLAG_LATER:
        break;
    }
    return error_set(err, -EINVAL, "%s is not in this version: %s", origin, flag->help);
}

/* ---- defaults and the environment ---- */

static bool is_list(const struct flag *flag)
{
    return flag->kind == FLAG_LIST || flag->kind == FLAG_LINES;
}

static int set_words(const struct flag *flag, void *into, const char *origin, char *value,
                     struct fw_error *err)
{
    char *save = NULL;
    const char *ends = flag->kind == FLAG_LINES ? "\r\n" : " \t\r\n";
    for (char *word = strtok_r(value, ends, &save); word; word = strtok_r(NULL, ends, &save)) {
        int r = set_value(flag, into, origin, word, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_from_environment(const struct flag *flag, void *into, struct fw_error *err)
{
    char name[64];
    char *value = getenv(flag_variable(flag, name, sizeof(name)));
    if (!value || !*value)
        return 0;
    return is_list(flag) ? set_words(flag, into, name, value, err)
                         : set_value(flag, into, name, value, err);
}

static int set_defaults(const struct flag *flags, void *into, struct fw_error *err)
{
    for (const struct flag *flag = flags; flag->name; flag++) {
        int r = 0;
        if (flag->fallback && !is_list(flag))
            r = set_value(flag, into, flag->name, (char *)flag->fallback, err);
        if (r == 0 && flag->env)
            r = set_from_environment(flag, into, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A list is its default only when nobody said anything. */
static int set_default_lists(const struct flag *flags, void *into, struct fw_error *err)
{
    for (const struct flag *flag = flags; flag->name; flag++) {
        if (!is_list(flag) || !flag->fallback)
            continue;
        const struct strings *list = (const struct strings *)((char *)into + flag->at);
        int r = list->count ? 0 : set_value(flag, into, flag->name, (char *)flag->fallback, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the arguments ---- */

struct parse {
    const struct flag *flags;
    void *into;
    int argc, at;
    char **argv;
    uint64_t listed; /* bit per flag: a list of the environment was already replaced */
    struct fw_error *err;
};

static const struct flag *find(const struct parse *p, const char *name, size_t len, char letter)
{
    for (const struct flag *flag = p->flags; flag->name; flag++) {
        if (letter ? flag->letter == letter
                   : strlen(flag->name) == len && memcmp(flag->name, name, len) == 0)
            return flag;
    }
    return NULL;
}

static int set_from_argument(struct parse *p, const struct flag *flag, const char *origin,
                             char *value)
{
    if (flag->kind == FLAG_BOOL && !value) {
        *(bool *)((char *)p->into + flag->at) = true;
        return 0;
    }
    if (!value && flag->kind != FLAG_LATER) {
        if (++p->at >= p->argc)
            return error_set(p->err, -EINVAL, "%s needs an argument: %s", origin, flag->arg);
        value = p->argv[p->at];
    }
    uint64_t bit = UINT64_C(1) << (flag - p->flags);
    if (is_list(flag) && !(p->listed & bit)) {
        p->listed |= bit;
        strings_done((struct strings *)((char *)p->into + flag->at));
    }
    return set_value(flag, p->into, origin, value, p->err);
}

static int parse_flag(struct parse *p, char *arg)
{
    bool is_long = arg[1] == '-';
    char *value = strchr(arg, '=');
    size_t len = value ? (size_t)(value - arg) : strlen(arg);
    const struct flag *flag = is_long    ? find(p, arg + 2, len - 2, 0)
                              : len == 2 ? find(p, NULL, 0, arg[1])
                                         : NULL;
    char origin[80];
    (void)snprintf(origin, sizeof(origin), "%.*s", (int)(len < 64 ? len : 64), arg);
    if (!flag) {
        char shown[80];
        return error_set(p->err, -EINVAL, "unknown option %s; --help lists what there is",
                         text_escape(shown, sizeof(shown), origin, strlen(origin)));
    }
    return set_from_argument(p, flag, origin, value ? value + 1 : NULL);
}

static int parse_arguments(struct parse *p, struct strings *rest)
{
    bool flags_end = false;
    for (; p->at < p->argc; p->at++) {
        char *arg = p->argv[p->at];
        int r;
        if (flags_end || arg[0] != '-' || arg[1] == '\0')
            r = strings_add(rest, arg);
        else if (strcmp(arg, "--") == 0)
            r = (flags_end = true, 0);
        else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
            return 1;
        else
            r = parse_flag(p, arg);
        if (r < 0)
            return r;
    }
    return 0;
}

int flags_parse(const struct flag *flags, void *into, int argc, char **argv, struct strings *rest,
                struct fw_error *err)
{
    struct parse p = {
        .flags = flags, .into = into, .argc = argc, .at = 1, .argv = argv, .err = err
    };
    int r = set_defaults(flags, into, err);
    int given = parse_arguments(&p, rest);
    if (given == 1) /* help is given even when the environment is wrong */
        return 1;
    if (r == 0)
        r = given;
    return r < 0 ? r : set_default_lists(flags, into, err);
}

/* ---- help ---- */

void flags_help(const struct flag *flags, FILE *out)
{
    for (const struct flag *flag = flags; flag->name; flag++) {
        if (flag->kind == FLAG_LATER)
            continue;
        char left[64], letter[8] = "";
        if (flag->letter)
            (void)snprintf(letter, sizeof(letter), "-%c, ", flag->letter);
        (void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, flag->name, flag->arg ? " " : "",
                       flag->arg ? flag->arg : "");
        /* a long one gets a line of its own */
        (void)fprintf(out, strlen(left) > 28 ? "  %s\n%31s%s" : "  %-28s%1s%s", left, "",
                      flag->help);
        if (flag->fallback && strcmp(flag->fallback, "0") != 0)
            (void)fprintf(out, " (default %s)", flag->fallback);
        (void)fputc('\n', out);
    }
}
