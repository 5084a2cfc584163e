/* coordinator/config: what cluster.yaml and flags may say, and what is refused, where. */
#include "tests/unit/partition/folder.h"

#include "coordinator/config.h"

#define MODEL "model: {path: /m/qwen}\n"

/* A case of one text that config_read refuses: place, key, and all the words given. */
#define REFUSES(case_name, text, ...)                                                              \
    static void case_name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        struct error err;                                                                          \
        struct config c;                                                                           \
        assert_int_equal(config_init(&c, &err), OK);                                               \
        SAYS(config_read_text("cluster.yaml", text, sizeof(text) - 1, &c, &err), ERR_INVALID,      \
             &err, "cluster.yaml: line ", __VA_ARGS__);                                            \
        assert_string_equal(c.name, "witan");                                                      \
        assert_int_equal(c.groups_count, 0);                                                       \
        config_fini(&c);                                                                           \
    }

REFUSES(unknown_key, "name: a\nregon: b\n", "line 2 column 1: ", "unknown key \"regon\"",
        "expected one of name, region, model")
REFUSES(unknown_key_deep, "listen:\n  tls:\n    cert: a\n    crt: b\n",
        "line 4 column 5: ", "listen.tls: unknown key \"crt\"", "cert, key, client_ca")
REFUSES(unknown_key_in_a_list, "groups:\n  - name: a\n  - name: b\n    hosts: [{rank: 1}]\n",
        "line 4 column 14: ", "groups[1].hosts[0]: unknown key \"rank\"", "name, ranks, region")
REFUSES(merge_key, "<<: {name: a}\n", "unknown key \"<<\"")
REFUSES(key_twice, "name: a\nregion: b\nname: c\n", "line 3 column 1: ", "each key once",
        "name again (first on line 1)")
REFUSES(key_twice_deep, "limits: {threads: 1, chunk: 2, threads: 1}\n",
        "line 1 column 32: ", "limits: ", "threads again")
REFUSES(key_of_wrong_type, "? [a, b]\n: c\n", "expected a key", "found a list")
REFUSES(list_in_place_of_mapping, "- name: a\n", "line 1 column 1: ", "expected a mapping",
        "found a list")
REFUSES(mapping_in_place_of_list, "groups: {name: a}\n", "groups: expected a list",
        "found a mapping")
REFUSES(mapping_in_place_of_string, "name: {a: b}\n", "name: expected a string", "found a mapping")
REFUSES(list_in_place_of_integer, "limits: {threads: [1]}\n",
        "limits.threads: expected an integer of 0 to 1024", "found a list")
REFUSES(string_in_place_of_mapping, "limits: many\n", "limits: expected a mapping",
        "found \"many\"")
REFUSES(nothing_in_place_of_mapping, "limits:\n  # threads: 2\nname: a\n",
        "limits: expected a mapping", "found nothing (leave the key out for its defaults)")
REFUSES(null_in_place_of_string, "pki: ~\n", "line 1 column 6: ", "pki: expected a string",
        "found \"~\"")
REFUSES(nothing_in_place_of_string, "pki:\n", "pki: expected a string", "found nothing")
REFUSES(word_in_place_of_integer, "limits:\n  context: many\n",
        "line 2 column 12: ", "limits.context: expected an integer of 0 to 16777216",
        "found \"many\"")
REFUSES(integer_in_quotes, "limits: {context: \"5\"}\n", "limits.context: expected an integer")
REFUSES(octal_integer, "limits: {context: 010}\n", "expected an integer", "found \"010\"")
REFUSES(hexadecimal_integer, "limits: {context: 0x10}\n", "expected an integer", "found \"0x10\"")
REFUSES(fraction, "limits: {context: 1.5}\n", "expected an integer", "found \"1.5\"")
REFUSES(step_timeout_too_small, "limits: {step_timeout_s: 0}\n",
        "limits.step_timeout_s: expected 1 to 3600", "found 0")
REFUSES(integer_too_small, "limits: {probe_s: 0}\n", "limits.probe_s: expected 1 to 3600",
        "found 0")
REFUSES(integer_negative, "limits: {threads: -1}\n", "limits.threads: expected 0 to 1024",
        "found -1")
REFUSES(integer_too_large, "groups: [{name: a}, {tp: 1025}]\n", "groups[1].tp: expected 1 to 1024",
        "found 1025")
REFUSES(integer_of_many_digits, "limits: {threads: 18446744073709551617}\n", "expected 0 to 1024",
        "found 18446744073709551617")
REFUSES(ranks_out_of_bounds, "groups: [{hosts: [{name: a, ranks: 0}]}]\n",
        "groups[0].hosts[0].ranks: expected 1 to 1024", "found 0")
REFUSES(threshold_too_large, "model:\n  path: /m\n  threshold: 65\n",
        "line 3 column 14: ", "model.threshold: expected 1 to 64", "found 65")
