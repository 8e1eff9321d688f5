/* The server's log output: one event, one line, one write(2), to standard error.
 *   2026-11-22T08:15:02.113Z level=warning source=postgres event=lost code=source-down msg="…"
 * or the same keys as a JSON object per line. Under journald no time, and its <4> prefix. */
#ifndef SERVER_LOGLINE_H
#define SERVER_LOGLINE_H

#include "buf.h"

#include <fanwire/source.h>

#include <stdbool.h>
#include <stdint.h>

struct logger {
    int fd;
    enum fw_log_level level; /* lines above it are not written */
    bool json;
    bool journal; /* fd is journald's stream */
    bool colour;  /* fd is a terminal */
};

/* A logger on standard error; looks at JOURNAL_STREAM, NO_COLOR and isatty(). */
struct logger logger_make(enum fw_log_level level, bool json);

/* A line in the making. Values may be untrusted: they are escaped and cut. */
struct logline {
    const struct logger *logger;
    enum fw_log_level level;
    struct buf text; /* failed: nothing is written */
};

/* Begins a line about an object ("worker", "1") and what happened to it ("died"). */
void logline_begin(struct logline *line, const struct logger *logger, enum fw_log_level level,
                   const char *object, const char *name, const char *event, int64_t realtime_ms);
void logline_text(struct logline *line, const char *key, const char *value);
void logline_int(struct logline *line, const char *key, int64_t value);
/* A text that begins with key=value words (bare or "quoted"): these become fields of their own,
 * the rest is msg. Only for text whose beginning is the program's own. */
void logline_words(struct logline *line, const char *text);
void logline_end(struct logline *line); /* writes and releases it */

/* The common case: a line with a message (printf; NULL for none), at the present time. */
void log_message(const struct logger *logger, enum fw_log_level level, const char *object,
                 const char *name, const char *event, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

#endif
