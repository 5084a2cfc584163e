/* coordinator/audit: the writer, and what keeps it from writing. */
#include "tests/unit/coordinator/audit_folder.h"

#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { PATIENCE = 30000 }; /* milliseconds: of a machine that does much else */

static void wait_durable(struct audit *a, uint64_t ticket)
{
    for (int i = 0; i < PATIENCE && !audit_is_durable(a, ticket); i++)
        usleep(1000);
    assert_true(audit_is_durable(a, ticket));
}

static void wait_failing(struct audit *a, bool failing)
{
    for (int i = 0; i < PATIENCE && audit_figures(a).failing != failing; i++)
        usleep(1000);
    assert_int_equal(audit_figures(a).failing, failing);
}

static uint64_t number(struct audit *a, int n)
{
    return audit_event(a, "number", json_pack("{s:i}", "n", n));
}

static void nothing_without_a_log(void **state)
{
    (void)state;
    char hex[65];
    struct error err;
    assert_int_equal(audit_event(NULL, "number", json_object()), 0);
    assert_true(audit_is_durable(NULL, 0));
    assert_int_equal(audit_admit(NULL, &err), OK);
    assert_false(audit_hmac_ids(NULL, "prompt", NULL, 0, hex));
    assert_int_equal(audit_figures(NULL).records, 0);
    audit_awake(NULL);
    audit_close(NULL);
}

static void a_log_is_a_signed_chain(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    struct audit *a = audit_folder_open(&f);
    for (int i = 0; i < 100; i++)
        wait_durable(a, i % 10 == 0 ? number(a, i) : (number(a, i), 0));
    audit_close(a);
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "number", NULL), 100);
    assert_int_equal(kinds(&f, "chain", NULL), 1);
    assert_int_equal(kinds(&f, "stop", NULL), 1);
    assert_true(sum.signed_heads >= 2); /* at the beginning and at the end */
    assert_int_equal(sum.signed_heads, sum.second_heads);
    assert_int_equal(sum.unsigned_since, 0);
    assert_int_equal(sum.last_seq + 1, sum.lines);
    struct stat s;
    assert_int_equal(stat(f.log, &s), 0);
    assert_int_equal(s.st_mode & 07, 0); /* not for everybody */
    audit_folder_remove(&f);
}

static void a_chain_goes_on_after_a_restart(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    for (int i = 0; i < 4; i++) {
        struct audit *a = audit_folder_open(&f);
        number(a, i);
        audit_close(a);
    }
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "chain", NULL), 1);
    assert_int_equal(kinds(&f, "number", NULL), 4);
    audit_folder_remove(&f);
}

struct crowd {
    struct audit *a;
    int from;
};

static void *join_crowd(void *arg)
{
    struct crowd *c = arg;
    uint64_t last = 0;
    for (int i = 0; i < 500; i++)
        last = number(c->a, c->from + i);
    wait_durable(c->a, last);
    return NULL;
}

static void many_threads_write_one_chain(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    struct audit *a = audit_folder_open(&f);
    struct crowd crowd[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        crowd[i] = (struct crowd){a, 1000 * i};
        assert_int_equal(pthread_create(&threads[i], NULL, join_crowd, &crowd[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    audit_close(a);
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "number", NULL), 2000);
    audit_folder_remove(&f);
}

static void fields_that_are_none(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    json_t *fields = NULL;
    struct audit *a = audit_folder_open(&f);
    char *wide = malloc(2 * AUDIT_MAX_FIELDS);
    memset(wide, 'x', 2 * AUDIT_MAX_FIELDS);
    audit_event(a, "broken", json_pack("{s:s}", "name", "\xff\xfe"));
    audit_event(a, "wide", json_pack("{s:s%}", "name", wide, (size_t)(2 * AUDIT_MAX_FIELDS - 1)));
    audit_event(a, "reals", json_pack("{s:f, s:f}", "a", 0.7, "b", 1e-300));
    audit_close(a);
    free(wide);
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "broken", &fields), 1);
    assert_non_null(json_object_get(fields, "error"));
    assert_int_equal(kinds(&f, "wide", &fields), 1);
    assert_non_null(json_object_get(fields, "error"));
    assert_int_equal(kinds(&f, "reals", &fields), 1);
    assert_true(json_real_value(json_object_get(fields, "a")) == 0.7);
    json_decref(fields);
    audit_folder_remove(&f);
}

/* --- a crash ---------------------------------------------------------------------------------- */

