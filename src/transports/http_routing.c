/* Routing: which of the server's own addresses, or of the program's, a request is for. */
#include "client_js.h"
#include "http_session.h"
#include "page_html.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

#define METHODS_MAX 128 /* fits into FIELDS_MAX beside the fields of CORS */

/* ---- CORS ---- */

void http_allow_origin(const struct worker *w, struct conn *c, const struct http_request *r)
{
    char *fields = c->more->fields;
    fields[0] = 0;
    if (!r->origin.data || !origin_allowed(w, r) || r->origin.len > 256)
        return;
    (void)snprintf(fields, FIELDS_MAX,
                   "Access-Control-Allow-Origin: %.*s\r\nVary: Origin\r\n"
                   "Access-Control-Expose-Headers: Retry-After\r\n",
                   (int)r->origin.len, r->origin.data);
}

bool http_origin_ok(struct worker *w, struct conn *c, const struct http_request *request)
{
    if (origin_allowed(w, request))
        return true;
    bool host_ok = host_allowed(w, request);
    struct slice wrong = host_ok ? request->origin : request->host;
    char shown[256], detail[400];
    text_escape(shown, sizeof(shown), wrong.data, wrong.len);
    (void)snprintf(detail, sizeof(detail),
                   host_ok ? "start the server with --origin %s"
                           : "the server is not called %s; --host says how it is",
                   shown);
    http_refuse(w, c, CODE_ORIGIN_FORBIDDEN, detail);
    return false;
}

static void preflight(struct worker *w, struct conn *c, const struct target *target)
{
    char own[METHODS_MAX], fields[FIELDS_MAX + 512];
    const char *methods = routes_methods(w->settings->routes, target->path, own, sizeof(own));
    (void)snprintf(fields, sizeof(fields),
                   "%sAllow: %s\r\n"
                   "Access-Control-Allow-Methods: %s\r\n"
                   "Access-Control-Allow-Headers: Authorization, Content-Type, Last-Event-ID, "
                   "Idempotency-Key, Fanwire-Client\r\n"
                   "Access-Control-Max-Age: 7200\r\n",
                   c->more->fields, *methods ? methods : "GET, HEAD, POST, OPTIONS",
                   *methods ? methods : "GET, POST");
    http_respond(w, c, 204, NULL, fields, NULL, 0);
    http_answered(w, c);
}

/* ---- where a request leads ---- */

/* True when the path is `route` or below it; *ret_rest is "" or begins with the slash. */
static bool route_is(struct slice path, const char *route, struct slice *ret_rest)
{
    size_t len = strlen(route);
    if (path.len < len || memcmp(path.data, route, len) != 0 ||
        (path.len > len && path.data[len] != '/'))
        return false;
    *ret_rest = (struct slice){ path.data + len, path.len - len };
    return true;
}

static bool strip_base(const struct worker *w, struct slice *path)
{
    const char *base = w->settings->base_path;
    struct slice rest;
    if (strcmp(base, "/") == 0)
        return true;
    if (!route_is(*path, base, &rest))
        return false;
    *path = rest.len ? rest : (struct slice){ "/", 1 };
    return true;
}

static const struct {
    const char *path;
    enum target_kind kind;
    bool below; /* also what is below it */
} own_paths[] = {
    { "/ws", TARGET_WS, true },
    { "/sse", TARGET_SSE, true },
    { "/history", TARGET_HISTORY, true },
    { "/publish", TARGET_PUBLISH, true },
    { "/echo", TARGET_ECHO, false },
    { "/healthz", TARGET_HEALTH, false },
    { "/fanwire.js", TARGET_CLIENT, false },
};

static enum target_kind own_target(const struct worker *w, struct target *target)
{
    for (size_t i = 0; i < sizeof(own_paths) / sizeof(own_paths[0]); i++) {
        if (route_is(target->path, own_paths[i].path, &target->rest) &&
            (own_paths[i].below || target->rest.len == 0) &&
            (own_paths[i].kind != TARGET_ECHO || w->settings->echo))
            return own_paths[i].kind;
    }
    return TARGET_NOTHING;
}

