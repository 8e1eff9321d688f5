/* The subcommands of `fanwire`. Each gets its arguments (argv[0] is its own name) and returns the
 * exit code: 0 ok, 1 failed while running, 2 usage, 3 source or server unreachable or refuses,
 * 4 address not available, 5 tail --exit-on-gap saw one or doctor --require is not met. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "title.h"

int cli_serve(int argc, char **argv, const struct title *title);
int cli_tail(int argc, char **argv, const struct title *title);
int cli_pub(int argc, char **argv, const struct title *title);
int cli_doctor(int argc, char **argv, const struct title *title);
int cli_sql(int argc, char **argv);
int cli_health(int argc, char **argv);
int cli_version(int argc, char **argv);

#endif
