/*
 * Hopper's instructions and the kernels made of them (worker/cuda/hopper.{cuh,cu}), on a GPU of
 * compute capability 9.0: each wrapper by itself with patterns that show every element's way; then
 * products against plain sums in double precision and against the reproducible kernels, and, bit
 * for bit, against themselves.
 */
#include "tests/cuda/batch.h"
#include "tests/cuda/slots.h"
#include "worker/cuda/fast.h"
#include "worker/cuda/hopper.cuh"

#include <memory>

typedef std::vector<uint16_t> halves;

/* Rows and columns of 16 bits that one copy takes; threads of a warp group. */
enum { BOX = 128, BOX_COLUMNS = 64, BOX_BYTES = BOX * BOX_COLUMNS * 2, GROUP = 128 };

/* ---- Maps and copies ---- */

/* The map of [rows, cols] of 16 bits at p, in memory of the device. */
static device_array<struct cuda_map> map_of(const uint16_t *p, int rows, int cols)
{
    const struct cuda_ffn ffn = {p, p, p};
    struct cuda_fast_ffn maps;
    assert_int_equal(cuda_fast_maps(&ffn, 1, rows, cols, &maps), 0);
    return device_array<struct cuda_map>(std::vector<struct cuda_map>(1, maps.gate));
}

DEVICE uint16_t *aligned_tiles()
{
    SHARED_DYNAMIC(unsigned char, bytes);
    return (uint16_t *)(bytes + (1024 - device_shared_address(bytes) % 1024) % 1024);
}

static const size_t tile_bytes = 3 * BOX_BYTES + 1024;

static __global__ void __launch_bounds__(GROUP)
    copy_box(const struct cuda_map *map, int column, int row, uint16_t *out)
{
    __shared__ uint64_t full;
    uint16_t *tile = aligned_tiles();
    if (threadIdx.x == 0) {
        mbarrier_init(&full, 1);
        mbarrier_init_fence();
        tensor_map_acquire((const CUtensorMap *)map);
        mbarrier_arrive_expect(&full, BOX_BYTES);
        tma_load(tile, (const CUtensorMap *)map, column, row, &full);
    }
    __syncthreads();
    mbarrier_wait(&full, 0);
    for (int i = (int)threadIdx.x; i < BOX * BOX_COLUMNS; i += GROUP)
        out[i] = tile[i];
}

/* Piece c of row r lies at c ^ r % 8; outside of the tensor are zeros. */
static void boxes_are_swizzled_and_filled(void **state)
{
    (void)state;
    const int rows = 150, cols = 72;
    halves x;
    for (int i = 0; i < rows * cols; i++)
        x.push_back((uint16_t)(i + 1));
    device_array<uint16_t> dx(x);
    device_array<struct cuda_map> map = map_of(dx.p, rows, cols);
    const int corners[][2] = {{0, 0}, {64, 0}, {0, 5}, {8, 100}, {0, -3}, {-16, 40}, {0, 200}};
    for (const int *corner : corners) {
        device_array<uint16_t> out((size_t)(BOX * BOX_COLUMNS));
        assert_ran(launch(copy_box, {dim3(1), dim3(GROUP), tile_bytes, NULL, false}, map.p,
                          corner[0], corner[1], out.p));
        halves found = out.read();
        for (int r = 0; r < BOX; r++)
            for (int c = 0; c < BOX_COLUMNS; c++) {
                int row = corner[1] + r, col = corner[0] + c;
                bool inside = row >= 0 && row < rows && col >= 0 && col < cols;
                uint16_t expected = inside ? x[(size_t)(row * cols + col)] : (uint16_t)0;
                assert_int_equal(found[(size_t)(r * 64 + ((c / 8) ^ (r % 8)) * 8 + c % 8)],
                                 expected);
            }
    }
}

/* ---- Barriers and registers: one thread hands on numbers through two slots ---- */

enum { RING_GROUPS = 2, RING_SLOTS = 2 };

