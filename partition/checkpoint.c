/*
 * A checkpoint folder opened for reading: see checkpoint.h. A `struct checkpoint` owns its file
 * descriptors and tables; nothing changes after checkpoint_open but the chunks that were proven
 * last.
 */
#include "partition/checkpoint.h"
#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "partition/gguf.h"
#include "partition/manifest_private.h"
#include "partition/shown.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";
static const char gguf_end[] = ".gguf";

enum { MAX_HEADER_BYTES = 100000000, MAX_INDEX_BYTES = 100000000 }; /* the format's own limit */

/* [begin, end) of a chunk. */
struct byte_range {
    size_t begin, end;
};

struct shard {
    char *name;  /* owned, without the folder */
    int fd;      /* -1 until opened */
    int listed;  /* its index in the manifest, where there is one */
    bool direct; /* chunks are read around the page cache */
    uint64_t bytes;
};

/* The chunk that checkpoint_read proved last: headers are read in many small steps. */
struct last_chunk {
    pthread_mutex_t lock; /* over all of it */
    char *bytes;          /* of MANIFEST_CHUNK_BYTES; NULL until the first */
    size_t len;
    int file; /* -1: none */
    uint32_t chunk;
};

struct checkpoint {
    char *dir;
    const struct manifest *manifest; /* not owned; NULL: nothing is proven */
    struct last_chunk *last;         /* with a manifest */
    struct shard *shards;
    int shard_count;
    struct tensor_entry *tensors; /* sorted by name; names owned */
    size_t count;
    size_t cap;
    bool is_gguf;
    struct gguf *gguf; /* of the first file */
};

static enum status path_of(const char *dir, const char *file, char path[PATH_MAX],
                           struct error *err)
{
    int n = snprintf(path, PATH_MAX, "%s/%s", dir, file);
    if (n < 0 || n >= PATH_MAX)
        return error_set(err, ERR_INVALID, "%s: path: expected fewer than %d bytes, found more",
                         shown(file).s, PATH_MAX);
    return OK;
}

/* Takes room for `count` shards without names. */
static enum status alloc_shards(struct checkpoint *ck, size_t count, struct error *err)
{
    ck->shards = calloc(count, sizeof *ck->shards);
    if (!ck->shards)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu shards", ck->dir, count);
    ck->shard_count = (int)count;
    for (size_t i = 0; i < count; i++)
        ck->shards[i].fd = -1;
    return OK;
}

static enum status name_shard(struct checkpoint *ck, int i, const char *name, struct error *err)
{
    ck->shards[i].name = strdup(name);
    return ck->shards[i].name ? OK : error_set(err, ERR_NO_MEMORY, "%s: no memory", ck->dir);
}

