/* Certificates in memory: see pki_private.h. RFC 5280 names every field. */
#include "proto/pki_private.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum {
    SERIAL_BITS = 128,
    BACKDATE_SECONDS = 300, /* clocks of machines differ */
    DAY_SECONDS = 86400,
    MAX_DOOR_NAMES = 64,
    MAX_DNS_NAME = 253,
};

enum status pki_openssl_error(struct error *err, const char *fmt, ...)
{
    char words[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return error_set(err, ERR_INVALID, "%s: %s", words, reason ? reason : "OpenSSL failed");
}

void identity_fini(struct identity *id)
{
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
    *id = (struct identity){0};
}

enum status pki_check_name(const char *what, const char *name, struct error *err)
{
    size_t len = name ? strlen(name) : 0;
    bool good = len > 0 && len <= PKI_MAX_NAME && isalnum((unsigned char)*name);
    for (size_t i = 0; good && i < len; i++)
        good = isalnum((unsigned char)name[i]) || strchr("._-", name[i]);
    if (good)
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: expected 1 to %d letters, digits, \".\", \"_\", \"-\", a letter or digit "
                     "first, found \"%.100s\"",
                     what, PKI_MAX_NAME, name ? name : "");
}

static bool set_serial(X509 *cert)
{
    BIGNUM *n = BN_new();
    bool good = n && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
                BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));
    BN_free(n);
    return good;
}

static bool set_validity(X509 *cert, int days)
{
    return X509_gmtime_adj(X509_getm_notBefore(cert), -BACKDATE_SECONDS) &&
           X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL);
}

static bool add_entry(X509_NAME *to, const char *field, const unsigned char *text, int len)
{
    return X509_NAME_add_entry_by_txt(to, field, MBSTRING_UTF8, text, len, -1, 0);
}

static bool add_text(X509_NAME *to, const char *field, const char *text)
{
    return add_entry(to, field, (const unsigned char *)text, (int)strlen(text));
}

/* An extension by OpenSSL's name and syntax; only constant texts come here. */
static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool good = e && X509_add_ext(cert, e, -1);
    X509_EXTENSION_free(e);
    return good;
}

/* A certificate with key, serial and dates, still without subject and extensions. */
static enum status begin(int days, struct identity *out, struct error *err)
{
    out->key = EVP_EC_gen("P-256");
    out->cert = X509_new();
    if (!out->key || !out->cert || !X509_set_version(out->cert, X509_VERSION_3) ||
        !set_serial(out->cert) || !set_validity(out->cert, days) ||
        !X509_set_pubkey(out->cert, out->key))
        return pki_openssl_error(err, "a new certificate");
    return OK;
}

enum status pki_make_root(const char *name, const char *purpose, struct identity *out,
                          struct error *err)
{
    *out = (struct identity){0};
    enum status st = begin(PKI_ROOT_DAYS, out, err);
    X509 *cert = out->cert;
    if (st == OK) {
        X509_NAME *subject = X509_get_subject_name(cert);
        bool good = add_text(subject, "O", name) && add_text(subject, "CN", purpose) &&
                    X509_set_issuer_name(cert, subject) &&
                    add_extension(cert, cert, NID_basic_constraints,
                                  "critical,CA:TRUE,pathlen:0") &&
                    add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
                    add_extension(cert, cert, NID_subject_key_identifier, "hash") &&
                    X509_sign(cert, out->key, EVP_sha256());
        if (!good)
            st = pki_openssl_error(err, "the root of \"%s\"", name);
    }
    if (st != OK)
        identity_fini(out);
    return st;
}

/* The root's organisation, which is the cluster's name, and the leaf's role. */
static bool set_subject(X509 *cert, X509 *root, const char *common_name)
{
    X509_NAME *from = X509_get_subject_name(root), *to = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(from, NID_organizationName, -1);
    if (at >= 0) {
        const ASN1_STRING *o = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(from, at));
        if (!add_entry(to, "O", ASN1_STRING_get0_data(o), ASN1_STRING_length(o)))
            return false;
    }
    return add_text(to, "CN", common_name) && X509_set_issuer_name(cert, from);
}

/* A leaf must not outlive its root: verifiers would refuse it without saying why. */
static enum status check_days(const X509 *root, int days, struct error *err)
{
    if (days < 1 || days > PKI_ROOT_DAYS)
        return error_set(err, ERR_INVALID, "days: expected 1 to %d, found %d", PKI_ROOT_DAYS, days);
    int left = 0, seconds = 0;
    if (!ASN1_TIME_diff(&left, &seconds, NULL, X509_get0_notAfter(root)))
        return pki_openssl_error(err, "the root's end");
    /* The root's own days, a moment later, are as good as met. */
    if ((long long)days * DAY_SECONDS > (long long)left * DAY_SECONDS + seconds + DAY_SECONDS)
        return error_set(err, ERR_INVALID, "days: expected at most the root's %d, found %d", left,
                         days);
    return OK;
}

