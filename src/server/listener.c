/* Listening sockets. */
#include "listener.h"

#include "error.h"

#include <fanwire.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 4096 /* the kernel cuts it to net.core.somaxconn */

static int fail(struct fw_error *err, int code, const char *where)
{
    const char *advice = "";
    if (code == -EADDRINUSE)
        advice = "; another program listens there: stop it, or choose another address";
    else if (code == -EACCES)
        advice = "; this user may not listen there (ports below 1024 need CAP_NET_BIND_SERVICE)";
    else if (code == -EADDRNOTAVAIL)
        advice = "; this machine does not have that address";
    return error_set(err, code, "cannot listen on %s: %s%s", where, strerror(-code), advice);
}

/* ---- TCP ---- */

static void describe(struct listener *l, const struct sockaddr_storage *bound)
{
    char host[INET6_ADDRSTRLEN] = "?";
    bool v6 = bound->ss_family == AF_INET6;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)bound;
    const struct sockaddr_in *in = (const struct sockaddr_in *)bound;
    const void *address = v6 ? (const void *)&in6->sin6_addr : (const void *)&in->sin_addr;
    (void)inet_ntop(bound->ss_family, address, host, sizeof(host));
    l->port = ntohs(v6 ? in6->sin6_port : in->sin_port);
    (void)snprintf(l->text, sizeof(l->text), v6 ? "http://[%s]:%u/" : "http://%s:%u/", host,
                   l->port);
}

static int set_on(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* Binds and listens. The first socket of an address comes without SO_REUSEPORT, so that a second
 * server is refused instead of silently sharing the port; once it listens, it opens the group. */
static int tcp_socket(const struct sockaddr *address, socklen_t len, bool first)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int r = set_on(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r == 0 && address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        r = set_on(fd, IPPROTO_IPV6, IPV6_V6ONLY, !IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr));
    }
    if (r == 0 && !first)
        r = set_on(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r == 0 && bind(fd, address, len) < 0)
        r = -errno;
    if (r == 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    if (r == 0 && first)
        r = set_on(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

static int open_tcp(const struct sockaddr *address, socklen_t len, size_t copies,
                    struct listener *ret)
{
    *ret = (struct listener){ .fds = calloc(copies, sizeof(int)) };
    if (!ret->fds)
        return -ENOMEM;
    struct sockaddr_storage bound = { 0 };
    memcpy(&bound, address, len);
    for (size_t i = 0; i < copies; i++) {
        int fd = tcp_socket((const struct sockaddr *)&bound, len, i == 0);
        if (fd < 0) {
            listener_close(ret);
            return fd;
        }
        ret->fds[ret->n_fds++] = fd;
        socklen_t bound_len = sizeof(bound);
        if (i == 0 && getsockname(fd, (struct sockaddr *)&bound, &bound_len) < 0) {
            listener_close(ret);
            return -errno;
        }
    }
    describe(ret, &bound);
    return 0;
}

static void set_port(struct sockaddr *address, uint16_t port)
{
    if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

/* All interfaces: one socket for both families; IPv4 alone where the machine has no IPv6. */
static int open_any(uint16_t port, size_t copies, struct listener *ret, const char *where,
                    struct fw_error *err)
{
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
    int r = open_tcp((struct sockaddr *)&in6, sizeof(in6), copies, ret);
    if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL)
        r = open_tcp((struct sockaddr *)&in, sizeof(in), copies, ret);
    return r < 0 ? fail(err, r, where) : 1;
}

static int open_host(const struct address *address, size_t copies, struct listener *out, size_t max,
                     const char *where, struct fw_error *err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *found = NULL;
    int e = getaddrinfo(address->host, NULL, &hints, &found);
    if (e != 0)
        return error_set(err, -EADDRNOTAVAIL, "cannot listen on %s: %s", where, gai_strerror(e));

    size_t n = 0;
    int r = 0;
    uint16_t port = address->port;
    for (struct addrinfo *a = found; a && n < max && r == 0; a = a->ai_next) {
        if (a->ai_family != AF_INET && a->ai_family != AF_INET6)
            continue;
        set_port(a->ai_addr, port);
        r = open_tcp(a->ai_addr, a->ai_addrlen, copies, &out[n]);
        if (r == 0)
            port = out[n++].port;
        else if (a->ai_next || n > 0) /* "localhost" may name a family that is switched off */
            r = r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT ? 0 : r;
    }
    freeaddrinfo(found);
    if (r == 0 && n == 0)
        r = -EADDRNOTAVAIL;
    if (r < 0) {
        while (n > 0)
            listener_close(&out[--n]);
        return fail(err, r, where);
    }
    return (int)n;
}

/* ---- Unix sockets ---- */

/* True if somebody answers at the path; then the file is theirs. */
static bool answers(const struct sockaddr_un *un)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true;
    int r = connect(fd, (const struct sockaddr *)un, sizeof(*un));
    bool alive = r == 0 || errno != ECONNREFUSED; /* EAGAIN: alive with a full queue */
    close(fd);
    return alive;
}

static int remove_stale(const struct sockaddr_un *un)
{
    struct stat st;
    if (lstat(un->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST; /* never delete a file that is not ours to delete */
    if (answers(un))
        return -EADDRINUSE;
    return unlink(un->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int unix_socket(const struct sockaddr_un *un)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)un, sizeof(*un)) < 0 || listen(fd, BACKLOG) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static int open_unix(const struct address *address, struct listener *ret, const char *where,
                     struct fw_error *err)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    memcpy(un.sun_path, address->path, sizeof(un.sun_path));
    int r = remove_stale(&un);
    if (r == 0)
        r = unix_socket(&un);
    if (r < 0)
        return fail(err, r, where);

    *ret = (struct listener){ .fds = malloc(sizeof(int)), .n_fds = 1 };
    if (!ret->fds) {
        close(r);
        return fail(err, -ENOMEM, where);
    }
    ret->fds[0] = r;
    memcpy(ret->path, address->path, sizeof(ret->path));
    (void)snprintf(ret->text, sizeof(ret->text), "unix:%s", address->path);
    struct stat st;
    if (stat(ret->path, &st) == 0) {
        ret->path_dev = st.st_dev;
        ret->path_ino = st.st_ino;
    }
    return 1;
}

/* ---- both ---- */

int listener_open(const struct address *address, size_t copies, struct listener *out, size_t max,
                  struct fw_error *err)
{
    char where[300];
    if (address->path[0])
        (void)snprintf(where, sizeof(where), "unix:%s", address->path);
    else
        (void)snprintf(where, sizeof(where), strchr(address->host, ':') ? "[%s]:%u" : "%s:%u",
                       address->host, address->port);
    if (max == 0)
        return error_set(err, -E2BIG, "cannot listen on %s: too many addresses", where);
    if (address->path[0])
        return open_unix(address, out, where, err);
    if (!address->host[0])
        return open_any(address->port, copies, out, where, err);
    return open_host(address, copies, out, max, where, err);
}

void listener_close(struct listener *listener)
{
    for (size_t i = 0; i < listener->n_fds; i++)
        close(listener->fds[i]);
    free(listener->fds);
    struct stat st;
    if (listener->path[0] && stat(listener->path, &st) == 0 && st.st_dev == listener->path_dev &&
        st.st_ino == listener->path_ino)
        (void)unlink(listener->path);
    *listener = (struct listener){ 0 };
}
