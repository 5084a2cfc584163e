/* Verifying an audit log: see audit_check.h. */
#include "coordinator/audit_check.h"
#include "base/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line as far as its neighbours need it. */
struct seen {
    bool there, good; /* good: a record */
    int64_t line, seq;
    struct digest prev, own;
    bool chain, head, signed_head; /* its kind; a head whose signature is good */
    bool judged;                   /* something was found about it already */
};

struct second_head {
    int64_t seq, line;
    struct digest own;
};

struct audit_check {
    const struct audit_trust *trust;
    void (*tell)(void *arg, const struct audit_finding *f);
    void *arg;
    struct audit_summary sum;
    struct seen base; /* the last record that is taken to belong */
    struct seen at;   /* the line to be judged, once the next is known */
    int64_t bad;      /* lines since `base` that are no records */
    char why[400];    /* of `at`, where it is none */
    int64_t second_lines;
    struct second_head *second; /* [second_count], by seq */
    int64_t second_count, second_cap, second_next;
};

static void find(struct audit_check *c, int64_t line, int64_t seq, bool heads, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

static void find(struct audit_check *c, int64_t line, int64_t seq, bool heads, const char *fmt, ...)
{
    char words[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    c->sum.findings++;
    struct audit_finding f = {.line = line, .seq = seq, .heads = heads, .what = words};
    if (c->tell)
        c->tell(c->arg, &f);
}

/* --- heads ------------------------------------------------------------------------------------
 */

static const char *text_of(const struct audit_record *r, const char *key)
{
    const char *s = json_string_value(json_object_get(r->fields, key));
    return s ? s : "";
}

/* Of a head: is it of this chain, and signed? */
static bool head_is_good(struct audit_check *c, const struct audit_record *r, int64_t line,
                         bool second)
{
    const char *chain = text_of(r, "chain"), *key = text_of(r, "key");
    if (!second && *c->sum.chain && strcmp(chain, c->sum.chain) != 0) {
        find(c, line, r->seq, second, "a head of another chain (%.32s)", chain);
        return false;
    }
    if (!c->trust)
        return false;
    char *text = audit_head_text(r->root);
    enum audit_trusted t = text ? audit_trust_check(c->trust, key, text, text_of(r, "signature"))
                                : AUDIT_BROKEN;
    free(text);
    if (t == AUDIT_STRANGER)
        find(
            c, line, r->seq, second,
            "a head signed by a key that is not trusted (%.16s...): give --trust its .pem if it is",
            key);
    else if (t == AUDIT_BROKEN)
        find(
            c, line, r->seq, second,
            "a head whose signature does not fit: this record was changed, or key %.16s... has not "
            "signed it",
            key);
    return t == AUDIT_SIGNED;
}

static enum status keep_second(struct audit_check *c, const struct audit_record *r,
                               struct error *err)
{
    if (c->second_count == AUDIT_MAX_HEADS)
        return error_set(err, ERR_LIMIT, "expected at most %d heads, found more",
                         (int)AUDIT_MAX_HEADS);
    if (c->second_count == c->second_cap) {
        int64_t cap = c->second_cap > 0 ? 2 * c->second_cap : 256;
        struct second_head *more = realloc(c->second, (size_t)cap * sizeof *more);
        if (!more)
            return error_set(err, ERR_NO_MEMORY, "no memory for %lld heads", (long long)cap);
        c->second = more;
        c->second_cap = cap;
    }
    c->second[c->second_count++] = (struct second_head){
        .seq = r->seq, .line = c->second_lines, .own = r->own};
    return OK;
}

enum status audit_check_second(struct audit_check *c, const char *line, size_t len, bool whole,
                               struct error *err)
{
    struct audit_record r;
    struct error why;
    int64_t at = ++c->second_lines;
    enum status st = OK;
    if (!whole) {
        find(c, at, -1, true, "its last line broke off");
        return OK;
    }
    if (audit_line_read("second file", line, len, &r, &why) != OK) {
        find(c, at, -1, true, "no record: it was changed: %s", why.msg);
        return OK;
    }
    int64_t last = c->second_count > 0 ? c->second[c->second_count - 1].seq : -1;
    if (strcmp(r.kind, "head") != 0)
        find(c, at, r.seq, true, "expected a head, found a record of another kind");
    else if (r.seq <= last)
        find(c, at, r.seq, true, "heads out of order: %lld follows %lld", (long long)r.seq,
             (long long)last);
    else if (!c->trust || head_is_good(c, &r, at, true))
        st = keep_second(c, &r, err);
    json_decref(r.root);
    return st;
}

/* What the second file knows of the log up to, and with, this record. */
static void compare_second(struct audit_check *c, const struct seen *s)
{
    while (c->second_next < c->second_count && c->second[c->second_next].seq <= s->seq) {
        const struct second_head *h = &c->second[c->second_next++];
        if (h->seq == s->seq && digest_equal(&h->own, &s->own))
            c->sum.second_heads++;
        else if (h->seq == s->seq)
            find(c, s->line, s->seq, false,
                 "changed: line %lld of the second file has this head otherwise",
                 (long long)h->line);
        else
            find(c, s->line, h->seq, false,
                 "missing before it: head %lld, which the second file has in line %lld",
                 (long long)h->seq, (long long)h->line);
    }
}

/* --- the chain --------------------------------------------------------------------------------
 */

/* By seq and hash. */
static bool follows(const struct seen *a, const struct seen *b)
{
    return a->good && b->good && b->seq == a->seq + 1 && digest_equal(&b->prev, &a->own);
}

/* It belongs to the log, in this place, or stands for what does. */
static void take(struct audit_check *c, const struct seen *s)
{
    c->base = *s;
    c->bad = 0;
    c->sum.last_seq = s->seq;
    compare_second(c, s);
}

/* `s` has the next number and names another line before it than there is: which of the two was
 * changed? */
static void blame_change(struct audit_check *c, struct seen *s, const struct seen *next)
{
    bool itself = next->good && next->seq == s->seq + 1 && !follows(s, next);
    if (c->base.judged || s->judged)
        return; /* said already */
    if (itself && !s->signed_head) {
        find(c, s->line, s->seq, false, "changed: the records beside it do not name it");
        s->judged = true;
    } else {
        find(c, c->base.line, c->base.seq, false,
             "changed: line %lld names another SHA-256 of the line before it", (long long)s->line);
    }
}

/* A record that does not have the next number. */
static void blame_order(struct audit_check *c, struct seen *s, const struct seen *next)
{
    int64_t expected = c->base.seq + 1;
    if (c->bad == 0 && next->good && next->seq == expected + 1 && !follows(s, next)) {
        find(c, s->line, expected, false,
             "changed: record %lld stands in the place of record %lld (moved, or its number "
             "changed)",
             (long long)s->seq, (long long)expected);
        s->seq = expected;
        s->judged = true;
    } else if (s->seq > expected && c->bad == 0)
        find(c, s->line, expected, false,
             "missing before it: records %lld to %lld (removed, or moved)", (long long)expected,
             (long long)s->seq - 1);
    else if (s->seq > expected + c->bad)
        find(c, s->line, expected + c->bad, false, "missing before it: records up to %lld",
             (long long)s->seq - 1);
    else if (s->seq < expected)
        find(c, s->line, s->seq, false,
             "out of order: record %lld follows record %lld (repeated, moved or put in)",
             (long long)s->seq, (long long)c->base.seq);
}

static bool is_first(const struct seen *s)
{
    static const struct digest zero;
    return s->seq == 0 && s->chain && digest_equal(&s->prev, &zero);
}

/* The first record of the log. */
static void judge_first(struct audit_check *c, struct seen *s, const struct seen *next)
{
    if (!is_first(s) && next->good && is_first(next)) {
        find(c, s->line, s->seq, false, "put in before the record that begins the chain");
        return;
    }
    if (s->seq > 0)
        find(
            c, s->line, 0, false,
            "missing before it: records 0 to %lld: the beginning was cut off, or this is a part of "
            "a log",
            (long long)s->seq - 1);
    else if (!is_first(s))
        find(c, s->line, 0, false,
             "changed: expected the record that begins a chain (kind chain, prev of zeros)");
    s->judged = !is_first(s);
    take(c, s);
}

/* `next` may be absent or no record. */
static void judge(struct audit_check *c, struct seen *s, const struct seen *next)
{
    if (!s->good) {
        find(c, s->line, c->base.there ? c->base.seq + 1 + c->bad : 0, false,
             "no record: changed, or put in: %s", c->why);
        c->bad++;
        return;
    }
    if (!c->base.there) {
        judge_first(c, s, next);
        return;
    }
    if (follows(&c->base, s)) {
        take(c, s);
        return;
    }
    if (follows(&c->base, next)) {
        find(c, s->line, s->seq, false, "put in: the line behind it follows the line before it");
        return;
    }
    bool same = s->seq == c->base.seq && digest_equal(&s->prev, &c->base.prev);
    if (same) {
        find(c, c->base.line, s->seq, false,
             "two records are number %lld, lines %lld and %lld: one was put in", (long long)s->seq,
             (long long)c->base.line, (long long)s->line);
    } else if (s->seq == c->base.seq + 1 && c->bad == 0) {
        blame_change(c, s, next);
    } else if (s->seq != c->base.seq + 1) {
        blame_order(c, s, next);
    }
    take(c, s);
}

/* --- lines ------------------------------------------------------------------------------------
 */

static void note_place(struct seen *s, const struct audit_record *r)
{
    s->good = true;
    s->seq = r->seq;
    s->prev = r->prev;
    s->own = r->own;
    s->chain = strcmp(r->kind, "chain") == 0;
    s->head = strcmp(r->kind, "head") == 0;
}

static void note_record(struct audit_check *c, struct seen *s, const struct audit_record *r)
{
    if (s->chain && !*c->sum.chain)
        snprintf(c->sum.chain, sizeof c->sum.chain, "%s", text_of(r, "chain"));
    snprintf(c->sum.last_time, sizeof c->sum.last_time, "%s", r->time);
    c->sum.unsigned_since++;
    if (!s->head)
        return;
    c->sum.heads++;
    int64_t before = c->sum.findings;
    s->signed_head = head_is_good(c, r, s->line, false);
    s->judged = c->sum.findings > before;
    c->sum.signed_heads += s->signed_head;
    if (s->signed_head || !c->trust)
        c->sum.unsigned_since = 0;
}

void audit_check_line(struct audit_check *c, const char *line, size_t len, bool whole)
{
    struct seen next = {.there = true, .line = ++c->sum.lines};
    struct audit_record r = {0};
    struct error why;
    char reason[sizeof c->why] = "";
    if (!whole)
        snprintf(reason, sizeof reason,
                 "the file ends within it: a crash, or its end was cut off (the coordinator's next "
                 "start cuts the rest off and records that)");
    else if (audit_line_read("it", line, len, &r, &why) != OK)
        snprintf(reason, sizeof reason, "%.390s", why.msg);
    else
        note_place(&next, &r);
    if (c->at.there)
        judge(c, &c->at, &next);
    if (next.good)
        note_record(c, &next, &r);
    json_decref(r.root);
    c->at = next;
    memcpy(c->why, reason, sizeof reason);
}

enum status audit_check_begin(const struct audit_trust *trust,
                              void (*tell)(void *arg, const struct audit_finding *f), void *arg,
                              struct audit_check **out, struct error *err)
{
    struct audit_check *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, ERR_NO_MEMORY, "no memory");
    c->trust = trust;
    c->tell = tell;
    c->arg = arg;
    c->sum.last_seq = -1;
    *out = c;
    return OK;
}

void audit_check_end(struct audit_check *c, struct audit_summary *out)
{
    struct seen none = {0};
    if (!c)
        return;
    if (c->at.there)
        judge(c, &c->at, &none);
    else
        find(c, 1, 0, false, "the log is empty");
    for (; c->second_next < c->second_count; c->second_next++)
        if (c->second[c->second_next].seq > c->sum.last_seq) {
            const struct second_head *h = &c->second[c->second_count - 1];
            find(c, c->sum.lines, c->sum.last_seq + 1, false,
                 "cut off behind this line: the second file has the head of record %lld (its line "
                 "%lld), and the log ends with record %lld",
                 (long long)h->seq, (long long)h->line, (long long)c->sum.last_seq);
            break;
        }
    if (c->trust && c->sum.signed_heads == 0)
        find(c, c->sum.lines, -1, false, "no head in it is signed by a trusted key");
    *out = c->sum;
    free(c->second);
    free(c);
}

/* --- files ------------------------------------------------------------------------------------
 */

/* A line that is longer than a record may be is handed on with as many bytes as show that. */
static enum status read_lines(FILE *f, const char *path,
                              enum status (*fn)(void *arg, const char *line, size_t len, bool whole,
                                                struct error *err),
                              void *arg, struct error *err)
{
    enum { MOST = AUDIT_MAX_LINE + 1 };
    char *line = malloc(MOST);
    size_t len = 0;
    enum status st = line ? OK : error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    int ch = 0;
    while (st == OK && (ch = getc_unlocked(f)) != EOF) {
        if (ch != '\n') {
            if (len < MOST)
                line[len++] = (char)ch;
            continue;
        }
        st = fn(arg, line, len, true, err);
        len = 0;
    }
    if (st == OK && ferror(f))
        st = error_errno(err, errno, "%s", path);
    else if (st == OK && len > 0)
        st = fn(arg, line, len, false, err);
    free(line);
    return st;
}

enum status audit_each_line(const char *path,
                            enum status (*fn)(void *arg, const char *line, size_t len, bool whole,
                                              struct error *err),
                            void *arg, struct error *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return error_errno(err, errno, "%s", path);
    enum status st = read_lines(f, path, fn, arg, err);
    fclose(f);
    return st;
}

static enum status on_second(void *arg, const char *line, size_t len, bool whole, struct error *err)
{
    return audit_check_second(arg, line, len, whole, err);
}

static enum status on_line(void *arg, const char *line, size_t len, bool whole, struct error *err)
{
    (void)err;
    audit_check_line(arg, line, len, whole);
    return OK;
}

enum status audit_verify(const char *file, const char *heads, const struct audit_trust *trust,
                         void (*tell)(void *arg, const struct audit_finding *f), void *arg,
                         struct audit_summary *out, struct error *err)
{
    struct audit_check *c = NULL;
    TRY(audit_check_begin(trust, tell, arg, &c, err));
    enum status st = heads ? audit_each_line(heads, on_second, c, err) : OK;
    if (st == OK)
        st = audit_each_line(file, on_line, c, err);
    if (st != OK) {
        c->tell = NULL;
        audit_check_end(c, out);
        return st;
    }
    audit_check_end(c, out);
    return OK;
}
