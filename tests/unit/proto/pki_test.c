/* proto/pki: certificates as verifiers see them, files as others see them, and what is refused. */
#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "proto/pki.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

enum { DAY = 86400 };

static struct error err;

static X509 *read_cert(const struct folder *f, const char *file)
{
    FILE *in = fopen(folder_path(f, file), "r");
    assert_non_null(in);
    X509 *cert = PEM_read_X509(in, NULL, NULL, NULL);
    fclose(in);
    assert_non_null(cert);
    return cert;
}

/* X509_verify_cert's verdict on `file` under the root `ca`, for a purpose, `days` from now. */
static int verify_as(const struct folder *f, const char *file, const struct folder *ca_folder,
                     const char *ca, int purpose, long days, const char *host)
{
    X509 *cert = read_cert(f, file), *root = read_cert(ca_folder, ca);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    assert_int_equal(X509_STORE_add_cert(store, root), 1);
    assert_int_equal(X509_STORE_CTX_init(ctx, store, cert, NULL), 1);
    X509_VERIFY_PARAM *p = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_purpose(p, purpose);
    X509_VERIFY_PARAM_set_flags(p, X509_V_FLAG_X509_STRICT);
    X509_VERIFY_PARAM_set_time(p, time(NULL) + days * DAY);
    if (host)
        assert_int_equal(X509_VERIFY_PARAM_set1_host(p, host, 0), 1);
    int verdict = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(cert);
    X509_free(root);
    return verdict;
}

static int verify(const struct folder *f, const char *file, const char *ca, int purpose)
{
    return verify_as(f, file, f, ca, purpose, 0, NULL);
}

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if ((expr) != OK)                                                                          \
            fail_msg("%s", err.msg);                                                               \
    } while (0)

/* A folder with both roots and one certificate of each role. */
static struct folder whole(void)
{
    struct folder f = folder_make();
    MUST(pki_init(f.path, "c1", &err));
    MUST(pki_issue_coordinator(f.path, f.path, "coordinator", PKI_LEAF_DAYS, &err));
    MUST(pki_issue_worker(f.path, f.path, "worker", "g0", "3", "eu", PKI_LEAF_DAYS, &err));
    MUST(pki_issue_door(f.path, f.path, "door", "api.example,*.b.example,10.0.0.1,fd00::1",
                        PKI_LEAF_DAYS, &err));
    return f;
}

static void roles_are_told_apart(void **state)
{
    (void)state;
    struct folder f = whole();
    int server = X509_PURPOSE_SSL_SERVER, client = X509_PURPOSE_SSL_CLIENT;
    assert_int_equal(verify(&f, "coordinator.pem", "ca.pem", server), X509_V_OK);
    assert_int_equal(verify(&f, "coordinator.pem", "ca.pem", client), X509_V_OK); /* of a peer */
    assert_int_equal(verify(&f, "worker.pem", "ca.pem", client), X509_V_OK);
    assert_int_equal(verify(&f, "door.pem", "door-ca.pem", server), X509_V_OK);
    /* Neither can stand for the other. */
    assert_int_equal(verify(&f, "worker.pem", "ca.pem", server), X509_V_ERR_INVALID_PURPOSE);
    assert_int_equal(verify(&f, "door.pem", "door-ca.pem", client), X509_V_ERR_INVALID_PURPOSE);
    /* The roots have nothing to do with each other. */
    assert_int_not_equal(verify(&f, "door.pem", "ca.pem", server), X509_V_OK);
    assert_int_not_equal(verify(&f, "coordinator.pem", "door-ca.pem", server), X509_V_OK);
    folder_remove(&f);
}

static void another_cluster_is_refused(void **state)
{
    (void)state;
    struct folder f = whole(), other = whole();
    assert_int_not_equal(
        verify_as(&f, "worker.pem", &other, "ca.pem", X509_PURPOSE_SSL_CLIENT, 0, NULL), X509_V_OK);
    folder_remove(&f);
    folder_remove(&other);
}

