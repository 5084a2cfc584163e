/* partition/manifest_sign: keys, trust, thresholds, and signatures that do not fit. */
#include "tests/unit/partition/signed_folder.h"

#include "base/buf.h"
#include "base/check.h"

#include <openssl/evp.h>
#include <openssl/pem.h>

static struct signed_folder listed(void)
{
    struct signed_folder s = signed_make();
    folder_puts(&s.files, "a.txt", "abc");
    signed_create(&s);
    return s;
}

static enum status open_with(const struct signed_folder *s, const char *trust, int threshold,
                             struct error *err)
{
    struct manifest *m = NULL;
    enum status st = manifest_open(s->manifest, s->files.path, trust, threshold, &m, err);
    assert_true((st == OK) == (m != NULL));
    manifest_close(m);
    return st;
}

static void a_manifest_without_signatures(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    SAYS(open_with(&s, s.trust, 1, &err), ERR_INVALID, &err,
         "m.json: expected valid signatures by ", "1 of the 2 keys", "found 0",
         "not by: alice, bob", "witan manifest sign");
    folder_puts(&s.beside, "m.json.sig", "");
    SAYS(open_with(&s, s.trust, 1, &err), ERR_INVALID, &err, "found 0");
    signed_remove(&s);
}

static void thresholds(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    signed_by(&s, "alice");
    must(open_with(&s, s.trust, 1, &err), &err);
    SAYS(open_with(&s, s.trust, 2, &err), ERR_INVALID, &err, "by 2 of the 2 keys", "found 1",
         "not by: bob");
    signed_by(&s, "alice"); /* again: still one */
    SAYS(open_with(&s, s.trust, 2, &err), ERR_INVALID, &err, "found 1");
    signed_by(&s, "bob");
    must(open_with(&s, s.trust, 2, &err), &err);
    SAYS(open_with(&s, s.trust, 3, &err), ERR_INVALID, &err,
         "expected a threshold of 1 to its 2 keys, found 3");
    SAYS(open_with(&s, s.trust, 0, &err), ERR_INVALID, &err, "found 0");
    signed_remove(&s);
}

/* They are shown to operators and clients, whatever the files are called. */
static void names_of_signers_are_one_line(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct manifest *m = NULL;
    struct error err;
    assert_int_equal(rename(beside(&s, "trust/alice.pem"), beside(&s, "trust/a\nb\xff.pem")), 0);
    assert_int_equal(rename(beside(&s, "trust/bob.pem"), beside(&s, "trust/z\xc3\xb6.pem")), 0);
    signed_by(&s, "alice");
    signed_by(&s, "bob");
    must(signed_open(&s, &m, &err), &err);
    assert_string_equal(manifest_signers(m), "a?b?, z\xc3\xb6");
    manifest_close(m);
    signed_remove(&s);
}

/* The same line twice, or the same key under two names, is one signature. */
static void one_key_counts_once(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    char *line, twice[2000];
    size_t len;
    signed_by(&s, "alice");
    must(file_read_all(beside(&s, "m.json.sig"), 1000, &line, &len, &err), &err);
    snprintf(twice, sizeof twice, "%s\n%s", line, line);
    folder_puts(&s.beside, "m.json.sig", twice);
    free(line);
    SAYS(open_with(&s, s.trust, 2, &err), ERR_INVALID, &err, "found 1");
    unlink(beside(&s, "trust/bob.pem"));
    copy_file(beside(&s, "alice.pem"), beside(&s, "trust/zoe.pem"));
    SAYS(open_with(&s, s.trust, 2, &err), ERR_INVALID, &err, "1 to its 1 keys");
    must(open_with(&s, s.trust, 1, &err), &err);
    signed_remove(&s);
}

static void a_key_that_is_not_trusted(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    signed_by(&s, "eve");
    SAYS(open_with(&s, s.trust, 1, &err), ERR_INVALID, &err, "found 0",
         "by a key that is not trusted (\"eve\", ");
    must(open_with(&s, beside(&s, "eve.pem"), 1, &err), &err);
    signed_by(&s, "alice"); /* hers counts, eve's does neither good nor harm */
    must(open_with(&s, s.trust, 1, &err), &err);
    SAYS(open_with(&s, s.trust, 2, &err), ERR_INVALID, &err, "found 1");
    signed_remove(&s);
}