enum status pki_make_leaf(const struct identity *root, const struct pki_leaf *leaf,
                          struct identity *out, struct error *err)
{
    *out = (struct identity){0};
    TRY(check_days(root->cert, leaf->days, err));
    enum status st = begin(leaf->days, out, err);
    X509 *cert = out->cert;
    if (st == OK) {
        const ASN1_TIME *end = X509_get0_notAfter(root->cert);
        bool good = (ASN1_TIME_compare(X509_get0_notAfter(cert), end) <= 0 ||
                     X509_set1_notAfter(cert, end)) &&
                    set_subject(cert, root->cert, leaf->common_name) &&
                    add_extension(cert, root->cert, NID_basic_constraints, "critical,CA:FALSE") &&
                    add_extension(cert, root->cert, NID_key_usage, "critical,digitalSignature") &&
                    add_extension(cert, root->cert, NID_ext_key_usage, leaf->usage) &&
                    add_extension(cert, root->cert, NID_subject_key_identifier, "hash") &&
                    add_extension(cert, root->cert, NID_authority_key_identifier, "keyid:always") &&
                    X509_add1_ext_i2d(cert, NID_subject_alt_name, (void *)leaf->names, 0, 0) == 1 &&
                    X509_sign(cert, root->key, EVP_sha256());
        if (!good)
            st = pki_openssl_error(err, "a certificate for \"%s\"", leaf->common_name);
    }
    if (st != OK)
        identity_fini(out);
    return st;
}

/* Appends one name; `value` of the ASN.1 type that the kind of name has. */
static bool push_name(GENERAL_NAMES *to, int kind, int asn1_type, const void *value, int len)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *text = ASN1_STRING_type_new(asn1_type);
    if (!name || !text || !ASN1_STRING_set(text, value, len)) {
        GENERAL_NAME_free(name);
        ASN1_STRING_free(text);
        return false;
    }
    GENERAL_NAME_set0_value(name, kind, text);
    if (sk_GENERAL_NAME_push(to, name) > 0)
        return true;
    GENERAL_NAME_free(name);
    return false;
}

static enum status no_memory(struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "no memory for a certificate's names");
}

enum status pki_names_uri(const char *uri, GENERAL_NAMES **out, struct error *err)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    if (!names || !push_name(names, GEN_URI, V_ASN1_IA5STRING, uri, (int)strlen(uri))) {
        GENERAL_NAMES_free(names);
        return no_memory(err);
    }
    *out = names;
    return OK;
}

enum status pki_names_add_uri(GENERAL_NAMES *to, const char *uri, struct error *err)
{
    return push_name(to, GEN_URI, V_ASN1_IA5STRING, uri, (int)strlen(uri)) ? OK : no_memory(err);
}

/* Labels of letters, digits and inner hyphens; the first may be "*". */
static bool is_dns_name(const char *s)
{
    size_t len = strlen(s);
    if (len == 0 || len > MAX_DNS_NAME)
        return false;
    if (strncmp(s, "*.", 2) == 0)
        s += 2;
    for (;;) {
        size_t n = strcspn(s, ".");
        if (n == 0 || n > 63 || s[0] == '-' || s[n - 1] == '-')
            return false;
        for (size_t i = 0; i < n; i++)
            if (!isalnum((unsigned char)s[i]) && s[i] != '-')
                return false;
        if (!s[n])
            return true;
        s += n + 1;
    }
}

static enum status push_door_name(GENERAL_NAMES *to, const char *name, struct error *err)
{
    unsigned char address[16];
    bool good = true;
    if (inet_pton(AF_INET, name, address) == 1)
        good = push_name(to, GEN_IPADD, V_ASN1_OCTET_STRING, address, 4);
    else if (inet_pton(AF_INET6, name, address) == 1)
        good = push_name(to, GEN_IPADD, V_ASN1_OCTET_STRING, address, 16);
    else if (is_dns_name(name))
        good = push_name(to, GEN_DNS, V_ASN1_IA5STRING, name, (int)strlen(name));
    else
        return error_set(
            err, ERR_INVALID,
            "names: expected DNS names and addresses, comma-separated, found \"%.100s\"", name);
    return good ? OK : no_memory(err);
}

enum status pki_names_door(const char *list, GENERAL_NAMES **out, struct error *err)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    enum status st = names ? OK : no_memory(err);
    for (const char *s = list; st == OK; s++) {
        size_t len = strcspn(s, ",");
        char name[MAX_DNS_NAME + 2] = "";
        snprintf(name, sizeof name, "%.*s", len < sizeof name ? (int)len : (int)sizeof name - 1, s);
        if (sk_GENERAL_NAME_num(names) == MAX_DOOR_NAMES)
            st = error_set(err, ERR_INVALID, "names: expected at most %d, found more",
                           MAX_DOOR_NAMES);
        else
            st = push_door_name(names, name, err);
        s += len;
        if (!*s)
            break;
    }
    if (st == OK)
        *out = names;
    else
        GENERAL_NAMES_free(names);
    return st;
}
