/* JSON byte by byte: see json_scan.h. */
#include "coordinator/json_scan.h"

#include <string.h>

void json_scan_init(struct json_scan *s)
{
    s->state = SCAN_VALUE;
    s->depth = 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool go(struct json_scan *s, bool fits, enum json_scan_state next)
{
    s->state = fits ? next : SCAN_BAD;
    return fits;
}

static enum json_scan_state behind_value(const struct json_scan *s)
{
    return s->depth > 0 ? SCAN_AFTER : SCAN_WHOLE;
}

static bool open_container(struct json_scan *s, bool object)
{
    if (s->depth == JSON_SCAN_MAX_DEPTH)
        return go(s, false, SCAN_BAD);
    s->object[s->depth++] = object;
    return go(s, true, object ? SCAN_FIRST_KEY : SCAN_FIRST_ITEM);
}

static bool close_container(struct json_scan *s, char c)
{
    if (s->depth == 0 || c != (s->object[s->depth - 1] ? '}' : ']'))
        return go(s, false, SCAN_BAD);
    s->depth--;
    return go(s, true, behind_value(s));
}

static bool quote(struct json_scan *s, bool key)
{
    s->key = key;
    return go(s, true, SCAN_STRING);
}

static bool literal(struct json_scan *s, const char *rest)
{
    s->literal = rest;
    return go(s, true, SCAN_LITERAL);
}

static bool begin(struct json_scan *s, char c)
{
    switch (c) {
    case '{':
    case '[':
        return open_container(s, c == '{');
    case '"':
        return quote(s, false);
    case 't':
        return literal(s, "rue");
    case 'f':
        return literal(s, "alse");
    case 'n':
        return literal(s, "ull");
    case '-':
        return go(s, true, SCAN_MINUS);
    case '0':
        return go(s, true, SCAN_ZERO);
    default:
        return go(s, is_digit(c), SCAN_INTEGER);
    }
}

static bool in_string(struct json_scan *s, char c)
{
    if (c == '\\')
        s->state = SCAN_ESCAPE;
    else if (c == '"')
        s->state = s->key ? SCAN_COLON : behind_value(s);
    return true;
}

static bool escape(struct json_scan *s, char c)
{
    s->left = 4;
    if (c == 'u')
        return go(s, true, SCAN_HEX);
    return go(s, c != '\0' && strchr("\"\\/bfnrt", c), SCAN_STRING);
}

static bool hex(struct json_scan *s, char c)
{
    s->left--;
    return go(s, is_hex(c), s->left > 0 ? SCAN_HEX : SCAN_STRING);
}

static bool in_literal(struct json_scan *s, char c)
{
    bool fits = c == *s->literal;
    s->literal += fits;
    return go(s, fits, fits && !*s->literal ? behind_value(s) : SCAN_LITERAL);
}

static bool after(struct json_scan *s, char c)
{
    if (is_space(c))
        return true;
    if (s->depth > 0 && c == ',')
        return go(s, true, s->object[s->depth - 1] ? SCAN_KEY : SCAN_VALUE);
    return close_container(s, c);
}

/* Behind a digit: more of the number, or its end. */
static bool in_number(struct json_scan *s, char c)
{
    bool point = s->state == SCAN_ZERO || s->state == SCAN_INTEGER;
    if (is_digit(c) && s->state != SCAN_ZERO)
        return true;
    if (c == '.' && point)
        return go(s, true, SCAN_POINT);
    if ((c == 'e' || c == 'E') && s->state != SCAN_EXPONENT)
        return go(s, true, SCAN_E);
    s->state = behind_value(s);
    return after(s, c);
}

bool json_scan_push(struct json_scan *s, char c)
{
    switch (s->state) {
    case SCAN_VALUE:
        return is_space(c) || begin(s, c);
    case SCAN_FIRST_ITEM:
        return is_space(c) || (c == ']' ? close_container(s, c) : begin(s, c));
    case SCAN_FIRST_KEY:
        if (c == '}')
            return close_container(s, c);
        /* fallthrough */
    case SCAN_KEY:
        return is_space(c) || (c == '"' ? quote(s, true) : go(s, false, SCAN_BAD));
    case SCAN_COLON:
        return is_space(c) || go(s, c == ':', SCAN_VALUE);
    case SCAN_AFTER:
    case SCAN_WHOLE:
        return after(s, c);
    case SCAN_STRING:
        return in_string(s, c);
    case SCAN_ESCAPE:
        return escape(s, c);
    case SCAN_HEX:
        return hex(s, c);
    case SCAN_LITERAL:
        return in_literal(s, c);
    case SCAN_MINUS:
        return go(s, is_digit(c), c == '0' ? SCAN_ZERO : SCAN_INTEGER);
    case SCAN_POINT:
        return go(s, is_digit(c), SCAN_FRACTION);
    case SCAN_E:
        return c == '+' || c == '-' ? go(s, true, SCAN_E_SIGN) : go(s, is_digit(c), SCAN_EXPONENT);
    case SCAN_E_SIGN:
        return go(s, is_digit(c), SCAN_EXPONENT);
    case SCAN_ZERO:
    case SCAN_INTEGER:
    case SCAN_FRACTION:
    case SCAN_EXPONENT:
        return in_number(s, c);
    case SCAN_BAD:
        break;
    }
    return false;
}

bool json_scan_text(const char *text, size_t len, bool strict)
{
    struct json_scan s;
    json_scan_init(&s);
    for (size_t i = 0; i < len; i++) {
        bool control = (unsigned char)text[i] < ' ' && s.state == SCAN_STRING;
        if ((strict && control) || !json_scan_push(&s, text[i]))
            return false;
    }
    return s.depth == 0 &&
           (s.state == SCAN_WHOLE || s.state == SCAN_ZERO || s.state == SCAN_INTEGER ||
            s.state == SCAN_FRACTION || s.state == SCAN_EXPONENT);
}
