/* Listening addresses as users write them. */
#include "address.h"

#include "error.h"
#include "text.h"

#include <fanwire.h>

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

static int bad(struct fw_error *err, const char *text, const char *why)
{
    char shown[128];
    return error_set(err, -EINVAL,
                     "address \"%s\": %s; write HOST:PORT, :PORT, [v6]:PORT or unix:PATH",
                     text_escape(shown, sizeof(shown), text, strlen(text)), why);
}

static int parse_path(const char *text, const char *path, struct address *ret, struct fw_error *err)
{
    size_t len = strlen(path);
    if (len == 0)
        return bad(err, text, "the path is empty");
    if (len >= sizeof(ret->path))
        return bad(err, text, "the path is too long for a Unix socket (107 bytes)");
    memcpy(ret->path, path, len + 1);
    return 0;
}

int address_parse(const char *text, struct address *ret, struct fw_error *err)
{
    *ret = (struct address){ 0 };
    if (strncmp(text, "unix:", 5) == 0)
        return parse_path(text, text + 5, ret, err);

    const char *colon = strrchr(text, ':');
    if (!colon)
        return bad(err, text, "the port is missing");
    uint64_t port;
    if (parse_uint(colon + 1, UINT16_MAX, &port) < 0)
        return bad(err, text, "the port is not a number up to 65535");
    ret->port = (uint16_t)port;

    const char *host = text;
    size_t len = (size_t)(colon - text);
    bool bracketed = len >= 2 && host[0] == '[' && host[len - 1] == ']';
    if (bracketed) {
        host++;
        len -= 2;
    }
    if (len >= sizeof(ret->host))
        return bad(err, text, "the host's name is too long");
    memcpy(ret->host, host, len);
    struct in6_addr v6;
    if (bracketed && inet_pton(AF_INET6, ret->host, &v6) != 1)
        return bad(err, text, "there is no IPv6 address in the brackets");
    if (!bracketed && memchr(host, ':', len))
        return bad(err, text, "an IPv6 address needs brackets");
    return 0;
}

bool address_loopback(const struct address *address)
{
    if (address->path[0])
        return true;
    struct in_addr v4;
    if (inet_pton(AF_INET, address->host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    struct in6_addr v6;
    if (inet_pton(AF_INET6, address->host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return strcasecmp(address->host, "localhost") == 0;
}
