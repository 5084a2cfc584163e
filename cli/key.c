/* `witan key create` and `witan key list`: the file of API keys that listen.keys names. */
#include "cli/cli.h"
#include "cli/flags.h"
#include "coordinator/auth.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: witan key create --file FILE --name NAME --scopes SCOPE[,SCOPE...] [--tenant NAME]\n"
    "       witan key list --file FILE\n"
    "create writes a new key to standard output, once, and its hash into FILE (made with mode "
    "0600\n"
    "when it is absent). list writes id, date, scopes, name and tenant of each key. To withdraw a "
    "key,\n"
    "delete its line. The scopes:\n"
    "  generate   chat, completions, models, tokenize\n"
    "  raw        token ids and special tokens in prompts\n"
    "  admin      status, metrics\n"
    "  priority   requests that go before others'\n"
    "Keys of one --tenant share the KV blocks of equal prompts and one share of the engine; a key\n"
    "without it is a tenant by itself.\n";

static int finish(enum status st, const struct error *err)
{
    if (st == OK && fflush(stdout) == 0)
        return 0;
    fprintf(stderr, "witan key: %s\n", st == OK ? "standard output: cannot write" : err->msg);
    return 1;
}

static int create(const char *file, const char *name, const char *tenant, const char *words)
{
    struct error err;
    uint32_t scopes = 0;
    char key[AUTH_KEY_BYTES + 1] = "";
    enum status st = auth_parse_scopes(words, &scopes, &err);
    if (st == OK)
        st = auth_create_key(file, name, tenant, scopes, key, &err);
    if (st == OK) {
        fprintf(stderr, "This is the only time the key is shown; %s keeps a hash of it.\n", file);
        puts(key);
    }
    return finish(st, &err);
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
        st = buf_printf(&out, &err, "%s  %s  ", e.id, e.created);
        if (st == OK)
            st = auth_print_scopes(e.scopes, &out, &err);
        if (st == OK)
            st = buf_printf(&out, &err, "  %s%s%s%s\n", e.name, e.tenant ? " (tenant " : "",
                            e.tenant ? e.tenant : "", e.tenant ? ")" : "");
    }
    if (st == OK && out.len)
        fwrite(out.data, 1, out.len, stdout);
    buf_fini(&out);
    auth_destroy(keys);
    return finish(st, &err);
}

int cmd_key(int argc, char **argv)
{
    const char *file = NULL, *name = NULL, *scopes = NULL, *tenant = NULL;
    const struct flag for_create[] = {
        {"--file", &file}, {"--name", &name}, {"--scopes", &scopes}, {"--tenant", &tenant}, {0}};
    const struct flag for_list[] = {{"--file", &file}, {0}};
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "create") == 0 && flags_read("witan key", argc, argv, 2, for_create) && file &&
        name && scopes)
        return create(file, name, tenant, scopes);
    if (strcmp(verb, "list") == 0 && flags_read("witan key", argc, argv, 2, for_list) && file)
        return list(file);
    fputs(usage, stderr);
    return 2;
}
