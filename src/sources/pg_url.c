/* A Postgres URL: our own parameters taken out, those of other programs dropped, the rest libpq's.
 *
 * libpq refuses any parameter it does not know, so a URL written for an ORM or with our own
 * parameters is rewritten first; everything kept is kept byte for byte, percent-encoding included.
 * libpq's messages quote what they complain about: a password among it is replaced. */
#include "pg_url.h"

#include "buf.h"
#include "error.h"
#include "text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define URL_MAX                    8192
#define KEEP_MAX_MS                (3650ull * 24 * 3600 * 1000)
#define CONNECT_TIMEOUT_DEFAULT_MS 10000
#define RETAIN_FOR_DEFAULT_MS      (10 * 60 * 1000)
#define RETAIN_FOR_MAX_MS          (7u * 24 * 3600 * 1000)
#define PASSWORD_HINT              "in a password write / as %%2F, @ as %%40, # as %%23, ? as %%3F, : as %%3A"

/* Parameters of ORMs, drivers and poolers that libpq would refuse. */
static const char *const orm_parameters[] = {
    /* Prisma, Neon, Supabase */
    "schema",
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "statement_cache_size",
    "sslaccept",
    "sslidentity",
    "socket_timeout",
    "single_use_connections",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
    "supa",
    "workaround",
    "pool_mode",
    /* SQLAlchemy, asyncpg, psycopg pools */
    "pool_size",
    "max_overflow",
    "pool_recycle",
    "pool_pre_ping",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "command_timeout",
    "min_size",
    "max_size",
    "max_cached_statement_lifetime",
    "prepare_threshold",
    /* Rails, Ecto */
    "pool",
    "prepared_statements",
    "reconnect",
    "encoding",
    "adapter",
    "timeout",
    "checkout_timeout",
    "advisory_locks",
    "min_messages",
    "statement_limit",
    "idle_timeout",
    "ssl_mode",
    "queue_target",
    "queue_interval",
    /* Django */
    "conn_max_age",
    "conn_health_checks",
    "disable_server_side_cursors",
    /* Go: pgx, lib/pq */
    "pool_max_conns",
    "pool_min_conns",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_max_conn_idle_time",
    "pool_health_check_period",
    "statement_cache_capacity",
    "statement_cache_mode",
    "description_cache_capacity",
    "default_query_exec_mode",
    "binary_parameters",
    "search_path",
    "statement_timeout",
    "lock_timeout",
    /* Node, JDBC, Rust */
    "uselibpqcompat",
    "query_timeout",
    "max",
    "connectionTimeoutMillis",
    "idleTimeoutMillis",
    "currentSchema",
    "prepareThreshold",
    "preparedStatementCacheQueries",
    "reWriteBatchedInserts",
    "ApplicationName",
    "socketTimeout",
    "loginTimeout",
    "tcpKeepAlive",
    "stringtype",
    "statement-cache-capacity",
};

struct span {
    const char *text;
    size_t len;
};

static bool span_is(struct span span, const char *word)
{
    return span.len == strlen(word) && !memcmp(span.text, word, span.len);
}

static bool is_orm_parameter(struct span name)
{
    for (size_t i = 0; i < sizeof orm_parameters / sizeof *orm_parameters; i++)
        if (span_is(name, orm_parameters[i]))
            return true;
    return false;
}

char *pg_one_line(char *out, size_t size, const char *text)
{
    size_t n = 0;
    while (*text && n + 3 < size) {
        size_t blanks = strspn(text, " \t\r\n");
        bool new_line = memchr(text, '\n', blanks);
        if (blanks == 0) {
            out[n++] = *text++;
            continue;
        }
        text += blanks;
        if (n > 0 && *text && new_line)
            out[n++] = ';';
        if (n > 0 && *text)
            out[n++] = ' ';
    }
    out[n] = '\0';
    return out;
}

/* Replaces every occurrence of `secret` in `text`, in place (the replacement is never longer). */
static void scrub(char *text, struct span secret)
{
    if (secret.len == 0)
        return;
    size_t len = strlen(text);
    for (char *hit; (hit = memmem(text, len, secret.text, secret.len));) {
        memset(hit, '\1', secret.len); /* so that the next search does not find it again */
        text = hit + secret.len;
        len = strlen(text);
    }
}

static void show_scrubbed(char *text)
{
    char *out = text;
    for (char c, before = '\0'; (c = *text++); before = c)
        if (c != '\1')
            *out++ = c;
        else if (before != '\1')
            *out++ = '*';
    *out = '\0';
}

/* ---- the parts of the text ---- */

/* Views into the URL: scheme "://" [user [":" password] "@"] middle ["?" query] ["#" fragment] */
struct url_parts {
    struct span password, middle, query;
};

