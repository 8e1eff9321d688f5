/* The process title as ps(1) shows it, written over the arguments and the environment, which also
 * wipes what must not stay readable there: a URL's password. */
#ifndef SERVER_TITLE_H
#define SERVER_TITLE_H

#include <stddef.h>

struct title {
    char *area; /* the kernel's arguments, then its environment; NULL: title_set() only names */
    size_t size;
    char **args; /* owned: the arguments' copy */
};

/* Moves arguments and environment elsewhere, so that their place may be overwritten. Call first in
 * main(). Returns the arguments' copy (NULL-terminated), or argv itself when memory ran out. */
char **title_init(struct title *title, int argc, char **argv);
/* Releases the arguments' copy; the environment stays where it is now. */
void title_done(struct title *title);
void title_set(const struct title *title, const char *text);

#endif