static void append(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void a_torn_tail_is_cut_and_recorded(void **state)
{
    (void)state;
    static const char zeros[9000];
    const struct {
        const char *tail;
        size_t len;
    } tails[] = {{"{\"fields\":{\"n\":1},\"ki", 21}, {zeros, sizeof zeros}, {"}", 1}};
    for (size_t i = 0; i < 3; i++) {
        struct audit_folder f = audit_folder_make();
        struct audit_summary sum;
        json_t *fields = NULL;
        audit_close(audit_folder_open(&f));
        append(f.log, tails[i].tail, tails[i].len);
        assert_true(verify(&f, true, &sum).count > 0);
        audit_close(audit_folder_open(&f));
        is_sound(&f, &sum);
        assert_int_equal(kinds(&f, "recovered", &fields), 1);
        assert_int_equal(json_integer_value(json_object_get(fields, "bytes")), tails[i].len);
        json_decref(fields);
        audit_folder_remove(&f);
    }
}

static void a_first_record_that_broke_off(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    append(f.log, "{\"fields\":{\"chain\":\"00", 21);
    audit_close(audit_folder_open(&f));
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "recovered", NULL), 1);
    audit_folder_remove(&f);
}

static void what_cannot_be_continued(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_options o = audit_folder_options(&f);
    struct audit *a = NULL;
    struct error err;
    char *text;
    size_t len;
    folder_puts(&f.files, "audit.jsonl", "a file of somebody's");
    SAYS(audit_open(&o, &a, &err), ERR_INVALID, &err, "found another file");
    folder_puts(&f.files, "audit.jsonl", "a file of somebody's\nwith lines\nand no end");
    SAYS(audit_open(&o, &a, &err), ERR_INVALID, &err, "cannot be continued");
    done(file_read_all(f.log, 1 << 20, &text, &len, &err), &err);
    assert_string_equal(text, "a file of somebody's\nwith lines\nand no end"); /* left alone */
    free(text);
    unlink(f.log);
    o.file = f.files.path;
    assert_int_not_equal(audit_open(&o, &a, &err), OK);
    o.file = "/dev/full";
    SAYS(audit_open(&o, &a, &err), ERR_INVALID, &err, "expected a file");
    o.file = "/nowhere/at/all";
    SAYS(audit_open(&o, &a, &err), ERR_NOT_FOUND, &err, "audit.file: /nowhere/at/all");
    assert_null(a);
    audit_folder_remove(&f);
}

/* The log ends before what the second file has the head of. */
static void a_log_that_was_cut_is_not_continued(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_options o = audit_folder_options(&f);
    struct audit *a = NULL;
    struct error err;
    char *text;
    size_t len;
    audit_close(audit_folder_open(&f));
    done(file_read_all(f.log, 1 << 20, &text, &len, &err), &err);
    assert_int_equal(truncate(f.log, strchr(text, '\n') - text + 1), 0);
    SAYS(audit_open(&o, &a, &err), ERR_CONFLICT, &err, "records were removed");
    unlink(f.log);
    SAYS(audit_open(&o, &a, &err), ERR_CONFLICT, &err, "records were removed");
    free(text);
    /* Another log's second file. */
    unlink(f.heads);
    unlink(f.log);
    struct audit_folder other = audit_folder_make();
    audit_close(audit_folder_open(&other));
    for (int i = 0; i < 3; i++)
        audit_close(audit_folder_open(&f));
    o.heads = other.heads;
    SAYS(audit_open(&o, &a, &err), ERR_CONFLICT, &err, "another log's");
    audit_folder_remove(&other);
    audit_folder_remove(&f);
}

static void keys_that_will_not_do(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_options o = audit_folder_options(&f);
    struct audit *a = NULL;
    struct error err;
    assert_int_equal(chmod(f.key, 0644), 0);
    SAYS(audit_open(&o, &a, &err), ERR_INVALID, &err, "audit.key: ");
    assert_int_equal(chmod(f.key, 0600), 0);
    o.key = f.pem;
    assert_int_equal(chmod(f.pem, 0600), 0);
    SAYS(audit_open(&o, &a, &err), ERR_INVALID, &err, "private key");
    o.key = f.key;
    assert_int_equal(chmod(f.hmac, 0644), 0);
    SAYS(audit_open(&o, &a, &err), ERR_INVALID, &err, "audit.hmac_key: ");
    assert_int_equal(chmod(f.hmac, 0600), 0);
    folder_puts(&f.files, "hmac", "0123\n");
    SAYS(audit_open(&o, &a, &err), ERR_INVALID, &err, "expected 64 hex digits");
    SAYS(audit_hmac_key_make(f.hmac, &err), ERR_INVALID, &err, "expected nothing, found a file");
    assert_null(a);
    audit_folder_remove(&f);
}