static void names_are_checked(void **state)
{
    (void)state;
    struct folder f = whole();
    int server = X509_PURPOSE_SSL_SERVER;
    static const char *const good[] = {"api.example", "x.b.example"};
    static const char *const bad[] = {"b.example", "x.y.b.example", "coordinator.witan"};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(verify_as(&f, "door.pem", &f, "door-ca.pem", server, 0, good[i]),
                         X509_V_OK);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(verify_as(&f, "door.pem", &f, "door-ca.pem", server, 0, bad[i]),
                         X509_V_ERR_HOSTNAME_MISMATCH);
    assert_int_equal(
        verify_as(&f, "coordinator.pem", &f, "ca.pem", server, 0, PKI_COORDINATOR_NAME), X509_V_OK);
    X509 *door = read_cert(&f, "door.pem");
    assert_int_equal(X509_check_ip_asc(door, "10.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(door, "fd00::1", 0), 1);
    assert_int_equal(X509_check_ip_asc(door, "10.0.0.2", 0), 0);
    X509_free(door);
    folder_remove(&f);
}

static void certificates_expire(void **state)
{
    (void)state;
    struct folder f = whole();
    int server = X509_PURPOSE_SSL_SERVER;
    MUST(pki_issue_coordinator(f.path, f.path, "short", 2, &err));
    assert_int_equal(verify_as(&f, "short.pem", &f, "ca.pem", server, 1, NULL), X509_V_OK);
    assert_int_equal(verify_as(&f, "short.pem", &f, "ca.pem", server, 3, NULL),
                     X509_V_ERR_CERT_HAS_EXPIRED);
    assert_int_equal(verify_as(&f, "short.pem", &f, "ca.pem", server, -1, NULL),
                     X509_V_ERR_CERT_NOT_YET_VALID);
    assert_int_equal(
        verify_as(&f, "coordinator.pem", &f, "ca.pem", server, PKI_LEAF_DAYS - 1, NULL), X509_V_OK);
    /* Five minutes for clocks that differ. */
    X509 *cert = read_cert(&f, "short.pem");
    int days = 0, seconds = 0;
    assert_int_equal(ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(cert), NULL), 1);
    assert_int_equal(days, 0);
    assert_in_range(seconds, 300, 600);
    X509_free(cert);
    folder_remove(&f);
}

static void fields_are_as_promised(void **state)
{
    (void)state;
    struct folder f = whole();
    static const char *const files[] = {"ca.pem", "door-ca.pem", "coordinator.pem", "worker.pem",
                                        "door.pem"};
    BIGNUM *serials[5];
    for (int i = 0; i < 5; i++) {
        X509 *cert = read_cert(&f, files[i]);
        bool root = i < 2;
        assert_int_equal(X509_get_version(cert), X509_VERSION_3);
        assert_int_equal(X509_get_signature_nid(cert), NID_ecdsa_with_SHA256);
        assert_int_equal(X509_check_ca(cert), root);
        assert_int_equal(X509_get_key_usage(cert),
                         root ? KU_KEY_CERT_SIGN | KU_CRL_SIGN : KU_DIGITAL_SIGNATURE);
        static const int critical[] = {NID_basic_constraints, NID_key_usage};
        for (int j = 0; j < 2; j++) {
            int at = X509_get_ext_by_NID(cert, critical[j], -1);
            assert_true(at >= 0);
            assert_int_equal(X509_EXTENSION_get_critical(X509_get_ext(cert, at)), 1);
        }
        char group[32] = "";
        size_t len = 0;
        assert_int_equal(EVP_PKEY_get_group_name(X509_get0_pubkey(cert), group, sizeof group, &len),
                         1);
        assert_string_equal(group, "prime256v1");
        serials[i] = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
        assert_in_range(BN_num_bits(serials[i]), 64, 128);
        assert_false(BN_is_negative(serials[i]));
        for (int j = 0; j < i; j++)
            assert_int_not_equal(BN_cmp(serials[i], serials[j]), 0);
        X509_free(cert);
    }
    for (int i = 0; i < 5; i++)
        BN_free(serials[i]);
    folder_remove(&f);
}

static struct folder folder_inside(const struct folder *f, const char *name)
{
    struct folder in;
    snprintf(in.path, sizeof in.path, "%.40s/%.20s", f->path, name);
    return in;
}

static mode_t mode_of(const struct folder *f, const char *file)
{
    struct stat s;
    assert_int_equal(stat(file ? folder_path(f, file) : f->path, &s), 0);
    return s.st_mode & 07777;
}

static void modes_do_not_depend_on_the_umask(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 0777, 022};
    for (size_t i = 0; i < 3; i++) {
        struct folder parent = folder_make(), f = folder_inside(&parent, "pki");
        mode_t old = umask(masks[i]);
        MUST(pki_init(f.path, "c1", &err));
        MUST(pki_issue_coordinator(f.path, f.path, "coordinator", 10, &err));
        umask(old);
        assert_int_equal(mode_of(&f, NULL), 0700);
        assert_int_equal(mode_of(&f, "ca.key"), 0600);
        assert_int_equal(mode_of(&f, "ca.pem"), 0644);
        assert_int_equal(mode_of(&f, "door-ca.key"), 0600);
        assert_int_equal(mode_of(&f, "coordinator.key"), 0600);
        assert_int_equal(mode_of(&f, "coordinator.pem"), 0644);
        folder_remove(&f);
        folder_remove(&parent);
    }
}

