/* Recorded decode steps: see cuda_graphs.h. */
#include "worker/cuda_graphs.h"

#include <stdlib.h>

/* Up to MAX_ROWS rows in steps of about a third, so that at most as many more are computed. Kernels
 * whose grids follow the longest sequence end early where there is nothing: its steps are coarse.
 */
enum { MAX_ROWS = 512, LONGER = 4 };

static int32_t min_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t next_rows(int32_t rows)
{
    return rows < 4 ? 2 * rows : rows % 3 == 0 ? rows / 3 * 4 : rows / 2 * 3; /* 4 6 8 12 16 .. */
}

enum status cuda_graphs_init(struct cuda_graphs *g, const struct engine_limits *limits,
                             struct error *err)
{
    int32_t most = min_of(MAX_ROWS, min_of(limits->max_seqs, limits->max_rows));
    most = min_of(most, limits->max_logits);
    int32_t lengths = 1, counts = 1;
    for (int64_t n = CUDA_SPLIT; n < limits->context; n *= LONGER)
        lengths++;
    for (int32_t rows = 1; rows < most; rows = next_rows(rows))
        counts++;
    *g = (struct cuda_graphs){0};
    g->steps = calloc((size_t)counts * (size_t)lengths, sizeof *g->steps);
    if (!g->steps)
        return error_set(err, ERR_NO_MEMORY, "no memory for recorded steps");
    for (int32_t i = 0, rows = 1; i < counts; i++, rows = next_rows(rows)) {
        int64_t longest = CUDA_SPLIT;
        for (int32_t j = 0; j < lengths; j++, longest *= LONGER)
            g->steps[g->count++] = (struct recorded_step){
                .rows = min_of(rows, most),
                .longest = longest < limits->context ? (int32_t)longest : limits->context,
            };
    }
    return OK;
}

void cuda_graphs_fini(struct cuda_graphs *g, const struct cuda_plugin *cuda)
{
    for (int32_t i = 0; i < g->count; i++) {
        struct recorded_step *s = &g->steps[i];
        for (int32_t k = 0; k < s->count; k++)
            cuda->graph_free(s->segments[k]);
        free(s->segments);
    }
    free(g->steps);
    *g = (struct cuda_graphs){0};
}

struct recorded_step *cuda_graphs_find(const struct cuda_graphs *g, int32_t rows, int32_t longest)
{
    for (int32_t i = 0; i < g->count; i++) {
        struct recorded_step *s = &g->steps[i];
        if (s->rows >= rows && s->longest >= longest)
            return s->count > 0 ? s : NULL;
    }
    return NULL;
}

int recorded_step_cut(struct recorded_step *s, const struct cuda_plugin *cuda, cuda_stream stream)
{
    cuda_graph graph = NULL;
    int nodes = 0, e = cuda->record_end(stream, &graph, &nodes);
    if (e != 0)
        return e;
    if (s->count == s->room) {
        int32_t room = s->room > 0 ? 2 * s->room : 4;
        cuda_graph *more = realloc(s->segments, (size_t)room * sizeof(cuda_graph));
        if (!more) {
            cuda->graph_free(graph);
            return 2; /* as CUDA says it: out of memory */
        }
        s->segments = more;
        s->room = room;
    }
    s->segments[s->count++] = graph;
    s->nodes += nodes;
    return 0;
}