REFUSES(threshold_of_none, "model: {path: /m, threshold: 0}\n", "model.threshold: expected 1 to 64")
REFUSES(yes_in_place_of_true, "verbose: yes\n", "verbose: expected true or false", "found \"yes\"")
REFUSES(wipe_in_words, "retention: {wipe: always}\n", "retention.wipe: expected true or false")
REFUSES(true_in_quotes, "listen: {insecure: 'true'}\n", "listen.insecure: expected true or false")
REFUSES(anchor, "name: &a b\n", "line 1 column 7: ", "found the anchor \"a\"")
REFUSES(alias, "name: *a\n", "found the alias \"a\"")
REFUSES(anchors_that_multiply,
        "groups: &a [{name: x}]\nlimits: &b [*a, *a, *a]\nname: &c [*b, *b, *b]\n",
        "line 1 column 9: ", "found the anchor \"a\"")
REFUSES(tag, "name: !!str a\n", "found the tag \"tag:yaml.org,2002:str\"")
REFUSES(own_tag, "name: !exec a\n", "found the tag \"!exec\"")
REFUSES(second_document, "name: a\n---\nname: b\n", "line 2 column 1: ", "expected one document")
REFUSES(empty_text, "", "expected a mapping", "found nothing")
REFUSES(comments_alone, "# name: a\n", "expected a mapping", "found nothing")
REFUSES(bad_indentation, "name: a\n   region: b\n",
        "line 2 column 10: ", "mapping values are not allowed")
REFUSES(unclosed_list, "groups: [{name: a}\n", "line 2 column 1: ", "did not find expected")
REFUSES(tab, "limits:\n\tthreads: 1\n", "line 2 column 1: ", "cannot start any token")
REFUSES(bytes_that_are_not_utf8, "name: a\nregion: \xff\n",
        "line 2 column 9: ", "invalid leading UTF-8 octet")
REFUSES(utf16, "\xff\xfen\0a\0", "line 1 column 1: ", "UTF-8")
REFUSES(control_character, "name: a\x01\n", "control characters are not allowed")
REFUSES(escaped_nul, "name: \"a\\0b\"\n", "name: expected a string", "a control character")
REFUSES(escaped_newline, "name: \"a\\nb\"\n", "name: expected a string", "a control character")

/* What lies too deep is refused where it begins, before there is much of it. */
static void depth_is_bounded(void **state)
{
    (void)state;
    enum { DEEP = 100000 };
    char *text = malloc(DEEP + 8);
    assert_non_null(text);
    memcpy(text, "groups: ", 8);
    memset(text + 8, '[', DEEP);
    struct error err;
    struct config c;
    assert_int_equal(config_init(&c, &err), OK);
    SAYS(config_read_text("cluster.yaml", text, DEEP + 8, &c, &err), ERR_INVALID, &err,
         "line 1 column 10: groups[0]: expected a mapping, found a list");
    config_fini(&c);
    free(text);
}

static void size_is_bounded(void **state)
{
    (void)state;
    char *text = malloc(CONFIG_MAX_BYTES + 1);
    assert_non_null(text);
    memset(text, '#', CONFIG_MAX_BYTES + 1);
    struct error err;
    struct config c;
    assert_int_equal(config_init(&c, &err), OK);
    SAYS(config_read_text("cluster.yaml", text, CONFIG_MAX_BYTES + 1, &c, &err), ERR_LIMIT, &err,
         "cluster.yaml: expected at most 1048576 bytes");
    struct folder f = folder_make();
    folder_write(&f, "cluster.yaml", text, CONFIG_MAX_BYTES + 1);
    SAYS(config_read(folder_path(&f, "cluster.yaml"), &c, &err), ERR_LIMIT, &err, "cluster.yaml");
    folder_remove(&f);
    config_fini(&c);
    free(text);
}

REFUSES(too_many_peers, "peers: [a:1, b:1, c:1, d:1, e:1, f:1, g:1, h:1]\n",
        "peers: expected at most 7 entries")
REFUSES(peers_in_place_of_list, "peers: 'a:1'\n", "peers: expected a list", "found \"a:1\"")
REFUSES(peer_of_nothing, "peers: [a:1, ~]\n", "peers[1]: expected a string", "found \"~\"")
REFUSES(peer_of_a_mapping, "peers: [{name: a}]\n", "peers[0]: expected a string", "a mapping")

static void too_many_groups(void **state)
{
    (void)state;
    char text[2048] = "groups:\n";
    for (int i = 0; i <= CONFIG_MAX_GROUPS; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "  - {name: g%d}\n", i);
    struct error err;
    struct config c;
    assert_int_equal(config_init(&c, &err), OK);
    SAYS(config_read_text("cluster.yaml", text, strlen(text), &c, &err), ERR_INVALID, &err,
         "line 66 column 5: groups: expected at most 64 entries");
    config_fini(&c);
}

static void long_value(void **state)
{
    (void)state;
    char text[8192] = "pki: ";
    memset(text + 5, 'x', 4097);
    struct error err;
    struct config c;
    assert_int_equal(config_init(&c, &err), OK);
    SAYS(config_read_text("cluster.yaml", text, strlen(text), &c, &err), ERR_INVALID, &err,
         "pki: expected a string of at most 4096 bytes, found 4097");
    config_fini(&c);
}

static void file_missing(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    struct config c;
    assert_int_equal(config_init(&c, &err), OK);
    SAYS(config_read(folder_path(&f, "cluster.yaml"), &c, &err), ERR_NOT_FOUND, &err,
         "/cluster.yaml", "No such file");
    config_fini(&c);
    folder_remove(&f);
}

/* --- what config_check refuses --- */

