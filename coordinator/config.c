/* cluster.yaml: see config.h. */
#include "coordinator/config.h"

int32_t config_group_world(const struct config_group *g)
{
    int32_t w = g->tp > g->ep ? g->tp : g->ep;
    return g->pp * (g->w > w ? g->w : w);
}
