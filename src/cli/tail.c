/* fanwire tail: arguments and output. */
#include "tail.h"

#include "cli.h"
#include "flags.h"
#include "pattern.h"
#include "position.h"
#include "terminal.h"
#include "web.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define AT(field) offsetof(struct tail, field)

static const struct flag tail_flags[] = {
    { "server", 's', true, FLAG_TEXT, AT(where), "WHERE", WEB_DEFAULT,
      "a server (http://HOST:PORT, unix:PATH) or a source's URL; also FANWIRE_SERVER" },
    { "since", 0, false, FLAG_TEXT, AT(since), "POSITION", NULL,
      "go on after this position; \"oldest\": all that is held" },
    { "last", 0, false, FLAG_UINT, AT(last), "N", "0", "first the newest N events of each channel",
      0, 1000 },
    { "count", 'n', false, FLAG_UINT, AT(count), "N", "0", "end after N events" },
    { "json", 0, false, FLAG_BOOL, AT(json), NULL, NULL,
      "print envelopes, one per line: messages, ready, gap, down, up" },
    { "exit-on-gap", 0, false, FLAG_BOOL, AT(exit_on_gap), NULL, NULL,
      "end with code 5 when events may be missing" },
    { NULL },
};

/* ---- output ---- */

static void write_out(const struct tail *tail, const void *data, size_t len)
{
    if (tail->out_is_terminal) /* payloads are other people's bytes */
        terminal_write(stdout, data, len);
    else
        (void)fwrite(data, 1, len, stdout);
}

void tail_message(struct tail *tail, const char *channel, size_t channel_len, const void *data,
                  size_t len)
{
    if (tail->channels.count > 1) {
        write_out(tail, channel, channel_len);
        (void)putchar_unlocked('\t');
    }
    write_out(tail, data, len);
    (void)putchar_unlocked('\n');
    tail_counted(tail);
}

void tail_envelope(struct tail *tail, const char *json, size_t len)
{
    write_out(tail, json, len);
    (void)putchar_unlocked('\n');
}

void tail_counted(struct tail *tail)
{
    tail->n_printed++;
    if (tail->count > 0 && tail->n_printed >= tail->count)
        tail->done = true;
}

static void say(const struct tail *tail, const char *colour, const char *format, va_list args)
{
    char text[1024];
    (void)vsnprintf(text, sizeof(text), format, args);
    if (tail->err_is_terminal)
        (void)fputs(colour, stderr);
    terminal_complain("tail", text);
    if (tail->err_is_terminal)
        (void)fputs("\033[0m", stderr);
}

void tail_note(struct tail *tail, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(tail, "\033[33m", format, args);
    va_end(args);
}

void tail_gap(struct tail *tail, const char *channel, const char *after, const char *reason)
{
    tail_note(tail, "gap: events%s%s after %s may be missing (%s)", *channel ? " of " : "", channel,
              after && *after ? after : "an unknown position", reason);
    if (tail->exit_on_gap) {
        tail->done = true;
        tail->code = 5;
    }
}

void tail_flush(struct tail *tail)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return;
    if (errno != EPIPE) /* the reader having gone is a normal end */
        tail_fail(tail, 1, "cannot write: %s", strerror(errno));
    tail->done = true;
}

bool tail_is_wanted(struct tail *tail)
{
    struct pollfd out = { .fd = STDOUT_FILENO };
    if (poll(&out, 1, 0) > 0 && (out.revents & (POLLERR | POLLHUP)))
        tail->done = true;
    return !tail->done;
}

void tail_fail(struct tail *tail, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(tail, "\033[31m", format, args);
    va_end(args);
    tail->done = true;
    tail->code = code;
}

/* ---- arguments ---- */

static void check(struct tail *tail)
{
    if (tail->channels.count == 0)
        tail_fail(tail, 2, "CHANNEL is missing; --help tells more");
    for (size_t i = 0; i < tail->channels.count && !tail->done; i++) {
        const char *channel = tail->channels.items[i];
        if (!channel_valid(channel, strlen(channel)))
            tail_fail(tail, 2,
                      "a channel's name is 1 to 255 bytes of UTF-8 without control "
                      "characters");
    }
    struct since since;
    if (!tail->done && tail->since && since_parse(tail->since, strlen(tail->since), &since) < 0)
        tail_fail(tail, 2, "--since: give a position (the \"id\" of an event), now or oldest");
    if (!tail->done && tail->since && tail->last)
        tail_fail(tail, 2, "--since and --last exclude each other");
}

int cli_tail(int argc, char **argv, const struct title *title)
{
    struct tail tail = { .out_is_terminal = isatty(STDOUT_FILENO),
                         .err_is_terminal = isatty(STDERR_FILENO) };
    struct fw_error err = { 0 };
    title_set(title, "fanwire: tail"); /* WHERE may hold a password */
    int r = flags_parse(tail_flags, &tail, argc, argv, &tail.channels, &err);
    if (r > 0) {
        (void)fputs("fanwire tail [OPTION…] CHANNEL…\n\n"
                    "Prints the payloads of events as they come, one per line; with several "
                    "channels\nthe channel and a tab in front. Reconnects and resumes by itself; "
                    "what may be\nmissing is told on standard error.\n\n",
                    stdout);
        flags_help(tail_flags, stdout);
    } else if (r < 0) {
        tail_fail(&tail, 2, "%s", err.message);
    } else {
        check(&tail);
        if (!tail.done)
            tail.code = web_is_server(tail.where) ? tail_server(&tail) : tail_source(&tail);
    }
    strings_done(&tail.channels);
    return tail.code;
}
