/*
 * witan-worker: one rank of a worker group. Started by mpirun or srun, or alone as a group of one
 * rank; everything else it learns from the coordinator.
 */
#include "base/check.h"
#include "base/log.h"
#include "base/process.h"
#include "base/sandbox.h"
#include "partition/manifest.h"
#include "worker/control/serve.h"

#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const char usage[] =
    "Usage: witan-worker --coordinator HOST:PORT --group NAME --tls DIR [OPTION]...\n"
    "\n"
    "One rank of a worker group: run it under mpirun or srun, or alone as a group of one.\n"
    "\n"
    "  --coordinator HOST:PORT  where the coordinator listens for its ranks; of several that "
    "serve\n"
    "                           this group, up to 8 with commas between, the same on all ranks\n"
    "  --group NAME             as cluster.yaml names it\n"
    "  --tls DIR                holds ca.pem, worker.pem and worker.key (witan pki)\n"
    "  --region NAME            where this machine stands\n"
    "  --device D               cpu (default) or cuda: a GPU for each rank of a machine, in turn,\n"
    "                           cuda:N: from the one with number N on\n"
    "  --collectives C          how ranks on GPUs meet: nccl, staged (through the host) or auto\n"
    "                           (default: nccl where every rank has a GPU of its own)\n"
    "  --trust KEYS             take only a model whose manifest these PEM public keys have "
    "signed\n"
    "                           (a file or a folder of NAME.pem; default: as the coordinator "
    "says)\n"
    "  --threshold N            with --trust: at least so many (default: as the coordinator says)\n"
    "  --weights-cache DIR      with a manifest: keep weights there as they lie in memory, for the "
    "next start\n"
    "  --no-sandbox             may do all that its user may, once it has loaded too\n"
    "  --core-dumps             the system may write core dumps, which hold what requests say\n"
    "  --verbose                say where memory and time go\n";

enum {
    MAX_GPU = 1023,
    STOP_ALONE_S = 10, /* for the other ranks to end, when not all may have heard a Stop */
};

struct worker {
    struct serve_options options;
    bool verbose, no_sandbox, core_dumps;
};

static int bad(const char *flag, const char *expected, const char *found)
{
    fprintf(stderr, "witan-worker: %s: expected %s, found %s\n", flag, expected,
            found ? found : "nothing");
    return 2;
}

/* 0, or the exit code. */
static int take_threshold(const char *value, struct worker *w)
{
    char *end;
    long n = strtol(value, &end, 10);
    if (*end || n < 1 || n > MANIFEST_MAX_KEYS)
        return bad("--threshold", "1 to 64", value);
    if (!w->options.trust)
        return bad("--trust", "keys with --threshold", NULL);
    w->options.threshold = (int32_t)n;
    return 0;
}

/* 0, or the exit code. */
static int take_collectives(const char *value)
{
    bool known = !value || strcmp(value, "auto") == 0 || strcmp(value, "nccl") == 0 ||
                 strcmp(value, "staged") == 0;
    return known ? 0 : bad("--collectives", "auto, nccl or staged", value);
}

/* 0, or the exit code. */
static int take_device(const char *value, struct worker *w)
{
    char *end = NULL;
    w->options.cuda = strncmp(value, "cuda", 4) == 0 && (value[4] == '\0' || value[4] == ':');
    if (!w->options.cuda)
        return strcmp(value, "cpu") == 0 ? 0 : bad("--device", "cpu, cuda or cuda:N", value);
    if (value[4] == '\0')
        return 0;
    long n = strtol(value + 5, &end, 10);
    if (value[5] < '0' || value[5] > '9' || *end || n > MAX_GPU)
        return bad("--device", "cuda:0 to cuda:1023", value);
    w->options.first_gpu = (int32_t)n;
    return 0;
}

