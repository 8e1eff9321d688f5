/* fanwire serve */
#include "cli.h"

#include "options.h"
#include "server.h"

#include <fanwire.h>

#include <stdio.h>

int cli_serve(int argc, char **argv, const struct title *title)
{
    struct server_options options;
    struct fw_error err = { 0 };
    int r = server_options_parse(&options, argc, argv, &err);
    if (r > 0) {
        server_options_help(stdout);
        return 0;
    }
    int code = r < 0 ? 2 : server_run(&options, title, &err);
    if (err.message[0])
        (void)fprintf(stderr, "fanwire serve: %s\n", err.message);
    if (r == 0)
        server_options_done(&options);
    return code;
}
