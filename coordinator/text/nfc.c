/*
 * NFC: see nfc.h. Text is cut into stretches: a run of characters marked UNICODE_NFC_CHECK with the
 * character before it, which they may compose with. Nothing outside a stretch changes, and nothing
 * in it depends on what is outside. utf8proc gives decompositions, classes and compositions; the
 * canonical reordering is done here, since utf8proc's is quadratic in the length of a run of marks.
 */
#include "coordinator/text/nfc.h"
#include "coordinator/text/unicode.h"
#include "coordinator/text/utf8.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* No canonical decomposition of one character is longer (UAX 15, table "Maximum Expansion"). */
enum { MAX_EXPANSION = 4, CLASSES = 256, SHORT_RUN = 16 };

void nfc_scratch_init(struct nfc_scratch *s)
{
    *s = (struct nfc_scratch){0};
}

void nfc_scratch_fini(struct nfc_scratch *s)
{
    free(s->points);
    free(s->sorted);
    *s = (struct nfc_scratch){0};
}

static enum status reserve(struct nfc_scratch *s, size_t count, struct error *err)
{
    if (count <= s->cap)
        return OK;
    nfc_scratch_fini(s);
    s->points = malloc(count * sizeof *s->points);
    s->sorted = malloc(count * sizeof *s->sorted);
    if (!s->points || !s->sorted) {
        nfc_scratch_fini(s);
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu code points", count);
    }
    s->cap = count;
    return OK;
}

static unsigned combining_class(int32_t point)
{
    return (unsigned)utf8proc_get_property(point)->combining_class & (CLASSES - 1);
}

/* Both sort stably by combining class a run that holds no starter: by insertion, which is quick for
 * the runs of real text, and by counting, which is linear. */
static void reorder_short(int32_t *run, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        int32_t point = run[i];
        unsigned class = combining_class(point);
        size_t at = i;
        for (; at > 0 && combining_class(run[at - 1]) > class; at--)
            run[at] = run[at - 1];
        run[at] = point;
    }
}

static void reorder_long(int32_t *run, int32_t *sorted, size_t n)
{
    size_t start[CLASSES + 1] = {0};
    for (size_t i = 0; i < n; i++)
        start[combining_class(run[i]) + 1]++;
    for (size_t c = 0; c < CLASSES; c++)
        start[c + 1] += start[c];
    for (size_t i = 0; i < n; i++)
        sorted[start[combining_class(run[i])]++] = run[i];
    memcpy(run, sorted, n * sizeof *run);
}

static void reorder(int32_t *points, int32_t *sorted, size_t n)
{
    size_t i = 0;
    while (i < n) {
        if (combining_class(points[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n && combining_class(points[end]) != 0)
            end++;
        if (end - i <= SHORT_RUN)
            reorder_short(points + i, end - i);
        else
            reorder_long(points + i, sorted, end - i);
        i = end;
    }
}

static enum status append_stretch(struct buf *out, struct nfc_scratch *s, const char *text,
                                  size_t len, struct error *err)
{
    TRY(reserve(s, MAX_EXPANSION * len, err)); /* at most one code point a byte */
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        int32_t point = (int32_t)utf8_decode(text, &i);
        int boundary = 0;
        utf8proc_ssize_t k = utf8proc_decompose_char(
            point, s->points + n, (utf8proc_ssize_t)(s->cap - n), UTF8PROC_DECOMPOSE, &boundary);
        CHECK(k > 0 && (size_t)k <= s->cap - n, "U+%04X decomposes to %lld", (unsigned)point,
              (long long)k);
        n += (size_t)k;
    }
    reorder(s->points, s->sorted, n);
    utf8proc_ssize_t composed = utf8proc_normalize_utf32(s->points, (utf8proc_ssize_t)n,
                                                         UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    CHECK(composed >= 0 && (size_t)composed <= n, "composing %zu gave %lld", n,
          (long long)composed);
    for (size_t i = 0; i < (size_t)composed; i++) {
        char bytes[4];
        TRY(buf_append(out, bytes, utf8_encode((uint32_t)s->points[i], bytes), err));
    }
    return OK;
}

enum status nfc_append(struct buf *out, struct nfc_scratch *s, const uint8_t *flags,
                       const char *text, size_t len, struct error *err)
{
    size_t copied = 0;   /* all before is in `out` */
    size_t previous = 0; /* where the last character before `i` begins */
    bool joins = false;  /* whether it may compose with the one at `i` */
    size_t i = 0;
    while (i < len) {
        size_t at = i;
        unsigned f = flags[utf8_decode(text, &i)];
        if (!(f & UNICODE_NFC_CHECK)) {
            previous = at;
            joins = !(f & UNICODE_NFC_NEW);
            continue;
        }
        size_t begin = joins ? previous : at;
        size_t end = i;
        while (end < len && flags[utf8_decode(text, &i)] & UNICODE_NFC_CHECK)
            end = i;
        TRY(buf_append(out, text + copied, begin - copied, err));
        TRY(append_stretch(out, s, text + begin, end - begin, err));
        copied = end;
        i = end;
        joins = false; /* what follows is not marked, so it is a boundary */
    }
    return buf_append(out, text + copied, len - copied, err);
}
