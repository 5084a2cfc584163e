/* How long a model may think: see thinking.h. */
#include "partition/thinking.h"

int32_t thinking_token(const struct thinking *t, bool open, int32_t index, int32_t token)
{
    int32_t at = index - thinking_end(t);
    if (!open || at < 0 || at >= t->count || (at == 0 && token == t->close))
        return token; /* the model has ended it itself, just in time */
    return t->ids[at];
}

bool thinking_after(const struct thinking *t, bool open, int32_t index, int32_t token)
{
    int32_t at = index - thinking_end(t);
    if (!t->inside && index == 0)
        return open && token == t->open;
    return open && (at < 0 ? token != t->close : at < t->count - 1 && token == t->ids[at]);
}

int32_t thinking_room(const struct thinking *t, const struct constraint *c, int32_t max_tokens)
{
    struct constraint behind = *c;
    behind.thought = CONSTRAINT_NO_THOUGHT;
    int32_t least = c->kind == CONSTRAINT_NONE ? 0 : t->count + constraint_least_tokens(&behind);
    return max_tokens - least - !t->inside;
}

enum status thinking_check(const struct thinking *t, const struct constraint *c, int32_t vocab,
                           int32_t max_tokens, struct error *err)
{
    bool closes = false;
    if (t->count == 0)
        return OK;
    if (max_tokens < 0)
        return error_set(err, ERR_INVALID, "thinking: expected max_tokens, found %d", max_tokens);
    if (t->count < 0 || t->count > THINKING_MAX_END)
        return error_set(err, ERR_INVALID, "thinking: expected at most %d ids, found %d",
                         (int)THINKING_MAX_END, t->count);
    for (int32_t i = 0; i < t->count; i++) {
        if (t->ids[i] < 0 || t->ids[i] >= vocab || t->ids[i] == t->open)
            return error_set(err, ERR_INVALID,
                             "thinking: ids[%d]: expected a token below %d, not %d, which opens a "
                             "thought, found %d",
                             i, vocab, t->open, t->ids[i]);
        closes = closes || t->ids[i] == t->close;
    }
    if (!closes)
        return error_set(err, ERR_INVALID, "thinking: expected %d among ids, which ends a thought",
                         t->close);
    int32_t most = thinking_room(t, c, max_tokens);
    if (t->most < 0 || t->most > most)
        return error_set(err, ERR_INVALID,
                         "thinking: most: expected 0 to %d, for which max_tokens leaves room, "
                         "found %d",
                         most, t->most);
    return OK;
}
