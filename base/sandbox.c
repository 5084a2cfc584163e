/* What this process may still do: see sandbox.h. Sources: landlock(7), seccomp(2), capset(2), and
 * the kernel's Documentation/userspace-api/landlock.rst for what each ABI version brought. */
#include "base/sandbox.h"
#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Headers may be older than the kernel: numbers and layouts as linux/landlock.h has them. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

struct ruleset_attr {
    uint64_t handled_fs, handled_net, scoped;
};

struct path_rule {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

struct port_rule {
    uint64_t allowed, port;
};

enum { RULE_PATH = 1, RULE_PORT = 2, VERSION_FLAG = 1 };
enum { NET_ABI = 4, SCOPE_ABI = 6, REFER_ABI = 2, TRUNCATE_ABI = 3 };

#define FS_EXECUTE UINT64_C(1)
#define FS_WRITE_FILE (UINT64_C(1) << 1)
#define FS_REMOVE_AND_MAKE (UINT64_C(0x1ff) << 4) /* remove: 4, 5; make: 6 to 12 */
#define FS_REFER (UINT64_C(1) << 13)
#define FS_TRUNCATE (UINT64_C(1) << 14)
#define NET_CONNECT_TCP (UINT64_C(1) << 1)
#define SCOPES UINT64_C(3) /* abstract sockets, signals */

static void say(char words[SANDBOX_WORDS], const char *what)
{
    size_t n = strlen(words);
    snprintf(words + n, SANDBOX_WORDS - n, "%s%s", n > 0 ? ", " : "", what);
}

void sandbox_may_write(struct sandbox *s, const char *path)
{
    if (!path || !*path)
        return;
    CHECK(s->write_count < SANDBOX_MAX_WRITE, "more than %d paths", SANDBOX_MAX_WRITE);
    s->write[s->write_count++] = path;
}

void sandbox_may_connect(struct sandbox *s, int port)
{
    CHECK(s->port_count < SANDBOX_MAX_PORTS && port >= 0 && port <= 65535, "%u ports, port %d",
          s->port_count, port);
    s->port[s->port_count++] = (uint16_t)port;
}

bool sandbox_here(void)
{
    return !SANITIZED;
}

/* --- capabilities ------------------------------------------------------------------------------
 */

static enum status drop_capabilities(uint64_t keep, struct error *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &head, data) != 0)
        return error_errno(err, errno, "sandbox: capabilities");
    uint32_t dropped = 0;
    for (int i = 0; i < 2; i++) {
        uint32_t kept = data[i].permitted & (uint32_t)(keep >> (32 * i));
        dropped |= data[i].permitted ^ kept;
        data[i] = (struct __user_cap_data_struct){.effective = kept, .permitted = kept};
    }
    if (dropped == 0) /* a service manager that has left none may forbid the call too */
        return OK;
    if (syscall(SYS_capset, &head, data) != 0)
        return error_errno(err, errno, "sandbox: capabilities");
    return OK;
}

static enum status no_new_privs(struct error *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_errno(err, errno, "sandbox: no_new_privs");
    return OK;
}

/* --- Landlock ----------------------------------------------------------------------------------
 */

static enum status add_path(int ruleset, const char *path, uint64_t writes, struct error *err)
{
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) /* what is not there is not written */
        return OK;
    enum status done = OK;
    if (fstat(fd, &st) != 0)
        done = error_errno(err, errno, "sandbox: %s", path);
    struct path_rule rule = {.allowed = writes, .parent_fd = fd};
    if (done == OK && !S_ISDIR(st.st_mode))
        rule.allowed &= FS_WRITE_FILE | FS_TRUNCATE;
    if (done == OK && syscall(SYS_landlock_add_rule, ruleset, RULE_PATH, &rule, 0) != 0)
        done = error_errno(err, errno, "sandbox: Landlock: %s", path);
    close(fd);
    return done;
}

