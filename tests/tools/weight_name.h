/* What Hugging Face's files call a weight, whatever file it came from. */
#ifndef WITAN_TESTS_TOOLS_WEIGHT_NAME_H
#define WITAN_TESTS_TOOLS_WEIGHT_NAME_H

#include "partition/inventory.h"

#include <stdio.h>

static inline void weight_name(const struct weight *w, char *name, size_t size)
{
    const char *words = weight_role_words(w->role);
    bool attention = w->role >= WEIGHT_Q && w->role <= WEIGHT_O;
    if (w->role == WEIGHT_LM_HEAD)
        snprintf(name, size, "lm_head.weight");
    else if (w->layer < 0)
        snprintf(name, size, "model.%s.weight", words);
    else if (w->expert >= 0)
        snprintf(name, size, "model.layers.%d.mlp.experts.%d.%s.weight", w->layer, w->expert,
                 words);
    else
        snprintf(name, size, "model.layers.%d.%s%s.weight", w->layer,
                 attention                ? "self_attn."
                 : w->role >= WEIGHT_GATE ? "mlp."
                                          : "",
                 words);
}

#endif