static enum status check_text(const char *text, struct config *c, struct error *err)
{
    if (config_init(c, err) != OK || config_read_text("c.yaml", text, strlen(text), c, err) != OK)
        fail_msg("%s", err->msg);
    return config_check(c, err);
}

/* A case of one sound text that does not fit: the key and all the words given. */
#define DOES_NOT_FIT(case_name, text, ...)                                                         \
    static void case_name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        struct error err;                                                                          \
        struct config c;                                                                           \
        SAYS(check_text(text, &c, &err), ERR_INVALID, &err, __VA_ARGS__);                          \
        config_fini(&c);                                                                           \
    }

#define TWO_HOSTS "hosts: [{name: n1, ranks: 2}, {name: n2, ranks: 2}]"
#define REMOTE "pki: /p\nlisten: {cluster: '10.0.0.1:8002'}\n"

DOES_NOT_FIT(model_missing, "name: a\n", "model.path: expected a checkpoint's folder", "found none")
DOES_NOT_FIT(name_with_slash, MODEL "name: a/b\n", "name: expected 1 to 64 letters",
             "found \"a/b\"")
DOES_NOT_FIT(name_like_a_flag, MODEL "name: -oProxyCommand=x\n", "name: expected 1 to 64",
             "a letter or digit first")
DOES_NOT_FIT(name_empty, MODEL "name: ''\n", "name: expected 1 to 64 letters", "found \"\"")
DOES_NOT_FIT(region_with_colon, MODEL "region: 'a:b'\n", "region: expected 1 to 64 letters",
             "found \"a:b\"")
DOES_NOT_FIT(model_name_with_space, "model: {path: /m/my model}\n",
             "model.name: expected 1 to 128 letters", "found \"my model\"")
DOES_NOT_FIT(group_without_name, MODEL "groups: [{tp: 2}]\n", "groups[0].name: expected 1 to 64")
DOES_NOT_FIT(group_twice, MODEL "groups: [{name: a}, {name: b}, {name: a}]\n",
             "groups[2].name: expected each name once", "found \"a\" again (groups[0])")
DOES_NOT_FIT(host_twice,
             MODEL REMOTE
             "groups: [{name: a, tp: 4, data_plane: e, hosts: [{name: n1}, {name: n1}]}]\n",
             "groups[0].hosts[1].name: expected each host once", "\"n1\" again (hosts[0])")
DOES_NOT_FIT(host_like_a_flag,
             MODEL REMOTE "groups: [{name: a, data_plane: e, hosts: [{name: -l}]}]\n",
             "groups[0].hosts[0].name: expected", "found \"-l\"")
DOES_NOT_FIT(ranks_that_do_not_add_up,
             MODEL REMOTE "groups: [{name: a, tp: 2, pp: 3, data_plane: e, " TWO_HOSTS "}]\n",
             "groups[0].hosts: expected 6 ranks in all", "found 4")
DOES_NOT_FIT(data_plane_missing, MODEL REMOTE "groups: [{name: a, tp: 4, " TWO_HOSTS "}]\n",
             "groups[0].data_plane: expected the interfaces or subnets", "found none")
DOES_NOT_FIT(data_plane_with_space,
             MODEL REMOTE "groups: [{name: a, tp: 4, data_plane: 'eth0, eth1', " TWO_HOSTS "}]\n",
             "groups[0].data_plane: expected interfaces or subnets", "found \"eth0, eth1\"")
DOES_NOT_FIT(data_plane_of_bad_prefix, MODEL "groups: [{name: a, data_plane: 10.0.0.0/33}]\n",
             "groups[0].data_plane: expected interfaces or subnets", "found \"10.0.0.0/33\"")
DOES_NOT_FIT(data_plane_like_a_flag, MODEL "groups: [{name: a, data_plane: '--mca'}]\n",
             "groups[0].data_plane: expected interfaces")
DOES_NOT_FIT(w_too_small, MODEL "groups: [{name: a, tp: 4, w: 2}]\n",
             "groups[0].w: expected at least 4", "found 2")
DOES_NOT_FIT(world_too_large, MODEL "groups: [{name: a, tp: 64, pp: 64}]\n",
             "groups[0]: expected at most 1024 ranks", "found 4096")
DOES_NOT_FIT(hosts_that_cannot_attach,
             MODEL "groups: [{name: a, tp: 4, data_plane: e, " TWO_HOSTS "}]\n",
             "listen.cluster: expected an address that n1 of groups[0].hosts can reach",
             "found 127.0.0.1:8002")
DOES_NOT_FIT(address_without_port, MODEL "listen: {http: localhost}\n",
             "listen.http: expected \"host:port\"", "found \"localhost\"")
DOES_NOT_FIT(address_of_bad_port, MODEL "listen: {grpc: 'localhost:65536'}\n",
             "listen.grpc: expected \"host:port\"", "found \"localhost:65536\"")
DOES_NOT_FIT(cluster_off, MODEL "listen: {cluster: 'off'}\n", "listen.cluster: expected", "\"off\"")
DOES_NOT_FIT(same_address_twice, MODEL "listen: {http: 'localhost:80', grpc: 'localhost:80'}\n",
             "listen.grpc: expected another address than listen.http", "found localhost:80")
DOES_NOT_FIT(peer_without_port, MODEL "pki: p\npeers: ['b:1', c]\n",
             "peers[1]: expected \"host:port\"", "found \"c\"")