/* --- two writers ------------------------------------------------------------------------------ */

static void another_process_writes_it(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_options o = audit_folder_options(&f);
    struct audit *a = NULL;
    struct error err;
    char pid[32], byte = 0;
    int ready[2], end[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t child = fork();
    if (child == 0) {
        bool opened = audit_open(&o, &a, &err) == OK;
        if (write(ready[1], opened ? "y" : "n", 1) != 1 || read(end[0], &byte, 1) != 1)
            _exit(1);
        audit_close(a);
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    SAYS(audit_open(&o, &a, &err), ERR_CONFLICT, &err, "each coordinator needs a log of its own");
    snprintf(pid, sizeof pid, "process %ld", (long)child);
    assert_non_null(strstr(err.msg, pid));
    assert_int_equal(write(end[1], "e", 1), 1);
    int code = -1;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    done(audit_open(&o, &a, &err), &err);
    audit_close(a);
    struct audit_summary sum;
    is_sound(&f, &sum);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(end[i]);
    }
    audit_folder_remove(&f);
}

/* --- a full disk ------------------------------------------------------------------------------ */

static atomic_int woken;

static void wake(void *arg)
{
    (void)arg;
    atomic_fetch_add(&woken, 1);
}

static void wait_woken(int times)
{
    for (int i = 0; i < PATIENCE && atomic_load(&woken) < times; i++)
        usleep(1000);
    assert_true(atomic_load(&woken) >= times);
}

static void a_full_disk_refuses(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_options o = audit_folder_options(&f);
    struct audit *a = NULL;
    struct audit_summary sum;
    struct error err;
    log_set_level(LOG_ERROR + 1);
    o.wake = wake;
    done(audit_open(&o, &a, &err), &err);
    wait_durable(a, number(a, 0));
    wait_woken(1);
    audit_awake(a);
    audit_bound_files((uint64_t)file_size(f.log) + 100);
    uint64_t ticket = number(a, 1);
    wait_failing(a, true);
    assert_false(audit_is_durable(a, ticket));
    SAYS(audit_admit(a, &err), ERR_IO, &err, "File too large");
    assert_non_null(strstr(err.msg, f.log));
    assert_non_null(strstr(err.msg, "audit.on_error: refuse"));
    wait_woken(2);
    number(a, 2);
    audit_bound_files(0);
    wait_failing(a, false);
    wait_durable(a, ticket);
    assert_int_equal(audit_admit(a, &err), OK);
    assert_int_equal(audit_figures(a).lost, 0);
    audit_close(a);
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "number", NULL), 3); /* none was lost */
    audit_folder_remove(&f);
}

static void a_full_disk_with_continue_counts(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_options o = audit_folder_options(&f);
    struct audit *a = NULL;
    struct audit_summary sum;
    struct error err;
    json_t *fields = NULL;
    log_set_level(LOG_ERROR + 1);
    o.on_error = AUDIT_CONTINUE;
    done(audit_open(&o, &a, &err), &err);
    wait_durable(a, number(a, 0));
    audit_bound_files((uint64_t)file_size(f.log) + 100);
    number(a, 1);
    wait_failing(a, true);
    assert_int_equal(audit_admit(a, &err), OK);
    assert_true(audit_is_durable(a, number(a, 2)));
    uint64_t lost = 0, last = 0;
    for (int i = 0; i < AUDIT_MAX_QUEUED + 100; i++) {
        uint64_t ticket = number(a, i);
        lost += ticket == AUDIT_LOST;
        last = ticket == AUDIT_LOST ? last : ticket;
    }
    assert_in_range(lost, 90, 110);
    assert_int_equal(audit_figures(a).lost, lost);
    assert_true(audit_is_durable(a, AUDIT_LOST)); /* requests go on */
    audit_bound_files(0);
    wait_failing(a, false);
    wait_durable(a, last);
    wait_durable(a, number(a, 3));
    audit_close(a);
    is_sound(&f, &sum);
    assert_int_equal(kinds(&f, "lost", &fields), 1);
    assert_int_equal(json_integer_value(json_object_get(fields, "records")), lost);
    json_decref(fields);
    audit_folder_remove(&f);
}

/* What never came to the disk is said when the process ends; a restart goes on. */
static void ending_on_a_full_disk(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_summary sum;
    log_set_level(LOG_ERROR + 1);
    struct audit *a = audit_folder_open(&f);
    wait_durable(a, number(a, 0));
    audit_bound_files((uint64_t)file_size(f.log) + 100);
    number(a, 1);
    wait_failing(a, true);
    audit_close(a);
    audit_bound_files(0);
    audit_close(audit_folder_open(&f));
    is_sound(&f, &sum);
    audit_folder_remove(&f);
}

