/* The program's routes: reading templates, finding the one of a path. */
#include "routes.h"

#include "error.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- segments ---- */

/* Takes the next segment off a path that begins with a slash; false at the end. */
static bool next_segment(struct slice *path, struct slice *ret)
{
    if (path->len == 0)
        return false;
    const char *begin = path->data + 1;
    size_t rest = path->len - 1;
    const char *slash = rest ? memchr(begin, '/', rest) : NULL;
    *ret = (struct slice){ begin, slash ? (size_t)(slash - begin) : rest };
    *path = (struct slice){ begin + ret->len, rest - ret->len };
    return true;
}

static bool is_param(struct slice segment)
{
    return segment.len > 2 && segment.data[0] == '{';
}

static struct slice text_slice(const char *text)
{
    return (struct slice){ text, strlen(text) };
}

static bool same(struct slice a, struct slice b)
{
    return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

/* ---- templates ---- */

static bool name_valid(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i && c >= '0' && c <= '9'))
            return false;
    }
    return len > 0;
}

static int find_param(const struct route *route, struct slice name)
{
    for (uint32_t i = 0; i < route->n_params; i++) {
        if (same(route->params[i], name))
            return (int)i;
    }
    return -1;
}

static bool literal_valid(struct slice segment)
{
    for (size_t i = 0; i < segment.len; i++) {
        unsigned char c = (unsigned char)segment.data[i];
        if (c <= ' ' || c == 0x7F || strchr("?#%\"<>\\{}", c))
            return false;
    }
    return true;
}

static int take_segment(struct route *route, struct slice segment)
{
    if (!memchr(segment.data, '{', segment.len))
        return literal_valid(segment) ? 0 : -EINVAL;
    struct slice name = { segment.data + 1, segment.len < 2 ? 0 : segment.len - 2 };
    if (segment.data[0] != '{' || segment.data[segment.len - 1] != '}' ||
        !name_valid(name.data, name.len) || find_param(route, name) >= 0 ||
        route->n_params == ROUTE_PARAMS_MAX)
        return -EINVAL;
    route->params[route->n_params++] = name;
    return 0;
}

static int read_template(struct route *route)
{
    struct slice path = text_slice(route->path), segment;
    if (path.data[0] != '/' || path.len > ROUTE_PATH_MAX || !utf8_valid(path.data, path.len))
        return -EINVAL;
    while (next_segment(&path, &segment)) {
        int r = segment.len == 0 && path.len ? -EINVAL : take_segment(route, segment);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The server's own addresses, and what is below them. */
static bool is_reserved(const char *path)
{
    static const char *const own[] = { "ws", "sse", "history", "publish", "healthz", "fanwire.js" };
    struct slice rest = text_slice(path), first = { 0 };
    (void)next_segment(&rest, &first);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        if (same(first, text_slice(own[i])))
            return true;
    }
    return false;
}

/* ---- channels ---- */

/* Writes the template with {name} replaced, or only checks it (out NULL). */
static int64_t expand(const struct route *route, const struct slice *params, char *out, size_t size)
{
    size_t len = 0;
    for (const char *at = route->channel; *at;) {
        struct slice piece = { at, strcspn(at, "{}") };
        at += piece.len;
        if (piece.len == 0) {
            struct slice name = { at + 1, strcspn(at + 1, "}") };
            int i = *at == '{' && at[1 + name.len] == '}' ? find_param(route, name) : -1;
            if (i < 0)
                return -EINVAL;
            at += name.len + 2;
            piece = params ? params[i] : (struct slice){ "x", 1 };
        }
        if (piece.len > size - len)
            return -EMSGSIZE;
        if (out)
            memcpy(out + len, piece.data, piece.len);
        len += piece.len;
    }
    return (int64_t)len;
}

int64_t route_channel(const struct route *route, const struct slice *params, char *out, size_t size)
{
    return expand(route, params, out, size);
}

/* ---- adding ---- */

static bool method_valid(const char *method)
{
    size_t len = strlen(method);
    if (strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0 ||
        strcmp(method, "CONNECT") == 0 || len == 0 || len > 32)
        return false;
    return strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == len;
}

/* Do two templates take the very same paths? */
static bool same_shape(const char *a, const char *b)
{
    struct slice left = text_slice(a), right = text_slice(b), l = { 0 }, r = { 0 };
    while (next_segment(&left, &l)) {
        if (!next_segment(&right, &r) || is_param(l) != is_param(r) ||
            (!is_param(l) && !same(l, r)))
            return false;
    }
    return right.len == 0;
}

static int check(struct routes *routes, struct route *route, struct fw_error *err)
{
    if (!method_valid(route->method))
        return error_set(err, -EINVAL,
                         "\"%.40s\" is no method for a route: capital letters; HEAD and OPTIONS "
                         "are answered by the server",
                         route->method);
    if (read_template(route) < 0)
        return error_set(err, -EINVAL,
                         "\"%.200s\" is no path for a route: write \"/api/items/{id}\": a slash in "
                         "front, {name} for a whole segment, at most %d of them",
                         route->path, ROUTE_PARAMS_MAX);
    if (is_reserved(route->path))
        return error_set(err, -EINVAL, "\"%.200s\" is the server's own", route->path);
    if (route->kind == ROUTE_ASSET && route->n_params)
        return error_set(err, -EINVAL, "\"%.200s\": fixed bytes have a fixed path", route->path);
    if (route->kind == ROUTE_STREAM && expand(route, NULL, NULL, 256) <= 0)
        return error_set(err, -EINVAL,
                         "\"%.200s\" is no channel for the path %.100s: at most 255 bytes, {name} "
                         "only where the path has it",
                         route->channel, route->path);
    for (size_t i = 0; i < routes->count; i++) {
        const struct route *other = &routes->items[i];
        bool stream = route->kind == ROUTE_STREAM;
        if (stream == (other->kind == ROUTE_STREAM) && strcmp(other->method, route->method) == 0 &&
            same_shape(other->path, route->path))
            return error_set(err, -EEXIST, "%s %.200s is there already", route->method,
                             route->path);
    }
    return 0;
}

static void route_done(struct route *route)
{
    free(route->method);
    free(route->path);
    free(route->channel);
    free(route->type);
}

/* NULL stays NULL. */
static int copy_text(char **place, const char *text)
{
    *place = text ? strdup(text) : NULL;
    return text && !*place ? -ENOMEM : 0;
}

/* FNV-1a: it tells versions apart, nobody has to be kept from forging it. */
static void make_etag(struct route *route)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < route->len; i++)
        hash = (hash ^ ((const uint8_t *)route->data)[i]) * 0x100000001b3u;
    (void)snprintf(route->etag, sizeof(route->etag), "\"%016llx\"", (unsigned long long)hash);
}