DOES_NOT_FIT(peer_of_any_port, MODEL "pki: p\npeers: ['b:0']\n",
             "peers[0]: expected the port that it listens on, found b:0")
DOES_NOT_FIT(peer_twice, MODEL "pki: p\npeers: ['b:1', 'c:1', 'b:1']\n",
             "peers[2]: expected each address once, found b:1 again (peers[0])")
DOES_NOT_FIT(peer_of_itself, MODEL "pki: p\npeers: ['127.0.0.1:8002']\n",
             "peers[0]: expected another coordinator's listen.cluster, found this one's")
DOES_NOT_FIT(peer_out_of_reach,
             MODEL REMOTE "peers: ['localhost:1']\n"
                          "groups: [{name: a, tp: 4, data_plane: e, " TWO_HOSTS "}]\n",
             "peers[0]: expected an address that n1 of groups[0].hosts can reach, found localhost")
DOES_NOT_FIT(peers_without_pki, MODEL "peers: ['b:1']\n", "peers: expected pki", "found none")
DOES_NOT_FIT(cluster_beyond_loopback, MODEL "listen: {cluster: '0.0.0.0:8002'}\n",
             "listen.cluster: 0.0.0.0:8002 is reachable from other machines", "expected pki")
DOES_NOT_FIT(http_without_tls, MODEL "listen: {http: '0.0.0.0:80', keys: k}\n",
             "listen.http: 0.0.0.0:80 is reachable", "expected listen.tls.cert and listen.tls.key")
DOES_NOT_FIT(http_without_keys, MODEL "listen: {http: '[::]:80', tls: {cert: c, key: k}}\n",
             "listen.http: [::]:80 is reachable", "expected listen.keys")
#define JWKS "jwks: j, issuer: i, audience: a"
DOES_NOT_FIT(jwks_without_issuer, MODEL "auth: {jwks: j, audience: a}\n",
             "auth.issuer: expected what tokens say as \"iss\"", "found \"\"")
DOES_NOT_FIT(jwks_without_audience, MODEL "auth: {jwks: j, issuer: i}\n",
             "auth.audience: expected what tokens say as \"aud\"")
DOES_NOT_FIT(issuer_without_jwks, MODEL "auth: {issuer: i}\n",
             "auth.jwks: expected the file of public keys of auth.issuer, found none")
DOES_NOT_FIT(jwks_empty, MODEL "auth: {jwks: ''}\n", "auth.jwks: expected a path, found \"\"")
DOES_NOT_FIT(tenant_claim_empty, MODEL "auth: {" JWKS ", tenant_claim: ''}\n",
             "auth.tenant_claim: expected a claim's name")
DOES_NOT_FIT(grpc_without_tls, MODEL "listen: {grpc: 'host:80', keys: k}\n",
             "listen.grpc: host:80 is reachable")
DOES_NOT_FIT(cert_without_key, MODEL "listen: {tls: {cert: c}}\n", "listen.tls.key: expected")
DOES_NOT_FIT(key_without_cert, MODEL "listen: {tls: {key: c}}\n", "listen.tls.cert: expected")
DOES_NOT_FIT(client_ca_alone, MODEL "listen: {tls: {client_ca: c}}\n",
             "listen.tls.client_ca: expected cert and key")
DOES_NOT_FIT(empty_path, MODEL "pki: ''\n", "pki: expected a path")
DOES_NOT_FIT(manifest_without_trust, "model: {path: /m, manifest: m.json}\n",
             "model.trust: expected the public keys", "found none")
DOES_NOT_FIT(trust_without_manifest, "model: {path: /m, trust: keys}\n",
             "model.manifest: expected the manifest", "found none")
DOES_NOT_FIT(threshold_without_manifest, "model: {path: /m, threshold: 2}\n",
             "model.threshold: expected model.manifest and model.trust", "found none")
DOES_NOT_FIT(empty_manifest, "model: {path: /m, manifest: '', trust: k}\n",
             "model.manifest: expected a path")
DOES_NOT_FIT(empty_trust, "model: {path: /m, manifest: m, trust: ''}\n",
             "model.trust: expected a path")
DOES_NOT_FIT(cache_without_manifest, "model: {path: /m, weights_cache: /c}\n",
             "model.weights_cache: expected model.manifest and model.trust", "found none")
DOES_NOT_FIT(empty_cache, "model: {path: /m, manifest: m, trust: k, weights_cache: ''}\n",
             "model.weights_cache: expected a path")
DOES_NOT_FIT(other_kv, MODEL "limits: {kv: fp8}\n",
             "limits.kv: expected one of \"bf16\", \"f32\", \"int8\"", "found \"fp8\"")
DOES_NOT_FIT(other_device, "model: {path: /m, device: gpu}\n",
             "model.device: expected one of \"cpu\", \"cuda\"", "found \"gpu\"")
DOES_NOT_FIT(other_collectives, "model: {path: /m, collectives: mpi}\n",
             "model.collectives: expected one of \"auto\", \"nccl\", \"staged\"", "found \"mpi\"")
DOES_NOT_FIT(other_weights, "model: {path: /m, weights: int5}\n",
             "model.weights: expected one of \"published\", \"int8\", \"int4\"", "found \"int5\"")
