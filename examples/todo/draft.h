/* What a client says of an item: a JSON object, checked. */
#ifndef TODO_DRAFT_H
#define TODO_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ID_MAX    64
#define TITLE_MAX 10000 /* characters */
#define IDS_MAX   10000

struct draft {
    char id[ID_MAX + 1]; /* "": not said */
    char *title;         /* owned, white space around it removed; NULL: not said */
    int completed;       /* 0, 1; -1: not said */
    int64_t created;     /* ms since 1970; -1: not said */
    char *ids;           /* of many items: a JSON array, owned; NULL: not said */
};

enum {
    DRAFT_ID = 1,
    DRAFT_TITLE = 2,
    DRAFT_COMPLETED = 4,
    DRAFT_CREATED = 8,
    DRAFT_IDS = 16,
};

/* Says nothing but the id, cut to ID_MAX; "": not even that. */
struct draft draft_make(const char *id);

/* Reads a request's body. Returns 0; or -EINVAL with a sentence for people in `why` when it is not
 * JSON, has something that is not in `allowed`, lacks something that is in `needed` (DRAFT_…), or a
 * value won't do; or -ENOMEM. Ownership: *ret is released by draft_done() in every case. */
int draft_read(struct draft *ret, const void *body, size_t len, unsigned allowed, unsigned needed,
               char *why, size_t size);
void draft_done(struct draft *draft);

/* 1 to ID_MAX of A–Z a–z 0–9 _ - */
bool id_is_valid(const char *id);
/* Gives the draft a random id. */
int draft_make_id(struct draft *draft);

#endif
