/* Reports: JSON that comes back as it was, bad files refused with their place, texts and pages in
 * which foreign words stay words, loads side by side. */
#include "tests/unit/unit.h"

#include "base/buf.h"
#include "cli/load_report_private.h"
#include "tests/unit/cli/load_runs.h"

static char folder[] = "/tmp/load_report_XXXXXX";

static const char *path_of(const char *name)
{
    static char path[2][200];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"a.json", "b.json", "page.html"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        unlink(path_of(names[i]));
    return rmdir(folder);
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static char *read_file(const char *name)
{
    char *data;
    size_t len;
    assert_int_equal(file_read_all(path_of(name), 1 << 24, &data, &len, NULL), OK);
    return data;
}

/* A run of each mode, with everything that a record may have. */
static void make_report(struct load_report *report)
{
    *report = (struct load_report){.slo = {0.5, INFINITY, 2.0}};
    strcpy(report->program, "witan 0.1.0");
    strcpy(report->command, "witan bench --url 'a b'");
    report->runs = check_calloc(2, sizeof *report->runs);
    report->count = 2;
    struct load_run *a = &report->runs[0], *b = &report->runs[1];
    *a = run_make("concurrency 2");
    run_add(a, -300, 0, CHUNKS(5, 9), 2)->warm_up = true;
    run_add(a, 0, 0, CHUNKS(20, 30, 45), 3)->cached_tokens = 4;
    run_add(a, 1, 0, CHUNKS(10), 1)->usage = false;
    struct load_record *bad = run_add(a, 50, 0, NULL, 0, 0);
    strcpy(bad->error, "http: <b>\xff\x1b[31m\"x\"");
    bad->http_status = 503;
    a->energy_j = 12.5;
    a->interrupted = true;
    strcpy(a->server, "http://127.0.0.1/ <script>alert(1)</script>\x1b[2J\xc2\x9b");
    *b = run_make("4.5 requests/s");
    b->mode = LOAD_OPEN;
    b->rate = 4.5;
    b->seed = UINT64_MAX;
    b->held_back = 3;
    run_add(b, 10, 10, CHUNKS(100, 150), 2);
}

static struct load_report read_report(const char *name)
{
    struct load_report r;
    struct error err;
    if (load_report_read_json(path_of(name), &r, &err) != OK)
        fail_msg("%s", err.msg);
    return r;
}

static void write_report(const struct load_report *r, const char *name)
{
    struct error err;
    if (load_report_write_json(r, path_of(name), &err) != OK)
        fail_msg("%s", err.msg);
}

/* Times from the run's begin; in a file they are nothing else. */
static void assert_same_record(const struct load_run *a, const struct load_run *b, size_t i)
{
    const struct load_record *x = &a->records[i], *y = &b->records[i];
    assert_int_equal(x->intended_ns - a->began_ns, y->intended_ns - b->began_ns);
    assert_int_equal(x->sent_ns - a->began_ns, y->sent_ns - b->began_ns);
    assert_int_equal(x->chunks, y->chunks);
    assert_int_equal(x->first_ns == 0, y->first_ns == 0);
    for (int32_t c = 0; c < x->chunks; c++)
        assert_int_equal(x->chunk_ns[c] - a->began_ns, y->chunk_ns[c] - b->began_ns);
    if (x->chunks > 0) {
        assert_int_equal(y->first_ns, y->chunk_ns[0]);
        assert_int_equal(y->last_ns, y->chunk_ns[y->chunks - 1]);
    }
    assert_int_equal(x->prompt_tokens, y->prompt_tokens);
    assert_int_equal(x->output_tokens, y->output_tokens);
    assert_int_equal(x->cached_tokens, y->cached_tokens);
    assert_int_equal(x->http_status, y->http_status);
    assert_int_equal(x->warm_up, y->warm_up);
    assert_int_equal(x->usage, y->usage);
}

static void json_comes_back(void **state)
{
    struct load_report r, back;
    (void)state;
    make_report(&r);
    write_report(&r, "a.json");
    back = read_report("a.json");
    assert_string_equal(back.program, r.program);
    assert_string_equal(back.command, r.command);
    assert_memory_equal(&back.slo, &r.slo, sizeof r.slo);
    assert_int_equal(back.count, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct load_run *a = &r.runs[i], *b = &back.runs[i];
        assert_string_equal(b->label, a->label);
        assert_string_equal(b->dataset, a->dataset);
        assert_int_equal(b->mode, a->mode);
        assert_int_equal(b->seed, a->seed);
        assert_int_equal(b->held_back, a->held_back);
        assert_int_equal(b->interrupted, a->interrupted);
        assert_int_equal(b->start_unix_s, a->start_unix_s);
        assert_int_equal(b->ended_ns - b->began_ns, a->ended_ns - a->began_ns);
        assert_int_equal(b->count, a->count);
        for (size_t k = 0; k < a->count; k++)
            assert_same_record(a, b, k);
    }
    assert_int_equal(back.runs[0].concurrency, 2);
    assert_true(back.runs[1].rate > 4.49 && back.runs[1].rate < 4.51);
    assert_true(back.runs[0].energy_j > 12.4 && isnan(back.runs[1].energy_j));
    assert_string_equal(back.runs[0].records[3].error, "http: <b>\xef\xbf\xbd\x1b[31m\"x\"");
    load_report_fini(&back);
    load_report_fini(&r);
}

/* Written again it is the same file: nothing is lost, and the figures are made from the requests.
 */
static void json_is_stable(void **state)
{
    struct load_report r;
    (void)state;
    make_report(&r);
    write_report(&r, "a.json");
    load_report_fini(&r);
    r = read_report("a.json");
    write_report(&r, "b.json");
    load_report_fini(&r);
    char *a = read_file("a.json"), *b = read_file("b.json");
    assert_string_equal(a, b);
    assert_non_null(strstr(a, "\"goodput_requests_per_s\": "));
    free(a);
    free(b);
}

#define HEAD                                                                                       \
    "{\"schema\":\"witan-bench\",\"version\":1,\"program\":\"p\",\"command\":\"c\",\"runs\":["
#define RUN                                                                                        \
    "{\"label\":\"l\",\"mode\":\"closed\",\"concurrency\":1,\"seed\":1,\"dataset\":\"d\","         \
    "\"server\":\"s\",\"start_unix_s\":1,\"window_ns\":5,\"requests\":["
#define TIMES "{\"intended_ns\":0,\"sent_ns\":1,\"prompt_tokens\":1,\"output_tokens\":1,"

static void bad_files_are_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"[]", "expected an object, found an array"},
        {"{}", "schema"},
        {"{\"schema\":\"other\"}", "expected witan-bench, found other"},
        {"{\"schema\":\"witan-bench\",\"version\":2}", "version: expected 1, found 2"},
        {"{\"schema\":\"witan-bench\",\"version\":1,\"program\":\"p\",\"command\":\"c\"}",
         "runs: expected an array, found nothing"},
        {HEAD "1]}", "runs[0]"},
        {HEAD "{\"label\":\"l\",\"mode\":\"ajar\"}]}", "mode: expected closed or open, found ajar"},
        {HEAD "{\"label\":\"l\",\"mode\":\"closed\",\"concurrency\":0}]}", "concurrency"},
        {HEAD RUN "5]}]}", "runs[0]: requests[0]"},
        {HEAD RUN TIMES "\"first_ns\":0,\"last_ns\":9,\"gaps_ns\":[]}]}]}", "first_ns"},
        {HEAD RUN TIMES "\"first_ns\":5,\"last_ns\":4,\"gaps_ns\":[]}]}]}", "last_ns"},
        {HEAD RUN TIMES "\"first_ns\":5,\"gaps_ns\":[]}]}]}", "last_ns"},
        {HEAD RUN TIMES "\"first_ns\":5,\"last_ns\":9,\"gaps_ns\":[3]}]}]}", "found 1 ns less"},
        {HEAD RUN TIMES "\"first_ns\":5,\"last_ns\":9,\"gaps_ns\":[5]}]}]}", "end at last_ns"},
        {HEAD RUN TIMES "\"first_ns\":5,\"last_ns\":9,\"gaps_ns\":[-1,5]}]}]}", "from 0"},
        {HEAD RUN TIMES "\"first_ns\":5,\"last_ns\":9,\"gaps_ns\":[\"4\"]}]}]}", "integers"},
        {HEAD RUN TIMES "\"gaps_ns\":7}]}]}", "gaps_ns: expected an array"},
        {HEAD RUN TIMES "\"gaps_ns\":[7]}]}]}", "expected none where first_ns is absent, found 1"},
        {HEAD RUN TIMES "\"sent_ns\":2,\"gaps_ns\":[]}]}]}", "sent_ns"}, /* twice */
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct load_report r;
        struct error err;
        write_file("a.json", cases[i].text);
        assert_int_not_equal(load_report_read_json(path_of("a.json"), &r, &err), OK);
        if (!strstr(err.msg, cases[i].words) || !strstr(err.msg, "a.json"))
            fail_msg("case %zu: expected \"%s\", found \"%s\"", i, cases[i].words, err.msg);
    }
    write_file("a.json", HEAD RUN TIMES "\"first_ns\":5,\"last_ns\":9,\"gaps_ns\":[1,3]}]}]}");
    struct load_report good = read_report("a.json");
    assert_int_equal(good.runs[0].records[0].chunks, 3);
    load_report_fini(&good);
}