DOES_NOT_FIT(gpu_with_int4, "model: {path: /m, device: cuda, weights: int4}\n",
             "model.weights: expected \"published\" with model.device: cuda", "found \"int4\"")
DOES_NOT_FIT(gpu_with_f32, "model: {path: /m, device: cuda}\nlimits: {kv: f32}\n",
             "limits.kv: expected \"bf16\" or \"int8\" with model.device: cuda", "found \"f32\"")
DOES_NOT_FIT(other_kernels, MODEL "limits: {kernels: sse}\n",
             "limits.kernels: expected one of \"auto\"", "found \"sse\"")
DOES_NOT_FIT(other_prefix_cache, MODEL "limits: {prefix_cache: 'on'}\n",
             "limits.prefix_cache: expected one of \"tenant\", \"shared\", \"off\"", "found \"on\"")

/* Flags fill the struct without a schema: bounds and texts hold for them too. */
static void flags_are_checked(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(check_text(MODEL, &c, &err), OK);
    c.limits.sequences = 0;
    SAYS(config_check(&c, &err), ERR_INVALID, &err, "limits.sequences: expected 1 to 65536");
    c.limits.sequences = 1;
    c.groups[0].tp = 2000;
    SAYS(config_check(&c, &err), ERR_INVALID, &err, "groups[0].tp: expected 1 to 1024, found 2000");
    c.groups[0].tp = 1;
    c.model.threshold = 0;
    SAYS(config_check(&c, &err), ERR_INVALID, &err, "model.threshold: expected 1 to 64, found 0");
    c.model.threshold = 1;
    c.model.path[1] = '\n';
    SAYS(config_check(&c, &err), ERR_INVALID, &err, "model.path: expected no control characters");
    c.model.path[1] = (char)0xff;
    SAYS(config_check(&c, &err), ERR_INVALID, &err, "model.path: expected UTF-8");
    config_fini(&c);
}

/* --- what is taken --- */

static void defaults(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(check_text(MODEL, &c, &err), OK);
    assert_string_equal(c.name, "witan");
    assert_string_equal(c.region, "");
    assert_string_equal(c.model.name, "qwen");
    assert_null(c.model.manifest);
    assert_null(c.model.trust);
    assert_null(c.model.weights_cache);
    assert_string_equal(c.model.device, "cpu");
    assert_string_equal(c.model.weights, "published");
    assert_string_equal(c.model.collectives, "auto");
    assert_int_equal(c.model.threshold, 1);
    assert_string_equal(c.listen.http, "127.0.0.1:8000");
    assert_string_equal(c.listen.cluster, "127.0.0.1:8002");
    assert_null(c.pki);
    assert_int_equal(c.groups_count, 1);
    assert_string_equal(c.groups[0].name, "g0");
    assert_int_equal(config_group_world(&c.groups[0]), 1);
    assert_int_equal(c.limits.sequences, 64);
    assert_int_equal(c.limits.answer_timeout_s, 3600);
    assert_string_equal(c.limits.kv, "bf16");
    assert_string_equal(c.limits.prefix_cache, "tenant");
    assert_int_equal(c.limits.stall_ms, 100);
    assert_int_equal(c.limits.speculate, 0);
    assert_int_equal(c.limits.waiting, 1024);
    assert_int_equal(c.limits.waiting_tokens, 16777216);
    assert_int_equal(c.limits.waiting_ms, 60000);
    assert_int_equal(c.limits.memory_mb, 1024);
    assert_int_equal(c.limits.tenant_requests, 0);
    assert_int_equal(c.limits.read_timeout_s, 30);
    assert_true(config_sandbox(&c));
    assert_false(c.core_dumps || c.retention.mlock || c.retention.wipe);
    assert_false(c.verbose);
    assert_int_equal(config_check(&c, &err), OK); /* again */
    config_fini(&c);
}

static void tokens_stand_for_keys(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(check_text(MODEL "listen: {http: '0.0.0.0:80', tls: {cert: c, key: k}}\n"
                                      "auth: {" JWKS ", quotas: {tokens_per_minute: 9}}\n",
                                &c, &err),
                     OK);
    assert_string_equal(c.auth.tenant_claim, "sub");
    assert_string_equal(c.auth.scopes_claim, "scope");
    assert_int_equal(c.auth.leeway_s, 60);
    assert_int_equal(c.auth.quotas.tokens_per_minute, 9);
    assert_int_equal(c.auth.quotas.requests_per_minute, 0);
    config_fini(&c);
}

static void what_is_not_said_stays(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(check_text(MODEL "verbose: true\nlimits: {chunk: 7}\n", &c, &err), OK);
    static const char more[] = "limits: {threads: 3}\ngroups: [{name: x, pp: 2}]\n";
    assert_int_equal(config_read_text("c.yaml", more, sizeof more - 1, &c, &err), OK);
    assert_int_equal(config_check(&c, &err), OK);
    assert_true(c.verbose);
    static const char less[] = "sandbox: off\ncore_dumps: true\nretention: {wipe: true}\n";
    assert_int_equal(config_read_text("c.yaml", less, sizeof less - 1, &c, &err), OK);
    assert_int_equal(config_check(&c, &err), OK);
    assert_false(config_sandbox(&c));
    assert_true(c.core_dumps && c.retention.wipe && !c.retention.mlock);
    assert_int_equal(c.limits.chunk, 7);
    assert_int_equal(c.limits.threads, 3);
    assert_int_equal(c.limits.sequences, 64);
    assert_string_equal(c.model.path, "/m/qwen");
    assert_int_equal(c.groups_count, 1);
    assert_string_equal(c.groups[0].name, "x");
    assert_int_equal(c.groups[0].pp, 2);
    assert_int_equal(c.groups[0].tp, 1);
    config_fini(&c);
}

