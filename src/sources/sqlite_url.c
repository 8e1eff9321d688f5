/* sqlite:FILE?PARAMETERS, taken apart. */
#include "sqlite_url.h"

#include "error.h"
#include "text.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_DEFAULT    100000
#define KEEP_MS_DEFAULT (24 * 3600 * 1000)

static int set_switch(const char *name, const char *value, bool *ret, struct fw_error *err)
{
    *ret = strcmp(value, "on") == 0;
    if (*ret || strcmp(value, "off") == 0)
        return 0;
    return error_set(err, -EINVAL, "sqlite: %s is on or off, not \"%.40s\"", name, value);
}

static int set_number(const char *name, const char *value, uint64_t *ret, struct fw_error *err)
{
    bool count = strcmp(name, "keep") == 0;
    if (strcmp(value, "all") == 0) {
        *ret = UINT64_MAX;
        return 0;
    }
    int r = count ? parse_uint(value, INT64_MAX, ret) : parse_duration_ms(value, ret);
    if (r == 0 && *ret <= INT64_MAX)
        return 0;
    return error_set(err, -EINVAL, "sqlite: %s=%.40s: write %s, or all", name, value,
                     count ? "a number of events" : "a duration like 30m, 24h or 7d");
}

static int set_parameter(struct sqlite_url *url, const char *name, const char *value,
                         struct fw_error *err)
{
    if (strcmp(name, "keep") == 0)
        return set_number(name, value, &url->keep, err);
    if (strcmp(name, "keep-for") == 0)
        return set_number(name, value, &url->keep_ms, err);
    if (strcmp(name, "create") == 0)
        return set_switch(name, value, &url->create, err);
    if (strcmp(name, "readonly") == 0)
        return set_switch(name, value, &url->readonly, err);
    return error_set(err, -EINVAL,
                     "sqlite: unknown parameter \"%.40s\"; known: keep, keep-for, create, readonly "
                     "(a \"?\" in the file's name is written %%3F)",
                     name);
}

static int parse_parameters(struct sqlite_url *url, char *text, struct fw_error *err)
{
    char *rest;
    for (char *word = strtok_r(text, "&", &rest); word; word = strtok_r(NULL, "&", &rest)) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = '\0';
        int r = set_parameter(url, word, value ? value : "", err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_path(const char *path, int64_t len, struct fw_error *err)
{
    if (len < 0 || memchr(path, '\0', (size_t)len))
        return error_set(err, -EINVAL, "sqlite: bad percent-encoding in the file's name");
    if (len == 0)
        return error_set(err, -EINVAL, "sqlite: which file? Write sqlite:app.db");
    if (strcmp(path, ":memory:") == 0)
        return error_set(
            err, -EINVAL,
            "sqlite: a database in memory is this process's alone; give a file, or use "
            "memory: as the source");
    if (path[len - 1] == '/' || len >= PATH_MAX - 16)
        return error_set(err, -EINVAL, "sqlite: \"%.100s\" is not a file's name", path);
    return 0;
}

/* sqlite:app.db, sqlite:/srv/app.db, and sqlite:///srv/app.db as in file: URLs. */
static int parse(struct sqlite_url *url, char *text, struct fw_error *err)
{
    char *parameters = strchr(text, '?');
    if (parameters)
        *parameters++ = '\0';
    if (strncmp(text, "//", 2) == 0) {
        if (text[2] != '/')
            return error_set(
                err, -EINVAL,
                "sqlite: write sqlite:app.db for a file here, sqlite:///srv/app.db for "
                "an absolute path; what stands after // would be a host");
        text += 2;
    }
    int64_t len = percent_decode(text, text, strlen(text), false);
    if (len >= 0)
        text[len] = '\0';
    int r = check_path(text, len, err);
    if (r == 0 && parameters)
        r = parse_parameters(url, parameters, err);
    if (r < 0)
        return r;
    url->path = strdup(text);
    return url->path ? 0 : error_set(err, -ENOMEM, "out of memory for the source");
}

int sqlite_url_parse(const char *url, struct sqlite_url *ret, struct fw_error *err)
{
    *ret = (struct sqlite_url){ .keep = KEEP_DEFAULT, .keep_ms = KEEP_MS_DEFAULT, .create = true };
    char *text = strdup(strchr(url, ':') + 1);
    if (!text)
        return error_set(err, -ENOMEM, "out of memory for the source");
    int r = parse(ret, text, err);
    free(text);
    return r;
}

void sqlite_url_done(struct sqlite_url *url)
{
    free(url->path);
    url->path = NULL;
}
