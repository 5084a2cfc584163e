/* API keys: see auth.h. A set is an array in the file's order and an index by the hash's first
 * bytes. */
#include "coordinator/auth.h"

#include "base/check.h"
#include "base/json.h"
#include "coordinator/text/utf8.h"
#include "partition/shown.h"

#include <ctype.h>
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
    HASH_BYTES = 32,
    SECRET_BYTES = 32,
    ID_BYTES = 6,
    MAX_ID = 64,
    MAX_NAME = 128,
    TENANT_BYTES = 8,
    MAX_CREATED = 40,
    MAX_LINE_BYTES = 2048,
    BUCKETS = 1 << 16, /* by the first two bytes of a hash, which an attacker knows anyway */
};

static const char *const scope_words[] = {
#define X(name, words) words,
    AUTH_SCOPES(X)
#undef X
};
enum { SCOPES = sizeof scope_words / sizeof *scope_words };

struct record {
    char *id, *name, *created;
    char *tenant; /* NULL: none is named */
    uint64_t tenant_id;
    uint32_t scopes;
    unsigned char hash[HASH_BYTES];
};

struct auth {
    struct record *records; /* [count], as in the file */
    size_t count, cap;
    uint32_t *by_hash; /* [count] indices, in the order of hashes */
    uint32_t *starts;  /* [BUCKETS + 1] into by_hash */
};

/* --- scopes --- */

static enum status add_scope(const char *word, size_t len, uint32_t *scopes, struct error *err)
{
    for (uint32_t i = 0; i < SCOPES; i++)
        if (strlen(scope_words[i]) == len && memcmp(scope_words[i], word, len) == 0) {
            *scopes |= 1u << i;
            return OK;
        }
    char all[128] = "", found[SHOWN_BYTES];
    size_t n = 0;
    for (uint32_t i = 0; i < SCOPES; i++)
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", scope_words[i]);
    snprintf(found, sizeof found, "%.*s", len < sizeof found ? (int)len : SHOWN_BYTES, word);
    return error_set(err, ERR_INVALID, "scopes: expected some of %s, found \"%s\"", all,
                     shown(found).s);
}

enum status auth_parse_scopes(const char *words, uint32_t *scopes, struct error *err)
{
    uint32_t bits = 0;
    for (const char *s = words;; s++) {
        size_t len = strcspn(s, ",");
        TRY(add_scope(s, len, &bits, err));
        s += len;
        if (!*s)
            break;
    }
    *scopes = bits;
    return OK;
}

enum status auth_print_scopes(uint32_t scopes, struct buf *out, struct error *err)
{
    const char *between = "";
    for (uint32_t i = 0; i < SCOPES; i++) {
        if (!(scopes & 1u << i))
            continue;
        TRY(buf_puts(out, between, err));
        TRY(buf_puts(out, scope_words[i], err));
        between = ",";
    }
    return OK;
}

/* --- reading --- */

static void record_fini(struct record *r)
{
    free(r->id);
    free(r->name);
    free(r->created);
    free(r->tenant);
}

void auth_destroy(struct auth *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->count; i++)
        record_fini(&a->records[i]);
    free(a->records);
    free(a->by_hash);
    free(a->starts);
    free(a);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum status read_hash(const json_t *obj, const char *what, unsigned char hash[HASH_BYTES],
                             struct error *err)
{
    const char *hex = NULL;
    TRY(json_get_string(obj, what, "sha256", true, &hex, err));
    bool good = strlen(hex) == HASH_BYTES * 2;
    for (size_t i = 0; good && i < HASH_BYTES; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        good = high >= 0 && low >= 0;
        if (good)
            hash[i] = (unsigned char)(high << 4 | low);
    }
    return good ? OK
                : error_set(err, ERR_INVALID, "%s: sha256: expected %d hex digits, found \"%s\"",
                            what, HASH_BYTES * 2, shown(hex).s);
}

static enum status read_scopes(const json_t *obj, const char *what, uint32_t *scopes,
                               struct error *err)
{
    const json_t *list = json_object_get(obj, "scopes");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return error_set(err, ERR_INVALID, "%s: scopes: expected a list of words, found %s", what,
                         json_is_array(list) ? "an empty one" : json_type_words(list));
    uint32_t bits = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        enum status st = json_is_string(v)
                             ? add_scope(json_string_value(v), json_string_length(v), &bits, err)
                             : error_set(err, ERR_INVALID, "scopes: expected a word, found %s",
                                         json_type_words(v));
        if (st != OK) {
            error_prefix(err, "%s: ", what);
            return st;
        }
    }
    *scopes = bits;
    return OK;
}