static void empty_mapping_and_list(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(config_init(&c, &err), OK);
    assert_int_equal(config_read_text("c.yaml", "{}", 2, &c, &err), OK);
    config_fini(&c);
    assert_int_equal(check_text(MODEL "groups: []\nlimits: {}\n", &c, &err), OK);
    assert_int_equal(c.groups_count, 1);
    config_fini(&c);
}

static void hosts_take_the_clusters_region(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(check_text(MODEL REMOTE
                                "region: eu\ngroups:\n"
                                "  - {name: a, tp: 3, data_plane: 'eth1,10.0.0.0/8,fd00::/8',\n"
                                "     hosts: [{name: n1, ranks: 2}, {name: n2, region: us}]}\n",
                                &c, &err),
                     OK);
    assert_string_equal(c.groups[0].hosts[0].region, "eu");
    assert_string_equal(c.groups[0].hosts[1].region, "us");
    assert_int_equal(c.groups[0].hosts[1].ranks, 1);
    config_fini(&c);
}

static void peers_are_kept_in_order(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(check_text(MODEL "pki: p\npeers: ['b:1', '[::1]:2']\n", &c, &err), OK);
    assert_int_equal(c.peers_count, 2);
    assert_string_equal(c.peers[0], "b:1");
    assert_string_equal(c.peers[1], "[::1]:2");
    static const char more[] = "peers: ['c:3']\n", none[] = "peers: []\n";
    assert_int_equal(config_read_text("more", more, sizeof more - 1, &c, &err), OK);
    assert_int_equal(config_read_text("none", none, sizeof none - 1, &c, &err), OK);
    assert_int_equal(c.peers_count, 1);
    assert_string_equal(c.peers[0], "c:3");
    config_fini(&c);
}

static void insecure_says_i_know(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(
        check_text(MODEL "listen: {http: '0.0.0.0:80', grpc: 'off', insecure: true}\n", &c, &err),
        OK);
    config_fini(&c);
}

static void model_name_is_the_last_component(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(check_text("model: {path: ./a/Qwen3-30B-A3B//}\n", &c, &err), OK);
    assert_string_equal(c.model.name, "Qwen3-30B-A3B");
    config_fini(&c);
}

static char *printed(const struct config *c)
{
    struct error err;
    struct buf out;
    buf_init(&out, 1 << 22);
    if (config_print(c, &out, &err) != OK)
        fail_msg("%s", err.msg);
    return out.data;
}

/* Printed, read and printed again: nothing changes, whatever the texts hold. */
static void print_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = {
        MODEL,
        MODEL "verbose: true\npki: 'null'\nlisten: {keys: '~', tls: {cert: 'true', key: '1'}}\n",
        MODEL "pki: p\npeers: ['b:1', '~', 'null', '[::1]:2']\n",
        "model: {path: /m/qwen, manifest: /m/list.json, trust: /k, threshold: 3, weights_cache: "
        "/c, device: cuda, collectives: staged}\n",
        "model: {path: \"/\\u00e4 \\\"'#: {\\\\ \\U0001F600\", name: a/b}\n",
        MODEL REMOTE "groups:\n  - {name: a, tp: 4, data_plane: eth0, " TWO_HOSTS "}\n"
                     "  - {name: b, pp: 2, ep: 3, w: 3, external: true}\n"
                     "limits: {context: 4096, chunk: 64, kv: f32, probe_s: 3600, step_timeout_s: "
                     "3, prefix_cache: 'off'}\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error err;
        struct config c, again;
        if (check_text(texts[i], &c, &err) != OK)
            assert_true(strstr(err.msg, "model.name") || strstr(err.msg, "peers[1]")); /* printed */
        char *first = printed(&c);
        assert_int_equal(config_init(&again, &err), OK);
        if (config_read_text("printed", first, strlen(first), &again, &err) != OK)
            fail_msg("%s in:\n%s", err.msg, first);
        char *second = printed(&again);
        assert_string_equal(first, second);
        assert_string_equal(c.model.path, again.model.path);
        free(first);
        free(second);
        config_fini(&c);
        config_fini(&again);
    }
}

/* --- the audit log --- */

static void audit_says(const char *audit, enum status st, const char *word)
{
    struct config c;
    struct error err = {0};
    char text[512];
    snprintf(text, sizeof text, "model: {path: /m}\naudit: %s\n", audit);
    assert_int_equal(config_init(&c, &err), OK);
    enum status found = config_read_text("test", text, strlen(text), &c, &err);
    if (found == OK)
        found = config_check(&c, &err);
    if (found != st || !strstr(err.msg, word))
        fail_msg("%s: %d, \"%s\"", audit, found, err.msg);
    config_fini(&c);
}