static size_t files_in(const struct folder *f)
{
    size_t n = 0;
    DIR *d = opendir(f->path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void init_does_not_overwrite(void **state)
{
    (void)state;
    static const char *const files[] = {"ca.pem", "ca.key", "door-ca.pem", "door-ca.key"};
    for (size_t i = 0; i < 4; i++) {
        struct folder f = folder_make();
        folder_puts(&f, files[i], "mine");
        SAYS(pki_init(f.path, "c1", &err), ERR_INVALID, &err, f.path, files[i], "not overwritten");
        assert_int_equal(files_in(&f), 1);
        folder_remove(&f);
    }
    struct folder f = folder_make();
    folder_puts(&f, "file", "");
    SAYS(pki_init(folder_path(&f, "file"), "c1", &err), ERR_INVALID, &err, "expected a folder");
    SAYS(pki_init(folder_path(&f, "a/b"), "c1", &err), ERR_NOT_FOUND, &err, "/a/b");
    SAYS(pki_init(folder_path(&f, "new"), "a b", &err), ERR_INVALID, &err, "name: expected 1 to 64",
         "found \"a b\"");
    assert_int_not_equal(access(folder_path(&f, "new"), F_OK), 0);
    folder_remove(&f);
}

static void issuing_replaces_a_leaf(void **state)
{
    (void)state;
    struct folder f = whole();
    X509 *old = read_cert(&f, "worker.pem");
    size_t files = files_in(&f);
    MUST(pki_issue_worker(f.path, f.path, "worker", "*", "*", "", 10, &err));
    X509 *new = read_cert(&f, "worker.pem");
    assert_int_not_equal(X509_cmp(old, new), 0);
    assert_int_equal(files_in(&f), files); /* nothing aside is left */
    X509_free(old);
    X509_free(new);
    struct pki_files p;
    MUST(pki_load(f.path, "worker", &p, &err));
    pki_files_fini(&p);
    folder_remove(&f);
}

static void out_folder_gets_the_root_too(void **state)
{
    (void)state;
    struct folder f = whole(), out = folder_inside(&f, "host1");
    MUST(pki_issue_worker(f.path, out.path, "worker", "g0", "*", "*", 10, &err));
    assert_int_equal(mode_of(&out, NULL), 0700);
    assert_int_not_equal(access(folder_path(&out, "ca.key"), F_OK), 0);
    struct pki_files p;
    MUST(pki_load(out.path, "worker", &p, &err));
    pki_files_fini(&p);
    folder_remove(&out);
    folder_remove(&f);
}

static void issuing_refuses(void **state)
{
    (void)state;
    struct folder f = whole(), empty = folder_make();
    const char *d = f.path;
    SAYS(pki_issue_coordinator(d, d, "ca", 10, &err), ERR_INVALID, &err, "than the root's");
    SAYS(pki_issue_coordinator(d, d, "door-ca", 10, &err), ERR_INVALID, &err, "than the root's");
    SAYS(pki_issue_coordinator(d, d, "../x", 10, &err), ERR_INVALID, &err, "file name: expected");
    SAYS(pki_issue_coordinator(d, d, "x", 0, &err), ERR_INVALID, &err, "days: expected 1 to 3650");
    SAYS(pki_issue_coordinator(d, d, "x", 3651, &err), ERR_INVALID, &err, "days: expected 1 to");
    SAYS(pki_issue_coordinator(empty.path, d, "x", 10, &err), ERR_NOT_FOUND, &err, "/ca.pem");
    SAYS(pki_issue_worker(d, d, "x", "a:b", "0", "", 10, &err), ERR_INVALID, &err,
         "group: ", "found \"a:b\"");
    SAYS(pki_issue_worker(d, d, "x", "", "0", "", 10, &err), ERR_INVALID, &err, "group: ");
    SAYS(pki_issue_worker(d, d, "x", "a", "0", "e\nu", 10, &err), ERR_INVALID, &err, "region: ");
    static const char *const ranks[] = {"", "-1", "01", "1x", "12345678", "**", " 1"};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
        SAYS(pki_issue_worker(d, d, "x", "a", ranks[i], "", 10, &err), ERR_INVALID, &err,
             "rank: expected a number or \"*\"", ranks[i]);
    static const char *const names[] = {"",      "a,,b", "a b",      "a,",   "-a",   "a_b",
                                        "*.*.a", "a.*",  "http://a", "a:80", "a..b", "URI:x"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        SAYS(pki_issue_door(d, d, "x", names[i], 10, &err), ERR_INVALID, &err,
             "names: expected DNS names and addresses");
    assert_int_not_equal(access(folder_path(&f, "x.pem"), F_OK), 0);
    folder_remove(&f);
    folder_remove(&empty);
}

static void too_many_door_names(void **state)
{
    (void)state;
    struct folder f = whole();
    char names[512] = "a";
    for (int i = 0; i < 64; i++)
        strcat(names, ",b");
    SAYS(pki_issue_door(f.path, f.path, "x", names, 10, &err), ERR_INVALID, &err,
         "names: expected at most 64");
    folder_remove(&f);
}

static void ephemeral_folder(void **state)
{
    (void)state;
    struct folder f = folder_make();
    MUST(pki_ephemeral(f.path, &err));
    assert_int_equal(files_in(&f), 5);
    assert_int_not_equal(access(folder_path(&f, "ca.key"), F_OK), 0);
    assert_int_equal(verify(&f, "coordinator.pem", "ca.pem", X509_PURPOSE_SSL_SERVER), X509_V_OK);
    assert_int_equal(verify(&f, "worker.pem", "ca.pem", X509_PURPOSE_SSL_CLIENT), X509_V_OK);
    struct pki_files p;
    MUST(pki_load(f.path, "coordinator", &p, &err));
    pki_files_fini(&p);
    SAYS(pki_ephemeral(f.path, &err), ERR_INVALID, &err, "found ca.pem");
    folder_remove(&f);
}

static void loading_a_role(void **state)
{
    (void)state;
    struct folder f = whole();
    struct pki_files p;
    MUST(pki_load(f.path, "worker", &p, &err));
    assert_non_null(strstr(p.ca, "BEGIN CERTIFICATE"));
    assert_non_null(strstr(p.cert, "BEGIN CERTIFICATE"));
    assert_non_null(strstr(p.key, "BEGIN PRIVATE KEY"));
    assert_string_not_equal(p.ca, p.cert);
    pki_files_fini(&p);
    assert_null(p.key);
    MUST(pki_load(f.path, "door", &p, &err));
    pki_files_fini(&p);
    folder_remove(&f);
}

static void loading_refuses(void **state)
{
    (void)state;
    struct folder f = whole();
    struct pki_files p = {0};
    chmod(folder_path(&f, "worker.key"), 0604);
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err, "/worker.key: expected a key",
         "found mode 0604");
    chmod(folder_path(&f, "worker.key"), 0620);
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err, "found mode 0620");
    SAYS(pki_load(f.path, "../worker", &p, &err), ERR_INVALID, &err, "role: expected");
    SAYS(pki_load(f.path, "nobody", &p, &err), ERR_NOT_FOUND, &err, "/nobody.pem", "No such file");
    MUST(pki_issue_worker(f.path, f.path, "worker", "g0", "3", "eu", 10, &err));
    folder_puts(&f, "worker.pem", "nothing");
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err,
         "/worker.pem: expected a certificate", "no start line");
    MUST(pki_issue_worker(f.path, f.path, "worker", "g0", "3", "eu", 10, &err));
    folder_puts(&f, "worker.key", "nothing");
    chmod(folder_path(&f, "worker.key"), 0600);
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err,
         "/worker.key: expected a private key");
    assert_null(p.ca);
    folder_remove(&f);
}

