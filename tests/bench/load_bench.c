/*
 * How fast a group reads its weights, against what the disk gives:
 *   load_bench ROUNDS WITAN FOLDER MANIFEST KEYS FLAG...
 * Each round reads the folder's largest file with dd around the page cache, then loads the folder
 * by `witan run FOLDER FLAG...`, without the manifest and with it, none of it in the page cache.
 * Prints seconds, bytes that the disk gave (as the kernel counts them for all processes of a run)
 * and the ratios' medians.
 *
 * docs/performance.md has figures and the commands that made the folder.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROUNDS = 100, MAX_FLAGS = 64, MAX_FILES = 4096 };

struct folder {
    char *paths[MAX_FILES];
    int count;
    uint64_t bytes, largest_bytes;
    const char *largest;
};

/* One load or one dd. */
struct took {
    double seconds;
    uint64_t read_bytes; /* from the disk */
    uint64_t bytes;      /* that it says it read */
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "load_bench: %s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(1);
}

static void list_files(const char *dir, struct folder *f)
{
    char path[4096];
    struct stat sb;
    DIR *d = opendir(dir);
    if (!d)
        die(dir);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (stat(path, &sb) != 0 || !S_ISREG(sb.st_mode))
            continue;
        if (f->count == MAX_FILES || !(f->paths[f->count] = strdup(path)))
            die(dir);
        f->bytes += (uint64_t)sb.st_size;
        if ((uint64_t)sb.st_size > f->largest_bytes) {
            f->largest_bytes = (uint64_t)sb.st_size;
            f->largest = f->paths[f->count];
        }
        f->count++;
    }
    closedir(d);
    if (f->largest_bytes == 0)
        die(dir);
}

static void drop_cache(const struct folder *f)
{
    for (int i = 0; i < f->count; i++) {
        int fd = open(f->paths[i], O_RDONLY);
        if (fd < 0 || fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
            die(f->paths[i]);
        close(fd);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Runs argv with its standard error in `words` (closed at the end) and a request to answer. */
static struct took run(char **argv, FILE *words)
{
    static const char request[] = "{\"ids\": [1, 2, 3], \"max_tokens\": 1, \"ignore_eos\": true}\n";
    struct took t = {0};
    struct rusage used;
    int in[2], status;
    if (pipe(in) != 0 || write(in[1], request, sizeof request - 1) != sizeof request - 1)
        die("pipe");
    close(in[1]);
    double start = now();
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(in[0], 0);
        dup2(null, 1);
        dup2(fileno(words), 2);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(in[0]);
    if (wait4(pid, &status, 0, &used) != pid || status != 0) {
        char line[1024];
        rewind(words);
        while (fgets(line, sizeof line, words))
            fputs(line, stderr);
        errno = 0;
        die(argv[0]);
    }
    t.seconds = now() - start;
    t.read_bytes = (uint64_t)used.ru_inblock * 512;
    return t;
}

static struct took load(const char *witan, const char *dir, char **flags)
{
    char *argv[MAX_FLAGS + 16] = {(char *)witan,        (char *)"run", (char *)dir,
                                  (char *)"--requests", (char *)"-",   (char *)"--verbose"};
    int n = 6;
    char line[1024];
    double mb, seconds = 0;
    while (*flags && n < MAX_FLAGS + 14)
        argv[n++] = *flags++;
    FILE *words = tmpfile();
    if (!words)
        die("tmpfile");
    struct took t = run(argv, words);
    rewind(words);
    while (fgets(line, sizeof line, words)) {
        const char *at = strstr(line, "loaded: ");
        if (at && sscanf(at, "loaded: %lf MB read in %lf s", &mb, &seconds) == 2)
            t.bytes = (uint64_t)(mb * 1e6);
    }
    fclose(words);
    errno = 0;
    if (seconds <= 0)
        die("no line \"loaded:\"");
    t.seconds = seconds;
    return t;
}

static struct took read_sequentially(const struct folder *f)
{
    char from[4200];
    snprintf(from, sizeof from, "if=%s", f->largest);
    char *argv[] = {(char *)"dd",           from, (char *)"of=/dev/null", (char *)"bs=16M",
                    (char *)"iflag=direct", NULL};
    FILE *words = tmpfile();
    if (!words)
        die("tmpfile");
    struct took t = run(argv, words);
    t.bytes = f->largest_bytes;
    fclose(words);
    return t;
}

static double mb_s(const struct took *t)
{
    return (double)t->bytes / t->seconds * 1e-6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return (v[(n - 1) / 2] + v[n / 2]) / 2;
}

int main(int argc, char **argv)
{
    static struct folder f;
    double verified[MAX_ROUNDS], of_disk[MAX_ROUNDS], of_disk_verified[MAX_ROUNDS];
    int rounds = argc > 5 ? atoi(argv[1]) : 0;
    if (rounds < 1 || rounds > MAX_ROUNDS || argc - 6 > MAX_FLAGS - 4) {
        fprintf(stderr, "usage: load_bench ROUNDS WITAN FOLDER MANIFEST KEYS FLAG...\n");
        return 2;
    }
    const char *witan = argv[2], *dir = argv[3];
    char *flags[MAX_FLAGS + 1] = {(char *)"--manifest", argv[4], (char *)"--trust", argv[5]};
    for (int i = 6; i < argc; i++)
        flags[i - 2] = argv[i];
    list_files(dir, &f);
    printf("%s: %.3f GB\nround       dd   plain: MB/s       s  read/size  verified: MB/s       s  "
           "read/size  verified/plain\n",
           dir, (double)f.bytes * 1e-9);
    for (int i = 0; i < rounds; i++) {
        drop_cache(&f);
        struct took disk = read_sequentially(&f);
        drop_cache(&f);
        struct took plain = load(witan, dir, argv + 6);
        drop_cache(&f);
        struct took proven = load(witan, dir, flags);
        verified[i] = proven.seconds / plain.seconds;
        of_disk[i] = mb_s(&plain) / mb_s(&disk);
        of_disk_verified[i] = mb_s(&proven) / mb_s(&disk);
        printf("%5d %8.0f %13.0f %7.2f %10.4f %16.0f %7.2f %10.4f %15.3f\n", i + 1, mb_s(&disk),
               mb_s(&plain), plain.seconds, (double)plain.read_bytes / (double)f.bytes,
               mb_s(&proven), proven.seconds, (double)proven.read_bytes / (double)f.bytes,
               verified[i]);
        fflush(stdout);
    }
    printf("medians: verified/plain %.3f, of dd's rate plain %.2f, verified %.2f\n",
           median(verified, rounds), median(of_disk, rounds), median(of_disk_verified, rounds));
    return 0;
}
