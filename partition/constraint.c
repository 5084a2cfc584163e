/* What an answer must be, byte by byte: see constraint.h. No state of its own. */
#include "partition/constraint_private.h"

#include <string.h>

static const char OPEN_TAG[] = "<think>", CLOSE_TAG[] = "</think>";
enum { OPEN_BYTES = sizeof OPEN_TAG - 1, CLOSE_BYTES = sizeof CLOSE_TAG - 1 };

static const char *const words[] = {"true", "false", "null"};

static bool is_space(unsigned char b)
{
    return b == ' ' || b == '\n' || b == '\r' || b == '\t';
}

static bool is_digit(unsigned char b)
{
    return b >= '0' && b <= '9';
}

static bool is_hex(unsigned char b)
{
    return is_digit(b) || (b >= 'a' && b <= 'f') || (b >= 'A' && b <= 'F');
}

void constraint_start(const struct constraint *c, struct constraint_state *out)
{
    static const enum mode first[] = {[CONSTRAINT_NO_THOUGHT] = BEFORE,
                                      [CONSTRAINT_MAY_THINK] = MAYBE,
                                      [CONSTRAINT_IN_THOUGHT] = THOUGHT};
    memset(out, 0, sizeof *out);
    out->mode = (uint8_t)first[c->thought];
    out->name = c->name;
}

/* --- heads and tail -----------------------------------------------------------------------------
 */

static const char *head_of(const struct constraint *c, int index)
{
    const char *s = c->text + strlen(c->text) + 1; /* behind the tail */
    for (int i = 0; i < index; i++)
        s += strlen(s) + 1;
    return s;
}

static int32_t tail_bytes(const struct constraint *c)
{
    return c->text ? (int32_t)strlen(c->text) : 0;
}

static size_t head_bytes(const char *head)
{
    return strcspn(head, "\1");
}

/* The shortest of those that it may still be, from `at` on; with parameters behind it. */
static int32_t head_left(const struct constraint *c, int low, int high, int at)
{
    int32_t least = c->heads == 0 ? 0 : INT32_MAX;
    const char *s = low < high ? head_of(c, low) : NULL;
    for (int i = low; i < high; i++, s += strlen(s) + 1) {
        int32_t left = (int32_t)head_bytes(s) - at;
        left += c->kind == CONSTRAINT_CODER ? constraint_coder_least(s + head_bytes(s)) : 0;
        least = left < least ? left : least;
    }
    return least;
}

static bool head(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    uint16_t low = s->low, high = s->high;
    const char *h = head_of(c, low);
    while (low < high && (unsigned char)h[s->at] != b) {
        h += strlen(h) + 1;
        low++;
    }
    if (low == high)
        return false;
    const char *behind = h + s->at + 1;
    bool over = *behind == '\0' || *behind == '\1';
    s->low = low;
    while (low < high && (unsigned char)h[s->at] == b) {
        h += strlen(h) + 1;
        low++;
    }
    s->high = low;
    s->at++;
    if (over) {
        s->low = s->high = s->at = 0;
        return c->kind == CONSTRAINT_CODER ? constraint_coder_begin(c, s, behind) : go(s, OBJECT);
    }
    return true;
}

/* The first byte of one. */
static bool begin_head(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    go(s, HEAD);
    s->low = 0;
    s->high = c->heads;
    return head(c, s, b);
}

static bool tail(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    const char *t = c->text;
    if ((unsigned char)t[s->at] != b)
        return false;
    if (t[++s->at])
        return true;
    s->at = 0;
    return go(s, WHOLE);
}

/* --- objects and arrays -------------------------------------------------------------------------
 */

static bool open(struct constraint_state *s, bool array)
{
    if (s->depth == CONSTRAINT_DEPTH)
        return false;
    s->depth++;
    s->levels = s->levels << 1 | array;
    return go(s, array ? FIRST_VALUE : FIRST_KEY);
}

static bool close(const struct constraint *c, struct constraint_state *s, bool array)
{
    if ((s->levels & 1) != array)
        return false;
    s->depth--;
    s->levels >>= 1;
    return go(s, s->depth > 0 ? AFTER : tail_bytes(c) > 0 ? TAIL : WHOLE);
}

static bool begin_string(struct constraint_state *s, bool key)
{
    s->key = key;
    return go(s, STRING);
}

