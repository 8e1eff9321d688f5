/* sqlite:FILE?PARAMETERS, taken apart. */
#ifndef SOURCES_SQLITE_URL_H
#define SOURCES_SQLITE_URL_H

#include <fanwire.h>
#include <stdbool.h>
#include <stdint.h>

struct sqlite_url {
    char *path;       /* owned */
    uint64_t keep;    /* events the table keeps, UINT64_MAX: all */
    uint64_t keep_ms; /* … and for how long, UINT64_MAX: for ever */
    bool create;      /* make the file and the table where they are missing */
    bool readonly;
};

/* Returns 0, -EINVAL or -ENOMEM with text; after a failure there is nothing to release. */
int sqlite_url_parse(const char *url, struct sqlite_url *ret, struct fw_error *err);
void sqlite_url_done(struct sqlite_url *url);

#endif
