/*
 * `witan manifest`: making, signing and proving the list of a model folder's files
 * (docs/manifest.md).
 */
#include "cli/cli.h"
#include "cli/flags.h"
#include "base/clock.h"
#include "partition/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: witan manifest create DIR [--out FILE] [--licence L] [--origin O] [--format F]\n"
    "       witan manifest keygen --out NAME\n"
    "       witan manifest sign MANIFEST --key FILE [--name NAME]\n"
    "       witan manifest verify MANIFEST --trust KEYS [--threshold N] [--dir DIR] [--full]\n"
    "       witan manifest check-sums DIR --sums LIST\n"
    "create lists every file of DIR with its SHA-256 and hashes of its 16 MiB chunks, into\n"
    "DIR/manifest.json unless --out names another file; origin is a URL and commit, say.\n"
    "keygen makes an Ed25519 pair: NAME.key to sign with, NAME.pem for those who trust it.\n"
    "sign adds a signature to MANIFEST.sig; several keys may sign.\n"
    "verify demands signatures by N (default 1) of the keys in KEYS (a PEM file or a folder of\n"
    "NAME.pem) and that DIR (default: the manifest's folder) holds the listed files and no "
    "others;\n"
    "with --full it also reads and proves every byte.\n"
    "check-sums compares DIR with sums that a hub published: a list as sha256sum writes it, a\n"
    "git-LFS pointer, or a folder of them (GIT_LFS_SKIP_SMUDGE=1 git clone).\n";

/* Bytes read so far, on a terminal alone. */
struct display {
    const char *verb;
    bool terminal;
    int64_t start_ns;
    uint64_t done;
};

static struct display display_start(const char *verb)
{
    return (struct display){verb, isatty(STDERR_FILENO) != 0, clock_now_ns(), 0};
}

static double seconds_since(const struct display *d)
{
    double s = (double)(clock_now_ns() - d->start_ns) * 1e-9;
    return s > 1e-6 ? s : 1e-6;
}

static void show(void *arg, uint64_t done, uint64_t total)
{
    struct display *d = arg;
    double gb = (double)done * 1e-9, rate = gb / seconds_since(d);
    d->done = done;
    if (d->terminal)
        fprintf(stderr, "\r%s: %.2f of %.2f GB, %.2f GB/s, %.0f s left \033[K", d->verb, gb,
                (double)total * 1e-9, rate, rate > 0 ? ((double)total * 1e-9 - gb) / rate : 0);
}

/* Ends the line on the terminal; the exit code. */
static int finish(const struct display *d, enum status st, const struct error *err)
{
    if (d && d->terminal && d->done)
        fputs("\r\033[K", stderr);
    if (st != OK)
        fprintf(stderr, "witan manifest: %s\n", err->msg);
    return st == OK ? 0 : 1;
}

static int wrong(void)
{
    fputs(usage, stderr);
    return 2;
}

static enum status make_pool(struct pool **out, struct error *err)
{
    int threads = cpu_count();
    return pool_create(threads < POOL_MAX_THREADS ? threads : POOL_MAX_THREADS, false, out, err);
}

static int create(int argc, char **argv)
{
    const char *dir = NULL, *out = NULL, *licence = NULL, *origin = NULL, *format = NULL;
    const struct flag flags[] = {
        {NULL, &dir},          {"--out", &out},       {"--licence", &licence},
        {"--origin", &origin}, {"--format", &format}, {0}};
    if (!flags_read("witan manifest", argc, argv, 2, flags) || !dir)
        return wrong();
    char path[4096];
    struct manifest_words words = {licence ? licence : "", origin ? origin : "",
                                   format ? format : "safetensors"};
    struct error err;
    struct pool *pool = NULL;
    enum status st = OK;
    if (snprintf(path, sizeof path, "%s/manifest.json", dir) >= (int)sizeof path)
        st = error_set(&err, ERR_INVALID, "%.100s: the path is too long", dir);
    struct display d = display_start("hashing");
    if (st == OK)
        st = make_pool(&pool, &err);
    if (st == OK)
        st = manifest_create(dir, out ? out : path, &words, pool, show, &d, &err);
    if (st == OK && (!licence || !origin))
        fprintf(stderr, "witan manifest: note: no %s is stated (--licence, --origin)\n",
                licence  ? "origin"
                : origin ? "licence"
                         : "licence or origin");
    if (st == OK)
        printf("%s: %.2f GB, %.2f GB/s; sign it with `witan manifest sign`\n", out ? out : path,
               (double)d.done * 1e-9, (double)d.done * 1e-9 / seconds_since(&d));
    pool_destroy(pool);
    return finish(&d, st, &err);
}

