/* Telling a service manager: see service.h. The protocol: sd_notify(3), "Notes". */
#include "base/service.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un manager;
static socklen_t manager_len; /* 0: there is none */

void service_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    manager_len = 0;
    /* A path, or with "@" a name in Linux' abstract namespace. */
    if (len > 1 && len < sizeof manager.sun_path && (*path == '/' || *path == '@')) {
        manager = (struct sockaddr_un){.sun_family = AF_UNIX};
        memcpy(manager.sun_path, path, len);
        if (*path == '@')
            manager.sun_path[0] = '\0';
        manager_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    unsetenv("NOTIFY_SOCKET");
}

void service_tell(const char *fmt, ...)
{
    char text[1024];
    va_list args;
    if (manager_len == 0)
        return;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    int fd = n > 0 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (fd < 0)
        return;
    size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    ssize_t ignored = sendto(fd, text, len, MSG_NOSIGNAL, (const struct sockaddr *)&manager,
                             manager_len);
    (void)ignored;
    close(fd);
}
