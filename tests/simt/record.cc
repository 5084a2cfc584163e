/* Recordings, which stand for CUDA's graphs: what a thread of the host launches, copies and fills
 * is kept instead of done, and done at each run of the recording. See runtime.h. */
#include "runtime.h"

#include <functional>
#include <string.h>

/* As cudaErrorStreamCaptureUnsupported, and cudaErrorStreamCaptureInvalidated. */
enum { NOT_IN_A_RECORDING = 900, RECORDING_SPOILT = 901 };

struct simt_graph {
    std::vector<std::function<int()>> nodes;
};

static thread_local simt_graph *recording;
static thread_local bool spoilt;

bool record_node(std::function<int()> node)
{
    if (!recording)
        return false;
    recording->nodes.push_back(std::move(node));
    return true;
}

int record_forbids()
{
    if (!recording)
        return 0;
    spoilt = true;
    return NOT_IN_A_RECORDING;
}

static std::vector<const void *> pointers(const void *const *list)
{
    std::vector<const void *> copy;
    for (; *list; list++)
        copy.push_back(*list);
    copy.push_back(NULL);
    return copy;
}

bool record_launch(const simt_kernel *kernel, const launch_shape *shape)
{
    if (!recording)
        return false;
    std::vector<char> arguments((const char *)kernel->arguments,
                                (const char *)kernel->arguments + kernel->argument_bytes);
    auto read_only = pointers(kernel->read_only), written = pointers(kernel->written);
    return record_node([=, k = *kernel, s = *shape]() {
        simt_kernel again = k;
        again.arguments = arguments.data();
        again.read_only = read_only.data();
        again.written = written.data();
        return simt_launch(&again, &s);
    });
}

bool simt_record(int (*fn)(const void *arg), const void *arg, size_t bytes)
{
    if (!recording)
        return false;
    std::vector<char> copy((const char *)arg, (const char *)arg + bytes);
    return record_node([=] { return fn(copy.data()); });
}

int device_record_begin(device_stream)
{
    if (recording)
        return record_forbids();
    recording = new simt_graph;
    spoilt = false;
    return 0;
}

int device_record_end(device_stream, device_graph *out, int *nodes)
{
    simt_graph *g = recording;
    *out = NULL;
    *nodes = 0;
    recording = NULL;
    if (!g)
        return NOT_IN_A_RECORDING;
    if (spoilt) {
        delete g;
        return RECORDING_SPOILT;
    }
    *out = g;
    *nodes = (int)g->nodes.size();
    return 0;
}

int device_graph_run(device_graph graph, device_stream)
{
    int code = record_forbids();
    for (size_t i = 0; code == 0 && i < graph->nodes.size(); i++)
        code = graph->nodes[i]();
    return code;
}

int device_graph_free(device_graph graph)
{
    delete graph;
    return 0;
}
