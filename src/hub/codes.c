/* The vocabulary of error codes and gap reasons as tables. */
#include "codes.h"

#include <string.h>

static const struct {
    const char *text, *title;
    unsigned status, close;
} codes[N_CODES] = { [CODE_OK] = { "ok", "OK", 200, 1000 },
#define X(name, text, status, close, title) [CODE_##name] = { text, title, status, close },
                     ERROR_CODES(X)
#undef X
};

static const char *const reasons[N_REASONS] = { [REASON_NONE] = "",
#define X(name, text) [REASON_##name] = (text),
                                                GAP_REASONS(X)
#undef X
};

/* A code out of range is a mistake of ours: it shows as one. */
static enum error_code known(enum error_code code)
{
    return (unsigned)code < N_CODES ? code : CODE_INTERNAL;
}

const char *code_text(enum error_code code)
{
    return codes[known(code)].text;
}

const char *code_title(enum error_code code)
{
    return codes[known(code)].title;
}

unsigned code_status(enum error_code code)
{
    return codes[known(code)].status;
}

unsigned code_close(enum error_code code)
{
    return codes[known(code)].close;
}

enum error_code code_from_text(const char *text)
{
    if (!text)
        return CODE_OK;
    for (unsigned code = 0; code < N_CODES; code++)
        if (strcmp(text, codes[code].text) == 0)
            return (enum error_code)code;
    return CODE_INTERNAL;
}

const char *reason_text(enum gap_reason reason)
{
    return (unsigned)reason < N_REASONS ? reasons[reason] : "";
}

enum gap_reason reason_from_text(const char *text, uint32_t len)
{
    for (unsigned reason = REASON_NONE + 1; reason < N_REASONS; reason++)
        if (strlen(reasons[reason]) == len && memcmp(text, reasons[reason], len) == 0)
            return (enum gap_reason)reason;
    return REASON_CONNECTION_LOST;
}
