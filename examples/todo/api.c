/* The to-do items by HTTP and as streams.
 *
 * Nothing here tells a change to anybody: the database does, to the channels "todos" and
 * "todos:ID", whoever made it. */
#include "api.h"

#include "item.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- answers ---- */

/* What other programs write has no bounds: a list may be too large for an answer. */
static void answer(struct fw_request *request, struct api *api, unsigned status, const json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    if (!text) {
        (void)fw_request_problem(request, 500, "internal", "Out of memory.");
        return;
    }
    size_t len = strlen(text);
    int r = fw_request_answer(request, status, "application/json", text, len);
    if (r == -EMSGSIZE)
        fw_server_log(api->server, LEVEL_ERROR, "answer-failed",
                      "an answer of %zu bytes is over 16 MiB: delete some items by SQL", len);
    free(text);
}

static void answer_nothing(struct fw_request *request)
{
    (void)fw_request_answer(request, 204, NULL, NULL, 0);
}

static void refuse(struct fw_request *request, const char *detail)
{
    (void)fw_request_problem(request, 400, "bad-request", detail);
}

static void answer_unknown(struct fw_request *request)
{
    (void)fw_request_problem(request, 404, "not-found",
                             "There is no such item; it may have been deleted.");
}

/* The log gets a line when the database goes and one when it is back, not one for each request. */
static void note_down(struct api *api, bool down, const char *why)
{
    if (atomic_exchange(&api->down, down) == down)
        return;
    if (down)
        fw_server_log(api->server, LEVEL_WARNING, "store-down", "%s", why);
    else
        fw_server_log(api->server, LEVEL_INFO, "store-up", "the database answers again");
}

static void answer_failure(struct fw_request *request, struct api *api, int code,
                           const struct fw_error *err)
{
    switch (code) {
    case -EAGAIN:
    case -ETIMEDOUT:
        note_down(api, true, err->message);
        (void)fw_request_add_header(request, "Retry-After", "1");
        (void)fw_request_problem(
            request, 503, "source-down",
            code == -EAGAIN ? "The database is away or busy. Nothing was changed; try again."
                            : "The database went away: the change may have been made or "
                              "not. Look, then try again.");
        return;
    case -EINVAL:
        (void)fw_request_problem(request, 400, "bad-request", err->message);
        return;
    case -ENOSPC:
        (void)fw_request_problem(request, 409, "full", err->message);
        return;
    default:
        fw_server_log(api->server, LEVEL_ERROR, "store-failed", "%s", err->message);
        (void)fw_request_problem(request, 500, "internal",
                                 "The database has refused this; the server's log says why.");
    }
}

/* Looks at what the store has returned: true, or it answers itself. */
static bool went_well(struct fw_request *request, struct api *api, int result,
                      const struct fw_error *err)
{
    if (result < 0)
        answer_failure(request, api, result, err);
    else
        note_down(api, false, NULL);
    return result >= 0;
}

/* Takes `item`; NULL: there is none. */
static void answer_item(struct fw_request *request, struct api *api, int result, unsigned status,
                        json_t *item, const struct fw_error *err)
{
    bool well = went_well(request, api, result, err);
    if (well && item)
        answer(request, api, status, item);
    else if (well)
        answer_unknown(request);
    json_decref(item);
}

static void answer_done(struct fw_request *request, struct api *api, int result,
                        const struct fw_error *err)
{
    if (went_well(request, api, result, err))
        answer_nothing(request);
}

/* ---- requests ---- */

/* The path's id; NULL where no item can have it. */
static const char *id_of(const struct fw_request *request)
{
    const char *id = fw_request_param(request, "id");
    return id && id_is_valid(id) ? id : NULL;
}

/* Reads the body. Returns true; or answers itself, and the draft is released. */
static bool read_draft(struct fw_request *request, unsigned allowed, unsigned needed,
                       struct draft *ret)
{
    char why[256];
    size_t len;
    const void *body = fw_request_body(request, &len);
    int r = draft_read(ret, body, len, allowed, needed, why, sizeof(why));
    if (r == 0)
        return true;
    if (r == -EINVAL)
        refuse(request, why);
    else
        (void)fw_request_problem(request, 500, "internal", "Out of memory.");
    draft_done(ret);
    return false;
}

static void list(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    json_t *items = json_array();
    int r = items ? store_list(api->store, item_append, items, &err) : -ENOMEM;
    answer_item(request, api, r, 200, items, &err);
}

static void get(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    json_t *item = NULL;
    const char *id = id_of(request);
    if (!id) {
        answer_unknown(request);
        return;
    }
    int r = store_get(api->store, id, item_keep, &item, &err);
    answer_item(request, api, r, 200, item, &err);
}

