/* OpenAI's chat completions and completions: see dialect.h. No state. */
#include "coordinator/dialect.h"

static enum status write_end(struct buf *b, const struct openai_head *h,
                             const struct openai_usage *usage, struct error *err)
{
    if (h->usage)
        TRY(openai_write_usage(b, h, usage, err));
    return openai_write_done(b, err);
}

static enum status write_stream_error(struct buf *b, const struct openai_head *h,
                                      const struct openai_failure *f, struct error *err)
{
    (void)h;
    return openai_write_error_event(b, f, err);
}

#define OPENAI(name)                                                                               \
    {                                                                                              \
        .id = (name), .stream_type = "text/event-stream; charset=utf-8", .quiet = ": waiting\n\n", \
        .positions = true, .first = openai_write_first, .text = openai_write_text,                 \
        .pieces = openai_write_pieces, .finish = openai_write_finish, .end = write_end,            \
        .answer = openai_write_answer, .models = openai_write_models, .model = openai_write_model, \
        .error = openai_write_error, .stream_error = write_stream_error,                           \
    }

const struct dialect dialect_openai_chat = OPENAI("chatcmpl-");
const struct dialect dialect_openai_completion = OPENAI("cmpl-");