/* What `print` writes to a stream; the caller frees it. */
static char *text_of(void (*print)(FILE *out, const void *arg), const void *arg)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    print(out, arg);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void print_all(FILE *out, const void *arg)
{
    const struct load_report *r = arg;
    struct error err;
    load_report_text_head(out, r);
    for (size_t i = 0; i < r->count; i++)
        assert_int_equal(load_report_text_run(out, &r->runs[i], &r->slo, &err), OK);
    assert_int_equal(load_report_text_sweep(out, r, &err), OK);
}

static void text_says_it_all(void **state)
{
    static const char *const words[] = {
        "command   witan bench --url 'a b'\n",
        "requests                 2 of 3 succeeded, after warm-up\n",
        "goodput's bounds         TTFT <= 500 ms, E2E <= 2000 ms\n",
        "TTFT from send, ms            100.0",
        "E2E, ms                       160.0",
        "note: Interrupted",
        "note: The server does not say how many tokens",
        "note: 3 requests went out later",
        "note: 1 failed, http; one of them: http: <b>",
        "open loop, 4.5 requests/s",
        "latencies in ms",
    };
    struct load_report r;
    (void)state;
    make_report(&r);
    char *text = text_of(print_all, &r);
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (!strstr(text, words[i]))
            fail_msg("expected \"%s\" in\n%s", words[i], text);
    }
    assert_null(strchr(text, 0x1b)); /* no terminal is told anything */
    assert_null(strstr(text, "\xc2\x9b"));
    free(text);
    load_report_fini(&r);
}