static bool value(struct constraint_state *s, unsigned char b)
{
    if (b == '{' || b == '[')
        return open(s, b == '[');
    if (b == '"')
        return begin_string(s, false);
    if (b == '-')
        return go(s, MINUS);
    if (is_digit(b))
        return b == '0' ? go(s, ZERO) : go_counting(s, INTEGER, 1);
    for (uint8_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (b == (unsigned char)words[i][0]) {
            go_counting(s, WORD, 1);
            s->word = i;
            return true;
        }
    return false;
}

/* Between tokens of JSON. */
static bool structure(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    if (is_space(b))
        return s->count++ < CONSTRAINT_SPACES;
    switch (s->mode) {
    case BEFORE:
        return c->heads > 0 ? begin_head(c, s, b) : b == '{' && open(s, false);
    case OBJECT:
        return b == '{' && open(s, false);
    case FIRST_KEY:
        return b == '"' ? begin_string(s, true) : b == '}' && close(c, s, false);
    case KEY:
        return b == '"' && begin_string(s, true);
    case COLON:
        return b == ':' && go(s, VALUE);
    case FIRST_VALUE:
        return b == ']' ? close(c, s, true) : value(s, b);
    case VALUE:
        return value(s, b);
    default: /* AFTER */
        if (b == ',')
            return go(s, s->levels & 1 ? VALUE : KEY);
        return (b == '}' || b == ']') && close(c, s, b == ']');
    }
}

/* --- strings ------------------------------------------------------------------------------------
 */

/* The first byte of a character, or what is none. (Unicode 15, table 3-7.) */
static bool character(struct constraint_state *s, unsigned char b)
{
    if (b == '"') {
        bool key = s->key;
        s->key = 0;
        return go(s, key ? COLON : AFTER);
    }
    if (b == '\\')
        return go(s, ESCAPE);
    if (b < 0x80)
        return b >= 0x20;
    if (b == 0xe0)
        return go(s, BYTES_E0);
    if (b == 0xed)
        return go(s, BYTES_ED);
    if (b == 0xf0)
        return go(s, BYTES_F0);
    if (b == 0xf4)
        return go(s, BYTES_F4);
    if (b < 0xc2 || b > 0xf4)
        return false;
    return go_pending(s, BYTES, b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3);
}

/* The second byte of a character whose first left a range to it, then `more`. */
static bool second(struct constraint_state *s, unsigned char b, int low, int high, uint8_t more)
{
    return b >= low && b <= high && go_pending(s, BYTES, more);
}

static bool hex_first(struct constraint_state *s, unsigned char b)
{
    if (b == '0')
        return go_pending(s, HEX_ZERO, 3);
    return b == 'd' || b == 'D' ? go(s, HEX_D) : is_hex(b) && go_pending(s, HEX, 3);
}

/* One more of `pending` digits; then `next`. */
static bool hex(struct constraint_state *s, unsigned char b, enum mode next)
{
    if (!is_hex(b))
        return false;
    return --s->pending > 0 || go(s, next);
}

static bool hex_zero(struct constraint_state *s, unsigned char b)
{
    uint8_t left = (uint8_t)(s->pending - 1);
    if (b == '0')
        return left > 0 && go_pending(s, HEX_ZERO, left); /* not \u0000 */
    return is_hex(b) && (left > 0 ? go_pending(s, HEX, left) : go(s, STRING));
}

static bool hex_d(struct constraint_state *s, unsigned char b)
{
    if (b >= '0' && b <= '7')
        return go_pending(s, HEX, 2);
    return (b == '8' || b == '9' || b == 'a' || b == 'A' || b == 'b' || b == 'B') &&
           go_pending(s, HIGH, 2);
}

static bool string(struct constraint_state *s, unsigned char b)
{
    switch (s->mode) {
    case STRING:
        return character(s, b);
    case ESCAPE:
        return b == 'u' ? go(s, HEX_FIRST) : b && strchr("\"\\/bfnrt", b) && go(s, STRING);
    case HEX_FIRST:
        return hex_first(s, b);
    case HEX_ZERO:
        return hex_zero(s, b);
    case HEX_D:
        return hex_d(s, b);
    case HEX:
        return hex(s, b, STRING);
    case HIGH:
        return hex(s, b, LOW_ESCAPE);
    case LOW_ESCAPE:
        return b == '\\' && go(s, LOW_U);
    case LOW_U:
        return b == 'u' && go(s, LOW_D);
    case LOW_D:
        return (b == 'd' || b == 'D') && go(s, LOW_SECOND);
    case LOW_SECOND:
        return is_hex(b) && strchr("cdefCDEF", b) && go_pending(s, HEX, 2);
    case BYTES_E0:
        return second(s, b, 0xa0, 0xbf, 1);
    case BYTES_ED:
        return second(s, b, 0x80, 0x9f, 1);
    case BYTES_F0:
        return second(s, b, 0x90, 0xbf, 2);
    case BYTES_F4:
        return second(s, b, 0x80, 0x8f, 2);
    default: /* BYTES */
        return (b & 0xc0) == 0x80 && (--s->pending > 0 || go(s, STRING));
    }
}

/* --- numbers and words --------------------------------------------------------------------------
 */

/* Behind a number that may end here. */
static bool number_over(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    go(s, AFTER);
    return structure(c, s, b);
}

static bool integer_over(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    if (b == '.')
        return go(s, POINT);
    return b == 'e' || b == 'E' ? go(s, EXPONENT) : number_over(c, s, b);
}

static bool number(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    bool digit = is_digit(b);
    switch (s->mode) {
    case MINUS:
        return digit && (b == '0' ? go(s, ZERO) : go_counting(s, INTEGER, 1));
    case ZERO:
        return !digit && integer_over(c, s, b);
    case INTEGER:
        return digit ? s->count++ < CONSTRAINT_DIGITS : integer_over(c, s, b);
    case POINT:
        return digit && go_counting(s, FRACTION, 1);
    case FRACTION:
        if (digit)
            return s->count++ < CONSTRAINT_DIGITS;
        return b == 'e' || b == 'E' ? go(s, EXPONENT) : number_over(c, s, b);
    case EXPONENT:
        if (b == '+' || b == '-')
            return go(s, EXPONENT_SIGN);
        return digit && go_counting(s, EXPONENT_DIGITS, 1);
    case EXPONENT_SIGN:
        return digit && go_counting(s, EXPONENT_DIGITS, 1);
    default: /* EXPONENT_DIGITS */
        return digit ? s->count++ < CONSTRAINT_EXPONENT_DIGITS : number_over(c, s, b);
    }
}

static bool word(struct constraint_state *s, unsigned char b)
{
    const char *w = words[s->word];
    if (b != (unsigned char)w[s->count])
        return false;
    s->count++;
    return w[s->count] || go(s, AFTER);
}

/* --- before -------------------------------------------------------------------------------------
 */

/* Inside <think>, or a head that begins alike. */
static bool opening(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    uint8_t count = s->count;
    if (b == (unsigned char)OPEN_TAG[count])
        return ++s->count < OPEN_BYTES || go(s, THOUGHT);
    bool fits = c->heads > 0 && begin_head(c, s, (unsigned char)OPEN_TAG[0]);
    for (uint8_t i = 1; fits && i < count; i++)
        fits = head(c, s, (unsigned char)OPEN_TAG[i]);
    return fits && s->mode == HEAD && head(c, s, b);
}

static bool before(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    if (s->mode == MAYBE && !is_space(b)) {
        if (b == '<')
            return go_counting(s, OPENING, 1);
        go(s, BEFORE);
    }
    if (s->mode == OPENING)
        return opening(c, s, b);
    if (s->mode == THOUGHT) {
        if (b != (unsigned char)CLOSE_TAG[s->count])
            return go_counting(s, THOUGHT, b == '<');
        return ++s->count < CLOSE_BYTES || go(s, BEFORE);
    }
    return s->mode == HEAD ? head(c, s, b) : s->mode == TAIL ? tail(c, s, b) : structure(c, s, b);
}

bool constraint_take(const struct constraint *c, struct constraint_state *s, unsigned char b)
{
    if (s->mode <= TAIL)
        return before(c, s, b);
    if (s->mode <= AFTER)
        return structure(c, s, b);
    if (s->mode <= BYTES_F4)
        return string(s, b);
    if (s->mode <= EXPONENT_DIGITS)
        return number(c, s, b);
    if (s->mode >= CODER_NEXT)
        return constraint_coder_take(c, s, b);
    return s->mode == WORD && word(s, b);
}

/* --- what it takes to end ------------------------------------------------------------------------
 */

/* Bytes to the end of a character or escape. */
static int32_t to_string(const struct constraint_state *s)
{
    static const uint8_t needs[] = {
        [STRING] = 0,   [ESCAPE] = 1,   [HEX] = 0,        [HEX_FIRST] = 4,
        [HEX_ZERO] = 0, [HEX_D] = 3,    [HIGH] = 6,       [LOW_ESCAPE] = 6,
        [LOW_U] = 5,    [LOW_D] = 4,    [LOW_SECOND] = 3, [BYTES] = 0,
        [BYTES_E0] = 2, [BYTES_ED] = 2, [BYTES_F0] = 3,   [BYTES_F4] = 3,
    };
    return needs[s->mode] + s->pending;
}

/* To AFTER, from inside a value or before one. */
static int32_t to_after(const struct constraint_state *s)
{
    switch (s->mode) {
    case FIRST_KEY: /* and FIRST_VALUE: what is innermost ends without any */
    case FIRST_VALUE:
    case AFTER:
        return 0;
    case KEY:
        return 4; /* "":0 */
    case COLON:
        return 2;
    case VALUE:
        return 1;
    case WORD:
        return (int32_t)strlen(words[s->word]) - s->count;
    case MINUS:
    case POINT:
    case EXPONENT:
    case EXPONENT_SIGN:
        return 1;
    default:
        return s->mode <= BYTES_F4 ? to_string(s) + (s->key ? 3 : 1) : 0;
    }
}

/* By a thought, or by a head that has begun alike. */
static int32_t opening_closes(const struct constraint *c, const struct constraint_state *s)
{
    int32_t thought = OPEN_BYTES - s->count + CLOSE_BYTES + head_left(c, 0, c->heads, 0);
    int low = 0, high = c->heads;
    while (low < high && strncmp(head_of(c, low), OPEN_TAG, s->count) != 0)
        low++;
    while (high > low && strncmp(head_of(c, high - 1), OPEN_TAG, s->count) != 0)
        high--;
    int32_t own = low < high ? head_left(c, low, high, s->count) : INT32_MAX;
    return own < thought ? own : thought;
}

int32_t constraint_closing(const struct constraint *c, const struct constraint_state *s)
{
    int32_t tail = tail_bytes(c), object = tail + (c->kind == CONSTRAINT_CODER ? 0 : 2); /* {} */
    if (s->mode >= CODER_NEXT)
        return constraint_coder_closing(c, s) + tail;
    switch (s->mode) {
    case WHOLE:
        return 0;
    case TAIL:
        return tail - s->at;
    case OBJECT:
        return object;
    case BEFORE:
    case MAYBE:
        return head_left(c, 0, c->heads, 0) + object;
    case HEAD:
        return head_left(c, s->low, s->high, s->at) + object;
    case OPENING:
        return opening_closes(c, s) + object;
    case THOUGHT:
        return CLOSE_BYTES - s->count + head_left(c, 0, c->heads, 0) + object;
    default:
        return to_after(s) + s->depth + tail;
    }
}

bool constraint_is_free(const struct constraint_state *s)
{
    return s->mode <= TAIL;
}

enum constraint_run constraint_run(const struct constraint_state *s)
{
    switch (s->mode) {
    case STRING:
        return CONSTRAINT_STRING;
    case THOUGHT:
        return CONSTRAINT_THOUGHT;
    case CODER_VALUE:
        return s->count == 0 ? CONSTRAINT_PARAMETER : CONSTRAINT_TAG;
    default:
        return CONSTRAINT_NO_RUN;
    }
}

bool constraint_runs_on(enum constraint_run run, const unsigned char *bytes, size_t len)
{
    static const struct constraint none;
    struct constraint_state s = {.mode = STRING};
    if (run == CONSTRAINT_PARAMETER || run == CONSTRAINT_TAG)
        return constraint_coder_runs_on(bytes, len, run == CONSTRAINT_TAG);
    if (run == CONSTRAINT_THOUGHT)
        return memchr(bytes, '<', len) == NULL && memchr(CLOSE_TAG, bytes[0], CLOSE_BYTES) == NULL;
    for (size_t i = 0; i < len; i++)
        if (bytes[i] == '"' || bytes[i] == '\\' || !constraint_take(&none, &s, bytes[i]))
            return false;
    return s.mode == STRING;
}

int32_t constraint_least_tokens(const struct constraint *c)
{
    struct constraint_state s;
    constraint_start(c, &s);
    return constraint_closing(c, &s) + 1;
}

/* Would an answer that begins so begin a thought? */
static bool opens_alike(const char *head)
{
    size_t len = strlen(head);
    return strncmp(head, OPEN_TAG, len < OPEN_BYTES ? len : OPEN_BYTES) == 0;
}

/* What came over a wire: strings in order, none the beginning of the next. */
static enum status check_text(const struct constraint *c, struct error *err)
{
    bool call = c->kind >= CONSTRAINT_CALL;
    int strings = call ? c->heads + 1 : 0, found = 0;
    if (call && (c->heads < 1 || c->heads > CONSTRAINT_MAX_HEADS))
        return error_set(err, ERR_INVALID, "constraint: expected 1 to %d heads, found %d",
                         (int)CONSTRAINT_MAX_HEADS, c->heads);
    for (size_t i = 0; i < c->text_len; i++)
        found += c->text[i] == '\0';
    bool ends = c->text_len == 0 || c->text[c->text_len - 1] == '\0';
    if (found != strings || !ends || c->text_len > CONSTRAINT_MAX_TEXT)
        return error_set(err, ERR_INVALID,
                         "constraint: expected %d strings of at most %d bytes, found %d of %u",
                         strings, (int)CONSTRAINT_MAX_TEXT, found, c->text_len);
    for (int i = 0; i < strings; i++)
        if (strlen(i == 0 ? c->text : head_of(c, i - 1)) > UINT16_MAX)
            return error_set(err, ERR_INVALID, "constraint: expected strings of at most %d bytes",
                             UINT16_MAX);
    for (int i = 0; i < c->heads; i++) {
        const char *a = head_of(c, i), *b = i + 1 < c->heads ? head_of(c, i + 1) : NULL;
        if (is_space((unsigned char)*a) || opens_alike(a))
            return error_set(err, ERR_INVALID,
                             "constraint: expected heads without white space before them, and none "
                             "that begins %s or begins with it",
                             OPEN_TAG);
        if (!*a || (b && (strcmp(a, b) >= 0 || strncmp(a, b, head_bytes(a)) == 0)))
            return error_set(err, ERR_INVALID,
                             "constraint: expected heads in order, none the beginning of another");
        const char *list = a + head_bytes(a);
        if (list == a || (c->kind == CONSTRAINT_CALL && *list))
            return error_set(err, ERR_INVALID, "constraint: expected heads without parameters");
        TRY(constraint_coder_check(list, err));
    }
    if (c->kind == CONSTRAINT_CODER && (strncmp(c->text, "</", 2) != 0 || !c->text[2]))
        return error_set(err, ERR_INVALID, "constraint: expected a tail that closes a tag");
    return OK;
}

enum status constraint_check(const struct constraint *c, const struct shaping *s, bool ignore_eos,
                             int32_t max_tokens, struct error *err)
{
    if (c->kind == CONSTRAINT_NONE)
        return OK;
    TRY(check_text(c, err));
    bool call = c->kind >= CONSTRAINT_CALL;
    const char *field = call ? "tool_choice" : "response_format json_object";
    int32_t least = constraint_least_tokens(c);
    if (max_tokens > 0 && max_tokens < least)
        return error_set(
            err, ERR_INVALID, "max_tokens: expected at least %d, which a %s may take%s, found %d",
            least, call ? "tool call" : "JSON object",
            c->thought == CONSTRAINT_IN_THOUGHT ? " behind a thought" : "", max_tokens);
    if (ignore_eos || s->min_tokens > 0)
        return error_set(err, ERR_INVALID, "%s: not with %s, whose answers end when they are whole",
                         ignore_eos ? "ignore_eos" : "min_tokens", field);
    for (int32_t i = 0; i < s->bias_count; i++)
        if (s->bias[i].bias == -100.0f)
            return error_set(err, ERR_INVALID,
                             "logit_bias: -100 forbids token %d: not with %s, which may have no "
                             "other left",
                             s->bias[i].id, field);
    return OK;
}
