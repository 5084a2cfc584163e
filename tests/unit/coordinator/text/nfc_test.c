/* Normalisation form C as of Unicode 9.0, and the flags it goes by. */
#include "tests/unit/unit.h"

#include "coordinator/text/nfc.h"
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include <stdbool.h>

struct fixture {
    struct nfc_scratch scratch;
    struct buf out;
    uint8_t *flags;
};

static void setup(struct fixture *f)
{
    nfc_scratch_init(&f->scratch);
    buf_init(&f->out, 64 << 20);
    assert_int_equal(unicode_flags_create(&f->flags, NULL), OK);
}

static void teardown(struct fixture *f)
{
    nfc_scratch_fini(&f->scratch);
    buf_fini(&f->out);
    free(f->flags);
}

static void normalise(struct fixture *f, const char *text, size_t len)
{
    struct error err = {0};
    buf_clear(&f->out);
    if (nfc_append(&f->out, &f->scratch, f->flags, text, len, &err) != OK)
        fail_msg("%s", err.msg);
}

/* Pairs worked out by hand from the Unicode Character Database. */
static void text_is_composed_and_reordered(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {"plain ASCII", "plain ASCII"},
        {"e\u0301", "\u00E9"},
        {"\u0301e", "\u0301e"},                  /* a mark with nothing before it */
        {"q\u0307\u0323", "q\u0323\u0307"},      /* reordered, nothing to compose */
        {"a\u0302\u0323", "\u1EAD"},             /* reordered, then composed twice */
        {"\u212B\u2126\u212A", "\u00C5\u03A9K"}, /* singletons */
        {"\u0344", "\u0308\u0301"},              /* a mark that is two marks */
        {"\u0958", "\u0915\u093C"},              /* excluded from composition */
        {"\u0915\u093C", "\u0915\u093C"},        /* so it stays apart */
        {"\u2ADC", "\u2ADD\u0338"},              /* decomposes only */
        {"\u1100\u1161\u11A8", "\uAC01"},        /* Hangul */
        {"\uAC00\u11A8", "\uAC01"},              /* a syllable and a last consonant */
        {"\uAC01\u11A8", "\uAC01\u11A8"},        /* already has one */
        {"\u09C7\u09BE", "\u09CB"},              /* the second part is a starter */
        {"a\u0327\u0301", "\u00E1\u0327"},       /* composes past a lower class */
        {"a\u0301\u0302", "\u00E1\u0302"},       /* the second is blocked by none, but no pair */
        {"\uF900\U0002F800", "\u8C48\u4E3D"},    /* compatibility ideographs */
        {"\u05D1\u05BC\u05B0", "\u05D1\u05B0\u05BC"},
    };
    struct fixture f;
    setup(&f);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        normalise(&f, pairs[i][0], strlen(pairs[i][0]));
        if (strcmp(f.out.data ? f.out.data : "", pairs[i][1]) != 0)
            fail_msg("case %zu: expected \"%s\", found \"%s\"", i, pairs[i][1], f.out.data);
    }
    teardown(&f);
}

/* What came after Unicode 9.0 counts as unassigned: the text does not change. */
static void later_characters_stay_as_they_are(void **state)
{
    (void)state;
    static const char *const same[] = {
        "\U000105D2\u0307",     /* composes since Unicode 16 */
        "\U000105C9",           /* decomposes since 16 */
        "\U000113B8\U000113C9", /* 16 */
        "a\u0315\u1DF6",        /* a class below the one before it since 10 */
        "a\u0315\u0897",        /* 16 */
        "\U00011935\U00011930", /* 13 */
    };
    struct fixture f;
    setup(&f);
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        normalise(&f, same[i], strlen(same[i]));
        assert_string_equal(f.out.data, same[i]);
    }
    teardown(&f);
}

/* And they keep apart what would meet without them. */
static void later_characters_are_boundaries(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    static const char text[] = "a\u1DF6\u0302\u0323 e\u0301";
    normalise(&f, text, strlen(text));
    assert_string_equal(f.out.data, "a\u1DF6\u0323\u0302 \u00E9");
    teardown(&f);
}