/* Returns what follows "://", NULL if the scheme is none of ours. */
static const char *after_scheme(const char *url)
{
    static const char *const schemes[] = { "postgres", "postgresql", "postgis" };
    const char *end = strstr(url, "://");
    if (!end)
        return NULL;
    struct span scheme = { url, (size_t)(end - url) };
    const char *plus = memchr(url, '+', scheme.len); /* postgresql+asyncpg */
    if (plus)
        scheme.len = (size_t)(plus - url);
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (scheme.len == strlen(schemes[i]) && !strncasecmp(scheme.text, schemes[i], scheme.len))
            return end + 3;
    return NULL;
}

/* Splits as libpq does: the credentials end at the first @ before any slash, whatever is in them.
 */
static struct url_parts split(const char *rest)
{
    struct url_parts parts = { 0 };
    const char *p = rest;
    size_t login_len = strcspn(rest, "@/");
    if (rest[login_len] == '@') {
        const char *colon = memchr(rest, ':', login_len);
        if (colon)
            parts.password = (struct span){ colon + 1, (size_t)(rest + login_len - colon - 1) };
        p = rest + login_len + 1;
    }
    const char *end = p + strcspn(p, "#");
    const char *question = memchr(p, '?', (size_t)(end - p));
    const char *middle_end = question ? question : end;
    parts.middle = (struct span){ rest, (size_t)(middle_end - rest) };
    if (question)
        parts.query = (struct span){ question + 1, (size_t)(end - question - 1) };
    return parts;
}

static bool escapes_valid(struct span span)
{
    for (size_t i = 0; i < span.len; i++)
        if (span.text[i] == '%' &&
            (span.len - i < 3 || !isxdigit((unsigned char)span.text[i + 1]) ||
             !isxdigit((unsigned char)span.text[i + 2]) || !memcmp(span.text + i, "%00", 3)))
            return false;
    return true;
}

/* ---- parameters ---- */

/* Which of them this build reads is not known here. */
static int take_mode(struct pg_url *url, struct span value, struct fw_error *err)
{
    static const char *const modes[] = { "notify", "wal", "outbox" };
    char shown[64];
    url->mode[0] = '\0';
    if (span_is(value, "auto"))
        return 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (span_is(value, modes[i])) {
            snprintf(url->mode, sizeof url->mode, "%s", modes[i]);
            return 0;
        }
    return error_set(err, -EINVAL,
                     "unknown mode \"%s\" in the Postgres URL; known: auto, notify, wal, outbox",
                     text_escape(shown, sizeof shown, value.text, value.len));
}

static int take_foreign(struct pg_url *url, struct span value, struct fw_error *err)
{
    url->foreign = span_is(value, "on");
    if (url->foreign || span_is(value, "off"))
        return 0;
    char shown[64];
    return error_set(err, -EINVAL, "unknown foreign=\"%s\" in the Postgres URL; known: on, off",
                     text_escape(shown, sizeof shown, value.text, value.len));
}

static void note_ignored(struct pg_url *url, struct span name)
{
    size_t len = strlen(url->ignored);
    snprintf(url->ignored + len, sizeof url->ignored - len, "%s%.*s", len ? ", " : "",
             (int)name.len, name.text);
}

static int take_keep(struct pg_url *url, struct span value, struct fw_error *err)
{
    char text[32], shown[64];
    snprintf(text, sizeof text, "%.*s", (int)(value.len < sizeof text ? value.len : 31),
             value.text);
    url->keep_given = true;
    url->keep_ms = UINT64_MAX;
    if (span_is(value, "all"))
        return 0;
    if (parse_duration_ms(text, &url->keep_ms) == 0 && url->keep_ms <= KEEP_MAX_MS)
        return 0;
    return error_set(
        err, -EINVAL,
        "keep-for=%s in the Postgres URL: write a duration like 30m, 24h or 7d, or all",
        text_escape(shown, sizeof shown, value.text, value.len));
}

static bool in_node_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static int take_node(struct pg_url *url, struct span value, struct fw_error *err)
{
    char shown[64];
    size_t used = 0;
    while (used < value.len && in_node_name(value.text[used]))
        used++;
    if (value.len == 0 || used < value.len || value.len >= sizeof url->node)
        return error_set(err, -EINVAL,
                         "node=%s in the Postgres URL: a name has 1 to %zu of the characters a-z, "
                         "0-9 and _",
                         text_escape(shown, sizeof shown, value.text, value.len),
                         sizeof url->node - 1);
    snprintf(url->node, sizeof url->node, "%.*s", (int)value.len, value.text);
    return 0;
}

