/* partition/manifest: the text, paths, the folder, chunks, and every way to tamper with them. */
#include "tests/unit/partition/signed_folder.h"

#include "base/check.h"
#include "partition/checkpoint.h"
#include "partition/manifest_private.h"

enum { CHUNK = MANIFEST_CHUNK_BYTES };

/* --- the text --- */

#define ABC_SHA256 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_LEAF "609f6e36d2405585188d5cfd761f407c7cc46a7d3f314c88270469dde315fcd1"
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define FILE_ABC(path)                                                                             \
    "  {\"path\": \"" path "\", \"bytes\": 3, \"sha256\": \"" ABC_SHA256                           \
    "\",\n   \"root\": \"" ABC_LEAF "\", \"leaves\": \"" ABC_LEAF "\"}"
#define FILE_EMPTY(path)                                                                           \
    "  {\"path\": \"" path "\", \"bytes\": 0, \"sha256\": \"" EMPTY_SHA256                         \
    "\",\n   \"root\": \"" EMPTY_SHA256 "\", \"leaves\": \"\"}"
#define HEAD                                                                                       \
    "{\"witan_manifest\": 1,\n \"format\": \"test\",\n \"licence\": \"Apache-2.0\",\n "            \
    "\"origin\": "                                                                                 \
    "\"https://models.example/m\",\n \"chunk_bytes\": 16777216,\n"
#define TAIL " ]}\n"
#define MANIFEST(files) HEAD " \"files\": [\n" files "\n" TAIL

static void text_is_as_documented(void **state)
{
    (void)state;
    struct signed_folder s = signed_make();
    char *text;
    size_t len;
    struct error err;
    folder_puts(&s.files, "a.txt", "abc");
    folder_puts(&s.files, "b", "");
    signed_create(&s);
    must(file_read_all(s.manifest, 1 << 20, &text, &len, &err), &err);
    assert_string_equal(text, MANIFEST(FILE_ABC("a.txt") ",\n" FILE_EMPTY("b")));
    free(text);
    signed_remove(&s);
}

static void parses_what_it_prints(void **state)
{
    (void)state;
    static const char text[] = MANIFEST(
        FILE_ABC("a") ",\n" FILE_EMPTY("a/b") ",\n" FILE_ABC("é\\\""));
    struct manifest *m = NULL;
    struct error err;
    int count;
    must(manifest_parse("m", text, sizeof text - 1, &m, &err), &err);
    assert_int_equal(manifest_find(m, "a/b"), 1);
    assert_int_equal(manifest_find(m, "é\""), 2);
    assert_int_equal(manifest_find(m, "b"), -1);
    assert_int_equal(manifest_files(m, &count)[0].chunks, 1);
    assert_int_equal(count, 3);
    assert_int_equal(manifest_total_bytes(m), 6);
    assert_string_equal(manifest_words(m).licence, "Apache-2.0");
    assert_int_equal(strlen(manifest_digest(m)), MANIFEST_DIGEST_HEX);
    must(manifest_check_chunk(m, 0, 0, "abc", 3, &err), &err);
    SAYS(manifest_check_chunk(m, 0, 0, "abd", 3, &err), ERR_INVALID, &err, "m/a", "chunk 0",
         "bytes 0 to 2", "expected hash 609f6e36d2405585", "https://models.example/m");
    SAYS(manifest_check_chunk(m, 0, 0, "ab", 2, &err), ERR_INVALID, &err, "chunk 0",
         "expected 3 bytes, found 2");
    manifest_close(m);
}

static void refuses_text(const char *text, enum status st, const char *word)
{
    struct manifest *m = NULL;
    struct error err;
    SAYS(manifest_parse("m.json", text, strlen(text), &m, &err), st, &err, "m.json", word);
    assert_null(m);
}