/* The index may only name files beside itself. */
static bool plain_name(const char *name)
{
    if (name[0] == '\0' || name[0] == '.' || strlen(name) > NAME_MAX || strstr(name, ".."))
        return false;
    for (const char *c = name; *c; c++)
        if (*c == '/' || (unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    return true;
}

/* The distinct file names of a weight_map, as the keys of *files. */
static enum status collect_files(const char *path, json_t *map, json_t *files, struct error *err)
{
    const char *tensor;
    json_t *v;
    json_object_foreach(map, tensor, v)
    {
        const char *file = json_string_value(v);
        if (!file)
            return error_set(err, ERR_INVALID,
                             "%s: weight_map: tensor %s: expected a string, "
                             "found %s",
                             path, shown(tensor).s, json_type_words(v));
        if (json_object_get(files, file))
            continue;
        if (!plain_name(file))
            return error_set(err, ERR_INVALID,
                             "%s: weight_map: tensor %s: expected the plain name of a file, "
                             "found \"%s\"",
                             path, shown(tensor).s, shown(file).s);
        if (json_object_size(files) == CHECKPOINT_MAX_FILES)
            return error_set(err, ERR_LIMIT,
                             "%s: weight_map: expected at most %d files, found more", path,
                             CHECKPOINT_MAX_FILES);
        if (json_object_set_new(files, file, json_true()) != 0)
            return error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    }
    if (json_object_size(files) == 0)
        return error_set(err, ERR_INVALID, "%s: weight_map: expected tensors, found none", path);
    return OK;
}

static int by_shard_name(const void *a, const void *b)
{
    const struct shard *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Shards in order of their names, so that file numbers do not hang on the index's order. */
static enum status name_shards(struct checkpoint *ck, json_t *files, struct error *err)
{
    const char *name;
    json_t *v;
    int i = 0;
    TRY(alloc_shards(ck, json_object_size(files), err));
    json_object_foreach(files, name, v) TRY(name_shard(ck, i++, name, err));
    qsort(ck->shards, (size_t)ck->shard_count, sizeof *ck->shards, by_shard_name);
    return OK;
}

static enum status read_index(struct checkpoint *ck, const char *path, json_t **index,
                              struct error *err)
{
    json_t *root = NULL;
    char *text;
    size_t len;
    TRY(file_read_proven(ck->dir, index_name, manifest_proof(ck->manifest), MAX_INDEX_BYTES, &text,
                         &len, err));
    enum status st = json_parse(path, text, len, &root, err);
    free(text);
    TRY(st);
    json_t *files = json_object();
    json_t *map = json_object_get(root, "weight_map");
    if (!files)
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    else if (!json_is_object(map))
        st = error_set(err, ERR_INVALID, "%s: weight_map: expected an object, found %s", path,
                       json_type_words(map));
    if (st == OK)
        st = collect_files(path, map, files, err);
    if (st == OK)
        st = name_shards(ck, files, err);
    json_decref(files);
    if (st == OK)
        *index = root;
    else
        json_decref(root);
    return st;
}

/* With a manifest it alone says which files there are. */
static bool is_there(const char *dir, const struct manifest *manifest, const char *name)
{
    char path[PATH_MAX];
    if (manifest)
        return manifest_find(manifest, name) >= 0;
    return path_of(dir, name, path, NULL) == OK && access(path, F_OK) == 0;
}

static bool is_gguf_name(const char *name)
{
    size_t n = strlen(name), m = sizeof gguf_end - 1;
    return n > m && name[0] != '.' && !strchr(name, '/') && strcmp(name + n - m, gguf_end) == 0;
}

static enum status add_gguf(const char *dir, const char *name, json_t *files, struct error *err)
{
    if (!is_gguf_name(name))
        return OK;
    if (json_object_size(files) == CHECKPOINT_MAX_FILES)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d files *%s, found more", dir,
                         CHECKPOINT_MAX_FILES, gguf_end);
    if (json_object_set_new_nocheck(files, name, json_true()) != 0)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", dir);
    return OK;
}

/* The folder's files *.gguf as keys of *files; none where there is no such folder. */
static enum status list_gguf(const char *dir, const struct manifest *manifest, json_t *files,
                             struct error *err)
{
    enum status st = OK;
    if (manifest) {
        int count = 0;
        const struct manifest_file *listed = manifest_files(manifest, &count);
        for (int i = 0; st == OK && i < count; i++)
            st = add_gguf(dir, listed[i].path, files, err);
        return st;
    }
    DIR *d = opendir(dir);
    for (struct dirent *e; d && st == OK && (e = readdir(d));)
        st = add_gguf(dir, e->d_name, files, err);
    if (d)
        closedir(d);
    return st;
}

static enum status name_gguf(struct checkpoint *ck, struct error *err)
{
    json_t *files = json_object();
    enum status st = files ? list_gguf(ck->dir, ck->manifest, files, err)
                           : error_set(err, ERR_NO_MEMORY, "%s: no memory", ck->dir);
    if (st == OK && json_object_size(files) == 0)
        st = error_set(err, ERR_NOT_FOUND, "%s: expected %s, %s or a file *.gguf, found neither",
                       ck->dir, single_name, index_name);
    if (st == OK)
        st = name_shards(ck, files, err);
    ck->is_gguf = true;
    json_decref(files);
    return st;
}

bool checkpoint_is_gguf(const char *dir, const struct manifest *manifest)
{
    json_t *files = json_object();
    bool has_safetensors = is_there(dir, manifest, single_name) ||
                           is_there(dir, manifest, index_name);
    bool found = !has_safetensors && files && list_gguf(dir, manifest, files, NULL) == OK &&
                 json_object_size(files) > 0;
    json_decref(files);
    return found;
}

/* Names the shards; *index stays NULL but for safetensors with an index. */
static enum status find_shards(struct checkpoint *ck, json_t **index, struct error *err)
{
    char path[PATH_MAX];
    TRY(path_of(ck->dir, single_name, path, err));
    if (is_there(ck->dir, ck->manifest, single_name)) {
        TRY(alloc_shards(ck, 1, err));
        return name_shard(ck, 0, single_name, err);
    }
    TRY(path_of(ck->dir, index_name, path, err));
    if (is_there(ck->dir, ck->manifest, index_name))
        return read_index(ck, path, index, err);
    return name_gguf(ck, err);
}

struct collector {
    struct checkpoint *ck;
    int file;
};

/* safetensors_parse_header's `each`: keeps the entry, with a name of its own. */
static enum status keep_tensor(const struct tensor_entry *t, void *arg, struct error *err)
{
    struct collector *c = arg;
    struct checkpoint *ck = c->ck;
    if (ck->count == ck->cap) {
        size_t cap = ck->cap ? 2 * ck->cap : 1024;
        struct tensor_entry *p = realloc(ck->tensors, cap * sizeof *p);
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu tensors", ck->dir, cap);
        ck->tensors = p;
        ck->cap = cap;
    }
    char *name = strdup(t->name);
    if (!name)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu tensors", ck->dir, ck->count);
    ck->tensors[ck->count] = *t;
    ck->tensors[ck->count].name = name;
    ck->tensors[ck->count].file = c->file;
    ck->count++;
    return OK;
}

/* Reads the length in front and proves that the header fits into file and limit. */
static enum status header_length(const struct checkpoint *ck, int file, const char *path,
                                 uint64_t *len, struct error *err)
{
    uint64_t bytes = ck->shards[file].bytes;
    if (bytes < 8)
        return error_set(err, ERR_INVALID,
                         "%s: expected at least 8 bytes, found %llu: fetch the file again", path,
                         (unsigned long long)bytes);
    unsigned char le[8];
    TRY(checkpoint_read(ck, file, 0, le, sizeof le, err));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | le[i];
    uint64_t most = bytes - 8 < MAX_HEADER_BYTES ? bytes - 8 : MAX_HEADER_BYTES;
    if (n > most)
        return error_set(
            err, ERR_INVALID,
            "%s: header length: expected at most %llu (%s), found %llu: fetch the file again", path,
            (unsigned long long)most,
            most == bytes - 8 ? "the file's bytes after it" : "the format's limit",
            (unsigned long long)n);
    *len = n;
    return OK;
}

static enum status open_safetensors(struct checkpoint *ck, int file, const char *path,
                                    struct error *err)
{
    uint64_t len = 0;
    TRY(header_length(ck, file, path, &len, err));
    char *header = malloc(len + 1);
    if (!header)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for its header of %llu bytes", path,
                         (unsigned long long)len);
    struct collector c = {ck, file};
    enum status st = checkpoint_read(ck, file, 8, header, len, err);
    if (st == OK)
        st = safetensors_parse_header(path, header, len, ck->shards[file].bytes - 8 - len,
                                      keep_tensor, &c, err);
    free(header);
    return st;
}

/* gguf_source's `read`. */
static enum status read_shard(void *arg, uint64_t offset, void *to, size_t bytes, struct error *err)
{
    const struct collector *c = arg;
    return checkpoint_read(c->ck, c->file, offset, to, bytes, err);
}

/* Several files must be the parts of one, in the order of their names. */
static enum status prove_split(const struct checkpoint *ck, int file, const struct gguf *g,
                               const char *path, struct error *err)
{
    int64_t parts = 1, number = 0;
    TRY(gguf_get_int(g, path, "split.count", false, 0, UINT16_MAX, &parts, err));
    TRY(gguf_get_int(g, path, "split.no", false, 0, UINT16_MAX, &number, err));
    parts = parts > 0 ? parts : 1;
    if (parts == ck->shard_count && number == file)
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: expected part %d of the %d *.gguf of this folder, found part %lld of "
                     "%lld: fetch the parts that lack, and move away what is no part",
                     path, file + 1, ck->shard_count, (long long)number + 1, (long long)parts);
}

