/* GET /metrics: what is counted, the text that it becomes, read strictly, and the dashboard that
 * shows it. */
#include "tests/unit/coordinator/cluster.h"
#include "tests/unit/coordinator/exposition.h"

#include "base/json.h"

static struct exposition page;

static const int64_t MS = 1000000;

static void read_metrics(const struct metrics *m)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    struct metrics_page p = {.out = &b};
    metrics_write(&p, m);
    assert_int_equal(p.status, OK);
    exposition_read(&page, b.data);
    buf_fini(&b);
}

/* --- counting --- */

static void requests_are_timed(void **state)
{
    (void)state;
    struct metrics m;
    struct metrics_request r, cut;
    metrics_init(&m);
    metrics_begin(&m, &r, 100, 1000 * MS);
    metrics_begin(&m, &cut, 3, 1000 * MS);
    metrics_tokens(&m, &r, 1, 1150 * MS); /* the first after 0.15 s */
    metrics_tokens(&m, &r, 0, 1160 * MS); /* no token */
    metrics_tokens(&m, &r, 1, 1160 * MS); /* 10 ms */
    metrics_tokens(&m, &r, 3, 1220 * MS); /* 20 ms each */
    metrics_tokens(&m, &cut, 1, 1300 * MS);
    metrics_end(&m, &r, METRICS_STOP, 1500 * MS);
    metrics_end(&m, &cut, METRICS_CANCELLED, 1500 * MS);
    read_metrics(&m);
    assert_true(exposition_of(&page, "witan_requests_finished_total{reason=\"stop\"}") == 1);
    assert_true(exposition_of(&page, "witan_requests_finished_total{reason=\"cancelled\"}") == 1);
    assert_true(exposition_of(&page, "witan_requests_finished_total{reason=\"length\"}") == 0);
    assert_true(exposition_of(&page, "witan_prompt_tokens_total") == 103);
    assert_true(exposition_of(&page, "witan_generated_tokens_total") == 6);
    assert_true(exposition_of(&page, "witan_time_to_first_token_seconds_count") == 2);
    assert_true(fabs(exposition_of(&page, "witan_time_to_first_token_seconds_sum") - 0.45) < 1e-9);
    assert_true(exposition_of(&page, "witan_time_to_first_token_seconds_bucket{le=\"0.1\"}") == 0);
    assert_true(exposition_of(&page, "witan_time_to_first_token_seconds_bucket{le=\"0.2\"}") == 1);
    assert_true(exposition_of(&page, "witan_time_to_first_token_seconds_bucket{le=\"0.5\"}") == 2);
    assert_true(exposition_of(&page, "witan_inter_token_latency_seconds_count") == 4);
    assert_true(exposition_of(&page, "witan_inter_token_latency_seconds_bucket{le=\"0.01\"}") == 1);
    assert_true(fabs(exposition_of(&page, "witan_inter_token_latency_seconds_sum") - 0.07) < 1e-9);
    /* One answer came to its end: 70 ms over 4 tokens after the first, 0.5 s in all, 5 tokens. */
    assert_true(exposition_of(&page, "witan_time_per_output_token_seconds_count") == 1);
    assert_true(fabs(exposition_of(&page, "witan_time_per_output_token_seconds_sum") - 0.0175) <
                1e-9);
    assert_true(fabs(exposition_of(&page, "witan_request_seconds_sum") - 0.5) < 1e-9);
    assert_true(exposition_of(&page, "witan_request_generated_tokens_sum") == 5);
    assert_true(exposition_of(&page, "witan_request_prompt_tokens_bucket{le=\"64\"}") == 1);
    assert_true(exposition_of(&page, "witan_request_prompt_tokens_bucket{le=\"128\"}") == 2);
}

static void answers_are_counted_by_status(void **state)
{
    (void)state;
    struct metrics m;
    metrics_init(&m);
    metrics_http(&m, 200);
    metrics_http(&m, 429);
    metrics_http(&m, 429);
    metrics_http(&m, -1); /* no status of HTTP's */
    metrics_http(&m, 600);
    metrics_grpc(&m, 8);
    metrics_grpc(&m, 17);
    m.refused[METRICS_LIMIT_WAITING] = 3;
    read_metrics(&m);
    assert_true(exposition_of(&page, "witan_http_responses_total{code=\"200\"}") == 1);
    assert_true(exposition_of(&page, "witan_http_responses_total{code=\"429\"}") == 2);
    assert_true(exposition_of(&page, "witan_grpc_calls_total{code=\"8\"}") == 1);
    assert_true(exposition_of(&page, "witan_requests_refused_total{limit=\"waiting\"}") == 3);
    assert_false(exposition_has(&page, "witan_http_responses_total{code=\"404\"}"));
}

