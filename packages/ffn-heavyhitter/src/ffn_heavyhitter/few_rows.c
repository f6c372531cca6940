/* y_t = W x_t for few t: quantise x to 16 or 8 bits, multiply with int8 rows, add exactly, scale. See int8_rows.py. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define BLOCK 8192 /* products of 16 and 8 bits whose sums fit 32 bits in every lane */
#define TOGETHER 16 /* rows that a thread takes at a time */

static int64_t dot(const int8_t *w, const int16_t *v, int64_t columns) {
    int64_t total = 0, k = 0;
    while (k < columns) {
        int64_t stop = k + BLOCK < columns ? k + BLOCK : columns;
#if defined(__AVX512BW__)
        __m512i sum = _mm512_setzero_si512();
        for (; k + 32 <= stop; k += 32) {
            __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(w + k)));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(wide, _mm512_loadu_si512((const void *)(v + k))));
        }
        __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sum));
        __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sum, 1));
        total += _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
#elif defined(__AVX2__)
        __m256i sum = _mm256_setzero_si256();
        int32_t lanes[8];
        for (; k + 16 <= stop; k += 16) {
            __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + k)));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(wide, _mm256_loadu_si256((const __m256i *)(v + k))));
        }
        _mm256_storeu_si256((__m256i *)lanes, sum);
        for (int i = 0; i < 8; i++) total += lanes[i];
#endif
        for (; k < stop; k++) total += (int32_t)w[k] * (int32_t)v[k];
    }
    return total;
}

/* Returns 0, or 1 where memory is short. */
int few_rows(const float *x, const int8_t *codes, const float *scale, float *y, int64_t count, int64_t rows,
             int64_t columns, float steps, float smallest, int threads) {
    int16_t *v = malloc((size_t)(count * columns) * sizeof *v);
    float *back = malloc((size_t)count * sizeof *back);
    if (v == NULL || back == NULL) {
        free(v);
        free(back);
        return 1;
    }
    for (int64_t t = 0; t < count; t++) {
        const float *row = x + t * columns;
        float largest = smallest;
        int finite = 1;
        for (int64_t k = 0; k < columns; k++) {
            float size = fabsf(row[k]);
            finite &= size <= 3.4028234e38f;
            largest = size > largest ? size : largest;
        }
        float forth = steps / largest;
        back[t] = finite ? largest / steps : NAN;
        for (int64_t k = 0; k < columns; k++) v[t * columns + k] = finite ? (int16_t)rintf(row[k] * forth) : 0;
    }
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < rows; first += TOGETHER) {
        int64_t stop = first + TOGETHER < rows ? first + TOGETHER : rows;
        for (int64_t n = first; n < stop; n++)
            for (int64_t t = 0; t < count; t++)
                y[t * rows + n] = scale[n] * (float)dot(codes + n * columns, v + t * columns, columns) * back[t];
    }
    free(v);
    free(back);
    return 0;
}
