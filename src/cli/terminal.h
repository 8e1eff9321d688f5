/* Text from elsewhere on its way to a terminal, which must not obey it. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stddef.h>
#include <stdio.h>

/* Writes text with control characters as \xNN: C0 but tab and line feed, DEL, and C1. */
void terminal_write(FILE *out, const void *text, size_t len);
/* "fanwire tail: " and a line that may quote a server, to standard error. */
void terminal_complain(const char *command, const char *text);

#endif
