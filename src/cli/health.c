/* fanwire health */
#include "cli.h"

#include "flags.h"
#include "terminal.h"
#include "web.h"

#include <stddef.h>
#include <stdio.h>

struct health {
    const char *server;
};

static const struct flag health_flags[] = {
    { "server", 's', true, FLAG_TEXT, offsetof(struct health, server), "WHERE", WEB_DEFAULT,
      "http://HOST:PORT or unix:PATH; also FANWIRE_SERVER" },
    { NULL },
};

static int check(const char *where)
{
    struct fw_error err = { 0 };
    struct buf body = buf_make(1 << 20);
    struct web *web;
    int status = web_open(where, &web, &err);
    if (status == 0) {
        status = web_request(web, "/healthz", NULL, NULL, 0, &body, &err);
        web_close(web);
    }
    char problem[256];
    if (status != 200)
        terminal_complain("health", status < 0
                                        ? err.message
                                        : web_problem(problem, sizeof(problem), status, &body));
    buf_done(&body);
    return status == 200 ? 0 : 1;
}

int cli_health(int argc, char **argv)
{
    struct health health = { 0 };
    struct strings rest = { 0 };
    struct fw_error err = { 0 };
    int r = flags_parse(health_flags, &health, argc, argv, &rest, &err);
    const char *where = rest.count ? rest.items[0] : health.server;
    size_t n = rest.count;
    strings_done(&rest);
    if (r > 0) {
        (void)fputs("fanwire health [URL]\n\nExit code 0 if the server answers, else 1.\n\n",
                    stdout);
        flags_help(health_flags, stdout);
        return 0;
    }
    if (r < 0 || n > 1 || !web_is_server(where)) {
        terminal_complain("health", r < 0 ? err.message : "give one http://HOST:PORT or unix:PATH");
        return 2;
    }
    return check(where);
}
