// Causal convolution of real rows with one real filter a channel, and its gradients, by complex transforms that stay on the chip.
//
// Two rows of a batch are the real and the imaginary part of one complex signal: the filter is real, so that they come out apart. A
// transform of POINTS points is held by POINTS / 16 threads of a block, 16 points each, in registers; passes of radix 16 (the last one
// 2, 4 or 8) trade points through shared memory. Forward transforms leave their digits reversed and inverse ones take them so: products
// of spectra do not care, and nothing is ever reordered. (Decimation in frequency, Gentleman and Sande 1966; its transpose for the way
// back.) Element e of thread t of any spectrum stands at e * POINTS / 16 + t.
//
// Rows too long for one block are split: POINTS_TOTAL = RADIX * POINTS, one pass of radix RADIX over the whole row by `split`, which
// leaves RADIX complex rows of POINTS points (REAL is float2 then), and back by `join`.

using position = long long;

struct bfloat {
    unsigned short bits;
};
struct half {
    unsigned short bits;
};

__device__ __forceinline__ float wide(float value) { return value; }
__device__ __forceinline__ float wide(bfloat value) { return __uint_as_float((unsigned)value.bits << 16); }
__device__ __forceinline__ void narrow(float value, float* out) { *out = value; }
__device__ __forceinline__ void narrow(float value, bfloat* out) {
    const unsigned bits = __float_as_uint(value);
    const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
    // to nearest, ties to even
    out->bits = number ? (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16) : (unsigned short)0x7fffu;
}
#ifdef __CUDA_ARCH__
__device__ __forceinline__ float wide(half value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
__device__ __forceinline__ void narrow(float value, half* out) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out->bits) : "f"(value)); }
#endif

__device__ __forceinline__ float2 plus(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
__device__ __forceinline__ float2 minus(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }
__device__ __forceinline__ float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
__device__ __forceinline__ float2 scaled(float2 a, float s) { return make_float2(a.x * s, a.y * s); }

// ---- butterflies: exp(-2 pi i / R) forward, its conjugate back ----

template <bool INVERSE>
__device__ __forceinline__ float2 quarter(float2 a) {
    return INVERSE ? make_float2(-a.y, a.x) : make_float2(a.y, -a.x);
}

// a * exp(-2 pi i step / 16)
template <bool INVERSE>
__device__ __forceinline__ float2 turned(float2 a, int step) {
    const float c = 0.92387953251128674f, s = 0.38268343236508977f, h = 0.70710678118654752f;
    const float sign = INVERSE ? 1.0f : -1.0f;
    switch (step) {
        case 0: return a;
        case 1: return times(a, make_float2(c, sign * s));
        case 2: return times(a, make_float2(h, sign * h));
        case 3: return times(a, make_float2(s, sign * c));
        case 4: return quarter<INVERSE>(a);
        case 6: return times(a, make_float2(-h, sign * h));
        default: return times(a, make_float2(-c, -sign * s));  // 9
    }
}

template <bool INVERSE>
__device__ __forceinline__ void butterfly4(float2& a, float2& b, float2& c, float2& d) {
    const float2 even = plus(a, c), odd = minus(a, c), sum = plus(b, d), difference = quarter<INVERSE>(minus(b, d));
    a = plus(even, sum);
    b = plus(odd, difference);
    c = minus(even, sum);
    d = minus(odd, difference);
}

// HALF: the second half of x is zero, and is not looked at
template <bool INVERSE, bool HALF>
__device__ __forceinline__ void butterfly16(float2* x) {
    float2 y[16];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        if (HALF) {
            const float2 a = x[k], b = x[k + 4], side = quarter<INVERSE>(b);
            y[4 * k] = plus(a, b), y[4 * k + 1] = plus(a, side), y[4 * k + 2] = minus(a, b), y[4 * k + 3] = minus(a, side);
        } else {
            y[4 * k] = x[k], y[4 * k + 1] = x[k + 4], y[4 * k + 2] = x[k + 8], y[4 * k + 3] = x[k + 12];
            butterfly4<INVERSE>(y[4 * k], y[4 * k + 1], y[4 * k + 2], y[4 * k + 3]);
        }
#pragma unroll
        for (int m = 1; m < 4; ++m) y[4 * k + m] = turned<INVERSE>(y[4 * k + m], k * m);
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) {
        butterfly4<INVERSE>(y[m], y[4 + m], y[8 + m], y[12 + m]);
#pragma unroll
        for (int k = 0; k < 4; ++k) x[m + 4 * k] = y[4 * k + m];
    }
}