/* An id is shown in logs and metrics: letters, digits, "-", "_". */
static bool is_id(const char *s)
{
    size_t len = strlen(s);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '-' && s[i] != '_')
            return false;
    return len > 0 && len <= MAX_ID;
}

static bool is_name(const char *s)
{
    size_t len = strlen(s);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    return len > 0 && len <= MAX_NAME && utf8_valid_prefix(s, len) == len;
}

static enum status read_text(const json_t *obj, const char *what, const char *key, size_t max,
                             bool (*is_good)(const char *s), char **out, struct error *err)
{
    const char *s = NULL;
    TRY(json_get_string(obj, what, key, true, &s, err));
    if (strlen(s) > max || !is_good(s))
        return error_set(err, ERR_INVALID,
                         "%s: %s: expected 1 to %zu characters that can be shown%s, found \"%s\"",
                         what, key, max, is_good == is_id ? " (letters, digits, \"-\", \"_\")" : "",
                         shown(s).s);
    *out = strdup(s);
    return *out ? OK : error_set(err, ERR_NO_MEMORY, "%s: no memory for a key", what);
}

/* A field that is not known may be meant to restrict the key: never pass it over. */
static enum status check_fields(json_t *obj, const char *what, struct error *err)
{
    static const char *const known[] = {"id", "name", "sha256", "scopes", "created", "tenant"};
    const char *key;
    json_t *value;
    json_object_foreach(obj, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found)
            return error_set(
                err, ERR_INVALID,
                "%s: expected id, name, sha256, scopes, created and tenant, found \"%s\"", what,
                shown(key).s);
    }
    return OK;
}

/* Of a key that names none: its own id. */
static enum status read_tenant(json_t *obj, const char *what, struct record *r, struct error *err)
{
    unsigned char hash[HASH_BYTES];
    if (json_object_get(obj, "tenant"))
        TRY(read_text(obj, what, "tenant", MAX_NAME, is_name, &r->tenant, err));
    const char *name = r->tenant ? r->tenant : r->id;
    if (!EVP_Digest(name, strlen(name), hash, NULL, EVP_sha256(), NULL))
        return error_set(err, ERR_IO, "SHA-256 failed");
    for (int i = 0; i < TENANT_BYTES; i++)
        r->tenant_id = r->tenant_id << 8 | hash[i];
    return OK;
}

static enum status read_record(json_t *obj, const char *what, struct record *r, struct error *err)
{
    if (!json_is_object(obj))
        return error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                         json_type_words(obj));
    TRY(check_fields(obj, what, err));
    TRY(read_text(obj, what, "id", MAX_ID, is_id, &r->id, err));
    TRY(read_text(obj, what, "name", MAX_NAME, is_name, &r->name, err));
    TRY(read_text(obj, what, "created", MAX_CREATED, is_name, &r->created, err));
    TRY(read_hash(obj, what, r->hash, err));
    TRY(read_tenant(obj, what, r, err));
    return read_scopes(obj, what, &r->scopes, err);
}

static enum status grow(struct auth *a, struct error *err)
{
    if (a->count == AUTH_MAX_KEYS)
        return error_set(err, ERR_LIMIT, "expected at most %d keys, found more", AUTH_MAX_KEYS);
    if (a->count < a->cap)
        return OK;
    size_t cap = a->cap ? a->cap * 2 : 16;
    struct record *p = realloc(a->records, cap * sizeof *p);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu keys", cap);
    a->records = p;
    a->cap = cap;
    return OK;
}

static enum status read_line(struct auth *a, const char *what, const char *line, size_t len,
                             struct error *err)
{
    if (strspn(line, " \t\r") >= len) /* nothing on it */
        return OK;
    if (len > MAX_LINE_BYTES)
        return error_set(err, ERR_INVALID, "%s: expected at most %d bytes, found %zu", what,
                         MAX_LINE_BYTES, len);
    TRY(grow(a, err));
    json_t *obj = NULL;
    TRY(json_parse(what, line, len, &obj, err));
    struct record r = {0};
    enum status st = read_record(obj, what, &r, err);
    json_decref(obj);
    if (st == OK)
        a->records[a->count++] = r;
    else
        record_fini(&r);
    return st;
}

static enum status read_lines(struct auth *a, const char *path, const char *text, size_t len,
                              struct error *err)
{
    const char *end = text + len;
    size_t number = 1;
    for (const char *s = text; s < end; number++) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        stop = stop ? stop : end;
        char what[SHOWN_BYTES + 40];
        snprintf(what, sizeof what, "%s: line %zu", shown(path).s, number);
        TRY(read_line(a, what, s, (size_t)(stop - s), err));
        s = stop + 1;
    }
    return OK;
}

