/* Fills the public error struct. */
#include "error.h"

#include <fanwire.h>
#include <stdarg.h>
#include <stdio.h>

int error_set(struct fw_error *err, int code, const char *format, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, format);
    err->code = code;
    if (vsnprintf(err->message, sizeof(err->message), format, args) < 0)
        err->message[0] = '\0';
    va_end(args);
    return code;
}
