/* What `fanwire serve` was told. The table below is the one place: flags, environment, --help and
 * defaults come from it. */
#include "options.h"

#include "error.h"
#include "flags.h"
#include "log.h"
#include "pattern.h"
#include "snapshot_option.h"
#include "text.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The table's fields, as text or number; checked into struct server_options afterwards. */
struct raw {
    struct strings http, public_read, public_write, origins, hosts, snapshots;
    const char *admin, *base_path, *mode, *node, *retain_for;
    uint64_t retain, send_buffer;
    uint32_t workers, linger_ms, max_connections, head_timeout_ms, heartbeat_ms, drain_ms;
    unsigned log_level, log_format;
    bool dev, echo;
};

#define AT(field)   offsetof(struct raw, field)
#define LATER(text) .kind = FLAG_LATER, .env = true, .help = text

static const struct flag serve_flags[] = {
    { "http", 0, true, FLAG_LIST, AT(http), "ADDRESS", "127.0.0.1:4600",
      "listen here: HOST:PORT, :PORT, [v6]:PORT, unix:PATH; may be repeated" },
    { "admin", 0, true, FLAG_TEXT, AT(admin), "ADDRESS|off", "127.0.0.1:4601",
      "metrics and readiness" },
    { "base-path", 0, true, FLAG_TEXT, AT(base_path), "PATH", "/",
      "all URLs are below it, where a proxy does not strip it" },
    { "workers", 0, true, FLAG_UINT, AT(workers), "N", "0",
      "processes that hold clients (default: one per core)", 0, WORKERS_MAX },
    { "mode", 0, true, FLAG_TEXT, AT(mode), "MODE", NULL,
      "how PostgreSQL is read: auto, notify, wal, outbox (default: auto)" },
    { "node", 0, true, FLAG_TEXT, AT(node), "NAME", NULL,
      "name of this server in mode wal, which makes its replication slot durable" },
    { "retain-for", 0, true, FLAG_TEXT, AT(retain_for), "TIME", NULL,
      "what is read again at the start in mode wal (default: 10m)" },
    { "retain", 0, true, FLAG_SIZE, AT(retain), "SIZE", "64M",
      "memory for recent events: how long a client may be away", LOG_SIZE_MIN, LOG_SIZE_MAX },
    { "linger", 0, true, FLAG_DURATION, AT(linger_ms), "TIME", "60s",
      "listen to a channel this long after its last client", 1, 24 * 3600 * 1000 },
    { "public", 0, true, FLAG_LIST, AT(public_read), "PATTERN", NULL,
      "channels that everybody may read: \"news\", \"chat:*\", \"**\"; may be repeated" },
    { "public-write", 0, true, FLAG_LIST, AT(public_write), "PATTERN", NULL,
      "channels that everybody may publish to; may be repeated" },
    { "snapshot", 0, true, FLAG_LINES, AT(snapshots), "CHANNEL=SELECT", NULL,
      "rows for clients that ask for them, before the channel's events; may be repeated" },
    { "origin", 0, true, FLAG_LIST, AT(origins), "ORIGIN", NULL,
      "web pages that may connect: https://app.example.com, or *; may be repeated" },
    { "host", 0, true, FLAG_LIST, AT(hosts), "NAME", NULL,
      "names by which clients may address this server: app.example.com (default: any)" },
    { "max-connections", 0, true, FLAG_UINT, AT(max_connections), "N", "0",
      "clients per worker (default: what the descriptor limit allows)" },
    { "send-buffer", 0, true, FLAG_SIZE, AT(send_buffer), "SIZE", "128K",
      "kernel memory per client that does not read", 4096, 64 << 20 },
    { "head-timeout", 0, true, FLAG_DURATION, AT(head_timeout_ms), "TIME", "10s",
      "a request must be complete within", 100, 3600 * 1000 },
    { "heartbeat", 0, true, FLAG_DURATION, AT(heartbeat_ms), "TIME", "25s",
      "sign of life to idle clients", 5000, 60000 },
    { "drain", 0, true, FLAG_DURATION, AT(drain_ms), "TIME", "30s",
      "close clients over this time when told to stop", 0, 3600 * 1000 },
    { "log-level", 0, true, FLAG_CHOICE, AT(log_level), "error|warning|info|debug", "info",
      "write messages up to this one" },
    { "log-format", 0, true, FLAG_CHOICE, AT(log_format), "text|json", "text",
      "how they look; to standard error" },
    { "dev", 0, true, FLAG_BOOL, AT(dev), NULL, NULL,
      "try it: a page at /, everything readable and writable, this machine only" },
    { "echo", 0, true, FLAG_BOOL, AT(echo), NULL, NULL,
      "a WebSocket at /echo that sends back, for conformance tests" },

    { "allow", LATER("there are no tokens yet; --public says what everybody may read") },
    { "allow-write", LATER("there are no tokens yet; --public-write says where to publish") },
    { "jwt-key", LATER("there are no tokens yet; --public says what everybody may read") },
    { "jwks", LATER("there are no tokens yet; --public says what everybody may read") },
    { "auth-url", LATER("there are no tokens yet; --public says what everybody may read") },
    { "api-key", LATER("there are no keys yet; --public-write says where to publish") },
    { "api-key-file", LATER("there are no keys yet; --public-write says where to publish") },
    { "admin-token", LATER("the admin address has metrics and health only, both open") },
    { "config", LATER("use flags or FANWIRE_… variables") },
    { "source-file", LATER("use FANWIRE_SOURCE, PGPASSFILE or ~/.pgpass") },
    { "print-config", LATER("--help shows the defaults") },
    { "trusted-proxy", LATER("addresses in the log are the proxy's") },
    { "tls-cert", LATER("put a TLS proxy in front") },
    { "tls-key", LATER("put a TLS proxy in front") },
    { "user", LATER("start it as the user it shall run as") },
    { NULL },
};
_Static_assert(sizeof(serve_flags) / sizeof(serve_flags[0]) <= 64, "flags.c keeps a bit for each");

