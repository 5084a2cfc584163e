/* partition/manifest_sums: lists that hubs publish, and folders that are not as they say. */
#include "tests/unit/partition/folder.h"

#include "base/check.h"
#include "partition/manifest.h"

#include <sys/stat.h>

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define UPPER "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
#define POINTER(sum, size)                                                                         \
    "version https://git-lfs.github.com/spec/v1\noid sha256:" sum "\nsize " size "\n"

static enum status check(const struct folder *list, const char *name, const struct folder *dir,
                         struct error *err)
{
    char path[512];
    struct manifest_sums sums = {0};
    struct pool *pool = NULL;
    snprintf(path, sizeof path, "%s", name ? folder_path(list, name) : list->path);
    assert_int_equal(pool_create(2, false, &pool, err), OK);
    enum status st = manifest_sums_read(path, &sums, err);
    if (st == OK)
        st = manifest_sums_check(&sums, path, dir->path, pool, NULL, NULL, err);
    manifest_sums_fini(&sums);
    pool_destroy(pool);
    return st;
}

static void lists_as_sha256sum_writes_them(void **state)
{
    (void)state;
    struct folder lists = folder_make(), dir = folder_make();
    struct error err;
    folder_puts(&dir, "a b.txt", "abc");
    folder_puts(&dir, "c", "abc");
    folder_puts(&lists, "sums", ABC "  a b.txt\n" UPPER " *./c\r\n\n");
    assert_int_equal(check(&lists, "sums", &dir, &err), OK);
    folder_puts(&dir, "c", "abd");
    SAYS(check(&lists, "sums", &dir, &err), ERR_INVALID, &err, "/c: expected SHA-256 " ABC,
         "published in", "found a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9");
    folder_puts(&dir, "a b.txt", "");
    SAYS(check(&lists, "sums", &dir, &err), ERR_INVALID, &err,
         "2 files are bad; the first: ", "/a b.txt");
    unlink(folder_path(&dir, "a b.txt"));
    folder_puts(&dir, "c", "abc");
    assert_int_equal(check(&lists, "sums", &dir, &err), ERR_NOT_FOUND);
    folder_remove(&lists);
    folder_remove(&dir);
}

static void git_lfs_pointers(void **state)
{
    (void)state;
    struct folder lists = folder_make(), dir = folder_make();
    struct error err;
    folder_puts(&dir, "m.safetensors", "abc");
    folder_puts(&dir, "config.json", "{}");
    folder_puts(&lists, "m.safetensors", POINTER(ABC, "3"));
    assert_int_equal(check(&lists, "m.safetensors", &dir, &err), OK);
    folder_puts(&lists, "config.json", "{}");
    assert_int_equal(check(&lists, NULL, &dir, &err), OK);
    folder_puts(&lists, "config.json", "{ }");
    SAYS(check(&lists, NULL, &dir, &err), ERR_INVALID, &err, "config.json: expected 3 bytes");
    folder_puts(&lists, "config.json", "[]");
    SAYS(check(&lists, NULL, &dir, &err), ERR_INVALID, &err, "config.json: expected SHA-256");
    folder_puts(&lists, "config.json", "{}");
    folder_puts(&lists, "m.safetensors", POINTER(ABC, "4"));
    SAYS(check(&lists, NULL, &dir, &err), ERR_INVALID, &err, "m.safetensors: expected 4 bytes");
    static const char *const broken[] = {POINTER("", "3"),
                                         POINTER(UPPER, "3"),
                                         POINTER(ABC, ""),
                                         POINTER(ABC, "-3"),
                                         POINTER(ABC, "9999999999999999999"),
                                         POINTER(ABC "0", "3")};
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        folder_puts(&lists, "m.safetensors", broken[i]);
        SAYS(check(&lists, NULL, &dir, &err), ERR_INVALID, &err,
             "m.safetensors: expected a git-LFS pointer");
    }
    folder_remove(&lists);
    folder_remove(&dir);
}

static void lists_that_are_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "expected sums of files, found none"},
        {"\n\n", "expected sums of files, found none"},
        {"hello\n", "line 1: expected 64 hex digits"},
        {"\n" ABC " a\n", "line 2: expected 64 hex digits"},
        {ABC "  \n", "line 1: expected 64 hex digits"},
        {"\\" ABC "  a\\nb\n", "line 1"},
        {ABC "  ../a\n", "line 1: path: expected a path inside the folder"},
        {ABC "  /etc/passwd\n", "path: expected a path inside the folder"},
        {ABC "  a\n" ABC "  ./a\n", "expected one sum of a, found two"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct manifest_sums sums = {0};
        struct error err;
        SAYS(manifest_sums_parse("sums", cases[i].text, strlen(cases[i].text), &sums, &err),
             ERR_INVALID, &err, "sums", cases[i].word);
        assert_null(sums.list);
    }
    char *text = malloc(5000);
    assert_non_null(text);
    struct manifest_sums sums = {0};
    struct error err;
    memset(text, 'a', 5000);
    SAYS(manifest_sums_parse("sums", text, 5000, &sums, &err), ERR_INVALID, &err, "line 1");
    free(text);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(lists_as_sha256sum_writes_them),
    cmocka_unit_test(git_lfs_pointers),
    cmocka_unit_test(lists_that_are_malformed),
};

UNIT_MAIN(tests)
