/* Does the other side of a connection take what it is sent? See http_private.h. This file alone
 * includes the kernel's own declaration of TCP_INFO, which knows more fields than libc's. */
#include "coordinator/http_private.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

/* A client that does not read leaves its window closed, and then acknowledges nothing: what it was
 * sent stays in the kernel's queue, or behind it in ours. */
bool conn_is_stuck(struct conn *c, int64_t now_ns)
{
    struct tcp_info t = {0};
    socklen_t len = sizeof t;
    bool known = getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &t, &len) == 0 &&
                 len >= offsetof(struct tcp_info, tcpi_notsent_bytes) + sizeof t.tcpi_notsent_bytes;
    bool waits = known && (t.tcpi_unacked > 0 || t.tcpi_notsent_bytes > 0);
    if (!waits || t.tcpi_bytes_acked != c->acked) {
        c->acked = t.tcpi_bytes_acked;
        c->taken_ns = now_ns;
    }
    return now_ns - c->taken_ns >= c->http->read_timeout_ns;
}
