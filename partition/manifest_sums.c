/* A hub's published SHA-256 sums against a folder: see manifest.h. No state. */
#include "base/check.h"
#include "partition/manifest_private.h"
#include "partition/shown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MAX_LIST_BYTES = 16 << 20,
    MAX_POINTER_BYTES = 1024, /* as git-LFS itself bounds a pointer */
};

static const char pointer_start[] = "version https://git-lfs.github.com/spec/v1\n";

static enum status add(struct manifest_sums *s, const char *what, const char *path,
                       const struct digest *sha256, uint64_t bytes, struct error *err)
{
    TRY(manifest_check_path(what, path, err));
    if (s->count == MANIFEST_MAX_FILES)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d files, found more", what,
                         MANIFEST_MAX_FILES);
    struct manifest_sum *list = realloc(s->list, (s->count + 1) * sizeof *list);
    if (list)
        s->list = list;
    char *name = list ? strdup(path) : NULL;
    if (!name)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", what);
    s->list[s->count++] = (struct manifest_sum){name, *sha256, bytes};
    return OK;
}

static int by_path(const void *a, const void *b)
{
    const struct manifest_sum *x = a, *y = b;
    return strcmp(x->path, y->path);
}

static enum status finish(struct manifest_sums *s, const char *what, struct error *err)
{
    if (s->count == 0)
        return error_set(err, ERR_INVALID, "%s: expected sums of files, found none", what);
    qsort(s->list, s->count, sizeof *s->list, by_path);
    for (size_t i = 1; i < s->count; i++)
        if (strcmp(s->list[i - 1].path, s->list[i].path) == 0)
            return error_set(err, ERR_INVALID, "%s: expected one sum of %s, found two", what,
                             shown(s->list[i].path).s);
    return OK;
}

/* --- as sha256sum writes them: 64 hex digits, a space, a space or '*', the path --- */

static enum status parse_line(struct manifest_sums *s, const char *what, char *line,
                              struct error *err)
{
    struct digest sha256;
    for (int i = 0; i < MANIFEST_DIGEST_HEX && line[i]; i++)
        if (line[i] >= 'A' && line[i] <= 'F')
            line[i] = (char)(line[i] - 'A' + 'a');
    bool good = strlen(line) > MANIFEST_DIGEST_HEX + 2 && digest_from_hex(line, &sha256) &&
                line[MANIFEST_DIGEST_HEX] == ' ' &&
                (line[MANIFEST_DIGEST_HEX + 1] == ' ' || line[MANIFEST_DIGEST_HEX + 1] == '*');
    if (!good)
        return error_set(err, ERR_INVALID,
                         "%s: expected 64 hex digits, two spaces and a file as sha256sum writes "
                         "them, found \"%s\"",
                         what, shown(line).s);
    const char *path = line + MANIFEST_DIGEST_HEX + 2;
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    return add(s, what, path, &sha256, UINT64_MAX, err);
}

static enum status parse_lines(struct manifest_sums *s, const char *what, const char *text,
                               size_t len, struct error *err)
{
    char where[512], line[MANIFEST_DIGEST_HEX + 2 + MANIFEST_MAX_PATH + 8];
    const char *at = text, *end = text + len;
    for (int number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((newline ? newline : end) - at), used = n;
        snprintf(where, sizeof where, "%.400s: line %d", what, number);
        if (used > 0 && at[used - 1] == '\r')
            used--;
        if (used >= sizeof line || memchr(at, '\0', n))
            return error_set(err, ERR_INVALID,
                             "%s: expected a line of fewer than %zu bytes of "
                             "text, found another",
                             where, sizeof line);
        memcpy(line, at, used);
        line[used] = '\0';
        if (used > 0)
            TRY(parse_line(s, where, line, err));
        at += n + 1;
    }
    return OK;
}

enum status manifest_sums_parse(const char *what, const char *text, size_t len,
                                struct manifest_sums *out, struct error *err)
{
    struct manifest_sums s = {0};
    enum status st = parse_lines(&s, what, text, len, err);
    if (st == OK)
        st = finish(&s, what, err);
    if (st != OK)
        manifest_sums_fini(&s);
    else
        *out = s;
    return st;
}

/* --- git-LFS pointers (docs/spec.md of git-lfs): version, then "oid sha256:..." and "size N" ---
 */

static bool is_pointer(const char *text, size_t len)
{
    return len <= MAX_POINTER_BYTES && len > sizeof pointer_start - 1 &&
           memcmp(text, pointer_start, sizeof pointer_start - 1) == 0;
}

static enum status parse_pointer(const char *what, const char *text, struct digest *sha256,
                                 uint64_t *bytes, struct error *err)
{
    const char *oid = strstr(text, "\noid sha256:"), *size = strstr(text, "\nsize ");
    bool good = oid && size && digest_from_hex(oid + 12, sha256) &&
                oid[12 + MANIFEST_DIGEST_HEX] == '\n';
    if (good) {
        size_t digits = strspn(size + 6, "0123456789");
        good = digits > 0 && digits <= 18 && (size[6 + digits] == '\n' || !size[6 + digits]);
        *bytes = good ? strtoull(size + 6, NULL, 10) : 0;
    }
    if (!good)
        return error_set(err, ERR_INVALID,
                         "%s: expected a git-LFS pointer (oid sha256:..., size ...), found another",
                         what);
    return OK;
}