static bool wants_stream(const struct http_request *request)
{
    return request->method == HTTP_GET &&
           (request->upgrade_websocket || http_list_has(request->accept, "text/event-stream"));
}

static enum target_kind route_target(const struct worker *w, const struct http_request *request,
                                     struct target *target)
{
    const struct routes *routes = w->settings->routes;
    char methods[METHODS_MAX];
    if (!routes)
        return TARGET_NOTHING;
    struct route_match *match = &target->match;
    if (wants_stream(request))
        (void)routes_match(routes, target->path, request->method_text, true, match);
    if (!match->route)
        (void)routes_match(routes, target->path, request->method_text, false, match);
    if (!match->route) /* a plain GET of what is a stream alone is told to upgrade */
        (void)routes_match(routes, target->path, request->method_text, true, match);
    if (match->route)
        return TARGET_ROUTE;
    return *routes_methods(routes, target->path, methods, sizeof(methods)) ? TARGET_METHOD
                                                                           : TARGET_NOTHING;
}

struct target http_target(const struct worker *w, const struct http_request *request)
{
    struct target target = { .kind = TARGET_OUTSIDE, .path = request->path };
    if (!strip_base(w, &target.path))
        return target;
    target.kind = own_target(w, &target);
    if (target.kind == TARGET_NOTHING)
        target.kind = route_target(w, request, &target);
    if (target.kind == TARGET_NOTHING && w->settings->dev && target.path.len == 1)
        target.kind = TARGET_PAGE;
    return target;
}

/* ---- answers without delay ---- */

static void simple(struct worker *w, struct conn *c, const char *type, const char *body, size_t len)
{
    http_respond(w, c, 200, type, c->more->fields, body, len);
    http_answered(w, c);
}

/* RFC 9110 13.1.2, weak comparison: any of the tags listed, or all. */
static bool etag_matches(struct slice list, const char *etag)
{
    return list.data && ((list.len == 1 && list.data[0] == '*') ||
                         memmem(list.data, list.len, etag, strlen(etag)) != NULL);
}

static void tagged(struct worker *w, struct conn *c, const struct http_request *request,
                   const char *type, const char *etag, const void *data, size_t len)
{
    char fields[FIELDS_MAX + 128];
    (void)snprintf(fields, sizeof(fields), "%sETag: %s\r\nCache-Control: no-cache\r\n",
                   c->more->fields, etag);
    if (etag_matches(request->if_none_match, etag))
        http_respond(w, c, 304, NULL, fields, NULL, 0);
    else
        http_respond(w, c, 200, type, fields, data, len);
    http_answered(w, c);
}

/* The JavaScript client; public, so that a page of any origin may import it. */
static void client_request(struct worker *w, struct conn *c, const struct http_request *request)
{
    (void)snprintf(c->more->fields, FIELDS_MAX, "Access-Control-Allow-Origin: *\r\n");
    tagged(w, c, request, "text/javascript; charset=utf-8", client_js_etag, client_js,
           sizeof(client_js) - 1);
}

/* The page's own URLs are relative: to "/live/", which "/live" leads to. */
static void redirect_to_slash(struct worker *w, struct conn *c)
{
    char fields[FIELDS_MAX + 256];
    (void)snprintf(fields, sizeof(fields), "%sLocation: %s/\r\n", c->more->fields,
                   w->settings->base_path);
    http_respond(w, c, 308, NULL, fields, NULL, 0);
    http_answered(w, c);
}

/* Bytes of the program: a page of another origin must not frame one of ours and lead clicks to it.
 */
static void asset_request(struct worker *w, struct conn *c, const struct http_request *request,
                          const struct route *route)
{
    size_t used = strlen(c->more->fields);
    if (request->path.data[request->path.len - 1] != '/' && strcmp(route->path, "/") == 0) {
        redirect_to_slash(w, c);
        return;
    }
    (void)snprintf(c->more->fields + used, FIELDS_MAX - used, "X-Frame-Options: SAMEORIGIN\r\n");
    tagged(w, c, request, route->type, route->etag, route->data, route->len);
}