template <int RADIX, bool INVERSE>
__device__ __forceinline__ void butterfly(float2* x) {
    if constexpr (RADIX == 2) {
        const float2 a = x[0], b = x[1];
        x[0] = plus(a, b), x[1] = minus(a, b);
    } else if constexpr (RADIX == 4) {
        butterfly4<INVERSE>(x[0], x[1], x[2], x[3]);
    } else if constexpr (RADIX == 8) {
        butterfly4<INVERSE>(x[0], x[2], x[4], x[6]);
        butterfly4<INVERSE>(x[1], x[3], x[5], x[7]);
        const float2 even[4] = {x[0], x[2], x[4], x[6]};
        const float2 odd[4] = {x[1], turned<INVERSE>(x[3], 2), turned<INVERSE>(x[5], 4), turned<INVERSE>(x[7], 6)};
#pragma unroll
        for (int k = 0; k < 4; ++k) x[k] = plus(even[k], odd[k]), x[k + 4] = minus(even[k], odd[k]);
    } else {
        butterfly16<INVERSE, false>(x);
    }
}

// exp(-2 pi i part / whole); part / whole is exact for powers of two up to 2^24
__device__ __forceinline__ float2 root(int part, int whole) {
    float2 w;
    sincospif(-2.0f * (float)part / (float)whole, &w.y, &w.x);
    return w;
}

// Compilers keep what does not change over a loop, and whatever follows from it, in registers that are not there; not after this.
#ifdef __CUDA_ARCH__
__device__ __forceinline__ void fresh(float2& w) { asm volatile("" : "+f"(w.x), "+f"(w.y)); }
__device__ __forceinline__ void fresh(int& t) { asm volatile("" : "+r"(t)); }
#else
__device__ __forceinline__ void fresh(float2&) {}
__device__ __forceinline__ void fresh(int&) {}
#endif

// x[m] *= w^m; products of at most four powers, so that errors do not grow with m
template <int RADIX, bool INVERSE>
__device__ __forceinline__ void twiddle(float2* x, float2 w) {
    if (INVERSE) w.y = -w.y;
    fresh(w);
    float2 first[4], step = make_float2(1.0f, 0.0f);
    first[1] = w, first[2] = times(w, w), first[3] = times(first[2], w);
    const float2 fourth = times(first[2], first[2]), eighth = times(fourth, fourth);
#pragma unroll
    for (int k = 0; k < RADIX; k += 4) {
        if (k == 4) step = fourth;
        if (k == 8) step = eighth;
        if (k == 12) step = times(eighth, fourth);
        if (k) x[k] = times(x[k], step);
#pragma unroll
        for (int m = 1; m < 4 && k + m < RADIX; ++m) x[k + m] = times(x[k + m], k ? times(step, first[m]) : first[m]);
    }
}

// ---- transforms of POINTS points by POINTS / 16 threads ----

template <int POINTS>
struct Plan {
    static constexpr int threads = POINTS / 16;
    static constexpr int block = threads < 128 ? 128 : threads;
    static constexpr int padded = POINTS + POINTS / 16;  // a step of 16 points moves on by one bank
};

// Where a thread's points of the pass over parts of LENGTH points lie in shared memory: base(t) + offset(e).
template <int POINTS, int LENGTH>
struct Place {
    static constexpr int stride = LENGTH >= 16 ? LENGTH / 16 : 1;
    static __device__ __forceinline__ int base(int t) {
        const int p = LENGTH >= 16 ? t / stride * LENGTH + t % stride : t * LENGTH;
        return p + p / 16;
    }
    static __device__ __forceinline__ constexpr int offset(int e) {
        if (LENGTH >= 16) return e * stride + e * stride / 16;
        return e / LENGTH * (POINTS / 16 * LENGTH / 16 * 17) + e % LENGTH;
    }
};

template <int POINTS, int FROM, int TO>
__device__ __forceinline__ void exchange(float2* x, float2* shared, int t) {
    float2* out = shared + Place<POINTS, FROM>::base(t);
    const float2* in = shared + Place<POINTS, TO>::base(t);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 16; ++e) out[Place<POINTS, FROM>::offset(e)] = x[e];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = in[Place<POINTS, TO>::offset(e)];
}

