/* The file of API keys as it is written: see auth.h. No state. */
#include "coordinator/auth_private.h"

#include "base/file.h"
#include "base/json.h"
#include "partition/shown.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    HASH_BYTES = AUTH_HASH_BYTES,
    SECRET_BYTES = 32,
    ID_BYTES = 6,
    OPEN_TRIES = 100,
    MAX_AHEAD_D = 36500, /* days to an expiry */
};

/* --- a line --- */

static enum status draw(unsigned char *bytes, int count, struct error *err)
{
    return RAND_bytes(bytes, count) == 1 ? OK : error_set(err, ERR_IO, "no random bytes");
}

/* base64url without padding of 32 bytes. */
static enum status draw_key(char key[AUTH_KEY_BYTES + 1], struct error *err)
{
    unsigned char secret[SECRET_BYTES], text[48];
    TRY(draw(secret, sizeof secret, err));
    EVP_EncodeBlock(text, secret, sizeof secret);
    snprintf(key, AUTH_KEY_BYTES + 1, "wk-%.43s", (const char *)text);
    for (char *c = key + 3; *c; c++)
        *c = *c == '+' ? '-' : (*c == '/' ? '_' : *c);
    OPENSSL_cleanse(secret, sizeof secret);
    OPENSSL_cleanse(text, sizeof text);
    return OK;
}

static enum status put_hex(struct buf *b, const unsigned char *bytes, size_t count,
                           struct error *err)
{
    for (size_t i = 0; i < count; i++)
        TRY(buf_printf(b, err, "%02x", bytes[i]));
    return OK;
}

static enum status put_quota(struct buf *b, const char *word, int32_t limit, struct error *err)
{
    return limit > 0 ? buf_printf(b, err, ", \"%s\": %d", word, limit) : OK;
}

static enum status put_terms(struct buf *b, const struct auth_terms *terms, struct error *err)
{
    char when[AUTH_TIME_BYTES];
    if (!terms)
        return OK;
    if (terms->tenant) {
        TRY(buf_puts(b, ", \"tenant\": ", err));
        TRY(buf_json_string(b, terms->tenant, strlen(terms->tenant), err));
    }
    if (terms->expires_s > 0)
        TRY(buf_printf(b, err, ", \"expires\": \"%s\"", auth_print_time(terms->expires_s, when)));
    TRY(put_quota(b, "requests_per_minute", terms->quotas.requests, err));
    TRY(put_quota(b, "tokens_per_minute", terms->quotas.tokens, err));
    return put_quota(b, "concurrent", terms->quotas.concurrent, err);
}

static enum status put_line(struct buf *b, const char *name, const struct auth_terms *terms,
                            uint32_t scopes, const char *key, struct error *err)
{
    unsigned char hash[HASH_BYTES], id[ID_BYTES];
    char created[AUTH_TIME_BYTES];
    TRY(auth_hash_key(key, hash, err));
    TRY(draw(id, sizeof id, err));
    TRY(buf_puts(b, "{\"id\": \"k", err));
    TRY(put_hex(b, id, sizeof id, err));
    TRY(buf_puts(b, "\", \"name\": ", err));
    TRY(buf_json_string(b, name, strlen(name), err));
    TRY(buf_puts(b, ", \"sha256\": \"", err));
    TRY(put_hex(b, hash, sizeof hash, err));
    TRY(buf_puts(b, "\", \"scopes\": [", err));
    const char *between = "";
    for (uint32_t i = 0; i < AUTH_SCOPE_COUNT; i++) {
        if (!(scopes & 1u << i))
            continue;
        TRY(buf_printf(b, err, "%s\"%s\"", between, auth_scope_words[i]));
        between = ", ";
    }
    TRY(buf_printf(b, err, "], \"created\": \"%s\"", auth_print_time(time(NULL), created)));
    TRY(put_terms(b, terms, err));
    return buf_puts(b, "}\n", err);
}

/* --- making --- */

