/* The server's log output. */
#include "logline.h"

#include "clock.h"
#include "json.h"
#include "text.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES  8192
#define VALUE_MAX_BYTES 1024
#define WRITE_WAIT_MS   100

/* JOURNAL_STREAM is DEVICE:INODE of the stream; another program's redirection doesn't match. */
static bool is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    if (!stream || fstat(fd, &st) < 0)
        return false;
    char own[64];
    (void)snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(own, stream) == 0;
}

struct logger logger_make(enum fw_log_level level, bool json)
{
    const char *no_colour = getenv("NO_COLOR");
    return (struct logger){
        .fd = STDERR_FILENO,
        .level = level,
        .json = json,
        .journal = is_journal(STDERR_FILENO),
        .colour = !json && isatty(STDERR_FILENO) && !(no_colour && *no_colour),
    };
}

static const char *level_name(enum fw_log_level level)
{
    switch (level) {
    case FW_LOG_ERROR:
        return "error";
    case FW_LOG_WARNING:
        return "warning";
    case FW_LOG_INFO:
        return "info";
    case FW_LOG_DEBUG:
        return "debug";
    }
    return "info";
}

static void append_time(struct buf *b, int64_t realtime_ms)
{
    time_t seconds = (time_t)(realtime_ms / 1000);
    struct tm tm;
    char text[40];
    if (!gmtime_r(&seconds, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        return;
    (void)buf_printf(b, "%s.%03dZ", text, (int)(realtime_ms % 1000));
}

/* ---- values ---- */

static bool is_bare(const char *value)
{
    static const char bare[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "._:/@+-*~%,[]";
    size_t len = strlen(value);
    return len > 0 && strspn(value, bare) == len;
}

static void append_json(struct buf *b, const char *value)
{
    char escaped[VALUE_MAX_BYTES];
    size_t len = strlen(value);
    if (len >= VALUE_MAX_BYTES || !utf8_valid(value, len)) {
        value = text_escape(escaped, sizeof(escaped), value, len);
        len = strlen(value);
    }
    (void)json_append_string(b, value, len);
}

static void append_value(struct logline *line, const char *value)
{
    char escaped[VALUE_MAX_BYTES];
    if (line->logger->json)
        append_json(&line->text, value);
    else if (is_bare(value) && strlen(value) < VALUE_MAX_BYTES)
        (void)buf_append_str(&line->text, value);
    else
        (void)buf_printf(&line->text, "\"%s\"",
                         text_escape(escaped, sizeof(escaped), value, strlen(value)));
}

static void append_key(struct logline *line, const char *key)
{
    if (line->logger->json)
        (void)buf_printf(&line->text, "%s\"%s\":",
                         line->text.len && line->text.data[line->text.len - 1] != '{' ? "," : "",
                         key);
    else
        (void)buf_printf(&line->text, " %s=", key);
}

/* ---- lines ---- */

static bool is_on(const struct logline *line)
{
    return line->level <= line->logger->level;
}

static void begin_text(struct logline *line, int64_t realtime_ms)
{
    const struct logger *logger = line->logger;
    const char *colour = "";
    if (logger->colour && line->level <= FW_LOG_ERROR)
        colour = "\033[1;31m";
    else if (logger->colour && line->level == FW_LOG_WARNING)
        colour = "\033[33m";
    if (!logger->journal) {
        append_time(&line->text, realtime_ms);
        (void)buf_append_char(&line->text, ' ');
    }
    (void)buf_printf(&line->text, "%slevel=%s%s", colour, level_name(line->level),
                     *colour ? "\033[0m" : "");
}

static void begin_json(struct logline *line, int64_t realtime_ms)
{
    (void)buf_append_char(&line->text, '{');
    if (!line->logger->journal) {
        (void)buf_append_str(&line->text, "\"time\":\"");
        append_time(&line->text, realtime_ms);
        (void)buf_append_char(&line->text, '"');
    }
    logline_text(line, "level", level_name(line->level));
}

void logline_begin(struct logline *line, const struct logger *logger, enum fw_log_level level,
                   const char *object, const char *name, const char *event, int64_t realtime_ms)
{
    *line = (struct logline){ .logger = logger, .level = level, .text = buf_make(LINE_MAX_BYTES) };
    if (!is_on(line))
        return;
    if (logger->journal)
        (void)buf_printf(&line->text, "<%d>", (int)level);
    if (logger->json)
        begin_json(line, realtime_ms);
    else
        begin_text(line, realtime_ms);
    logline_text(line, object, name);
    logline_text(line, "event", event);
}

void logline_text(struct logline *line, const char *key, const char *value)
{
    if (!is_on(line))
        return;
    append_key(line, key);
    append_value(line, value);
}

void logline_int(struct logline *line, const char *key, int64_t value)
{
    if (!is_on(line))
        return;
    append_key(line, key);
    (void)buf_printf(&line->text, "%" PRId64, value);
}

/* Splits one key=value word off *text into key and value; false: what is left is no such word. */
static bool next_word(const char **text, char *key, size_t key_size, char *value, size_t value_size)
{
    const char *at = *text;
    size_t key_len = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
    if (key_len == 0 || key_len >= key_size || at[key_len] != '=')
        return false;
    memcpy(key, at, key_len);
    key[key_len] = '\0';
    at += key_len + 1;

    bool quoted = *at == '"';
    size_t n = 0;
    for (at += quoted; *at && *at != (quoted ? '"' : ' '); at++) {
        if (quoted && *at == '\\' && at[1])
            at++;
        if (n + 1 < value_size)
            value[n++] = *at;
    }
    value[n] = '\0';
    if (quoted && *at != '"')
        return false;
    at += quoted;
    if (*at && *at != ' ')
        return false;
    *text = at + strspn(at, " ");
    return true;
}

void logline_words(struct logline *line, const char *text)
{
    char key[32], value[VALUE_MAX_BYTES];
    while (*text && next_word(&text, key, sizeof(key), value, sizeof(value)))
        logline_text(line, key, value);
    if (*text)
        logline_text(line, "msg", text);
}

/* A log that nobody can read, or reads no more, is no reason to stop serving: into a full pipe a
 * write would wait. (O_NONBLOCK would be set for everybody who shares the descriptor.) */
static void write_if_possible(int fd, const void *data, size_t len)
{
    struct pollfd out = { .fd = fd, .events = POLLOUT };
    if (poll(&out, 1, 0) == 1 && out.revents & POLLOUT)
        (void)!write(fd, data, len);
}

void logline_end(struct logline *line)
{
    if (is_on(line)) {
        (void)buf_append_str(&line->text, line->logger->json ? "}\n" : "\n");
        if (!line->text.failed)
            write_if_possible(line->logger->fd, line->text.data, line->text.len);
    }
    buf_done(&line->text);
}

void log_message(const struct logger *logger, enum fw_log_level level, const char *object,
                 const char *name, const char *event, const char *format, ...)
{
    struct logline line;
    logline_begin(&line, logger, level, object, name, event, clock_realtime_ms());
    if (format) {
        char text[VALUE_MAX_BYTES];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        logline_text(&line, "msg", text);
    }
    logline_end(&line);
}
