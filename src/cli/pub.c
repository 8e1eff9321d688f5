/* fanwire pub */
#include "cli.h"

#include "buf.h"
#include "clock.h"
#include "flags.h"
#include "meta.h"
#include "pattern.h"
#include "terminal.h"
#include "text.h"
#include "web.h"

#include <fanwire.h>

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAYLOAD_MAX (64u << 20)
#define PATIENCE_MS 10000
#define AGAIN_MS    50

#define KEY_FIELD_MAX (2 * META_KEY_MAX + 32) /* every byte of it escaped */

struct pub {
    const char *where, *key_text; /* as given */
    bool verbose, lines;
    const char *channel;
    struct web *web; /* one of the two */
    struct fw_hub *hub;
    struct buf path;            /* "/publish/CHANNEL" */
    size_t n;                   /* lines published */
    char key[META_KEY_MAX + 1]; /* of the event in hand, "" = none */
};

#define AT(field) offsetof(struct pub, field)

static const struct flag pub_flags[] = {
    { "server", 's', true, FLAG_TEXT, AT(where), "WHERE", WEB_DEFAULT,
      "a server (http://HOST:PORT, unix:PATH) or a source's URL; also FANWIRE_SERVER" },
    { "lines", 0, false, FLAG_BOOL, AT(lines), NULL, NULL,
      "each line of standard input is an event" },
    { "key", 0, true, FLAG_TEXT, AT(key_text), "KEY", NULL,
      "not delivered again where an event with this key stands in the log" },
    { "verbose", 'v', false, FLAG_BOOL, AT(verbose), NULL, NULL, "print the event's id" },
    { NULL },
};

static int __attribute__((format(printf, 2, 3))) fail(int code, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    terminal_complain("pub", text);
    return code;
}

/* ---- by HTTP ---- */

static int status_code(int status)
{
    switch (status) {
    case 400:
    case 404:
    case 413:
        return 2;
    case 401:
    case 403:
    case 502:
    case 503:
        return 3;
    default:
        return 1;
    }
}

static void print_id(const struct pub *pub, const struct buf *body)
{
    json_t *root = json_loadb((const char *)body->data, body->len, 0, NULL);
    const char *id = json_string_value(json_object_get(root, "id"));
    if (pub->verbose && id)
        (void)puts(id);
    json_decref(root);
}

/* As a string of structured fields (RFC 8941 3.3.3); NULL without a key. */
static const char *key_field(const struct pub *pub, char field[KEY_FIELD_MAX])
{
    char *at = field + snprintf(field, KEY_FIELD_MAX, "Idempotency-Key: \"");
    for (const char *key = pub->key; *key; key++) {
        if (*key == '"' || *key == '\\')
            *at++ = '\\';
        *at++ = *key;
    }
    memcpy(at, "\"", 2);
    return *pub->key ? field : NULL;
}

static int publish_to_server(const struct pub *pub, const void *data, size_t len)
{
    struct fw_error err = { 0 };
    struct buf body = buf_make(1 << 20);
    char field[KEY_FIELD_MAX];
    int status = web_request(pub->web, (const char *)pub->path.data, key_field(pub, field), data,
                             len, &body, &err);
    char problem[512];
    int code = 0;
    if (status < 0)
        code = fail(status == -EINVAL ? 2 : status == -ETIMEDOUT ? 1 : 3, "%s", err.message);
    else if (status != 200)
        code =
            fail(status_code(status), "%s", web_problem(problem, sizeof(problem), status, &body));
    else
        print_id(pub, &body);
    buf_done(&body);
    return code;
}

/* ---- by the library ---- */

/* A source that is not connected yet answers -EAGAIN, and nothing was stored. */
static int publish_patiently(const struct pub *pub, const void *data, size_t len, char *id,
                             struct fw_error *err)
{
    const struct fw_publish_options options = { .size = sizeof(options),
                                                .key = *pub->key ? pub->key : NULL };
    int64_t until = clock_monotonic_ms() + PATIENCE_MS;
    int r;
    while ((r = fw_hub_publish_with(pub->hub, pub->channel, data, len, &options, PATIENCE_MS, id,
                                    err)) == -EAGAIN &&
           clock_monotonic_ms() < until)
        (void)poll(NULL, 0, AGAIN_MS);
    return r;
}

static int publish_to_source(const struct pub *pub, const void *data, size_t len)
{
    struct fw_error err = { 0 };
    char id[FW_POSITION_MAX + 1] = "";
    int r = publish_patiently(pub, data, len, id, &err);
    if (r < 0)
        return fail(r == -EINVAL || r == -EMSGSIZE ? 2
                    : r == -EAGAIN || r == -EIO    ? 3
                                                   : 1,
                    "%s", err.message);
    if (pub->verbose && id[0])
        (void)puts(id);
    return 0;
}