static void a_manifest_that_changed(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    struct stat sb;
    signed_by(&s, "alice");
    signed_by(&s, "bob");
    assert_int_equal(stat(s.manifest, &sb), 0);
    for (off_t i = 0; i < sb.st_size; i++) {
        flip_bit(s.manifest, (uint64_t)i, (int)(i % 8));
        SAYS(open_with(&s, s.trust, 1, &err), ERR_INVALID, &err, "signature of key alice (",
             "the manifest changed after it was signed");
        flip_bit(s.manifest, (uint64_t)i, (int)(i % 8));
    }
    must(open_with(&s, s.trust, 2, &err), &err);
    assert_int_equal(truncate(s.manifest, sb.st_size - 1), 0);
    SAYS(open_with(&s, s.trust, 1, &err), ERR_INVALID, &err, "signature of key alice");
    signed_remove(&s);
}

/* Any bit of the file of signatures: refused, or what no signature covers (name, white space). */
static void signatures_that_changed(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    char *text;
    size_t len;
    signed_by(&s, "alice");
    const char *sig = beside(&s, "m.json.sig");
    must(file_read_all(sig, 1000, &text, &len, &err), &err);
    size_t name = (size_t)(strstr(text, "\"name\"") - text);
    size_t signature = (size_t)(strstr(text, "\"signature\"") - text);
    for (size_t i = 0; i < len; i++) {
        flip_bit(sig, i, (int)(i % 8));
        bool covered = text[i] != ' ' && text[i] != '\n' && (i < name || i >= signature);
        enum status st = open_with(&s, s.trust, 1, &err);
        if (covered && st != ERR_INVALID)
            fail_msg("byte %zu of %s: %s", i, text, st == OK ? "accepted" : err.msg);
        flip_bit(sig, i, (int)(i % 8));
    }
    free(text);
    signed_remove(&s);
}

static void files_of_signatures_that_are_malformed(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    char many[MANIFEST_MAX_KEYS * 300 + 300] = "";
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"x", "line 1"},
        {"[]", "line 1: expected an object"},
        {"\n{}", "line 2: key: expected a string"},
        {"{\"key\": \"00\", \"signature\": \"\"}", "key: expected 64 hex digits"},
        {"{\"key\": \"0000000000000000000000000000000000000000000000000000000000000000\", "
         "\"signature\": \"AAAA\"}",
         "signature: expected 64 bytes in base64"},
        {"{\"key\": \"0000000000000000000000000000000000000000000000000000000000000000\", "
         "\"signature\": "
         "\"!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"
         "!\"}",
         "signature: expected 64 bytes in base64"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        folder_puts(&s.beside, "m.json.sig", cases[i].text);
        SAYS(open_with(&s, s.trust, 1, &err), ERR_INVALID, &err, "m.json.sig", cases[i].word);
    }
    for (int i = 0; i <= MANIFEST_MAX_KEYS; i++)
        snprintf(
            many + strlen(many), sizeof many - strlen(many),
            "{\"key\": \"%064d\", \"signature\": \"%.86s==\"}\n", i,
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            "AAAAAA");
    folder_puts(&s.beside, "m.json.sig", many);
    SAYS(open_with(&s, s.trust, 1, &err), ERR_LIMIT, &err, "expected at most 64 signatures");
    assert_int_equal(truncate(beside(&s, "m.json.sig"), 1 << 20), 0);
    SAYS(open_with(&s, s.trust, 1, &err), ERR_LIMIT, &err, "m.json.sig");
    signed_remove(&s);
}