static void an_audit_log(void **state)
{
    (void)state;
    struct config c;
    struct error err;
    static const char text[] = "model: {path: /m}\naudit: {file: /a, key: /k}\n";
    assert_int_equal(config_init(&c, &err), OK);
    assert_int_equal(config_read_text("test", text, sizeof text - 1, &c, &err), OK);
    assert_int_equal(config_check(&c, &err), OK);
    assert_string_equal(c.audit.file, "/a");
    assert_string_equal(c.audit.on_error, "refuse");
    assert_int_equal(c.audit.head_s, 60);
    assert_null(c.audit.heads);
    config_fini(&c);
    audit_says("{file: /a, key: /k, heads: /h, hmac_key: /m, on_error: continue, head_s: 5}", OK,
               "");
    audit_says("{file: /a}", ERR_INVALID, "audit.key: expected the key");
    audit_says("{heads: /h}", ERR_INVALID, "audit.file: expected one with audit.heads");
    audit_says("{hmac_key: /h}", ERR_INVALID, "audit.file: expected one with audit.hmac_key");
    audit_says("{file: /a, key: /k, heads: /a}", ERR_INVALID,
               "audit.heads: expected a file beside");
    audit_says("{file: \"\", key: /k}", ERR_INVALID, "audit.file: ");
    audit_says("{file: /a, key: /k, on_error: ignore}", ERR_INVALID,
               "audit.on_error: expected one of");
    audit_says("{file: /a, key: /k, head_s: 0}", ERR_INVALID, "head_s");
    audit_says("{file: /a, key: /k, sign: /x}", ERR_INVALID, "sign");
}

/* The example that ships is sound, and shows every key that there is. */
static void shipped_example(void **state)
{
    (void)state;
    struct error err;
    struct config c;
    assert_int_equal(config_init(&c, &err), OK);
    if (config_read(WITAN_SOURCE_DIR "/deploy/cluster.yaml", &c, &err) != OK ||
        config_check(&c, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(config_group_world(&c.groups[0]), 12);
    char *text = NULL, *all = printed(&c);
    size_t len = 0;
    assert_int_equal(
        file_read_all(WITAN_SOURCE_DIR "/deploy/cluster.yaml", 1 << 20, &text, &len, &err), OK);
    for (char *line = strtok(all, "\n"); line; line = strtok(NULL, "\n")) {
        char key[64] = "";
        if (sscanf(line + strspn(line, " -"), "%60[a-z_]:", key) == 1) {
            strcat(key, ":");
            if (!strstr(text, key))
                fail_msg("deploy/cluster.yaml does not show %s", key);
        }
    }
    free(text);
    free(all);
    config_fini(&c);
}

/* --- addresses --- */

static void addresses_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *address, *host;
        int port;
    } good[] = {
        {"127.0.0.1:8000", "127.0.0.1", 8000},   {"[::1]:0", "::1", 0},
        {"localhost:65535", "localhost", 65535}, {"a-b.example:1", "a-b.example", 1},
        {"0.0.0.0:080", "0.0.0.0", 80},
    };
    static const char *const bad[] = {"",        "a",       ":80",      "a:",     "a:-1",
                                      "a:65536", "a:1x",    "a: 1",     "a:+1",   "::1:80",
                                      "[::1]",   "[::1]80", "[a]:80",   "[]:80",  "a b:80",
                                      "a/b:80",  "-a:80",   "a:100000", "[::1:80"};
    char host[256];
    int port = 0;
    struct error err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(address_split(good[i].address, host, &port, &err), OK);
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        SAYS(address_split(bad[i], host, &port, &err), ERR_INVALID, &err, "expected \"host:port\"",
             bad[i]);
}

