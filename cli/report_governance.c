/* `witan report governance`: what runs, where it comes from and under which rules, in one document.
 * What nobody has recorded stands in it as null, and on the page as "not recorded". */
#include "base/check.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "cli/status.h"
#include "coordinator/config.h"
#include "partition/manifest.h"
#include "proto/versions.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FORMAT = 1 };

struct governance {
    const char *config, *html, *json;
    bool connect;
    struct client_options where;
};

typedef Witan__Inference__V1__GetStatusResponse reply;

/* Paths and messages may hold anything. */
static json_t *text(const char *s)
{
    json_t *t = json_string(s);
    return t ? t : json_string("(no UTF-8)");
}

static json_t *text_or_null(const char *s)
{
    return s && *s ? text(s) : json_null();
}

static void put(json_t *o, const char *key, json_t *value)
{
    CHECK(value && json_object_set_new(o, key, value) == 0, "no memory for a report");
}

/* --- the model ---------------------------------------------------------------------------------
 */

/* Of the list that the configuration names: its signatures and files' sizes are checked here, their
 * contents where they are loaded. */
static json_t *manifest_section(const struct config *c)
{
    struct manifest *m = NULL;
    struct error err;
    if (!c->model.manifest)
        return json_null();
    json_t *o = json_object();
    put(o, "file", text(c->model.manifest));
    put(o, "trusted_keys", text_or_null(c->model.trust));
    put(o, "signatures_demanded", json_integer(c->model.threshold));
    if (manifest_open(c->model.manifest, c->model.path, c->model.trust, c->model.threshold, &m,
                      &err) != OK) {
        put(o, "error", text(err.msg));
        return o;
    }
    put(o, "sha256", json_string(manifest_digest(m)));
    put(o, "signers", text_or_null(manifest_signers(m)));
    put(o, "bytes", json_integer((json_int_t)manifest_total_bytes(m)));
    manifest_close(m);
    return o;
}

static void put_words(const struct config *c, json_t *o)
{
    struct manifest *m = NULL;
    struct error err;
    struct manifest_words words = {"", "", ""};
    if (c->model.manifest && manifest_open(c->model.manifest, c->model.path, c->model.trust,
                                           c->model.threshold, &m, &err) == OK)
        words = manifest_words(m);
    put(o, "origin", text_or_null(words.origin));
    put(o, "licence", text_or_null(words.licence));
    put(o, "format", text_or_null(words.format));
    manifest_close(m);
}

static json_t *model_section(const struct config *c)
{
    json_t *o = json_object();
    put(o, "name", text_or_null(c->model.name));
    put(o, "folder", text_or_null(c->model.path));
    put_words(c, o);
    put(o, "manifest", manifest_section(c));
    put(o, "weights_in_memory", text_or_null(c->model.weights));
    put(o, "kv_cache", text_or_null(c->limits.kv));
    put(o, "computes_on", text_or_null(c->model.device));
    return o;
}

/* --- what is configured ------------------------------------------------------------------------
 */

