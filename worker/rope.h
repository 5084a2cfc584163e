/*
 * RoPE's inverse frequencies as the reference computes them, YaRN's included. Pure; any thread.
 */
#ifndef WITAN_WORKER_ROPE_H
#define WITAN_WORKER_ROPE_H

#include "partition/config.h"

/*
 * frequency[head_dim / 2]: radians a position of each pair of dimensions. Returns the factor on
 * every cosine and sine: 1 without YaRN.
 *
 * The formulas and the order of their roundings are those of Hugging Face Transformers,
 * modeling_rope_utils.py: _compute_default_rope_parameters and _compute_yarn_parameters (YaRN: Peng
 * et al., "YaRN: Efficient Context Window Extension of Large Language Models", arXiv:2309.00071).
 * What it computes in Python numbers is fp64 here, what in tensors fp32.
 */
float rope_frequencies(const struct model_config *config, float *frequency);

#endif