// the first power of the twiddles of each pass
template <int POINTS>
__device__ __forceinline__ void roots(float2* w, int t) {
#pragma unroll
    for (int level = 0, length = POINTS; length > 16; ++level, length /= 16) w[level] = root(t % (length / 16), length);
}

template <int POINTS, int LENGTH, bool HALF>
__device__ __forceinline__ void forward(float2* x, const float2* w, float2* shared, int t) {
    if constexpr (LENGTH >= 16) {
        butterfly16<false, HALF>(x);
    } else {
#pragma unroll
        for (int e = 0; e < 16; e += LENGTH) butterfly<LENGTH, false>(x + e);
    }
    if constexpr (LENGTH > 16) {
        twiddle<16, false>(x, *w);
        exchange<POINTS, LENGTH, LENGTH / 16>(x, shared, t);
        forward<POINTS, LENGTH / 16, false>(x, w + 1, shared, t);
    }
}

template <int POINTS, int LENGTH>
__device__ __forceinline__ void inverse(float2* x, const float2* w, float2* shared, int t) {
    if constexpr (LENGTH > 16) {
        inverse<POINTS, LENGTH / 16>(x, w + 1, shared, t);
        exchange<POINTS, LENGTH / 16, LENGTH>(x, shared, t);
        twiddle<16, true>(x, *w);
    }
    if constexpr (LENGTH >= 16) {
        butterfly16<true, false>(x);
    } else {
#pragma unroll
        for (int e = 0; e < 16; e += LENGTH) butterfly<LENGTH, true>(x + e);
    }
}

// ---- rows in global memory: real ones (batch, channels, length) in pairs, or complex ones (pairs, channels, POINTS) ----

template <class REAL>
struct Rows {
    static constexpr bool half = true;
};
template <>
struct Rows<float2> {
    static constexpr bool half = false;
};

template <int POINTS, class REAL>
__device__ __forceinline__ void load(float2* x, const REAL* data, int pair, int channel, int batch, int channels, int length, int t) {
    const bool both = 2 * pair + 1 < batch;
    const REAL* first = data + ((position)(2 * pair) * channels + channel) * length;
    const REAL* second = first + (position)channels * length;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const int n = e * (POINTS / 16) + t;
        x[e] = make_float2(n < length ? wide(first[n]) : 0.0f, both && n < length ? wide(second[n]) : 0.0f);
    }
}

template <int POINTS>
__device__ __forceinline__ void load(float2* x, const float2* data, int pair, int channel, int, int channels, int, int t) {
    const float2* row = data + ((position)pair * channels + channel) * POINTS;
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = row[e * (POINTS / 16) + t];
}

template <int POINTS, class REAL>
__device__ __forceinline__ void store(const float2* x, REAL* data, int pair, int channel, int batch, int channels, int length, int t) {
    const bool both = 2 * pair + 1 < batch;
    REAL* first = data + ((position)(2 * pair) * channels + channel) * length;
    REAL* second = first + (position)channels * length;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const int n = e * (POINTS / 16) + t;
        if (n < length) narrow(x[e].x, first + n);
        if (both && n < length) narrow(x[e].y, second + n);
    }
}

template <int POINTS>
__device__ __forceinline__ void store(const float2* x, float2* data, int pair, int channel, int, int channels, int, int t) {
    float2* row = data + ((position)pair * channels + channel) * POINTS;
#pragma unroll
    for (int e = 0; e < 16; ++e) row[e * (POINTS / 16) + t] = x[e];
}

extern __shared__ float2 memory[];

// ---- kernels; blockDim = (POINTS / 16, transforms of a block) ----

// spectra (channels, POINTS) of taps (channels, length), over `total`, so that inverse transforms need no factor
template <int POINTS, class REAL>
__global__ __launch_bounds__(Plan<POINTS>::block) void spectrum(const REAL* taps, float2* out, int channels, int length, int total) {
    const int t = threadIdx.x;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const int channel = unit < channels ? (int)unit : channels - 1;
    float2 x[16], w[4];
    roots<POINTS>(w, t);
    load<POINTS>(x, taps, 0, channel, 1, channels, length, t);
    forward<POINTS, POINTS, Rows<REAL>::half>(x, w, memory + threadIdx.y * Plan<POINTS>::padded, t);
    const float scale = 1.0f / (float)total;
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = scaled(x[e], scale);
    if (unit < channels) store<POINTS>(x, out, 0, channel, 0, channels, 0, t);
}