static int take_retain_for(struct pg_url *url, struct span value, struct fw_error *err)
{
    char text[32], shown[64];
    uint64_t ms;
    snprintf(text, sizeof text, "%.*s", (int)(value.len < sizeof text ? value.len : 31),
             value.text);
    if (parse_duration_ms(text, &ms) < 0 || ms > RETAIN_FOR_MAX_MS)
        return error_set(err, -EINVAL,
                         "retain-for=%s in the Postgres URL: write a duration up to 7d, like 10m",
                         text_escape(shown, sizeof shown, value.text, value.len));
    url->retain_for_ms = (int64_t)ms;
    return 0;
}

/* Takes one "name=value"; what libpq shall see is appended to `kept`. */
static int take_parameter(struct pg_url *url, struct span pair, struct buf *kept,
                          struct fw_error *err)
{
    const char *equals = memchr(pair.text, '=', pair.len);
    struct span name = { pair.text, equals ? (size_t)(equals - pair.text) : pair.len };
    struct span value = { "", 0 };
    if (equals)
        value = (struct span){ equals + 1, pair.len - name.len - 1 };
    if (span_is(name, "mode"))
        return take_mode(url, value, err);
    if (span_is(name, "foreign"))
        return take_foreign(url, value, err);
    if (span_is(name, "keep-for"))
        return take_keep(url, value, err);
    if (span_is(name, "node"))
        return take_node(url, value, err);
    if (span_is(name, "retain-for"))
        return take_retain_for(url, value, err);
    if (span_is(name, "service"))
        return error_set(err, -EINVAL,
                         "service= in a Postgres URL is not supported (libpq would "
                         "resolve its host itself and block); write host, port and "
                         "dbname, or set PGSERVICE");
    if (is_orm_parameter(name)) {
        note_ignored(url, name);
        return 0;
    }
    (void)buf_append_char(kept, memchr(kept->data, '?', kept->len) ? '&' : '?');
    (void)buf_append(kept, pair.text, pair.len);
    return 0;
}

static int take_query(struct pg_url *url, struct span query, struct buf *kept, struct fw_error *err)
{
    while (query.len > 0) {
        const char *amp = memchr(query.text, '&', query.len);
        struct span pair = { query.text, amp ? (size_t)(amp - query.text) : query.len };
        if (pair.len > 0) {
            int r = take_parameter(url, pair, kept, err);
            if (r < 0)
                return r;
        }
        size_t used = pair.len + (amp ? 1 : 0);
        query = (struct span){ query.text + used, query.len - used };
    }
    return 0;
}

/* The values of password= and sslpassword=, which libpq may quote as well. */
static void scrub_query(char *text, struct span query)
{
    for (size_t at = 0; at < query.len;) {
        const char *pair = query.text + at;
        const char *amp = memchr(pair, '&', query.len - at);
        size_t len = amp ? (size_t)(amp - pair) : query.len - at;
        const char *equals = memchr(pair, '=', len);
        if (equals && memmem(pair, (size_t)(equals - pair), "password", 8))
            scrub(text, (struct span){ equals + 1, len - (size_t)(equals - pair) - 1 });
        at += len + 1;
    }
}

static int parse_options(struct pg_url *url, const struct url_parts *parts, const char *uri,
                         struct fw_error *err)
{
    char *text = NULL;
    url->options = PQconninfoParse(uri, &text);
    if (url->options)
        return 0;
    if (!text)
        return error_set(err, -ENOMEM, "cannot read the Postgres URL: out of memory");
    scrub(text, (struct span){ uri, strlen(uri) });
    scrub(text, parts->password);
    scrub_query(text, parts->query);
    show_scrubbed(text);
    char line[300];
    (void)error_set(err, -EINVAL, "cannot read the Postgres URL: %s (" PASSWORD_HINT ")",
                    pg_one_line(line, sizeof line, text));
    PQfreemem(text);
    return -EINVAL;
}

/* ---- hosts ---- */

static const char *option(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *o = options; o && o->keyword; o++)
        if (!strcmp(o->keyword, keyword))
            return o->val && *o->val ? o->val : NULL;
    return NULL;
}

static unsigned count_items(const char *list)
{
    unsigned n = 1;
    for (const char *p = list; *p; p++)
        n += *p == ',';
    return n;
}

/* A copy of item `i` of a comma-separated list; a list of one is meant for all when `shared`. */
static char *item(const char *list, unsigned i, bool shared)
{
    if (!list)
        return strdup("");
    if (shared && count_items(list) == 1)
        return strdup(list);
    for (; i > 0; i--)
        list += strcspn(list, ",") + 1;
    return strndup(list, strcspn(list, ","));
}

