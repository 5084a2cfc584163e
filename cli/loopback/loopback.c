/*
 * Preloaded into mpirun where all ranks of a group are on one machine. Open MPI 4.1 listens for its
 * own daemons on every interface, and none of its parameters changes that; on one machine there are
 * no such daemons. So what asks for any address gets loopback. It acts in mpirun alone: ranks are
 * started without it.
 */
#undef _GNU_SOURCE /* with it the C library declares bind by a union that cannot be defined */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* libc's, for every thread: the address is replaced where it is "any". */
int bind(int fd, const struct sockaddr *address, socklen_t len)
{
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    if (address->sa_family == AF_INET && len >= sizeof four) {
        memcpy(&four, address, sizeof four);
        if (four.sin_addr.s_addr == htonl(INADDR_ANY))
            four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return (int)syscall(SYS_bind, fd, &four, sizeof four);
    }
    if (address->sa_family == AF_INET6 && len >= sizeof six) {
        memcpy(&six, address, sizeof six);
        if (IN6_IS_ADDR_UNSPECIFIED(&six.sin6_addr))
            six.sin6_addr = in6addr_loopback;
        return (int)syscall(SYS_bind, fd, &six, sizeof six);
    }
    return (int)syscall(SYS_bind, fd, address, len);
}