static void refuse_method(struct worker *w, struct conn *c, const char *methods)
{
    char detail[METHODS_MAX + 16];
    size_t used = strlen(c->more->fields);
    (void)snprintf(c->more->fields + used, FIELDS_MAX - used, "Allow: %s\r\n", methods);
    (void)snprintf(detail, sizeof(detail), "use %.*s", (int)strcspn(methods, ","), methods);
    http_refuse(w, c, CODE_METHOD_NOT_ALLOWED, detail);
}

void http_refuse_method(struct worker *w, struct conn *c, const struct target *target)
{
    char methods[METHODS_MAX];
    refuse_method(w, c,
                  routes_methods(w->settings->routes, target->path, methods, sizeof(methods)));
}

static bool method_is(struct worker *w, struct conn *c, const struct http_request *request,
                      bool post)
{
    bool get = request->method == HTTP_GET || request->method == HTTP_HEAD;
    if (post ? request->method == HTTP_POST : get)
        return true;
    refuse_method(w, c, post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS");
    return false;
}

/* ---- dispatching ---- */

static void own_request(struct worker *w, struct conn *c, const struct http_request *request,
                        const struct target *target, const char *body, size_t len)
{
    bool socket = target->kind == TARGET_WS || target->kind == TARGET_ECHO;
    bool open = target->kind >= TARGET_HEALTH;
    if ((!open && !http_origin_ok(w, c, request)) ||
        (!socket && !method_is(w, c, request, target->kind == TARGET_PUBLISH)))
        return;
    switch (target->kind) {
    case TARGET_WS:
        http_ws_request(w, c, request, target->rest);
        return;
    case TARGET_ECHO:
        http_echo_request(w, c, request);
        return;
    case TARGET_SSE:
        http_sse_request(w, c, request, target->rest);
        return;
    case TARGET_HISTORY:
        http_history_request(w, c, request, target->rest);
        return;
    case TARGET_PUBLISH:
        http_publish_request(w, c, request, target->rest, body, len);
        return;
    case TARGET_HEALTH:
        simple(w, c, "text/plain", "ok\n", 3);
        return;
    case TARGET_CLIENT:
        client_request(w, c, request);
        return;
    default:
        simple(w, c, "text/html; charset=utf-8", page_html, strlen(page_html));
    }
}

static void route_request(struct worker *w, struct conn *c, const struct http_request *request,
                          const struct route_match *match, const char *body, size_t len)
{
    const struct route *route = match->route;
    bool bodiless = request->method == HTTP_GET || request->method == HTTP_HEAD;
    if (route->kind == ROUTE_ASSET)
        asset_request(w, c, request, route);
    else if (http_origin_ok(w, c, request))
        call_begin(w, c, request, match, body, bodiless ? 0 : len);
}

static void public_request(struct worker *w, struct conn *c, const struct http_request *request,
                           const char *body, size_t len)
{
    struct target target = http_target(w, request);
    http_allow_origin(w, c, request);
    if (request->method == HTTP_OPTIONS) {
        preflight(w, c, &target);
        return;
    }
    if (target.match.route) {
        route_request(w, c, request, &target.match, body, len);
        return;
    }
    switch (target.kind) {
    case TARGET_OUTSIDE:
        http_refuse(w, c, CODE_NOT_FOUND, "outside of --base-path");
        return;
    case TARGET_NOTHING:
        http_refuse(w, c, CODE_NOT_FOUND,
                    "there are /ws, /sse, /history, /publish, /fanwire.js and /healthz");
        return;
    case TARGET_METHOD:
        http_refuse_method(w, c, &target);
        return;
    default:
        own_request(w, c, request, &target, body, len);
    }
}

void http_dispatch(struct worker *w, struct conn *c, const struct http_request *request,
                   const char *body, size_t len)
{
    c->flags = request->keep_alive ? c->flags | CONN_KEEP : c->flags & ~(uint32_t)CONN_KEEP;
    if (request->method == HTTP_HEAD)
        c->flags |= CONN_HEAD;
    if (!(c->flags & CONN_ADMIN))
        public_request(w, c, request, body, len);
    else if (!admin_request(w, c, request))
        http_refuse(w, c, CODE_NOT_FOUND, "there are /metrics, /healthz and /readyz");
}
