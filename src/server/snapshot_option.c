/* --snapshot CHANNEL=SELECT … */
#include "snapshot_option.h"

#include "error.h"
#include "pattern.h"
#include "text.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const char spaces[] = " \t\r\n";

static bool is_query(const char *sql)
{
    static const char *const words[] = { "SELECT", "WITH", "VALUES", "TABLE" };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i]);
        if (strncasecmp(sql, words[i], len) == 0 && !isalnum((unsigned char)sql[len]) &&
            sql[len] != '_')
            return true;
    }
    return false;
}

/* Without space around it, and a semicolon at its end. */
static const char *trim(char *sql)
{
    sql += strspn(sql, spaces);
    for (char *end = sql + strlen(sql); end > sql && (end[-1] == ';' || strchr(spaces, end[-1]));)
        *--end = '\0';
    return sql;
}

int snapshot_option_parse(char *text, const struct engine_snapshot *others, size_t n,
                          struct engine_snapshot *ret, struct fw_error *err)
{
    char shown[128], *equals = strchr(text, '=');
    const char *sql = equals ? trim(equals + 1) : "";
    size_t len = equals ? (size_t)(equals - text) : strlen(text);
    (void)text_escape(shown, sizeof(shown), text, len);
    if (!equals || !is_query(sql))
        return error_set(err, -EINVAL,
                         "--snapshot: write CHANNEL=SELECT …, for example --snapshot "
                         "'todos=SELECT id, title FROM todos'; what begins with \"%s\" is none",
                         shown);
    if (!channel_valid(text, len) || channel_reserved(text, len))
        return error_set(err, -EINVAL,
                         "--snapshot: \"%s\" is no channel: 1 to 255 bytes of UTF-8 without "
                         "control characters, not below $fanwire/",
                         shown);
    *equals = '\0';
    for (size_t i = 0; i < n; i++) {
        if (strcmp(others[i].channel, text) == 0)
            return error_set(err, -EINVAL, "--snapshot: channel \"%s\" has two", shown);
    }
    *ret = (struct engine_snapshot){ text, sql };
    return 0;
}