static void normal_form_is_its_own_normal_form(void **state)
{
    (void)state;
    struct fixture f;
    struct buf once;
    setup(&f);
    buf_init(&once, 1 << 20);
    uint64_t random = 7;
    for (int round = 0; round < 5000; round++) {
        char text[200];
        size_t len = 0;
        while (len < 150) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint32_t c = (uint32_t)(random >> 40) % (random >> 63 ? 0x400 : 0x20000);
            if (c < 0xD800 || c > 0xDFFF)
                len += utf8_encode(c, text + len);
        }
        normalise(&f, text, len);
        buf_clear(&once);
        assert_int_equal(buf_append(&once, f.out.data, f.out.len, NULL), OK);
        normalise(&f, once.data, once.len);
        assert_int_equal(f.out.len, once.len);
        assert_memory_equal(f.out.data, once.data, once.len);
    }
    buf_fini(&once);
    teardown(&f);
}

/* utf8proc's own reordering would take hours here. */
static void a_huge_run_of_marks_takes_linear_time(void **state)
{
    (void)state;
    enum { BYTES = 4 << 20 };
    struct fixture f;
    setup(&f);
    char *text = malloc(BYTES);
    assert_non_null(text);
    for (size_t i = 0; i < BYTES; i += 2)
        memcpy(text + i, i < BYTES / 2 ? "\u0301" : "\u0323", 2);
    normalise(&f, text, BYTES);
    assert_int_equal(f.out.len, BYTES);
    assert_memory_equal(f.out.data, "\u0323", 2);
    assert_memory_equal(f.out.data + BYTES - 2, "\u0301", 2);
    free(text);
    teardown(&f);
}

static void ranges_are_sorted_and_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < unicode_range_count; i++) {
        const struct unicode_range *r = &unicode_ranges[i];
        assert_true(r->first <= r->last && r->last < UNICODE_CODE_POINTS);
        assert_true(r->flags > 0 && r->flags < 32);
        assert_true(i == 0 || r[-1].last < r->first);
    }
}

/* The vectors of Unicode's table 3-8, and of what browsers and Rust agree on. */
static void bad_utf8_becomes_one_replacement_a_maximal_part(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"a\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41",
         "a\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41",
         "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42",
         "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41\uFFFD\uFFFD\x42"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
        {"\xF0\x9F\x98", "\uFFFD"},
        {"\xF4\x8F\xBF\xBF\xEF\xBF\xBF", "\U0010FFFF\uFFFF"},
    };
    struct buf out;
    buf_init(&out, 1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf_clear(&out);
        assert_int_equal(utf8_append_lossy(&out, cases[i][0], strlen(cases[i][0]), NULL), OK);
        if (strcmp(out.data ? out.data : "", cases[i][1]) != 0)
            fail_msg("case %zu: found \"%s\"", i, out.data);
    }
    buf_fini(&out);
}

static void every_code_point_survives_utf8(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < UNICODE_CODE_POINTS; c++) {
        char bytes[4];
        size_t n = utf8_encode(c, bytes);
        size_t i = 0;
        assert_int_equal(utf8_decode(bytes, &i), c);
        assert_int_equal(i, n);
        bool surrogate = c >= 0xD800 && c < 0xE000;
        assert_int_equal(utf8_valid_prefix(bytes, n), surrogate ? 0 : n);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(text_is_composed_and_reordered),
    cmocka_unit_test(later_characters_stay_as_they_are),
    cmocka_unit_test(later_characters_are_boundaries),
    cmocka_unit_test(normal_form_is_its_own_normal_form),
    cmocka_unit_test(a_huge_run_of_marks_takes_linear_time),
    cmocka_unit_test(ranges_are_sorted_and_apart),
    cmocka_unit_test(bad_utf8_becomes_one_replacement_a_maximal_part),
    cmocka_unit_test(every_code_point_survives_utf8),
};

UNIT_MAIN(tests)
