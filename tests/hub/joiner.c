/* Joins a channel of a source with rows, and again, and again: joiner URL CHANNEL SELECT
 * Each line of standard input is another subscription in a thread of its own, which prints what it
 * is returned as "NUMBER KIND DATA". The end of standard input ends all. Driven by
 * tests/e2e/test_library_rows.py. */
#include <fanwire.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define JOINERS_MAX 200

struct joiner {
    pthread_t thread;
    struct fw_sub *sub;
    int number;
};

static void print(const struct joiner *joiner, const struct fw_event *ev)
{
    static const char *const kinds[] = {
        [FW_MESSAGE] = "message", [FW_READY] = "ready", [FW_GAP] = "gap",
        [FW_DOWN] = "down",       [FW_UP] = "up",       [FW_SNAPSHOT] = "snapshot"
    };
    printf("%d %s %.*s\n", joiner->number, kinds[ev->kind], (int)ev->len, (const char *)ev->data);
}

static void *read_all(void *arg)
{
    struct joiner *joiner = arg;
    struct fw_event ev;
    while (fw_sub_next(joiner->sub, &ev, -1) > 0)
        print(joiner, &ev);
    printf("%d end %s\n", joiner->number, fw_sub_error(joiner->sub));
    return NULL;
}

static void leave(struct joiner *joiner)
{
    fw_sub_cancel(joiner->sub);
    (void)pthread_join(joiner->thread, NULL);
    fw_sub_close(joiner->sub);
}

int main(int argc, char **argv)
{
    static struct joiner joiners[JOINERS_MAX];
    struct fw_sub_options rows = { .size = sizeof(rows), .snapshot = 1 };
    struct fw_error err = { 0, "usage: joiner URL CHANNEL SELECT" };
    struct fw_hub *hub;
    int n = 0, c;
    struct fw_snapshot_query query = { argc == 4 ? argv[2] : "", argc == 4 ? argv[3] : "" };
    struct fw_hub_options options = { .size = sizeof(options),
                                      .snapshots = &query,
                                      .n_snapshots = 1 };
    if (argc != 4 || fw_hub_open(argv[1], &options, &hub, &err) < 0)
        return fprintf(stderr, "%s\n", err.message), 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((c = getchar()) != EOF) {
        struct joiner *joiner = &joiners[n];
        if (c != '\n' || n == JOINERS_MAX)
            continue;
        if (fw_sub_open(hub, argv[2], &rows, &joiner->sub, &err) < 0)
            return fprintf(stderr, "%s\n", err.message), 1;
        joiner->number = n++;
        if (pthread_create(&joiner->thread, NULL, read_all, joiner) != 0)
            return fprintf(stderr, "no thread\n"), 1;
    }
    for (int i = 0; i < n; i++)
        leave(&joiners[i]);
    fw_hub_close(hub);
    return 0;
}