/* Each line has a key of its own, as each event of a batch has: the same file may be sent again. */
static int make_key(struct pub *pub)
{
    int n = !pub->key_text ? 0
            : pub->lines   ? snprintf(pub->key, sizeof(pub->key), "%s/%zu", pub->key_text, pub->n)
                           : snprintf(pub->key, sizeof(pub->key), "%s", pub->key_text);
    bool bad = pub->key_text && !*pub->key_text;
    for (const char *at = pub->key; *at; at++)
        bad |= (unsigned char)*at < 0x20 || *at == 0x7F;
    if (bad || n > META_KEY_MAX || !utf8_valid(pub->key, strlen(pub->key)))
        return fail(2, "a key is 1 to %d bytes of UTF-8 without control characters%s", META_KEY_MAX,
                    pub->lines ? ", with \"/LINE\" added" : "");
    return 0;
}

static int publish(struct pub *pub, const void *data, size_t len)
{
    int code = make_key(pub);
    pub->n++;
    if (code != 0)
        return code;
    return pub->web ? publish_to_server(pub, data, len) : publish_to_source(pub, data, len);
}

/* ---- standard input ---- */

static int publish_lines(struct pub *pub)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    int code = 0;
    while (code == 0 && (n = getline(&line, &size, stdin)) > 0) {
        if (line[n - 1] == '\n')
            n--;
        code = publish(pub, line, (size_t)n);
    }
    if (code == 0 && ferror(stdin))
        code = fail(1, "cannot read standard input");
    free(line);
    return code;
}

static int publish_stdin(struct pub *pub)
{
    struct buf payload = buf_make(PAYLOAD_MAX);
    char block[16384];
    size_t n;
    int r = buf_append_str(&payload, "");
    while (r == 0 && (n = fread(block, 1, sizeof(block), stdin)) > 0)
        r = buf_append(&payload, block, n);
    int code;
    if (r < 0)
        code = fail(2, "standard input is larger than any event may be");
    else if (ferror(stdin))
        code = fail(1, "cannot read standard input");
    else
        code = publish(pub, payload.data ? (const void *)payload.data : "", payload.len);
    buf_done(&payload);
    return code;
}

/* ---- the whole ---- */

static int open_where(struct pub *pub)
{
    struct fw_error err = { 0 };
    int r;
    if (web_is_server(pub->where)) {
        r = web_open(pub->where, &pub->web, &err);
        pub->path = buf_make(4096);
        if (r == 0 &&
            (buf_append_str(&pub->path, "/publish/") < 0 ||
             web_escape(&pub->path, pub->channel) < 0 || buf_append_char(&pub->path, '\0') < 0))
            return fail(1, "out of memory");
    } else {
        struct fw_hub_options options = { .size = sizeof(options), .retain = 1 << 20 };
        r = fw_hub_open(pub->where, &options, &pub->hub, &err);
    }
    if (r == -EINVAL)
        return fail(2, "%s; " WEB_HINT, err.message);
    return r < 0 ? fail(1, "%s", err.message) : 0;
}

static int run(struct pub *pub, const struct strings *rest)
{
    if (rest->count == 0)
        return fail(2, "CHANNEL is missing; --help tells more");
    pub->channel = rest->items[0];
    if (!channel_valid(pub->channel, strlen(pub->channel)))
        return fail(2, "a channel's name is 1 to 255 bytes of UTF-8 without control characters");
    if (rest->count > 2 || (pub->lines && rest->count == 2 && strcmp(rest->items[1], "-") != 0))
        return fail(2, "one PAYLOAD is enough: quote it, or use - for standard input");
    int code = open_where(pub);
    if (code != 0)
        return code;
    if (pub->lines)
        return publish_lines(pub);
    if (rest->count == 2 && strcmp(rest->items[1], "-") != 0)
        return publish(pub, rest->items[1], strlen(rest->items[1]));
    return publish_stdin(pub);
}

int cli_pub(int argc, char **argv, const struct title *title)
{
    struct pub pub = { 0 };
    struct strings rest = { 0 };
    struct fw_error err = { 0 };
    title_set(title, "fanwire: pub"); /* WHERE may hold a password */
    int r = flags_parse(pub_flags, &pub, argc, argv, &rest, &err);
    int code = 0;
    if (r > 0) {
        (void)fputs("fanwire pub [OPTION…] CHANNEL [PAYLOAD|-]\n\n"
                    "Publishes PAYLOAD, or all of standard input, as one event. Prints nothing "
                    "when the\nbackend has accepted it.\n\n",
                    stdout);
        flags_help(pub_flags, stdout);
    } else {
        code = r < 0 ? fail(2, "%s", err.message) : run(&pub, &rest);
    }
    if (fflush(stdout) != 0 && code == 0)
        code = fail(1, "%s", strerror(errno));
    web_close(pub.web);
    fw_hub_close(pub.hub);
    buf_done(&pub.path);
    strings_done(&rest);
    return code;
}
