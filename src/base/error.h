/* Fills the public error struct. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

struct fw_error;

/* Writes code and text if err is not NULL; returns code, so that callers can `return error_set(…)`.
 */
int error_set(struct fw_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