// y = u * taps, or with `adjoint` the gradient of u from that of y
template <int POINTS, class REAL>
__global__ __launch_bounds__(Plan<POINTS>::block, 1024 / Plan<POINTS>::block) void convolve(
    const REAL* u, const float2* spectra, REAL* y, int batch, int channels, int length, int adjoint) {
    const int t = threadIdx.x, pairs = (batch + 1) / 2;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const bool inside = unit < (position)channels * pairs;
    const int channel = inside ? (int)(unit / pairs) : 0, pair = inside ? (int)(unit % pairs) : 0;
    const float side = adjoint ? -1.0f : 1.0f;
    float2* shared = memory + threadIdx.y * Plan<POINTS>::padded;
    const float2* taps = spectra + (position)channel * POINTS + t;
    float2 x[16], w[4];
    roots<POINTS>(w, t);
    load<POINTS>(x, u, pair, channel, batch, channels, length, t);
    forward<POINTS, POINTS, Rows<REAL>::half>(x, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const float2 s = taps[e * (POINTS / 16)];
        x[e] = times(x[e], make_float2(s.x, side * s.y));
    }
    inverse<POINTS, POINTS>(x, w, shared, t);
    if (inside) store<POINTS>(x, y, pair, channel, batch, channels, length, t);
}

// The gradient of u, and that of the taps as spectra (splits, channels, POINTS), one of each split of the batch. With z = u1 + i u2 and
// d = dy1 + i dy2, the real part of the inverse transform of conj(Z) D is corr(u1, dy1) + corr(u2, dy2): all pairs add up before one
// inverse transform. `kept` (splits, channels, POINTS) holds Z of the largest transforms, whose threads have no registers left for it.
template <int POINTS, class REAL>
__global__ __launch_bounds__(Plan<POINTS>::block, Plan<POINTS>::block <= 512 ? 512 / Plan<POINTS>::block : 1) void backward(
    const REAL* u, const REAL* dy, const float2* spectra, REAL* du, float2* partial, float2* kept,
    int batch, int channels, int length, int splits) {
    constexpr bool KEEP = Plan<POINTS>::block > 512;
    const int t = threadIdx.x, pairs = (batch + 1) / 2, steps = (pairs + splits - 1) / splits;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const bool live = unit < (position)channels * splits;
    const int channel = live ? (int)(unit % channels) : 0, split = live ? (int)(unit / channels) : 0;
    float2* shared = memory + threadIdx.y * Plan<POINTS>::padded;
    const float2* taps = spectra + (position)channel * POINTS + t;
    float2* sums = partial + ((position)split * channels + channel) * POINTS + t;
    float2* aside = kept + ((position)split * channels + channel) * POINTS + t;
    float2 x[16], z[16], w[4];
    float2* sum = memory + blockDim.y * Plan<POINTS>::padded + threadIdx.y * POINTS + t;  // registers are short
    roots<POINTS>(w, t);
#pragma unroll
    for (int e = 0; e < 16 && !KEEP; ++e) sum[e * (POINTS / 16)] = make_float2(0.0f, 0.0f);
    for (int step = 0; step < steps; ++step) {
        const bool inside = live && split + step * splits < pairs;
        const int pair = inside ? split + step * splits : 0;
        load<POINTS>(z, u, pair, channel, batch, channels, length, t);
        forward<POINTS, POINTS, Rows<REAL>::half>(z, w, shared, t);
        if constexpr (KEEP) {
#pragma unroll
            for (int e = 0; e < 16; ++e) aside[e * (POINTS / 16)] = z[e];
        }
        load<POINTS>(x, dy, pair, channel, batch, channels, length, t);
        forward<POINTS, POINTS, Rows<REAL>::half>(x, w, shared, t);
#pragma unroll
        for (int e = 0; e < 16; ++e) {
            const float2 a = KEEP ? aside[e * (POINTS / 16)] : z[e], s = taps[e * (POINTS / 16)];
            const float2 product = make_float2(a.x * x[e].x + a.y * x[e].y, a.x * x[e].y - a.y * x[e].x);
            if constexpr (KEEP) {
                if (inside) sums[e * (POINTS / 16)] = step ? plus(sums[e * (POINTS / 16)], product) : product;
            } else if (inside) {
                sum[e * (POINTS / 16)] = plus(sum[e * (POINTS / 16)], product);
            }
            x[e] = times(x[e], make_float2(s.x, -s.y));
        }
        inverse<POINTS, POINTS>(x, w, shared, t);
        if (inside) store<POINTS>(x, du, pair, channel, batch, channels, length, t);
    }
    if constexpr (!KEEP) {
        if (live) {
#pragma unroll
            for (int e = 0; e < 16; ++e) sums[e * (POINTS / 16)] = sum[e * (POINTS / 16)];
        }
    }
}

