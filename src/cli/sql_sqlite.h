/* fanwire sql sqlite: the tables, and triggers that tell of row changes. */
#ifndef CLI_SQL_SQLITE_H
#define CLI_SQL_SQLITE_H

#include <stdio.h>

/* argv[0] is "sqlite". Returns the exit code. */
int sql_sqlite(int argc, char **argv);
int sql_sqlite_help(FILE *out); /* as fputs() */

#endif
