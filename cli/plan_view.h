/*
 * What `witan plan` shows, three ways: tables for people (100 columns), JSON for programs, an SVG
 * of who holds what. Reads a plan and decides nothing.
 */
#ifndef WITAN_CLI_PLAN_VIEW_H
#define WITAN_CLI_PLAN_VIEW_H

#include "base/json.h"
#include "partition/planner.h"

#include <stdio.h>

/* What was asked, and of what. */
struct plan_view {
    const char *path; /* as the user gave it */
    const struct model_config *config;
    const struct inventory *inv;
    bool from_headers; /* weights are counted in the dtypes of the safetensors headers */
    struct cluster_shape cluster;
    uint64_t device_bytes; /* of one device; 0 = not said */
    int usable_percent;    /* of it that a rank may fill */
    struct planner_wish wish;
};

/* One layout on the cluster with its plan. */
struct plan_shown {
    const struct planner_layout *layout;
    const struct plan *plan;
};

/* Tables. `all`: every line, however many. */
void plan_table_survey(FILE *out, const struct plan_view *v, const struct survey *s, bool all);
void plan_table_layout(FILE *out, const struct plan_view *v, const struct plan_shown *shown);

/* Objects for the caller to json_decref. */
json_t *plan_json_survey(const struct plan_view *v, const struct survey *s);
json_t *plan_json_layout(const struct plan_view *v, const struct plan_shown *shown);

/* A drawing by itself: no font, style or script from elsewhere. */
void plan_svg(FILE *out, const struct plan_view *v, const struct plan_shown *shown);

/* The model in words, at most `size` bytes: layers, heads, experts, weight format. */
void plan_model_words(const struct plan_view *v, char *words, size_t size);

/* The limits and the node of a rank of the first replica. */
struct engine_limits plan_view_limits(const struct plan_view *v, const struct planner_layout *l);
int32_t plan_view_node(const struct plan_view *v, int32_t rank);

/* Parameters of the model: elements of all its weights. */
uint64_t plan_parameters(const struct plan_view *v);

#endif