static int compare_hashes(const void *x, const void *y, void *arg)
{
    const struct auth *a = arg;
    return memcmp(a->records[*(const uint32_t *)x].hash, a->records[*(const uint32_t *)y].hash,
                  HASH_BYTES);
}

static int compare_ids(const void *x, const void *y, void *arg)
{
    const struct auth *a = arg;
    return strcmp(a->records[*(const uint32_t *)x].id, a->records[*(const uint32_t *)y].id);
}

/* by_hash in this order, in which equal ones stand side by side. */
static enum status sort_unique(struct auth *a, const char *path, const char *field,
                               int (*compare)(const void *, const void *, void *),
                               struct error *err)
{
    for (size_t i = 0; i < a->count; i++)
        a->by_hash[i] = (uint32_t)i;
    qsort_r(a->by_hash, a->count, sizeof *a->by_hash, compare, a);
    for (size_t i = 1; i < a->count; i++)
        if (compare(&a->by_hash[i - 1], &a->by_hash[i], a) == 0)
            return error_set(err, ERR_INVALID,
                             "%s: expected each %s once, found that of \"%s\" again", path, field,
                             a->records[a->by_hash[i]].id);
    return OK;
}

static uint32_t bucket_of(const unsigned char hash[HASH_BYTES])
{
    return (uint32_t)hash[0] << 8 | hash[1];
}

static enum status make_index(struct auth *a, const char *path, struct error *err)
{
    a->by_hash = calloc(a->count + 1, sizeof *a->by_hash);
    a->starts = calloc(BUCKETS + 1, sizeof *a->starts);
    if (!a->by_hash || !a->starts)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu keys", path, a->count);
    TRY(sort_unique(a, path, "id", compare_ids, err));
    TRY(sort_unique(a, path, "sha256", compare_hashes, err));
    for (size_t i = 0; i < a->count; i++)
        a->starts[bucket_of(a->records[i].hash) + 1]++;
    for (size_t b = 0; b < BUCKETS; b++)
        a->starts[b + 1] += a->starts[b];
    return OK;
}

/* Who can write the file can give themselves keys. */
static enum status check_mode(const char *path, const struct stat *s, struct error *err)
{
    if (!S_ISREG(s->st_mode))
        return error_set(err, ERR_INVALID, "%s: expected a file of keys, found no regular file",
                         path);
    if (s->st_mode & 022)
        return error_set(err, ERR_INVALID,
                         "%s: expected a file that only its owner can write, found mode %04o", path,
                         (unsigned)(s->st_mode & 07777));
    return OK;
}

enum status auth_load(const char *path, struct auth **out, struct error *err)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return error_errno(err, errno, "%s", path);
    TRY(check_mode(path, &s, err));
    struct auth *a = calloc(1, sizeof *a);
    if (!a)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for keys", path);
    char *text = NULL;
    size_t len = 0;
    enum status st = file_read_all(path, (size_t)AUTH_MAX_KEYS * 512, &text, &len, err);
    if (st == OK)
        st = read_lines(a, path, text, len, err);
    if (st == OK)
        st = make_index(a, path, err);
    free(text);
    if (st == OK)
        *out = a;
    else
        auth_destroy(a);
    return st;
}

size_t auth_count(const struct auth *a)
{
    return a ? a->count : 0;
}

struct auth_entry auth_entry_at(const struct auth *a, size_t i)
{
    CHECK(i < auth_count(a), "key %zu of %zu", i, auth_count(a));
    const struct record *r = &a->records[i];
    return (struct auth_entry){
        .id = r->id,
        .name = r->name,
        .created = r->created,
        .tenant = r->tenant,
        .scopes = r->scopes,
    };
}

/* --- checking --- */

static bool is_key(const char *s)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                   "0123456789-_";
    return strncmp(s, "wk-", 3) == 0 && strspn(s + 3, alphabet) == AUTH_KEY_BYTES - 3 &&
           !s[AUTH_KEY_BYTES];
}

static enum status hash_key(const char *key, unsigned char hash[HASH_BYTES], struct error *err)
{
    if (!EVP_Digest(key, AUTH_KEY_BYTES, hash, NULL, EVP_sha256(), NULL))
        return error_set(err, ERR_IO, "SHA-256 failed");
    return OK;
}

/* Compares with every hash of the bucket, whatever it finds. */
static const struct record *find(const struct auth *a, const unsigned char hash[HASH_BYTES])
{
    const struct record *found = NULL;
    uint32_t bucket = bucket_of(hash);
    for (uint32_t i = a->starts[bucket]; i < a->starts[bucket + 1]; i++) {
        const struct record *r = &a->records[a->by_hash[i]];
        if (CRYPTO_memcmp(r->hash, hash, HASH_BYTES) == 0)
            found = r;
    }
    return found;
}