static void print_cells(FILE *out, const void *arg)
{
    (void)arg;
    load_put_cell(out, "a\f\033\xc2\x9b", 6);
    fputc('|', out);
    load_put_cell(out, "\xc3\xa9t\xc3\xa9s", 3); /* cut between characters, not between bytes */
    fputc('|', out);
}

static void a_cell_has_its_width_and_no_control(void **state)
{
    (void)state;
    char *text = text_of(print_cells, NULL);
    assert_string_equal(text, "a???  |\xc3\xa9t\xc3\xa9|");
    free(text);
}

static void the_page_is_whole_and_alone(void **state)
{
    static const char *const never[] = {"<script", "href=", "src=", "url(", "@import",
                                        "<b>",     "\x1b",  "nan",  "-inf"};
    struct load_report r;
    struct error err;
    (void)state;
    make_report(&r);
    assert_int_equal(load_report_write_html(&r, path_of("page.html"), &err), OK);
    char *page = read_file("page.html");
    assert_non_null(strstr(page, "content=\"default-src 'none'; style-src 'unsafe-inline'"));
    assert_non_null(strstr(page, "&#60;script&#62;alert(1)"));
    assert_non_null(strstr(page, "</html>"));
    for (size_t i = 0; i < COUNT_OF(never); i++) {
        if (strstr(page, never[i]))
            fail_msg("expected no \"%s\", found \"%.60s\"", never[i], strstr(page, never[i]));
    }
    free(page);
    assert_int_not_equal(load_report_write_html(&r, path_of("none/page.html"), &err), OK);
    assert_non_null(strstr(err.msg, "none/page.html"));
    load_report_fini(&r);
}

static void commands_without_secrets(void **state)
{
    char words[200], small[10];
    char *argv[] = {"witan", "bench", "--api-key", "sk-1234", "--prompt", "it's", "", "a=b"};
    (void)state;
    load_report_command(8, argv, words, sizeof words);
    assert_string_equal(words, "witan bench --api-key ... --prompt 'it'\\''s' '' a=b");
    load_report_command(8, argv, small, sizeof small);
    assert_string_equal(small, "witan ben");
}

/* --- side by side --- */

/* One closed run whose answers take `scale` times as long. */
static struct load_report slower(int64_t scale, uint64_t seed)
{
    struct load_report r = {.slo = LOAD_SLO_NONE, .count = 1};
    r.runs = check_calloc(1, sizeof *r.runs);
    r.runs[0] = run_make("concurrency 2");
    r.runs[0].seed = seed;
    strcpy(r.program, "p");
    run_add(&r.runs[0], 0, 0, CHUNKS(10 * scale, 30 * scale, 50 * scale), 3);
    return r;
}

