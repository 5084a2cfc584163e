/*
 * The binary witan-worker as launchers run it, against a coordinator that the test plays: alone,
 * and two ranks under mpirun. What needs mpirun is skipped where the build has none.
 */
#include "tests/unit/worker/control/fake_coordinator.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#define MODEL "tests/golden/oracle/odd"

enum { PROMPT = 40, ANSWER = 24, IDLE_SECONDS = 5, WAKES = 20 };

static const struct layout one = {1, 1, 1, 1}, two = {1, 1, 2, 2};

/* --- processes --- */

struct job {
    pid_t pid;
    char log[96]; /* its standard error */
};

static bool have_mpirun(void)
{
#if defined(__SANITIZE_THREAD__)
    return false; /* its own races are not ours */
#endif
    if (strlen(WITAN_MPIEXEC) > 0 && access(WITAN_MPIEXEC, X_OK) == 0)
        return true;
    return false;
}

static void skip_without_mpirun(void)
{
    if (have_mpirun())
        return;
    fprintf(stderr, "skipped: this build has no mpirun\n");
    exit(77);
}

static void exec_worker(const struct fake *f, int ranks)
{
    char count[16];
    snprintf(count, sizeof count, "%d", ranks);
    const char *argv[40] = {0};
    int n = 0;
    const char *const launcher[] = {WITAN_MPIEXEC, "--quiet", "--oversubscribe",     "--bind-to",
                                    "none",        "--mca",   "mpi_yield_when_idle", "1",
                                    "-n",          count};
    const char *const worker[] = {
        WITAN_WORKER_BINARY, "--coordinator", f->address, "--group", "left", "--tls", f->dir};
    for (size_t i = 0; ranks > 1 && i < COUNT_OF(launcher); i++)
        argv[n++] = launcher[i];
    for (size_t i = 0; i < COUNT_OF(worker); i++)
        argv[n++] = worker[i];
    const char *asan = getenv("ASAN_OPTIONS"); /* Open MPI's leaks are not ours */
    char options[512];
    snprintf(options, sizeof options, "%s:detect_leaks=0", asan ? asan : "");
    if (ranks > 1)
        setenv("ASAN_OPTIONS", options, 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static struct job job_start(const struct fake *f, int ranks)
{
    struct job j;
    snprintf(j.log, sizeof j.log, "%s/log", f->dir);
    int log = open(j.log, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(log >= 0);
    j.pid = fork();
    assert_true(j.pid >= 0);
    if (j.pid == 0) {
        dup2(log, STDERR_FILENO);
        exec_worker(f, ranks);
    }
    close(log);
    return j;
}

/* Its exit code; 128 and the signal; -1 when it lives on. */
static int job_wait(const struct job *j, int limit_ms)
{
    int status;
    for (int ms = 0; ms < limit_ms; ms += 10) {
        if (waitpid(j->pid, &status, WNOHANG) == j->pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        usleep(10000);
    }
    kill(j->pid, SIGKILL);
    waitpid(j->pid, &status, 0);
    return -1;
}

static void assert_said(const struct job *j, const char *words)
{
    char text[8192] = "";
    FILE *f = fopen(j->log, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    if (!strstr(text, words))
        fail_msg("not said: %s; but: %s", words, text);
}

static int lines_with(const struct job *j, const char *words)
{
    char line[2048];
    int n = 0;
    FILE *f = fopen(j->log, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, words) != NULL;
    fclose(f);
    return n;
}

/* User and system time of a process, in seconds (proc(5), stat: fields 14 and 15). */
static double cpu_seconds(uint64_t pid)
{
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *after_name = strrchr(text, ')');
    assert_non_null(after_name);
    assert_int_equal(sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                            &user, &system),
                     2);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* --- the cases --- */

static int32_t prompt[PROMPT];

static struct fake_plan plan_for(struct layout layout)
{
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = (i * 37 + 11) % 150;
    return (struct fake_plan){.dir = MODEL,
                              .layout = layout,
                              .max_seqs = 3,
                              .context = 128,
                              .rows = 16,
                              .wrong_rank = -1};
}

/* A coordinator whose ranks are a job's and serve. */
static struct fake *job_up(struct job *j, struct layout layout)
{
    struct fake *f = fake_start();
    struct fake_plan p = plan_for(layout);
    *j = job_start(f, layout.w);
    fake_bring_up(f, &p);
    return f;
}

/* Both end in order, the job within the limit. */
static void job_down(const struct job *j, struct fake *f, int ranks, int limit_ms)
{
    fake_stop(f, ranks);
    assert_int_equal(job_wait(j, limit_ms), 0);
    fake_end(f);
}

static void ask(struct fake *f, uint64_t id)
{
    const struct fake_request q = {
        .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    fake_submit(f, &q);
    FAKE_WAIT(f, fake_ended(f, id));
}

static void serves_alone_and_stops(void **state)
{
    (void)state;
    struct job j;
    struct fake *f = job_up(&j, one);
    ask(f, 1);
    job_down(&j, f, 1, 10000);
}

static void a_lost_coordinator_ends_the_process(void **state)
{
    (void)state;
    struct job j;
    struct fake *f = job_up(&j, one);
    fake_vanish(f);
    assert_int_equal(job_wait(&j, 10000), 1);
    assert_said(&j, "witan-worker: coordinator 127.0.0.1:");
    fake_end(f);
}

static void a_refusal_is_one_line(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    fake_refuse(f, RPC_FAILED_PRECONDITION);
    struct job j = job_start(f, 1);
    assert_int_equal(job_wait(&j, 10000), 1);
    assert_said(&j, ": FAILED_PRECONDITION: as the test asks\n");
    fake_end(f);
}

/* From Submit to the first Tokens, in ms; the request has ended. */
static double first_token_ms(struct fake *f, uint64_t id)
{
    int before = f->count;
    int64_t start = clock_now_ns();
    ask(f, id);
    return (double)(f->tokens[before].at_ns - start) * 1e-6;
}

static void print_times(const char *what, const double *ms, int n)
{
    double sum = 0, least = ms[0], most = ms[0];
    for (int i = 0; i < n; i++) {
        sum += ms[i];
        least = ms[i] < least ? ms[i] : least;
        most = ms[i] > most ? ms[i] : most;
    }
    fprintf(stderr, "Submit to first Tokens, 2 ranks, %s: mean %.2f, %.2f to %.2f ms\n", what,
            sum / n, least, most);
}

static void two_ranks_answer_and_stop(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct job j;
    struct fake *f = job_up(&j, two);
    double parked[WAKES], awake[WAKES];
    for (uint64_t i = 0; i < WAKES; i++) {
        usleep(60000); /* they park */
        parked[i] = first_token_ms(f, 2 * i + 1);
        awake[i] = first_token_ms(f, 2 * i + 2);
        assert_true(f->ranks[0].wakes > i);
    }
    print_times("parked", parked, WAKES);
    print_times("awake", awake, WAKES);
    for (int i = 1; i < f->count; i++) /* every answer is the first one again */
        assert_int_equal(f->tokens[i].id, f->tokens[i % ANSWER].id);
    job_down(&j, f, 2, 15000);
}

static void idle_ranks_take_no_processor(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct job j;
    struct fake *f = job_up(&j, two);
    double before = 0, after = 0;
    ask(f, 1);
    usleep(500000);
    for (int i = 0; i < 2; i++)
        before += cpu_seconds(f->ranks[i].pid);
    sleep(IDLE_SECONDS);
    for (int i = 0; i < 2; i++)
        after += cpu_seconds(f->ranks[i].pid);
    double share = (after - before) / IDLE_SECONDS;
    fprintf(stderr, "two idle ranks: %.2f %% of a core\n", share * 100);
    assert_true(share <= 0.02);
    ask(f, 2);
    job_down(&j, f, 2, 15000);
}

static bool gone(uint64_t pid)
{
    char path[64], text[256], state = 'Z';
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return true;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *after_name = strrchr(text, ')');
    if (after_name)
        sscanf(after_name + 1, " %c", &state);
    return state == 'Z'; /* an orphan whose new parent is in no hurry */
}

static void assert_gone(const struct fake *f, int world, int limit_ms)
{
    for (int i = 0; i < world; i++) {
        for (int ms = 0; !gone(f->ranks[i].pid) && ms < limit_ms; ms += 10)
            usleep(10000);
        assert_true(gone(f->ranks[i].pid));
    }
}

static void a_killed_launcher_takes_its_ranks(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct job j;
    struct fake *f = job_up(&j, two);
    kill(j.pid, SIGKILL);
    assert_int_equal(job_wait(&j, 1000), 128 + SIGKILL);
    assert_gone(f, 2, 2000);
    fake_end(f);
}

static void an_error_of_all_is_said_once(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct fake *f = fake_start();
    struct fake_plan p = plan_for(two);
    struct job j = job_start(f, 2);
    p.wrong_rank = 1;
    fake_plan(f, &p);
    assert_int_equal(job_wait(&j, 15000), 1);
    assert_said(&j, "witan-worker: rank 1: plan: slices.q_heads: the coordinator says");
    assert_true(lines_with(&j, "slices.q_heads") == 1);
    fake_end(f);
}

/* The follower's stream ends while it waits in the transport for a leader that is stopped. */
static void a_blocked_rank_ends_with_its_stream(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct job j;
    struct fake *f = job_up(&j, two);
    Witan__Cluster__V1__Wake wake = WITAN__CLUSTER__V1__WAKE__INIT;
    wake.generation = 1; /* which rank 0 knows nothing of */
    fake_send(f, 1, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE, &wake);
    FAKE_WAIT(f, f->ranks[1].phase == WITAN__CLUSTER__V1__PHASE__PHASE_WAITING);
    rpc_finish(f->ranks[1].call, RPC_UNAVAILABLE, "as the test asks");
    assert_int_not_equal(job_wait(&j, 15000), 0);
    assert_said(&j, "the stream to the coordinator has ended, and for 5 s this rank");
    fake_end(f);
}

static void a_group_without_coordinator_is_gone(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct job j;
    struct fake *f = job_up(&j, two);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    fake_submit(f, &q);
    fake_vanish(f);
    assert_int_not_equal(job_wait(&j, 15000), -1);
    assert_gone(f, 2, 1000);
    fake_end(f);
}

/* Two ranks that have attached again, and wait for their plan. */
static struct fake *job_waits_again(struct job *j)
{
    struct fake *f = fake_start();
    struct fake_plan p = plan_for(two);
    p.reattach_timeout_s = 60;
    *j = job_start(f, 2);
    fake_bring_up(f, &p);
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_ABORTED);
    for (int i = 0; i < 2; i++)
        FAKE_WAIT(f, f->ranks[i].hellos == 2);
    return f;
}

static void a_stop_before_the_plan_is_an_end_in_order(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct job j;
    struct fake *f = job_waits_again(&j);
    job_down(&j, f, 2, 30000);
}

/* The other would try to attach for a minute. */
static void a_stop_that_one_rank_hears_ends_the_job(void **state)
{
    (void)state;
    skip_without_mpirun();
    struct job j;
    struct fake *f = job_waits_again(&j);
    fake_stop(f, 1);
    assert_in_range(job_wait(&j, 40000), 1, 127);
    assert_said(&j, "witan-worker: this rank was told to stop before it had a plan");
    assert_gone(f, 2, 2000);
    fake_end(f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(serves_alone_and_stops),
    cmocka_unit_test(a_lost_coordinator_ends_the_process),
    cmocka_unit_test(a_refusal_is_one_line),
    cmocka_unit_test(two_ranks_answer_and_stop),
    cmocka_unit_test(idle_ranks_take_no_processor),
    cmocka_unit_test(a_blocked_rank_ends_with_its_stream),
    cmocka_unit_test(a_group_without_coordinator_is_gone),
    cmocka_unit_test(a_killed_launcher_takes_its_ranks),
    cmocka_unit_test(an_error_of_all_is_said_once),
    cmocka_unit_test(a_stop_before_the_plan_is_an_end_in_order),
    cmocka_unit_test(a_stop_that_one_rank_hears_ends_the_job),
};

UNIT_MAIN(tests)
