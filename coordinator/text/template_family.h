/* Inside the chat templates: the renderers behind template_render, one a family. */
#ifndef WITAN_COORDINATOR_TEXT_TEMPLATE_FAMILY_H
#define WITAN_COORDINATOR_TEXT_TEMPLATE_FAMILY_H

#include "coordinator/text/template_message.h"

/* What a template is given; all checked but the tools' insides. */
struct template_input {
    struct template_conversation conversation;
    const json_t *tools; /* NULL unless there is at least one */
    bool generation_prompt;
    bool no_thinking; /* enable_thinking is exactly false */
};

/* qwen3, qwen3-rev, both 2507 and qwen2.5: tools and calls as JSON. */
enum status template_hermes(enum template_kind kind, const struct template_input *in,
                            struct template_out *o, struct error *err);

/* qwen3-coder: tools and calls as XML. */
enum status template_coder(const struct template_input *in, struct template_out *o,
                           struct error *err);

/* qwen3guard-gen: a question about the conversation. */
enum status template_guard(const struct template_input *in, struct template_out *o,
                           struct error *err);

#endif
