/* Roles of certificates, and folders of them: see pki.h. No state. */
#include "proto/pki.h"

#include "proto/pki_private.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char cluster_root[] = "ca", door_root[] = "door-ca";
static const char worker_prefix[] = "urn:witan:worker:";
static const char coordinator_uri[] = "urn:witan:coordinator";

/* Removes what a failed command had made. */
static void remove_pair(const char *dir, const char *name)
{
    static const char *const suffixes[] = {"pem", "key"};
    char path[PKI_MAX_PATH];
    for (size_t i = 0; i < 2; i++)
        if (pki_path(path, dir, name, suffixes[i], NULL) == OK)
            unlink(path);
}

/* None of the root's files may be there. */
static enum status check_absent(const char *dir, const char *name, struct error *err)
{
    static const char *const suffixes[] = {"pem", "key"};
    char path[PKI_MAX_PATH];
    struct stat s;
    for (size_t i = 0; i < 2; i++) {
        TRY(pki_path(path, dir, name, suffixes[i], err));
        if (lstat(path, &s) == 0)
            return error_set(err, ERR_INVALID,
                             "%s: expected a folder without certificates, found "
                             "%s.%s (it is not overwritten)",
                             dir, name, suffixes[i]);
    }
    return OK;
}

static enum status write_roots(const char *dir, const char *name, struct error *err)
{
    struct identity cluster = {0}, door = {0};
    enum status st = OK;
    TRY_OUT(st, check_absent(dir, cluster_root, err));
    TRY_OUT(st, check_absent(dir, door_root, err));
    TRY_OUT(st, pki_make_root(name, "witan cluster root", &cluster, err));
    TRY_OUT(st, pki_make_root(name, "witan door root", &door, err));
    TRY_OUT(st, pki_write(dir, cluster_root, &cluster, false, err));
    st = pki_write(dir, door_root, &door, false, err);
    if (st != OK)
        remove_pair(dir, cluster_root);
out:
    identity_fini(&cluster);
    identity_fini(&door);
    return st;
}

enum status pki_init(const char *dir, const char *name, struct error *err)
{
    bool made = false;
    TRY(pki_check_name("name", name, err));
    TRY(pki_make_dir(dir, &made, err));
    enum status st = write_roots(dir, name, err);
    if (st != OK && made)
        rmdir(dir);
    return st;
}

/* --- the three roles: each makes a leaf under a root that is in memory --- */

static enum status make_coordinator(const struct identity *root, int days, struct identity *out,
                                    struct error *err)
{
    GENERAL_NAMES *names = NULL;
    TRY(pki_names_door(PKI_COORDINATOR_NAME, &names, err));
    struct pki_leaf leaf = {.common_name = "coordinator",
                            .names = names,
                            .usage = "serverAuth,clientAuth", /* it dials its peers */
                            .days = days};
    enum status st = pki_names_add_uri(names, coordinator_uri, err);
    if (st == OK)
        st = pki_make_leaf(root, &leaf, out, err);
    GENERAL_NAMES_free(names);
    return st;
}

static enum status check_rank(const char *rank, struct error *err)
{
    size_t len = strlen(rank);
    bool decimal = len > 0 && len <= 7 && strspn(rank, "0123456789") == len &&
                   (rank[0] != '0' || len == 1);
    if (!decimal && strcmp(rank, "*") != 0)
        return error_set(err, ERR_INVALID, "rank: expected a number or \"*\", found \"%.100s\"",
                         rank);
    return OK;
}

static bool is_any(const char *s)
{
    return strcmp(s, "*") == 0;
}

static enum status make_worker(const struct identity *root, const char *group, const char *rank,
                               const char *region, int days, struct identity *out,
                               struct error *err)
{
    if (!is_any(group))
        TRY(pki_check_name("group", group, err));
    TRY(check_rank(rank, err));
    if (*region && !is_any(region))
        TRY(pki_check_name("region", region, err));
    char uri[256];
    snprintf(uri, sizeof uri, "%s%s:%s:%s", worker_prefix, group, rank, region);
    GENERAL_NAMES *names = NULL;
    TRY(pki_names_uri(uri, &names, err));
    struct pki_leaf leaf = {
        .common_name = "worker", .names = names, .usage = "clientAuth", .days = days};
    enum status st = pki_make_leaf(root, &leaf, out, err);
    GENERAL_NAMES_free(names);
    return st;
}

static enum status make_door(const struct identity *root, const char *list, int days,
                             struct identity *out, struct error *err)
{
    GENERAL_NAMES *names = NULL;
    TRY(pki_names_door(list, &names, err));
    struct pki_leaf leaf = {
        .common_name = "door", .names = names, .usage = "serverAuth", .days = days};
    enum status st = pki_make_leaf(root, &leaf, out, err);
    GENERAL_NAMES_free(names);
    return st;
}

/* --- issuing: read the root, make the leaf, write it --- */

/* A leaf may take the place of an older one, never of a root. */
static enum status check_file_name(const char *name, struct error *err)
{
    TRY(pki_check_name("file name", name, err));
    if (strcmp(name, cluster_root) == 0 || strcmp(name, door_root) == 0)
        return error_set(err, ERR_INVALID,
                         "file name: expected another than the root's, found "
                         "\"%s\"",
                         name);
    return OK;
}

static enum status read_root(const char *dir, const char *root_name, const char *file_name,
                             struct identity *root, struct error *err)
{
    TRY(check_file_name(file_name, err));
    return pki_read(dir, root_name, root, err);
}

