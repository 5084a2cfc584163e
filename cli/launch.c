/* Starting processes: see launch.h. */
#include "cli/launch.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- words -------------------------------------------------------------------------------------
 */

void words_add(struct words *w, const char *fmt, ...)
{
    if (w->count + 2 > w->cap) {
        w->cap = w->cap ? 2 * w->cap : 32;
        w->list = realloc(w->list, w->cap * sizeof *w->list);
        CHECK(w->list, "no memory for %zu words", w->cap);
    }
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&w->list[w->count], fmt, args);
    va_end(args);
    CHECK(n >= 0, "no memory for a word");
    w->list[++w->count] = NULL;
}

static void add_list(struct words *w, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        words_add(w, "%s", list[i]);
}

void words_fini(struct words *w)
{
    for (size_t i = 0; i < w->count; i++)
        free(w->list[i]);
    free(w->list);
    *w = (struct words){0};
}

enum status launch_sibling(const char *name, char path[LAUNCH_MAX_PATH], struct error *err)
{
    ssize_t n = readlink("/proc/self/exe", path, LAUNCH_MAX_PATH - 1);
    if (n < 0)
        return error_errno(err, errno, "/proc/self/exe");
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    size_t room = (size_t)(LAUNCH_MAX_PATH - (slash + 1 - path));
    if (strlen(name) >= room)
        return error_set(err, ERR_LIMIT, "the path of %s is too long", name);
    snprintf(slash + 1, room, "%s", name);
    if (access(path, X_OK) != 0)
        return error_errno(err, errno, "%s", path);
    return OK;
}

enum status launch_loopback(char path[LAUNCH_MAX_PATH], struct error *err)
{
    return launch_sibling("../lib/witan_loopback.so", path, err);
}

/* --- mpirun ------------------------------------------------------------------------------------
 */

void launch_mpirun_words(const struct launch_mpi *m, struct words *out)
{
    /* Keep-alives: a cut network is otherwise not noticed for minutes. Yielding: ranks that
     * outnumber cores would spin the others out. Threads of a rank are not bound to its one core.
     * Copies straight between processes need a permission that containers lack. */
    static const char *const always[] = {
        "--bind-to", "none",  "--map-by",
        "slot",      "--mca", "mpi_yield_when_idle",
        "1",         "--mca", "oob_tcp_keepalive_time",
        "2",         "--mca", "oob_tcp_keepalive_intvl",
        "1",         "--mca", "oob_tcp_keepalive_probes",
        "3",         "--mca", "btl_vader_single_copy_mechanism",
        "none",
    };
    static const char *const tcp[] = {"--mca", "pml", "ob1", "--mca", "btl", "self,vader,tcp"};
    /* Ranks of one machine meet in memory; without this they listen on every interface. */
    static const char *const memory[] = {"--mca", "pml", "ob1", "--mca", "btl", "self,vader"};
    words_add(out, "mpirun");
    if (!m->verbose)
        words_add(out, "--quiet");
    add_list(out, always, COUNT_OF(always));
    if (m->one_host)
        words_add(out, "--oversubscribe");
    if (m->preloaded) {
        const char *own = getenv("LD_PRELOAD");
        words_add(out, "-x");
        words_add(out, "LD_PRELOAD=%s", own ? own : "");
    }
    if (m->data_plane) {
        static const char *const keys[] = {"oob_tcp_if_include", "btl_tcp_if_include"};
        for (size_t i = 0; i < COUNT_OF(keys); i++) {
            add_list(out, (const char *const[]){"--mca", keys[i], m->data_plane}, 3);
        }
        add_list(out, tcp, COUNT_OF(tcp));
    } else if (m->one_host) {
        add_list(out, memory, COUNT_OF(memory));
    }
    if (m->one_host && m->scratch) {
        static const char *const keys[] = {"orte_tmpdir_base", "btl_vader_backing_directory"};
        for (size_t i = 0; i < COUNT_OF(keys); i++)
            add_list(out, (const char *const[]){"--mca", keys[i], m->scratch}, 3);
    }
    for (char *const *word = m->more; word && *word; word++)
        words_add(out, "%s", *word);
}

void launch_ranks_words(int32_t ranks, const struct config_host *hosts, uint32_t hosts_count,
                        struct words *out)
{
    words_add(out, "-n");
    words_add(out, "%d", ranks);
    if (hosts_count == 0)
        return;
    char *list = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&list, &len);
    CHECK(f, "no memory for a list of hosts");
    for (uint32_t i = 0; i < hosts_count; i++)
        fprintf(f, "%s%s:%d", i > 0 ? "," : "", hosts[i].name, hosts[i].ranks);
    fclose(f);
    words_add(out, "--host");
    words_add(out, "%s", list);
    free(list);
}

void launch_allow_root(void)
{
    if (geteuid() != 0)
        return;
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
}

/* --- children ----------------------------------------------------------------------------------
 */

/* In the child: becomes the program; tells `report` the errno when it cannot. */
static _Noreturn void become(char *const *argv, int keep_fd, const char *preload, pid_t parent,
                             int report)
{
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1); /* it died before the line above */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int empty = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bool ready = empty >= 0 && dup2(empty, STDIN_FILENO) >= 0 &&
                 dup2(STDERR_FILENO, STDOUT_FILENO) >= 0 &&
                 (keep_fd < 0 || fcntl(keep_fd, F_SETFD, 0) == 0);
    ready = ready && (!preload || setenv("LD_PRELOAD", preload, 1) == 0);
    if (ready)
        execvp(argv[0], argv);
    int e = errno;
    ssize_t ignored = write(report, &e, sizeof e);
    (void)ignored;
    _exit(127);
}

enum status launch_start(char *const *argv, int keep_fd, const char *preload, pid_t *pid,
                         struct error *err)
{
    int report[2], e = 0;
    if (pipe2(report, O_CLOEXEC) != 0)
        return error_errno(err, errno, "cannot start %s", argv[0]);
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        become(argv, keep_fd, preload, parent, report[1]);
    int fork_errno = errno;
    close(report[1]);
    if (child < 0) {
        close(report[0]);
        return error_errno(err, fork_errno, "cannot start %s", argv[0]);
    }
    setpgid(child, child); /* both do it: whoever comes first */
    ssize_t n;
    do
        n = read(report[0], &e, sizeof e);
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n > 0) {
        waitpid(child, NULL, 0);
        return error_errno(err, e, "cannot start %s", argv[0]);
    }
    *pid = child;
    return OK;
}
