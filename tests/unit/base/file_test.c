/* base/file: files read with a proof, written whole or not at all, and secrets' modes. */
#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "base/file.h"

#include <sys/stat.h>

static void writes_with_its_mode(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct stat sb;
    struct error err;
    char *text;
    size_t len;
    mode_t mask = umask(0);
    assert_int_equal(file_write(folder_path(&f, "a"), "one", 3, 0640, false, &err), OK);
    umask(mask);
    assert_int_equal(stat(folder_path(&f, "a"), &sb), 0);
    assert_int_equal(sb.st_mode & 07777, 0640);
    SAYS(file_write(folder_path(&f, "a"), "two", 3, 0600, false, &err), ERR_INVALID, &err,
         "/a: expected nothing, found a file");
    assert_int_equal(file_write(folder_path(&f, "a"), "", 0, 0600, true, &err), OK);
    assert_int_equal(file_read_all(folder_path(&f, "a"), 10, &text, &len, &err), OK);
    assert_int_equal(len, 0);
    free(text);
    assert_int_equal(file_write(folder_path(&f, "no/a"), "x", 1, 0600, true, &err), ERR_NOT_FOUND);
    folder_remove(&f); /* would fail on what was left beside */
    assert_int_not_equal(access(f.path, F_OK), 0);
}

static void secrets_are_their_owners(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    folder_puts(&f, "key", "x");
    chmod(folder_path(&f, "key"), 0600);
    assert_int_equal(file_check_secret(folder_path(&f, "key"), &err), OK);
    static const mode_t open_modes[] = {0604, 0620, 0601, 0666};
    for (int i = 0; i < 4; i++) {
        chmod(folder_path(&f, "key"), open_modes[i]);
        SAYS(file_check_secret(folder_path(&f, "key"), &err), ERR_INVALID, &err, "/key",
             "mode 0600");
    }
    assert_int_equal(file_check_secret(folder_path(&f, "absent"), &err), ERR_NOT_FOUND);
    folder_remove(&f);
}

/* Refuses what begins with 'x'; "needed" must be there. */
static enum status check(const struct file_proof *proof, const char *name, const void *data,
                         size_t len, struct error *err)
{
    (void)proof;
    if (data ? len > 0 && *(const char *)data == 'x' : strcmp(name, "needed") == 0)
        return error_set(err, ERR_INVALID, "%s is refused", name);
    return OK;
}

static void reads_what_a_proof_allows(void **state)
{
    (void)state;
    static const struct file_proof proof = {check};
    struct folder f = folder_make();
    struct error err;
    char *text = NULL;
    size_t len = 0;
    folder_puts(&f, "good", "abc");
    folder_puts(&f, "bad", "xyz");
    assert_int_equal(file_read_proven(f.path, "good", &proof, 10, &text, &len, &err), OK);
    assert_string_equal(text, "abc");
    free(text);
    SAYS(file_read_proven(f.path, "bad", &proof, 10, &text, &len, &err), ERR_INVALID, &err,
         "bad is refused");
    SAYS(file_read_proven(f.path, "needed", &proof, 10, &text, &len, &err), ERR_INVALID, &err,
         "needed is refused");
    assert_int_equal(file_read_proven(f.path, "other", &proof, 10, &text, &len, &err),
                     ERR_NOT_FOUND);
    assert_int_equal(file_read_proven(f.path, "good", &proof, 2, &text, &len, &err), ERR_LIMIT);
    assert_int_equal(file_read_proven(f.path, "bad", NULL, 10, &text, &len, &err), OK);
    free(text);
    folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(writes_with_its_mode),
    cmocka_unit_test(secrets_are_their_owners),
    cmocka_unit_test(reads_what_a_proof_allows),
};

UNIT_MAIN(tests)