// the gradient of the taps (channels, length) from its spectra (splits, channels, POINTS)
template <int POINTS, class REAL>
__global__ __launch_bounds__(Plan<POINTS>::block) void gradient(
    const float2* partial, REAL* out, int channels, int length, int splits, int total) {
    const int t = threadIdx.x;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const int channel = unit < channels ? (int)unit : channels - 1;
    float2 x[16], w[4];
    roots<POINTS>(w, t);
    load<POINTS>(x, partial, 0, channel, 0, channels, 0, t);
    for (int split = 1; split < splits; ++split) {
        const float2* more = partial + ((position)split * channels + channel) * POINTS + t;
#pragma unroll
        for (int e = 0; e < 16; ++e) x[e] = plus(x[e], more[e * (POINTS / 16)]);
    }
    const float scale = 1.0f / (float)total;
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = scaled(x[e], scale);
    inverse<POINTS, POINTS>(x, w, memory + threadIdx.y * Plan<POINTS>::padded, t);
    if (unit < channels) store<POINTS>(x, out, 0, channel, 1, channels, length, t);
}

// ---- long rows on Hopper: RADIX blocks of a cluster hold RADIX * POINTS points, and do the pass over the whole row among themselves ----

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#ifdef __CUDACC_RTC__
#define CLUSTER(size) __cluster_dims__(size, 1, 1)
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// into the same place of the shared memory of another block of the cluster
__device__ __forceinline__ void put(float2* place, int rank, float2 value) {
    asm volatile(
        "{.reg .u32 a;\n\tmapa.shared::cluster.u32 a, %0, %1;\n\tst.shared::cluster.v2.f32 [a], {%2, %3};}"
        :: "r"((unsigned)__cvta_generic_to_shared(place)), "r"(rank), "f"(value.x), "f"(value.y) : "memory");
}
__device__ __forceinline__ float2* own(float2* base) { return base; }
#endif

// Rows first and second of REAL, real and imaginary part; this block does the columns rank * POINTS / RADIX and on, and gets the part `rank`.
template <int POINTS, int RADIX, class REAL>
__device__ __forceinline__ void scatter(float2* x, const REAL* first, const REAL* second, int length, int rank, float2* shared, int t) {
    fresh(t);
    cluster_barrier();  // the others have begun, and have read what lies in their memory
#pragma unroll
    for (int c = 0; c < 16 / RADIX; ++c) {
        const int n = (rank * (16 / RADIX) + c) * (POINTS / 16) + t;
        float2* y = x + c * RADIX;
#pragma unroll
        for (int k = 0; k < RADIX; ++k) {
            const int at = k * POINTS + n;
            const bool there = k < RADIX / 2 && at < length;
            y[k] = make_float2(there ? wide(first[at]) : 0.0f, there && second ? wide(second[at]) : 0.0f);
        }
        butterfly<RADIX, false>(y);
        twiddle<RADIX, false>(y, root(n, RADIX * POINTS));
#pragma unroll
        for (int m = 0; m < RADIX; ++m) put(shared + n + n / 16, m, y[m]);
    }
    cluster_barrier();
    const float2* in = shared + Place<POINTS, POINTS>::base(t);
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = in[Place<POINTS, POINTS>::offset(e)];
}