/* One file of a folder over that of another. */
static void copy_file(const struct folder *from, const char *name, const struct folder *to,
                      const char *new_name)
{
    char *text = NULL;
    size_t len = 0;
    MUST(file_read_all(folder_path(from, name), 1 << 20, &text, &len, &err));
    folder_write(to, new_name, text, len);
    free(text);
}

static void loading_refuses_what_does_not_match(void **state)
{
    (void)state;
    struct folder f = whole(), other = whole();
    struct pki_files p = {0};
    copy_file(&other, "worker.pem", &f, "worker.pem");
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err,
         "/worker.key: expected the key of worker.pem");
    copy_file(&other, "worker.key", &f, "worker.key");
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err,
         "/worker.pem: expected a certificate signed by ca.pem");
    folder_remove(&f);
    folder_remove(&other);
}

/* Re-signs the worker's certificate with these days around now. */
static void redate(const struct folder *f, long from_days, long to_days)
{
    X509 *cert = read_cert(f, "worker.pem");
    FILE *in = fopen(folder_path(f, "ca.key"), "r");
    assert_non_null(in);
    EVP_PKEY *key = PEM_read_PrivateKey(in, NULL, NULL, NULL);
    fclose(in);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(cert), from_days * DAY));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(cert), to_days * DAY));
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *out = fopen(folder_path(f, "worker.pem"), "w");
    assert_non_null(out);
    assert_int_equal(PEM_write_X509(out, cert), 1);
    fclose(out);
    EVP_PKEY_free(key);
    X509_free(cert);
}

