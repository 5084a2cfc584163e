/* Keys and positions: see resume.h. */
#include "coordinator/resume.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- keys --------------------------------------------------------------------------------------
 */

static enum status check_key(const char *key, struct error *err)
{
    size_t len = strlen(key);
    if (len < 1 || len > RESUME_MAX_KEY)
        return error_set(err, ERR_INVALID, "expected 1 to %d characters, found %zu",
                         (int)RESUME_MAX_KEY, len);
    for (size_t i = 0; i < len; i++)
        if (key[i] <= ' ' || key[i] > '~')
            return error_set(err, ERR_INVALID,
                             "expected visible ASCII characters, found byte 0x%02x at %zu",
                             (unsigned char)key[i], i);
    return OK;
}

static enum status digest_key(uint64_t tenant, const char *key, struct digest *out,
                              struct error *err)
{
    char words[64];
    int n = snprintf(words, sizeof words, "witan key 1 %016llx ", (unsigned long long)tenant);
    TRY(check_key(key, err));
    const struct hash_part whose[] = {{words, (size_t)n}, {key, strlen(key)}};
    return hash_parts(whose, (int)COUNT_OF(whose), out, err);
}

enum status resume_key_init(struct resume_key *k, uint64_t tenant, const char *key,
                            const char *what, const void *body, size_t len, struct error *err)
{
    char words[64];
    TRY(digest_key(tenant, key, &k->key, err));
    int n = snprintf(words, sizeof words, "witan request 1 %.40s\n", what);
    const struct hash_part asked[] = {{words, (size_t)n}, {k->key.b, sizeof k->key.b}, {body, len}};
    return hash_parts(asked, (int)COUNT_OF(asked), &k->request, err);
}

static uint64_t bytes_of(const struct resume_key *k, size_t from, size_t count)
{
    uint64_t v = 0;
    for (size_t i = 0; i < count; i++)
        v = v << 8 | k->request.b[from + i];
    return v;
}

uint64_t resume_seed(const struct resume_key *k)
{
    return bytes_of(k, 0, 8);
}

void resume_name(const struct resume_key *k, char out[RESUME_NAME_BYTES + 1])
{
    snprintf(out, RESUME_NAME_BYTES + 1, "%016llx%08llx", (unsigned long long)bytes_of(k, 8, 8),
             (unsigned long long)bytes_of(k, 16, 4));
}

/* --- how far -----------------------------------------------------------------------------------
 */

struct resume_at resume_nowhere(void)
{
    return (struct resume_at){.check = 2166136261u};
}

uint32_t resume_check(uint32_t check, const int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        for (int shift = 0; shift < 32; shift += 8)
            check = (check ^ ((uint32_t)ids[i] >> shift & 0xff)) * 16777619u;
    return check;
}

void resume_add(struct resume_at *at, const int32_t *ids, int32_t count)
{
    at->tokens += count;
    at->check = resume_check(at->check, ids, count);
    at->thought = false;
}

/* --- positions ---------------------------------------------------------------------------------
 */

void resume_begin(struct resume_position *p, const struct resume_key *k, int32_t count,
                  int64_t created)
{
    CHECK(count >= 1 && count <= RESUME_MAX_CHOICES, "%d choices", count);
    *p = (struct resume_position){
        .created = created, .request = (uint32_t)bytes_of(k, 20, 4), .count = count};
    for (int32_t i = 0; i < count; i++)
        p->at[i] = resume_nowhere();
}

/* Decimal or hex digits, `least` to `most` of them, and nothing else; moves *at behind them. */
static bool read_number(const char **at, int base, size_t least, size_t most, int64_t *out)
{
    size_t n = strspn(*at, base == 16 ? "0123456789abcdef" : "0123456789");
    if (n < least || n > most)
        return false;
    *out = strtoll(*at, NULL, base);
    *at += n;
    return true;
}

static bool skip(const char **at, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*at, word, n) != 0)
        return false;
    *at += n;
    return true;
}