/* --- the text --- */

static void labels_are_escaped(void **state)
{
    (void)state;
    struct metrics_labels l = {0};
    char *full;
    metrics_label(&l, "a", "x\"y\\z\nw");
    metrics_label(&l, "b", "");
    metrics_label_int(&l, "c", -7);
    assert_string_equal(l.text, "a=\"x\\\"y\\\\z\\nw\",b=\"\",c=\"-7\"");
    /* What has no room is left out whole, at every length. */
    for (size_t n = 400; n < 600; n++) {
        struct metrics_labels before = {0};
        full = check_calloc(n + 1, 1);
        memset(full, n % 2 ? '"' : 'x', n);
        metrics_label(&before, "first", "1");
        metrics_label(&before, "long", full);
        assert_int_equal(before.len, strlen(before.text));
        assert_memory_equal(before.text, "first=\"1\"", 9);
        if (before.len > 9)
            assert_true(before.text[before.len - 1] == '"' && before.len >= n);
        metrics_label(&before, "d", "2");
        assert_true(before.len < sizeof before.text);
        free(full);
    }
}

static void numbers_are_read_back_as_they_were(void **state)
{
    (void)state;
    static const double values[] = {0,      1,    0.1,      1.0 / 3, 1e-5, 123456789012345.0,
                                    5e-324, 1e22, INFINITY, 0.3,     2.5,  1e300};
    struct buf b;
    buf_init(&b, 1 << 16);
    struct metrics_page p = {.out = &b};
    metrics_family(&p, "x", METRICS_GAUGE, "Any number.");
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        struct metrics_labels l = {0};
        metrics_label_int(&l, "i", (int64_t)i);
        metrics_sample(&p, &l, values[i]);
    }
    assert_int_equal(p.status, OK);
    assert_non_null(strstr(b.data, "x{i=\"2\"} 0.1\n"));
    exposition_read(&page, b.data);
    for (size_t i = 0; i < COUNT_OF(values); i++)
        assert_true(page.series[i].value == values[i]);
    buf_fini(&b);
}

static void a_page_that_does_not_fit_says_so(void **state)
{
    (void)state;
    struct metrics m;
    struct buf b;
    metrics_init(&m);
    buf_init(&b, 1000);
    struct metrics_page p = {.out = &b};
    metrics_write(&p, &m);
    assert_int_equal(p.status, ERR_LIMIT);
    buf_fini(&b);
}

/* --- the page --- */

struct request {
    struct cluster *c;
    struct generation *g;
    bool ended;
};

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    (void)user, (void)part, (void)text, (void)len;
}

static void on_end(void *user, const struct generation_end *end)
{
    (void)end;
    ((struct request *)user)->ended = true;
}

static const struct generation_sink sink = {.on_text = on_text, .on_end = on_end};

static void start(void *arg)
{
    static const int32_t prompt[] = {65, 66, 67};
    struct request *q = arg;
    struct error err;
    const struct generation_params p = {
        .prompt = prompt, .prompt_len = 3, .max_tokens = 5, .sampling = {.top_p = 1}};
    if (generation_start(q->c->core, &p, &sink, q, &q->g, &err) != OK)
        fail_msg("%s", err.msg);
}

static void take_page(void *arg)
{
    struct cluster *c = arg;
    struct buf b;
    struct error err;
    buf_init(&b, METRICS_MAX_PAGE_BYTES);
    if (metrics_page(c->core, &b, &err) != OK)
        fail_msg("%s", err.msg);
    exposition_read(&page, b.data);
    buf_fini(&b);
}

/* Until a series has this value. */
static void wait_page(struct cluster *c, const char *series, double value)
{
    for (int i = 0; i < 3000; i++) {
        on_loop(c, take_page, c);
        if (exposition_has(&page, series) && exposition_of(&page, series) == value)
            return;
        usleep(1000);
    }
    fail_msg("%s does not become %g", series, value);
}