/* A file of a cloned folder: a pointer, or a file that speaks for itself. */
static enum status read_cloned(struct manifest_sums *s, const char *dir, const char *path,
                               struct error *err)
{
    char what[MANIFEST_MAX_FOLDER];
    char *text = NULL;
    size_t len = 0;
    struct digest sha256;
    uint64_t bytes = 0;
    if (snprintf(what, sizeof what, "%s/%s", dir, path) >= (int)sizeof what)
        return error_set(err, ERR_INVALID, "%.100s: the path is too long", dir);
    enum status st = file_read_all(what, MAX_LIST_BYTES, &text, &len, err);
    if (st == OK && is_pointer(text, len)) {
        st = parse_pointer(what, text, &sha256, &bytes, err);
    } else if (st == OK) {
        bytes = len;
        st = hash_parts(&(struct hash_part){text, len}, 1, &sha256, err);
    }
    if (st == OK)
        st = add(s, what, path, &sha256, bytes, err);
    free(text);
    return st;
}

static enum status read_clone(struct manifest_sums *s, const char *dir, struct error *err)
{
    const char *const skip_nothing[] = {NULL};
    struct folder_files found;
    TRY(folder_list(dir, skip_nothing, &found, err));
    enum status st = OK;
    for (int i = 0; st == OK && i < found.count; i++)
        if (strncmp(found.list[i].path, ".git/", 5) != 0)
            st = read_cloned(s, dir, found.list[i].path, err);
    folder_files_fini(&found);
    return st;
}

static enum status read_list(struct manifest_sums *s, const char *path, struct error *err)
{
    char *text;
    size_t len;
    TRY(file_read_all(path, MAX_LIST_BYTES, &text, &len, err));
    enum status st = OK;
    if (is_pointer(text, len)) {
        struct digest sha256 = {0};
        uint64_t bytes = 0;
        const char *slash = strrchr(path, '/');
        st = parse_pointer(path, text, &sha256, &bytes, err);
        if (st == OK)
            st = add(s, path, slash ? slash + 1 : path, &sha256, bytes, err);
    } else {
        st = parse_lines(s, path, text, len, err);
    }
    free(text);
    return st;
}

enum status manifest_sums_read(const char *path, struct manifest_sums *out, struct error *err)
{
    struct manifest_sums s = {0};
    struct stat sb;
    bool is_folder = stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
    enum status st = is_folder ? read_clone(&s, path, err) : read_list(&s, path, err);
    if (st == OK)
        st = finish(&s, path, err);
    if (st != OK)
        manifest_sums_fini(&s);
    else
        *out = s;
    return st;
}

void manifest_sums_fini(struct manifest_sums *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->list[i].path);
    free(s->list);
    *s = (struct manifest_sums){0};
}

/* --- checking --- */

struct checking {
    const struct manifest_sums *sums;
    const char *what, *dir;
};

static enum status check_item(struct team *t, int64_t i, void *buffer, struct error *err)
{
    const struct checking *c = t->arg;
    const struct manifest_sum *s = &c->sums->list[i];
    struct digest found;
    char want[MANIFEST_DIGEST_HEX + 1], have[MANIFEST_DIGEST_HEX + 1];
    TRY(team_hash_file(t, c->dir, s->path, s->bytes, buffer, &found, NULL, err));
    if (digest_equal(&found, &s->sha256))
        return OK;
    digest_hex(&s->sha256, want);
    digest_hex(&found, have);
    return error_set(err, ERR_INVALID,
                     "%s/%s: expected SHA-256 %s (published in %s), found %s: fetch the file again",
                     c->dir, shown(s->path).s, want, shown(c->what).s, have);
}

enum status manifest_sums_check(const struct manifest_sums *s, const char *what, const char *dir,
                                struct pool *pool, manifest_progress progress, void *arg,
                                struct error *err)
{
    struct checking c = {s, what, dir};
    struct team t = {.item = check_item,
                     .arg = &c,
                     .count = (int64_t)s->count,
                     .progress = progress,
                     .progress_arg = arg};
    /* What a list does not say, the folder does; a file that is absent is found in its turn. */
    for (size_t i = 0; i < s->count; i++) {
        uint64_t bytes = s->list[i].bytes;
        char path[MANIFEST_MAX_FOLDER];
        struct stat sb;
        if (bytes == UINT64_MAX &&
            snprintf(path, sizeof path, "%s/%s", dir, s->list[i].path) < (int)sizeof path)
            bytes = stat(path, &sb) == 0 ? (uint64_t)sb.st_size : 0;
        t.total += bytes == UINT64_MAX ? 0 : bytes;
    }
    enum status st = team_run(&t, pool, err);
    if (st != OK && t.failed > 1)
        error_prefix(err, "%lld files are bad; the first: ", (long long)t.failed);
    return st;
}
