/* Postgres URLs: any text is refused, with a message that does not give the password away, or read
 * into places within bounds. */
#include "fuzz.h"
#include "pg_url.h"

#include <stdlib.h>
#include <string.h>

/* Looked for where libpq sees one: between the first colon and the @ before any slash. Short ones
 * may occur in any message by chance, and one that is elsewhere in the URL, too, may be quoted. */
static void check_message(const char *url, const char *message)
{
    const char *login = strstr(url, "://");
    if (!login)
        return;
    login += 3;
    size_t len = strcspn(login, "@/"), user_len = strcspn(login, ":@/");
    if (login[len] != '@' || user_len == len || len - user_len - 1 < 8)
        return;
    char *password = strndup(login + user_len + 1, len - user_len - 1);
    require(password);
    require(!strstr(message, password) || strstr(login + len, password));
    free(password);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fw_error err = { 0 };
    struct pg_url url;
    char *text = strndup((const char *)data, size);
    require(text);
    if (pg_url_parse(text, &url, &err) == 0) {
        require(url.n_places > 0 && url.n_places <= PG_HOSTS_MAX);
        for (unsigned i = 0; i < url.n_places; i++)
            (void)pg_place_needs_address(&url.places[i]);
        require(strlen(url.ignored) < sizeof url.ignored);
        pg_url_done(&url);
    } else {
        require(err.code < 0 && err.message[0] && !strchr(err.message, '\n'));
        check_message(text, err.message);
    }
    free(text);
    return 0;
}
