/* Folders and PEM files of certificates: see pki_private.h. Modes do not depend on the umask. */
#include "proto/pki_private.h"

#include "base/buf.h"
#include "base/file.h"

#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum status pki_path(char path[PKI_MAX_PATH], const char *dir, const char *name, const char *suffix,
                     struct error *err)
{
    int n = snprintf(path, PKI_MAX_PATH, "%s/%s.%s", dir, name, suffix);
    if (n < 0 || n >= PKI_MAX_PATH)
        return error_set(err, ERR_INVALID, "%.100s: expected a path of at most %d bytes", dir,
                         PKI_MAX_PATH - 1);
    return OK;
}

enum status pki_make_dir(const char *dir, bool *made, struct error *err)
{
    bool done = mkdir(dir, 0700) == 0;
    if (!done && errno != EEXIST)
        return error_errno(err, errno, "%s", dir);
    /* A umask may have taken even the owner's bits. */
    if (done && chmod(dir, 0700) != 0)
        return error_errno(err, errno, "%s", dir);
    struct stat s;
    if (stat(dir, &s) != 0)
        return error_errno(err, errno, "%s", dir);
    if (!S_ISDIR(s.st_mode))
        return error_set(err, ERR_INVALID, "%s: expected a folder, found a file", dir);
    if (made)
        *made = done;
    return OK;
}

enum status pki_write(const char *dir, const char *name, const struct identity *id, bool replace,
                      struct error *err)
{
    char cert_path[PKI_MAX_PATH], key_path[PKI_MAX_PATH];
    TRY(pki_path(cert_path, dir, name, "pem", err));
    TRY(pki_path(key_path, dir, name, "key", err));
    BIO *cert = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_secmem());
    char *cert_text = NULL, *key_text = NULL;
    enum status st = OK;
    if (!cert || !key || !PEM_write_bio_X509(cert, id->cert) ||
        (id->key && !PEM_write_bio_PKCS8PrivateKey(key, id->key, NULL, NULL, 0, NULL, NULL))) {
        st = pki_openssl_error(err, "%s", cert_path);
        goto out;
    }
    long cert_len = BIO_get_mem_data(cert, &cert_text);
    long key_len = id->key ? BIO_get_mem_data(key, &key_text) : 0;
    if (id->key)
        TRY_OUT(st, file_write(key_path, key_text, (size_t)key_len, 0600, replace, err));
    st = file_write(cert_path, cert_text, (size_t)cert_len, 0644, replace, err);
    if (st != OK && id->key && !replace)
        unlink(key_path);
out:
    BIO_free(cert);
    BIO_free(key);
    return st;
}

static enum status read_pem(const char *dir, const char *name, const char *suffix, char **text,
                            struct error *err)
{
    char path[PKI_MAX_PATH];
    size_t len = 0;
    TRY(pki_path(path, dir, name, suffix, err));
    if (strcmp(suffix, "key") == 0)
        TRY(file_check_secret(path, err));
    return file_read_all(path, PKI_MAX_PEM_BYTES, text, &len, err);
}

/* Valid today, and made for this key. */
static enum status check_pair(const char *dir, const char *name, const struct identity *id,
                              struct error *err)
{
    char date[64] = "";
    if (X509_check_private_key(id->cert, id->key) != 1)
        return pki_openssl_error(err, "%s/%s.key: expected the key of %s.pem", dir, name, name);
    int before = X509_cmp_current_time(X509_get0_notBefore(id->cert));
    int after = X509_cmp_current_time(X509_get0_notAfter(id->cert));
    struct tm end = {0};
    if (before < 0 && after > 0)
        return OK;
    if (ASN1_TIME_to_tm(after > 0 ? X509_get0_notBefore(id->cert) : X509_get0_notAfter(id->cert),
                        &end))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S UTC", &end);
    return error_set(err, ERR_INVALID, "%s/%s.pem: expected a certificate that is valid now, %s %s",
                     dir, name, after > 0 ? "found one that begins" : "found one that ended", date);
}

/* One PEM text as certificate or key; both BIOs read without a passphrase prompt. */
static enum status parse(const char *dir, const char *name, const char *cert, const char *key,
                         struct identity *out, struct error *err)
{
    char none[] = "";
    BIO *c = BIO_new_mem_buf(cert, -1), *k = BIO_new_mem_buf(key, -1);
    enum status st = OK;
    out->cert = c ? PEM_read_bio_X509(c, NULL, NULL, none) : NULL;
    if (!out->cert)
        st = pki_openssl_error(err, "%s/%s.pem: expected a certificate", dir, name);
    out->key = st == OK && k ? PEM_read_bio_PrivateKey(k, NULL, NULL, none) : NULL;
    if (st == OK && !out->key)
        st = pki_openssl_error(err, "%s/%s.key: expected a private key", dir, name);
    BIO_free(c);
    BIO_free(k);
    return st == OK ? check_pair(dir, name, out, err) : st;
}

static void free_secret(char *text)
{
    if (text)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
}

enum status pki_read(const char *dir, const char *name, struct identity *out, struct error *err)
{
    *out = (struct identity){0};
    char *cert = NULL, *key = NULL;
    enum status st = read_pem(dir, name, "pem", &cert, err);
    if (st == OK)
        st = read_pem(dir, name, "key", &key, err);
    if (st == OK)
        st = parse(dir, name, cert, key, out, err);
    free(cert);
    free_secret(key);
    if (st != OK)
        identity_fini(out);
    return st;
}

/* The role's certificate must come from the root beside it. */
static enum status check_issuer(const char *dir, const char *role, const char *root, const char *ca,
                                const X509 *cert, struct error *err)
{
    char none[] = "";
    BIO *b = BIO_new_mem_buf(ca, -1);
    X509 *issuer = b ? PEM_read_bio_X509(b, NULL, NULL, none) : NULL;
    BIO_free(b);
    enum status st = OK;
    if (!issuer)
        st = pki_openssl_error(err, "%s/%s.pem: expected a certificate", dir, root);
    else if (X509_verify((X509 *)cert, X509_get0_pubkey(issuer)) != 1)
        st = pki_openssl_error(err, "%s/%s.pem: expected a certificate signed by %s.pem", dir, role,
                               root);
    X509_free(issuer);
    return st;
}

enum status pki_load(const char *dir, const char *role, struct pki_files *out, struct error *err)
{
    *out = (struct pki_files){0};
    TRY(pki_check_name("role", role, err));
    const char *root = strcmp(role, "door") == 0 ? "door-ca" : "ca";
    struct identity id = {0};
    enum status st = OK;
    TRY_OUT(st, read_pem(dir, root, "pem", &out->ca, err));
    TRY_OUT(st, read_pem(dir, role, "pem", &out->cert, err));
    TRY_OUT(st, read_pem(dir, role, "key", &out->key, err));
    TRY_OUT(st, parse(dir, role, out->cert, out->key, &id, err));
    st = check_issuer(dir, role, root, out->ca, id.cert, err);
out:
    identity_fini(&id);
    if (st != OK)
        pki_files_fini(out);
    return st;
}

void pki_files_fini(struct pki_files *f)
{
    free(f->ca);
    free(f->cert);
    free_secret(f->key);
    *f = (struct pki_files){0};
}