/* A client that makes the id itself may send the request again until it is answered. */
static void add(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    json_t *item = NULL;
    struct draft draft;
    if (!read_draft(request, DRAFT_ID | DRAFT_TITLE | DRAFT_COMPLETED | DRAFT_CREATED, DRAFT_TITLE,
                    &draft))
        return;
    int r = draft.id[0] ? 0 : draft_make_id(&draft);
    if (r == 0)
        r = store_add(api->store, &draft, item_keep, &item, &err);
    if (r == 1) {
        char location[ID_MAX + 2]; /* relative to this URL */
        (void)snprintf(location, sizeof(location), "%s/", draft.id);
        (void)fw_request_add_header(request, "Location", location);
    }
    draft_done(&draft);
    answer_item(request, api, r, r == 1 ? 201 : 200, item, &err);
}

static void change(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    json_t *item = NULL;
    struct draft draft;
    const char *id = id_of(request);
    if (!id) {
        answer_unknown(request);
        return;
    }
    if (!read_draft(request, DRAFT_TITLE | DRAFT_COMPLETED, 0, &draft))
        return;
    (void)snprintf(draft.id, sizeof(draft.id), "%s", id);
    int r = store_change(api->store, &draft, item_keep, &item, &err);
    draft_done(&draft);
    answer_item(request, api, r, 200, item, &err);
}

static void remove_one(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    const char *id = id_of(request);
    if (id)
        answer_done(request, api, store_remove(api->store, id, &err), &err);
    else
        answer_nothing(request);
}

static void change_all(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    struct draft draft;
    if (!read_draft(request, DRAFT_COMPLETED | DRAFT_IDS, DRAFT_COMPLETED, &draft))
        return;
    int r = store_change_all(api->store, draft.completed, draft.ids, &err);
    answer_done(request, api, r, &err);
    draft_done(&draft);
}

/* Those of the body's ids, for who may be late: what others have completed since is not meant. */
static void remove_meant(struct fw_request *request, struct api *api)
{
    struct fw_error err = { 0 };
    struct draft draft;
    if (!read_draft(request, DRAFT_IDS, DRAFT_IDS, &draft))
        return;
    answer_done(request, api, store_remove_completed(api->store, draft.ids, &err), &err);
    draft_done(&draft);
}

static void remove_completed(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    const char *completed = fw_request_query(request, "completed");
    size_t len;
    (void)fw_request_body(request, &len);
    if (len > 0)
        remove_meant(request, api);
    else if (completed && strcmp(completed, "true") == 0)
        answer_done(request, api, store_remove_completed(api->store, NULL, &err), &err);
    else
        refuse(request, "All items? Only the completed can be deleted at once: ?completed=true, or "
                        "{\"ids\":[…]} for those of them that are completed.");
}

/* ---- streams: what there is, in the form of changes; then the changes ---- */

static int send_event(const struct item *item, void *arg)
{
    json_t *event = item_event(item);
    char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;
    int r = text ? fw_request_message(arg, text, strlen(text)) : -ENOMEM;
    free(text);
    json_decref(event);
    return r;
}

static void stream_all(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    int r = store_list(api->store, send_event, request, &err);
    if (went_well(request, api, r, &err))
        (void)fw_request_accept(request);
}

static void stream_one(struct fw_request *request, void *arg)
{
    struct api *api = arg;
    struct fw_error err = { 0 };
    const char *id = id_of(request);
    int r = id ? store_get(api->store, id, send_event, request, &err) : 0;
    if (r == 0)
        answer_unknown(request);
    else if (went_well(request, api, r, &err))
        (void)fw_request_accept(request);
}

/* ---- the whole ---- */

int api_routes(struct api *api, struct fw_error *err)
{
    static const struct {
        const char *method, *path;
        fw_handler_fn *handler;
    } routes[] = {
        { "GET", "/api/todos/", list },
        { "POST", "/api/todos/", add },
        { "PUT", "/api/todos/", change_all },
        { "DELETE", "/api/todos/", remove_completed },
        { "GET", "/api/todos/{id}/", get },
        { "PUT", "/api/todos/{id}/", change },
        { "DELETE", "/api/todos/{id}/", remove_one },
    };
    int r = fw_server_stream(api->server, "/api/todos/", "todos", stream_all, api, err);
    if (r == 0)
        r = fw_server_stream(api->server, "/api/todos/{id}/", "todos:{id}", stream_one, api, err);
    for (size_t i = 0; r == 0 && i < sizeof(routes) / sizeof(routes[0]); i++)
        r = fw_server_route(api->server, routes[i].method, routes[i].path, routes[i].handler, api,
                            err);
    return r;
}

void api_start(struct api *api)
{
    struct fw_error err = { 0 };
    json_t *item = NULL;
    int r = store_get(api->store, "", item_keep, &item, &err);
    json_decref(item);
    if (r < 0)
        note_down(api, true, err.message);
}