static void loopback_is_known(void **state)
{
    (void)state;
    static const char *const here[] = {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1",
                                       "localhost:1", "LOCALHOST:1", "[::ffff:127.0.0.1]:1"};
    static const char *const beyond[] = {
        "0.0.0.0:1", "[::]:1", "10.0.0.1:1",  "example:1",           "127.0.0.1",
        "off",       "",       "128.0.0.1:1", "localhost.example:1", "[::ffff:10.0.0.1]:1"};
    for (size_t i = 0; i < sizeof here / sizeof *here; i++)
        assert_true(address_is_loopback(here[i]));
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++)
        assert_false(address_is_loopback(beyond[i]));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(unknown_key),
    cmocka_unit_test(unknown_key_deep),
    cmocka_unit_test(unknown_key_in_a_list),
    cmocka_unit_test(merge_key),
    cmocka_unit_test(key_twice),
    cmocka_unit_test(key_twice_deep),
    cmocka_unit_test(key_of_wrong_type),
    cmocka_unit_test(list_in_place_of_mapping),
    cmocka_unit_test(mapping_in_place_of_list),
    cmocka_unit_test(mapping_in_place_of_string),
    cmocka_unit_test(list_in_place_of_integer),
    cmocka_unit_test(string_in_place_of_mapping),
    cmocka_unit_test(nothing_in_place_of_mapping),
    cmocka_unit_test(null_in_place_of_string),
    cmocka_unit_test(nothing_in_place_of_string),
    cmocka_unit_test(word_in_place_of_integer),
    cmocka_unit_test(integer_in_quotes),
    cmocka_unit_test(octal_integer),
    cmocka_unit_test(hexadecimal_integer),
    cmocka_unit_test(fraction),
    cmocka_unit_test(step_timeout_too_small),
    cmocka_unit_test(integer_too_small),
    cmocka_unit_test(integer_negative),
    cmocka_unit_test(integer_too_large),
    cmocka_unit_test(integer_of_many_digits),
    cmocka_unit_test(ranks_out_of_bounds),
    cmocka_unit_test(threshold_too_large),
    cmocka_unit_test(threshold_of_none),
    cmocka_unit_test(yes_in_place_of_true),
    cmocka_unit_test(true_in_quotes),
    cmocka_unit_test(wipe_in_words),
    cmocka_unit_test(anchor),
    cmocka_unit_test(alias),
    cmocka_unit_test(anchors_that_multiply),
    cmocka_unit_test(tag),
    cmocka_unit_test(own_tag),
    cmocka_unit_test(second_document),
    cmocka_unit_test(empty_text),
    cmocka_unit_test(comments_alone),
    cmocka_unit_test(bad_indentation),
    cmocka_unit_test(unclosed_list),
    cmocka_unit_test(tab),
    cmocka_unit_test(bytes_that_are_not_utf8),
    cmocka_unit_test(utf16),
    cmocka_unit_test(control_character),
    cmocka_unit_test(escaped_nul),
    cmocka_unit_test(escaped_newline),
    cmocka_unit_test(depth_is_bounded),
    cmocka_unit_test(size_is_bounded),
    cmocka_unit_test(too_many_groups),
    cmocka_unit_test(too_many_peers),
    cmocka_unit_test(peers_in_place_of_list),
    cmocka_unit_test(peer_of_nothing),
    cmocka_unit_test(peer_of_a_mapping),
    cmocka_unit_test(long_value),
    cmocka_unit_test(file_missing),
    cmocka_unit_test(model_missing),
    cmocka_unit_test(name_with_slash),
    cmocka_unit_test(name_like_a_flag),
    cmocka_unit_test(name_empty),
    cmocka_unit_test(region_with_colon),
    cmocka_unit_test(model_name_with_space),
    cmocka_unit_test(group_without_name),
    cmocka_unit_test(group_twice),
    cmocka_unit_test(host_twice),
    cmocka_unit_test(host_like_a_flag),
    cmocka_unit_test(ranks_that_do_not_add_up),
    cmocka_unit_test(data_plane_missing),
    cmocka_unit_test(data_plane_with_space),
    cmocka_unit_test(data_plane_of_bad_prefix),
    cmocka_unit_test(data_plane_like_a_flag),
    cmocka_unit_test(w_too_small),
    cmocka_unit_test(world_too_large),
    cmocka_unit_test(hosts_that_cannot_attach),
    cmocka_unit_test(address_without_port),
    cmocka_unit_test(address_of_bad_port),
    cmocka_unit_test(cluster_off),
    cmocka_unit_test(same_address_twice),
    cmocka_unit_test(peer_without_port),
    cmocka_unit_test(peer_of_any_port),
    cmocka_unit_test(peer_twice),
    cmocka_unit_test(peer_of_itself),
    cmocka_unit_test(peer_out_of_reach),
    cmocka_unit_test(peers_without_pki),
    cmocka_unit_test(cluster_beyond_loopback),
    cmocka_unit_test(http_without_tls),
    cmocka_unit_test(http_without_keys),
    cmocka_unit_test(grpc_without_tls),
    cmocka_unit_test(cert_without_key),
    cmocka_unit_test(key_without_cert),
    cmocka_unit_test(client_ca_alone),
    cmocka_unit_test(empty_path),
    cmocka_unit_test(manifest_without_trust),
    cmocka_unit_test(trust_without_manifest),
    cmocka_unit_test(threshold_without_manifest),
    cmocka_unit_test(empty_manifest),
    cmocka_unit_test(empty_trust),
    cmocka_unit_test(cache_without_manifest),
    cmocka_unit_test(empty_cache),
    cmocka_unit_test(other_kv),
    cmocka_unit_test(other_prefix_cache),
    cmocka_unit_test(jwks_without_issuer),
    cmocka_unit_test(jwks_without_audience),
    cmocka_unit_test(issuer_without_jwks),
    cmocka_unit_test(jwks_empty),
    cmocka_unit_test(tenant_claim_empty),
    cmocka_unit_test(tokens_stand_for_keys),
    cmocka_unit_test(other_device),
    cmocka_unit_test(other_collectives),
    cmocka_unit_test(other_weights),
    cmocka_unit_test(gpu_with_int4),
    cmocka_unit_test(gpu_with_f32),
    cmocka_unit_test(other_kernels),
    cmocka_unit_test(flags_are_checked),
    cmocka_unit_test(defaults),
    cmocka_unit_test(what_is_not_said_stays),
    cmocka_unit_test(empty_mapping_and_list),
    cmocka_unit_test(hosts_take_the_clusters_region),
    cmocka_unit_test(peers_are_kept_in_order),
    cmocka_unit_test(insecure_says_i_know),
    cmocka_unit_test(model_name_is_the_last_component),
    cmocka_unit_test(print_round_trip),
    cmocka_unit_test(an_audit_log),
    cmocka_unit_test(shipped_example),
    cmocka_unit_test(addresses_are_split),
    cmocka_unit_test(loopback_is_known),
};

UNIT_MAIN(tests)
