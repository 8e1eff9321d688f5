/* fanwire version */
#include "cli.h"

#include <fanwire.h>

#include <stdio.h>

int cli_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return printf("fanwire %s\n", fw_version()) < 0 || fflush(stdout) != 0;
}