static void loading_refuses_what_is_not_valid_now(void **state)
{
    (void)state;
    struct folder f = whole();
    struct pki_files p = {0};
    redate(&f, -10, 10);
    MUST(pki_load(f.path, "worker", &p, &err));
    pki_files_fini(&p);
    redate(&f, -10, -1);
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err,
         "/worker.pem: expected a certificate that is valid now", "found one that ended 20", "UTC");
    redate(&f, 2, 10);
    SAYS(pki_load(f.path, "worker", &p, &err), ERR_INVALID, &err, "found one that begins 20");
    folder_remove(&f);
}

#define WORKER "urn:witan:worker:"

static void workers_attach_as_named(void **state)
{
    (void)state;
    static const char *const good[] = {
        WORKER "g0:3:eu",   WORKER "*:3:eu", WORKER "g0:*:eu",
        WORKER "g0:3:*",    WORKER "*:*:*",  "spiffe://x/y\n" WORKER "g1:3:eu\n" WORKER "g0:3:eu",
        WORKER "g0:3:eu\n",
    };
    static const struct {
        const char *uris, *found;
    } bad[] = {
        {"", "found no worker's name"},
        {"\n\n", "found no worker's name"},
        {"urn:witan:coordinator", "found no worker's name (\"urn:witan:coordinator\")"},
        {WORKER "g0:3", "found no worker's name"},
        {WORKER "g0:3:eu:x", "found no worker's name"},
        {"x" WORKER "g0:3:eu", "found no worker's name"},
        {WORKER "g1:3:eu", "found group \"g1\" rank 3 region \"eu\""},
        {WORKER "g0:03:eu", "rank 03"},
        {WORKER "g0:30:eu", "rank 30"},
        {WORKER "g0:3:us", "region \"us\""},
        {WORKER "g0:3:", "region \"\""},
        {WORKER "G0:3:eu", "group \"G0\""},
        {WORKER "g*:3:eu", "group \"g*\""},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(pki_check_worker(good[i], "g0", 3, "eu", &err), OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        SAYS(pki_check_worker(bad[i].uris, "g0", 3, "eu", &err), ERR_INVALID, &err,
             "expected group \"g0\" rank 3 region \"eu\"", bad[i].found);
    assert_int_equal(pki_check_worker(WORKER "g0:*:", "g0", 4294967295u, "", &err), OK);
}

/* The names of an issued certificate that are URIs, the last one. */
static void issued_uri(const struct folder *f, const char *file, char out[256])
{
    X509 *cert = read_cert(f, file);
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    out[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        int kind = 0;
        const ASN1_STRING *uri = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &kind);
        if (kind == GEN_URI)
            snprintf(out, 256, "%.*s", ASN1_STRING_length(uri),
                     (const char *)ASN1_STRING_get0_data(uri));
    }
    GENERAL_NAMES_free(names);
    X509_free(cert);
}

static void coordinators_know_each_other(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "\n",
                                      "urn:witan:coordinator2",
                                      "xurn:witan:coordinator",
                                      WORKER "*:*:*",
                                      "urn:witan:coordinato"};
    struct folder f = whole();
    char uri[256];
    issued_uri(&f, "coordinator.pem", uri);
    assert_int_equal(pki_check_coordinator(uri, &err), OK);
    assert_int_equal(pki_check_coordinator("spiffe://x/y\nurn:witan:coordinator\n", &err), OK);
    SAYS(pki_check_worker(uri, "g0", 3, "eu", &err), ERR_INVALID, &err, "found no worker's name");
    issued_uri(&f, "worker.pem", uri);
    SAYS(pki_check_coordinator(uri, &err), ERR_INVALID, &err, "expected a coordinator's", uri);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        SAYS(pki_check_coordinator(bad[i], &err), ERR_INVALID, &err, "expected a coordinator's");
    folder_remove(&f);
}