static void text_that_is_not_canonical(void **state)
{
    (void)state;
    static const char *const texts[] = {
        MANIFEST(FILE_ABC("a")) "\n",
        MANIFEST(FILE_ABC("a")) " ",
        HEAD " \"files\":  [\n" FILE_ABC("a") "\n" TAIL,
        HEAD " \"more\": 1,\n \"files\": [\n" FILE_ABC("a") "\n" TAIL,
        MANIFEST(FILE_ABC("\\u0061")),
        " " MANIFEST(FILE_ABC("a")),
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        refuses_text(texts[i], ERR_INVALID, "at byte");
}

static void text_with_wrong_fields(void **state)
{
    (void)state;
    refuses_text("[]", ERR_INVALID, "expected an object");
    refuses_text("{}", ERR_INVALID, "witan_manifest");
    refuses_text("{\"witan_manifest\": 2}", ERR_UNSUPPORTED, "expected version 1, found 2");
    refuses_text("{\"witan_manifest\": 1}", ERR_INVALID, "format");
    refuses_text(HEAD " \"files\": []}\n", ERR_INVALID, "expected an array of files, found none");
    refuses_text(HEAD " \"files\": {}}\n", ERR_INVALID, "found an object");
    refuses_text(HEAD " \"files\": [1]}\n", ERR_INVALID, "files[0]");
    refuses_text(HEAD " \"files\": [{\"path\": \"a\", \"bytes\": -1}]}\n", ERR_INVALID, "bytes");
    refuses_text(HEAD " \"files\": [{\"path\": \"a\", \"bytes\": 99999999999999999}]}\n",
                 ERR_INVALID, "bytes");
    refuses_text(HEAD " \"files\": [{\"path\": \"a\", \"bytes\": 3, \"sha256\": \"00\"}]}\n",
                 ERR_INVALID, "expected 64 hex digits, found 2");
    refuses_text(MANIFEST(FILE_ABC("a") ",\n" FILE_ABC("a")), ERR_INVALID, "sorts after \"a\"");
    refuses_text(MANIFEST(FILE_ABC("b") ",\n" FILE_ABC("a")), ERR_INVALID, "sorts after \"b\"");
    refuses_text(MANIFEST("{\"path\": \"a\", \"bytes\": 3, \"sha256\": \"" ABC_SHA256
                          "\", \"root\": \"" ABC_SHA256 "\", \"leaves\": \"" ABC_LEAF "\"}"),
                 ERR_INVALID, "root of its leaves");
    refuses_text(MANIFEST("{\"path\": \"a\", \"bytes\": 3, \"sha256\": \"" ABC_SHA256
                          "\", \"root\": \"" ABC_LEAF "\", \"leaves\": \"\"}"),
                 ERR_INVALID, "leaves: expected 64 hex digits, found 0");
    refuses_text(MANIFEST("{\"path\": \"a\", \"bytes\": 3, \"sha256\": \"BA7816" ABC_LEAF "\"}"),
                 ERR_INVALID, "sha256");
    refuses_text("{\"witan_manifest\": 1, \"witan_manifest\": 1}", ERR_INVALID, "duplicate");
}

static void text_cut_at_every_byte(void **state)
{
    (void)state;
    static const char text[] = MANIFEST(FILE_ABC("a") ",\n" FILE_EMPTY("b"));
    for (size_t len = 0; len + 1 < sizeof text; len++) {
        struct manifest *m = NULL;
        struct error err;
        if (manifest_parse("m", text, len, &m, &err) == OK)
            fail_msg("accepted at %zu bytes", len);
    }
}

static void paths_that_leave_the_folder(void **state)
{
    (void)state;
    static const char *const paths[] = {"",
                                        "/",
                                        "/etc/passwd",
                                        "..",
                                        "../a",
                                        "a/../b",
                                        "a/..",
                                        ".",
                                        "./a",
                                        "a/./b",
                                        "a//b",
                                        "a/",
                                        "a\nb",
                                        "a\x7f",
                                        "\xff",
                                        "a/b/../../../c",
                                        "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"};
    struct error err;
    char at_most[MANIFEST_MAX_PATH + 2];
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        SAYS(manifest_check_path("m", paths[i], &err), ERR_INVALID, &err, "m: path: expected");
    memset(at_most, 'a', sizeof at_most);
    at_most[MANIFEST_MAX_PATH + 1] = '\0';
    SAYS(manifest_check_path("m", at_most, &err), ERR_INVALID, &err, "at most 1024");
    at_most[MANIFEST_MAX_PATH] = '\0';
    must(manifest_check_path("m", at_most, &err), &err);
    must(manifest_check_path("m", "...", &err), &err);
    must(manifest_check_path("m", ".a/b..c", &err), &err);
    refuses_text(MANIFEST(FILE_ABC("../a")), ERR_INVALID, "files[0]: path: expected a path inside");
}

/* The roots of RFC 6962's reference implementation (merkletree_test of certificate-transparency);
 * RFC 9162 defines the same tree. */
static void tree_has_the_roots_of_the_reference(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *root;
    } steps[] = {
        {"", 0, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
        {"\x00", 1, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
        {"\x10", 1, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
        {"\x20\x21", 2, "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
        {"\x30\x31", 2, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
        {"@ABC", 4, "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
        {"PQRSTUVW", 8, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
        {"`abcdefghijklmno", 16,
         "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
    };
    struct digest leaves[COUNT_OF(steps)] = {0}, root;
    struct error err;
    char hex[MANIFEST_DIGEST_HEX + 1];
    must(tree_root(leaves, 0, &root, &err), &err);
    digest_hex(&root, hex);
    assert_string_equal(hex, EMPTY_SHA256);
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        must(tree_leaf(steps[i].bytes, steps[i].len, &leaves[i], &err), &err);
        must(tree_root(leaves, (uint32_t)i + 1, &root, &err), &err);
        digest_hex(&root, hex);
        assert_string_equal(hex, steps[i].root);
    }
}

/* --- the folder --- */

static struct signed_folder small(void)
{
    struct signed_folder s = signed_make();
    folder_puts(&s.files, "a.txt", "abc");
    folder_puts(&s.files, "b.txt", "hello");
    signed_create(&s);
    signed_by(&s, "alice");
    return s;
}

static void refuses_open(const struct signed_folder *s, enum status st, const char *a,
                         const char *b)
{
    struct manifest *m = NULL;
    struct error err;
    SAYS(signed_open(s, &m, &err), st, &err, a, b);
    assert_null(m);
}

static void equal_folders_have_equal_manifests(void **state)
{
    (void)state;
    struct signed_folder a = small(), b = small();
    struct manifest *x = NULL, *y = NULL;
    struct error err;
    must(signed_open(&a, &x, &err), &err);
    must(signed_open(&b, &y, &err), &err);
    assert_string_equal(manifest_digest(x), manifest_digest(y));
    assert_string_equal(manifest_signers(x), "alice");
    manifest_close(x);
    manifest_close(y);
    signed_remove(&a);
    signed_remove(&b);
}

static void folder_must_fit_the_list(void **state)
{
    (void)state;
    struct signed_folder s = small();
    folder_puts(&s.files, "c.txt", "");
    refuses_open(&s, ERR_INVALID, "/c.txt: expected only files that", "move it away");
    unlink(folder_path(&s.files, "c.txt"));
    folder_puts(&s.files, ".hidden", "x");
    refuses_open(&s, ERR_INVALID, "/.hidden: expected only files that", "move it away");
    unlink(folder_path(&s.files, ".hidden"));
    folder_puts(&s.files, "b.txt", "hell");
    refuses_open(&s, ERR_INVALID, "/b.txt: expected 5 bytes", "found 4: fetch it again from http");
    unlink(folder_path(&s.files, "b.txt"));
    refuses_open(&s, ERR_INVALID, "/b.txt: expected a file of 5 bytes", "found none");
    folder_puts(&s.files, "b.txt", "hello");
    struct manifest *m = NULL;
    struct error err;
    must(signed_open(&s, &m, &err), &err);
    manifest_close(m);
    signed_remove(&s);
}

static void manifest_may_lie_in_its_folder(void **state)
{
    (void)state;
    struct signed_folder s = signed_make();
    struct manifest *m = NULL;
    struct error err;
    folder_puts(&s.files, "a.txt", "abc");
    snprintf(s.manifest, sizeof s.manifest, "%s/m.json", s.files.path);
    signed_create(&s);
    signed_by(&s, "bob");
    must(signed_open(&s, &m, &err), &err);
    must(signed_verify(m, &err), &err);
    manifest_close(m);
    signed_remove(&s);
}

static enum status create_again(const struct signed_folder *s, struct error *err)
{
    static const struct manifest_words words = {"", "", ""};
    struct pool *pool = NULL;
    must(pool_create(1, false, &pool, err), err);
    enum status st = manifest_create(s->files.path, s->manifest, &words, pool, NULL, NULL, err);
    pool_destroy(pool);
    return st;
}

static void links_and_special_files_are_refused(void **state)
{
    (void)state;
    struct signed_folder s = small();
    struct error err;
    const char *link_path = folder_path(&s.files, "link");
    assert_int_equal(symlink("/etc/passwd", link_path), 0);
    refuses_open(&s, ERR_INVALID, "/link: expected a regular file, found a symbolic link",
                 "cp -rL");
    unlink(s.manifest);
    unlink(beside(&s, "m.json.sig"));
    SAYS(create_again(&s, &err), ERR_INVALID, &err, "/link", "symbolic link", "cp -rL");
    unlink(link_path);
    assert_int_equal(symlink("a.txt", link_path), 0);
    SAYS(create_again(&s, &err), ERR_INVALID, &err, "/link", "symbolic link");
    unlink(link_path);
    assert_int_equal(mkfifo(link_path, 0600), 0);
    SAYS(create_again(&s, &err), ERR_INVALID, &err, "/link", "special");
    unlink(link_path);
    folder_puts(&s.files, "new\nline", "");
    SAYS(create_again(&s, &err), ERR_INVALID, &err, "control characters");
    unlink(folder_path(&s.files, "new\nline"));
    must(create_again(&s, &err), &err);
    SAYS(create_again(&s, &err), ERR_INVALID, &err, "m.json: expected nothing, found a file");
    signed_remove(&s);
}

/* A file that was sound when the folder was looked at becomes a link to the same bytes: refused. */
static void a_file_that_becomes_a_link(void **state)
{
    (void)state;
    struct signed_folder s = small();
    struct manifest *m = NULL;
    struct error err;
    must(signed_open(&s, &m, &err), &err);
    assert_int_equal(rename(folder_path(&s.files, "a.txt"), beside(&s, "aside")), 0);
    assert_int_equal(symlink(beside(&s, "aside"), folder_path(&s.files, "a.txt")), 0);
    assert_int_equal(signed_verify(m, &err), ERR_IO);
    manifest_close(m);
    signed_remove(&s);
}

static void subfolders_are_listed(void **state)
{
    (void)state;
    struct signed_folder s = signed_make();
    struct manifest *m = NULL;
    struct error err;
    char inner[256];
    snprintf(inner, sizeof inner, "%s/sub", s.files.path);
    assert_int_equal(mkdir(inner, 0700), 0);
    folder_puts(&s.files, "sub/a", "abc");
    folder_puts(&s.files, "sub.txt", "abc");
    signed_create(&s);
    signed_by(&s, "alice");
    must(signed_open(&s, &m, &err), &err);
    assert_true(manifest_find(m, "sub/a") >= 0);
    folder_puts(&s.files, "sub/a", "abd");
    SAYS(signed_verify(m, &err), ERR_INVALID, &err, "sub/a: chunk 0");
    manifest_close(m);
    unlink(folder_path(&s.files, "sub/a"));
    rmdir(inner);
    signed_remove(&s);
}

/* --- chunks --- */

/* Two files of three chunks, the last one short, that differ in one byte. */
static struct signed_folder large(void)
{
    struct signed_folder s = signed_make();
    char *bytes = malloc((size_t)2 * CHUNK + 1000);
    assert_non_null(bytes);
    for (size_t i = 0; i < (size_t)2 * CHUNK + 1000; i++)
        bytes[i] = (char)(i * 2654435761u >> 24);
    folder_write(&s.files, "model-00001-of-00002.safetensors", bytes, (size_t)2 * CHUNK + 1000);
    bytes[CHUNK + 5]++;
    folder_write(&s.files, "model-00002-of-00002.safetensors", bytes, (size_t)2 * CHUNK + 1000);
    free(bytes);
    signed_create(&s);
    signed_by(&s, "alice");
    return s;
}

static void one_bit_in_any_chunk(void **state)
{
    (void)state;
    struct signed_folder s = large();
    struct manifest *m = NULL;
    struct error err;
    must(signed_open(&s, &m, &err), &err);
    must(signed_verify(m, &err), &err);
    const uint64_t at[] = {0, CHUNK - 1, CHUNK, CHUNK + 77, 2 * CHUNK, 2 * CHUNK + 999};
    for (size_t i = 0; i < COUNT_OF(at); i++) {
        const char *name = "model-00002-of-00002.safetensors";
        char words[64];
        snprintf(words, sizeof words, "chunk %d (bytes %d to ", (int)(at[i] / CHUNK),
                 (int)(at[i] / CHUNK * CHUNK));
        flip_bit(folder_path(&s.files, name), at[i], (int)(i % 8));
        SAYS(signed_verify(m, &err), ERR_INVALID, &err, name, words, "fetch it again");
        flip_bit(folder_path(&s.files, name), at[i], (int)(i % 8));
    }
    must(signed_verify(m, &err), &err);
    flip_bit(folder_path(&s.files, "model-00001-of-00002.safetensors"), CHUNK, 0);
    flip_bit(folder_path(&s.files, "model-00002-of-00002.safetensors"), 0, 0);
    SAYS(signed_verify(m, &err), ERR_INVALID, &err,
         "2 chunks are bad; the first: ", "model-00001-of-00002.safetensors: chunk 1");
    manifest_close(m);
    signed_remove(&s);
}

static void swapped_shards(void **state)
{
    (void)state;
    struct signed_folder s = large();
    struct manifest *m = NULL;
    struct error err;
    char one[512];
    snprintf(one, sizeof one, "%s", folder_path(&s.files, "model-00001-of-00002.safetensors"));
    const char *two = folder_path(&s.files, "model-00002-of-00002.safetensors");
    assert_int_equal(rename(one, beside(&s, "aside")), 0);
    assert_int_equal(rename(two, one), 0);
    assert_int_equal(rename(beside(&s, "aside"), two), 0);
    must(signed_open(&s, &m, &err), &err);
    SAYS(signed_verify(m, &err), ERR_INVALID, &err, "2 chunks are bad",
         "model-00001-of-00002.safetensors: chunk 1");
    manifest_close(m);
    signed_remove(&s);
}

/* --- files that change between opening and reading --- */

static void small_files_that_change(void **state)
{
    (void)state;
    struct signed_folder s = small();
    struct manifest *m = NULL;
    struct error err;
    char *text;
    size_t len;
    const char *dir = s.files.path;
    must(signed_open(&s, &m, &err), &err);
    const struct file_proof *proof = manifest_proof(m);
    must(file_read_proven(dir, "a.txt", proof, 100, &text, &len, &err), &err);
    assert_string_equal(text, "abc");
    free(text);
    assert_int_equal(file_read_proven(dir, "absent", proof, 100, &text, &len, &err), ERR_NOT_FOUND);
    folder_puts(&s.files, "a.txt", "abd");
    SAYS(file_read_proven(dir, "a.txt", proof, 100, &text, &len, &err), ERR_INVALID, &err,
         "/a.txt: chunk 0", "fetch it again");
    folder_puts(&s.files, "a.txt", "abcd");
    SAYS(file_read_proven(dir, "a.txt", proof, 100, &text, &len, &err), ERR_INVALID, &err,
         "/a.txt: expected the 3 bytes");
    unlink(folder_path(&s.files, "a.txt"));
    SAYS(file_read_proven(dir, "a.txt", proof, 100, &text, &len, &err), ERR_INVALID, &err,
         "/a.txt: expected the 3 bytes", "found no file");
    folder_puts(&s.files, "new", "x");
    SAYS(file_read_proven(dir, "new", proof, 100, &text, &len, &err), ERR_INVALID, &err,
         "/new: expected only files");
    assert_null(manifest_proof(NULL));
    must(file_read_proven(dir, "new", NULL, 100, &text, &len, &err), &err);
    free(text);
    manifest_close(m);
    signed_remove(&s);
}

/* One tensor of three chunks and a little more. */
static struct signed_folder checkpoint(void)
{
    struct signed_folder s = signed_make();
    folder_safetensors(
        &s.files, "model.safetensors",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[8650752],\"data_offsets\":[0,34603008]}"
        "}",
        34603008);
    signed_create(&s);
    signed_by(&s, "alice");
    return s;
}

static void checkpoint_reads_are_proven(void **state)
{
    (void)state;
    struct signed_folder s = checkpoint();
    struct manifest *m = NULL;
    struct checkpoint *ck = NULL, *plain = NULL;
    struct error err;
    must(signed_open(&s, &m, &err), &err);
    must(checkpoint_open_proven(s.files.path, m, &ck, &err), &err);
    must(checkpoint_open(s.files.path, &plain, &err), &err);
    size_t len = (size_t)CHUNK + 100;
    char *a = aligned_alloc(4096, CHUNK * 2), *b = aligned_alloc(4096, CHUNK * 2);
    assert_true(a && b);
    const uint64_t at[] = {0, 1, 8, CHUNK - 7, CHUNK, CHUNK + 3};
    for (size_t i = 0; i < COUNT_OF(at); i++) {
        must(checkpoint_read(ck, 0, at[i], a, len, &err), &err);
        must(checkpoint_read(plain, 0, at[i], b, len, &err), &err);
        assert_memory_equal(a, b, len);
    }
    /* The whole chunk under a manifest, what is asked for without. */
    size_t last = checkpoint_file_bytes(ck, 0) - 2 * (size_t)CHUNK;
    assert_int_equal(checkpoint_chunk_bytes(ck, 0, 2, 5000, 5010), last);
    assert_int_equal(checkpoint_chunk_bytes(plain, 0, 2, 5000, 5010), 5010 - 4096);
    for (int direct = 0; direct < 2; direct++) {
        checkpoint_begin_chunks(ck, direct);
        checkpoint_begin_chunks(plain, direct);
        must(checkpoint_read_chunk(ck, 0, 2, 5000, 5010, a, &err), &err);
        must(checkpoint_read_chunk(plain, 0, 2, 0, last, b, &err), &err);
        assert_memory_equal(a, b, last);
        memset(b, 0, last);
        must(checkpoint_read_chunk(plain, 0, 2, 5000, last, b, &err), &err);
        assert_memory_equal(a + 5000, b + 5000, last - 5000);
    }

    /* Found although it was sound when it was opened. */
    checkpoint_close(ck); /* with the chunks at hand */
    must(checkpoint_open_proven(s.files.path, m, &ck, &err), &err);
    flip_bit(folder_path(&s.files, "model.safetensors"), 2 * (uint64_t)CHUNK + 9, 3);
    must(checkpoint_read(ck, 0, 8, a, 4, &err), &err);
    SAYS(checkpoint_read(ck, 0, 2 * (uint64_t)CHUNK + 100, a, 4, &err), ERR_INVALID, &err,
         "model.safetensors: chunk 2");
    SAYS(checkpoint_read_chunk(ck, 0, 2, 0, 1, a, &err), ERR_INVALID, &err, "chunk 2");
    must(checkpoint_read(ck, 0, 16, a, 4, &err), &err);
    assert_int_equal(truncate(folder_path(&s.files, "model.safetensors"), CHUNK + 50), 0);
    SAYS(checkpoint_read(ck, 0, CHUNK + 100, a, 4, &err), ERR_IO, &err, "found the end at");
    free(a);
    free(b);
    checkpoint_close(ck);
    checkpoint_close(plain);
    manifest_close(m);
    signed_remove(&s);
}

static void checkpoint_headers_are_proven(void **state)
{
    (void)state;
    struct signed_folder s = checkpoint();
    struct manifest *m = NULL;
    struct checkpoint *ck = NULL;
    struct error err;
    must(signed_open(&s, &m, &err), &err);
    flip_bit(folder_path(&s.files, "model.safetensors"), 10, 1); /* the tensor's name */
    must(checkpoint_open(s.files.path, &ck, &err), &err);
    checkpoint_close(ck);
    ck = NULL;
    SAYS(checkpoint_open_proven(s.files.path, m, &ck, &err), ERR_INVALID, &err,
         "model.safetensors: chunk 0");
    assert_null(ck);
    folder_puts(&s.files, "model.safetensors.index.json", "{}");
    unlink(folder_path(&s.files, "model.safetensors"));
    SAYS(checkpoint_open_proven(s.files.path, m, &ck, &err), ERR_NOT_FOUND, &err,
         "model.safetensors");
    folder_puts(&s.files, "model.safetensors", "short");
    SAYS(checkpoint_open_proven(s.files.path, m, &ck, &err), ERR_INVALID, &err,
         "model.safetensors: expected the");
    manifest_close(m);
    signed_remove(&s);
}

/* --- limits --- */

static void a_manifest_that_is_too_large(void **state)
{
    (void)state;
    struct signed_folder s = small();
    assert_int_equal(truncate(s.manifest, (off_t)MANIFEST_MAX_BYTES + 1), 0);
    refuses_open(&s, ERR_LIMIT, "m.json", "expected at most 67108864");
    signed_remove(&s);
}

static void an_empty_folder_has_no_manifest(void **state)
{
    (void)state;
    struct signed_folder s = signed_make();
    struct error err;
    SAYS(create_again(&s, &err), ERR_INVALID, &err, "expected files, found none");
    signed_remove(&s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(text_is_as_documented),
    cmocka_unit_test(parses_what_it_prints),
    cmocka_unit_test(text_that_is_not_canonical),
    cmocka_unit_test(text_with_wrong_fields),
    cmocka_unit_test(text_cut_at_every_byte),
    cmocka_unit_test(paths_that_leave_the_folder),
    cmocka_unit_test(tree_has_the_roots_of_the_reference),
    cmocka_unit_test(equal_folders_have_equal_manifests),
    cmocka_unit_test(folder_must_fit_the_list),
    cmocka_unit_test(manifest_may_lie_in_its_folder),
    cmocka_unit_test(links_and_special_files_are_refused),
    cmocka_unit_test(a_file_that_becomes_a_link),
    cmocka_unit_test(subfolders_are_listed),
    cmocka_unit_test(one_bit_in_any_chunk),
    cmocka_unit_test(swapped_shards),
    cmocka_unit_test(small_files_that_change),
    cmocka_unit_test(checkpoint_reads_are_proven),
    cmocka_unit_test(checkpoint_headers_are_proven),
    cmocka_unit_test(a_manifest_that_is_too_large),
    cmocka_unit_test(an_empty_folder_has_no_manifest),
};

UNIT_MAIN(tests)