/* Locks the file that has this name: whoever had it may have put another in its place. */
static enum status lock_file(const char *path, int flags, int *fd, struct stat *s,
                             struct error *err)
{
    for (int i = 0; i < OPEN_TRIES; i++) {
        struct stat named;
        *fd = open(path, flags | O_CLOEXEC, 0600);
        if (*fd < 0 || flock(*fd, LOCK_EX) != 0 || fstat(*fd, s) != 0)
            return error_errno(err, errno, "%s", path);
        if (stat(path, &named) == 0 && named.st_ino == s->st_ino && named.st_dev == s->st_dev)
            return auth_check_mode(path, s, err);
        close(*fd);
        *fd = -1;
    }
    return error_set(err, ERR_IO, "%s: others replace it again and again: try later", path);
}

/* Opens the file, alone with it until it is closed, and proves that it holds keys. */
static enum status open_locked(const char *path, int *fd, off_t *size, struct error *err)
{
    struct stat s;
    TRY(lock_file(path, O_RDWR | O_APPEND | O_CREAT, fd, &s, err));
    *size = s.st_size;
    if (s.st_size == 0) /* new: a umask may have taken even the owner's bits */
        return fchmod(*fd, 0600) == 0 ? OK : error_errno(err, errno, "%s", path);
    struct auth *a = NULL;
    TRY(auth_load(path, &a, err));
    enum status st = auth_count(a) < AUTH_MAX_KEYS
                         ? OK
                         : error_set(err, ERR_LIMIT, "%s: expected at most %d keys, found as many",
                                     path, AUTH_MAX_KEYS);
    auth_destroy(a);
    return st;
}

/* The whole line or nothing; an editor may have left the last one without its end. */
static enum status append_line(int fd, const char *path, off_t size, const struct buf *line,
                               struct error *err)
{
    char last = '\n';
    if (size > 0 && pread(fd, &last, 1, size - 1) != 1)
        return error_errno(err, errno, "%s", path);
    bool done = (last == '\n' || write(fd, "\n", 1) == 1) &&
                write(fd, line->data, line->len) == (ssize_t)line->len && fsync(fd) == 0;
    if (done)
        return OK;
    int cause = errno;
    if (ftruncate(fd, size) != 0)
        return error_errno(err, cause, "%s (and half a line stays in it)", path);
    return error_errno(err, cause, "%s", path);
}

static enum status check_name(const char *what, const char *name, struct error *err)
{
    if (auth_is_name(name))
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: expected 1 to %d bytes of UTF-8 without control characters, found \"%s\"",
                     what, AUTH_MAX_NAME, shown(name).s);
}

/* Closes what was opened, saying what is wrong where nothing was. */
static enum status close_file(int fd, const char *path, enum status st, struct error *err)
{
    if (fd >= 0 && close(fd) != 0 && st == OK)
        return error_errno(err, errno, "%s", path);
    return st;
}

enum status auth_create_key(const char *path, const char *name, const struct auth_terms *terms,
                            uint32_t scopes, char *key, struct error *err)
{
    TRY(check_name("name", name, err));
    TRY(terms && terms->tenant ? check_name("tenant", terms->tenant, err) : OK);
    if (scopes == 0 || scopes & ~(uint32_t)AUTH_ALL)
        return error_set(err, ERR_INVALID, "scopes: expected some, found none");
    struct buf line;
    buf_init(&line, AUTH_MAX_LINE);
    int fd = -1;
    off_t size = 0;
    enum status st = OK;
    TRY_OUT(st, draw_key(key, err));
    TRY_OUT(st, put_line(&line, name, terms, scopes, key, err));
    TRY_OUT(st, open_locked(path, &fd, &size, err));
    st = append_line(fd, path, size, &line, err);
out:
    st = close_file(fd, path, st, err);
    if (st != OK)
        OPENSSL_cleanse(key, AUTH_KEY_BYTES + 1);
    buf_fini(&line);
    return st;
}

/* --- revoking --- */

