/* Who may ask: see identity.h. State: the two sets, when their files were read, and tokens that
 * were found right before, all under one lock; a check holds it for microseconds. */
#include "coordinator/identity.h"

#include "base/check.h"
#include "base/log.h"
#include "coordinator/jwt.h"
#include "partition/hash.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
    KNOWN = 1 << 10,     /* tokens that are remembered, each at a place by its digest */
    MOST_LINES_A_S = 20, /* of refused tokens, in the log */
};

static const char *const file_words[] = {"listen.keys", "auth.jwks"};

struct file {
    const char *path; /* NULL: there is none */
    struct stat seen; /* when it was read last, or tried to be */
    bool stale;
    struct error said; /* what is wrong with it, not to say it again each second */
    uint64_t loads, failures;
};

/* A token whose signature and claims were right. */
struct known {
    struct digest digest;
    struct jwt_claims claims; /* until_s 0: no token */
};

struct identity {
    pthread_mutex_t lock;
    struct auth *keys;
    struct jwks *jwks;
    struct jwt_rules rules;
    struct known *known; /* [KNOWN]; NULL without jwks */
    uint64_t refused[AUTH_REFUSAL_COUNT];
    int64_t line_s; /* the second of the last lines, and how many there were */
    int lines;
    struct file files[IDENTITY_FILE_COUNT]; /* the loop thread's, but for counts */
};

/* --- files -------------------------------------------------------------------------------------
 */

/* Puts what was read in the place of what there was. */
static void exchange_sets(struct identity *i, struct auth **keys, struct jwks **jwks)
{
    pthread_mutex_lock(&i->lock);
    struct auth *old_keys = i->keys;
    struct jwks *old_jwks = i->jwks;
    if (keys) {
        i->keys = *keys;
        *keys = old_keys;
    }
    if (jwks) {
        i->jwks = *jwks;
        *jwks = old_jwks;
        memset(i->known, 0, KNOWN * sizeof *i->known); /* their keys may be gone */
    }
    pthread_mutex_unlock(&i->lock);
}

static enum status read_file(struct identity *i, enum identity_file which, size_t *count,
                             struct error *err)
{
    struct auth *keys = NULL;
    struct jwks *jwks = NULL;
    const char *path = i->files[which].path;
    if (which == IDENTITY_KEYS) {
        TRY(auth_load(path, &keys, err));
        *count = auth_count(keys);
        exchange_sets(i, &keys, NULL);
        auth_destroy(keys);
        return OK;
    }
    TRY(jwks_load(path, &jwks, err));
    *count = jwks_count(jwks);
    exchange_sets(i, NULL, &jwks);
    jwks_destroy(jwks);
    return OK;
}

static void reload(struct identity *i, enum identity_file which)
{
    struct file *f = &i->files[which];
    struct error err;
    struct stat now = {0};
    size_t count = 0;
    /* Before it is read: what is written meanwhile is seen the next time. */
    enum status st = stat(f->path, &now) == 0 ? OK : error_errno(&err, errno, "%s", f->path);
    if (st == OK)
        st = read_file(i, which, &count, &err);
    /* A file that could not be read is tried again; one that is unsound waits to be mended. */
    f->seen = st == OK || st == ERR_INVALID ? now : (struct stat){0};
    f->stale = st != OK;
    if (st == OK) {
        f->loads++;
        f->said = (struct error){0};
        log_warn("%s: %s was read again: %zu keys", file_words[which], f->path, count);
        return;
    }
    if (strcmp(f->said.msg, err.msg) == 0)
        return;
    f->failures++;
    f->said = err;
    log_error("%s: the file was not taken, and what was read before stays in use: %s",
              file_words[which], err.msg);
}

static bool changed(const struct file *f)
{
    struct stat now = {0};
    if (stat(f->path, &now) != 0)
        return true; /* it has gone, which is said once */
    return now.st_ino != f->seen.st_ino || now.st_dev != f->seen.st_dev ||
           now.st_size != f->seen.st_size || now.st_mode != f->seen.st_mode ||
           now.st_mtim.tv_sec != f->seen.st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != f->seen.st_mtim.tv_nsec;
}

void identity_tick(struct identity *i)
{
    for (int f = 0; i && f < IDENTITY_FILE_COUNT; f++)
        if (i->files[f].path && changed(&i->files[f]))
            reload(i, (enum identity_file)f);
}

void identity_reload(struct identity *i)
{
    for (int f = 0; i && f < IDENTITY_FILE_COUNT; f++)
        if (i->files[f].path)
            reload(i, (enum identity_file)f);
}

/* --- life --------------------------------------------------------------------------------------
 */

static enum status read_first(struct identity *i, struct error *err)
{
    for (int f = 0; f < IDENTITY_FILE_COUNT; f++) {
        struct file *file = &i->files[f];
        size_t count;
        if (!file->path)
            continue;
        if (stat(file->path, &file->seen) != 0)
            return error_errno(err, errno, "%s: %s", file_words[f], file->path);
        TRY(read_file(i, (enum identity_file)f, &count, err));
        file->loads++;
    }
    return OK;
}

