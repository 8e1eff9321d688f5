/* Noticing that a database file may have changed: inotify where it works, polling behind it. */
#ifndef SOURCES_SQLITE_WATCH_H
#define SOURCES_SQLITE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct sqlite_watch {
    int fd;            /* inotify; -1: there is none, so it is polled */
    int dir, files[3]; /* watches: the directory, the file, its -wal, its -journal */
    char directory[4096], name[256];
    unsigned step;      /* looks since the last sign of life */
    unsigned unnoticed; /* changes that inotify did not tell of */
    bool blind;         /* inotify tells nothing here (a network file system) */
    int64_t changed_us; /* when something was found last */
};

enum { WATCH_WRITTEN = 1, WATCH_DIRECTORY = 2 }; /* what may have happened */

void sqlite_watch_open(struct sqlite_watch *watch, const char *path);
void sqlite_watch_close(struct sqlite_watch *watch);
/* Takes what inotify has to tell. Returns WATCH_… flags. */
unsigned sqlite_watch_take(struct sqlite_watch *watch);
/* The result of a look. True when inotify has just turned out to be blind here. */
bool sqlite_watch_looked(struct sqlite_watch *watch, bool changed, int64_t now_us);
/* How long to wait for inotify before looking all the same. */
int64_t sqlite_watch_wait_us(const struct sqlite_watch *watch, int64_t now_us);

#endif
