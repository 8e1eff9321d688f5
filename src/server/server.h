/* `fanwire serve`: the log, the listening sockets and the processes, by server_options. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "options.h"
#include "title.h"

/* Runs until it is told to stop. Returns the exit code; `err` holds the text when it could not
 * start. Blocks. Call single-threaded. */
int server_run(struct server_options *options, const struct title *title, struct fw_error *err);

#endif