static void say_engine(struct fake_rank *r)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat beat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__Engine e = WITAN__CLUSTER__V1__ENGINE__INIT;
    Witan__Cluster__V1__Histogram step = WITAN__CLUSTER__V1__HISTOGRAM__INIT;
    Witan__Cluster__V1__Histogram broken = WITAN__CLUSTER__V1__HISTOGRAM__INIT;
    double bounds[] = {0.5, 1};
    uint64_t counts[] = {3, 2, 1};
    step.bounds = bounds, step.n_bounds = 2;
    step.counts = counts, step.n_counts = 3;
    step.sum = 4.25;
    broken.bounds = bounds, broken.n_bounds = 2;
    e.forward_seconds = 12.5;
    e.collective_seconds = 2.5;
    e.prompt_rows = 1000;
    e.decode_rows = 400;
    e.preempted = 7;
    e.prefix_asked = 900;
    e.prefix_found = 300;
    e.kv_blocks_cached = 20;
    e.guessed = 50;
    e.guessed_right = 30;
    e.prompt_step_seconds = &step;
    e.decode_step_seconds = &broken;
    beat.step = 99;
    beat.running = 4;
    beat.waiting = 2;
    beat.kv_blocks = 64;
    beat.kv_blocks_free = 30;
    beat.engine = &e;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    fake_send(r, &m);
}

static void assert_series(const char *series, double value)
{
    double found = exposition_of(&page, series);
    if (found != value)
        fail_msg("%s: expected %g, found %g", series, value, found);
}

/* The same figures, as `witan status` has them. */
static void check_status(void *arg)
{
    struct cluster *c = arg;
    Witan__Inference__V1__GetStatusResponse *s = check_calloc(1, sizeof *s);
    witan__inference__v1__get_status_response__init(s);
    members_status(c->core->members, s);
    assert_int_equal(s->groups[0]->preempted, 7);
    assert_int_equal(s->groups[0]->kv_blocks_cached, 20);
    assert_true(fabs(s->groups[0]->prefix_hit_rate - 1.0 / 3) < 1e-9);
    witan__inference__v1__get_status_response__free_unpacked(s, NULL);
}