/* ---- the source ---- */

/* A secret leaves the arguments and the environment: one copy is kept, which can be forgotten. */
static int take_secret(char *text, char **ret)
{
    *ret = strdup(text);
    explicit_bzero(text, strlen(text));
    return *ret ? 0 : -ENOMEM;
}

static bool is_postgres(const char *url)
{
    return strncasecmp(url, "postgres", 8) == 0 || strncasecmp(url, "postgis", 7) == 0;
}

/* What follows user and password, which may hold ? and # unescaped: libpq looks for the first @
 * before the first slash. */
static const char *after_credentials(const char *url)
{
    const char *authority = strstr(url, "://");
    if (!authority)
        return url;
    authority += 3;
    size_t user = strcspn(authority, "@/");
    return authority[user] == '@' ? authority + user + 1 : authority;
}

/* The value of the URL's parameter; NULL: it has none. */
static const char *parameter(const char *url, const char *name, size_t *ret_len)
{
    size_t name_len = strlen(name);
    const char *at = strchr(after_credentials(url), '?');
    while (at && *at != '#') {
        at++;
        size_t len = strcspn(at, "&#");
        if (len > name_len && at[name_len] == '=' && memcmp(at, name, name_len) == 0) {
            *ret_len = len - name_len - 1;
            return at + name_len + 1;
        }
        at = at[len] ? at + len : NULL;
    }
    return NULL;
}

/* --mode and the like travel as parameters of the URL, before a fragment. */
static int append_parameter(char **source, const char *name, const char *value,
                            struct fw_error *err)
{
    if (!value)
        return 0;
    if (!is_postgres(*source))
        return error_set(err, -EINVAL, "--%s is for postgres:// sources only; leave it out", name);
    if (strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(value) || !*value)
        return error_set(err, -EINVAL, "--%s: write a word of a-z, 0-9 and _", name);
    size_t len;
    const char *given = parameter(*source, name, &len);
    if (given && strlen(value) == len && memcmp(given, value, len) == 0)
        return 0;
    if (given)
        return error_set(err, -EINVAL, "--%s %s contradicts %s=%.*s in the URL: leave one out",
                         name, value, name, (int)(len < 32 ? len : 32), given);