static json_t *groups_section(const struct config *c)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < c->groups_count; i++) {
        const struct config_group *g = &c->groups[i];
        json_t *o = json_object(), *hosts = json_array();
        char layout[64];
        snprintf(layout, sizeof layout, "pp=%d tp=%d ep=%d", g->pp, g->tp, g->ep);
        for (uint32_t k = 0; k < g->hosts_count; k++) {
            const struct config_host *h = &g->hosts[k];
            json_t *host = json_object();
            put(host, "host", text(h->name));
            put(host, "ranks", json_integer(h->ranks));
            put(host, "region", text_or_null(h->region ? h->region : c->region));
            json_array_append_new(hosts, host);
        }
        put(o, "name", text(g->name));
        put(o, "layout", json_string(layout));
        put(o, "hosts", g->hosts_count > 0 ? json_incref(hosts) : json_string("this machine"));
        put(o, "started_by", json_string(g->external ? "others" : "witan serve"));
        json_decref(hosts);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *door(const char *address, const struct config *c)
{
    if (!address || strcmp(address, "off") == 0)
        return json_string("off");
    json_t *o = json_object();
    put(o, "address", text(address));
    put(o, "reachable_from_elsewhere", json_boolean(!address_is_loopback(address)));
    put(o, "tls", json_boolean(c->listen.tls.cert != NULL));
    put(o, "client_certificates", json_boolean(c->listen.tls.client_ca != NULL));
    put(o, "keys_demanded", json_boolean(c->listen.keys != NULL));
    return o;
}

static json_t *policies_section(const struct config *c)
{
    json_t *o = json_object();
    put(o, "http", door(c->listen.http, c));
    put(o, "grpc", door(c->listen.grpc, c));
    put(o, "ranks_and_peers", json_string("mutual TLS with the cluster's own certificates"));
    put(o, "prefixes_shared", text(c->limits.prefix_cache));
    put(o, "requests_at_once", json_integer(c->limits.requests));
    put(o, "requests_at_once_of_a_tenant",
        c->limits.tenant_requests > 0 ? json_integer(c->limits.tenant_requests)
                                      : json_string("no bound"));
    put(o, "tokens_of_a_request",
        c->limits.context > 0 ? json_integer(c->limits.context) : json_string("the model's"));
    put(o, "seconds_of_an_answer", json_integer(c->limits.answer_timeout_s));
    put(o, "losses_of_a_group_that_an_answer_survives", json_integer(c->limits.failovers));
    return o;
}

/* Prompts and answers: what the program does, whatever is configured. */
static json_t *retention_section(void)
{
    json_t *o = json_object();
    put(o, "prompts_and_answers",
        json_string("in memory alone, until the request has ended; no log, metric or file of the "
                    "program holds their text"));
    put(o, "prefix_cache",
        json_string("keys and values of prompts' blocks stay in ranks' memory until others take "
                    "their room or the rank ends"));
    return o;
}

/* --- what runs ---------------------------------------------------------------------------------
 */

static json_t *running_section(const struct governance *g, const struct config *c)
{
    struct client_options where = g->where;
    struct error err;
    reply *r = NULL;
    if (!g->connect)
        return json_null();
    struct client_options nobody;
    client_init(&nobody);
    if (strcmp(where.address, nobody.address) == 0 && c->listen.grpc &&
        strcmp(c->listen.grpc, "off") != 0)
        where.address = c->listen.grpc;
    json_t *o = json_object();
    put(o, "asked", text(where.address));
    if (status_ask(&where, &r, &err) != OK) {
        put(o, "error", text(err.msg));
        return o;
    }
    json_t *all = status_json(r, NULL);
    status_free(r);
    CHECK(all, "no memory for a report");
    json_object_update(o, all);
    json_decref(all);
    return o;
}

/* Name, host and region of every rank that runs, each once a host. */
static json_t *hosts_section(const json_t *running)
{
    const json_t *groups = json_object_get(running, "groups");
    if (!json_is_array(groups))
        return json_null();
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(groups); i++) {
        const json_t *g = json_array_get(groups, i), *ranks = json_object_get(g, "ranks");
        for (size_t k = 0; k < json_array_size(ranks); k++) {
            const json_t *r = json_array_get(ranks, k);
            const char *region = json_string_value(json_object_get(r, "region"));
            json_t *o = json_object();
            put(o, "group", json_incref(json_object_get(g, "name")));
            put(o, "rank", json_incref(json_object_get(r, "rank")));
            put(o, "host", json_incref(json_object_get(r, "host")));
            put(o, "region", text_or_null(region));
            put(o, "manifest_proven",
                text_or_null(json_string_value(json_object_get(r, "manifest_digest"))));
            json_array_append_new(list, o);
        }
    }
    return list;
}

/* --- the document ------------------------------------------------------------------------------
 */

