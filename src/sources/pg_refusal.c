/* Why a connection was refused, in any language: what libpq says of it, and the SQLSTATE.
 *
 * With PQERRORS_VERBOSE a refusal reads "… FATAL:  28P01: text\nLOCATION:  …"; of several servers,
 * one after the other. Where in the server's source it comes from says nothing to anybody here. */
#include "pg_refusal.h"

#include "pg_url.h"

#include <stdbool.h>
#include <string.h>

#define LINES_MAX 4096 /* more is nothing that anybody reads */

struct lines {
    size_t len;
    char text[LINES_MAX + 1];
};

static void append(struct lines *lines, const char *text, size_t len)
{
    size_t room = LINES_MAX - lines->len, n = len < room ? len : room;
    memcpy(lines->text + lines->len, text, n);
    lines->len += n;
}

/* "  28P01: ", after the severity's colon. */
static bool is_state(const char *at)
{
    return strncmp(at, "  ", 2) == 0 &&
           strspn(at + 2, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 &&
           strncmp(at + 7, ": ", 2) == 0;
}

/* One line, without its SQLSTATE; the one that says where in the source not at all. */
static void read_line(const char *line, size_t len, char *state, struct lines *out)
{
    static const char location[] = "LOCATION:";
    if (len >= sizeof location - 1 && memcmp(line, location, sizeof location - 1) == 0)
        return;
    const char *end = line + len;
    for (const char *at = line; (at = memchr(at, ':', (size_t)(end - at))); at++) {
        if (end - at < 10 || !is_state(at + 1))
            continue;
        memcpy(state, at + 3, 5);
        state[5] = '\0';
        append(out, line, (size_t)(at + 3 - line));
        line = at + 10;
        break;
    }
    append(out, line, (size_t)(end - line));
    append(out, "\n", 1);
}

void pg_refusal_read(const char *text, char state[PG_SQLSTATE_SIZE], char *out, size_t size)
{
    struct lines lines = { 0 };
    state[0] = '\0';
    while (*text) {
        size_t len = strcspn(text, "\n");
        read_line(text, len, state, &lines);
        text += len + (text[len] == '\n');
    }
    lines.text[lines.len] = '\0';
    (void)pg_one_line(out, size, lines.text);
}