static enum status open_gguf(struct checkpoint *ck, int file, const char *path, struct error *err)
{
    struct collector c = {ck, file};
    struct gguf_source source = {read_shard, &c, ck->shards[file].bytes};
    struct gguf *g = NULL;
    TRY(gguf_parse(path, &source, &g, err));
    size_t count = 0;
    const struct tensor_entry *tensors = gguf_tensors(g, &count);
    enum status st = prove_split(ck, file, g, path, err);
    for (size_t i = 0; st == OK && i < count; i++)
        st = keep_tensor(&tensors[i], &c, err);
    if (st == OK && file == 0)
        ck->gguf = g;
    else
        gguf_destroy(g);
    return st;
}

/* Finds the open file in the manifest. */
static enum status find_listed(const struct checkpoint *ck, struct shard *s, struct error *err)
{
    int count;
    if (!ck->manifest)
        return OK;
    s->listed = manifest_find(ck->manifest, s->name);
    if (s->listed < 0)
        return error_set(err, ERR_INVALID,
                         "%s/%s: expected only files that the manifest lists, found this one: move "
                         "it away, or make and sign a manifest with it",
                         ck->dir, s->name);
    uint64_t expected = manifest_files(ck->manifest, &count)[s->listed].bytes;
    if (s->bytes != expected)
        return error_set(err, ERR_INVALID,
                         "%s/%s: expected the %llu bytes that the manifest lists, found %llu: "
                         "fetch the file again",
                         ck->dir, s->name, (unsigned long long)expected,
                         (unsigned long long)s->bytes);
    return OK;
}

