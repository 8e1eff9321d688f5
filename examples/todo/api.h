/* The to-do items by HTTP and as streams. */
#ifndef TODO_API_H
#define TODO_API_H

#include "store.h"

#include <fanwire/server.h>
#include <stdatomic.h>

enum { LEVEL_ERROR = 3, LEVEL_WARNING = 4, LEVEL_INFO = 6 }; /* of fw_server_log() */

struct api {
    struct store *store;
    struct fw_server *server; /* for its log */
    atomic_bool down;         /* the database was away when it was asked last */
};

/* Adds its routes and streams, below /api/todos/. Returns 0 or -errno. `api` is borrowed until
 * fw_server_free(). */
int api_routes(struct api *api, struct fw_error *err);
/* In the application process: looks whether the database is there, and says so if it is not. */
void api_start(struct api *api);

#endif
