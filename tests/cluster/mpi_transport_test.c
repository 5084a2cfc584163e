/*
 * The MPI transport over the ranks that mpirun has started: the same cases as the local
 * transport's, then one line and the exit code. Also built with the library's count limit at a few
 * bytes, so that every long payload goes in pieces. The argument "abort" has the last rank abort
 * while the others wait; mpirun then has to come back with an error.
 */
#include "base/log.h"
#include "tests/cluster/comm_cases.h"

#include <stdio.h>
#include <unistd.h>

struct mpi_case {
    const char *name;
    enum status (*fn)(struct comm *c, struct error *err);
};

static enum status programs(struct comm *c, struct error *err)
{
    for (uint64_t seed = 0; seed < 3; seed++)
        TRY(cases_program(c, seed, 100, err));
    return OK;
}

static const struct mpi_case mpi_cases[] = {
    {"all-reduce", cases_allreduce},
    {"all-gather", cases_allgather},
    {"broadcast", cases_broadcast},
    {"point to point", cases_point_to_point},
    {"message order", cases_message_order},
    {"grid", cases_grid},
    {"shared memory", cases_share},
    {"programs", programs},
    {"arrive", cases_arrive},
    {"arrive late", cases_arrive_late},
};

static enum status run_cases(struct comm *world, struct error *err)
{
    EXPECT(strcmp(world->ops->name, "mpi") == 0);
    for (size_t i = 0; i < COUNT_OF(mpi_cases); i++) {
        enum status st = mpi_cases[i].fn(world, err);
        if (st != OK) {
            error_prefix(err, "%s: ", mpi_cases[i].name);
            return st;
        }
    }
    return OK;
}

/* Only the last rank's abort ends this. */
static enum status wait_for_abort(struct comm *world, struct error *err)
{
    double x = 1;
    if (world->rank == world->size - 1) {
        usleep(50000);
        world->ops->abort(world, "as the test asks");
    }
    TRY(comm_allreduce_f64(world, &x, 1, err));
    return error_set(err, ERR_INVALID, "the job goes on after an abort");
}

int main(int argc, char **argv)
{
    struct comm *world;
    struct error err;
    int aborts = argc > 1 && strcmp(argv[1], "abort") == 0;
    if (comm_mpi_world(&world, &err) != OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    log_set_rank(world->rank);
    if ((aborts ? wait_for_abort : run_cases)(world, &err) != OK)
        world->ops->abort(world, err.msg);
    if (world->rank == 0)
        printf("mpi transport: %zu cases over %d ranks\n", COUNT_OF(mpi_cases), world->size);
    world->ops->destroy(world);
    comm_mpi_finalize();
    return 0;
}