template <int POINTS, int RADIX, class REAL>
__device__ __forceinline__ void collect(float2* x, REAL* first, REAL* second, int length, int rank, float2* shared, int t) {
    constexpr int columns = POINTS / RADIX;
    fresh(t);
    cluster_barrier();
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int at = rank * columns + e % (16 / RADIX) * (POINTS / 16) + t;
        put(shared + at + at / 16, e * RADIX / 16, x[e]);
    }
    cluster_barrier();
#pragma unroll
    for (int c = 0; c < 16 / RADIX; ++c) {
        const int here = c * (POINTS / 16) + t, n = rank * columns + here;
        float2* y = x + c * RADIX;
#pragma unroll
        for (int m = 0; m < RADIX; ++m) {
            const int at = m * columns + here;
            y[m] = shared[at + at / 16];
        }
        twiddle<RADIX, true>(y, root(n, RADIX * POINTS));
        butterfly<RADIX, true>(y);
#pragma unroll
        for (int k = 0; k < RADIX / 2; ++k) {
            const int at = k * POINTS + n;
            if (at < length && first) narrow(y[k].x, first + at);
            if (at < length && second) narrow(y[k].y, second + at);
        }
    }
}

// as `convolve`, for channels first ... first + count; spectra (count, RADIX, POINTS)
template <int POINTS, int RADIX, class REAL>
__global__ CLUSTER(RADIX) __launch_bounds__(Plan<POINTS>::block, 1024 / Plan<POINTS>::block) void convolve_long(
    const REAL* u, const float2* spectra, REAL* y, int batch, int channels, int length, int first, int count, int adjoint) {
    const int t = threadIdx.x, rank = blockIdx.x % RADIX, unit = blockIdx.x / RADIX, pairs = (batch + 1) / 2;
    const int channel = unit / pairs, pair = unit % pairs;
    const position row = ((position)(2 * pair) * channels + first + channel) * length, next = row + (position)channels * length;
    const bool both = 2 * pair + 1 < batch;
    const float side = adjoint ? -1.0f : 1.0f;
    const float2* taps = spectra + ((position)channel * RADIX + rank) * POINTS + t;
    float2 x[16], w[4];
    float2* shared = own(memory);
    roots<POINTS>(w, t);
    scatter<POINTS, RADIX, REAL>(x, u + row, both ? u + next : nullptr, length, rank, shared, t);
    forward<POINTS, POINTS, false>(x, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const float2 s = taps[e * (POINTS / 16)];
        x[e] = times(x[e], make_float2(s.x, side * s.y));
    }
    inverse<POINTS, POINTS>(x, w, shared, t);
    collect<POINTS, RADIX, REAL>(x, y + row, both ? y + next : nullptr, length, rank, shared, t);
}

// as `backward`, for channels first ... first + count; spectra (count, RADIX, POINTS), partial (splits, count, RADIX, POINTS)
template <int POINTS, int RADIX, class REAL>
__global__ CLUSTER(RADIX) __launch_bounds__(Plan<POINTS>::block, 512 / Plan<POINTS>::block) void backward_long(
    const REAL* u, const REAL* dy, const float2* spectra, REAL* du, float2* partial,
    int batch, int channels, int length, int first, int count, int splits) {
    const int t = threadIdx.x, rank = blockIdx.x % RADIX, unit = blockIdx.x / RADIX, pairs = (batch + 1) / 2;
    const int channel = unit % count, split = unit / count;
    const float2* taps = spectra + ((position)channel * RADIX + rank) * POINTS + t;
    float2* sums = partial + ((position)unit * RADIX + rank) * POINTS + t;
    float2 x[16], z[16], w[4];
    float2* shared = own(memory);
    float2* sum = shared + Plan<POINTS>::padded + t;  // registers are short
    roots<POINTS>(w, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) sum[e * (POINTS / 16)] = make_float2(0.0f, 0.0f);
    for (int pair = split; pair < pairs; pair += splits) {
        const position row = ((position)(2 * pair) * channels + first + channel) * length, next = row + (position)channels * length;
        const bool both = 2 * pair + 1 < batch;
        scatter<POINTS, RADIX, REAL>(z, u + row, both ? u + next : nullptr, length, rank, shared, t);
        forward<POINTS, POINTS, false>(z, w, shared, t);
        scatter<POINTS, RADIX, REAL>(x, dy + row, both ? dy + next : nullptr, length, rank, shared, t);
        forward<POINTS, POINTS, false>(x, w, shared, t);
#pragma unroll
        for (int e = 0; e < 16; ++e) {
            const float2 s = taps[e * (POINTS / 16)];
            const float2 product = make_float2(z[e].x * x[e].x + z[e].y * x[e].y, z[e].x * x[e].y - z[e].y * x[e].x);
            sum[e * (POINTS / 16)] = plus(sum[e * (POINTS / 16)], product);
            x[e] = times(x[e], make_float2(s.x, -s.y));
        }
        inverse<POINTS, POINTS>(x, w, shared, t);
        collect<POINTS, RADIX, REAL>(x, du + row, both ? du + next : nullptr, length, rank, shared, t);
    }
#pragma unroll
    for (int e = 0; e < 16; ++e) sums[e * (POINTS / 16)] = sum[e * (POINTS / 16)];
}
#endif