/* --- the clock -------------------------------------------------------------------------------- */

static atomic_llong fake_wall, fake_mono;

static void fake_now(struct audit_time *out)
{
    out->wall_ms = atomic_load(&fake_wall);
    out->mono_ms = atomic_load(&fake_mono);
}

static void step(struct audit *a, int64_t wall, int64_t mono, int n)
{
    atomic_fetch_add(&fake_wall, wall);
    atomic_fetch_add(&fake_mono, mono);
    wait_durable(a, number(a, n));
}

static void a_clock_that_jumps_is_recorded(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_options o = audit_folder_options(&f);
    struct audit *a = NULL;
    struct audit_summary sum;
    struct error err;
    json_t *fields = NULL;
    log_set_level(LOG_ERROR + 1);
    o.now = fake_now;
    atomic_store(&fake_wall, 1790000000000);
    atomic_store(&fake_mono, 5000);
    done(audit_open(&o, &a, &err), &err);
    step(a, 60000, 60000, 0); /* a minute, by both */
    step(a, 1500, 100, 1);    /* within bounds */
    assert_int_equal(kinds(&f, "clock", NULL), 0);
    step(a, -10000, 10, 2);
    assert_int_equal(kinds(&f, "clock", &fields), 1);
    assert_int_equal(json_integer_value(json_object_get(fields, "drift_ms")), -10010);
    assert_int_equal(json_integer_value(json_object_get(fields, "wall_ms")), -10000);
    step(a, 3600000, 10, 3);
    assert_int_equal(kinds(&f, "clock", &fields), 2);
    assert_int_equal(json_integer_value(json_object_get(fields, "drift_ms")), 3599990);
    audit_close(a);
    /* And over a restart: behind the last record's time. */
    atomic_fetch_sub(&fake_wall, 7200000);
    done(audit_open(&o, &a, &err), &err);
    wait_durable(a, number(a, 4));
    audit_close(a);
    assert_int_equal(kinds(&f, "clock", &fields), 3);
    json_decref(fields);
    is_sound(&f, &sum);
    audit_folder_remove(&f);
}

/* --- HMACs ------------------------------------------------------------------------------------ */

static void hmacs_are_of_ids_under_the_key(void **state)
{
    (void)state;
    struct audit_folder f = audit_folder_make();
    struct audit_hmac_key key;
    struct error err;
    char first[65], second[65];
    const int32_t ids[] = {1, 2, 70000}, others[] = {1, 2, 70001};
    folder_puts(&f.files, "hmac",
                "0000000000000000000000000000000000000000000000000000000000000001\n");
    done(audit_hmac_key_read(f.hmac, &key, &err), &err);
    done(audit_hmac(&key, "prompt", ids, 3, first, &err), &err);
    /* printf 'witan audit prompt 1\n\1\0\0\0\2\0\0\0\160\21\1\0' | openssl mac -digest SHA256
     *     -macopt hexkey:00...01 HMAC */
    assert_string_equal(first, "232787cc65753a31f848ba367f121c54a4e5fc92121e2d0ac9077090854fc52c");
    struct audit *a = audit_folder_open(&f);
    assert_true(audit_hmac_ids(a, "prompt", ids, 3, second));
    assert_string_equal(first, second);
    assert_true(audit_hmac_ids(a, "prompt", others, 3, second));
    assert_string_not_equal(first, second);
    assert_true(audit_hmac_ids(a, "output", ids, 3, second));
    assert_string_not_equal(first, second);
    audit_close(a);
    audit_folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(nothing_without_a_log),
    cmocka_unit_test(a_log_is_a_signed_chain),
    cmocka_unit_test(a_chain_goes_on_after_a_restart),
    cmocka_unit_test(many_threads_write_one_chain),
    cmocka_unit_test(fields_that_are_none),
    cmocka_unit_test(a_torn_tail_is_cut_and_recorded),
    cmocka_unit_test(a_first_record_that_broke_off),
    cmocka_unit_test(what_cannot_be_continued),
    cmocka_unit_test(a_log_that_was_cut_is_not_continued),
    cmocka_unit_test(keys_that_will_not_do),
    cmocka_unit_test(another_process_writes_it),
    cmocka_unit_test(a_full_disk_refuses),
    cmocka_unit_test(a_full_disk_with_continue_counts),
    cmocka_unit_test(ending_on_a_full_disk),
    cmocka_unit_test(a_clock_that_jumps_is_recorded),
    cmocka_unit_test(hmacs_are_of_ids_under_the_key),
};

UNIT_MAIN(tests)
