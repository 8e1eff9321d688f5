/* --snapshot CHANNEL=SELECT … */
#include "snapshot_option.h"

#include "error.h"
#include "snapshot_query.h"
#include "text.h"

#include <errno.h>
#include <string.h>

int snapshot_option_parse(char *text, const struct engine_snapshot *others, size_t n,
                          struct engine_snapshot *ret, struct fw_error *err)
{
    char shown[128], *equals = strchr(text, '=');
    const char *sql = equals ? snapshot_sql_trim(equals + 1) : "";
    if (!equals || !snapshot_sql_is_query(sql)) {
        size_t len = equals ? (size_t)(equals - text) : strlen(text);
        return error_set(err, -EINVAL,
                         "--snapshot: write CHANNEL=SELECT …, for example --snapshot "
                         "'todos=SELECT id, title FROM todos'; what begins with \"%s\" is none",
                         text_escape(shown, sizeof(shown), text, len));
    }
    *equals = '\0';
    *ret = (struct engine_snapshot){ text, sql };
    return snapshot_channel_check("--snapshot", text, others, n, err);
}