static bool has_id(const char *line, size_t len, const char *id)
{
    json_t *obj = NULL;
    if (json_parse("", line, len, &obj, NULL) != OK)
        return false; /* an empty line */
    const char *found = json_string_value(json_object_get(obj, "id"));
    bool same = found && strcmp(found, id) == 0;
    json_decref(obj);
    return same;
}

/* All lines but that of `id`, as they are. */
static enum status copy_others(const char *text, size_t len, const char *id, struct buf *out,
                               struct error *err)
{
    const char *end = text + len;
    for (const char *s = text, *next; s < end; s = next) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        next = stop ? stop + 1 : end;
        if (!has_id(s, (size_t)((stop ? stop : end) - s), id))
            TRY(buf_append(out, s, (size_t)(next - s), err));
    }
    return OK;
}

/* The new file is its writer's: one that another user's processes read must stay theirs. */
static enum status replace(const char *path, const struct stat *old, const struct buf *text,
                           struct error *err)
{
    TRY(file_write(path, text->len > 0 ? text->data : "", text->len, old->st_mode & 0777, true,
                   err));
    if (old->st_uid == geteuid() && old->st_gid == getegid())
        return OK;
    return chown(path, old->st_uid, old->st_gid) == 0
               ? OK
               : error_errno(err, errno, "%s: the key is revoked, but the file is now yours", path);
}

enum status auth_revoke_key(const char *path, const char *id, struct error *err)
{
    struct stat s;
    struct buf others;
    char *text = NULL, *place = NULL; /* behind links, which stay */
    size_t len = 0;
    int fd = -1;
    struct auth *a = NULL;
    enum status st = OK;
    buf_init(&others, (size_t)AUTH_MAX_KEYS * 512);
    TRY_OUT(st, lock_file(path, O_RDONLY, &fd, &s, err));
    TRY_OUT(st, auth_load(path, &a, err)); /* what is broken is for people to mend */
    TRY_OUT(st, file_read_all(path, others.limit, &text, &len, err));
    TRY_OUT(st, copy_others(text, len, id, &others, err));
    place = realpath(path, NULL);
    if (!place)
        st = error_errno(err, errno, "%s", path);
    else if (others.len == len)
        st = error_set(err, ERR_NOT_FOUND, "%s: expected the id of a key, found none \"%s\"", path,
                       shown(id).s);
    else
        st = replace(place, &s, &others, err);
out:
    st = close_file(fd, path, st, err);
    auth_destroy(a);
    free(place);
    free(text);
    buf_fini(&others);
    return st;
}

/* --- times --- */

/* "90d", "12h"; 0: no such text. */
static int64_t span_s(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 6 || (text[digits] != 'd' && text[digits] != 'h') ||
        text[digits + 1])
        return 0;
    return strtol(text, NULL, 10) * (text[digits] == 'd' ? 86400 : 3600);
}

enum status auth_parse_expiry(const char *text, int64_t now_s, int64_t *expires_s,
                              struct error *err)
{
    char whole[AUTH_TIME_BYTES], now[AUTH_TIME_BYTES];
    int64_t at = 0, span = span_s(text);
    snprintf(whole, sizeof whole, "%.20sT00:00:00Z", text);
    if (span > 0)
        at = now_s + span;
    else if (!auth_read_time(text, &at) && !(strlen(text) == 10 && auth_read_time(whole, &at)))
        return error_set(err, ERR_INVALID,
                         "expires: expected days (\"90d\"), hours (\"12h\"), a date "
                         "(\"2027-01-31\") or a time (\"2027-01-31T12:00:00Z\"), found \"%s\"",
                         shown(text).s);
    if (at <= now_s || at > now_s + (int64_t)MAX_AHEAD_D * 86400)
        return error_set(err, ERR_INVALID,
                         "expires: expected a time ahead, at most %d days, found \"%s\" (it is %s)",
                         MAX_AHEAD_D, shown(text).s, auth_print_time(now_s, now));
    *expires_s = at;
    return OK;
}
