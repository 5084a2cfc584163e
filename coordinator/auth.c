/* API keys: see auth.h. A set is an array in the file's order and an index by the hash's first
 * bytes. */
#include "coordinator/auth_private.h"

#include "base/check.h"
#include "base/json.h"
#include "coordinator/text/utf8.h"
#include "partition/shown.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

enum {
    HASH_BYTES = AUTH_HASH_BYTES,
    MAX_ID = AUTH_MAX_ID,
    MAX_NAME = AUTH_MAX_NAME,
    ID_BYTES = 8, /* of a hash, as a number */
    MAX_CREATED = 40,
    BUCKETS = 1 << 16, /* by the first two bytes of a hash, which an attacker knows anyway */
};

const char *const auth_scope_words[] = {
#define X(name, words) words,
    AUTH_SCOPES(X)
#undef X
};
_Static_assert(COUNT_OF(auth_scope_words) == AUTH_SCOPE_COUNT, "every scope has its word");
enum { SCOPES = AUTH_SCOPE_COUNT };

struct record {
    char *id, *name, *created;
    char *tenant; /* NULL: none is named */
    uint64_t tenant_id;
    uint32_t scopes;
    int64_t expires_s; /* 0: never */
    struct quota_limits quotas;
    unsigned char hash[HASH_BYTES];
};

struct auth {
    struct record *records; /* [count], as in the file */
    size_t count, cap;
    uint32_t *by_hash; /* [count] indices, in the order of hashes */
    uint32_t *starts;  /* [BUCKETS + 1] into by_hash */
};

/* --- scopes --- */

uint32_t auth_scope_of(const char *word, size_t len)
{
    for (uint32_t i = 0; i < SCOPES; i++)
        if (strlen(auth_scope_words[i]) == len && memcmp(auth_scope_words[i], word, len) == 0)
            return 1u << i;
    return 0;
}

static enum status add_scope(const char *word, size_t len, uint32_t *scopes, struct error *err)
{
    uint32_t bit = auth_scope_of(word, len);
    *scopes |= bit;
    if (bit)
        return OK;
    char all[128] = "", found[SHOWN_BYTES];
    size_t n = 0;
    for (uint32_t i = 0; i < SCOPES; i++)
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", auth_scope_words[i]);
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
        TRY(buf_puts(out, auth_scope_words[i], err));
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

bool auth_is_name(const char *s)
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
    static const char *const known[] = {"id",
                                        "name",
                                        "sha256",
                                        "scopes",
                                        "created",
                                        "tenant",
                                        "expires",
                                        "requests_per_minute",
                                        "tokens_per_minute",
                                        "concurrent"};
    const char *key;
    json_t *value;
    json_object_foreach(obj, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found)
            return error_set(err, ERR_INVALID,
                             "%s: expected id, name, sha256, scopes, created, tenant, expires, "
                             "requests_per_minute, tokens_per_minute and concurrent, found \"%s\"",
                             what, shown(key).s);
    }
    return OK;
}

/* Of a hash, the first the highest. */
static uint64_t number_of(const unsigned char hash[HASH_BYTES])
{
    uint64_t n = 0;
    for (int i = 0; i < ID_BYTES; i++)
        n = n << 8 | hash[i];
    return n;
}

enum status auth_tenant_id(const char *name, uint64_t *id, struct error *err)
{
    unsigned char hash[HASH_BYTES];
    if (!EVP_Digest(name, strlen(name), hash, NULL, EVP_sha256(), NULL))
        return error_set(err, ERR_IO, "SHA-256 failed");
    *id = number_of(hash);
    return OK;
}

/* Of a key that names none: its own id. */
static enum status read_tenant(json_t *obj, const char *what, struct record *r, struct error *err)
{
    if (json_object_get(obj, "tenant"))
        TRY(read_text(obj, what, "tenant", MAX_NAME, auth_is_name, &r->tenant, err));
    return auth_tenant_id(r->tenant ? r->tenant : r->id, &r->tenant_id, err);
}

