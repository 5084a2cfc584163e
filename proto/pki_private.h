/*
 * What the files behind pki.h share. `struct identity` is a certificate with its key; both are
 * owned, and either may be NULL.
 */
#ifndef WITAN_PROTO_PKI_PRIVATE_H
#define WITAN_PROTO_PKI_PRIVATE_H

#include "base/error.h"
#include "proto/pki.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stddef.h>

enum { PKI_MAX_NAME = 64, PKI_MAX_PATH = 4096, PKI_MAX_PEM_BYTES = 1 << 20 };

struct identity {
    X509 *cert;
    EVP_PKEY *key;
};

void identity_fini(struct identity *id);

/* ERR_INVALID with the words and what OpenSSL says of its newest failure; empties its queue. */
enum status pki_openssl_error(struct error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* A name that is safe in subjects, URIs and paths: letters, digits, ".", "_", "-". `what` names it
 * in the message. */
enum status pki_check_name(const char *what, const char *name, struct error *err);

/* --- pki_cert.c: certificates in memory --- */

/* A self-signed root of PKI_ROOT_DAYS; `purpose` ("cluster root") is its common name. */
enum status pki_make_root(const char *name, const char *purpose, struct identity *out,
                          struct error *err);

/* A leaf: `names` are its subjectAltName, `usage` its extended key usage, as OpenSSL spells it. */
struct pki_leaf {
    const char *common_name;
    const GENERAL_NAMES *names;
    const char *usage;
    int days;
};
enum status pki_make_leaf(const struct identity *root, const struct pki_leaf *leaf,
                          struct identity *out, struct error *err);

/* Names for pki_leaf; GENERAL_NAMES_free(*out). */
enum status pki_names_uri(const char *uri, GENERAL_NAMES **out, struct error *err);
enum status pki_names_door(const char *list, GENERAL_NAMES **out, struct error *err);
/* Appends one more. */
enum status pki_names_add_uri(GENERAL_NAMES *to, const char *uri, struct error *err);

/* --- pki_file.c: folders and PEM files --- */

/* "DIR/NAME.SUFFIX" into path[PKI_MAX_PATH]. */
enum status pki_path(char path[PKI_MAX_PATH], const char *dir, const char *name, const char *suffix,
                     struct error *err);

/* Makes the folder with mode 0700; OK when it is there. *made (may be NULL): was it made? */
enum status pki_make_dir(const char *dir, bool *made, struct error *err);

/* NAME.pem (mode 0644) and, with a key, NAME.key (mode 0600): each written aside and then moved to
 * its place. Without `replace` ERR_INVALID when one is there. */
enum status pki_write(const char *dir, const char *name, const struct identity *id, bool replace,
                      struct error *err);

/* NAME.pem and NAME.key, proven to belong together and to be valid today. */
enum status pki_read(const char *dir, const char *name, struct identity *out, struct error *err);

#endif
