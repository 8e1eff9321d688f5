/* Text as words of a shell's command line. */
#include "doctor_quote.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

static bool has_control(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7F)
            return true;
    return false;
}

static bool is_plain(const char *text)
{
    if (*text == '\0' || *text == '~' || *text == '=')
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("_-./:=@%+,", *text))
            return false;
    return true;
}

/* $'…' */
static void put_escaped(struct buf *out, const char *text)
{
    (void)buf_append_str(out, "$'");
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7F)
            (void)buf_printf(out, "\\%03o", (unsigned char)*text);
        else if (*text == '\'' || *text == '\\')
            (void)buf_printf(out, "\\%c", *text);
        else
            (void)buf_append_char(out, *text);
    }
    (void)buf_append_char(out, '\'');
}

static void put_single(struct buf *out, const char *text)
{
    (void)buf_append_char(out, '\'');
    for (; *text; text++) {
        if (*text == '\'')
            (void)buf_append_str(out, "'\\''");
        else
            (void)buf_append_char(out, *text);
    }
    (void)buf_append_char(out, '\'');
}

void quote_shell(struct buf *out, const char *text)
{
    if (is_plain(text))
        (void)buf_append_str(out, text);
    else if (has_control(text))
        put_escaped(out, text);
    else if (strchr(text, '\'') && !strpbrk(text, "\"$`\\!"))
        (void)buf_printf(out, "\"%s\"", text);
    else
        put_single(out, text);
}

void quote_database(struct buf *out, const char *name)
{
    if (!strchr(name, '=') && !strstr(name, "://")) {
        quote_shell(out, name);
        return;
    }
    struct buf parameter = buf_make(1024);
    (void)buf_append_str(&parameter, "dbname='");
    for (; *name; name++) {
        if (*name == '\'' || *name == '\\')
            (void)buf_append_char(&parameter, '\\');
        (void)buf_append_char(&parameter, *name);
    }
    if (buf_append(&parameter, "'", 2) == 0)
        quote_shell(out, (const char *)parameter.data);
    buf_done(&parameter);
}
