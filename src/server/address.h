/* Listening addresses as users write them: HOST:PORT, :PORT, [v6]:PORT, unix:PATH. */
#ifndef SERVER_ADDRESS_H
#define SERVER_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

struct fw_error;

struct address {
    char host[256]; /* "" = all interfaces; an IPv6 address without its brackets */
    uint16_t port;  /* 0: the kernel's choice */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "" = not a Unix socket */
};

/* Returns 0, or -EINVAL with text. Resolves nothing. */
int address_parse(const char *text, struct address *ret, struct fw_error *err);
/* Only this machine can reach it: 127.0.0.0/8, ::1, "localhost", a Unix socket. */
bool address_loopback(const struct address *address);

#endif