enum status identity_create(const struct config *config, struct identity **out, struct error *err)
{
    *out = NULL;
    if (!config->listen.keys && !config->auth.jwks)
        return OK;
    struct identity *i = check_calloc(1, sizeof *i);
    pthread_mutex_init(&i->lock, NULL);
    i->files[IDENTITY_KEYS].path = config->listen.keys;
    i->files[IDENTITY_JWKS].path = config->auth.jwks;
    i->rules = (struct jwt_rules){
        .issuer = config->auth.issuer,
        .audience = config->auth.audience,
        .tenant_claim = config->auth.tenant_claim,
        .scopes_claim = config->auth.scopes_claim,
        .leeway_s = config->auth.leeway_s,
    };
    if (config->auth.jwks)
        i->known = check_calloc(KNOWN, sizeof *i->known);
    enum status st = read_first(i, err);
    if (st == OK)
        *out = i;
    else
        identity_destroy(i);
    return st;
}

void identity_destroy(struct identity *i)
{
    if (!i)
        return;
    auth_destroy(i->keys);
    jwks_destroy(i->jwks);
    free(i->known);
    pthread_mutex_destroy(&i->lock);
    free(i);
}

/* --- checking ----------------------------------------------------------------------------------
 */

/* The token in a header, which has dots where a key has none. NULL: there is none. */
static const char *token_in(const char *header)
{
    static const char scheme[] = "Bearer ";
    if (!header || strncasecmp(header, scheme, sizeof scheme - 1) != 0)
        return NULL;
    header += sizeof scheme - 1;
    header += strspn(header, " ");
    return strchr(header, '.') ? header : NULL;
}

/* Under the lock: how often may be said what is wrong with tokens. */
static bool may_say(struct identity *i, int64_t now_s)
{
    if (now_s != i->line_s)
        i->lines = 0;
    i->line_s = now_s;
    return i->lines++ < MOST_LINES_A_S;
}

/* Under the lock. A signature costs up to 0.1 ms, a digest a hundredth of that. */
static enum status check_token(struct identity *i, const char *token, int64_t now_s,
                               struct auth_caller *caller, enum auth_refusal *why,
                               struct error *err)
{
    struct digest digest;
    struct jwt_claims claims;
    size_t len = strnlen(token, JWT_MAX_BYTES + 1);
    TRY(hash_parts(&(struct hash_part){token, len}, 1, &digest, err));
    uint64_t place;
    memcpy(&place, &digest, sizeof place);
    struct known *k = &i->known[place % KNOWN];
    if (digest_equal(&k->digest, &digest) && now_s >= k->claims.from_s &&
        now_s < k->claims.until_s) {
        *caller = k->claims.caller;
        return OK;
    }
    TRY(jwt_check(i->jwks, &i->rules, token, len, now_s, &claims, why, err));
    *k = (struct known){digest, claims};
    *caller = claims.caller;
    return OK;
}

static enum status refuse_token(enum auth_refusal why, bool say, struct error *err)
{
    static const char *const words[] = {
#define X(name, words) words,
        AUTH_REFUSALS(X)
#undef X
    };
    if (say)
        log_warn("a token was refused (%s): %s", words[why], err->msg);
    return error_set(err, ERR_INVALID,
                     "the bearer token was not accepted: it is malformed, has expired, or is not "
                     "for this server (its operator finds the reason in the log)");
}

static enum status check_key(struct identity *i, const char *header, int64_t now_s,
                             struct auth_caller *caller, enum auth_refusal *why, struct error *err)
{
    if (i->keys)
        return auth_check(i->keys, header, now_s, caller, why, err);
    *why = header ? AUTH_REFUSED_MALFORMED : AUTH_REFUSED_NONE;
    return error_set(err, ERR_NOT_FOUND,
                     "expected a bearer token of this server's issuer (Authorization: Bearer ...), "
                     "found %s",
                     header ? "something else" : "none");
}

enum status identity_check(struct identity *i, const char *header, int64_t now_s,
                           struct auth_caller *caller, struct error *err)
{
    enum auth_refusal why = AUTH_REFUSED_NONE;
    if (!i)
        return auth_check(NULL, header, now_s, caller, &why, err);
    const char *token = i->rules.issuer ? token_in(header) : NULL;
    pthread_mutex_lock(&i->lock);
    enum status st = token ? check_token(i, token, now_s, caller, &why, err)
                           : check_key(i, header, now_s, caller, &why, err);
    i->refused[why] += st != OK;
    bool say = st != OK && token && may_say(i, now_s);
    pthread_mutex_unlock(&i->lock);
    return st != OK && token ? refuse_token(why, say, err) : st;
}

void identity_count(struct identity *i, struct identity_counts *out)
{
    *out = (struct identity_counts){0};
    if (!i)
        return;
    pthread_mutex_lock(&i->lock);
    memcpy(out->refused, i->refused, sizeof out->refused);
    out->files[IDENTITY_KEYS].keys = auth_count(i->keys);
    out->files[IDENTITY_JWKS].keys = jwks_count(i->jwks);
    pthread_mutex_unlock(&i->lock);
    for (int f = 0; f < IDENTITY_FILE_COUNT; f++) {
        out->files[f].used = i->files[f].path != NULL;
        out->files[f].stale = i->files[f].stale;
        out->files[f].loads = i->files[f].loads;
        out->files[f].failures = i->files[f].failures;
    }
}
