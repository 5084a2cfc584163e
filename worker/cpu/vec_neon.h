/* The lanes of vec.h in NEON, as every 64-bit ARM has it: a v16 is four registers. */
#ifndef WITAN_WORKER_CPU_VEC_NEON_H
#define WITAN_WORKER_CPU_VEC_NEON_H

typedef struct {
    float32x4_t q[4];
} v16;
typedef float32x4_t vr;
enum { V_REGISTER = 4 };

#define V_FOUR(expr)                                                                               \
    v16 r;                                                                                         \
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) r.q[i] = (expr);                           \
    return r

VEC_INLINE vr r_zero(void)
{
    return vdupq_n_f32(0.0f);
}
VEC_INLINE vr r_load(const float *p)
{
    return vld1q_f32(p);
}
VEC_INLINE vr r_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16));
}
VEC_INLINE vr r_load_f16(const uint16_t *p)
{
#if defined(WITAN_SIMDE)
    const float t[4] = {f16_to_f32(p[0]), f16_to_f32(p[1]), f16_to_f32(p[2]), f16_to_f32(p[3])};
    return vld1q_f32(t);
#else
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#endif
}
VEC_INLINE vr r_fma(vr a, vr b, vr c)
{
    return vfmaq_f32(c, a, b);
}
/* Not vmaxq, which would make NaN of one NaN and knows zeros apart. */
VEC_INLINE vr r_select(uint32x4_t which, vr a, vr b)
{
    return vbslq_f32(which, a, b);
}
VEC_INLINE v16 v_join(const vr part[4])
{
    V_FOUR(part[i]);
}
VEC_INLINE v16 v_zero(void)
{
    V_FOUR(r_zero());
}
VEC_INLINE v16 v_set(float a)
{
    V_FOUR(vdupq_n_f32(a));
}
VEC_INLINE v16 v_load(const float *p)
{
    V_FOUR(vld1q_f32(p + 4 * i));
}
VEC_INLINE v16 v_load_bf16(const uint16_t *p)
{
    V_FOUR(r_load_bf16(p + 4 * i));
}
VEC_INLINE v16 v_load_f16(const uint16_t *p)
{
    V_FOUR(r_load_f16(p + 4 * i));
}
VEC_INLINE v16 v_load_i8(const int8_t *p)
{
    int8x16_t codes = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(codes)), hi = vmovl_s8(vget_high_s8(codes));
    return (v16){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}
VEC_INLINE void v_store(float *p, v16 a)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, a.q[i]);
}
VEC_INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    V_FOUR(vfmaq_f32(c.q[i], a.q[i], b.q[i]));
}
VEC_INLINE v16 v_add(v16 a, v16 b)
{
    V_FOUR(vaddq_f32(a.q[i], b.q[i]));
}
VEC_INLINE v16 v_sub(v16 a, v16 b)
{
    V_FOUR(vsubq_f32(a.q[i], b.q[i]));
}
VEC_INLINE v16 v_mul(v16 a, v16 b)
{
    V_FOUR(vmulq_f32(a.q[i], b.q[i]));
}
VEC_INLINE v16 v_div(v16 a, v16 b)
{
    V_FOUR(a.q[i] / b.q[i]); /* vdivq_f32, which SIMDe lacks */
}
VEC_INLINE v16 v_max(v16 a, v16 b)
{
    V_FOUR(r_select(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]));
}
VEC_INLINE v16 v_min(v16 a, v16 b)
{
    V_FOUR(r_select(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]));
}
VEC_INLINE vr r_scale2(vr p, vr t)
{
    uint32x4_t n = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), n));
}
VEC_INLINE v16 v_scale2(v16 p, v16 t)
{
    V_FOUR(r_scale2(p.q[i], t.q[i]));
}
/* A bit for each lane of a comparison. */
VEC_INLINE uint32_t r_bits(uint32x4_t lanes)
{
    const uint32_t bit[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(lanes, vld1q_u32(bit)));
}
VEC_INLINE uint32_t v_at_least(v16 a, v16 b)
{
    uint32_t bits = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        bits |= r_bits(vcgeq_f32(a.q[i], b.q[i])) << 4 * i;
    return bits;
}
VEC_INLINE uint32_t v_nans(v16 a)
{
    return ~v_at_least(a, a) & 0xffffu;
}
VEC_INLINE vr quarter_sum(v16 a)
{
    return vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
}
/* The halves of a added, and those of b; then neighbours are what is left to add. */
VEC_INLINE vr fold(vr a, vr b)
{
    return vaddq_f32(vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
                     vcombine_f32(vget_high_f32(a), vget_high_f32(b)));
}
VEC_INLINE float v_sum(v16 a)
{
    vr q = quarter_sum(a);
    return vaddv_f32(vadd_f32(vget_low_f32(q), vget_high_f32(q)));
}
VEC_INLINE void v_sum8(const v16 *a, float out[8])
{
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        vr r0 = fold(quarter_sum(a[i]), quarter_sum(a[i + 1]));
        vr r1 = fold(quarter_sum(a[i + 2]), quarter_sum(a[i + 3]));
        vst1q_f32(out + i, vpaddq_f32(r0, r1));
    }
}

#endif
