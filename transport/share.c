/* Memory that ranks of one machine share: see comm_share in transport.h. It has no name in any file
 * system and no limit but the machine's own. */
#include "transport/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* Where the first rank's memory is found. */
struct place {
    int64_t pid;
    int32_t fd;
    uint64_t nonce; /* also the memory's last bytes: numbers of processes mean little elsewhere */
};

static void *nonce_in(const struct shared_memory *m)
{
    return (char *)m->at + m->bytes - sizeof(uint64_t);
}

static enum status map(int fd, struct shared_memory *m, struct error *err)
{
    void *at = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes that ranks share: %s",
                         m->bytes, strerror(errno));
    m->at = at;
    return OK;
}

static enum status make(struct place *p, struct shared_memory *m, struct error *err)
{
    p->fd = memfd_create("witan", MFD_CLOEXEC);
    if (p->fd < 0 || ftruncate(p->fd, (off_t)m->bytes) != 0 ||
        getrandom(&p->nonce, sizeof p->nonce, 0) != sizeof p->nonce)
        return error_errno(err, errno, "%zu bytes for ranks to share", m->bytes);
    p->pid = getpid();
    TRY(map(p->fd, m, err));
    memcpy(nonce_in(m), &p->nonce, sizeof p->nonce);
    return OK;
}

static enum status find(const struct place *p, struct shared_memory *m, struct error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/fd/%d", (long long)p->pid, (int)p->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERR_UNSUPPORTED, "%s of the first rank here: %s", path,
                         strerror(errno));
    enum status st = map(fd, m, err);
    close(fd);
    TRY(st);
    if (memcmp(nonce_in(m), &p->nonce, sizeof p->nonce) != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s is another process's", path);
    return OK;
}

enum status comm_share(struct comm *node, size_t bytes, struct shared_memory *out,
                       struct error *err)
{
    struct shared_memory m = {.bytes = bytes + sizeof(uint64_t)};
    struct place p = {.fd = -1};
    enum status st = node->rank == 0 ? make(&p, &m, err) : OK;
    st = comm_agree(node, st, err);
    if (st == OK)
        st = comm_broadcast(node, 0, &p, sizeof p, err);
    if (st == OK && node->rank > 0)
        st = find(&p, &m, err);
    st = comm_agree(node, st, err);
    if (node->rank == 0 && p.fd >= 0)
        close(p.fd);
    if (st != OK) {
        comm_unshare(&m);
        return st;
    }
    *out = m;
    return OK;
}

void comm_unshare(struct shared_memory *m)
{
    if (m->at)
        munmap(m->at, m->bytes);
    m->at = NULL;
}