static void the_page_shows_a_known_load(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct request q[2];
    const int32_t ids[] = {70, 71};
    cluster_start(&c, "limits: {context: 64, failover_timeout_s: 60}\n");
    on_loop(&c, take_page, &c); /* a page of nothing is a page */
    assert_series("witan_group_ready{group=\"g0\"}", 0);
    assert_series("witan_ready", 0);
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 2; i++) {
        q[i] = (struct request){.c = &c};
        on_loop(&c, start, &q[i]);
    }
    const Witan__Cluster__V1__CoordinatorMessage *m = fake_next(&r);
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, 0, ids, 2,
                    WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    wait_page(&c, "witan_requests_finished_total{reason=\"length\"}", 1);
    say_engine(&r);
    wait_page(&c, "witan_rank_steps_total{group=\"g0\",rank=\"0\"}", 99);
    assert_series("witan_ready", 1);
    assert_series("witan_group_ready{group=\"g0\"}", 1);
    assert_series("witan_requests_running", 1);
    assert_series("witan_group_requests{group=\"g0\"}", 1);
    assert_series("witan_prompt_tokens_total", 6);
    assert_series("witan_generated_tokens_total", 2);
    assert_series("witan_time_to_first_token_seconds_count", 1);
    assert_series("witan_sequences_running{group=\"g0\"}", 4);
    assert_series("witan_sequences_waiting{group=\"g0\"}", 2);
    assert_series("witan_kv_blocks{group=\"g0\",state=\"used\"}", 34);
    assert_series("witan_kv_blocks{group=\"g0\",state=\"cached\"}", 20);
    assert_series("witan_kv_blocks{group=\"g0\",state=\"free\"}", 10);
    assert_series("witan_kv_blocks_capacity{group=\"g0\"}", 64);
    assert_series("witan_preemptions_total{group=\"g0\"}", 7);
    assert_series("witan_prefix_asked_tokens_total{group=\"g0\"}", 900);
    assert_series("witan_prefix_found_tokens_total{group=\"g0\"}", 300);
    assert_series("witan_guessed_right_tokens_total{group=\"g0\"}", 30);
    assert_series("witan_step_rows_total{group=\"g0\",phase=\"prompt\"}", 1000);
    assert_series("witan_step_rows_total{group=\"g0\",phase=\"decode\"}", 400);
    assert_series("witan_step_seconds_bucket{group=\"g0\",phase=\"prompt\",le=\"0.5\"}", 3);
    assert_series("witan_step_seconds_bucket{group=\"g0\",phase=\"prompt\",le=\"1\"}", 5);
    assert_series("witan_step_seconds_bucket{group=\"g0\",phase=\"prompt\",le=\"+Inf\"}", 6);
    assert_series("witan_step_seconds_sum{group=\"g0\",phase=\"prompt\"}", 4.25);
    assert_false(exposition_has(&page, "witan_step_seconds_count{group=\"g0\",phase=\"decode\"}"));
    assert_series("witan_forward_seconds_total{group=\"g0\",rank=\"0\"}", 12.5);
    assert_series("witan_collective_seconds_total{group=\"g0\",rank=\"0\"}", 2.5);
    assert_false(exposition_has(&page, "witan_gpu_xid_errors_total{group=\"g0\",rank=\"0\"}"));
    assert_true(exposition_of(&page, "process_resident_memory_bytes") > 1 << 20);
    assert_true(exposition_of(&page, "process_open_fds") > 3);
    on_loop(&c, check_status, &c);
    fake_release(&r);
    wait_page(&c, "witan_requests_held", 1);
    assert_series("witan_group_losses_total{group=\"g0\"}", 1);
    assert_series("witan_group_failed_starts_total{group=\"g0\"}", 0);
    assert_series("witan_group_hangs_total{group=\"g0\",kind=\"rank_silent\"}", 0);
    assert_series("witan_group_restarting{group=\"g0\"}", 0);
    fake_serve(&c, &r);
    m = fake_next(&r);
    fake_say_tokens(&r, m->submit->request_id, 2, m->submit->epoch, 0, ids, 2,
                    WITAN__CLUSTER__V1__FINISH__FINISH_ERROR);
    wait_page(&c, "witan_requests_finished_total{reason=\"error\"}", 1);
    assert_series("witan_requests_running", 0);
    assert_series("witan_requests_held", 0);
    assert_series("witan_requests_resumed_total", 1);
    assert_series("witan_failover_seconds_count", 1);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    cluster_stop(&c);
}

/* --- the dashboard --- */

static bool has_family(const char *name, size_t len)
{
    static const char *const suffixes[] = {"", "_bucket", "_sum", "_count"};
    for (int i = 0; i < page.family_count; i++)
        for (size_t k = 0; k < COUNT_OF(suffixes); k++) {
            const char *f = page.families[i];
            bool histogram = strcmp(page.types[i], "histogram") == 0;
            size_t n = strlen(f);
            if (histogram == (k > 0) && n + strlen(suffixes[k]) == len &&
                strncmp(name, f, n) == 0 && strncmp(name + n, suffixes[k], len - n) == 0)
                return true;
        }
    return false;
}

/* Every word of an expression that is one of ours must be there; returns how many were. */
static int check_expression(const char *expr)
{
    int found = 0;
    for (const char *at = expr; *at;) {
        size_t len = 0;
        while (isalnum((unsigned char)at[len]) || at[len] == '_')
            len++;
        if (len > 6 && (strncmp(at, "witan_", 6) == 0 || strncmp(at, "process_", 8) == 0)) {
            if (!has_family(at, len))
                fail_msg("no metric %.*s, which deploy/grafana.json shows", (int)len, at);
            found++;
        }
        at += len > 0 ? len : 1;
    }
    return found;
}

/* Has a sample of this name that label? True of one that has no samples on this page. */
static bool has_label(const char *name, size_t len, const char *label, size_t label_len)
{
    bool any = false;
    for (int i = 0; i < page.count; i++) {
        const char *s = page.series[i].name;
        if (strncmp(s, name, len) != 0 || (s[len] != '\0' && s[len] != '{'))
            continue;
        any = true;
        for (const char *at = s + len; (at = strstr(at, "=\"")); at++) {
            const char *from = at - label_len;
            if (from > s + len && (from[-1] == '{' || from[-1] == ',') &&
                strncmp(from, label, label_len) == 0)
                return true;
        }
    }
    return !any;
}

