// As rational_taps.cu, which stands above this, of rows too long for one block: RADIX * POINTS points, the first pass of radix RADIX.
// Row m of that pass (decimation in frequency) holds the points m, m + RADIX, ... of the circle. All that goes in and comes out is real:
// rows 0 ... RADIX / 2 are enough, the others are their conjugates. Coefficients are folded into a row as they are read.

// x[e] *= exp(-2 pi i n m / (RADIX * POINTS)) at n = e * POINTS / 16 + t, or back
template <int POINTS, int RADIX, bool INVERSE>
__device__ __forceinline__ void twist(float2* x, int m, int t) {
    twiddle<16, INVERSE>(x, root(m, 16 * RADIX));
    float2 first = root(m * t, RADIX * POINTS);
    if (INVERSE) first.y = -first.y;
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = times(x[e], first);
}

// the spectrum of row m of [lead, row_1 .. row_order, 0 ...]
template <int POINTS, int RADIX>
__device__ __forceinline__ void folded(float2* x, const float* row, float lead, int order, int m, const float2* w, float2* shared, int t) {
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = make_float2(0.0f, 0.0f);
    for (int k = 0; k * POINTS <= order; ++k) {
        const float2 turn = root(k * m % RADIX, RADIX);
#pragma unroll
        for (int e = 0; e < 16; ++e) {
            const int n = k * POINTS + e * (POINTS / 16) + t;
            x[e] = plus(x[e], scaled(turn, n == 0 ? lead : n <= order ? row[n - 1] : 0.0f));
        }
    }
    twist<POINTS, RADIX, false>(x, m, t);
    forward<POINTS, POINTS, false>(x, w, shared, t);
}

template <int POINTS, int RADIX>
__device__ __forceinline__ void unfolded(float2* x, float2* out, int count, int m, const float2* w, float2* shared, int t, bool inside) {
    inverse<POINTS, POINTS>(x, w, shared, t);
    twist<POINTS, RADIX, true>(x, m, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int n = e * (POINTS / 16) + t;
        if (inside && n < count) out[n] = x[e];
    }
}