    const char *rest = after_credentials(*source), *fragment = rest + strcspn(rest, "#");
    size_t before = (size_t)(fragment - *source);
    const char *joint = memchr(rest, '?', (size_t)(fragment - rest)) ? "&" : "?";
    size_t size = strlen(*source) + strlen(name) + strlen(value) + sizeof("?=");
    char *url = malloc(size); /* asprintf() would leave pieces in freed memory */
    if (!url)
        return error_set(err, -ENOMEM, "out of memory");
    (void)snprintf(url, size, "%.*s%s%s=%s%s", (int)before, *source, joint, name, value, fragment);
    explicit_bzero(*source, strlen(*source));
    free(*source);
    *source = url;
    return 0;
}

static void wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
}

/* `own`: the program's; may be NULL. */
static int take_source(struct server_options *o, const struct strings *rest, char *own,
                       const struct raw *raw, struct fw_error *err)
{
    if (rest->count > 1)
        return error_set(err, -EINVAL, "one SOURCE is enough; there are %zu", rest->count);
    char *variable = getenv("FANWIRE_SOURCE");
    char *given = rest->count ? rest->items[0] : own && *own ? own : variable;
    char *fallback = (char[]){ "memory:" };
    if (!given || !*given)
        given = raw->dev ? fallback : NULL;
    if (!given)
        return error_set(err, -EINVAL,
                         "SOURCE is missing. Give one of:\n"
                         "  postgres://USER@HOST/DATABASE   events of a PostgreSQL database\n"
                         "  sqlite:FILE                     rows of a SQLite database\n"
                         "  stdin:CHANNEL                   each line of standard input\n"
                         "  memory:                         only what is published here\n"
                         "or FANWIRE_SOURCE; \"fanwire serve --dev\" alone tries it with memory:");
    int r = take_secret(given, &o->source);
    wipe(variable); /* an empty one is none */
    wipe(own);
    if (r < 0)
        return error_set(err, r, "out of memory");
    r = append_parameter(&o->source, "mode", raw->mode, err);
    if (r == 0)
        r = append_parameter(&o->source, "node", raw->node, err);
    return r == 0 ? append_parameter(&o->source, "retain-for", raw->retain_for, err) : r;
}

/* ---- addresses ---- */

static int take_addresses(struct server_options *o, const struct raw *raw, struct fw_error *err)
{
    if (raw->http.count > WORKER_LISTENERS_MAX)
        return error_set(err, -EINVAL, "--http: at most %d addresses", WORKER_LISTENERS_MAX);
    for (size_t i = 0; i < raw->http.count; i++) {
        int r = address_parse(raw->http.items[i], &o->http[o->n_http++], err);
        if (r < 0)
            return r;
        if (raw->dev && !address_loopback(&o->http[i]))
            return error_set(err, -EINVAL,
                             "--dev lets everybody read and write everything, so it listens on "
                             "this machine only: not on %s; use 127.0.0.1:PORT, or leave --dev out",
                             raw->http.items[i]);
    }
    o->admin_on = strcmp(raw->admin, "off") != 0;
    return o->admin_on ? address_parse(raw->admin, &o->admin, err) : 0;
}

/* ---- what the workers need ---- */

static int check_patterns(const struct strings *patterns, const char *flag, struct fw_error *err)
{
    for (size_t i = 0; i < patterns->count; i++) {
        const char *pattern = patterns->items[i];
        char shown[128];
        (void)text_escape(shown, sizeof(shown), pattern, strlen(pattern));
        if (!pattern_valid(pattern, strlen(pattern)))
            return error_set(err, -EINVAL,
                             "%s: \"%s\" is no pattern: 1 to 255 bytes of UTF-8 without control "
                             "characters; * is one or more characters without . : /, ** anything",
                             flag, shown);
        if (strstr(pattern, "{sub}"))
            return error_set(err, -EINVAL,
                             "%s: \"%s\" names a token's subject, and there are no "
                             "tokens in this version",
                             flag, shown);
    }
    return 0;
}