/* A metric of the expression has that label, unless Prometheus itself puts it there. */
static void check_label(const char *expr, const char *label, size_t len)
{
    static const char *const own[] = {"job", "instance"};
    for (size_t i = 0; i < COUNT_OF(own); i++)
        if (strlen(own[i]) == len && strncmp(label, own[i], len) == 0)
            return;
    for (const char *at = expr; *at;) {
        size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
        if (has_family(at, n) && has_label(at, n, label, len))
            return;
        at += n > 0 ? n : 1;
    }
    fail_msg("%s: no metric with a label %.*s", expr, (int)len, label);
}

/* Words between `begin` and `end`, wherever these are in `text`. */
static void check_labels(const char *expr, const char *text, const char *begin, char end)
{
    for (const char *at = text; (at = strstr(at, begin));) {
        at += strlen(begin);
        while (*at && *at != end) {
            size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
            if (n > 0)
                check_label(expr, at, n);
            at += n > 0 ? n : 1;
        }
    }
}

/* Whose one rank runs and has told of its engine, so that there are samples. */
static void take_served_page(void)
{
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "limits: {context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    say_engine(&r);
    wait_page(&c, "witan_rank_steps_total{group=\"g0\",rank=\"0\"}", 99);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    cluster_stop(&c);
}

static void the_dashboard_shows_what_there_is(void **state)
{
    (void)state;
    struct error err;
    char *text = NULL;
    size_t len = 0, i, k;
    json_t *root = NULL, *panel, *target;
    take_served_page();
    if (file_read_all(WITAN_SOURCE_DIR "/deploy/grafana.json", 1 << 20, &text, &len, &err) != OK ||
        json_parse("deploy/grafana.json", text, len, &root, &err) != OK)
        fail_msg("%s", err.msg);
    assert_true(json_integer_value(json_object_get(root, "schemaVersion")) >= 36);
    assert_true(json_is_string(json_object_get(root, "uid")));
    const json_t *variables = json_object_get(json_object_get(root, "templating"), "list");
    assert_string_equal(json_string_value(json_object_get(json_array_get(variables, 0), "type")),
                        "datasource");
    json_int_t ids[64];
    size_t id_count = 0;
    json_array_foreach(json_object_get(root, "panels"), i, panel)
    {
        json_int_t id = json_integer_value(json_object_get(panel, "id"));
        for (k = 0; k < id_count; k++)
            assert_true(ids[k] != id);
        assert_true(id > 0 && id_count < COUNT_OF(ids));
        ids[id_count++] = id;
        assert_true(json_is_object(json_object_get(panel, "gridPos")));
        assert_true(json_is_string(json_object_get(panel, "title")));
        if (strcmp(json_string_value(json_object_get(panel, "type")), "row") == 0)
            continue;
        assert_string_equal(
            json_string_value(json_object_get(json_object_get(panel, "datasource"), "uid")),
            "${datasource}");
        assert_true(json_array_size(json_object_get(panel, "targets")) > 0);
        json_array_foreach(json_object_get(panel, "targets"), k, target)
        {
            const char *expr = json_string_value(json_object_get(target, "expr"));
            assert_non_null(expr);
            if (check_expression(expr) == 0)
                fail_msg("%s: no metric of ours", expr);
            const char *legend = json_string_value(json_object_get(target, "legendFormat"));
            assert_non_null(legend);
            check_labels(expr, expr, "by (", ')');
            check_labels(expr, legend, "{{", '}');
        }
    }
    assert_true(id_count > 10);
    json_decref(root);
    free(text);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(requests_are_timed),
    cmocka_unit_test(answers_are_counted_by_status),
    cmocka_unit_test(labels_are_escaped),
    cmocka_unit_test(numbers_are_read_back_as_they_were),
    cmocka_unit_test(a_page_that_does_not_fit_says_so),
    cmocka_unit_test(the_page_shows_a_known_load),
    cmocka_unit_test(the_dashboard_shows_what_there_is),
};

UNIT_MAIN(tests)