static enum status open_shard(struct checkpoint *ck, int file, struct error *err)
{
    char path[PATH_MAX];
    struct shard *s = &ck->shards[file];
    struct stat sb;
    TRY(path_of(ck->dir, s->name, path, err));
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &sb) != 0) {
        enum status st = error_errno(err, errno, "%s", path);
        return st == ERR_NOT_FOUND ? error_advise(err, st, "fetch the file") : st;
    }
    if (!S_ISREG(sb.st_mode))
        return error_set(err, ERR_INVALID, "%s: expected a regular file, found none", path);
    s->bytes = (uint64_t)sb.st_size;
    TRY(find_listed(ck, s, err));
    return ck->is_gguf ? open_gguf(ck, file, path, err) : open_safetensors(ck, file, path, err);
}

static int by_name(const void *a, const void *b)
{
    const struct tensor_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static enum status sort_tensors(struct checkpoint *ck, struct error *err)
{
    if (ck->count > 0) /* qsort and NULL do not go together */
        qsort(ck->tensors, ck->count, sizeof *ck->tensors, by_name);
    for (size_t i = 1; i < ck->count; i++)
        if (strcmp(ck->tensors[i - 1].name, ck->tensors[i].name) == 0)
            return error_set(err, ERR_INVALID,
                             "%s: tensor %s: expected in one file, found in %s and %s: fetch both "
                             "again, of one revision",
                             ck->dir, shown(ck->tensors[i].name).s,
                             ck->shards[ck->tensors[i - 1].file].name,
                             ck->shards[ck->tensors[i].file].name);
    return OK;
}

/* Index and shards name the same tensors, each in the same file. */
static enum status prove_index(const struct checkpoint *ck, json_t *index, struct error *err)
{
    json_t *map = json_object_get(index, "weight_map");
    const char *name;
    json_t *v;
    json_object_foreach(map, name, v)
    {
        const struct tensor_entry *t = checkpoint_find(ck, name);
        if (!t || strcmp(ck->shards[t->file].name, json_string_value(v)) != 0)
            return error_set(
                err, ERR_INVALID,
                "%s/%s: tensor %s: expected in %s, found in %s: fetch index and shards "
                "again, of one revision",
                ck->dir, index_name, shown(name).s, json_string_value(v),
                t ? ck->shards[t->file].name : "no file");
    }
    for (size_t i = 0; i < ck->count; i++)
        if (!json_object_get(map, ck->tensors[i].name))
            return error_set(err, ERR_INVALID,
                             "%s/%s: tensor %s: expected in %s, found in %s alone: fetch index and "
                             "shards again, of one revision",
                             ck->dir, ck->shards[ck->tensors[i].file].name,
                             shown(ck->tensors[i].name).s, index_name,
                             ck->shards[ck->tensors[i].file].name);
    return OK;
}

static enum status begin_proving(struct checkpoint *ck, const struct manifest *manifest,
                                 struct error *err)
{
    if (!manifest)
        return OK;
    ck->manifest = manifest;
    ck->last = calloc(1, sizeof *ck->last);
    if (!ck->last)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", ck->dir);
    pthread_mutex_init(&ck->last->lock, NULL);
    ck->last->file = -1;
    return OK;
}

enum status checkpoint_open(const char *dir, struct checkpoint **out, struct error *err)
{
    return checkpoint_open_proven(dir, NULL, out, err);
}

enum status checkpoint_open_proven(const char *dir, const struct manifest *manifest,
                                   struct checkpoint **out, struct error *err)
{
    enum status st;
    json_t *index = NULL;
    struct checkpoint *ck = calloc(1, sizeof *ck);
    if (!ck || !(ck->dir = strdup(dir))) {
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory", dir);
        goto out;
    }
    TRY_OUT(st, begin_proving(ck, manifest, err));
    TRY_OUT(st, find_shards(ck, &index, err));
    for (int i = 0; i < ck->shard_count; i++)
        TRY_OUT(st, open_shard(ck, i, err));
    TRY_OUT(st, sort_tensors(ck, err));
    if (index)
        TRY_OUT(st, prove_index(ck, index, err));
    *out = ck;
    ck = NULL;
out:
    json_decref(index);
    checkpoint_close(ck);
    return st;
}

void checkpoint_close(struct checkpoint *ck)
{
    if (!ck)
        return;
    for (int i = 0; i < ck->shard_count; i++) {
        if (ck->shards[i].fd >= 0)
            close(ck->shards[i].fd);
        free(ck->shards[i].name);
    }
    for (size_t i = 0; i < ck->count; i++)
        free((char *)ck->tensors[i].name);
    gguf_destroy(ck->gguf);
    if (ck->last) {
        pthread_mutex_destroy(&ck->last->lock);
        free(ck->last->bytes);
        free(ck->last);
    }
    free(ck->tensors);
    free(ck->shards);
    free(ck->dir);
    free(ck);
}

const struct gguf *checkpoint_gguf(const struct checkpoint *ck)
{
    return ck->gguf;
}

int checkpoint_file_count(const struct checkpoint *ck)
{
    return ck->shard_count;
}

static const struct shard *shard_at(const struct checkpoint *ck, int file)
{
    CHECK(file >= 0 && file < ck->shard_count, "file %d of %d", file, ck->shard_count);
    return &ck->shards[file];
}

const char *checkpoint_file_name(const struct checkpoint *ck, int file)
{
    return shard_at(ck, file)->name;
}

uint64_t checkpoint_file_bytes(const struct checkpoint *ck, int file)
{
    return shard_at(ck, file)->bytes;
}

const struct tensor_entry *checkpoint_tensors(const struct checkpoint *ck, size_t *count)
{
    *count = ck->count;
    return ck->tensors;
}

const struct tensor_entry *checkpoint_find(const struct checkpoint *ck, const char *name)
{
    struct tensor_entry key = {.name = name};
    return ck->count ? bsearch(&key, ck->tensors, ck->count, sizeof key, by_name) : NULL;
}

struct shape_words {
    char s[128];
};

/* "[2048, 768]". */
static struct shape_words shape_words(int dims, const int64_t *shape)
{
    struct shape_words w;
    size_t n = 0;
    w.s[n++] = '[';
    for (int i = 0; i < dims; i++)
        n += (size_t)snprintf(w.s + n, sizeof w.s - n, "%s%lld", i ? ", " : "",
                              (long long)shape[i]);
    w.s[n++] = ']';
    w.s[n] = '\0';
    return w;
}

/* `expected` says in words what `dtype_fits` decided. */
static enum status require(const struct checkpoint *ck, const char *name, bool dtype_fits,
                           const char *expected, int dims, const int64_t *shape,
                           const struct tensor_entry **out, struct error *err)
{
    CHECK(dims >= 0 && dims <= TENSOR_MAX_DIMS, "%d dimensions", dims);
    const struct tensor_entry *t = checkpoint_find(ck, name);
    if (!t)
        return error_set(err, ERR_INVALID, "%s: tensor %s: expected shape %s, found no such tensor",
                         ck->dir, shown(name).s, shape_words(dims, shape).s);
    const char *file = ck->shards[t->file].name;
    if (!dtype_fits)
        return error_set(err, ERR_UNSUPPORTED, "%s/%s: tensor %s: dtype: expected %s, found %s",
                         ck->dir, file, shown(name).s, expected,
                         t->other_dtype ? t->other_dtype : dtype_name(t->dtype));
    bool same = t->dims == dims;
    for (int i = 0; same && i < dims; i++)
        same = t->shape[i] == shape[i];
    if (!same)
        return error_set(err, ERR_INVALID, "%s/%s: tensor %s: shape: expected %s, found %s",
                         ck->dir, file, shown(name).s, shape_words(dims, shape).s,
                         shape_words(t->dims, t->shape).s);
    *out = t;
    return OK;
}

enum status checkpoint_require(const struct checkpoint *ck, const char *name, int dims,
                               const int64_t *shape, const struct tensor_entry **out,
                               struct error *err)
{
    const struct tensor_entry *t = checkpoint_find(ck, name);
    return require(ck, name, t && !t->other_dtype, "BF16, F16 or F32", dims, shape, out, err);
}

enum status checkpoint_require_dtype(const struct checkpoint *ck, const char *name,
                                     const char *dtype, int dims, const int64_t *shape,
                                     const struct tensor_entry **out, struct error *err)
{
    const struct tensor_entry *t = checkpoint_find(ck, name);
    bool fits = t && (!dtype || (t->other_dtype && strcmp(t->other_dtype, dtype) == 0));
    return require(ck, name, fits, dtype ? dtype : "any", dims, shape, out, err);
}

void checkpoint_begin_chunks(struct checkpoint *ck, bool direct)
{
    for (int i = 0; direct && i < ck->shard_count; i++)
        ck->shards[i].direct = file_set_direct(ck->shards[i].fd, true);
    if (!ck->last)
        return;
    free(ck->last->bytes);
    ck->last->bytes = NULL;
    ck->last->file = -1;
}

static struct byte_range range_to_read(const struct checkpoint *ck, const struct shard *s,
                                       uint32_t chunk, size_t begin, size_t end)
{
    size_t len = chunk_length(s->bytes, chunk);
    CHECK(begin <= end && end <= len, "bytes %zu to %zu of a chunk of %zu", begin, end, len);
    if (ck->manifest)
        return (struct byte_range){0, len};
    return (struct byte_range){begin / FILE_PAGE * FILE_PAGE, end};
}

size_t checkpoint_chunk_bytes(const struct checkpoint *ck, int file, uint32_t chunk, size_t begin,
                              size_t end)
{
    struct byte_range r = range_to_read(ck, shard_at(ck, file), chunk, begin, end);
    return r.end - r.begin;
}

enum status checkpoint_read_chunk(const struct checkpoint *ck, int file, uint32_t chunk,
                                  size_t begin, size_t end, void *to, struct error *err)
{
    const struct shard *s = shard_at(ck, file);
    struct byte_range r = range_to_read(ck, s, chunk, begin, end);
    uint64_t offset = (uint64_t)chunk * MANIFEST_CHUNK_BYTES + r.begin;
    char *at = (char *)to + r.begin;
    if (!s->direct || !file_read_direct(s->fd, offset, at, r.end - r.begin)) {
        if (s->direct)
            file_set_direct(s->fd, false);
        TRY(folder_read(s->fd, ck->dir, s->name, offset, at, r.end - r.begin, err));
    }
    return ck->manifest ? manifest_check_chunk(ck->manifest, s->listed, chunk, to, r.end, err) : OK;
}

/* The chunk, proven now or lately; under the lock. */
static enum status fetch_chunk(const struct checkpoint *ck, int file, uint32_t chunk,
                               struct error *err)
{
    struct last_chunk *c = ck->last;
    if (c->file == file && c->chunk == chunk)
        return OK;
    if (!c->bytes && !(c->bytes = aligned_alloc(FILE_PAGE, MANIFEST_CHUNK_BYTES)))
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for a chunk", ck->dir);
    c->file = -1;
    c->len = chunk_length(shard_at(ck, file)->bytes, chunk);
    TRY(checkpoint_read_chunk(ck, file, chunk, 0, c->len, c->bytes, err));
    c->file = file;
    c->chunk = chunk;
    return OK;
}

static enum status read_proven(const struct checkpoint *ck, int file, uint64_t offset, char *to,
                               size_t bytes, struct error *err)
{
    enum status st = OK;
    uint64_t end = shard_at(ck, file)->bytes;
    if (offset > end || bytes > end - offset)
        return error_set(err, ERR_IO, "%s/%s: expected bytes up to %llu, found the end at %llu",
                         ck->dir, ck->shards[file].name, (unsigned long long)(offset + bytes),
                         (unsigned long long)end);
    pthread_mutex_lock(&ck->last->lock);
    while (st == OK && bytes > 0) {
        uint32_t chunk = (uint32_t)(offset / MANIFEST_CHUNK_BYTES);
        size_t skip = (size_t)(offset % MANIFEST_CHUNK_BYTES);
        const struct last_chunk *from = ck->last;
        st = fetch_chunk(ck, file, chunk, err);
        if (st == OK) {
            size_t part = from->len - skip < bytes ? from->len - skip : bytes;
            memcpy(to, from->bytes + skip, part);
            to += part;
            offset += part;
            bytes -= part;
        }
    }
    pthread_mutex_unlock(&ck->last->lock);
    return st;
}

enum status checkpoint_read(const struct checkpoint *ck, int file, uint64_t offset, void *to,
                            size_t bytes, struct error *err)
{
    const struct shard *s = shard_at(ck, file);
    CHECK(offset <= INT64_MAX && bytes <= INT64_MAX - offset, "offset %llu, %zu bytes",
          (unsigned long long)offset, bytes);
    if (ck->manifest)
        return read_proven(ck, file, offset, to, bytes, err);
    return folder_read(s->fd, ck->dir, s->name, offset, to, bytes, err);
}
