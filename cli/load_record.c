/* See load_record.h. No state. */
#include "cli/load_record.h"

#include <stdlib.h>

void load_run_fini(struct load_run *run)
{
    for (size_t i = 0; i < run->count; i++)
        free((void *)run->records[i].chunk_ns);
    free(run->records);
    run->records = NULL;
    run->count = 0;
}
