/*
 * A manifest's text. There is one text for one content: what was read is printed again and must be
 * the same bytes, so unknown fields, other orders and other spellings are all refused, and the
 * file's own bytes are what signatures and digest speak of.
 */
#include "base/check.h"
#include "base/json.h"
#include "partition/manifest_private.h"
#include "partition/shown.h"

#include <stdlib.h>
#include <string.h>

/* --- printing --- */

static enum status print_text(struct buf *out, const char *key, const char *value,
                              struct error *err)
{
    TRY(buf_printf(out, err, "\"%s\": ", key));
    return buf_json_string(out, value, strlen(value), err);
}

static enum status print_file(const struct manifest_file *f, struct buf *out, struct error *err)
{
    char sha256[MANIFEST_DIGEST_HEX + 1], root[MANIFEST_DIGEST_HEX + 1];
    char leaf[MANIFEST_DIGEST_HEX + 1];
    digest_hex(&f->sha256, sha256);
    digest_hex(&f->root, root);
    TRY(buf_puts(out, "  {", err));
    TRY(print_text(out, "path", f->path, err));
    TRY(buf_printf(out, err, ", \"bytes\": %llu, \"sha256\": \"%s\",\n   \"root\": \"%s\", ",
                   (unsigned long long)f->bytes, sha256, root));
    TRY(buf_puts(out, "\"leaves\": \"", err));
    for (uint32_t i = 0; i < f->chunks; i++) {
        digest_hex(&f->leaves[i], leaf);
        TRY(buf_append(out, leaf, MANIFEST_DIGEST_HEX, err));
    }
    return buf_puts(out, "\"}", err);
}

enum status manifest_print(const struct manifest *m, struct buf *out, struct error *err)
{
    TRY(buf_printf(out, err, "{\"witan_manifest\": %d,\n ", MANIFEST_VERSION));
    TRY(print_text(out, "format", m->format, err));
    TRY(buf_puts(out, ",\n ", err));
    TRY(print_text(out, "licence", m->licence, err));
    TRY(buf_puts(out, ",\n ", err));
    TRY(print_text(out, "origin", m->origin, err));
    TRY(buf_printf(out, err, ",\n \"chunk_bytes\": %d,\n \"files\": [\n", MANIFEST_CHUNK_BYTES));
    for (int i = 0; i < m->count; i++) {
        TRY(print_file(&m->files[i], out, err));
        TRY(buf_puts(out, i + 1 < m->count ? ",\n" : "\n", err));
    }
    return buf_puts(out, " ]}\n", err);
}

/* --- parsing --- */

static enum status bad_path(const char *what, const char *path, const char *expected,
                            struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: path: expected %s, found \"%s\"", what, expected,
                     shown(path).s);
}

/* jansson has proven UTF-8 in JSON; names on disks may be anything. */
static bool is_text(const char *s)
{
    for (const char *c = s; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    json_t *utf8 = json_string(s);
    json_decref(utf8);
    return utf8 != NULL;
}

enum status manifest_check_path(const char *what, const char *path, struct error *err)
{
    if (strlen(path) > MANIFEST_MAX_PATH)
        return bad_path(what, path, "at most 1024 bytes", err);
    if (!is_text(path))
        return bad_path(what, path, "UTF-8 without control characters", err);
    int names = 0;
    for (const char *at = path;; at++) {
        size_t len = strcspn(at, "/");
        if (len == 0 || (len == 1 && at[0] == '.') || (len == 2 && memcmp(at, "..", 2) == 0))
            return bad_path(what, path,
                            "a path inside the folder (not absolute, no \".\", \"..\" or \"//\")",
                            err);
        if (++names > MANIFEST_MAX_DEPTH)
            return bad_path(what, path, "at most 16 names in a path", err);
        at += len;
        if (!*at)
            return OK;
    }
}

static enum status take_text(const json_t *obj, const char *what, const char *key, char **out,
                             struct error *err)
{
    const char *text;
    TRY(json_get_string(obj, what, key, true, &text, err));
    if (strlen(text) > MANIFEST_MAX_WORDS || !is_text(text))
        return error_set(err, ERR_INVALID,
                         "%s: %s: expected at most %d bytes without control characters, found "
                         "\"%s\"",
                         what, key, MANIFEST_MAX_WORDS, shown(text).s);
    *out = strdup(text);
    return *out ? OK : error_set(err, ERR_NO_MEMORY, "%s: no memory", what);
}

/* `count` digests, one after the other, as one string of hex digits. */
static enum status take_digests(const json_t *obj, const char *what, const char *key, size_t count,
                                struct digest *out, struct error *err)
{
    const char *hex;
    TRY(json_get_string(obj, what, key, true, &hex, err));
    if (strlen(hex) != count * MANIFEST_DIGEST_HEX)
        return error_set(err, ERR_INVALID, "%s: %s: expected %zu hex digits, found %zu", what, key,
                         count * MANIFEST_DIGEST_HEX, strlen(hex));
    for (size_t i = 0; i < count; i++)
        if (!digest_from_hex(hex + i * MANIFEST_DIGEST_HEX, &out[i]))
            return error_set(err, ERR_INVALID,
                             "%s: %s: expected lower-case hex digits, found \"%.64s\"", what, key,
                             shown(hex + i * MANIFEST_DIGEST_HEX).s);
    return OK;
}

static enum status parse_file(const char *what, const json_t *obj, struct manifest_file *f,
                              struct error *err)
{
    const char *path;
    int64_t bytes = 0;
    struct digest root;
    TRY(json_get_string(obj, what, "path", true, &path, err));
    TRY(manifest_check_path(what, path, err));
    TRY(json_get_int(obj, what, "bytes", true, 0, (int64_t)MANIFEST_MAX_FILE_BYTES, &bytes, err));
    f->path = strdup(path);
    f->bytes = (uint64_t)bytes;
    f->chunks = chunks_of(f->bytes);
    f->leaves = calloc(f->chunks + 1, sizeof *f->leaves);
    if (!f->path || !f->leaves)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", what);
    TRY(take_digests(obj, what, "sha256", 1, &f->sha256, err));
    TRY(take_digests(obj, what, "root", 1, &f->root, err));
    TRY(take_digests(obj, what, "leaves", f->chunks, f->leaves, err));
    TRY(tree_root(f->leaves, f->chunks, &root, err));
    if (!digest_equal(&root, &f->root))
        return error_set(err, ERR_INVALID,
                         "%s: root: expected the root of its leaves, found "
                         "another",
                         what);
    return OK;
}

static enum status parse_files(struct manifest *m, const json_t *files, struct error *err)
{
    char what[512];
    size_t n = json_array_size(files);
    if (!json_is_array(files) || n == 0)
        return error_set(err, ERR_INVALID, "%s: files: expected an array of files, found %s",
                         m->what, json_is_array(files) ? "none" : json_type_words(files));
    if (n > MANIFEST_MAX_FILES)
        return error_set(err, ERR_LIMIT, "%s: files: expected at most %d, found %zu", m->what,
                         MANIFEST_MAX_FILES, n);
    m->files = calloc(n, sizeof *m->files);
    if (!m->files)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu files", m->what, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *obj = json_array_get(files, i);
        snprintf(what, sizeof what, "%.400s: files[%zu]", m->what, i);
        if (!json_is_object(obj))
            return error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                             json_type_words(obj));
        m->count++;
        TRY(parse_file(what, obj, &m->files[i], err));
        if (i > 0 && strcmp(m->files[i - 1].path, m->files[i].path) >= 0)
            return error_set(err, ERR_INVALID,
                             "%s: path: expected one that sorts after \"%s\", found \"%s\"", what,
                             shown(m->files[i - 1].path).s, shown(m->files[i].path).s);
    }
    return OK;
}

