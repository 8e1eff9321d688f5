/* Text from elsewhere on its way to a terminal. */
#include "terminal.h"

#include <stdbool.h>
#include <string.h>

void terminal_write(FILE *out, const void *text, size_t len)
{
    const unsigned char *at = text;
    for (size_t i = 0; i < len; i++) {
        bool c1 = at[i] == 0xC2 && i + 1 < len && at[i + 1] < 0xA0; /* U+0080 to U+009F */
        bool c0 = (at[i] < 0x20 && at[i] != '\t' && at[i] != '\n') || at[i] == 0x7F;
        if (c0 || c1)
            (void)fprintf(out, "\\x%02X", at[c1 ? ++i : i]);
        else
            (void)putc_unlocked(at[i], out);
    }
}

void terminal_complain(const char *command, const char *text)
{
    (void)fprintf(stderr, "fanwire %s: ", command);
    terminal_write(stderr, text, strlen(text));
    (void)fputc('\n', stderr);
}
