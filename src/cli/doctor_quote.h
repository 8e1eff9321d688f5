/* Text as words of a shell's command line, for commands that the doctor suggests. */
#ifndef CLI_DOCTOR_QUOTE_H
#define CLI_DOCTOR_QUOTE_H

#include "buf.h"

/* Appends text as one word: bare where that is safe, else in single quotes, in double quotes where
 * that reads better, and as $'…' (bash, zsh, ksh) when there are control characters in it. */
void quote_shell(struct buf *out, const char *text);

/* Appends the argument of psql's -d that means this database, whatever its name, as a word:
 * a name with "=" or "://" in it would be taken for connection parameters. */
void quote_database(struct buf *out, const char *name);

#endif