static bool read_choice(const char **at, struct resume_at *out)
{
    int64_t tokens, check;
    *out = resume_nowhere();
    if (strchr(",/", **at))
        return true;
    if (!read_number(at, 10, 1, 10, &tokens) || tokens > INT32_MAX || !skip(at, "-") ||
        !read_number(at, 16, 8, 8, &check))
        return false;
    out->begun = true;
    out->tokens = (int32_t)tokens;
    out->check = (uint32_t)check;
    out->thought = tokens > 0 && skip(at, "-thought");
    out->ended = !out->thought && skip(at, "-end");
    return true;
}

static bool read_class(const char **at, char out[RESUME_MAX_CLASS + 1])
{
    size_t n = strcspn(*at, "/");
    if (n > RESUME_MAX_CLASS)
        return false;
    memcpy(out, *at, n);
    out[n] = '\0';
    *at += n;
    return true;
}

static bool read_position(const char *at, struct resume_position *p)
{
    int64_t request;
    bool all_ended = true;
    if (!read_number(&at, 10, 1, 12, &p->created) || !skip(&at, "/") ||
        !read_class(&at, p->class) || !skip(&at, "/") || !read_number(&at, 16, 8, 8, &request) ||
        !skip(&at, "/"))
        return false;
    p->request = (uint32_t)request;
    for (int32_t i = 0; i < p->count; i++) {
        if ((i > 0 && !skip(&at, ",")) || !read_choice(&at, &p->at[i]))
            return false;
        all_ended = all_ended && p->at[i].ended;
    }
    p->usage = all_ended && skip(&at, "/usage");
    return *at == '\0';
}

enum status resume_from(struct resume_position *p, const char *text, struct error *err)
{
    struct resume_position found = {.resumed = true, .count = p->count};
    if (!read_position(text, &found))
        return error_set(err, ERR_INVALID,
                         "expected the id of an event of this stream, as it was told (of %d %s), "
                         "found \"%.100s\"",
                         p->count, p->count == 1 ? "choice" : "choices", text);
    if (found.request != p->request)
        return error_set(err, ERR_CONFLICT,
                         "it is of another request: key, path and body must be those that the "
                         "stream began with, byte for byte");
    *p = found;
    return OK;
}

static void print_choice(const struct resume_at *at, struct buf *out)
{
    if (at->begun)
        buf_printf(out, NULL, "%d-%08x%s", at->tokens, at->check,
                   at->ended     ? "-end"
                   : at->thought ? "-thought"
                                 : "");
}

void resume_print(const struct resume_position *p, struct buf *out)
{
    buf_clear(out);
    buf_printf(out, NULL, "%lld/%s/%08x/", (long long)p->created, p->class, p->request);
    for (int32_t i = 0; i < p->count; i++) {
        if (i > 0)
            buf_puts(out, ",", NULL);
        print_choice(&p->at[i], out);
    }
    if (p->usage)
        buf_puts(out, "/usage", NULL);
}

/* --- claims ------------------------------------------------------------------------------------
 */

void resume_unclaim(struct resume_claim *claim)
{
    if (!claim->list)
        return;
    *(claim->prev ? &claim->prev->next : claim->list) = claim->next;
    if (claim->next)
        claim->next->prev = claim->prev;
    claim->prev = claim->next = NULL;
    claim->list = NULL;
}

static struct resume_claim *find(struct resume_claim *list, const struct digest *key)
{
    while (list && !digest_equal(&list->key.key, key))
        list = list->next;
    return list;
}

const struct resume_claim *resume_under_way(struct resume_claim *list, uint64_t tenant,
                                            const char *key)
{
    struct error err;
    struct digest d;
    if (!list || digest_key(tenant, key, &d, &err) != OK)
        return NULL;
    return find(list, &d);
}

enum status resume_claim(struct resume_claim **list, struct resume_claim *claim, struct error *err)
{
    struct error why;
    struct resume_claim *older = find(*list, &claim->key.key);
    if (older && !digest_equal(&older->key.request, &claim->key.request))
        return error_set(err, ERR_CONFLICT,
                         "a request with this key and another body is under way: give each request "
                         "a key of its own");
    if (older) {
        error_set(&why, ERR_CONFLICT, "taken over by a retry with the same idempotency key");
        resume_unclaim(older);
        older->taken(older->user, &why);
    }
    claim->list = list;
    claim->next = *list;
    if (claim->next)
        claim->next->prev = claim;
    *list = claim;
    return OK;
}