static void write_key(const struct signed_folder *s, const char *name, const char *kind, bool open)
{
    EVP_PKEY *key = strcmp(kind, "EC") == 0 ? EVP_EC_gen("P-256")
                                            : EVP_PKEY_Q_keygen(NULL, NULL, kind);
    FILE *out = fopen(beside(s, name), "w");
    assert_true(key && out);
    if (open)
        assert_int_equal(PEM_write_PUBKEY(out, key), 1);
    else
        assert_int_equal(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(out);
    EVP_PKEY_free(key);
}

static void keys_that_cannot_be_trusted(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    signed_by(&s, "alice");
    SAYS(open_with(&s, beside(&s, "absent"), 1, &err), ERR_NOT_FOUND, &err, "absent");
    SAYS(open_with(&s, beside(&s, "alice.key"), 1, &err), ERR_INVALID, &err,
         "alice.key: expected public keys, found a private one");
    SAYS(open_with(&s, s.manifest, 1, &err), ERR_INVALID, &err, "m.json: expected PEM public keys");
    write_key(&s, "ec.pem", "EC", true);
    SAYS(open_with(&s, beside(&s, "ec.pem"), 1, &err), ERR_UNSUPPORTED, &err,
         "ec.pem: expected an Ed25519 key, found EC");
    folder_puts(&s.beside, "cut.pem",
                "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n");
    SAYS(open_with(&s, beside(&s, "cut.pem"), 1, &err), ERR_INVALID, &err, "cut.pem");
    folder_puts(&s.beside, "open.pem", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n");
    SAYS(open_with(&s, beside(&s, "open.pem"), 1, &err), ERR_INVALID, &err, "open.pem");
    folder_puts(&s.beside, "trust/zzz.pem", "nothing\n");
    SAYS(open_with(&s, s.trust, 1, &err), ERR_INVALID, &err, "zzz.pem: expected PEM public keys");
    unlink(beside(&s, "trust/zzz.pem"));
    folder_puts(&s.beside, "trust/README", "which keys these are\n");
    must(open_with(&s, s.trust, 1, &err), &err);
    SAYS(open_with(&s, s.files.path, 1, &err), ERR_INVALID, &err, "expected public keys", "none");
    signed_remove(&s);
}

static void one_file_of_several_keys(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    char *a, *b, both[1000];
    size_t len;
    must(file_read_all(beside(&s, "alice.pem"), 1000, &a, &len, &err), &err);
    must(file_read_all(beside(&s, "bob.pem"), 1000, &b, &len, &err), &err);
    snprintf(both, sizeof both, "The two of us:\n%s\n%s", a, b);
    folder_puts(&s.beside, "both.pem", both);
    free(a);
    free(b);
    signed_by(&s, "bob");
    must(open_with(&s, beside(&s, "both.pem"), 1, &err), &err);
    SAYS(open_with(&s, beside(&s, "both.pem"), 2, &err), ERR_INVALID, &err, "found 1");
    signed_by(&s, "alice");
    must(open_with(&s, beside(&s, "both.pem"), 2, &err), &err);
    signed_remove(&s);
}

static void keys_that_cannot_sign(void **state)
{
    (void)state;
    struct signed_folder s = listed();
    struct error err;
    char id[MANIFEST_DIGEST_HEX + 1];
    SAYS(manifest_sign(s.manifest, beside(&s, "alice.pem"), NULL, id, &err), ERR_INVALID, &err,
         "alice.pem", "only its owner");
    chmod(beside(&s, "alice.pem"), 0600);
    SAYS(manifest_sign(s.manifest, beside(&s, "alice.pem"), NULL, id, &err), ERR_INVALID, &err,
         "alice.pem: expected a PEM private key");
    chmod(beside(&s, "alice.key"), 0644);
    SAYS(manifest_sign(s.manifest, beside(&s, "alice.key"), NULL, id, &err), ERR_INVALID, &err,
         "alice.key", "mode 0600", "0644");
    write_key(&s, "ec.key", "EC", false);
    chmod(beside(&s, "ec.key"), 0600);
    SAYS(manifest_sign(s.manifest, beside(&s, "ec.key"), NULL, id, &err), ERR_UNSUPPORTED, &err,
         "ec.key: expected an Ed25519 key");
    SAYS(manifest_keygen(beside(&s, "bob"), id, &err), ERR_INVALID, &err,
         "bob.key: expected nothing");
    folder_puts(&s.beside, "m.json", "{}");
    SAYS(manifest_sign(s.manifest, beside(&s, "bob.key"), NULL, id, &err), ERR_INVALID, &err,
         "m.json: witan_manifest");
    signed_remove(&s);
}

static void key_files_have_their_modes(void **state)
{
    (void)state;
    struct signed_folder s = signed_make();
    struct stat sb;
    mode_t mask = umask(0);
    char id[MANIFEST_DIGEST_HEX + 1];
    struct error err;
    must(manifest_keygen(beside(&s, "carol"), id, &err), &err);
    umask(mask);
    assert_int_equal(stat(beside(&s, "carol.key"), &sb), 0);
    assert_int_equal(sb.st_mode & 07777, 0600);
    assert_int_equal(stat(beside(&s, "carol.pem"), &sb), 0);
    assert_int_equal(sb.st_mode & 07777, 0644);
    signed_remove(&s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_manifest_without_signatures),
    cmocka_unit_test(thresholds),
    cmocka_unit_test(one_key_counts_once),
    cmocka_unit_test(a_key_that_is_not_trusted),
    cmocka_unit_test(a_manifest_that_changed),
    cmocka_unit_test(signatures_that_changed),
    cmocka_unit_test(files_of_signatures_that_are_malformed),
    cmocka_unit_test(keys_that_cannot_be_trusted),
    cmocka_unit_test(names_of_signers_are_one_line),
    cmocka_unit_test(one_file_of_several_keys),
    cmocka_unit_test(keys_that_cannot_sign),
    cmocka_unit_test(key_files_have_their_modes),
};

UNIT_MAIN(tests)
