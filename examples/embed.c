/* Prints every event of a channel: embed URL CHANNEL, for instance embed stdin: todos */
#include <fanwire.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct fw_hub *hub;
    struct fw_sub *sub;
    struct fw_event ev;
    struct fw_error err = { 0, "usage: embed URL CHANNEL" };
    int kind;
    if (argc != 3 || fw_hub_open(argv[1], NULL, &hub, &err) < 0 ||
        fw_sub_open(hub, argv[2], NULL, &sub, &err) < 0)
        return fprintf(stderr, "%s\n", err.message), 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((kind = fw_sub_next(sub, &ev, -1)) > 0)
        if (kind == FW_MESSAGE)
            printf("%.*s\n", (int)ev.len, (const char *)ev.data);
        else if (kind == FW_GAP)
            fprintf(stderr, "missed events after %s\n", ev.after ? ev.after : "an unknown place");
    fprintf(stderr, "%s\n", fw_sub_error(sub));
    fw_sub_close(sub);
    fw_hub_close(hub);
}