// ---- long rows: the pass of radix RADIX over channels first ... first + count of (batch, channels, length) ----

template <int RADIX, class REAL>
__global__ __launch_bounds__(256) void split(
    const REAL* u, float2* rows, int batch, int channels, int length, int first, int count, int points) {
    const position flat = (position)blockIdx.x * blockDim.x + threadIdx.x;
    const int n = (int)(flat % points);
    const position unit = flat / points;
    const int pair = (int)(unit / count), channel = first + (int)(unit % count);
    if (2 * pair >= batch) return;
    const bool both = 2 * pair + 1 < batch;
    const REAL* one = u + ((position)(2 * pair) * channels + channel) * length;
    const REAL* other = one + (position)channels * length;
    float2 x[RADIX];
#pragma unroll
    for (int k = 0; k < RADIX; ++k) {
        const position at = (position)k * points + n;
        const bool there = k < RADIX / 2 && at < length;
        x[k] = make_float2(there ? wide(one[at]) : 0.0f, there && both ? wide(other[at]) : 0.0f);
    }
    butterfly<RADIX, false>(x);
    twiddle<RADIX, false>(x, root(n, RADIX * points));
#pragma unroll
    for (int m = 0; m < RADIX; ++m) rows[(unit * RADIX + m) * points + n] = x[m];
}

template <int RADIX, class REAL>
__global__ __launch_bounds__(256) void join(
    const float2* rows, REAL* y, int batch, int channels, int length, int first, int count, int points) {
    const position flat = (position)blockIdx.x * blockDim.x + threadIdx.x;
    const int n = (int)(flat % points);
    const position unit = flat / points;
    const int pair = (int)(unit / count), channel = first + (int)(unit % count);
    if (2 * pair >= batch) return;
    const bool both = 2 * pair + 1 < batch;
    REAL* one = y + ((position)(2 * pair) * channels + channel) * length;
    REAL* other = one + (position)channels * length;
    float2 x[RADIX];
#pragma unroll
    for (int m = 0; m < RADIX; ++m) x[m] = rows[(unit * RADIX + m) * points + n];
    twiddle<RADIX, true>(x, root(n, RADIX * points));
    butterfly<RADIX, true>(x);
#pragma unroll
    for (int k = 0; k < RADIX / 2; ++k) {
        const position at = (position)k * points + n;
        if (at < length) narrow(x[k].x, one + at);
        if (at < length && both) narrow(x[k].y, other + at);
    }
}

// ---- (batch, rows, columns) to (batch, columns, rows), in tiles of 64 x 64 by 256 threads; layers hold channels last ----

template <class REAL>
__global__ __launch_bounds__(256) void transpose(const REAL* in, REAL* out, int rows, int columns) {
    REAL* tile = (REAL*)memory;
    const int across = (columns + 63) / 64, down = (rows + 63) / 64, t = threadIdx.x;
    const int c = blockIdx.x % across * 64, r = blockIdx.x / across % down * 64;
    const position start = (position)(blockIdx.x / across / down) * rows * columns;
#pragma unroll
    for (int i = t / 64; i < 64; i += 4)
        if (r + i < rows && c + t % 64 < columns) tile[i * 65 + t % 64] = in[start + (position)(r + i) * columns + c + t % 64];
    __syncthreads();
#pragma unroll
    for (int i = t / 64; i < 64; i += 4)
        if (c + i < columns && r + t % 64 < rows) out[start + (position)(c + i) * rows + r + t % 64] = tile[t % 64 * 65 + i];
}