/* Writes the leaf, and its root's certificate where there is none, so that pki_load finds both. */
static enum status write_leaf(const char *out_dir, const char *file_name, const char *root_name,
                              const struct identity *root, const struct identity *leaf,
                              struct error *err)
{
    char path[PKI_MAX_PATH];
    struct stat s;
    struct identity public = {.cert = root->cert};
    TRY(pki_make_dir(out_dir, NULL, err));
    TRY(pki_path(path, out_dir, root_name, "pem", err));
    if (lstat(path, &s) != 0)
        TRY(pki_write(out_dir, root_name, &public, false, err));
    return pki_write(out_dir, file_name, leaf, true, err);
}

enum status pki_issue_coordinator(const char *dir, const char *out_dir, const char *file_name,
                                  int days, struct error *err)
{
    struct identity root, leaf = {0};
    TRY(read_root(dir, cluster_root, file_name, &root, err));
    enum status st = make_coordinator(&root, days, &leaf, err);
    if (st == OK)
        st = write_leaf(out_dir, file_name, cluster_root, &root, &leaf, err);
    identity_fini(&root);
    identity_fini(&leaf);
    return st;
}

enum status pki_issue_worker(const char *dir, const char *out_dir, const char *file_name,
                             const char *group, const char *rank, const char *region, int days,
                             struct error *err)
{
    struct identity root, leaf = {0};
    TRY(read_root(dir, cluster_root, file_name, &root, err));
    enum status st = make_worker(&root, group, rank, region, days, &leaf, err);
    if (st == OK)
        st = write_leaf(out_dir, file_name, cluster_root, &root, &leaf, err);
    identity_fini(&root);
    identity_fini(&leaf);
    return st;
}

enum status pki_issue_door(const char *dir, const char *out_dir, const char *file_name,
                           const char *names, int days, struct error *err)
{
    struct identity root, leaf = {0};
    TRY(read_root(dir, door_root, file_name, &root, err));
    enum status st = make_door(&root, names, days, &leaf, err);
    if (st == OK)
        st = write_leaf(out_dir, file_name, door_root, &root, &leaf, err);
    identity_fini(&root);
    identity_fini(&leaf);
    return st;
}

enum status pki_ephemeral(const char *dir, struct error *err)
{
    struct identity root = {0}, coordinator = {0}, worker = {0};
    TRY(pki_make_dir(dir, NULL, err));
    enum status st = OK;
    TRY_OUT(st, check_absent(dir, cluster_root, err));
    TRY_OUT(st, pki_make_root("witan", "witan cluster root", &root, err));
    TRY_OUT(st, make_coordinator(&root, PKI_ROOT_DAYS, &coordinator, err));
    TRY_OUT(st, make_worker(&root, "*", "*", "*", PKI_ROOT_DAYS, &worker, err));
    /* The root's key has done its work and is never written. */
    EVP_PKEY_free(root.key);
    root.key = NULL;
    TRY_OUT(st, pki_write(dir, cluster_root, &root, false, err));
    TRY_OUT(st, pki_write(dir, "coordinator", &coordinator, false, err));
    st = pki_write(dir, "worker", &worker, false, err);
out:
    identity_fini(&root);
    identity_fini(&coordinator);
    identity_fini(&worker);
    return st;
}

/* --- what a peer's certificate says --- */

enum status pki_check_coordinator(const char *uris, struct error *err)
{
    for (const char *s = uris; *s;) {
        size_t len = strcspn(s, "\n");
        if (len == sizeof coordinator_uri - 1 && strncmp(s, coordinator_uri, len) == 0)
            return OK;
        s += len + (s[len] == '\n');
    }
    return error_set(err, ERR_INVALID,
                     "the peer's certificate: expected a coordinator's (%s), found \"%.200s\": "
                     "issue it by `witan pki` of this release",
                     coordinator_uri, uris);
}

/* The parts of "urn:witan:worker:GROUP:RANK:REGION" in a line of `len` bytes; false: not one. */
struct worker_name {
    char part[3][PKI_MAX_NAME + 1];
};

static bool parse_worker(const char *line, size_t len, struct worker_name *out)
{
    size_t prefix = sizeof worker_prefix - 1;
    if (len < prefix || strncmp(line, worker_prefix, prefix) != 0)
        return false;
    const char *s = line + prefix, *end = line + len;
    for (int i = 0; i < 3; i++) {
        const char *colon = memchr(s, ':', (size_t)(end - s));
        const char *stop = colon ? colon : end;
        /* Exactly three parts. */
        if ((colon != NULL) != (i < 2) || stop - s > PKI_MAX_NAME)
            return false;
        snprintf(out->part[i], sizeof out->part[i], "%.*s", (int)(stop - s), s);
        s = stop + 1;
    }
    return true;
}

static bool matches(const char *pattern, const char *value)
{
    return is_any(pattern) || strcmp(pattern, value) == 0;
}

enum status pki_check_worker(const char *uris, const char *group, uint32_t rank, const char *region,
                             struct error *err)
{
    char number[16];
    snprintf(number, sizeof number, "%u", rank);
    struct worker_name last;
    bool any = false;
    for (const char *s = uris; *s;) {
        size_t len = strcspn(s, "\n");
        struct worker_name w;
        if (parse_worker(s, len, &w)) {
            any = true;
            last = w;
            if (matches(w.part[0], group) && matches(w.part[1], number) &&
                matches(w.part[2], region))
                return OK;
        }
        s += len + (s[len] == '\n');
    }
    if (!any)
        return error_set(
            err, ERR_INVALID,
            "the peer's certificate: expected group \"%s\" rank %u region \"%s\", found "
            "no worker's name (\"%.200s\")",
            group, rank, region, uris);
    return error_set(err, ERR_INVALID,
                     "the peer's certificate: expected group \"%s\" rank %u region \"%s\", found "
                     "group \"%s\" rank %s region \"%s\"",
                     group, rank, region, last.part[0], last.part[1], last.part[2]);
}