/* 0, or the exit code. */
static int parse(int argc, char **argv, struct worker *w)
{
    const char *threshold = NULL, *device = "cpu";
    struct {
        const char *flag;
        const char **value;
        bool needed;
    } const texts[] = {
        {"--coordinator", &w->options.coordinator, true},
        {"--group", &w->options.group, true},
        {"--tls", &w->options.tls_dir, true},
        {"--region", &w->options.region, false},
        {"--device", &device, false},
        {"--collectives", &w->options.collectives, false},
        {"--trust", &w->options.trust, false},
        {"--threshold", &threshold, false},
        {"--weights-cache", &w->options.weights_cache, false},
    };
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        while (k < COUNT_OF(texts) && strcmp(argv[i], texts[k].flag) != 0)
            k++;
        if (k < COUNT_OF(texts)) {
            *texts[k].value = argv[++i];
            if (!*texts[k].value || !**texts[k].value)
                return bad(texts[k].flag, "a value", NULL);
        } else if (strcmp(argv[i], "--verbose") == 0) {
            w->verbose = true;
        } else if (strcmp(argv[i], "--no-sandbox") == 0) {
            w->no_sandbox = true;
        } else if (strcmp(argv[i], "--core-dumps") == 0) {
            w->core_dumps = true;
        } else {
            return bad("arguments", "one of witan-worker --help", argv[i]);
        }
    }
    for (size_t k = 0; k < COUNT_OF(texts); k++)
        if (texts[k].needed && !*texts[k].value)
            return bad(texts[k].flag, "a value", NULL);
    if (!w->options.region)
        w->options.region = "";
    int code = take_collectives(w->options.collectives);
    code = code == 0 ? take_device(device, w) : code;
    return code == 0 && threshold ? take_threshold(threshold, w) : code;
}

/* Before MPI and any thread; the rest follows once it has loaded: until then ranks of a machine
 * share memory by way of each other's descriptors, and a GPU's driver opens what it needs. */
static enum status confine(struct worker *w, struct error *err)
{
    const struct sandbox s = {.any_file = true, .keep = UINT64_C(1) << CAP_IPC_LOCK};
    char words[SANDBOX_WORDS] = "";
    /* These copy straight between processes, which is forbidden then. */
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    setenv("UCX_TLS", "^cma", 0);
    if (!w->core_dumps)
        process_no_core_files();
    w->options.no_dumps = !w->core_dumps;
    w->options.sandbox = !w->no_sandbox;
    if (w->no_sandbox) {
        log_warn("--no-sandbox: this process may do all that its user may");
        return OK;
    }
    enum status st = sandbox_begin(&s, words, err);
    if (st != OK)
        return error_advise(err, st, "--no-sandbox goes without");
    log_info("sandbox: %s", words);
    return OK;
}

static bool in_mpi_job(void)
{
    return getenv("OMPI_COMM_WORLD_RANK") != NULL || getenv("PMIX_RANK") != NULL;
}

/* A launcher that is killed must not leave its ranks behind. */
static void die_with_launcher(void)
{
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
}

static void complain(int rank, const char *msg)
{
    if (rank < 0)
        fprintf(stderr, "witan-worker: %s\n", msg);
    else
        fprintf(stderr, "witan-worker: rank %d: %s\n", rank, msg);
}

static void end_alone(int signal)
{
    static const char words[] = "witan-worker: this rank was told to stop before it had a plan; "
                                "others of its job have not ended since: it ends alone\n";
    (void)signal;
    if (write(STDERR_FILENO, words, sizeof words - 1) < 0) {
    }
    _exit(1);
}

static int run_mpi(const struct worker *w)
{
    struct comm *world;
    struct error err;
    enum serve_scope scope;
    die_with_launcher();
    if (comm_mpi_world(&world, &err) != OK) {
        complain(-1, err.msg);
        return 1;
    }
    log_set_rank(world->rank);
    enum status st = serve(world, &w->options, &scope, &err);
    if (st != OK && (scope != SERVE_ALL || world->rank == 0))
        complain(scope == SERVE_ALL ? -1 : world->rank, err.msg);
    if (st != OK && scope == SERVE_BROKEN)
        world->ops->abort(world, err.msg);
    if (st != OK && scope == SERVE_ALONE)
        _exit(1); /* the launcher ends the others, which finalizing would wait for */
    if (scope == SERVE_ALONE) {
        /* The Stop may not have reached those that had no stream just then. */
        signal(SIGALRM, end_alone);
        alarm(STOP_ALONE_S);
    }
    world->ops->destroy(world);
    comm_mpi_finalize();
    return st != OK;
}

static enum status run_rank(struct comm *world, void *arg, struct error *err)
{
    const struct worker *w = arg;
    enum serve_scope scope;
    return serve(world, &w->options, &scope, err);
}

static int run_alone(struct worker *w)
{
    struct error err;
    if (comm_local_run(1, run_rank, w, &err) == OK)
        return 0;
    complain(-1, err.msg);
    return 1;
}

int main(int argc, char **argv)
{
    struct worker w = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    int code = parse(argc, argv, &w);
    if (code != 0)
        return code;
    log_set_level(w.verbose ? LOG_INFO : LOG_WARN);
    struct error err;
    if (confine(&w, &err) != OK) {
        complain(-1, err.msg);
        return 1;
    }
    w.options.powercap = getenv("WITAN_POWERCAP"); /* a container has the host's elsewhere */
    return in_mpi_job() ? run_mpi(&w) : run_alone(&w);
}
