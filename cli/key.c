/* `witan key create`, `list` and `revoke`: the file of API keys that listen.keys names. */
#include "cli/cli.h"
#include "cli/flags.h"
#include "coordinator/auth.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: witan key create --file FILE --name NAME --scopes SCOPE[,SCOPE...] [--tenant NAME]\n"
    "                        [--expires WHEN] [--rpm N] [--tpm N] [--concurrent N]\n"
    "       witan key list --file FILE\n"
    "       witan key revoke ID --file FILE\n"
    "create writes a new key to standard output, once, and its hash into FILE (made with mode "
    "0600\n"
    "when it is absent). list writes id, date, scopes, name and tenant of each key, and what "
    "bounds\n"
    "it. revoke takes the key of this id out of FILE. A running coordinator sees within seconds "
    "that\n"
    "FILE has changed; requests under way go on. The scopes:\n"
    "  generate   chat, completions, models, tokenize\n"
    "  raw        token ids and special tokens in prompts\n"
    "  admin      status, metrics\n"
    "  priority   requests that go before others'\n"
    "Keys of one --tenant share the KV blocks of equal prompts and one share of the engine; a key\n"
    "without it is a tenant by itself. Bounds of the key:\n"
    "  --expires WHEN   90d, 12h, 2027-01-31 (when that day begins, UTC) or 2027-01-31T12:00:00Z\n"
    "  --rpm N          requests in any 60 seconds\n"
    "  --tpm N          tokens of prompts and answers in any 60 seconds\n"
    "  --concurrent N   answers under way at once\n";

static int finish(enum status st, const struct error *err)
{
    if (st == OK && fflush(stdout) == 0)
        return 0;
    fprintf(stderr, "witan key: %s\n", st == OK ? "standard output: cannot write" : err->msg);
    return 1;
}

struct wanted {
    const char *file, *name, *scopes, *tenant, *expires, *rpm, *tpm, *concurrent;
};

/* An absent one is 0. */
static bool read_quota(const char *flag, const char *text, int most, int32_t *out)
{
    int n = 0;
    if (text && !flags_int("witan key", flag, text, 1, most, &n))
        return false;
    *out = n;
    return true;
}

static int create(const struct wanted *w)
{
    struct error err;
    uint32_t scopes = 0;
    char key[AUTH_KEY_BYTES + 1] = "";
    struct auth_terms terms = {.tenant = w->tenant};
    if (!read_quota("--rpm", w->rpm, QUOTA_MOST_REQUESTS, &terms.quotas.requests) ||
        !read_quota("--tpm", w->tpm, QUOTA_MOST_TOKENS, &terms.quotas.tokens) ||
        !read_quota("--concurrent", w->concurrent, QUOTA_MOST_CONCURRENT, &terms.quotas.concurrent))
        return 1;
    enum status st = auth_parse_scopes(w->scopes, &scopes, &err);
    if (st == OK && w->expires)
        st = auth_parse_expiry(w->expires, time(NULL), &terms.expires_s, &err);
    if (st == OK)
        st = auth_create_key(w->file, w->name, &terms, scopes, key, &err);
    if (st == OK) {
        fprintf(stderr, "This is the only time the key is shown; %s keeps a hash of it.\n",
                w->file);
        puts(key);
    }
    return finish(st, &err);
}

static enum status print_bound(struct buf *out, int32_t limit, const char *word, struct error *err)
{
    return limit > 0 ? buf_printf(out, err, ", %d %s", limit, word) : OK;
}

/* ", expires 2027-01-31T12:00:00Z, 60 requests/min". */
static enum status print_bounds(struct buf *out, const struct auth_entry *e, int64_t now_s,
                                struct error *err)
{
    char when[AUTH_TIME_BYTES];
    if (e->expires_s > 0)
        TRY(buf_printf(out, err, ", %s %s", now_s < e->expires_s ? "expires" : "EXPIRED",
                       auth_print_time(e->expires_s, when)));
    TRY(print_bound(out, e->quotas.requests, "requests/min", err));
    TRY(print_bound(out, e->quotas.tokens, "tokens/min", err));
    return print_bound(out, e->quotas.concurrent, "at once", err);
}

static enum status print_key(struct buf *out, const struct auth_entry *e, struct error *err)
{
    TRY(buf_printf(out, err, "%s  %s  ", e->id, e->created));
    TRY(auth_print_scopes(e->scopes, out, err));
    TRY(buf_printf(out, err, "  %s%s%s%s", e->name, e->tenant ? " (tenant " : "",
                   e->tenant ? e->tenant : "", e->tenant ? ")" : ""));
    TRY(print_bounds(out, e, time(NULL), err));
    return buf_puts(out, "\n", err);
}

static int list(const char *file)
{
    struct error err;
    struct auth *keys = NULL;
    struct buf out;
    buf_init(&out, (size_t)AUTH_MAX_KEYS * 512);
    enum status st = auth_load(file, &keys, &err);
    for (size_t i = 0; st == OK && i < auth_count(keys); i++) {
        struct auth_entry e = auth_entry_at(keys, i);
        st = print_key(&out, &e, &err);
    }
    if (st == OK && out.len)
        fwrite(out.data, 1, out.len, stdout);
    buf_fini(&out);
    auth_destroy(keys);
    return finish(st, &err);
}

static int revoke(const char *file, const char *id)
{
    struct error err;
    enum status st = auth_revoke_key(file, id, &err);
    if (st == OK)
        fprintf(stderr, "%s: %s is revoked.\n", file, id);
    return finish(st, &err);
}

int cmd_key(int argc, char **argv)
{
    struct wanted w = {0};
    const char *id = NULL;
    const struct flag for_create[] = {{"--file", &w.file},
                                      {"--name", &w.name},
                                      {"--scopes", &w.scopes},
                                      {"--tenant", &w.tenant},
                                      {"--expires", &w.expires},
                                      {"--rpm", &w.rpm},
                                      {"--tpm", &w.tpm},
                                      {"--concurrent", &w.concurrent},
                                      {0}};
    const struct flag for_list[] = {{"--file", &w.file}, {0}};
    const struct flag for_revoke[] = {{"--file", &w.file}, {NULL, &id}, {0}};
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "create") == 0 && flags_read("witan key", argc, argv, 2, for_create) &&
        w.file && w.name && w.scopes)
        return create(&w);
    if (strcmp(verb, "list") == 0 && flags_read("witan key", argc, argv, 2, for_list) && w.file)
        return list(w.file);
    if (strcmp(verb, "revoke") == 0 && flags_read("witan key", argc, argv, 2, for_revoke) &&
        w.file && id)
        return revoke(w.file, id);
    fputs(usage, stderr);
    return 2;
}