static int check_place(const struct pg_place *place, struct fw_error *err)
{
    uint64_t port;
    if (!place->host || !place->address || !place->port)
        return error_set(err, -ENOMEM, "cannot read the Postgres URL: out of memory");
    /* Not quoted: with a slash or an @ in the password, this is a piece of the password. */
    if (*place->port && (parse_uint(place->port, 65535, &port) < 0 || port == 0))
        return error_set(err, -EINVAL,
                         "the port in the Postgres URL is not a number from 1 to "
                         "65535 (" PASSWORD_HINT ")");
    if (place->host[0] != '/' && place->host[0] != '@' && strchr(place->host, '@'))
        return error_set(err, -EINVAL,
                         "the host in the Postgres URL contains an @ (" PASSWORD_HINT ")");
    return 0;
}

static int find_places(struct pg_url *url, struct fw_error *err)
{
    /* Where the URL is silent, libpq would take PGHOST and the like: they need resolving too. */
    PQconninfoOption *defaults = PQconndefaults();
    const char *hosts = option(url->options, "host");
    const char *addresses = option(url->options, "hostaddr");
    if (!hosts && !addresses) {
        hosts = option(defaults, "host");
        addresses = option(defaults, "hostaddr");
    }
    const char *ports = option(url->options, "port");
    if (!ports)
        ports = option(defaults, "port");
    unsigned n = addresses ? count_items(addresses) : hosts ? count_items(hosts) : 1;
    unsigned n_ports = ports ? count_items(ports) : 1;
    int r = 0;
    if (n > PG_HOSTS_MAX)
        r = error_set(err, -EINVAL, "the Postgres URL names %u hosts, at most %d are possible", n,
                      PG_HOSTS_MAX);
    else if (hosts && count_items(hosts) != n)
        r = error_set(err, -EINVAL, "the Postgres URL names %u hosts but %u host addresses",
                      count_items(hosts), n);
    else if (n_ports != 1 && n_ports != n)
        r = error_set(err, -EINVAL, "the Postgres URL names %u hosts but %u ports", n, n_ports);
    for (unsigned i = 0; i < n && r == 0; i++) {
        struct pg_place *place = &url->places[url->n_places++];
        place->host = item(hosts, i, false);
        place->address = item(addresses, i, false);
        place->port = item(ports, i, true);
        r = check_place(place, err);
    }
    if (defaults)
        PQconninfoFree(defaults);
    return r;
}

bool pg_place_needs_address(const struct pg_place *place)
{
    unsigned char numeric[sizeof(struct in6_addr)];
    return place->host[0] && place->host[0] != '/' && place->host[0] != '@' && !place->address[0] &&
           inet_pton(AF_INET, place->host, numeric) != 1 &&
           inet_pton(AF_INET6, place->host, numeric) != 1;
}

static void find_timeout(struct pg_url *url)
{
    uint64_t seconds;
    const char *text = option(url->options, "connect_timeout");
    url->connect_timeout_ms = CONNECT_TIMEOUT_DEFAULT_MS;
    if (text && parse_uint(text, 3600, &seconds) == 0 && seconds > 0)
        url->connect_timeout_ms = (unsigned)seconds * 1000;
}

static int parse(const char *rest, struct pg_url *url, struct buf *uri, struct fw_error *err)
{
    struct url_parts parts = split(rest);
    if (!escapes_valid(parts.middle) || !escapes_valid(parts.query))
        return error_set(err, -EINVAL,
                         "the Postgres URL contains a %% that is not followed by two "
                         "hexadecimal digits (a %% itself is written %%25), or %%00");
    (void)buf_append_str(uri, "postgresql://");
    (void)buf_append(uri, parts.middle.text, parts.middle.len);
    int r = take_query(url, parts.query, uri, err);
    if (r < 0)
        return r;
    if (buf_append_char(uri, '\0') < 0)
        return error_set(err, -EINVAL, "the Postgres URL is longer than %d bytes", URL_MAX);
    r = parse_options(url, &parts, (const char *)uri->data, err);
    if (r < 0)
        return r;
    find_timeout(url);
    return find_places(url, err);
}

int pg_url_parse(const char *url, struct pg_url *ret, struct fw_error *err)
{
    *ret = (struct pg_url){
        .foreign = true,
        .retain_for_ms = RETAIN_FOR_DEFAULT_MS,
    };
    const char *rest = after_scheme(url);
    if (!rest)
        return error_set(err, -EINVAL,
                         "not a Postgres URL; write "
                         "postgres://user:password@host:port/database");
    struct buf uri = buf_make(URL_MAX);
    int r = parse(rest, ret, &uri, err);
    if (uri.data)
        explicit_bzero(uri.data, uri.len);
    buf_done(&uri);
    if (r < 0)
        pg_url_done(ret);
    return r;
}

void pg_url_done(struct pg_url *url)
{
    if (url->options)
        PQconninfoFree(url->options);
    for (unsigned i = 0; i < url->n_places; i++) {
        free(url->places[i].host);
        free(url->places[i].address);
        free(url->places[i].port);
    }
    *url = (struct pg_url){ 0 };
}