static int keygen(int argc, char **argv)
{
    const char *out = NULL;
    const struct flag flags[] = {{"--out", &out}, {0}};
    if (!flags_read("witan manifest", argc, argv, 2, flags) || !out)
        return wrong();
    char id[MANIFEST_DIGEST_HEX + 1] = "";
    struct error err;
    enum status st = manifest_keygen(out, id, &err);
    if (st == OK)
        printf("%s.key (keep it secret), %s.pem (give it to who trusts it): key %s\n", out, out,
               id);
    return finish(NULL, st, &err);
}

static int sign(int argc, char **argv)
{
    const char *path = NULL, *key = NULL, *name = NULL;
    const struct flag flags[] = {{NULL, &path}, {"--key", &key}, {"--name", &name}, {0}};
    if (!flags_read("witan manifest", argc, argv, 2, flags) || !path || !key)
        return wrong();
    char id[MANIFEST_DIGEST_HEX + 1] = "";
    struct error err;
    enum status st = manifest_sign(path, key, name, id, &err);
    if (st == OK)
        printf("%s.sig: signed by key %s\n", path, id);
    return finish(NULL, st, &err);
}

static void print_opened(const struct manifest *m)
{
    int count = 0;
    struct manifest_words w = manifest_words(m);
    manifest_files(m, &count);
    printf("SHA-256   %s\nsigned by %s\nformat    %s\nlicence   %s\norigin    %s\nfiles     %d of "
           "%.2f GB, as listed\n",
           manifest_digest(m), manifest_signers(m), w.format, *w.licence ? w.licence : "not stated",
           *w.origin ? w.origin : "not stated", count, (double)manifest_total_bytes(m) * 1e-9);
}

static enum status verify_opened(const struct manifest *m, bool full, struct display *d,
                                 struct error *err)
{
    struct pool *pool = NULL;
    if (!full) {
        print_opened(m);
        puts("contents  not read: --full proves every byte, ranks prove what they read");
        return OK;
    }
    TRY(make_pool(&pool, err));
    enum status st = manifest_verify(m, pool, show, d, err);
    if (st == OK) {
        print_opened(m);
        printf("contents  proven, %.2f GB/s\n", (double)d->done * 1e-9 / seconds_since(d));
    }
    pool_destroy(pool);
    return st;
}

/* The folder that the file lies in; of MANIFEST paths only. */
static void folder_of(const char *path, char *out, size_t size)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(out, size, ".");
    else
        snprintf(out, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* Takes `word` out of the arguments: was it there? */
static bool take_word(int *argc, char **argv, const char *word)
{
    for (int i = 2; i < *argc; i++) {
        if (strcmp(argv[i], word) != 0)
            continue;
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
        --*argc;
        return true;
    }
    return false;
}

static int verify(int argc, char **argv)
{
    bool full = take_word(&argc, argv, "--full");
    const char *path = NULL, *dir = NULL, *trust = NULL, *threshold = NULL;
    const struct flag flags[] = {
        {NULL, &path}, {"--dir", &dir}, {"--trust", &trust}, {"--threshold", &threshold}, {0}};
    int needed = 1;
    char folder[4096];
    if (!flags_read("witan manifest", argc, argv, 2, flags) || !path || !trust)
        return wrong();
    if (threshold &&
        !flags_int("witan manifest", "--threshold", threshold, 1, MANIFEST_MAX_KEYS, &needed))
        return 2;
    folder_of(path, folder, sizeof folder);
    struct error err;
    struct manifest *m = NULL;
    struct display d = display_start("verifying");
    enum status st = manifest_open(path, dir ? dir : folder, trust, needed, &m, &err);
    if (st == OK)
        st = verify_opened(m, full, &d, &err);
    manifest_close(m);
    return finish(&d, st, &err);
}

static int check_sums(int argc, char **argv)
{
    const char *dir = NULL, *list = NULL;
    const struct flag flags[] = {{NULL, &dir}, {"--sums", &list}, {0}};
    if (!flags_read("witan manifest", argc, argv, 2, flags) || !dir || !list)
        return wrong();
    struct error err;
    struct manifest_sums sums = {0};
    struct pool *pool = NULL;
    struct display d = display_start("hashing");
    enum status st = manifest_sums_read(list, &sums, &err);
    if (st == OK)
        st = make_pool(&pool, &err);
    if (st == OK)
        st = manifest_sums_check(&sums, list, dir, pool, show, &d, &err);
    if (st == OK)
        printf("%zu files are as %s says: %.2f GB, %.2f GB/s\n", sums.count, list,
               (double)d.done * 1e-9, (double)d.done * 1e-9 / seconds_since(&d));
    pool_destroy(pool);
    manifest_sums_fini(&sums);
    return finish(&d, st, &err);
}

int cmd_manifest(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } verbs[] = {{"create", create},
                 {"keygen", keygen},
                 {"sign", sign},
                 {"verify", verify},
                 {"check-sums", check_sums}};
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc, argv);
    return wrong();
}
