// Taps of rational functions, and their gradients: the transforms of fft_convolution.cu, which stands above this when it is compiled.
// Spectra are products and quotients element by element, so that their digits stay reversed. Two Hermitian spectra of gradients, P + i Q,
// take one inverse transform, whose real and imaginary part they are.

// [lead, row_1 .. row_order, 0 ...] as real numbers; the second half is zero
template <int POINTS>
__device__ __forceinline__ void coefficients(float2* x, const float* row, float lead, float scale, int order, int t) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const int n = e * (POINTS / 16) + t;
        x[e] = make_float2(n == 0 ? lead : n <= order ? scale * row[n - 1] : 0.0f, 0.0f);
    }
}

__device__ __forceinline__ float2 reciprocal(float2 a) {
    const float size = fmaxf(fabsf(a.x), fabsf(a.y));
    const float x = a.x / size, y = a.y / size, square = (x * x + y * y) * size;
    return make_float2(x / square, -y / square);
}

// 1 / (1 + a) at the points of the circle
template <int POINTS>
__device__ __forceinline__ void all_pole(float2* x, const float* a, int order, const float2* w, float2* shared, int t) {
    coefficients<POINTS>(x, a, 1.0f, 1.0f, order, t);
    forward<POINTS, POINTS, true>(x, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = reciprocal(x[e]);
}

// the exponent of two of the largest of `count` numbers, between -100 and 100
template <int POINTS>
__device__ __forceinline__ int exponent(const float* row, int count, float2* shared, int t) {
    float largest = 0.0f;
    for (int n = t; n < count; n += POINTS / 16) largest = fmaxf(largest, fabsf(row[n]));
    shared[t].x = largest;
    for (int half = POINTS / 32; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) shared[t].x = fmaxf(shared[t].x, shared[t + half].x);
    }
    __syncthreads();
    largest = shared[0].x;
    const int found = (int)(__float_as_uint(largest) >> 23) - 127;
    return largest == 0.0f ? 0 : found < -100 ? -100 : found > 100 ? 100 : found;
}

__device__ __forceinline__ float power_of_two(int e) { return __uint_as_float((unsigned)(127 + e) << 23); }

// taps (channels, POINTS) of b (channels, order) over 1 + a (channels / sharing, order), tap 0 from `through` (channels,)
template <int POINTS>
__global__ __launch_bounds__(Plan<POINTS>::block) void rational_taps(
    const float* b, const float* a, const float* through, float* taps, int channels, int order, int sharing) {
    const int t = threadIdx.x;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const int channel = unit < channels ? (int)unit : channels - 1;
    float2* shared = memory + threadIdx.y * Plan<POINTS>::padded;
    float2 x[16], pole[16], w[4];
    roots<POINTS>(w, t);
    all_pole<POINTS>(pole, a + (position)(channel / sharing) * order, order, w, shared, t);
    coefficients<POINTS>(x, b + (position)channel * order, 0.0f, 1.0f, order, t);
    forward<POINTS, POINTS, true>(x, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) x[e] = times(scaled(x[e], 1.0f / POINTS), pole[e]);
    inverse<POINTS, POINTS>(x, w, shared, t);
    float* row = taps + (position)channel * POINTS;
    if (unit >= channels) return;
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int n = e * (POINTS / 16) + t;
        row[n] = n == 0 ? through[channel] : x[e].x;
    }
}

// gradients of b, a (channels, order: of each channel, shared or not) and `through` from that of the taps
template <int POINTS>
__global__ __launch_bounds__(Plan<POINTS>::block) void rational_taps_gradient(
    const float* b, const float* a, const float* gradient, float* db, float* da, float* dthrough, int channels, int order, int sharing) {
    const int t = threadIdx.x;
    const position unit = (position)blockIdx.x * blockDim.y + threadIdx.y;
    const int channel = unit < channels ? (int)unit : channels - 1;
    float2* shared = memory + threadIdx.y * Plan<POINTS>::padded;
    const float* numerator = b + (position)channel * order;
    const float* from = gradient + (position)channel * POINTS;
    float2 x[16], pole[16], kernel[16], w[4];
    roots<POINTS>(w, t);
    // both gradients of one size before they share a transform: else the rounding of the one would drown the other
    const int size = exponent<POINTS>(numerator, order, shared, t);
    all_pole<POINTS>(pole, a + (position)(channel / sharing) * order, order, w, shared, t);
    coefficients<POINTS>(kernel, numerator, 0.0f, power_of_two(-size), order, t);
    forward<POINTS, POINTS, true>(kernel, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) kernel[e] = times(kernel[e], pole[e]);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int n = e * (POINTS / 16) + t;
        x[e] = make_float2(n == 0 ? 0.0f : from[n], 0.0f);
    }
    forward<POINTS, POINTS, false>(x, w, shared, t);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const float2 slope = times(scaled(x[e], 1.0f / POINTS), make_float2(pole[e].x, -pole[e].y));
        const float2 moved = times(slope, make_float2(-kernel[e].x, kernel[e].y));
        x[e] = make_float2(slope.x - moved.y, slope.y + moved.x);
    }
    inverse<POINTS, POINTS>(x, w, shared, t);
    if (unit >= channels) return;
    const float back = power_of_two(size);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
        const int n = e * (POINTS / 16) + t;
        if (n > 0 && n <= order) {
            db[(position)channel * order + n - 1] = x[e].x;
            da[(position)channel * order + n - 1] = back * x[e].y;
        }
    }
    if (t == 0) dthrough[channel] = from[0];
}