bool auth_read_time(const char *text, int64_t *time_s)
{
    static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
    struct tm t = {0};
    for (size_t i = 0; i < sizeof form; i++)
        if (form[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != form[i])
            return false; /* at the text's end too: no form goes on behind it */
    t.tm_year = (int)strtol(text, NULL, 10) - 1900;
    t.tm_mon = (int)strtol(text + 5, NULL, 10) - 1;
    t.tm_mday = (int)strtol(text + 8, NULL, 10);
    t.tm_hour = (int)strtol(text + 11, NULL, 10);
    t.tm_min = (int)strtol(text + 14, NULL, 10);
    t.tm_sec = (int)strtol(text + 17, NULL, 10);
    const struct tm said = t;
    time_t at = timegm(&t); /* makes March 3 of February 31 */
    if (t.tm_year != said.tm_year || t.tm_mon != said.tm_mon || t.tm_mday != said.tm_mday ||
        t.tm_hour != said.tm_hour || t.tm_min != said.tm_min || t.tm_sec != said.tm_sec)
        return false;
    *time_s = at;
    return true;
}

const char *auth_print_time(int64_t time_s, char out[AUTH_TIME_BYTES])
{
    struct tm utc;
    time_t at = time_s;
    if (!gmtime_r(&at, &utc) || strftime(out, AUTH_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        snprintf(out, AUTH_TIME_BYTES, "@%lld", (long long)time_s);
    return out;
}

static enum status read_expires(const json_t *obj, const char *what, int64_t *out,
                                struct error *err)
{
    const char *text = NULL;
    if (!json_object_get(obj, "expires"))
        return OK;
    TRY(json_get_string(obj, what, "expires", true, &text, err));
    if (auth_read_time(text, out) && *out > 0)
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: expires: expected a time like \"2027-01-31T12:00:00Z\", found \"%s\"",
                     what, shown(text).s);
}

static enum status read_quotas(const json_t *obj, const char *what, struct quota_limits *out,
                               struct error *err)
{
    int64_t requests = 0, tokens = 0, concurrent = 0;
    TRY(json_get_int(obj, what, "requests_per_minute", false, 1, QUOTA_MOST_REQUESTS, &requests,
                     err));
    TRY(json_get_int(obj, what, "tokens_per_minute", false, 1, QUOTA_MOST_TOKENS, &tokens, err));
    TRY(json_get_int(obj, what, "concurrent", false, 1, QUOTA_MOST_CONCURRENT, &concurrent, err));
    *out = (struct quota_limits){(int32_t)requests, (int32_t)tokens, (int32_t)concurrent};
    return OK;
}

static enum status read_record(json_t *obj, const char *what, struct record *r, struct error *err)
{
    if (!json_is_object(obj))
        return error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                         json_type_words(obj));
    TRY(check_fields(obj, what, err));
    TRY(read_text(obj, what, "id", MAX_ID, is_id, &r->id, err));
    TRY(read_text(obj, what, "name", MAX_NAME, auth_is_name, &r->name, err));
    TRY(read_text(obj, what, "created", MAX_CREATED, auth_is_name, &r->created, err));
    TRY(read_hash(obj, what, r->hash, err));
    TRY(read_tenant(obj, what, r, err));
    TRY(read_expires(obj, what, &r->expires_s, err));
    TRY(read_quotas(obj, what, &r->quotas, err));
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
    if (len > AUTH_MAX_LINE)
        return error_set(err, ERR_INVALID, "%s: expected at most %d bytes, found %zu", what,
                         AUTH_MAX_LINE, len);
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

enum status auth_check_mode(const char *path, const struct stat *s, struct error *err)
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
    TRY(auth_check_mode(path, &s, err));
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
        .expires_s = r->expires_s,
        .quotas = r->quotas,
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

enum status auth_hash_key(const char *key, unsigned char hash[HASH_BYTES], struct error *err)
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

static enum status refuse(enum auth_refusal what, enum auth_refusal *why, struct error *err,
                          const char *words)
{
    *why = what;
    return error_set(err, ERR_NOT_FOUND, "%s", words);
}

/* The key in the header, NULL when there is none of its form. */
static const char *key_in(const char *header, enum auth_refusal *why, struct error *err)
{
    static const char scheme[] = "Bearer ";
    if (!header) {
        refuse(AUTH_REFUSED_NONE, why, err,
               "expected an API key (Authorization: Bearer wk-...), found none");
        return NULL;
    }
    const char *key = header + sizeof scheme - 1;
    if (strncasecmp(header, scheme, sizeof scheme - 1) != 0) {
        refuse(AUTH_REFUSED_MALFORMED, why, err,
               "expected \"Bearer wk-...\" as Authorization, found something else");
        return NULL;
    }
    key += strspn(key, " ");
    if (is_key(key))
        return key;
    *why = AUTH_REFUSED_MALFORMED;
    error_set(err, ERR_NOT_FOUND,
              "expected an API key of %d characters that begins with wk-, found something else",
              AUTH_KEY_BYTES);
    return NULL;
}

static bool has_quotas(const struct quota_limits *l)
{
    return l->requests > 0 || l->tokens > 0 || l->concurrent > 0;
}

enum status auth_check(const struct auth *a, const char *header, int64_t now_s,
                       struct auth_caller *caller, enum auth_refusal *why, struct error *err)
{
    unsigned char hash[HASH_BYTES];
    char when[AUTH_TIME_BYTES];
    if (!a) {
        *caller = (struct auth_caller){.scopes = AUTH_ALL, .id = "-"};
        return OK;
    }
    const char *key = key_in(header, why, err);
    if (!key)
        return ERR_NOT_FOUND;
    TRY(auth_hash_key(key, hash, err));
    const struct record *r = find(a, hash);
    if (!r)
        return refuse(AUTH_REFUSED_UNKNOWN, why, err,
                      "expected an API key of this cluster, found an unknown one");
    if (r->expires_s > 0 && now_s >= r->expires_s) {
        *why = AUTH_REFUSED_EXPIRED;
        return error_set(err, ERR_NOT_FOUND, "the API key %s has expired, at %s: ask for a new one",
                         r->id, auth_print_time(r->expires_s, when));
    }
    *caller = (struct auth_caller){.scopes = r->scopes, .tenant = r->tenant_id};
    snprintf(caller->id, sizeof caller->id, "%s", r->id);
    if (has_quotas(&r->quotas))
        caller->quota = (struct quota_key){number_of(r->hash), r->quotas};
    return OK;
}

enum status auth_check_priority(uint32_t scopes, int32_t priority, struct error *err)
{
    if (priority >= 0 || scopes & AUTH_PRIORITY)
        return OK;
    return error_set(err, ERR_INVALID, "priority: %d needs a key with the scope priority",
                     priority);
}
