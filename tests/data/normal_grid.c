/* This measures the errors of normal.h against double precision, for all 2**32 words or every step-th of them:
 *
 *     gcc -O3 -fopenmp -ffp-contract=off -fno-math-errno -Ifastdrop/kernels tests/data/normal_grid.c -lm -o grid
 *     ./grid [step]
 *
 * It prints the largest relative error of a radius, the largest radius, the largest error of a coordinate of a direction,
 * the mean of both coordinates, and the relative differences between the second and fourth moments of a normal and 1 and
 * 3. All words take a minute or two. */
#include <stdio.h>
#include <stdlib.h>

#include "normal.h"

static double radius_at(uint32_t word)
{
    float e, f;
    split_uniform(word, &e, &f);
    return radius_of(e, f, log_over_f(log_begun(f), f));
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

int main(int count, char **arguments)
{
    const int64_t step = count > 1 ? atoll(arguments[1]) : 1, words = ((INT64_C(1) << 32) + step - 1) / step;
    const double quarter_pi = atan(1);
    double radius_error = 0, largest = 0, direction_error = 0, mean = 0;
    double radius_2 = 0, radius_4 = 0, cosine_2 = 0, cosine_4 = 0;

#pragma omp parallel for reduction(max : radius_error, largest, direction_error) \
    reduction(+ : mean, radius_2, radius_4, cosine_2, cosine_4)
    for (int64_t n = 0; n < words; n++) {
        uint32_t word = (uint32_t)(n * step);
        double above = (0x1p32 - 0.5 - word) * 0x1p-32; /* 1 - u */
        double exact = sqrt(-2 * (word >> 31 ? log1p(-above) : log((word + 0.5) * 0x1p-32)));
        double radius = radius_at(word), square = radius * radius;
        float cosine, sine;
        double angle = (double)(int32_t)(word << 2 | 2) * 0x1p-31 * quarter_pi;
        double exact_cosine = word >> 31 ? -cos(angle) : cos(angle), exact_sine = sin(angle);
        int exchanged = word >> 30 & 1;
        normal_direction(word, &cosine, &sine);
        radius_error = larger(radius_error, fabs(radius / exact - 1));
        largest = larger(largest, radius);
        direction_error = larger(direction_error, fabs(cosine - (exchanged ? exact_sine : exact_cosine)));
        direction_error = larger(direction_error, fabs(sine - (exchanged ? exact_cosine : exact_sine)));
        mean += (double)cosine + sine;
        radius_2 += square;
        radius_4 += square * square;
        square = (double)cosine * cosine;
        cosine_2 += square;
        cosine_4 += square * square;
    }
    printf("%.3g %.9g %.3g %.3g %.3g %.3g\n", radius_error, largest, direction_error, mean / (2.0 * (double)words),
           radius_2 / (double)words * cosine_2 / (double)words - 1,
           radius_4 / (double)words * cosine_4 / (double)words / 3 - 1);
    return 0;
}