/* Compared byte for byte with what browsers send: scheme://host[:port], lower case. */
static int check_origins(const struct strings *origins, struct fw_error *err)
{
    for (size_t i = 0; i < origins->count; i++) {
        const char *origin = origins->items[i];
        const char *host = strstr(origin, "://");
        if (strcmp(origin, "*") == 0)
            continue;
        if (!host || host == origin || !host[3] || strpbrk(host + 3, "/?#@ ") ||
            strpbrk(origin, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
            return error_set(err, -EINVAL,
                             "--origin: \"%.100s\" is not what a browser sends; write "
                             "https://app.example.com (lower case, no path, no slash at the end)",
                             origin);
    }
    return 0;
}

/* As Host has it, but for the port: a name, an IPv4 address, or an IPv6 address in brackets. */
static int check_hosts(const struct strings *hosts, struct fw_error *err)
{
    for (size_t i = 0; i < hosts->count; i++) {
        const char *host = hosts->items[i];
        size_t len = strlen(host);
        bool v6 = len > 2 && host[0] == '[' && host[len - 1] == ']';
        if (len == 0 || strpbrk(host, "/?#@,* ") || (!v6 && strpbrk(host, ":[]")))
            return error_set(err, -EINVAL,
                             "--host: \"%.100s\" is no name; write app.example.com, 192.0.2.1 or "
                             "[2001:db8::1] (no scheme, no port)",
                             host);
    }
    return 0;
}

/* With --dev everything is open to this machine; a foreign name that leads to it must not open it
 * to a foreign page. */
static int add_loopback_names(struct strings *hosts, struct fw_error *err)
{
    for (size_t i = 0; i < N_LOOPBACK_NAMES; i++) {
        if (strings_add(hosts, (char *)loopback_names[i]) < 0)
            return error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

static int check_base_path(const char *path, struct fw_error *err)
{
    size_t len = strlen(path);
    if (path[0] == '/' && len < 200 && !strpbrk(path, "?#% \"<>\\") && !strstr(path, "//") &&
        !strstr(path, "/.") && (len == 1 || path[len - 1] != '/') && utf8_valid(path, len))
        return 0;
    return error_set(err, -EINVAL,
                     "--base-path: \"%.100s\" is not like /live (a slash in front, "
                     "none at the end)",
                     path);
}

/* ---- snapshots ---- */

static int take_snapshots(struct server_options *o, const struct strings *list,
                          struct fw_error *err)
{
    o->snapshots = list->count ? calloc(list->count, sizeof(*o->snapshots)) : NULL;
    if (list->count && !o->snapshots)
        return error_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < list->count; i++) {
        struct engine_snapshot *next = &o->snapshots[o->n_snapshots];
        int r = snapshot_option_parse(list->items[i], o->snapshots, o->n_snapshots, next, err);
        if (r < 0)
            return r;
        o->n_snapshots++;
        if (strings_add(&o->settings.snapshots, (char *)next->channel) < 0)
            return error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

static int take_settings(struct server_options *o, struct raw *raw, struct fw_error *err)
{
    int r = check_patterns(&raw->public_read, "--public", err);
    if (r == 0)
        r = check_patterns(&raw->public_write, "--public-write", err);
    if (r == 0)
        r = check_origins(&raw->origins, err);
    if (r == 0)
        r = check_hosts(&raw->hosts, err);
    if (r == 0 && raw->dev)
        r = add_loopback_names(&raw->hosts, err);
    if (r == 0)
        r = check_base_path(raw->base_path, err);
    if (r < 0)
        return r;
    o->settings = (struct settings){
        .public_read = raw->public_read,
        .public_write = raw->public_write,
        .origins = raw->origins,
        .hosts = raw->hosts,
        .base_path = raw->base_path,
        .dev = raw->dev,
        .echo = raw->echo,
        .max_connections = raw->max_connections,
        .max_channels = 1000,
        .send_buffer = (uint32_t)raw->send_buffer,
        .head_timeout_ms = raw->head_timeout_ms,
        .heartbeat_s = raw->heartbeat_ms / 1000,
        .stall_ms = 30000,
        .behind_ms = 60000,
        .drain_ms = raw->dev ? 0 : raw->drain_ms,
        .retain_text = "--retain",
    };
    raw->public_read = raw->public_write = (struct strings){ 0 };
    raw->origins = raw->hosts = (struct strings){ 0 };
    return 0;
}

/* ---- the whole ---- */

static uint32_t cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : (uint32_t)n;
}

static int take_all(struct server_options *o, const struct strings *rest, char *own,
                    struct raw *raw, struct fw_error *err)
{
    static const enum fw_log_level levels[] = { FW_LOG_ERROR, FW_LOG_WARNING, FW_LOG_INFO,
                                                FW_LOG_DEBUG };
    o->workers = raw->workers ? raw->workers : cores();
    o->retain = raw->retain;
    o->linger_ms = raw->linger_ms;
    o->log_level = levels[raw->log_level];
    o->log_json = raw->log_format == 1;
    int r = take_source(o, rest, own, raw, err);
    if (r == 0)
        r = take_addresses(o, raw, err);
    if (r == 0)
        r = take_settings(o, raw, err);
    return r < 0 ? r : take_snapshots(o, &raw->snapshots, err);
}

int server_options_parse(struct server_options *options, int argc, char **argv,
                         struct fw_error *err)
{
    return server_options_parse_for(options, NULL, argc, argv, err);
}

int server_options_parse_for(struct server_options *options, char *source, int argc, char **argv,
                             struct fw_error *err)
{
    *options = (struct server_options){ 0 };
    struct raw raw = { 0 };
    struct strings rest = { 0 };
    int r = flags_parse(serve_flags, &raw, argc, argv, &rest, err);
    if (r == 0)
        r = take_all(options, &rest, source, &raw, err);
    strings_done(&rest);
    strings_done(&raw.http);
    strings_done(&raw.public_read);
    strings_done(&raw.public_write);
    strings_done(&raw.origins);
    strings_done(&raw.hosts);
    strings_done(&raw.snapshots);
    if (r != 0)
        server_options_done(options);
    return r;
}

const struct flag *server_options_flag(const char *name)
{
    for (const struct flag *flag = serve_flags; flag->name; flag++) {
        if (strcmp(flag->name, name) == 0)
            return flag;
    }
    return NULL;
}

void server_options_help(FILE *out)
{
    (void)
        fputs("fanwire serve [OPTION…] [SOURCE]\n\n"
              "Holds one connection to SOURCE and sends its events to every client.\n\n"
              "SOURCE:\n"
              "  postgres://USER@HOST/DATABASE   events of a PostgreSQL database\n"
              "  sqlite:FILE                     rows of a SQLite database\n"
              "  stdin:CHANNEL                   each line of standard input\n"
              "  memory:                         only what is published here\n\n"
              "Options; each also as a variable, --log-level as FANWIRE_LOG_LEVEL, and SOURCE as\n"
              "FANWIRE_SOURCE (a flag wins; lists are separated by spaces there):\n",
              out);
    flags_help(serve_flags, out);
    (void)fputs("\nSIGTERM or SIGINT: stop accepting, close clients over --drain, end; a second "
                "one ends at once.\n"
                "Exit: 0 ok, 1 failed while running, 2 usage, 4 address not available.\n",
                out);
}

static void forget_variable(const char *name)
{
    char *value = getenv(name);
    if (!value)
        return;
    explicit_bzero(value, strlen(value));
    (void)unsetenv(name);
}

void server_options_forget_url(struct server_options *options)
{
    wipe(options->source);
    free(options->source);
    options->source = NULL;
}

void server_options_forget_source(struct server_options *options)
{
    server_options_forget_url(options);
    forget_variable("PGPASSWORD");
}

void server_options_done(struct server_options *options)
{
    server_options_forget_url(options);
    strings_done(&options->settings.public_read);
    strings_done(&options->settings.public_write);
    strings_done(&options->settings.origins);
    strings_done(&options->settings.hosts);
    strings_done(&options->settings.snapshots);
    free(options->snapshots);
    *options = (struct server_options){ 0 };
}

char *url_redact(char *out, size_t size, const char *url)
{
    const char *authority = strstr(url, "://");
    if (!authority)
        return text_escape(out, size, url, strcspn(url, "?#"));
    authority += 3;
    /* A password may hold any of these unescaped, by mistake or not: what is shown begins after the
     * last @ there is, and ends before parameters, which may hold a password of their own. */
    const char *at = strrchr(authority, '@'), *host = at ? at + 1 : authority;
    size_t user = at ? strcspn(authority, ":@/?#") : 0;
    char shown[512];
    (void)snprintf(shown, sizeof(shown), "%.*s%.*s%s%.*s", (int)(authority - url), url, (int)user,
                   authority, at ? "@" : "", (int)strcspn(host, "?#"), host);
    return text_escape(out, size, shown, strlen(shown));
}