static __global__ void __launch_bounds__(GROUP *(1 + RING_GROUPS), 1)
    hand_on(int count, uint32_t *out)
{
    __shared__ uint64_t full[RING_SLOTS], empty[RING_SLOTS];
    __shared__ uint32_t slot[RING_SLOTS];
    int group = (int)threadIdx.x / GROUP - 1;
    if (threadIdx.x == 0) {
        for (int i = 0; i < RING_SLOTS; i++) {
            mbarrier_init(&full[i], 1);
            mbarrier_init(&empty[i], RING_GROUPS * GROUP / 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (group < 0) {
        registers_give<40>();
        for (int i = 0; threadIdx.x == 0 && i < count; i++) {
            mbarrier_wait(&empty[i % RING_SLOTS], (unsigned)(i / RING_SLOTS & 1) ^ 1);
            slot[i % RING_SLOTS] = (uint32_t)i * 2654435761u;
            mbarrier_arrive(&full[i % RING_SLOTS]);
        }
    } else {
        registers_take<232>();
        for (int i = 0; i < count; i++) {
            mbarrier_wait(&full[i % RING_SLOTS], (unsigned)(i / RING_SLOTS & 1));
            out[(size_t)(i * RING_GROUPS + group) * GROUP + threadIdx.x % GROUP] =
                slot[i % RING_SLOTS];
            __syncwarp();
            if (lane_id() == 0)
                mbarrier_arrive(&empty[i % RING_SLOTS]);
        }
    }
}

static void barriers_keep_their_phases(void **state)
{
    (void)state;
    const int count = 101, threads = RING_GROUPS * GROUP;
    device_array<uint32_t> out((size_t)(count * threads));
    assert_ran(launch(hand_on, {dim3(1), dim3(GROUP + threads), 0, NULL, false}, count, out.p));
    std::vector<uint32_t> found = out.read();
    for (size_t i = 0; i < found.size(); i++)
        assert_int_equal(found[i], (uint32_t)(i / threads) * 2654435761u);
}

/* ---- wgmma ---- */

/* out[64, N] = rows 64 `half` .. of A . rows 0 .. of B: of the 128 bytes of a row, the 32-byte
 * steps [BEGIN, END). */
template <bool E4M3, int N, int BEGIN, int END>
static __global__ void __launch_bounds__(GROUP)
    multiply(const struct cuda_map *a, const struct cuda_map *b, int half, float *out)
{
    __shared__ uint64_t full;
    uint16_t *x = aligned_tiles(), *w = x + BOX * BOX_COLUMNS;
    if (threadIdx.x == 0) {
        mbarrier_init(&full, 1);
        mbarrier_init_fence();
        tensor_map_acquire((const CUtensorMap *)a);
        tensor_map_acquire((const CUtensorMap *)b);
        mbarrier_arrive_expect(&full, 3 * BOX_BYTES);
        tma_load(x, (const CUtensorMap *)a, 0, 0, &full);
        tma_load(w, (const CUtensorMap *)b, 0, 0, &full);
        tma_load(w + BOX * BOX_COLUMNS, (const CUtensorMap *)b, 0, BOX, &full);
    }
    __syncthreads();
    mbarrier_wait(&full, 0);
    __syncwarp();
    float d[N / 2];
    uint64_t x_tile = wgmma_tile(x + half * 64 * BOX_COLUMNS), w_tile = wgmma_tile(w);
    wgmma_fence();
#pragma unroll
    for (int k = BEGIN; k < END; k++) {
        if constexpr (E4M3)
            wgmma_m64n128k32_e4m3(d, x_tile + 2 * k, w_tile + 2 * k, k > BEGIN);
        else
            wgmma_m64n256k16_bf16(d, x_tile + 2 * k, w_tile + 2 * k, k > BEGIN);
    }
    wgmma_commit();
    wgmma_wait_sums(d);
    int warp = (int)threadIdx.x / 32, g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (int i = 0; i < N / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            out[(16 * warp + g + 8 * (j / 2)) * N + 8 * i + 2 * t + j % 2] = d[4 * i + j];
}

/* The e4m3 of a whole number up to 16. */
static uint8_t e4m3_of(int n)
{
    int e = 0;
    while (n >> (e + 1))
        e++;
    return n == 0 ? 0 : (uint8_t)((e + 7) << 3 | ((n << 3 >> e) & 7));
}

/* Row r of A picks column (r + 5) % k of B's rows, whose elements all differ from their
 * neighbours: each element of D tells where it came from. Then A of small numbers, whose sums are
 * exact, also in the 14 bits or so that e4m3's sums have. */
template <bool E4M3, int N> static void patterns()
{
    const int k = E4M3 ? 128 : 64, steps = 4, b_rows = 256;
    auto code = [](int n, halves &to, size_t at) {
        if (E4M3)
            ((uint8_t *)to.data())[at] = e4m3_of(n);
        else
            to[at] = bf16_of((float)n);
    };
    auto b_number = [](int n, int i) {
        return E4M3 ? (n * 7 + i * 3) % 17 : (n * 7 + i * 3) % 251;
    };
    for (bool picks : {true, false}) {
        auto a_number = [&](int r, int i) {
            return picks ? i == (r + 5) % k : (r * 5 + i * 11 + r * i) % (E4M3 ? 2 : 13);
        };
        halves a(BOX * BOX_COLUMNS), b((size_t)(b_rows * BOX_COLUMNS));
        for (int r = 0; r < b_rows; r++)
            for (int i = 0; i < k; i++) {
                code(b_number(r, i), b, (size_t)(r * k + i));
                if (r < BOX)
                    code(a_number(r, i), a, (size_t)(r * k + i));
            }
        device_array<uint16_t> da(a), db(b);
        device_array<struct cuda_map> a_map = map_of(da.p, BOX, BOX_COLUMNS);
        device_array<struct cuda_map> b_map = map_of(db.p, b_rows, BOX_COLUMNS);
        const struct {
            int begin, end;
            decltype(&multiply<E4M3, N, 0, 4>) kernel;
        } runs[] = {{0, 4, multiply<E4M3, N, 0, 4>}, {0, 1, multiply<E4M3, N, 0, 1>},
                    {1, 2, multiply<E4M3, N, 1, 2>}, {2, 3, multiply<E4M3, N, 2, 3>},
                    {3, 4, multiply<E4M3, N, 3, 4>}, {1, 3, multiply<E4M3, N, 1, 3>}};
        for (int half : {0, 1})
            for (const auto &run : runs) {
                device_array<float> out((size_t)(64 * N));
                assert_ran(launch(run.kernel, {dim3(1), dim3(GROUP), tile_bytes, NULL, false},
                                  a_map.p, b_map.p, half, out.p));
                std::vector<float> found = out.read();
                for (int r = 0; r < 64; r++)
                    for (int n = 0; n < N; n++) {
                        int sum = 0;
                        for (int i = run.begin * k / steps; i < run.end * k / steps; i++)
                            sum += a_number(64 * half + r, i) * b_number(n, i);
                        if (found[(size_t)(r * N + n)] != (float)sum)
                            fail_msg("steps %d to %d, half %d: row %d, column %d: expected %d, "
                                     "found %g",
                                     run.begin, run.end, half, r, n, sum,
                                     (double)found[(size_t)(r * N + n)]);
                    }
            }
    }
}

static void products_of_bf16_patterns(void **state)
{
    (void)state;
    patterns<false, 256>();
}

static void products_of_e4m3_patterns(void **state)
{
    (void)state;
    patterns<true, 128>();
}

/* ---- Products against plain sums ---- */

struct matrix {
    int rows, cols;
    halves x;
};

static struct matrix random_matrix(uint64_t seed, int rows, int cols)
{
    return {rows, cols, bf16_of(random_numbers(seed, (size_t)rows * (size_t)cols))};
}

static struct matrix rows_of(const struct matrix &m, int first, int n)
{
    size_t cols = (size_t)m.cols;
    return {n, m.cols, part(m.x, (size_t)first * cols, (size_t)n * cols)};
}

/* x . w^T in double precision, and the sums of the magnitudes. */
static __global__ void plain_product(const uint16_t *x, const uint16_t *w, int m, int n, int k,
                                     double *sum, double *magnitude)
{
    int j = (int)(blockIdx.x * blockDim.x + threadIdx.x), i = (int)blockIdx.y;
    if (j >= n || i >= m)
        return;
    double s = 0.0, all = 0.0;
    for (int c = 0; c < k; c++) {
        double p = (double)bf16_to_f32(x[(size_t)i * (size_t)k + (size_t)c]) *
                   (double)bf16_to_f32(w[(size_t)j * (size_t)k + (size_t)c]);
        s += p;
        all += fabs(p);
    }
    sum[(size_t)i * (size_t)n + (size_t)j] = s;
    magnitude[(size_t)i * (size_t)n + (size_t)j] = all;
}

struct plain {
    std::vector<double> sum, slack;
};

/* slack: each step of sixteen rounds, or cuts, a sum no larger than that of the magnitudes to
 * about 22 bits. */
static struct plain plain_of(const struct matrix &x, const struct matrix &w)
{
    device_array<uint16_t> dx(x.x), dw(w.x);
    size_t n = (size_t)x.rows * (size_t)w.rows;
    device_array<double> sum(n), magnitude(n);
    dim3 grid((unsigned)(w.rows + 127) / 128, (unsigned)x.rows);
    assert_ran(launch(plain_product, {grid, dim3(128), 0, NULL, false}, dx.p, dw.p, x.rows, w.rows,
                      x.cols, sum.p, magnitude.p));
    struct plain out = {sum.read(), magnitude.read()};
    for (double &s : out.slack)
        s *= (x.cols / 16 + 2) * 0x1p-21;
    return out;
}

static std::vector<float> product(const struct matrix &x, const struct matrix &w,
                                  const std::vector<float> &bias = {})
{
    device_array<uint16_t> dx(x.x), dw(w.x);
    device_array<float> db(bias), y((size_t)x.rows * (size_t)w.rows);
    struct cuda_part part = {{dw.p, w.rows, w.cols}, bias.empty() ? NULL : db.p, y.p, w.rows};
    assert_ran(cuda_fast_gemm(dx.p, x.rows, &part, 1, NULL));
    return y.read();
}

static const int shapes[][3] = {{1, 1, 8},       {1, 8, 64},       {5, 3, 40},
                                {64, 256, 64},   {128, 256, 256},  {129, 257, 72},
                                {63, 511, 320},  {300, 1000, 520}, {1000, 40, 136},
                                {700, 2570, 96}, {2050, 768, 2048}};

static void products_of_any_shape(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (const int *shape : shapes) {
        struct matrix x = random_matrix(seed++, shape[0], shape[2]);
        struct matrix w = random_matrix(seed++, shape[1], shape[2]);
        std::vector<float> bias = random_numbers(seed++, (size_t)w.rows);
        std::vector<float> y = product(x, w), biased = product(x, w, bias);
        struct plain expected = plain_of(x, w);
        for (size_t i = 0; i < y.size(); i++) {
            assert_near(i, (double)y[i], expected.sum[i], expected.slack[i]);
            assert_true(biased[i] == y[i] + bias[i % (size_t)w.rows]);
        }
    }
}

/* As q, k and v are: of one launch, two into a wider y, which keeps its other columns. */
static void parts_are_what_they_are_alone(void **state)
{
    (void)state;
    const int cols = 200, rows[] = {300, 0, 33};
    for (int wide : {350, 351})
        for (int m : {7, 200}) {
            struct matrix x = random_matrix(3, m, cols), w0 = random_matrix(4, rows[0], cols),
                          w2 = random_matrix(5, rows[2], cols);
            device_array<uint16_t> dx(x.x), d0(w0.x), d2(w2.x);
            device_array<float> y(std::vector<float>((size_t)(m * wide), 7.0f));
            const struct cuda_part parts[] = {{{d0.p, rows[0], cols}, NULL, y.p, wide},
                                              {{NULL, 0, cols}, NULL, NULL, 0},
                                              {{d2.p, rows[2], cols}, NULL, y.p + 301, wide}};
            assert_ran(cuda_fast_gemm(dx.p, m, parts, 3, NULL));
            std::vector<float> found = y.read(), y0 = product(x, w0), y2 = product(x, w2);
            for (int i = 0; i < m; i++)
                for (int j = 0; j < wide; j++) {
                    float expected = j < 300               ? y0[(size_t)(i * 300 + j)]
                                     : j >= 301 && j < 334 ? y2[(size_t)(i * 33 + j - 301)]
                                                           : 7.0f;
                    assert_true(found[(size_t)(i * wide + j)] == expected);
                }
        }
}

static void a_row_is_the_same_in_any_batch(void **state)
{
    (void)state;
    for (int cols : {64, 520}) {
        struct matrix x = random_matrix(6, 700, cols), w = random_matrix(7, 300, cols);
        std::vector<float> all = product(x, w);
        for (int first : {0, 37, 300})
            for (int m : {1, 63, 64, 65, 128, 200})
                assert_same(product(rows_of(x, first, m), w),
                            part(all, (size_t)(first * 300), (size_t)(m * 300)));
    }
}

/* More tiles than blocks at once, so that rings go on from tile to tile. */
static void twenty_runs_give_the_same_bits(void **state)
{
    (void)state;
    struct matrix x = random_matrix(8, 2000, 1032), w = random_matrix(9, 5000, 1032);
    std::vector<float> first = product(x, w);
    for (int i = 1; i < 20; i++)
        assert_same(product(x, w), first);
}

static double exactly_rounded(double x)
{
    return ldexp(rint(ldexp(x, 32)), -32);
}

static void sums_are_rounded_products(void **state)
{
    (void)state;
    const int sizes[][3] = {{1, 1, 8}, {70, 300, 264}, {200, 257, 128}};
    for (const int *size : sizes) {
        struct matrix x = random_matrix(10, size[0], size[2]);
        struct matrix w = random_matrix(11, size[1], size[2]);
        x.x[0] = 0x4b00; /* 2^23: the first row's sums are beyond the range, most of them */
        std::vector<float> y = product(x, w);
        device_array<uint16_t> dx(x.x), dw(w.x);
        device_array<double> sum(y.size());
        device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 5));
        assert_ran(
            cuda_fast_gemm_sum(dx.p, x.rows, {dw.p, w.rows, w.cols}, 4, sum.p, beyond.p, NULL));
        std::vector<double> found = sum.read();
        unsigned long long expected = 5;
        for (size_t i = 0; i < y.size(); i++) {
            bool inside = fabsf(y[i]) < 1048576.0f / 4;
            expected += !inside;
            if (inside)
                assert_true(found[i] == exactly_rounded((double)y[i]));
        }
        assert_int_equal(beyond.read()[0], expected);
    }
}

/* ---- Experts against the reproducible kernels ---- */

struct expert {
    struct matrix gate, up, down;
};

struct experts {
    int columns, hidden;
    std::vector<struct expert> of;
    std::vector<std::unique_ptr<device_array<uint16_t>>> data;
    std::unique_ptr<device_array<struct cuda_ffn>> ffn;
    std::unique_ptr<device_array<struct cuda_fast_ffn>> maps;

    experts(uint64_t seed, int count, int columns_, int hidden_)
        : columns(columns_), hidden(hidden_)
    {
        std::vector<struct cuda_ffn> table;
        for (int i = 0; i < count; i++, seed += 3) {
            of.push_back({random_matrix(seed, columns, hidden),
                          random_matrix(seed + 1, columns, hidden),
                          random_matrix(seed + 2, hidden, columns)});
            table.push_back({put(of.back().gate), put(of.back().up), put(of.back().down)});
        }
        std::vector<struct cuda_fast_ffn> made(table.size());
        assert_int_equal(cuda_fast_maps(table.data(), count, columns, hidden, made.data()), 0);
        ffn.reset(new device_array<struct cuda_ffn>(table));
        maps.reset(new device_array<struct cuda_fast_ffn>(made));
    }

  private:
    const uint16_t *put(const struct matrix &m)
    {
        data.emplace_back(new device_array<uint16_t>(m.x));
        return data.back()->p;
    }
};

struct mixed {
    halves h;
    std::vector<float> y; /* what slots past the last held is left */
    std::vector<double> sum;
    unsigned long long out_of_range;
};

/* Both halves. `spare`: how many more slots the host allows than there are. */
static struct mixed mix(const struct experts &e, const struct slots &s, const struct matrix &xn,
                        int spare = 0)
{
    int32_t count = (int32_t)e.of.size(), slots = (int32_t)s.row.size() + spare;
    device_slots on_device(s);
    struct cuda_route route = on_device.route();
    size_t n = (size_t)slots;
    device_array<uint16_t> x(xn.x), packed(n * (size_t)e.hidden);
    device_array<uint16_t> h(halves(n * (size_t)e.columns, 0x1234));
    device_array<float> y(std::vector<float>(n * (size_t)e.hidden, 7.0f));
    device_array<double> sum((size_t)(xn.rows * e.hidden));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    assert_ran(cuda_fast_ffn_up(e.maps->p, count, slots, e.columns, e.hidden, route, x.p, packed.p,
                                h.p, NULL));
    assert_ran(cuda_fast_ffn_down(xn.rows, e.maps->p, count, slots, e.columns, e.hidden, route, 3,
                                  h.p, y.p, sum.p, beyond.p, NULL));
    return {h.read(), y.read(), sum.read(), beyond.read()[0]};
}

/* The reproducible kernels: h of xn; the sum of that other h. */
static struct mixed mix_reproducibly(const struct experts &e, const struct slots &s,
                                     const struct matrix &xn, const halves &other)
{
    int32_t count = (int32_t)e.of.size(), slots = (int32_t)s.row.size();
    device_slots on_device(s);
    device_array<uint16_t> x(xn.x), h((size_t)(slots * e.columns)), from(other);
    device_array<double> sum(std::vector<double>((size_t)(xn.rows * e.hidden), 0.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    assert_ran(cuda_ffn_up(e.ffn->p, {}, count, slots, e.columns, e.hidden, on_device.route(), x.p,
                           h.p, NULL));
    assert_ran(cuda_ffn_down(xn.rows, e.ffn->p, {}, count, slots, e.columns, e.hidden,
                             on_device.route(), 3, from.p, sum.p, beyond.p, NULL));
    return {h.read(), {}, sum.read(), beyond.read()[0]};
}

/* 0, 1, 64, 65, 130 and all rows, for experts 0 to 5. */
static bool takes_some(int e, int i)
{
    const int counts[] = {0, 1, 64, 65, 130, 1 << 20};
    return i < counts[e % 6];
}

/* What rounding of the products may do to h = silu(g) u, whose slope along g is at most 1.1. */
static double h_slack(double g, double g_slack, double u, double u_slack)
{
    double silu = g / (1.0 + exp(-g));
    return 1.1 * g_slack * (fabs(u) + u_slack) + fabs(silu) * u_slack + fabs(silu * u) * 0x1p-7;
}

static void experts_are_near_the_reproducible(void **state)
{
    (void)state;
    const int sizes[][3] = {{136, 328, 300}, {8, 8, 70}, {768, 512, 140}, {128, 64, 1}};
    uint64_t seed = 100;
    for (const int *size : sizes) {
        struct experts e(seed, 6, size[0], size[1]);
        struct matrix xn = random_matrix(seed += 20, size[2], size[1]);
        struct slots s = slots_of(6, size[2], takes_some);
        const int spare = 5;
        struct mixed fast = mix(e, s, xn, spare);
        size_t slots = s.row.size(), columns = (size_t)e.columns, hidden = (size_t)e.hidden;
        for (size_t i = slots * columns; i < fast.h.size(); i++)
            assert_int_equal(fast.h[i], 0x1234);
        for (size_t i = slots * hidden; i < fast.y.size(); i++)
            assert_true(fast.y[i] == 7.0f);
        halves h = part(fast.h, 0, slots * columns);
        struct mixed slow = mix_reproducibly(e, s, xn, h);
        std::vector<double> slack((size_t)size[2] * hidden, 6 * 2 * 0x1p-32);
        for (size_t x = 0; x < 6; x++) {
            struct plain g = plain_of(xn, e.of[x].gate), u = plain_of(xn, e.of[x].up);
            size_t first = (size_t)s.first[x], n = (size_t)s.first[x + 1] - first;
            if (n == 0)
                continue;
            struct matrix mine = {(int)n, e.columns, part(h, first * columns, n * columns)};
            struct plain down = plain_of(mine, e.of[x].down);
            for (size_t slot = first; slot < first + n; slot++) {
                size_t row = (size_t)s.row[slot];
                for (size_t j = 0; j < columns; j++) {
                    size_t at = row * columns + j;
                    assert_near(slot * columns + j, (double)bf16_value(h[slot * columns + j]),
                                (double)bf16_value(slow.h[slot * columns + j]),
                                2 * h_slack(g.sum[at], g.slack[at], u.sum[at], u.slack[at]));
                }
                for (size_t j = 0; j < hidden; j++) {
                    size_t at = (slot - first) * hidden + j;
                    slack[row * hidden + j] += (double)s.weight[slot] *
                                               (2 * down.slack[at] + fabs(down.sum[at]) * 0x1p-20);
                }
            }
        }
        assert_int_equal(fast.out_of_range, 0);
        for (size_t i = 0; i < slack.size(); i++)
            assert_near(i, fast.sum[i], slow.sum[i], slack[i]);
    }
}

static void experts_give_the_same_bits_twenty_times(void **state)
{
    (void)state;
    struct experts e(200, 12, 264, 520);
    struct matrix xn = random_matrix(250, 900, 520);
    struct slots s = slots_of(12, 900, takes_some);
    struct mixed first = mix(e, s, xn);
    for (int i = 1; i < 20; i++) {
        struct mixed again = mix(e, s, xn);
        assert_same(again.h, first.h);
        assert_same(again.sum, first.sum);
    }
}

/* A row alone has the bits that it has among others, wherever its slots were in their tiles. */
static void a_row_is_the_same_among_any_others(void **state)
{
    (void)state;
    const int rows = 300;
    struct experts e(300, 6, 136, 264);
    struct matrix xn = random_matrix(350, rows, 264);
    struct slots s = slots_of(6, rows, takes_some);
    struct mixed all = mix(e, s, xn);
    for (int i : {0, 63, 64, 129, 299}) {
        struct slots one = {{0}, {}, {}};
        halves h;
        for (size_t x = 0; x < 6; x++) {
            for (size_t slot = (size_t)s.first[x]; slot < (size_t)s.first[x + 1]; slot++)
                if (s.row[slot] == i) {
                    one.row.push_back(0);
                    one.weight.push_back(s.weight[slot]);
                    halves mine = part(all.h, slot * 136, 136);
                    h.insert(h.end(), mine.begin(), mine.end());
                }
            one.first.push_back((int32_t)one.row.size());
        }
        struct mixed alone = mix(e, one, rows_of(xn, i, 1));
        assert_same(alone.h, h);
        assert_same(alone.sum, part(all.sum, (size_t)i * 264, 264));
    }
}

/* A slot that is not a number keeps to its row, though its tile holds others' slots. */
static void a_bad_row_stays_alone(void **state)
{
    (void)state;
    struct experts e(400, 6, 136, 264);
    struct matrix xn = random_matrix(450, 140, 264);
    struct slots s = slots_of(6, 140, takes_some);
    std::vector<double> clean = mix(e, s, xn).sum;
    xn.x[64 * 264 + 17] = 0x7fc0;
    struct mixed found = mix(e, s, xn);
    assert_int_equal(found.out_of_range, 264);
    for (size_t i = 0; i < clean.size(); i++)
        assert_true(i / 264 == 64 ? isnan(found.sum[i]) : found.sum[i] == clean[i]);
}

static void products_of_nothing(void **state)
{
    (void)state;
    const struct cuda_route none = {};
    const struct cuda_part part = {{NULL, 0, 32}, NULL, NULL, 0};
    assert_ran(cuda_fast_maps(NULL, 0, 8, 8, NULL));
    assert_ran(cuda_fast_gemm(NULL, 4, &part, 1, NULL));
    assert_ran(cuda_fast_gemm_sum(NULL, 0, {NULL, 8, 8}, 1, NULL, NULL, NULL));
    assert_ran(cuda_fast_ffn_up(NULL, 0, 8, 16, 8, none, NULL, NULL, NULL, NULL));
    assert_ran(cuda_fast_ffn_down(2, NULL, 2, 0, 16, 8, none, 4, NULL, NULL, NULL, NULL, NULL));
    assert_true(
        cuda_fast_ffn_up(NULL, CUDA_FAST_EXPERTS + 1, 8, 16, 8, none, NULL, NULL, NULL, NULL) != 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(boxes_are_swizzled_and_filled),
    cmocka_unit_test(barriers_keep_their_phases),
    cmocka_unit_test(products_of_bf16_patterns),
    cmocka_unit_test(products_of_e4m3_patterns),
    cmocka_unit_test(products_of_any_shape),
    cmocka_unit_test(parts_are_what_they_are_alone),
    cmocka_unit_test(a_row_is_the_same_in_any_batch),
    cmocka_unit_test(twenty_runs_give_the_same_bits),
    cmocka_unit_test(sums_are_rounded_products),
    cmocka_unit_test(experts_are_near_the_reproducible),
    cmocka_unit_test(experts_give_the_same_bits_twenty_times),
    cmocka_unit_test(a_row_is_the_same_among_any_others),
    cmocka_unit_test(a_bad_row_stays_alone),
    cmocka_unit_test(products_of_nothing),
};

int main(int argc, char **argv)
{
    int devices = 0, major = 0, minor = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        fprintf(stderr, "skipped: there is no GPU\n");
        return 77;
    }
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) != cudaSuccess)
        return 1;
    if (major != 9 || minor != 0) {
        fprintf(stderr, "skipped: the GPU is of compute capability %d.%d, not 9.0\n", major, minor);
        return 77;
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