static int copy_route(struct route *to, const struct route *from)
{
    *to = (struct route){ .kind = from->kind, .data = from->data, .len = from->len };
    int r = copy_text(&to->method, from->method);
    r = r < 0 ? r : copy_text(&to->path, from->path);
    r = r < 0 ? r : copy_text(&to->channel, from->channel);
    return r < 0 ? r : copy_text(&to->type, from->type);
}

int routes_add(struct routes *routes, const struct route *route, struct fw_error *err)
{
    struct route added;
    if (!route->method || !route->path || (route->kind == ROUTE_STREAM && !route->channel))
        return error_set(err, -EINVAL, "a route needs a method and a path, a stream a channel");
    int r = copy_route(&added, route);
    struct route *items =
        r < 0 ? NULL : realloc(routes->items, (routes->count + 1) * sizeof(*items));
    if (items)
        routes->items = items;
    r = items ? check(routes, &added, err) : error_set(err, -ENOMEM, "out of memory");
    if (r < 0) {
        route_done(&added);
        return r;
    }
    if (added.kind == ROUTE_ASSET)
        make_etag(&added);
    else
        routes->n_calls++;
    routes->items[routes->count] = added;
    return (int)routes->count++;
}

void routes_done(struct routes *routes)
{
    for (size_t i = 0; i < routes->count; i++)
        route_done(&routes->items[i]);
    free(routes->items);
    *routes = (struct routes){ 0 };
}

/* ---- matching ---- */

/* A client may escape what need not be. */
static bool literal_matches(struct slice literal, struct slice sent)
{
    char decoded[ROUTE_PATH_MAX];
    if (sent.len && memchr(sent.data, '%', sent.len)) {
        int64_t n =
            sent.len > sizeof(decoded) ? -1 : percent_decode(decoded, sent.data, sent.len, false);
        if (n < 0)
            return false;
        sent = (struct slice){ decoded, (size_t)n };
    }
    return same(literal, sent);
}

static bool path_matches(const struct route *route, struct slice path, struct slice *params)
{
    struct slice template = text_slice(route->path), want, sent;
    uint32_t n = 0;
    if (path.len == 0 || path.data[0] != '/')
        return false;
    while (next_segment(&template, &want)) {
        if (!next_segment(&path, &sent))
            return false;
        if (!is_param(want)) {
            if (!literal_matches(want, sent))
                return false;
        } else if (sent.len == 0) {
            return false;
        } else if (params) {
            params[n++] = sent;
        }
    }
    return path.len == 0;
}

/* Of two that match one path: has `a` a literal segment where `b` has a parameter first? */
static bool is_better(const struct route *a, const struct route *b)
{
    struct slice left = text_slice(a->path), right = text_slice(b->path), l, r;
    while (next_segment(&left, &l) && next_segment(&right, &r)) {
        if (is_param(l) != is_param(r))
            return is_param(r);
    }
    return false;
}

bool routes_match(const struct routes *routes, struct slice path, struct slice method, bool stream,
                  struct route_match *ret)
{
    *ret = (struct route_match){ 0 };
    if (same(method, text_slice("HEAD")))
        method = text_slice("GET");
    for (size_t i = 0; routes && i < routes->count; i++) {
        const struct route *route = &routes->items[i];
        if (stream == (route->kind == ROUTE_STREAM) && same(method, text_slice(route->method)) &&
            path_matches(route, path, NULL) && (!ret->route || is_better(route, ret->route))) {
            ret->route = route;
            ret->index = (uint32_t)i;
        }
    }
    if (ret->route)
        (void)path_matches(ret->route, path, ret->params);
    return ret->route != NULL;
}

static bool listed(const char *list, const char *method)
{
    return http_list_has(text_slice(list), method);
}

char *routes_methods(const struct routes *routes, struct slice path, char *out, size_t size)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; routes && i < routes->count; i++) {
        const struct route *route = &routes->items[i];
        if (listed(out, route->method) || !path_matches(route, path, NULL))
            continue;
        int n = snprintf(out + len, size - len, "%s%s", route->method,
                         strcmp(route->method, "GET") == 0 ? ", HEAD, " : ", ");
        if (n < 0 || (size_t)n >= size - len - sizeof("OPTIONS"))
            break;
        len += (size_t)n;
    }
    (void)snprintf(out + len, size - len, "%s", len ? "OPTIONS" : "");
    return out;
}
