/* What `witan doctor` finds of ports, of interfaces for the data plane, and of the launcher: see
 * doctor.h. Sources: getifaddrs(3), proc(5) (/proc/net/route), sysfs-class-net. */
#include "cli/doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { GOOD_MTU = 9000, LEAST_MTU = 1500 };

/* 0, or why nothing could listen there: EADDRINUSE, EACCES, EADDRNOTAVAIL, ... */
static int try_listen(const char *host, int port)
{
    char service[16];
    struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return EADDRNOTAVAIL;
    int one = 1, why = 0, fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 1) != 0)
        why = errno;
    if (fd >= 0)
        close(fd);
    freeaddrinfo(list);
    return why;
}

static void port(struct doctor *d, const char *key, const char *address)
{
    char host[256];
    int number;
    if (strcmp(address, "off") == 0 || address_split(address, host, &number, NULL) != OK)
        return;
    if (number == 0) {
        doctor_say(d, DOCTOR_OK, "ports", "%s: any free one on %s", key, host);
        return;
    }
    int why = try_listen(host, number);
    enum doctor_level level = why == 0               ? DOCTOR_OK
                              : why == EADDRNOTAVAIL ? DOCTOR_WARN
                                                     : DOCTOR_FAIL;
    doctor_say(d, level, "ports", "%s: %s %s", key, address, why == 0 ? "is free" : strerror(why));
    if (why == EADDRINUSE)
        doctor_advise(d, "end what listens there (`ss -ltnp`), a coordinator that runs already "
                         "perhaps, or name another port");
    else if (why == EADDRNOTAVAIL)
        doctor_advise(d, "not an address of this host: right where this is not the coordinator's");
    else if (why == EACCES)
        doctor_advise(d,
                      "a port from 1024 on, or systemd's AmbientCapabilities=CAP_NET_BIND_SERVICE");
}

/* Does "10.1.0.0/24" or "fd00::/8" hold the address? */
static bool inside(const char *subnet, const struct sockaddr *a)
{
    char text[80];
    unsigned char net[16], own[16];
    snprintf(text, sizeof text, "%s", subnet);
    char *slash = strchr(text, '/');
    if (!slash || !a)
        return false;
    *slash = '\0';
    int bits = atoi(slash + 1), family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (a->sa_family != family || inet_pton(family, text, net) != 1)
        return false;
    if (family == AF_INET)
        memcpy(own, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
    else
        memcpy(own, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
    for (int i = 0; i < bits && i < (family == AF_INET ? 32 : 128); i++)
        if (((net[i / 8] ^ own[i / 8]) >> (7 - i % 8)) & 1)
            return false;
    return true;
}

/* The interface that an item of data_plane names, by itself or by its subnet. */
static bool find_interface(const char *item, char name[IF_NAMESIZE], bool *up)
{
    struct ifaddrs *all;
    bool found = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        found = strcmp(i->ifa_name, item) == 0 || inside(item, i->ifa_addr);
        if (found) {
            snprintf(name, IF_NAMESIZE, "%s", i->ifa_name);
            *up = (i->ifa_flags & IFF_UP) && (i->ifa_flags & IFF_RUNNING);
        }
    }
    freeifaddrs(all);
    return found;
}

/* Does the default route go there? */
static bool is_default(const struct doctor *d, const char *name)
{
    char path[PATH_MAX], line[DOCTOR_LINE], interface[32], destination[16];
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/net/route", d->root);
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "%31s %15s", interface, destination) == 2 &&
                strcmp(interface, name) == 0 && strcmp(destination, "00000000") == 0;
    if (f)
        fclose(f);
    return found;
}

static void interface(struct doctor *d, const char *group, const char *item)
{
    char name[IF_NAMESIZE], path[128];
    bool up = false;
    if (!find_interface(item, name, &up)) {
        doctor_say(d, DOCTOR_FAIL, "data plane", "group %s: no interface here for \"%s\"", group,
                   item);
        doctor_advise(d, "groups.data_plane names what all of its hosts have (`ip -br address`); "
                         "right where this host is none of them");
        return;
    }
    snprintf(path, sizeof path, "/sys/class/net/%s/mtu", name);
    uint64_t mtu = doctor_number(d, path, "", LEAST_MTU);
    bool shared = is_default(d, name);
    doctor_say(d,
               !up                        ? DOCTOR_FAIL
               : shared || mtu < GOOD_MTU ? DOCTOR_WARN
                                          : DOCTOR_OK,
               "data plane", "group %s: %s, MTU %llu%s%s", group, name, (unsigned long long)mtu,
               up ? "" : ", down", shared ? ", and the default route" : "");
    if (!up)
        doctor_advise(d, "ip link set %s up, and a cable", name);
    else if (shared)
        doctor_advise(d, "it carries prompts unencrypted: a network of its own, without a way out");
    else if (mtu < GOOD_MTU)
        doctor_advise(d, "ip link set %s mtu 9000 on all hosts and switches, if it is theirs alone",
                      name);
}

static void data_plane(struct doctor *d, const struct config_group *g)
{
    char list[1024], *rest = NULL;
    if (!g->data_plane)
        return;
    snprintf(list, sizeof list, "%s", g->data_plane);
    for (char *item = strtok_r(list, ", ", &rest); item; item = strtok_r(NULL, ", ", &rest))
        interface(d, g->name, item);
}

/* Is the program in a folder of PATH? */
static bool in_path(const char *program)
{
    char path[PATH_MAX];
    const char *at = getenv("PATH");
    while (at && *at) {
        size_t n = strcspn(at, ":");
        int len = snprintf(path, sizeof path, "%.*s/%s", (int)n, at, program);
        if (n > 0 && len < (int)sizeof path && access(path, X_OK) == 0)
            return true;
        at += n + (at[n] == ':');
    }
    return false;
}

static void launcher(struct doctor *d)
{
    bool wanted = false, there = in_path("mpirun");
    for (uint32_t i = 0; d->config && i < d->config->groups_count; i++)
        wanted = wanted || !d->config->groups[i].external;
    doctor_say(d, there || !wanted ? DOCTOR_OK : DOCTOR_FAIL, "launcher", "mpirun %s",
               there ? "is there" : "is not in PATH");
    if (!there && wanted)
        doctor_advise(d, "install openmpi-bin, or external: true where Slurm or Kubernetes starts "
                         "the ranks");
}

void doctor_network(struct doctor *d)
{
    const struct config *c = d->config;
    launcher(d);
    if (!c)
        return;
    port(d, "listen.http", c->listen.http);
    port(d, "listen.grpc", c->listen.grpc);
    port(d, "listen.cluster", c->listen.cluster);
    for (uint32_t i = 0; i < c->groups_count; i++)
        data_plane(d, &c->groups[i]);
}