static enum status parse_root(struct manifest *m, const json_t *root, struct error *err)
{
    int64_t version = 0, chunk = 0;
    if (!json_is_object(root))
        return error_set(err, ERR_INVALID, "%s: expected an object, found %s", m->what,
                         json_type_words(root));
    TRY(json_get_int(root, m->what, "witan_manifest", true, 0, INT64_MAX, &version, err));
    if (version != MANIFEST_VERSION)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: witan_manifest: expected version %d, found %lld: use a release that "
                         "knows it, or make the manifest again",
                         m->what, MANIFEST_VERSION, (long long)version);
    TRY(take_text(root, m->what, "format", &m->format, err));
    TRY(take_text(root, m->what, "licence", &m->licence, err));
    TRY(take_text(root, m->what, "origin", &m->origin, err));
    TRY(json_get_int(root, m->what, "chunk_bytes", true, MANIFEST_CHUNK_BYTES, MANIFEST_CHUNK_BYTES,
                     &chunk, err));
    return parse_files(m, json_object_get(root, "files"), err);
}

static enum status check_canonical(const struct manifest *m, const char *text, size_t len,
                                   struct error *err)
{
    struct buf again;
    buf_init(&again, MANIFEST_MAX_BYTES);
    enum status st = manifest_print(m, &again, err);
    if (st == OK && (again.len != len || memcmp(again.data, text, len) != 0)) {
        size_t at = 0;
        while (at < len && at < again.len && text[at] == again.data[at])
            at++;
        st = error_set(err, ERR_INVALID,
                       "%s: at byte %zu: expected the text that `witan manifest create` writes, "
                       "found another: make the manifest again",
                       m->what, at);
    }
    buf_fini(&again);
    return st;
}

enum status manifest_parse(const char *what, const char *text, size_t len, struct manifest **out,
                           struct error *err)
{
    json_t *root = NULL;
    enum status st = OK;
    struct digest digest;
    struct manifest *m = calloc(1, sizeof *m);
    if (!m || !(m->what = strdup(what))) {
        free(m);
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", what);
    }
    if (len > MANIFEST_MAX_BYTES)
        st = error_set(err, ERR_LIMIT, "%s: expected at most %d bytes, found %zu", what,
                       MANIFEST_MAX_BYTES, len);
    if (st == OK)
        st = json_parse(what, text, len, &root, err);
    if (st == OK)
        st = parse_root(m, root, err);
    json_decref(root);
    if (st == OK)
        st = check_canonical(m, text, len, err);
    if (st == OK)
        st = hash_parts(&(struct hash_part){text, len}, 1, &digest, err);
    if (st != OK) {
        manifest_close(m);
        return st;
    }
    digest_hex(&digest, m->digest);
    *out = m;
    return OK;
}
