/* A folder with keys and the files of an audit log, and what a check of them finds. */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_AUDIT_FOLDER_H
#define WITAN_TESTS_UNIT_COORDINATOR_AUDIT_FOLDER_H

#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "coordinator/audit_check.h"
#include "partition/manifest.h"

#include <signal.h>
#include <sys/resource.h>

struct audit_folder {
    struct folder files;
    char log[128], heads[128], key[128], pem[128], hmac[128];
    struct audit_trust *trust;
};

static inline void done(enum status st, const struct error *err)
{
    if (st != OK)
        fail_msg("%s", err->msg);
}

static inline struct audit_folder audit_folder_make(void)
{
    struct audit_folder f = {.files = folder_make()};
    struct error err;
    char id[MANIFEST_DIGEST_HEX + 1], base[128];
    const char *dir = f.files.path;
    signal(SIGXFSZ, SIG_IGN);
    snprintf(f.log, sizeof f.log, "%s/audit.jsonl", dir);
    snprintf(f.heads, sizeof f.heads, "%s/audit.heads", dir);
    snprintf(base, sizeof base, "%s/audit", dir);
    snprintf(f.key, sizeof f.key, "%s/audit.key", dir);
    snprintf(f.pem, sizeof f.pem, "%s/audit.pem", dir);
    snprintf(f.hmac, sizeof f.hmac, "%s/hmac", dir);
    done(manifest_keygen(base, id, &err), &err);
    done(audit_hmac_key_make(f.hmac, &err), &err);
    done(audit_trust_open(f.pem, &f.trust, &err), &err);
    return f;
}

static inline void audit_folder_remove(struct audit_folder *f)
{
    audit_trust_close(f->trust);
    folder_remove(&f->files);
}

static inline struct audit_options audit_folder_options(const struct audit_folder *f)
{
    return (struct audit_options){.file = f->log,
                                  .key = f->key,
                                  .heads = f->heads,
                                  .hmac_key = f->hmac,
                                  .name = "test",
                                  .head_s = 3600};
}

static inline struct audit *audit_folder_open(const struct audit_folder *f)
{
    struct audit_options o = audit_folder_options(f);
    struct audit *a = NULL;
    struct error err;
    done(audit_open(&o, &a, &err), &err);
    return a;
}

/* Files may grow to so many bytes; 0: without a bound. */
static inline void audit_bound_files(uint64_t bytes)
{
    struct rlimit l;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
    l.rlim_cur = bytes > 0 ? bytes : l.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static inline int64_t file_size(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return -1;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    fclose(f);
    return n;
}

/* --- what a check finds --- */

struct found {
    int count;
    int64_t line[16], seq[16];
    bool heads[16];
    char words[4096]; /* of all of them */
};

static inline void found_tell(void *arg, const struct audit_finding *f)
{
    struct found *all = arg;
    size_t n = strlen(all->words);
    if (all->count < 16) {
        all->line[all->count] = f->line;
        all->seq[all->count] = f->seq;
        all->heads[all->count] = f->heads;
    }
    all->count++;
    snprintf(all->words + n, sizeof all->words - n, "%s%lld: %s\n", f->heads ? "heads " : "",
             (long long)f->line, f->what);
}

static inline struct found verify(const struct audit_folder *f, bool heads,
                                  struct audit_summary *sum)
{
    struct found all = {0};
    struct error err;
    done(audit_verify(f->log, heads ? f->heads : NULL, f->trust, found_tell, &all, sum, &err),
         &err);
    return all;
}

static inline void is_sound(const struct audit_folder *f, struct audit_summary *sum)
{
    struct found all = verify(f, true, sum);
    if (all.count > 0)
        fail_msg("%s", all.words);
}

/* How many records of this kind the log has; the last one's fields to *fields (json_decref; may be
 * NULL). */
static inline int kinds(const struct audit_folder *f, const char *kind, json_t **fields)
{
    char *text, *line, *rest;
    size_t len;
    int count = 0;
    struct error err;
    done(file_read_all(f->log, 64 << 20, &text, &len, &err), &err);
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct audit_record r;
        if (audit_line_read("it", line, strlen(line), &r, &err) != OK)
            continue;
        if (strcmp(r.kind, kind) == 0) {
            count++;
            if (fields) {
                json_decref(*fields);
                *fields = json_incref((json_t *)r.fields);
            }
        }
        json_decref(r.root);
    }
    free(text);
    return count;
}

#endif