// rows (channels, RADIX / 2 + 1, POINTS) of the taps
template <int POINTS, int RADIX>
__global__ __launch_bounds__(Plan<POINTS>::block) void rational_rows(
    const float* b, const float* a, float2* rows, int channels, int order, int sharing) {
    const int t = threadIdx.x, kept = RADIX / 2 + 1;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const bool inside = unit < (position)channels * kept;
    const int channel = inside ? (int)(unit / kept) : 0, m = inside ? (int)(unit % kept) : 0;
    float2* shared = memory + threadIdx.y * Plan<POINTS>::padded;
    float2 x[16], pole[16], w[4];
    roots<POINTS>(w, t);
    folded<POINTS, RADIX>(pole, a + (position)(channel / sharing) * order, 1.0f, order, m, w, shared, t);
    folded<POINTS, RADIX>(x, b + (position)channel * order, 0.0f, order, m, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = times(scaled(x[e], 1.0f / (POINTS * RADIX)), reciprocal(pole[e]));
    unfolded<POINTS, RADIX>(x, rows + ((position)channel * kept + m) * POINTS, POINTS, m, w, shared, t, inside);
}

// rows of the gradients of b, in the place of those of the gradient of the taps, and `count` entries of each row of those of a
template <int POINTS, int RADIX>
__global__ __launch_bounds__(Plan<POINTS>::block) void rational_rows_gradient(
    const float* b, const float* a, float2* rows, float2* moved, int count, int channels, int order, int sharing) {
    const int t = threadIdx.x, kept = RADIX / 2 + 1;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const bool inside = unit < (position)channels * kept;
    const int channel = inside ? (int)(unit / kept) : 0, m = inside ? (int)(unit % kept) : 0;
    float2* shared = memory + threadIdx.y * Plan<POINTS>::padded;
    float2* own = rows + ((position)channel * kept + m) * POINTS;
    float2 x[16], slope[16], kernel[16], w[4];
    roots<POINTS>(w, t);
    folded<POINTS, RADIX>(slope, a + (position)(channel / sharing) * order, 1.0f, order, m, w, shared, t);
    folded<POINTS, RADIX>(kernel, b + (position)channel * order, 0.0f, order, m, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) slope[e] = reciprocal(slope[e]), kernel[e] = times(kernel[e], slope[e]);
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = own[e * (POINTS / 16) + t];
    twist<POINTS, RADIX, false>(x, m, t);
    forward<POINTS, POINTS, false>(x, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        slope[e] = times(scaled(x[e], 1.0f / (POINTS * RADIX)), make_float2(slope[e].x, -slope[e].y));
        kernel[e] = times(slope[e], make_float2(-kernel[e].x, kernel[e].y));
    }
    unfolded<POINTS, RADIX>(slope, own, count, m, w, shared, t, inside);
    unfolded<POINTS, RADIX>(kernel, moved + ((position)channel * kept + m) * count, count, m, w, shared, t, inside);
}

// element n of every part of a real row, from its rows `width` apart
template <int RADIX>
__device__ __forceinline__ void parts(float2* x, const float2* rows, int width) {
#pragma unroll
    for (int m = 0; m <= RADIX / 2; ++m) x[m] = rows[m * width];
#pragma unroll
    for (int m = 1; m < RADIX / 2; ++m) x[RADIX - m] = make_float2(x[m].x, -x[m].y);
    butterfly<RADIX, true>(x);
}

// taps (channels, RADIX * POINTS) of their rows
template <int POINTS, int RADIX>
__global__ __launch_bounds__(256) void rational_join(const float2* rows, const float* through, float* taps, int channels) {
    const position flat = (position)blockIdx.x * blockDim.x + threadIdx.x;
    const int n = (int)(flat % POINTS), channel = (int)(flat / POINTS);
    if (channel >= channels) return;
    float2 x[RADIX];
    parts<RADIX>(x, rows + (position)channel * (RADIX / 2 + 1) * POINTS + n, POINTS);
    float* out = taps + (position)channel * (RADIX * POINTS) + n;
#pragma unroll
    for (int k = 0; k < RADIX; ++k) out[k * POINTS] = n + k == 0 ? through[channel] : x[k].x;
}

// rows of the gradient of the taps, without tap 0, which goes to `dthrough`
template <int POINTS, int RADIX>
__global__ __launch_bounds__(256) void rational_split(const float* gradient, float2* rows, float* dthrough, int channels) {
    const position flat = (position)blockIdx.x * blockDim.x + threadIdx.x;
    const int n = (int)(flat % POINTS), channel = (int)(flat / POINTS);
    if (channel >= channels) return;
    const float* from = gradient + (position)channel * (RADIX * POINTS) + n;
    float2 x[RADIX];
#pragma unroll
    for (int k = 0; k < RADIX; ++k) x[k] = make_float2(n + k == 0 ? 0.0f : from[k * POINTS], 0.0f);
    if (n == 0) dthrough[channel] = from[0];
    butterfly<RADIX, false>(x);
    float2* out = rows + (position)channel * (RADIX / 2 + 1) * POINTS + n;
#pragma unroll
    for (int m = 0; m <= RADIX / 2; ++m) out[m * POINTS] = x[m];
}

// gradients (channels, order) of b and a from their rows; `count` entries of each row are there
template <int POINTS, int RADIX>
__global__ __launch_bounds__(256) void rational_join_gradient(
    const float2* rows, const float2* moved, float* db, float* da, int count, int channels, int order) {
    const position flat = (position)blockIdx.x * blockDim.x + threadIdx.x;
    const int n = (int)(flat % count), channel = (int)(flat / count);
    if (channel >= channels) return;
    const position row = (position)channel * (RADIX / 2 + 1);
    float2 x[RADIX], y[RADIX];
    parts<RADIX>(x, rows + row * POINTS + n, POINTS);
    parts<RADIX>(y, moved + row * count + n, count);
#pragma unroll
    for (int k = 0; k < RADIX; ++k) {
        const int at = k * POINTS + n;
        if (at > 0 && at <= order) {
            db[(position)channel * order + at - 1] = x[k].x;
            da[(position)channel * order + at - 1] = y[k].x;
        }
    }
}