enum status auth_check(const struct auth *a, const char *header, struct auth_caller *caller,
                       struct error *err)
{
    static const char scheme[] = "Bearer ";
    if (!a) {
        *caller = (struct auth_caller){.scopes = AUTH_ALL, .id = "-"};
        return OK;
    }
    if (!header)
        return error_set(err, ERR_NOT_FOUND,
                         "expected an API key (Authorization: Bearer wk-...), "
                         "found none");
    const char *key = header + sizeof scheme - 1;
    if (strncasecmp(header, scheme, sizeof scheme - 1) != 0)
        return error_set(err, ERR_NOT_FOUND,
                         "expected \"Bearer wk-...\" as Authorization, found "
                         "something else");
    key += strspn(key, " ");
    if (!is_key(key))
        return error_set(err, ERR_NOT_FOUND,
                         "expected an API key of %d characters that begins with "
                         "wk-, found something else",
                         AUTH_KEY_BYTES);
    unsigned char hash[HASH_BYTES];
    TRY(hash_key(key, hash, err));
    const struct record *r = find(a, hash);
    if (!r)
        return error_set(err, ERR_NOT_FOUND,
                         "expected an API key of this cluster, found an unknown "
                         "one");
    *caller = (struct auth_caller){.scopes = r->scopes, .id = r->id, .tenant = r->tenant_id};
    return OK;
}

enum status auth_check_priority(uint32_t scopes, int32_t priority, struct error *err)
{
    if (priority >= 0 || scopes & AUTH_PRIORITY)
        return OK;
    return error_set(err, ERR_INVALID, "priority: %d needs a key with the scope priority",
                     priority);
}

/* --- making --- */

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

static enum status put_line(struct buf *b, const char *name, const char *tenant, uint32_t scopes,
                            const char *key, struct error *err)
{
    unsigned char hash[HASH_BYTES], id[ID_BYTES];
    char created[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    TRY(hash_key(key, hash, err));
    TRY(draw(id, sizeof id, err));
    TRY(buf_puts(b, "{\"id\": \"k", err));
    TRY(put_hex(b, id, sizeof id, err));
    TRY(buf_puts(b, "\", \"name\": ", err));
    TRY(buf_json_string(b, name, strlen(name), err));
    TRY(buf_puts(b, ", \"sha256\": \"", err));
    TRY(put_hex(b, hash, sizeof hash, err));
    TRY(buf_puts(b, "\", \"scopes\": [", err));
    const char *between = "";
    for (uint32_t i = 0; i < SCOPES; i++) {
        if (!(scopes & 1u << i))
            continue;
        TRY(buf_printf(b, err, "%s\"%s\"", between, scope_words[i]));
        between = ", ";
    }
    TRY(buf_printf(b, err, "], \"created\": \"%s\"", created));
    if (tenant) {
        TRY(buf_puts(b, ", \"tenant\": ", err));
        TRY(buf_json_string(b, tenant, strlen(tenant), err));
    }
    return buf_puts(b, "}\n", err);
}

/* Opens the file, alone with it until it is closed, and proves that it holds keys. */
static enum status open_locked(const char *path, int *fd, off_t *size, struct error *err)
{
    *fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0)
        return error_errno(err, errno, "%s", path);
    struct stat s;
    if (flock(*fd, LOCK_EX) != 0 || fstat(*fd, &s) != 0)
        return error_errno(err, errno, "%s", path);
    *size = s.st_size;
    TRY(check_mode(path, &s, err));
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
    if (is_name(name))
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: expected 1 to %d bytes of UTF-8 without control characters, found \"%s\"",
                     what, MAX_NAME, shown(name).s);
}

enum status auth_create_key(const char *path, const char *name, const char *tenant, uint32_t scopes,
                            char *key, struct error *err)
{
    TRY(check_name("name", name, err));
    TRY(tenant ? check_name("tenant", tenant, err) : OK);
    if (scopes == 0 || scopes & ~(uint32_t)AUTH_ALL)
        return error_set(err, ERR_INVALID, "scopes: expected some, found none");
    struct buf line;
    buf_init(&line, MAX_LINE_BYTES);
    int fd = -1;
    off_t size = 0;
    enum status st = OK;
    TRY_OUT(st, draw_key(key, err));
    TRY_OUT(st, put_line(&line, name, tenant, scopes, key, err));
    TRY_OUT(st, open_locked(path, &fd, &size, err));
    st = append_line(fd, path, size, &line, err);
out:
    if (fd >= 0 && close(fd) != 0 && st == OK)
        st = error_errno(err, errno, "%s", path);
    if (st != OK)
        OPENSSL_cleanse(key, AUTH_KEY_BYTES + 1);
    buf_fini(&line);
    return st;
}