static enum status add_rules(const struct sandbox *s, int ruleset, const struct ruleset_attr *a,
                             struct error *err)
{
    for (uint32_t i = 0; i < s->write_count && a->handled_fs; i++)
        TRY(add_path(ruleset, s->write[i], a->handled_fs & ~FS_EXECUTE, err));
    for (uint32_t i = 0; i < s->port_count && a->handled_net; i++) {
        struct port_rule rule = {.allowed = NET_CONNECT_TCP, .port = s->port[i]};
        if (syscall(SYS_landlock_add_rule, ruleset, RULE_PORT, &rule, 0) != 0)
            return error_errno(err, errno, "sandbox: Landlock: port %u", s->port[i]);
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
        return error_errno(err, errno, "sandbox: Landlock");
    return OK;
}

/* What of `s` this version of the kernel's knows. */
static struct ruleset_attr handled(const struct sandbox *s, long abi)
{
    struct ruleset_attr a = {0};
    if (!s->any_file)
        a.handled_fs = FS_EXECUTE | FS_WRITE_FILE | FS_REMOVE_AND_MAKE |
                       (abi >= REFER_ABI ? FS_REFER : 0) | (abi >= TRUNCATE_ABI ? FS_TRUNCATE : 0);
    if (s->connects && abi >= NET_ABI)
        a.handled_net = NET_CONNECT_TCP;
    if (s->alone && abi >= SCOPE_ABI)
        a.scoped = SCOPES;
    return a;
}

static enum status landlock(const struct sandbox *s, char words[SANDBOX_WORDS], struct error *err)
{
    char line[128];
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, VERSION_FLAG);
    if (abi < 1) {
        say(words, "no Landlock in this kernel: files and connections are not restricted");
        return OK;
    }
    struct ruleset_attr a = handled(s, abi);
    if (!a.handled_fs && !a.handled_net && !a.scoped)
        return OK;
    size_t size = abi >= SCOPE_ABI ? sizeof a : abi >= NET_ABI ? 16 : 8;
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &a, size, 0);
    if (ruleset < 0)
        return error_errno(err, errno, "sandbox: Landlock");
    enum status st = add_rules(s, ruleset, &a, err);
    close(ruleset);
    snprintf(line, sizeof line, "Landlock (ABI %ld): %s%s%s", abi,
             a.handled_fs ? "writing" : "no files", a.handled_net ? ", connections" : "",
             a.scoped ? ", signals" : "");
    if (st == OK)
        say(words, line);
    if (st == OK && s->connects && !a.handled_net)
        say(words, "connections are not restricted, as Landlock here is older than ABI 4");
    return st;
}

enum status sandbox_begin(const struct sandbox *s, char words[SANDBOX_WORDS], struct error *err)
{
    if (!sandbox_here()) {
        say(words, "none in a build with sanitizers");
        return OK;
    }
    TRY(drop_capabilities(s->keep, err));
    say(words, s->keep ? "capabilities dropped but for those it needs" : "no capabilities");
    if (s->any_file && !s->connects && !s->alone)
        return OK;
    TRY(no_new_privs(err));
    return landlock(s, words, err);
}

/* --- seccomp -----------------------------------------------------------------------------------
 */

/* Calls by which a process becomes another program, reaches into others, or changes machine and
 * kernel; io_uring, whose requests no filter sees. None of them is made between start and end by
 * us, gRPC, libevent, OpenSSL, Open MPI or NVIDIA's libraries; where one of these should try, it
 * takes EPERM as it does in a container. */
static const int forbidden[] = {
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_setns,
    SYS_unshare,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_swapon,
    SYS_swapoff,
    SYS_reboot,
    SYS_acct,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_open_by_handle_at,
    SYS_quotactl,
    SYS_syslog,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
#ifdef SYS_iopl
    SYS_iopl,
    SYS_ioperm,
#endif
};

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef OWN_ARCH
enum { X32_BIT = 0x40000000, FILTER_MAX = 8 + 2 * COUNT_OF(forbidden) };

/* Another architecture's numbers mean other calls: all of them are forbidden. Returns its length.
 */
static unsigned short make_filter(struct sock_filter f[FILTER_MAX])
{
    const struct sock_filter deny = BPF_STMT(BPF_RET | BPF_K,
                                             SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA));
    size_t n = 0;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                          (uint32_t)offsetof(struct seccomp_data, arch));
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0);
    f[n++] = deny;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                          (uint32_t)offsetof(struct seccomp_data, nr));
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    f[n++] = deny;
    for (size_t i = 0; i < COUNT_OF(forbidden); i++) {
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)forbidden[i], 0,
                                              1);
        f[n++] = deny;
    }
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    return (unsigned short)n;
}

static enum status filter_calls(char words[SANDBOX_WORDS], struct error *err)
{
    struct sock_filter filter[FILTER_MAX];
    const struct sock_fprog program = {.len = make_filter(filter), .filter = filter};
    long refused = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
                           &program);
    if (refused < 0 && (errno == ENOSYS || errno == EINVAL || errno == EPERM)) {
        say(words, "no seccomp filter of its own: this kernel or what started it has none for it");
        return OK;
    }
    if (refused < 0)
        return error_errno(err, errno, "sandbox: seccomp");
    if (refused > 0)
        return error_set(err, ERR_CONFLICT, "sandbox: seccomp: thread %ld has a filter of its own",
                         refused);
    say(words, "seccomp");
    return OK;
}
#else
static enum status filter_calls(char words[SANDBOX_WORDS], struct error *err)
{
    (void)err;
    say(words, "no seccomp filter for this processor's architecture");
    return OK;
}
#endif

enum status sandbox_seal(char words[SANDBOX_WORDS], struct error *err)
{
    if (!sandbox_here())
        return OK;
    TRY(no_new_privs(err));
    say(words, "no_new_privs");
    return filter_calls(words, err);
}