static json_t *about(const struct governance *g, const struct config *c)
{
    char date[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    json_t *o = json_object();
    put(o, "format", json_integer(FORMAT));
    put(o, "made", json_string(date));
    put(o, "by", json_string("witan " WITAN_VERSION));
    put(o, "cluster", text_or_null(c->name));
    put(o, "region", text_or_null(c->region));
    put(o, "configuration", text(g->config));
    put(o, "coordinator_asked", json_boolean(g->connect));
    return o;
}

static enum status make(const struct governance *g, const struct config *c, json_t **out,
                        struct error *err)
{
    struct buf yaml;
    buf_init(&yaml, (size_t)CONFIG_MAX_BYTES * 8);
    enum status st = config_print(c, &yaml, err);
    if (st == OK)
        st = buf_append(&yaml, "", 1, err);
    if (st != OK) {
        buf_fini(&yaml);
        return st;
    }
    json_t *all = json_object(), *running = running_section(g, c);
    put(all, "report", about(g, c));
    put(all, "model", model_section(c));
    put(all, "gates", json_null());
    put(all, "groups", groups_section(c));
    put(all, "hosts", hosts_section(running));
    put(all, "policies", policies_section(c));
    put(all, "retention", retention_section());
    put(all, "audit", json_null());
    put(all, "fallback", json_null());
    put(all, "running", running);
    put(all, "configuration", text(yaml.data));
    buf_fini(&yaml);
    *out = all;
    return OK;
}

static enum status write_json(const char *path, const json_t *all, struct error *err)
{
    char *text = json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    CHECK(text, "no memory for a report");
    size_t len = strlen(text);
    text[len] = '\n'; /* in the place of its NUL */
    enum status st = OK;
    if (path)
        st = file_write(path, text, len + 1, 0644, true, err);
    else if (fwrite(text, 1, len + 1, stdout) != len + 1 || fflush(stdout) != 0)
        st = error_set(err, ERR_IO, "standard output: cannot write");
    free(text);
    return st;
}

static enum status write_html(const char *path, const json_t *all, struct error *err)
{
    char *page = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&page, &len);
    CHECK(out, "no memory for a page");
    report_html(out, "Witan: governance", all);
    CHECK(fclose(out) == 0, "no memory for a page");
    enum status st = file_write(path, page, len, 0644, true, err);
    free(page);
    return st;
}

static enum status run(const struct governance *g, struct error *err)
{
    struct config c;
    json_t *all = NULL;
    TRY(config_init(&c, err));
    enum status st = config_read(g->config, &c, err);
    if (st == OK && config_check(&c, err) != OK) {
        error_prefix(err, "%s: ", g->config);
        st = err->code;
    }
    if (st == OK)
        st = make(g, &c, &all, err);
    if (st == OK && (g->json || !g->html))
        st = write_json(g->json, all, err);
    if (st == OK && g->html)
        st = write_html(g->html, all, err);
    json_decref(all);
    config_fini(&c);
    return st;
}

int report_governance(int argc, char **argv)
{
    struct governance g = {0};
    struct error err;
    client_init(&g.where);
    const struct {
        const char *name;
        const char **value;
    } texts[] = {{"-c", &g.config}, {"--html", &g.html}, {"--json", &g.json}};
    for (int i = 1; i < argc; i++) {
        int taken = client_flag(&g.where, argc, argv, &i);
        if (taken < 0)
            return 2;
        for (size_t k = 0; k < COUNT_OF(texts) && taken == 0; k++)
            if (strcmp(argv[i], texts[k].name) == 0 && i + 1 < argc) {
                *texts[k].value = argv[++i];
                taken = 1;
            }
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--connect") == 0) {
            g.connect = true;
        } else {
            return report_help(stderr);
        }
    }
    if (!g.config)
        return report_help(stderr);
    if (run(&g, &err) == OK)
        return 0;
    fprintf(stderr, "witan report governance: %s\n", err.msg);
    return 1;
}