/* What is issued is what pki_check_worker reads. */
static void issued_names_are_read_back(void **state)
{
    (void)state;
    struct folder f = whole();
    X509 *cert = read_cert(&f, "worker.pem");
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    assert_int_equal(sk_GENERAL_NAME_num(names), 1);
    int kind = 0;
    const ASN1_STRING *uri = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, 0), &kind);
    assert_int_equal(kind, GEN_URI);
    char text[256];
    snprintf(text, sizeof text, "%.*s", ASN1_STRING_length(uri),
             (const char *)ASN1_STRING_get0_data(uri));
    assert_string_equal(text, WORKER "g0:3:eu");
    assert_int_equal(pki_check_worker(text, "g0", 3, "eu", &err), OK);
    GENERAL_NAMES_free(names);
    X509_free(cert);
    folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(roles_are_told_apart),
    cmocka_unit_test(another_cluster_is_refused),
    cmocka_unit_test(names_are_checked),
    cmocka_unit_test(certificates_expire),
    cmocka_unit_test(fields_are_as_promised),
    cmocka_unit_test(modes_do_not_depend_on_the_umask),
    cmocka_unit_test(init_does_not_overwrite),
    cmocka_unit_test(issuing_replaces_a_leaf),
    cmocka_unit_test(out_folder_gets_the_root_too),
    cmocka_unit_test(issuing_refuses),
    cmocka_unit_test(too_many_door_names),
    cmocka_unit_test(ephemeral_folder),
    cmocka_unit_test(loading_a_role),
    cmocka_unit_test(loading_refuses),
    cmocka_unit_test(loading_refuses_what_does_not_match),
    cmocka_unit_test(loading_refuses_what_is_not_valid_now),
    cmocka_unit_test(workers_attach_as_named),
    cmocka_unit_test(coordinators_know_each_other),
    cmocka_unit_test(issued_names_are_read_back),
};

UNIT_MAIN(tests)