struct comparison {
    struct load_report reports[2];
    bool unlike;
    enum status st;
    struct error err;
};

static void print_comparison(FILE *out, const void *arg)
{
    static const char *const names[] = {"ours.json", "peer.json"};
    struct comparison *c = (struct comparison *)arg;
    c->st = load_report_compare(out, c->reports, names, 2, c->unlike, &c->err);
}

static char *compare(struct comparison *c)
{
    char *text = text_of(print_comparison, c);
    load_report_fini(&c->reports[0]);
    load_report_fini(&c->reports[1]);
    return text;
}

static void ratios_of_the_same_load(void **state)
{
    struct comparison c = {.reports = {slower(1, 7), slower(3, 7)}};
    (void)state;
    char *text = compare(&c);
    assert_int_equal(c.st, OK);
    assert_non_null(strstr(text, "A  ours.json: p; "));
    assert_non_null(strstr(text, "TTFT p50, ms                  10.00      30.00    3.000\n"));
    assert_non_null(strstr(text, "ITL p99, ms                   20.00      60.00    3.000\n"));
    assert_non_null(strstr(text, "output tokens/s               60.00      20.00    0.333\n"));
    assert_null(strstr(text, "goodput")); /* no bounds, no line */
    free(text);
}

static void other_loads_are_refused(void **state)
{
    struct comparison c = {.reports = {slower(1, 7), slower(3, 8)}};
    (void)state;
    char *text = compare(&c);
    assert_int_equal(c.st, ERR_INVALID);
    assert_string_equal(text, ""); /* nothing is said before it is known */
    assert_non_null(strstr(c.err.msg, "peer.json: concurrency 2: expected the seed 7, found 8"));
    assert_non_null(strstr(c.err.msg, "--different-workloads"));
    free(text);
    c = (struct comparison){.reports = {slower(1, 7), slower(2, 7)}};
    c.reports[1].runs[0].concurrency = 3;
    free(compare(&c));
    assert_non_null(strstr(c.err.msg, "expected a run of \"concurrency 2\", found none"));
    c = (struct comparison){.reports = {slower(1, 7), slower(2, 7)}};
    strcpy(c.reports[1].runs[0].dataset, "other");
    free(compare(&c));
    assert_non_null(strstr(c.err.msg, "found \"other\""));
    c = (struct comparison){.reports = {slower(1, 7), slower(2, 7)}};
    run_add(&c.reports[1].runs[0], 0, 0, CHUNKS(1), 1);
    free(compare(&c));
    assert_non_null(strstr(c.err.msg, "expected as many requests"));
}

static void no_page_of_other_loads(void **state)
{
    static const char *const names[] = {"ours.json", "<peer>.json"};
    struct load_report r[] = {slower(1, 7), slower(3, 8)};
    struct error err;
    (void)state;
    unlink(path_of("page.html")); /* an earlier case's */
    assert_int_equal(load_report_compare_html(path_of("page.html"), r, names, 2, false, &err),
                     ERR_INVALID);
    assert_int_not_equal(access(path_of("page.html"), F_OK), 0);
    assert_int_equal(load_report_compare_html(path_of("page.html"), r, names, 2, true, &err), OK);
    char *page = read_file("page.html");
    assert_non_null(strstr(page, "&#60;peer&#62;.json: p; "));
    assert_non_null(strstr(page, "<td>10.00</td><td>30.00</td><td>3.000</td>"));
    free(page);
    load_report_fini(&r[0]);
    load_report_fini(&r[1]);
}

static void other_loads_when_asked(void **state)
{
    struct comparison c = {.reports = {slower(1, 7), slower(2, 8)}, .unlike = true};
    (void)state;
    c.reports[1].runs[0].concurrency = 5; /* single runs are paired all the same */
    char *text = compare(&c);
    assert_int_equal(c.st, OK);
    assert_non_null(strstr(text, "TTFT p50, ms                  10.00      20.00    2.000\n"));
    assert_non_null(strstr(text, "seed 8"));
    free(text);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(json_comes_back),
    cmocka_unit_test(json_is_stable),
    cmocka_unit_test(bad_files_are_refused),
    cmocka_unit_test(text_says_it_all),
    cmocka_unit_test(a_cell_has_its_width_and_no_control),
    cmocka_unit_test(the_page_is_whole_and_alone),
    cmocka_unit_test(commands_without_secrets),
    cmocka_unit_test(ratios_of_the_same_load),
    cmocka_unit_test(other_loads_are_refused),
    cmocka_unit_test(no_page_of_other_loads),
    cmocka_unit_test(other_loads_when_asked),
};

int main(int argc, char **argv)
{
    (void)shared_path;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
